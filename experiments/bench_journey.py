"""Events in, recommendations out: how much of the encoder's speed is left, how long an upload takes, and where.

    python -m experiments.bench_journey [--encoder mini|vit|both] [--rates 1,10,100] [--seconds 30] [--media DIR]

Takes the Kafka and PostgreSQL that `ZCCR_BOOTSTRAP_SERVERS` and `ZCCR_DATABASE_URL` name, else embedded ones, with
topics and a database of its own; the consumers run as processes, as in production. `vit` is ViT-B/32 with random
weights: it costs what the trained one costs, and its recommendations mean nothing.

share    `Ingest` over prepared batches, with as many workers as the consumer has, and the bare encoder over the same
         contents already decoded; both take turns, in one process. Ratios of medians, by the clock and by CPU time.
backlog  what the ingest process makes of a full topic, alone
latency  open loop: uploads arrive at random at a given rate, whether or not the ones before are done. An upload's time
         runs from when it was due to be published until a subscriber has recommendations from a profile that holds it.
refresh  `experiments.bench_refresh`, in a process of its own: profiles of 10, 100 and 1,000 assets, and exact search
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from experiments.bench_ownership import empty_database
from experiments.journey import Journey, Readings, servers
from experiments.uploads import Media, made_media, message, read_media, uploads
from zccr_stream import assemble
from zccr_stream.events import ASSET_UPLOADED, MODALITIES, AssetUploaded, BadInputError, Record, TryLaterError
from zccr_stream.parts import Content, Encoder
from zccr_stream.pipeline import Ingest
from zccr_stream.settings import Settings

USERS = 200  # at 100 uploads a second each has one every two seconds
MIXED = "half and half"
IMAGE_SHARES = {"images": 1.0, MIXED: 0.5, "texts": 0.0}
Report = dict[str, Any]
console = Console(width=max(110, Console().width))


def main() -> None:
    """Run all parts, print their tables, and write all numbers as JSON where asked."""
    options = arguments()
    report: Report = {"machine": machine(), "date": time.strftime("%Y-%m-%d %H:%M")}
    console.print(f"{report['date']}, {report['machine']}")
    media = read_media(options.media) if options.media else made_media()
    with contextlib.ExitStack() as stack:
        os.environ.update(stack.enter_context(servers(console)))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zccr-bench-")))
        for name in ("mini", "vit") if options.encoder == "both" else (options.encoder,):
            report[name] = bench(name, media, options, folder)
        if options.vectors:
            report["refresh"] = refresh(options, folder)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


def arguments() -> argparse.Namespace:
    """What was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", choices=("mini", "vit", "both"), default="both")
    parser.add_argument("--rates", type=lambda text: [float(rate) for rate in text.split(",")], default=[1, 10, 100])
    parser.add_argument("--seconds", type=float, default=30, help="of uploads at each rate")
    parser.add_argument("--backlog", type=int, default=1024, help="uploads in the topic before ingest starts")
    parser.add_argument("--rounds", type=int, default=7, help="of ingest and the bare encoder in turn")
    parser.add_argument("--batches", type=int, default=6, help="batches in a round")
    parser.add_argument("--contents", nargs="+", choices=IMAGE_SHARES, default=list(IMAGE_SHARES), help="of the rounds")
    parser.add_argument("--vectors", type=int, default=1_000_000, help="in the index of the refreshes; 0: no refreshes")
    parser.add_argument("--media", type=Path, help="folder with captions.jsonl and images/, instead of made photos")
    parser.add_argument("--quick", action="store_true", help="a short look: few rounds, seconds and vectors")
    parser.add_argument("--json", type=Path, help="file for all numbers")
    options = parser.parse_args()
    if options.quick:
        options.seconds, options.backlog, options.rounds, options.batches = 10.0, 192, 3, 1
        options.vectors, options.contents = min(options.vectors, 50_000), [MIXED]
    return options


def bench(name: str, media: Media, options: argparse.Namespace, folder: Path) -> Report:
    """All of one encoder."""
    encoder = "mini" if name == "mini" else f"ViT-B-32/{random_weights(folder)}"
    report: Report = {}
    with installation(encoder) as settings:
        report["share"] = share(name, settings, media, options)
    with installation(encoder) as settings, Journey(settings, folder) as journey:
        report["backlog"] = backlog(name, journey, media, options.backlog)
        report["latency"] = latency(name, journey, media, options)
    return report


@contextlib.contextmanager
def installation(encoder: str) -> Iterator[Settings]:
    """A database and topics that nothing was written to."""
    with empty_database() as database_url:
        settings = Settings(encoder=encoder, database_url=database_url, topic_prefix=f"bench-{os.urandom(4).hex()}-")
        assemble.migrate(settings)
        assemble.ensure_topics(settings)
        yield settings


