"""The installation, the uploads, and what came back.

Comes in: users with uploads. Goes out: each user's recommendations and the time that each refresh took. Runs the real
consumers as processes on the broker and database that the settings name, or on embedded ones.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from zccr_stream import assemble
from zccr_stream.cli.demo.cast import Upload, User
from zccr_stream.cli.processes import ConsumerProcess
from zccr_stream.cli.upload import SOURCE, data_uri
from zccr_stream.embedded import Embedded
from zccr_stream.events import IMAGE, TEXT, AssetUploaded, Message, Record, dump_input, parse_recommendations
from zccr_stream.settings import Settings

START_TIMEOUT_S = 180.0
SETTLE_TIMEOUT_S = 300.0
_BATCH = 16
_POLL_S = 0.05


class DemoError(Exception):
    """The demo cannot go on; the message says where it stands."""


@dataclass(slots=True)
class Inbox:
    """The newest recommendations of each user, and when each arrived."""

    newest: dict[str, dict[str, Any]] = field(default_factory=dict)
    arrived_s: dict[str, float] = field(default_factory=dict)

    def take(self, records: Sequence[Record]) -> None:
        """Keep the greatest version of each user, as every subscriber should."""
        for record in records:
            user_id = (record.key or b"").decode(errors="replace")
            if record.value is None:
                self.newest.pop(user_id, None)
                continue
            recommendations = parse_recommendations(record.value)
            if recommendations["profile_version"] > self.version(user_id):
                self.newest[user_id] = recommendations
                self.arrived_s[user_id] = time.monotonic()

    def version(self, user_id: str) -> int:
        """The greatest version seen, 0 before the first."""
        return int(self.newest[user_id]["profile_version"]) if user_id in self.newest else 0


@dataclass(frozen=True, slots=True)
class Running:
    """A whole installation that runs, and what it publishes."""

    settings: Settings
    environment: Mapping[str, str]
    processes: Sequence[ConsumerProcess]
    inbox: Inbox

    def wait(self, condition: Callable[[], bool], timeout_s: float, what: str) -> None:
        """Wait for something that the processes bring about.

        Raises:
            DemoError: it did not happen in time.
        """
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            for process in self.processes:
                process.check()
            if time.monotonic() > deadline_s:
                raise DemoError(f"waited {timeout_s:.0f} s for {what}; the logs are in {self.processes[0].log.parent}")
            time.sleep(_POLL_S)

    def settled(self) -> bool:
        """Whether all uploads are ingested and all changed profiles refreshed."""
        state = assemble.status(self.settings)
        return not any(value for name, value in state.items() if "lag of" in name or "announced" in name)


@contextlib.contextmanager
def installation(console: Console) -> Iterator[Running]:
    """Broker, database, tables, topics and both consumers, up and ready; all of it down at the end."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zccr-demo-")))
        environment = {
            "ZCCR_ENCODER": "mini",
            # Topics of this run's own: the demo may run again, also on somebody's broker.
            "ZCCR_TOPIC_PREFIX": f"demo-{uuid.uuid4().hex[:8]}-",
            "ZCCR_PARTITIONS": "4",
            "ZCCR_METRICS_ADDRESS": "127.0.0.1",
            **{name: value for name, value in os.environ.items() if name.startswith("ZCCR_")},
        }
        environment |= _servers(stack, console)
        os.environ.update(environment)
        settings = Settings()
        console.print("making the tables and topics")
        assemble.migrate(settings)
        assemble.ensure_topics(settings)
        running = Running(settings, environment, _consumers(stack, environment, folder), Inbox())
        with console.status("starting both consumers; they load the encoder and catch up with the index"):
            running.wait(
                lambda: all(process.is_ready() for process in running.processes), START_TIMEOUT_S, "both consumers"
            )
        _follow(stack, running)
        yield running


