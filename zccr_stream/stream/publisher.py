"""Messages out: a batch goes to Kafka and the call returns when all of it is delivered.

Idempotent producer, keys spread as Java clients spread them, so that other services can join topics by key.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from zccr_stream import metrics
from zccr_stream.events import Message
from zccr_stream.parts import MessageTooLargeError, UnavailableError

logger = logging.getLogger(__name__)

# Before compression; what a topic takes is counted after it, and by the broker.
_MESSAGE_MAX_BYTES = 64 * 1024 * 1024
_NOW = 0  # of a timestamp; the first millisecond of 1970 itself cannot be said


class Publisher:
    """Publishes to topics under a prefix. Safe to use from several threads."""

    def __init__(self, config: Mapping[str, Any], topic_prefix: str, delivery_timeout_s: float) -> None:
        self._topic_prefix = topic_prefix
        self._delivery_timeout_s = delivery_timeout_s
        self._producer = Producer(
            {
                "partitioner": "murmur2_random",
                "compression.type": "lz4",
                "linger.ms": 1,
                "message.max.bytes": _MESSAGE_MAX_BYTES,
                **config,
                # What `publish` promises rests on these.
                "enable.idempotence": True,
                "delivery.timeout.ms": int(delivery_timeout_s * 1000),
            },
            logger=logger,
        )

    def publish(self, messages: Sequence[Message]) -> None:
        """Publish a batch and wait until all of it is delivered, or will not be.

        None of it is under way any more, so whoever publishes a newer state next is not overtaken by it.

        Raises:
            UnavailableError: Kafka did not take all of it in time; the batch may be published again.
            MessageTooLargeError: one of it is larger than its topic takes; the others may have been delivered.
        """
        delivery = _Delivery(len(messages))
        for message in messages:
            self._produce(message, delivery)
        deadline_s = time.monotonic() + self._delivery_timeout_s + 5
        while delivery.waiting and time.monotonic() < deadline_s:
            self._producer.poll(0.05)  # another thread may serve our reports, hence short waits
        if delivery.waiting:
            raise UnavailableError(
                f"Kafka confirmed only {len(messages) - delivery.waiting} of {len(messages)} messages"
            )
        if delivery.error is not None:
            raise _translated(KafkaException(delivery.error))
        for topic, count in Counter(message.topic for message in messages).items():
            metrics.published(topic, count)

    def close(self, timeout_s: float) -> None:
        """Wait for what other threads may still have under way."""
        self._producer.flush(timeout_s)
        self._producer.purge()
        self._producer.close()

    def _produce(self, message: Message, delivery: _Delivery) -> None:
        while True:
            try:
                self._producer.produce(
                    self._topic_prefix + message.topic,
                    key=message.key,
                    value=message.value,
                    headers=list(message.headers),
                    on_delivery=delivery,
                    timestamp=_NOW if message.timestamp_ms is None else max(message.timestamp_ms, 1),
                )
            except BufferError:  # the client's queue is full: let it drain
                self._producer.poll(0.1)
            except KafkaException as error:
                delivery(error.args[0], None)  # the others are under way and waited for
                return
            else:
                return


class _Delivery:
    """Counts the delivery reports of one batch and keeps its first error."""

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting
        self.error: KafkaError | None = None
        self._lock = threading.Lock()  # whichever thread polls serves the reports

    def __call__(self, error: KafkaError | None, _message: object) -> None:
        with self._lock:
            self.waiting -= 1
            self.error = self.error or error


def _translated(error: KafkaException) -> Exception:
    """An outage, unless trying again cannot help."""
    reason = error.args[0]
    if reason.code() == KafkaError.UNKNOWN_TOPIC_OR_PART or reason.code() == KafkaError._UNKNOWN_TOPIC:
        return UnavailableError(f"Kafka has no such topic: make the topics with `zccr-stream topics` ({reason.str()})")
    if reason.code() == KafkaError.MSG_SIZE_TOO_LARGE:
        return MessageTooLargeError(f"a message is larger than its topic takes: {reason.str()}")
    if reason.fatal():
        return error
    return UnavailableError(f"Kafka did not take a message: {reason.str()}")
