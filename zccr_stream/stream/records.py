"""Kafka's messages and errors in our words."""

from __future__ import annotations

import logging
import operator

import tenacity
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Consumer, KafkaError, KafkaException, Message, TopicPartition

from zccr_stream.events import Record
from zccr_stream.parts import UnavailableError

logger = logging.getLogger(__name__)

TIMEOUT_S = 15
"""How long a question to Kafka may take."""


# Of a name that is not UTF-8 the client makes a tuple without a name and raises, but returns the list all the same. The
# fast paths that CPython 3.11 gives to hot loops overlook that error, and any later cache miss crashes on the tuple
# (`sys._clear_type_cache()` provokes it). Called through C, the error is seen at once.
_headers_of = operator.methodcaller("headers")


def record_of(message: Message) -> Record:
    """A consumed message as a record; -1 where it has no time."""
    kind, timestamp_ms = message.timestamp()
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None and partition is not None and offset is not None, "only a consumed message has a place"
    headers = _headers(message)
    return Record(
        topic=topic,
        partition=partition,
        offset=offset,
        timestamp_ms=-1 if kind == TIMESTAMP_NOT_AVAILABLE else timestamp_ms,
        key=message.key(),
        value=message.value(),
        headers=headers or (),
        has_readable_headers=headers is not None,
    )


def watermarks(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    """The first offset of a partition and the one after its last; waits for a leader that is just being chosen.

    Raises:
        UnavailableError: Kafka does not answer.
    """
    choosing = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_choosing_leader),
        wait=tenacity.wait_fixed(0.1),
        stop=tenacity.stop_after_delay(TIMEOUT_S),
        reraise=True,
    )
    try:
        first, end = choosing(lambda: consumer.get_watermark_offsets(partition, timeout=TIMEOUT_S))
    except KafkaException as error:
        raise UnavailableError(f"Kafka does not answer: {error.args[0].str()}") from error
    return first, end


def _is_choosing_leader(error: BaseException) -> bool:
    """Right after a topic was made, its brokers do not know yet who leads."""
    codes = (KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE)
    return isinstance(error, KafkaException) and error.args[0].code() in codes


def _headers(message: Message) -> tuple[tuple[str, bytes | None], ...] | None:
    """The headers, or None where a name is not UTF-8: Kafka takes such names, and its client fails on them."""
    try:
        return tuple((str(name), _bytes(value)) for name, value in _headers_of(message) or ())
    except (UnicodeDecodeError, SystemError):
        return None


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def raise_or_log(error: KafkaError) -> None:
    """Raise what cannot heal; log what the client heals by itself.

    Raises:
        KafkaException: the client cannot go on.
    """
    if error.fatal():
        raise KafkaException(error)
    if error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
        logger.warning("%s: make the topics with `zccr-stream topics`", error.str())
    else:
        logger.warning("Kafka: %s", error.str())
