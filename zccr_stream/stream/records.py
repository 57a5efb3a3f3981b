"""Kafka's messages and errors in our words."""

from __future__ import annotations

import logging

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, KafkaError, KafkaException, Message

from zccr_stream.events import Record

logger = logging.getLogger(__name__)


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


def _headers(message: Message) -> tuple[tuple[str, bytes | None], ...] | None:
    """The headers, or None where a name is not UTF-8: Kafka takes such names, and its client fails on them."""
    try:
        return tuple((str(name), _bytes(value)) for name, value in list(message.headers() or ()))
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
