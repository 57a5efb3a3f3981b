"""How far consumer groups are, asked from outside."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from zccr_stream.parts import UnavailableError
from zccr_stream.stream.records import TIMEOUT_S, watermarks

logger = logging.getLogger(__name__)


def group_lag(config: Mapping[str, Any], group: str, topics: Sequence[str]) -> dict[str, int]:
    """Records per topic that the group has not committed yet.

    Raises:
        UnavailableError: Kafka does not answer or has no such topic.
    """
    with _asking(config, group) as consumer:
        return {topic: _topic_lag(consumer, topic) for topic in topics}


@contextmanager
def _asking(config: Mapping[str, Any], group: str) -> Iterator[Consumer]:
    """A client that speaks for a group without joining it."""
    consumer = Consumer({**config, "group.id": group, "enable.auto.commit": False}, logger=logger)
    try:
        yield consumer
    except KafkaException as error:
        raise UnavailableError(f"Kafka does not answer: {error.args[0].str()}") from error
    finally:
        consumer.close()


def _topic_lag(consumer: Consumer, topic: str) -> int:
    lag = 0
    for partition in _committed(consumer, topic):
        first, end = watermarks(consumer, partition)
        lag += end - max(first, partition.offset)
    return lag


def _committed(consumer: Consumer, topic: str) -> list[TopicPartition]:
    """Every partition of the topic with the group's offset, negative where it has none."""
    described = consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
    if described.error is not None:
        raise UnavailableError(f"{topic}: {described.error.str()}; `zccr-stream topics` makes the topics")
    partitions = [TopicPartition(topic, number) for number in described.partitions]
    return list(consumer.committed(partitions, timeout=TIMEOUT_S))
