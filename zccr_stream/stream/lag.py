"""How far consumer groups are, asked and noted from outside."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import tenacity
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from zccr_stream.pipeline import UnavailableError
from zccr_stream.stream.records import TIMEOUT_S, watermarks

logger = logging.getLogger(__name__)

_COORDINATOR_MOVES = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)
"""What a broker says of a group until the one that keeps it has it: of a new group on a busy one for a moment."""


def committed_positions(config: Mapping[str, Any], group: str, topic: str) -> dict[int, int]:
    """Where a group that nobody is a member of goes on, by partition; those that it never read are left out.

    Raises:
        UnavailableError: Kafka does not answer or has no such topic.
    """
    with _asking(config, group) as consumer:
        return {
            partition.partition: partition.offset for partition in _committed(consumer, topic) if partition.offset >= 0
        }


def commit_positions(config: Mapping[str, Any], group: str, topic: str, positions: Mapping[int, int]) -> None:
    """Note where such a group goes on.

    Raises:
        UnavailableError: Kafka does not answer, or the group has members.
    """
    offsets = [TopicPartition(topic, partition, offset) for partition, offset in positions.items()]
    with _asking(config, group) as consumer:
        if offsets:
            for attempt in _until_coordinated():
                with attempt:
                    consumer.commit(offsets=offsets, asynchronous=False)


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


def _until_coordinated() -> tenacity.Retrying:
    """Attempts while the group's coordinator moves; the client tries a commit that waits for nobody once only."""
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(
            lambda error: isinstance(error, KafkaException) and error.args[0].code() in _COORDINATOR_MOVES
        ),
        stop=tenacity.stop_after_delay(TIMEOUT_S),
        wait=tenacity.wait_exponential(multiplier=0.1, max=1),
        reraise=True,
    )


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
