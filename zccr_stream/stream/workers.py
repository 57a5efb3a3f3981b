"""The threads that work: a batch goes to the handler, what cannot succeed goes to the dead letters.

Batches come in, and come back with what is to be tried again, or with the failure that stops the consumer. An outage of
PostgreSQL or Kafka is waited out here, with the batch in hand. Knows the handler; does not know Kafka's consumer.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from zccr_stream import metrics
from zccr_stream.events import Record, TryLaterError, dump_dead_letter, shorten_dead_letter
from zccr_stream.parts import Failure, MessageTooLargeError, Outcome, Publisher, UnavailableError
from zccr_stream.stream.progress import Batch, Entry

logger = logging.getLogger(__name__)

T = TypeVar("T")
Handler = Callable[[Sequence[Record]], Sequence[Outcome]]

_OUTAGE_BACKOFF_MAX_S = 10


class TooManyDeadLettersError(Exception):
    """So many dead letters in a row look like a bad deployment; stopping keeps the topic from draining into them."""


@dataclass(frozen=True, slots=True)
class RetryRule:
    """How often and when what failed is tried again; what each is for stands in `settings.py`."""

    attempts: int
    backoff_s: float
    backoff_max_s: float
    dead_letters_in_a_row_max: int
    outage_timeout_s: float


class Workers:
    """Threads that work on batches side by side; `done` gives each back."""

    def __init__(
        self,
        handler: Handler,
        publisher: Publisher,
        topic_prefix: str,
        rule: RetryRule,
        health: metrics.Health,
        stopping: threading.Event,
    ) -> None:
        self._handler = handler
        self._publisher = publisher
        self._topic_prefix = topic_prefix
        self._rule = rule
        self._health = health
        self._stopping = stopping
        self._work: queue.SimpleQueue[Batch] = queue.SimpleQueue()
        self.done: queue.SimpleQueue[Batch] = queue.SimpleQueue()
        self._dead_in_a_row = 0
        self._dead_lock = threading.Lock()

    def start(self, count: int) -> None:
        """Start so many threads; they end with the process."""
        for number in range(count):
            threading.Thread(target=self._serve, name=f"worker-{number}", daemon=True).start()

    def give(self, batch: Batch) -> None:
        """Have a batch worked on."""
        self._work.put(batch)

    def _serve(self) -> None:
        while True:
            batch = self._work.get()
            try:
                self._process(batch)
            except BaseException as failure:  # the main thread raises it
                batch.failure = failure
            self.done.put(batch)

    def _process(self, batch: Batch) -> None:
        records = [entry.record for entry in batch.entries]
        outcomes = self._through_outages(lambda: self._handler(records))
        dead: list[tuple[Entry, Failure]] = []
        for entry, outcome in zip(batch.entries, outcomes, strict=True):
            entry.attempts += 1
            if outcome is None:
                continue
            if isinstance(outcome, TryLaterError) and entry.attempts < self._rule.attempts:
                entry.due_s = time.monotonic() + self._backoff_s(entry.attempts)
                batch.retries.append(entry)
                metrics.retried(outcome.stage)
            else:
                dead.append((entry, outcome))
        self._count_in_a_row(len(dead), reset=any(outcome is None for outcome in outcomes))
        if dead:
            self._through_outages(lambda: self._bury(dead))

    def _backoff_s(self, attempts: int) -> float:
        return min(self._rule.backoff_s * 2.0 ** (attempts - 1), self._rule.backoff_max_s)

    def _count_in_a_row(self, dead: int, reset: bool) -> None:
        """Stop at too many dead letters without a success between them, before they are published."""
        with self._dead_lock:
            self._dead_in_a_row = 0 if reset else self._dead_in_a_row + dead
            if self._dead_in_a_row > self._rule.dead_letters_in_a_row_max:
                raise TooManyDeadLettersError(
                    f"{self._dead_in_a_row} dead letters in a row, at most {self._rule.dead_letters_in_a_row_max} "
                    "are allowed (ZCCR_DEAD_LETTERS_IN_A_ROW_MAX); the topics *.dlq and the log say why"
                )

    def _bury(self, dead: Sequence[tuple[Entry, Failure]]) -> None:
        letters = [
            dump_dead_letter(entry.record, self._name(entry), failure, entry.attempts) for entry, failure in dead
        ]
        try:
            self._publisher.publish(letters)
        except MessageTooLargeError:
            # A record may be larger than it may be published: its limit counts compressed bytes.
            for letter in letters:
                try:
                    self._publisher.publish([letter])
                except MessageTooLargeError:
                    self._publisher.publish([shorten_dead_letter(letter)])
        for entry, failure in dead:
            metrics.dead_lettered(self._name(entry), failure.stage)
            place = f"{entry.record.topic}/{entry.record.partition}/{entry.record.offset}"
            logger.warning("dead letter %s: %s: %s", place, failure.stage, failure)

    def _name(self, entry: Entry) -> str:
        """The topic without its prefix."""
        return entry.record.topic.removeprefix(self._topic_prefix)

    def _through_outages(self, work: Callable[[], T]) -> T:
        """Repeat while PostgreSQL or Kafka is away, up to the limit; a stop ends the waiting."""
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(UnavailableError),
            wait=tenacity.wait_random_exponential(multiplier=0.2, max=_OUTAGE_BACKOFF_MAX_S),
            stop=tenacity.stop_after_delay(self._rule.outage_timeout_s) | tenacity.stop_when_event_set(self._stopping),
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