def random_weights(folder: Path) -> Path:
    """ViT-B/32 as it is before any training."""
    import open_clip
    import torch

    path = folder / "random.pt"
    if not path.exists():
        torch.manual_seed(0)
        torch.save(open_clip.create_model("ViT-B-32", pretrained=None).state_dict(), path)
    return path


# The share of the bare encoder's throughput


def share(name: str, settings: Settings, media: Media, options: argparse.Namespace) -> Report:
    """Ingest and the bare encoder in turn, for photos, texts and both."""
    encoder, contents = assemble.encoder(settings), assemble.contents(settings)
    truth, publisher = assemble.ownership(settings), assemble.publisher(settings)
    ingest = Ingest(contents, encoder, truth, publisher, settings.topic_prefix)
    report: Report = {}
    for kind in options.contents:
        stream = uploads(media, USERS, IMAGE_SHARES[kind])
        pairs = []
        for number in track(range(options.rounds + 1), f"{name}, {kind}", console=console, transient=True):
            batches = [list(islice(stream, settings.batch_max)) for _ in range(options.batches)]
            decoded = [_by_modality(batch, contents.load(batch)) for batch in batches]
            records = [[record(upload, settings.topic_prefix) for upload in batch] for batch in batches]
            work = [lambda: encode(encoder, decoded), lambda: ingest_all(ingest, records, settings.batches_in_flight)]  # noqa: B023
            took = {index: timed(work[index]) for index in ((0, 1) if number % 2 else (1, 0))}
            if number:  # the first round warms both up
                pairs.append((*took[0], *took[1]))
        bare_s, bare_cpu_s, ingest_s, ingest_cpu_s = np.array(pairs).T
        n = options.batches * settings.batch_max
        report[kind] = {
            "bare_per_s": n / float(np.median(bare_s)),
            "ingest_per_s": n / float(np.median(ingest_s)),
            "share": float(np.median(bare_s) / np.median(ingest_s)),
            "lowest": float((bare_s / ingest_s).min()),
            "highest": float((bare_s / ingest_s).max()),
            "cpu_share": float(np.median(bare_cpu_s) / np.median(ingest_cpu_s)),
        }
    publisher.close(5)
    truth.close()
    contents.close()
    table = titled(f"{name}: ingest as a share of the bare encoder ({options.rounds} rounds)", "", "bare, items/s")
    for column in ("ingest, items/s", "share", "lowest to highest", "share by CPU time"):
        table.add_column(column, justify="right")
    for kind, row in report.items():
        spread = f"{row['lowest']:.2f} to {row['highest']:.2f}"
        numbers = (f"{row['bare_per_s']:.1f}", f"{row['ingest_per_s']:.1f}", f"{row['share']:.2f}")
        table.add_row(kind, *numbers, spread, f"{row['cpu_share']:.2f}")
    console.print(table)
    return report


def _by_modality(
    batch: Sequence[AssetUploaded], outcomes: Sequence[Content | BadInputError | TryLaterError]
) -> dict[str, list[Content]]:
    contents: dict[str, list[Content]] = {modality: [] for modality in MODALITIES}
    for upload, outcome in zip(batch, outcomes, strict=True):
        if isinstance(outcome, BadInputError | TryLaterError):
            raise outcome
        contents[upload.modality].append(outcome)
    return contents


def record(upload: AssetUploaded, topic_prefix: str) -> Record:
    """The upload as a consumer gets it."""
    sent = message(upload)
    return Record(topic_prefix + ASSET_UPLOADED, 0, 0, upload.received_at_ms, sent.key, sent.value, sent.headers)


def encode(encoder: Encoder, batches: Sequence[dict[str, list[Content]]]) -> None:
    """The bare encoder."""
    for batch in batches:
        for modality, contents in batch.items():
            if contents:
                encoder.encode(modality, contents)


def ingest_all(ingest: Ingest, batches: Sequence[Sequence[Record]], workers: int) -> None:
    """Everything between an input topic and the output topics."""
    with ThreadPoolExecutor(workers) as pool:
        failures = [outcome for outcomes in pool.map(ingest, batches) for outcome in outcomes if outcome is not None]
    if failures:
        raise failures[0]


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds by the clock and of this process's CPU time."""
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - started_s, time.process_time() - started_cpu_s


# The processes


