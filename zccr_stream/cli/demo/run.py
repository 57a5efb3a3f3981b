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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import track

from zccr_stream import assemble, oversight
from zccr_stream.cli.demo.cast import Upload, User
from zccr_stream.cli.newest import Newest
from zccr_stream.cli.processes import ConsumerProcess
from zccr_stream.cli.upload import SOURCE, fit, photo_uri
from zccr_stream.embedded import Embedded
from zccr_stream.events import IMAGE, TEXT, AssetUploaded, Message, dump_input
from zccr_stream.parts import Contents
from zccr_stream.settings import Settings

START_TIMEOUT_S = 180.0
SETTLE_TIMEOUT_S = 300.0
_BATCH = 16
_POLL_S = 0.05


class DemoError(Exception):
    """The demo cannot go on; the message says where it stands."""


@dataclass(frozen=True, slots=True)
class Running:
    """A whole installation that runs, and what it publishes."""

    settings: Settings
    environment: Mapping[str, str]
    processes: Sequence[ConsumerProcess]
    inbox: Newest

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
        state = oversight.status(self.settings)
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
        running = Running(settings, environment, _consumers(stack, environment, folder), Newest())
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
    follower = oversight.recommendations_follower(running.settings, running.inbox.take)
    thread = threading.Thread(target=follower.run, args=({}, stop, lambda: None), daemon=True)
    thread.start()
    stack.callback(thread.join, 5)
    stack.callback(stop.set)


def publish_all(running: Running, users: Sequence[User], console: Console) -> None:
    """Publish everything but each user's last upload, users mixed, and wait until it is worked through."""
    publisher, contents = assemble.publisher(running.settings), assemble.contents(running.settings)
    uploads = _mixed([(user.user_id, upload) for upload in user.uploads[:-1]] for user in users)
    batches = [uploads[start : start + _BATCH] for start in range(0, len(uploads), _BATCH)]
    for batch in track(batches, description=f"publishing {len(uploads)} uploads", console=console):
        publisher.publish(_messages(batch, contents))
    contents.close()
    publisher.close(5)
    with console.status("encoding, finding areas, recommending"):
        running.wait(running.settled, SETTLE_TIMEOUT_S, "all uploads to be recommended from")


def publish_last(running: Running, users: Sequence[User], console: Console) -> dict[str, float]:
    """Publish each user's last upload, one after another; the seconds from event to received recommendation."""
    publisher, contents = assemble.publisher(running.settings), assemble.contents(running.settings)
    seconds = {}
    for user in track(users, description="one more upload each", console=console):
        before = running.inbox.versions.get(user.user_id, 0)
        messages = _messages([(user.user_id, user.uploads[-1])], contents)
        started_s = time.monotonic()
        publisher.publish(messages)
        running.wait(
            lambda user_id=user.user_id, before=before: running.inbox.versions.get(user_id, 0) > before,  # type: ignore[misc]
            SETTLE_TIMEOUT_S,
            f"{user.user_id}'s refresh",
        )
        seconds[user.user_id] = running.inbox.arrived_s[user.user_id] - started_s
    contents.close()
    publisher.close(5)
    return seconds


def _mixed(lists: Iterable[list[tuple[str, Upload]]]) -> list[tuple[str, Upload]]:
    """Take in turns, as people's uploads come in."""
    queues = [list(reversed(items)) for items in lists]
    mixed = []
    while queues:
        mixed += [queue.pop() for queue in queues if queue]
        queues = [queue for queue in queues if queue]
    return mixed


def _messages(uploads: Sequence[tuple[str, Upload]], contents: Contents) -> list[Message]:
    """Uploads as `asset-uploaded`.

    Raises:
        DemoError: a photo that cannot be read.
    """
    messages = []
    for event in fit([_event(user_id, upload) for user_id, upload in uploads], contents):
        if not isinstance(event, AssetUploaded):
            raise DemoError(f"a photo cannot be used: {event}") from event
        messages.append(dump_input(event, SOURCE))
    return messages


def _event(user_id: str, upload: Upload) -> AssetUploaded:
    now_ns = time.time_ns()
    return AssetUploaded(
        event_id=f"{upload.asset_id}@{now_ns}",
        occurred_at_ns=now_ns,
        received_at_ms=now_ns // 1_000_000,
        asset_id=upload.asset_id,
        user_id=user_id,
        modality=upload.modality,
        text=upload.item.sentence if upload.modality == TEXT else None,
        uri=photo_uri(upload.item.photo) if upload.modality == IMAGE else None,
    )
