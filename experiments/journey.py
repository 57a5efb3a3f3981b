"""A whole installation for benchmarks: servers, both consumers as processes, a subscriber, and what they report.

Comes in: settings and uploads. Goes out: when which recommendations arrived, and the consumers' own metrics.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console

from experiments.uploads import message
from zccr_stream import assemble, oversight
from zccr_stream.cli.processes import ConsumerProcess
from zccr_stream.embedded import Embedded
from zccr_stream.events import AssetUploaded, Record, parse_recommendations
from zccr_stream.metrics import STAGES
from zccr_stream.parts import UnavailableError
from zccr_stream.settings import Settings

TIMEOUT_S = 600.0
_POLL_S = 0.05
_SAMPLE = re.compile(r'(zccr_\w+)\{(?:stage|le)="([^"]+)"\} (\S+)')
_LATENCY = "zccr_event_to_recommendation_seconds_bucket"


@contextlib.contextmanager
def servers(console: Console) -> Iterator[dict[str, str]]:
    """The settings that name Kafka and PostgreSQL; embedded ones where the environment names none."""
    kafka, postgres = "ZCCR_BOOTSTRAP_SERVERS" not in os.environ, "ZCCR_DATABASE_URL" not in os.environ
    named = {name: os.environ[name] for name in ("ZCCR_BOOTSTRAP_SERVERS", "ZCCR_DATABASE_URL") if name in os.environ}
    if not kafka and not postgres:
        yield named
        return
    with Embedded(kafka=kafka, postgres=postgres, start_timeout_s=150, report=console.print) as embedded:
        if kafka:
            named["ZCCR_BOOTSTRAP_SERVERS"] = embedded.bootstrap_servers
        if postgres:
            named["ZCCR_DATABASE_URL"] = embedded.database_url
        yield named


class Inbox:
    """When recommendations from how many of a user's assets arrived.

    Every asset of a profile is in one of its areas, so the areas' sizes say how many assets a refresh saw.
    """

    def __init__(self) -> None:
        self._arrivals: dict[str, list[tuple[int, float]]] = defaultdict(list)

    def take(self, records: Sequence[Record]) -> None:
        """Note what arrives."""
        now_s = time.monotonic()
        for record in records:
            if record.value is not None:
                recommendations = parse_recommendations(record.value)
                seen = sum(area["size"] for area in recommendations["areas"])
                self._arrivals[recommendations["user_id"]].append((seen, now_s))

    def covers(self, user_id: str, assets: int) -> bool:
        """Whether recommendations from at least so many assets arrived."""
        return any(seen >= assets for seen, _ in reversed(self._arrivals[user_id]))

    def covered_s(self, user_id: str, assets: int) -> float:
        """When the first such arrived, by the monotonic clock."""
        return next(at_s for seen, at_s in self._arrivals[user_id] if seen >= assets)


@dataclass(frozen=True)
class Readings:
    """What the processes counted so far; a difference of two is what they counted between."""

    values: Mapping[tuple[str, str], float] = field(default_factory=dict)

    def __sub__(self, earlier: Readings) -> Readings:
        return Readings({key: value - earlier.values.get(key, 0) for key, value in self.values.items()})

    def items(self, stage: str) -> float:
        """How many left a stage."""
        return self.values.get(("zccr_stage_items_out_total", stage), 0)

    def stages(self) -> dict[str, dict[str, float]]:
        """By stage, in the journey's order: batches, items and seconds, of the stages that did something."""
        counted = {
            stage: {
                "batches": self.values.get(("zccr_stage_duration_seconds_count", stage), 0),
                "items": self.items(stage),
                "seconds": self.values.get(("zccr_stage_duration_seconds_sum", stage), 0),
            }
            for stage in STAGES
        }
        return {stage: numbers for stage, numbers in counted.items() if numbers["batches"]}

    def event_to_recommendation_s(self, share: float) -> float:
        """A quantile of the consumer's own histogram, straight lines between the bounds of its buckets."""
        bounds = sorted((float(le), count) for (name, le), count in self.values.items() if name == _LATENCY)
        wanted = share * bounds[-1][1]
        lower, below = 0.0, 0.0
        for bound, count in bounds:
            if count >= wanted and count > below:
                return lower + (min(bound, 2 * lower) - lower) * (wanted - below) / (count - below) if lower else bound
            lower, below = bound, count
        return float("nan")


class Journey:
    """The installation while it runs, and its subscriber."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.inbox = Inbox()
        self._settings = settings
        self._folder = folder
        self._processes: list[ConsumerProcess] = []
        self._publisher = assemble.publisher(settings)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._subscribe, daemon=True)
        self._published: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.stop(timeout_s=25)
        self._stop.set()
        self._thread.join(10)
        self._publisher.close(5)

    def _subscribe(self) -> None:
        """Follow the recommendations; topics just made may have no leader yet."""
        while not self._stop.is_set():
            follower = oversight.recommendations_follower(self._settings, self.inbox.take)
            with contextlib.suppress(UnavailableError):
                follower.run({}, self._stop, lambda: None)
            self._stop.wait(_POLL_S)

    def start(self, name: str) -> None:
        """Start a consumer and wait until it is ready."""
        environment = {
            "ZCCR_ENCODER": self._settings.encoder,
            "ZCCR_DATABASE_URL": self._settings.database_url,
            "ZCCR_TOPIC_PREFIX": self._settings.topic_prefix,
            "ZCCR_METRICS_ADDRESS": "127.0.0.1",
        }
        log = self._folder / f"{self._settings.topic_prefix}{name}.log"
        process = ConsumerProcess.start(f"consumers.{name}", environment=environment, log=log)
        self._processes.append(process)
        self.wait(process.is_ready, f"{name} to be ready")

    def publish(self, uploads: Sequence[AssetUploaded]) -> list[int]:
        """Publish, and say of each upload how many its user has now."""
        self._publisher.publish([message(upload) for upload in uploads])
        numbers = []
        for upload in uploads:
            self._published[upload.user_id] += 1
            numbers.append(self._published[upload.user_id])
        return numbers

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something that the processes bring about."""
        deadline_s = time.monotonic() + TIMEOUT_S
        while not condition():
            for process in self._processes:
                process.check()
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"waited {TIMEOUT_S:.0f} s for {what}; the logs are in {self._folder}")
            time.sleep(_POLL_S)

    def settled(self) -> bool:
        """Whether everything is ingested, announced and refreshed."""
        state = oversight.status(self._settings)
        return not any(value for name, value in state.items() if "lag of" in name or "announced" in name)

    def readings(self) -> Readings:
        """The metrics of all processes together; no stage runs in two kinds of them."""
        values: dict[tuple[str, str], float] = defaultdict(float)
        for process in self._processes:
            for name, label, value in _SAMPLE.findall(process.metrics()):
                values[name, label] += float(value)
        return Readings(values)