def backlog(name: str, journey: Journey, media: Media, count: int) -> Report:
    """Fill the topic, then start ingest alone, then let recommend catch up."""
    for upload in track(
        islice(uploads(media, USERS, IMAGE_SHARES[MIXED]), count), "backlog", count, console=console, transient=True
    ):
        journey.publish([upload])
    journey.start("ingest")
    journey.wait(lambda: journey.readings().items("own") >= count // 4, "the first quarter of the backlog")
    first, started_s = journey.readings(), time.monotonic()
    journey.wait(lambda: journey.readings().items("own") >= count, "the backlog")
    last, ended_s = journey.readings(), time.monotonic()
    per_s = (last.items("own") - first.items("own")) / (ended_s - started_s)
    journey.start("recommend")
    journey.wait(journey.settled, "the refreshes of the backlog")
    console.print(f"{name}: the ingest process took {per_s:.1f} uploads/s from a full topic, half of them photos")
    show_stages(f"{name}: a full topic", last - first)
    return {"uploads_per_s": per_s, "stages": (last - first).stages()}


def latency(name: str, journey: Journey, media: Media, options: argparse.Namespace) -> Report:
    """Each rate in turn; the next begins when the one before is worked through."""
    stream = uploads(media, USERS, IMAGE_SHARES[MIXED])
    report: Report = {}
    phase(journey, stream, 5, 3)  # the first refreshes of a process are slower: libraries load, pools fill
    for rate in options.rates:
        report[f"{rate:g}"] = phase(journey, stream, rate, options.seconds)
    table = titled(f"{name}: from event to recommendation, half photos, {options.seconds:g} s a rate", "uploads/s", "n")
    for column in ("p50 s", "p99 s", "worst s", "metric's p50 s", "metric's p99 s", "drained after s"):
        table.add_column(column, justify="right")
    for rate_text, row in report.items():
        numbers = ("p50_s", "p99_s", "worst_s", "metric_p50_s", "metric_p99_s", "drained_s")
        table.add_row(rate_text, str(row["n"]), *(f"{row[number]:.3f}" for number in numbers))
    console.print(table)
    for rate_text, row in report.items():
        show_stages(f"{name}: {rate_text} uploads/s", row.pop("readings"))
    return report


def phase(journey: Journey, stream: Iterator[AssetUploaded], rate: float, seconds: float) -> Report:
    """Uploads that arrive at random at this rate on average."""
    gaps = random.Random(2)
    due_s, dues_s = 0.0, []
    while (due_s := due_s + gaps.expovariate(rate)) < seconds:
        dues_s.append(due_s)
    before, started_s = journey.readings(), time.monotonic()
    expected = []
    waiting = list(reversed(dues_s or [seconds / 2]))
    n = len(waiting)
    while waiting:
        time.sleep(max(0.0, started_s + waiting[-1] - time.monotonic()))
        batch = []
        while waiting and started_s + waiting[-1] <= time.monotonic():
            batch.append((next(stream), started_s + waiting.pop()))
        numbers = journey.publish([upload for upload, _ in batch])
        expected += [(upload.user_id, number, due) for (upload, due), number in zip(batch, numbers, strict=True)]
    sent_s = time.monotonic()
    journey.wait(lambda: all(journey.inbox.covers(user, number) for user, number, _ in expected), "all refreshes")
    drained_s = time.monotonic() - sent_s
    took_s = [journey.inbox.covered_s(user, number) - due for user, number, due in expected]
    journey.wait(journey.settled, "the offsets' commit")
    readings = journey.readings() - before
    p50, p99 = (float(value) for value in np.percentile(took_s, (50, 99)))
    return {
        "n": n,
        "p50_s": p50,
        "p99_s": p99,
        "worst_s": max(took_s),
        "mean_s": statistics.fmean(took_s),
        "metric_p50_s": readings.event_to_recommendation_s(0.5),
        "metric_p99_s": readings.event_to_recommendation_s(0.99),
        "drained_s": drained_s,
        "stages": readings.stages(),
        "readings": readings,
    }


def show_stages(title: str, readings: Readings) -> None:
    """Where the time goes."""
    table = titled(f"{title}, where the time goes", "stage", "batches")
    for column in ("items a batch", "ms a batch", "ms an item", "share"):
        table.add_column(column, justify="right")
    stages = readings.stages()
    total_s = sum(stage["seconds"] for stage in stages.values())
    for name, stage in stages.items():
        batches, items, seconds = stage["batches"], max(1, stage["items"]), stage["seconds"]
        each = (f"{items / batches:.1f}", f"{1e3 * seconds / batches:.1f}", f"{1e3 * seconds / items:.2f}")
        table.add_row(name, f"{batches:.0f}", *each, f"{seconds / total_s:.1%}")
    console.print(table)


def refresh(options: argparse.Namespace, folder: Path) -> Report:
    """The refreshes, in a process with the threads that they are compared at."""
    path = folder / "refresh.json"
    command = [
        sys.executable,
        "-m",
        "experiments.bench_refresh",
        "--vectors",
        str(options.vectors),
        "--json",
        str(path),
    ]
    subprocess.run(command, check=True)
    report: Report = json.loads(path.read_text())
    return report


def titled(title: str, *columns: str) -> Table:
    """A table whose first column is text."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def machine() -> str:
    """What the numbers depend on."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{platform.machine()}, {os.cpu_count()} cores, load {load}"


if __name__ == "__main__":
    main()
