"""A consumer group's share of some topics, in bounded batches, committed last.

Records come in; a handler gets them in batches, in worker threads, and gives one outcome per record: done, bad input
(a dead letter), or try again later (with back-off). The loop here never stops polling while the workers work. What
is committed is the lowest offset that is not finished, so a crash repeats work and never loses any.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage

from zccr_stream import metrics
from zccr_stream.parts import Publisher, UnavailableError
from zccr_stream.stream.progress import Batch, Entry, Partition, Waiting
from zccr_stream.stream.records import raise_or_log, record_of
from zccr_stream.stream.workers import Handler, RetryRule, Workers

logger = logging.getLogger(__name__)

_POLL_IDLE_S = 0.1
_POLL_BUSY_S = 0.005
_COMMIT_AGAIN_S = 0.5
_WORK_SHARE = 0.8  # of the time that a stop has, for the batches in hand; the rest is for the broker's answers


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a consumer; what each is for stands in `settings.py`."""

    batch_max: int
    batch_wait_s: float
    batches_in_flight: int
    queue_max: int
    waiting_bytes_max: int
    retries_waiting_max: int
    stuck_after_s: float
    stop_timeout_s: float


class BatchConsumer:
    """Runs a handler over a consumer group's records until it is told to stop."""

    def __init__(
        self,
        config: Mapping[str, Any],
        topics: Sequence[str],
        topic_prefix: str,
        handler: Handler,
        publisher: Publisher,
        limits: Limits,
        retries: RetryRule,
        health: metrics.Health,
    ) -> None:
        self._topics = topics
        self._topic_prefix = topic_prefix
        self._limits = limits
        self._health = health
        self._consumer = Consumer(
            {
                "auto.offset.reset": "earliest",
                **config,
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "stats_cb": self._report_lag,
                "error_cb": _log_error,
                "on_commit": self._committed,
            },
            logger=logger,
        )
        self._partitions: dict[tuple[str, int], Partition] = {}
        self._paused: set[tuple[str, int]] = set()
        self._queue = Waiting()
        self._queued_since_s = 0.0
        self._retries = Waiting()
        self._in_flight: set[Batch] = set()
        self._stuck = False
        self._commit_after_s = 0.0
        self._stopping = threading.Event()
        self._asked_to_stop = threading.Event()
        self._stop_by_s = self._work_by_s = math.inf
        self._workers = Workers(handler, publisher, topic_prefix, retries, health, self._stopping)

    def run(self, stop: threading.Event, check: Callable[[], None]) -> None:
        """Consume until `stop` is set, then finish what is in hand and commit it.

        `check` is called once a round and raises where something beside this loop failed. Whatever raises leaves the
        unfinished records uncommitted.
        """
        self._asked_to_stop = stop
        self._workers.start(self._limits.batches_in_flight)
        self._consumer.subscribe(
            list(self._topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
        )
        try:
            while not stop.is_set():
                self._health.beat()
                check()
                self._poll()
                self._collect()
                self._hand_over()
                self._pause_or_resume()
                self._report_stuck()
            self._finish_in_hand()
        finally:
            self._begin_stop()
            self._leave()

    # The main thread: poll, hand over, collect, commit.

    def _poll(self) -> None:
        """Take what Kafka has, up to the bound of the queue; serves the rebalance callbacks too."""
        message = self._consumer.poll(self._poll_timeout_s())
        if message is None:
            return
        room = max(1, min(self._limits.queue_max - len(self._queue), self._limits.batch_max))
        for taken in (message, *self._consumer.consume(room, timeout=0)):
            self._take(taken)

    def _poll_timeout_s(self) -> float:
        if self._queue and len(self._in_flight) < self._limits.batches_in_flight:
            return max(0.0, self._queued_since_s + self._limits.batch_wait_s - time.monotonic())
        return _POLL_BUSY_S if self._in_flight or self._retries else _POLL_IDLE_S

    def _take(self, message: KafkaMessage) -> None:
        error = message.error()
        if error is not None:
            raise_or_log(error)
            return
        record = record_of(message)
        partition = self._partitions.get((record.topic, record.partition))
        if partition is None:  # revoked while the message was on its way
            return
        partition.position = record.offset + 1
        partition.unfinished.add(record.offset)
        if not self._queue:
            self._queued_since_s = time.monotonic()
        self._queue.add(Entry(record, partition))
        metrics.consumed(record.topic.removeprefix(self._topic_prefix), 1)

    def _hand_over(self) -> None:
        """Give the workers batches while they have room and there is something due."""
        while len(self._in_flight) < self._limits.batches_in_flight:
            entries = self._due_retries()
            waited = time.monotonic() - self._queued_since_s >= self._limits.batch_wait_s
            if entries or waited or len(self._queue) >= self._limits.batch_max:
                entries += self._queue.take(self._limits.batch_max - len(entries))
            if not entries:
                return
            metrics.observe_batch(len(entries))
            batch = Batch(entries, time.monotonic())
            self._in_flight.add(batch)
            self._workers.give(batch)

    def _due_retries(self) -> list[Entry]:
        now_s = time.monotonic()
        due = self._retries.take(self._limits.batch_max, lambda entry: entry.due_s <= now_s)
        for entry in due:
            entry.partition.retrying -= 1
        return due

    def _collect(self, timeout_s: float = 0.0) -> None:
        """Take back the batches that are done and commit what they finished."""
        with contextlib.suppress(queue.Empty):
            self._settle(self._workers.done.get(timeout=timeout_s) if timeout_s else self._workers.done.get_nowait())
            while True:
                self._settle(self._workers.done.get_nowait())
        if time.monotonic() >= self._commit_after_s:
            self._commit(self._partitions.values())

    def _settle(self, batch: Batch) -> None:
        self._in_flight.discard(batch)
        if isinstance(batch.failure, UnavailableError) and self._stopping.is_set():
            logger.warning("stopping during an outage, %d records stay uncommitted", len(batch.entries))
            return
        if batch.failure is not None:
            raise batch.failure
        for entry in batch.entries:
            if entry not in batch.retries:
                entry.partition.unfinished.discard(entry.record.offset)
        for entry in batch.retries:
            if self._holds(entry.partition):
                entry.partition.retrying += 1
                self._retries.add(entry)

    def _commit(self, partitions: Iterable[Partition], again: bool = False) -> None:
        """Commit what moved; `again` repeats the commits before, whose fate is not known yet.

        Nobody waits for the answer: the client gives up partitions and leaves the group once its commits are answered.
        """
        moved = [
            (partition, offset)
            for partition in partitions
            if (offset := partition.committable()) is not None and (again or offset != partition.committed)
        ]
        if not moved:
            return
        offsets = [TopicPartition(partition.topic, partition.number, offset) for partition, offset in moved]
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:  # repeated work converges, so a commit that fails costs time and nothing else
            logger.warning("commit failed: %s", error)
            return
        for partition, offset in moved:
            partition.committed = offset

    def _committed(self, error: KafkaError | None, partitions: list[TopicPartition]) -> None:
        """Commit again, a little later, what a rebalance or an outage kept from being committed."""
        if error is None:
            return
        logger.warning("commit failed, trying again: %s", error.str())
        self._commit_after_s = time.monotonic() + _COMMIT_AGAIN_S
        for partition in self._held(partitions):
            partition.committed = None

    def _pause_or_resume(self) -> None:
        """Pause what is ahead of the workers; a pause throws the prefetched records away, so it is rare."""
        waiting_bytes = self._queue.size_bytes + self._retries.size_bytes
        full = len(self._queue) >= self._limits.queue_max or waiting_bytes >= self._limits.waiting_bytes_max
        relieved = (
            len(self._queue) <= self._limits.queue_max // 2 and waiting_bytes <= self._limits.waiting_bytes_max // 2
        )
        wanted = {
            key
            for key, partition in self._partitions.items()
            if full or (key in self._paused and not relieved) or partition.retrying >= self._limits.retries_waiting_max
        }
        if pause := wanted - self._paused:
            self._consumer.pause([TopicPartition(*key) for key in pause])
        if resume := self._paused - wanted:
            self._consumer.resume([TopicPartition(*key) for key in resume])
        self._paused = wanted

    def _report_stuck(self) -> None:
        """Not ready while a batch takes longer than anything that has a time-out: something hangs that has none."""
        now_s = time.monotonic()
        age_s = max((now_s - batch.started_s for batch in self._in_flight), default=0.0)
        stuck = age_s > self._limits.stuck_after_s
        if stuck and not self._stuck:
            logger.warning("a batch is worked on for %.0f s", age_s)
            self._health.set_unready(f"a batch is worked on for more than {self._limits.stuck_after_s:g} s")
        elif self._stuck and not stuck:
            self._health.set_ready()
        self._stuck = stuck

    def _begin_stop(self) -> None:
        """From now on time runs out."""
        if not self._stopping.is_set():
            now_s = time.monotonic()
            self._stop_by_s = now_s + self._limits.stop_timeout_s
            self._work_by_s = now_s + self._limits.stop_timeout_s * _WORK_SHARE
            self._stopping.set()

    def _finish_in_hand(self) -> None:
        """Wait for the batches in flight; what does not end in time stays uncommitted and is repeated."""
        self._begin_stop()
        self._drain(lambda: bool(self._in_flight), math.inf)
        self._commit(self._partitions.values(), again=True)

    def _leave(self) -> None:
        """Leave the group while time is left; librdkafka waits until a lost broker is back (its issue 3740)."""
        goodbye = threading.Thread(target=self._consumer.close, name="kafka-close", daemon=True)
        goodbye.start()
        goodbye.join(max(0.0, self._stop_by_s - time.monotonic()))
        if goodbye.is_alive():
            logger.warning("Kafka does not answer: the group waits for this member until its session times out")

    def _drain(self, waiting: Callable[[], bool], deadline_s: float) -> None:
        """Collect until nothing is waited for, or until the deadline or that of a stop, which may begin meanwhile."""
        while waiting():
            if self._asked_to_stop.is_set():
                self._begin_stop()
            left_s = min(deadline_s, self._work_by_s) - time.monotonic()
            if left_s <= 0:
                return
            self._health.beat()
            self._collect(timeout_s=min(left_s, 0.1))

    # Rebalances; the client calls these inside poll and close.

    def _assigned(self, _consumer: Consumer, assigned: list[TopicPartition]) -> None:
        for partition in assigned:
            self._partitions[partition.topic, partition.partition] = Partition(partition.topic, partition.partition)
        metrics.rebalanced("assigned")
        self._health.set_ready()
        logger.info("assigned %d partitions, now %d", len(assigned), len(self._partitions))

    def _revoked(self, _consumer: Consumer, revoked: list[TopicPartition]) -> None:
        """Finish what is in flight of these partitions and commit it, before another process gets them."""
        leaving = self._held(revoked)
        self._queue.forget(leaving)
        deadline_s = time.monotonic() + self._limits.stop_timeout_s
        if not self._stopping.is_set():
            self._drain(lambda: any(batch.touches(leaving) for batch in self._in_flight), deadline_s)
        self._commit(leaving, again=True)
        self._drop(leaving)
        metrics.rebalanced("revoked")
        logger.info("gave up %d partitions, %d left", len(leaving), len(self._partitions))

    def _lost(self, _consumer: Consumer, lost: list[TopicPartition]) -> None:
        """Another process may have these already: commit nothing."""
        leaving = self._held(lost)
        self._drop(leaving)
        metrics.rebalanced("lost")
        logger.warning("lost %d partitions, %d left", len(leaving), len(self._partitions))

    def _held(self, partitions: Iterable[TopicPartition]) -> list[Partition]:
        keys = [(partition.topic, partition.partition) for partition in partitions]
        return [self._partitions[key] for key in keys if key in self._partitions]

    def _drop(self, leaving: Sequence[Partition]) -> None:
        self._queue.forget(leaving)
        self._retries.forget(leaving)
        for partition in leaving:
            del self._partitions[partition.topic, partition.number]
            self._paused.discard((partition.topic, partition.number))
            metrics.clear_lag(partition.topic.removeprefix(self._topic_prefix), partition.number)

    def _holds(self, partition: Partition) -> bool:
        return self._partitions.get((partition.topic, partition.number)) is partition

    def _report_lag(self, statistics: str) -> None:
        for topic, details in json.loads(statistics).get("topics", {}).items():
            for number, partition in details["partitions"].items():
                if (topic, int(number)) in self._partitions and partition.get("consumer_lag", -1) >= 0:
                    name = topic.removeprefix(self._topic_prefix)
                    metrics.set_lag(name, int(number), partition["consumer_lag"])


def _log_error(error: KafkaError) -> None:
    logger.warning("Kafka: %s", error.str())