def _servers(stack: contextlib.ExitStack, console: Console) -> dict[str, str]:
    """Embedded servers for what the environment does not name."""
    kafka = "ZCCR_BOOTSTRAP_SERVERS" not in os.environ
    postgres = "ZCCR_DATABASE_URL" not in os.environ
    if not kafka and not postgres:
        console.print("using the Kafka and PostgreSQL that the settings name")
        return {}
    console.print("starting " + " and ".join(["Apache Kafka"] * kafka + ["PostgreSQL"] * postgres))
    servers = stack.enter_context(Embedded(kafka=kafka, postgres=postgres, report=console.print))
    return ({"ZCCR_BOOTSTRAP_SERVERS": servers.bootstrap_servers} if kafka else {}) | (
        {"ZCCR_DATABASE_URL": servers.database_url} if postgres else {}
    )


def _consumers(stack: contextlib.ExitStack, environment: Mapping[str, str], folder: Path) -> Sequence[ConsumerProcess]:
    processes = []
    for name in ("ingest", "recommend"):
        process = ConsumerProcess.start(f"consumers.{name}", environment=environment, log=folder / f"{name}.log")
        stack.callback(process.stop, timeout_s=25)
        processes.append(process)
    return processes


def _follow(stack: contextlib.ExitStack, running: Running) -> None:
    """Receive the recommendations in a thread of its own until the installation goes down."""
    stop = threading.Event()
    follower = assemble.recommendations_follower(running.settings, running.inbox.take)
    thread = threading.Thread(target=follower.run, args=({}, stop, lambda: None), daemon=True)
    thread.start()
    stack.callback(thread.join, 5)
    stack.callback(stop.set)


def publish_all(running: Running, users: Sequence[User], console: Console) -> None:
    """Publish everything but each user's last upload, users mixed, and wait until it is worked through."""
    publisher = assemble.publisher(running.settings)
    uploads = _mixed([(user.user_id, upload) for upload in user.uploads[:-1]] for user in users)
    batches = [uploads[start : start + _BATCH] for start in range(0, len(uploads), _BATCH)]
    for batch in track(batches, description=f"publishing {len(uploads)} uploads", console=console):
        publisher.publish([message(user_id, upload) for user_id, upload in batch])
    publisher.close(5)
    with console.status("encoding, finding areas, recommending"):
        running.wait(running.settled, SETTLE_TIMEOUT_S, "all uploads to be recommended from")


def publish_last(running: Running, users: Sequence[User], console: Console) -> dict[str, float]:
    """Publish each user's last upload, one after another; the seconds from event to received recommendation."""
    publisher = assemble.publisher(running.settings)
    seconds = {}
    for user in track(users, description="one more upload each", console=console):
        before = running.inbox.version(user.user_id)
        started_s = time.monotonic()
        publisher.publish([message(user.user_id, user.uploads[-1])])
        running.wait(
            lambda user_id=user.user_id, before=before: running.inbox.version(user_id) > before,  # type: ignore[misc]
            SETTLE_TIMEOUT_S,
            f"{user.user_id}'s refresh",
        )
        seconds[user.user_id] = running.inbox.arrived_s[user.user_id] - started_s
    publisher.close(5)
    return seconds


def _mixed(lists: Iterator[list[tuple[str, Upload]]] | Sequence[list[tuple[str, Upload]]]) -> list[tuple[str, Upload]]:
    """Take in turns, as people's uploads come in."""
    queues = [list(reversed(items)) for items in lists]
    mixed = []
    while queues:
        mixed += [queue.pop() for queue in queues if queue]
        queues = [queue for queue in queues if queue]
    return mixed


def message(user_id: str, upload: Upload) -> Message:
    """An upload as `asset-uploaded`."""
    now_ns = time.time_ns()
    event = AssetUploaded(
        event_id=f"{upload.asset_id}@{now_ns}",
        occurred_at_ns=now_ns,
        received_at_ms=now_ns // 1_000_000,
        asset_id=upload.asset_id,
        user_id=user_id,
        modality=upload.modality,
        text=upload.item.sentence if upload.modality == TEXT else None,
        uri=data_uri(upload.item.photo) if upload.modality == IMAGE else None,
    )
    return dump_input(event, SOURCE)
