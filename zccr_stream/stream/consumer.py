"""A consumer group's share of some topics, in bounded batches, committed last.

Records come in; a handler gets them in batches, in worker threads, and gives one outcome per record: done, bad input
(a dead letter), or try again later (with back-off). The loop here never stops polling while the workers work. What
is committed is the lowest offset that is not finished, so a crash repeats work and never loses any.
"""

from __future__ import annotations

import contextlib
import json
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import tenacity
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage

from zccr_stream import metrics
from zccr_stream.events import Record, TryLaterError, dump_dead_letter
from zccr_stream.pipeline import Failure, Outcome, Publisher, UnavailableError
from zccr_stream.stream.records import raise_or_log, record_of

logger = logging.getLogger(__name__)

T = TypeVar("T")
Handler = Callable[[Sequence[Record]], Sequence[Outcome]]

_POLL_IDLE_S = 0.1
_POLL_BUSY_S = 0.005
_OUTAGE_BACKOFF_MAX_S = 10
_COMMIT_AGAIN_S = 0.5


class TooManyDeadLettersError(Exception):
    """So many dead letters in a row look like a bad deployment; stopping keeps the topic from draining into them."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of a consumer; what each is for stands in `settings.py`."""

    batch_max: int
    batch_wait_s: float
    batches_in_flight: int
    queue_max: int
    retry_attempts: int
    retry_backoff_s: float
    retry_backoff_max_s: float
    retries_waiting_max: int
    dead_letters_in_a_row_max: int
    outage_timeout_s: float
    stop_timeout_s: float


@dataclass(eq=False, slots=True)
class _Partition:
    """How far a partition is done, for as long as it is assigned."""

    topic: str
    number: int
    position: int | None = None
    unfinished: set[int] = field(default_factory=set)
    committed: int | None = None
    waiting: int = 0

    def committable(self) -> int | None:
        """The offset to commit: everything before it is finished."""
        return min(self.unfinished, default=self.position)


@dataclass(eq=False, slots=True)
class _Entry:
    """A record on its way: how often it was tried and when it is due again."""

    record: Record
    partition: _Partition
    attempts: int = 0
    due_s: float = 0.0


