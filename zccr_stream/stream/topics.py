"""The topics and their settings: what `zccr-stream topics` makes, and what identifies a topic's offsets."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType

from zccr_stream.events import (
    ASSET_DELETED,
    ASSET_EMBEDDED,
    ASSET_UPLOADED,
    DEAD_LETTER_SUFFIX,
    PROFILE_CHANGED,
    RECOMMENDATIONS,
    USER_DELETED,
)
from zccr_stream.parts import UnavailableError

logger = logging.getLogger(__name__)

INPUT_TOPICS = (ASSET_UPLOADED, ASSET_DELETED, USER_DELETED)

_TIMEOUT_S = 15
_HOUR_MS = 3_600_000
# A recommendation of two hundred areas fits, and an upload's photo in a `data:` URI; its dead letter adds headers.
_MESSAGE_MAX_BYTES = 8 * 1024 * 1024
_INPUT_MAX_BYTES = 6 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class TopicRule:
    """How topics are made."""

    partitions: int
    replication_factor: int
    retention_hours: int
    delete_retention_hours: int

    def configs(self) -> dict[str, dict[str, str]]:
        """The settings of every topic, by name without prefix."""
        kept = {"cleanup.policy": "delete", "retention.ms": str(self.retention_hours * _HOUR_MS)}
        compacted = {
            "cleanup.policy": "compact",
            "delete.retention.ms": str(self.delete_retention_hours * _HOUR_MS),
        }
        large = {"max.message.bytes": str(_MESSAGE_MAX_BYTES)}
        return {
            # An event without a time of its own keeps the producer's, also when it is published again.
            **dict.fromkeys(
                INPUT_TOPICS,
                kept | {"max.message.bytes": str(_INPUT_MAX_BYTES), "message.timestamp.type": "CreateTime"},
            ),
            ASSET_EMBEDDED: compacted,
            PROFILE_CHANGED: kept,
            RECOMMENDATIONS: compacted | large,
            # Dead letters wait for a person: they are kept until somebody deals with them.
            **{
                topic + DEAD_LETTER_SUFFIX: {"cleanup.policy": "delete", "retention.ms": "-1"} | large
                for topic in (*INPUT_TOPICS, PROFILE_CHANGED)
            },
        }


@dataclass(frozen=True, slots=True)
class TopicReport:
    """What was done about a topic: `created`, `as wanted`, or how it differs from what is wanted."""

    topic: str
    partitions: int
    state: str


def ensure_topics(config: Mapping[str, Any], topic_prefix: str, rule: TopicRule) -> list[TopicReport]:
    """Make the topics that are missing; those that are there stay as they are, and differences are told.

    Raises:
        UnavailableError: Kafka does not answer.
    """
    admin = AdminClient(dict(config))
    try:
        existing = admin.list_topics(timeout=_TIMEOUT_S).topics
        missing = {name: topic for name, topic in rule.configs().items() if topic_prefix + name not in existing}
        _create(admin, topic_prefix, missing, rule)
        differences = _differences(admin, topic_prefix, {n: c for n, c in rule.configs().items() if n not in missing})
        return [
            TopicReport(
                topic_prefix + name,
                rule.partitions if name in missing else len(existing[topic_prefix + name].partitions),
                "created" if name in missing else differences.get(name) or "as wanted",
            )
            for name in rule.configs()
        ]
    except KafkaException as error:
        raise UnavailableError(f"cannot make the topics: {error.args[0].str()}") from error


def _create(admin: AdminClient, topic_prefix: str, configs: Mapping[str, dict[str, str]], rule: TopicRule) -> None:
    if not configs:
        return
    topics = [
        NewTopic(topic_prefix + name, rule.partitions, rule.replication_factor, config=config)
        for name, config in configs.items()
    ]
    for future in admin.create_topics(topics, operation_timeout=_TIMEOUT_S).values():
        future.result()


def _differences(admin: AdminClient, topic_prefix: str, configs: Mapping[str, dict[str, str]]) -> dict[str, str]:
    if not configs:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, topic_prefix + name) for name in configs]
    actual = {
        resource.name.removeprefix(topic_prefix): future.result()
        for resource, future in admin.describe_configs(resources, request_timeout=_TIMEOUT_S).items()
    }
    return {
        name: "; ".join(
            f"{key} is {actual[name][key].value}, wanted {value}"
            for key, value in config.items()
            if actual[name][key].value != value
        )
        for name, config in configs.items()
    }


def identify(config: Mapping[str, Any], topic: str) -> str:
    """What a topic's offsets belong to: cluster, name and the topic's own id, which a re-made topic does not keep.

    Raises:
        UnavailableError: Kafka does not answer or has no such topic.
    """
    admin = AdminClient(dict(config), logger=logger)
    try:
        cluster = admin.describe_cluster(request_timeout=_TIMEOUT_S).result().cluster_id
        described = admin.describe_topics(TopicCollection([topic]), request_timeout=_TIMEOUT_S)[topic].result()
    except KafkaException as error:
        raise UnavailableError(
            f"cannot look at topic {topic}: {error.args[0].str()}; `zccr-stream topics` makes the topics"
        ) from error
    return f"{cluster}/{topic}/{described.topic_id}"
