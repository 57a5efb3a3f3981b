"""A whole installation for journeys: its own database and topics, its consumers as processes, and a look at them."""

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from confluent_kafka import Consumer, KafkaError, TopicPartition
from confluent_kafka import Message as KafkaMessage

from tests.waiting import wait_until
from zccr_stream import assemble, oversight
from zccr_stream.cli.newest import Newest
from zccr_stream.cli.processes import ConsumerProcess
from zccr_stream.events import ASSET_EMBEDDED, RECOMMENDATIONS, InputEvent, Message, dump_input
from zccr_stream.settings import Settings
from zccr_stream.stream.records import record_of

START_TIMEOUT_S = 120
SETTLE_TIMEOUT_S = 120
SOURCE = "tests"


class Installation:
    """What an operator sets up, and what may be looked at from outside."""

    def __init__(self, bootstrap_servers: str, database_url: str, topic_prefix: str, folder: Path) -> None:
        self.environment = {
            "ZCCR_BOOTSTRAP_SERVERS": bootstrap_servers,
            "ZCCR_DATABASE_URL": database_url,
            "ZCCR_TOPIC_PREFIX": topic_prefix,
            "ZCCR_ENCODER": "mini",
            "ZCCR_PARTITIONS": "4",
            "ZCCR_METRICS_ADDRESS": "127.0.0.1",
            "ZCCR_SWEEP_INTERVAL_S": "0.5",
            "ZCCR_SWEEP_OLDER_THAN_S": "1",
            "ZCCR_RETRY_BACKOFF_MS": "50",
            "ZCCR_SESSION_TIMEOUT_MS": "6000",
            "OMP_NUM_THREADS": "1",
        }
        self.folder = folder
        self.processes: list[ConsumerProcess] = []
        self.settings = self.settings_with()
        self.publisher = assemble.publisher(self.settings)
        assemble.ensure_topics(self.settings)

    def settings_with(self, **changes: str) -> Settings:
        """The settings that a process of this installation reads."""
        before = dict(os.environ)
        try:
            os.environ.update(self.environment | changes)
            return Settings()
        finally:
            os.environ.clear()
            os.environ.update(before)

    def start(self, module: str, *arguments: str, **environment: str) -> ConsumerProcess:
        """Start a consumer; it may still be loading when this returns."""
        started = ConsumerProcess.start(
            module,
            *arguments,
            environment=self.environment | environment,
            log=self.folder / f"{module}-{len(self.processes)}.log",
        )
        self.processes.append(started)
        return started

    def wait_ready(self, *processes: ConsumerProcess) -> None:
        for started in processes:
            wait_until(started.is_ready, START_TIMEOUT_S, f"{started.log.name} is ready", poll_s=0.1)

    def close(self) -> None:
        for started in self.processes:
            if started.process.poll() is None:
                started.kill()
        self.publisher.close(5)

    def publish(self, events: Sequence[InputEvent | Message]) -> None:
        self.publisher.publish([event if isinstance(event, Message) else dump_input(event, SOURCE) for event in events])

    def wait_settled(self) -> None:
        """Wait until every event is ingested and announced and every change is refreshed."""

        def settled() -> bool:
            for started in self.processes:
                code = started.process.poll()
                assert code in (None, 0, -signal.SIGKILL), f"ended with {code}:\n{started.log.read_text()[-3000:]}"
            state = oversight.status(self.settings)
            return not any(count for name, count in state.items() if "lag of" in name or "announced" in name)

        wait_until(settled, SETTLE_TIMEOUT_S, "everything is ingested, announced and refreshed", poll_s=0.2)

    def truth(self) -> dict[str, list[Any]]:
        """The rows of PostgreSQL without the counters, whose values depend on the order of delivery."""
        engine = sa.create_engine(self.settings.database_url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            assets = connection.execute(
                sa.text(
                    "SELECT asset_id, user_id, modality, model, occurred_at_ns, deleted, event_id, embedding"
                    " FROM assets ORDER BY asset_id"
                )
            ).all()
            users = connection.execute(sa.text("SELECT user_id, deleted_at_ns FROM users ORDER BY user_id")).all()
        return {
            "registers": [tuple(row[:7]) for row in assets],
            "vectors": [None if row[7] is None else np.frombuffer(row[7], "<f2") for row in assets],
            "users": [tuple(row) for row in users if row[1] is not None],
        }

    def live(self) -> dict[str, tuple[str, str, int, bytes]]:
        """Live assets in PostgreSQL: owner, modality, revision, vector."""
        engine = sa.create_engine(self.settings.database_url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            rows = connection.execute(
                sa.text(
                    "SELECT asset_id, user_id, modality, revision, embedding FROM assets WHERE embedding IS NOT NULL"
                )
            )
            return {row[0]: (row[1], row[2], row[3], bytes(row[4])) for row in rows}

    def versions(self) -> dict[str, int]:
        engine = sa.create_engine(self.settings.database_url, poolclass=sa.NullPool)
        with engine.connect() as connection:
            rows = connection.execute(sa.text("SELECT user_id, profile_version FROM users WHERE profile_version > 0"))
            return {row[0]: row[1] for row in rows}

    def announced(self) -> dict[str, tuple[str, str, int, bytes]]:
        """What a recommender that starts from nothing ends up with: the last state of every asset in the topic."""
        newest: dict[str, tuple[str, str, int, bytes]] = {}
        revisions: dict[str, int] = {}
        for message in self.read(ASSET_EMBEDDED):
            record = record_of(message)
            headers = dict(record.headers)
            asset_id, revision = (record.key or b"").decode(), int(headers["revision"] or b"")
            # The last record of a key is what compaction keeps, so it must be the newest one.
            assert revision >= revisions.get(asset_id, 0), f"{asset_id}: {revision} after {revisions[asset_id]}"
            revisions[asset_id] = revision
            newest.pop(asset_id, None)
            if record.value is not None:
                owner, modality = (headers["user_id"] or b"").decode(), (headers["modality"] or b"").decode()
                newest[asset_id] = (owner, modality, revision, record.value)
        return newest

    def newest(self) -> Newest:
        """Each user's newest recommendations, by the contract."""
        newest = Newest()
        newest.take([record_of(message) for message in self.read(RECOMMENDATIONS)])
        return newest

    def recommendations(self) -> dict[str, dict[str, Any] | None]:
        return self.newest().by_user

    def recommended_versions(self) -> dict[str, int]:
        return self.newest().versions

    def read(self, topic: str) -> list[KafkaMessage]:
        """Everything in a topic."""
        name = self.settings.topic_prefix + topic
        consumer = Consumer(
            {
                "bootstrap.servers": self.settings.bootstrap_servers,
                "group.id": f"{name}-reader",
                "enable.partition.eof": True,
                "enable.auto.commit": False,
            }
        )
        numbers = list(consumer.list_topics(name, timeout=30).topics[name].partitions)
        consumer.assign([TopicPartition(name, number, 0) for number in numbers])
        messages: list[KafkaMessage] = []
        ended: set[int | None] = set()
        deadline_s = time.monotonic() + 60
        while len(ended) < len(numbers):
            assert time.monotonic() < deadline_s, f"{name} does not end"
            for message in consumer.consume(500, timeout=0.1):
                error = message.error()
                if error is None:
                    messages.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    ended.add(message.partition())
        consumer.close()
        return messages


@contextmanager
def installation(bootstrap_servers: str, database_url: str, topic_prefix: str, folder: Path) -> Iterator[Installation]:
    """An installation, and all its processes gone at the end."""
    installed = Installation(bootstrap_servers, database_url, topic_prefix, folder)
    try:
        yield installed
    finally:
        installed.close()
