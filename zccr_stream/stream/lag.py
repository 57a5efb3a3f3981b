"""How far consumer groups are behind, asked from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from zccr_stream.pipeline import UnavailableError
from zccr_stream.stream.records import TIMEOUT_S, watermarks


def group_lag(config: Mapping[str, Any], group: str, topics: Sequence[str]) -> dict[str, int]:
    """Records per topic that the group has not committed yet.

    Raises:
        UnavailableError: Kafka does not answer or has no such topic.
    """
    consumer = Consumer({**config, "group.id": group, "enable.auto.commit": False})
    try:
        return {topic: _topic_lag(consumer, topic) for topic in topics}
    except KafkaException as error:
        raise UnavailableError(f"Kafka does not answer: {error.args[0].str()}") from error
    finally:
        consumer.close()


def _topic_lag(consumer: Consumer, topic: str) -> int:
    described = consumer.list_topics(topic, timeout=TIMEOUT_S).topics[topic]
    if described.error is not None:
        raise UnavailableError(f"{topic}: {described.error.str()}; `zccr-stream topics` makes the topics")
    lag = 0
    partitions = [TopicPartition(topic, number) for number in described.partitions]
    for partition in consumer.committed(partitions, timeout=TIMEOUT_S):
        first, end = watermarks(consumer, partition)
        lag += end - max(first, partition.offset)
    return lag