@dataclass(eq=False, slots=True)
class _Batch:
    """What a worker works on; `retries` or `failure` say how it ended."""

    entries: list[_Entry]
    retries: list[_Entry] = field(default_factory=list)
    failure: BaseException | None = None


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
        health: metrics.Health,
    ) -> None:
        self._topics = topics
        self._topic_prefix = topic_prefix
        self._handler = handler
        self._publisher = publisher
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
        self._partitions: dict[tuple[str, int], _Partition] = {}
        self._paused: set[tuple[str, int]] = set()
        self._queue: deque[_Entry] = deque()
        self._queued_since_s = 0.0
        self._retries: list[_Entry] = []
        self._in_flight: set[_Batch] = set()
        self._work: queue.SimpleQueue[_Batch] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[_Batch] = queue.SimpleQueue()
        self._commit_after_s = 0.0
        self._stopping = threading.Event()
        self._dead_in_a_row = 0
        self._dead_lock = threading.Lock()

    def run(self, stop: threading.Event, check: Callable[[], None]) -> None:
        """Consume until `stop` is set, then finish what is in hand and commit it.

        `check` is called once a round and raises where something beside this loop failed. Whatever raises leaves the
        unfinished records uncommitted.
        """
        self._start_workers()
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
            self._finish_in_hand()
        finally:
            self._stopping.set()
            self._consumer.close()

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
        self._queue.append(_Entry(record, partition))
        metrics.consumed(record.topic.removeprefix(self._topic_prefix), 1)

    def _hand_over(self) -> None:
        """Give the workers batches while they have room and there is something due."""
        while len(self._in_flight) < self._limits.batches_in_flight:
            entries = self._due_retries()
            waited = time.monotonic() - self._queued_since_s >= self._limits.batch_wait_s
            if entries or waited or len(self._queue) >= self._limits.batch_max:
                while self._queue and len(entries) < self._limits.batch_max:
                    entries.append(self._queue.popleft())
            if not entries:
                return
            metrics.observe_batch(len(entries))
            batch = _Batch(entries)
            self._in_flight.add(batch)
            self._work.put(batch)

    def _due_retries(self) -> list[_Entry]:
        now_s = time.monotonic()
        due = [entry for entry in self._retries if entry.due_s <= now_s][: self._limits.batch_max]
        for entry in due:
            self._retries.remove(entry)
            entry.partition.waiting -= 1
        return due

    def _collect(self, timeout_s: float = 0.0) -> None:
        """Take back the batches that are done and commit what they finished."""
        with contextlib.suppress(queue.Empty):
            self._settle(self._done.get(timeout=timeout_s) if timeout_s else self._done.get_nowait())
            while True:
                self._settle(self._done.get_nowait())
        if time.monotonic() >= self._commit_after_s:
            self._commit(self._partitions.values(), asynchronous=True)

    def _settle(self, batch: _Batch) -> None:
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
                entry.partition.waiting += 1
                self._retries.append(entry)

    def _commit(self, partitions: Iterable[_Partition], asynchronous: bool) -> None:
        """Commit what moved; a synchronous commit repeats the asynchronous ones, whose fate is not known yet."""
        moved = [
            (partition, offset)
            for partition in partitions
            if (offset := partition.committable()) is not None and not (asynchronous and offset == partition.committed)
        ]
        if not moved:
            return
        offsets = [TopicPartition(partition.topic, partition.number, offset) for partition, offset in moved]
        try:
            if asynchronous:
                self._consumer.commit(offsets=offsets, asynchronous=True)
            else:
                self._consumer.commit(offsets=offsets, asynchronous=False)
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
        full = len(self._queue) >= self._limits.queue_max
        relieved = len(self._queue) <= self._limits.queue_max // 2
        wanted = {
            key
            for key, partition in self._partitions.items()
            if full or (key in self._paused and not relieved) or partition.waiting >= self._limits.retries_waiting_max
        }
        if pause := wanted - self._paused:
            self._consumer.pause([TopicPartition(*key) for key in pause])
        if resume := self._paused - wanted:
            self._consumer.resume([TopicPartition(*key) for key in resume])
        self._paused = wanted

    def _finish_in_hand(self) -> None:
        """Wait for the batches in flight; what does not end in time stays uncommitted and is repeated."""
        self._stopping.set()
        deadline_s = time.monotonic() + self._limits.stop_timeout_s
        self._drain(lambda: bool(self._in_flight), deadline_s)
        self._commit(self._partitions.values(), asynchronous=False)

    def _drain(self, waiting: Callable[[], bool], deadline_s: float) -> None:
        while waiting() and (left_s := deadline_s - time.monotonic()) > 0:
            self._health.beat()
            self._collect(timeout_s=min(left_s, 0.1))

    # Rebalances; the client calls these inside poll and close.

    def _assigned(self, _consumer: Consumer, assigned: list[TopicPartition]) -> None:
        for partition in assigned:
            self._partitions[partition.topic, partition.partition] = _Partition(partition.topic, partition.partition)
        metrics.rebalanced("assigned")
        self._health.set_ready()
        logger.info("assigned %d partitions, now %d", len(assigned), len(self._partitions))

    def _revoked(self, _consumer: Consumer, revoked: list[TopicPartition]) -> None:
        """Finish what is in flight of these partitions and commit it, before another process gets them."""
        leaving = self._held(revoked)
        self._forget_queued(leaving)
        deadline_s = time.monotonic() + self._limits.stop_timeout_s
        if not self._stopping.is_set():
            self._drain(lambda: any(self._touches(batch, leaving) for batch in self._in_flight), deadline_s)
        self._commit(leaving, asynchronous=False)
        self._drop(leaving)
        metrics.rebalanced("revoked")
        logger.info("gave up %d partitions, %d left", len(leaving), len(self._partitions))

    def _lost(self, _consumer: Consumer, lost: list[TopicPartition]) -> None:
        """Another process may have these already: commit nothing."""
        leaving = self._held(lost)
        self._forget_queued(leaving)
        self._drop(leaving)
        metrics.rebalanced("lost")
        logger.warning("lost %d partitions, %d left", len(leaving), len(self._partitions))

    def _held(self, partitions: Iterable[TopicPartition]) -> list[_Partition]:
        keys = [(partition.topic, partition.partition) for partition in partitions]
        return [self._partitions[key] for key in keys if key in self._partitions]

    def _forget_queued(self, leaving: Sequence[_Partition]) -> None:
        self._queue = deque(entry for entry in self._queue if entry.partition not in leaving)
        self._retries = [entry for entry in self._retries if entry.partition not in leaving]

    def _drop(self, leaving: Iterable[_Partition]) -> None:
        for partition in leaving:
            del self._partitions[partition.topic, partition.number]
            self._paused.discard((partition.topic, partition.number))
            metrics.clear_lag(partition.topic.removeprefix(self._topic_prefix), partition.number)

    def _holds(self, partition: _Partition) -> bool:
        return self._partitions.get((partition.topic, partition.number)) is partition

    @staticmethod
    def _touches(batch: _Batch, partitions: Sequence[_Partition]) -> bool:
        return any(entry.partition in partitions for entry in batch.entries)

    def _report_lag(self, statistics: str) -> None:
        for topic, details in json.loads(statistics).get("topics", {}).items():
            for number, partition in details["partitions"].items():
                if (topic, int(number)) in self._partitions and partition.get("consumer_lag", -1) >= 0:
                    name = topic.removeprefix(self._topic_prefix)
                    metrics.set_lag(name, int(number), partition["consumer_lag"])

    # The workers: handle a batch, bury its dead letters.

    def _start_workers(self) -> None:
        for number in range(self._limits.batches_in_flight):
            threading.Thread(target=self._serve, name=f"worker-{number}", daemon=True).start()

    def _serve(self) -> None:
        while True:
            batch = self._work.get()
            try:
                self._process(batch)
            except BaseException as failure:  # the main thread raises it
                batch.failure = failure
            self._done.put(batch)

    def _process(self, batch: _Batch) -> None:
        records = [entry.record for entry in batch.entries]
        outcomes = self._through_outages(lambda: self._handler(records))
        dead: list[tuple[_Entry, Failure]] = []
        for entry, outcome in zip(batch.entries, outcomes, strict=True):
            entry.attempts += 1
            if outcome is None:
                continue
            if isinstance(outcome, TryLaterError) and entry.attempts < self._limits.retry_attempts:
                entry.due_s = time.monotonic() + self._backoff_s(entry.attempts)
                batch.retries.append(entry)
                metrics.retried(outcome.stage)
            else:
                dead.append((entry, outcome))
        self._count_in_a_row(len(dead), reset=any(outcome is None for outcome in outcomes))
        if dead:
            self._through_outages(lambda: self._bury(dead))

    def _backoff_s(self, attempts: int) -> float:
        return min(self._limits.retry_backoff_s * 2.0 ** (attempts - 1), self._limits.retry_backoff_max_s)

    def _count_in_a_row(self, dead: int, reset: bool) -> None:
        """Stop at too many dead letters without a success between them, before they are published."""
        with self._dead_lock:
            self._dead_in_a_row = 0 if reset else self._dead_in_a_row + dead
            if self._dead_in_a_row > self._limits.dead_letters_in_a_row_max:
                raise TooManyDeadLettersError(
                    f"{self._dead_in_a_row} dead letters in a row, at most {self._limits.dead_letters_in_a_row_max} "
                    "are allowed (ZCCR_DEAD_LETTERS_IN_A_ROW_MAX); the topics *.dlq and the log say why"
                )

    def _bury(self, dead: Sequence[tuple[_Entry, Failure]]) -> None:
        self._publisher.publish(
            [dump_dead_letter(entry.record, self._name(entry), failure, entry.attempts) for entry, failure in dead]
        )
        for entry, failure in dead:
            metrics.dead_lettered(self._name(entry), failure.stage)
            place = f"{entry.record.topic}/{entry.record.partition}/{entry.record.offset}"
            logger.warning("dead letter %s: %s: %s", place, failure.stage, failure)

    def _name(self, entry: _Entry) -> str:
        """The topic without its prefix."""
        return entry.record.topic.removeprefix(self._topic_prefix)

    def _through_outages(self, work: Callable[[], T]) -> T:
        """Repeat while PostgreSQL or Kafka is away, up to the limit; a stop ends the waiting."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(UnavailableError),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=_OUTAGE_BACKOFF_MAX_S),
            stop=tenacity.stop_after_delay(self._limits.outage_timeout_s)
            | tenacity.stop_when_event_set(self._stopping),
            sleep=tenacity.sleep_using_event(self._stopping),
            before_sleep=self._report_outage,
            reraise=True,
        )
        result = retrying(work)
        if retrying.statistics.get("attempt_number", 1) > 1:
            self._health.set_ready()
        return result

    def _report_outage(self, state: tenacity.RetryCallState) -> None:
        failure = state.outcome.exception() if state.outcome else None
        self._health.set_unready(str(failure))
        logger.warning("attempt %d: %s", state.attempt_number, failure)


def _log_error(error: KafkaError) -> None:
    logger.warning("Kafka: %s", error.str())
