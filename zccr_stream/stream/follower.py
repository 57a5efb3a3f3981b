"""Every partition of a compacted topic, read from given positions without a group, to keep derived state current.

Records come in and are applied in batches, in one thread. A replica is caught up once it has reached the ends that
it saw at its start. Knows nothing of what it applies.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Message as KafkaMessage

from zccr_stream import metrics
from zccr_stream.events import Record
from zccr_stream.parts import UnavailableError
from zccr_stream.stream.records import TIMEOUT_S, raise_or_log, record_of, watermarks

logger = logging.getLogger(__name__)

_POLL_S = 0.1
_AGAIN_S = 1.0
_LOOK_INTERVAL_S = 5.0


class Follower:
    """Applies a topic's records as they come."""

    def __init__(
        self, config: Mapping[str, Any], topic: str, apply: Callable[[Sequence[Record]], None], batch_max: int
    ) -> None:
        self._topic = topic
        self._apply = apply
        self._batch_max = batch_max
        self._consumer = Consumer(
            {
                **config,
                # A group is demanded by the client and never used: no subscription, no commits.
                "group.id": f"{topic}-follower",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
            },
            logger=logger,
        )
        self._left: dict[int, int] = {}
        self._looked_s = 0.0
        self.positions: dict[int, int] = {}
        self.ends_at_start: dict[int, int] = {}
        self.caught_up = threading.Event()

    def valid(self, positions: Mapping[int, int]) -> bool:
        """Whether the topic still holds everything after these positions."""
        for partition, position in positions.items():
            first, end = watermarks(self._consumer, TopicPartition(self._topic, partition))
            if not first <= position <= end:
                return False
        return True

    def run(self, positions: Mapping[int, int], stop: threading.Event, between: Callable[[], None]) -> None:
        """Apply from `positions` on (partitions that are not in it from their beginning) until `stop`.

        `between` is called between batches, with all that `positions` covers applied.
        """
        self.positions = dict(positions)
        try:
            self._assign_when_there(stop)
            while not stop.is_set():
                self._round()
                self._look_around()
                between()
        finally:
            self._consumer.close()

    def _round(self) -> None:
        message = self._consumer.poll(_POLL_S)
        if message is None:
            return
        records = []
        for taken in (message, *self._consumer.consume(self._batch_max - 1, timeout=0)):
            record = self._take(taken)
            if record is not None:
                records.append(record)
        if records:
            self._apply(records)
            for record in records:
                self.positions[record.partition] = record.offset + 1
        self._note_caught_up()

    def _take(self, message: KafkaMessage) -> Record | None:
        error = message.error()
        if error is None:
            return record_of(message)
        if error.code() == KafkaError._PARTITION_EOF:
            # The end can lie behind the last record, where compaction took the newest ones.
            self._left.pop(message.partition() or 0, None)
        else:
            raise_or_log(error)
        return None

    def _note_caught_up(self) -> None:
        for partition, end in list(self._left.items()):
            if self.positions.get(partition, 0) >= end:
                del self._left[partition]
        if not self._left and not self.caught_up.is_set():
            logger.info("caught up with %s", self._topic)
            self.caught_up.set()

    def _assign_when_there(self, stop: threading.Event) -> None:
        """Wait for a topic that was just made, or a broker that just starts; not ready until then."""
        while not stop.is_set():
            try:
                self._assign()
            except UnavailableError as outage:
                logger.warning("%s", outage)
                stop.wait(_AGAIN_S)
            else:
                return

    def _assign(self) -> None:
        partitions = self._partitions()
        self.ends_at_start = {
            partition: watermarks(self._consumer, TopicPartition(self._topic, partition))[1] for partition in partitions
        }
        self._left = dict(self.ends_at_start)
        self._consumer.assign(
            [TopicPartition(self._topic, number, self.positions.get(number, OFFSET_BEGINNING)) for number in partitions]
        )
        self._note_caught_up()

    def _look_around(self) -> None:
        """Every few seconds: how far behind, and whether the topic grew by partitions."""
        if time.monotonic() - self._looked_s < _LOOK_INTERVAL_S:
            return
        self._looked_s = time.monotonic()
        assigned = {partition.partition for partition in self._consumer.assignment()}
        metrics.set_index_behind(sum(self._behind(partition) for partition in assigned))
        try:
            new = set(self._partitions()) - assigned
        except UnavailableError as outage:
            logger.warning("%s", outage)
            return
        if new:
            logger.info("%s grew by partitions %s", self._topic, sorted(new))
            self._consumer.incremental_assign([TopicPartition(self._topic, n, OFFSET_BEGINNING) for n in sorted(new)])

    def _behind(self, partition: int) -> int:
        _first, end = self._consumer.get_watermark_offsets(TopicPartition(self._topic, partition), cached=True)
        return max(0, end - self.positions.get(partition, 0)) if end > 0 else 0

    def _partitions(self) -> list[int]:
        try:
            topic = self._consumer.list_topics(self._topic, timeout=TIMEOUT_S).topics[self._topic]
        except KafkaException as error:
            raise UnavailableError(f"Kafka does not answer: {error.args[0].str()}") from error
        if topic.error is not None:
            raise UnavailableError(f"{self._topic}: {topic.error.str()}; `zccr-stream topics` makes the topics")
        return sorted(topic.partitions)
