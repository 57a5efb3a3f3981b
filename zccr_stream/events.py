"""Events in and out: the vocabulary of the stream.

Kafka records come in and become frozen events; recommendations and announcements go out as messages.
Knows CloudEvents and JSON; knows nothing of Kafka clients, databases or vectors' meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

IMAGE = "image"
TEXT = "text"
MODALITIES = (IMAGE, TEXT)


class BadInputError(Exception):
    """Input that can never succeed; it goes to the dead letters.

    Args:
        stage: `parse`, `fetch`, `decode` or `encode`.
        message: what was wrong and what is expected, for the person who sent it.
    """

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage


class BadEventError(BadInputError):
    """A record that is not a valid event; the message names the field, what was wrong and what is expected."""

    def __init__(self, message: str) -> None:
        super().__init__("parse", message)


class TryLaterError(Exception):
    """Input that may succeed later (a store that is down, a time-out); retried with back-off."""

    def __init__(self, stage: str, message: str) -> None:
        super().__init__(message)
        self.stage = stage


@dataclass(frozen=True, slots=True)
class Record:
    """One Kafka record as it came."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """One message to publish; `topic` is without the prefix."""

    topic: str
    key: str
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class AssetUploaded:
    """A user's asset, new or replaced. Text comes inline (`text`) or by `uri`, an image by `uri`."""

    event_id: str
    occurred_at_ns: int
    received_at_ms: int
    asset_id: str
    user_id: str
    modality: str
    uri: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class AssetDeleted:
    """An asset is gone."""

    event_id: str
    occurred_at_ns: int
    received_at_ms: int
    asset_id: str


@dataclass(frozen=True, slots=True)
class UserDeleted:
    """A user is gone, with every asset of theirs up to this time."""

    event_id: str
    occurred_at_ns: int
    received_at_ms: int
    user_id: str


InputEvent = AssetUploaded | AssetDeleted | UserDeleted


@dataclass(frozen=True, slots=True)
class Embeddings:
    """The state of n assets, as `asset-embedded` carries it.

    `vectors` is (n, d) float16, unit length; rows where `live` is False are removals and zero.
    """

    model: str
    asset_ids: Sequence[str]
    user_ids: Sequence[str]
    modalities: Sequence[str]
    revisions: npt.NDArray[np.int64]
    occurred_at_ns: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float16]
    live: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.asset_ids)


@dataclass(frozen=True, slots=True)
class ProfileChanged:
    """A user's profile has this version now; `received_at_ms` is when the oldest event behind it arrived."""

    user_id: str
    profile_version: int
    received_at_ms: int


@dataclass(frozen=True, slots=True)
class Recommended:
    """One recommended asset."""

    asset_id: str
    user_id: str
    score: float


@dataclass(frozen=True, slots=True)
class RecommendedArea:
    """One area of interest and what was found for it, per target modality, best first."""

    area_id: str
    modality: str
    size: int
    weight: float
    representative: str
    recommended: dict[str, list[Recommended]]


@dataclass(frozen=True, slots=True)
class FeedItem:
    """One item of the feed over all areas."""

    asset_id: str
    user_id: str
    modality: str
    area_id: str
    score: float


@dataclass(frozen=True, slots=True)
class Recommendations:
    """A user's refreshed recommendations; no areas means that the user has no assets left (a tombstone)."""

    user_id: str
    profile_version: int
    generated_at_ns: int
    model: str
    areas: list[RecommendedArea]
    feed: list[FeedItem]


def parse(record: Record, topic: str) -> InputEvent:
    """Read one record of the input topic `topic` (named without prefix).

    Raises:
        BadEventError: not a valid event of this topic.
    """
    raise BadEventError(f"{topic} {record.offset}: not written yet")


def dump_embeddings(embeddings: Embeddings) -> list[Message]:
    """`asset-embedded`, one message per asset."""
    raise BadEventError("not written yet")


def parse_embeddings(records: Sequence[Record], model: str) -> Embeddings:
    """Read a batch of `asset-embedded`; assets of another model count as removed from this model's space."""
    raise BadEventError("not written yet")


def dump_profile_changes(changes: Sequence[ProfileChanged]) -> list[Message]:
    """`profile-changed`, one message per user."""
    raise BadEventError("not written yet")


def parse_profile_changed(record: Record) -> ProfileChanged:
    """Read one `profile-changed` record."""
    raise BadEventError("not written yet")


def dump_recommendations(recommendations: Recommendations) -> Message:
    """`recommendations`: the contract's JSON, or a tombstone where the user has no assets left."""
    raise BadEventError("not written yet")


def parse_recommendations(value: bytes) -> dict[str, Any]:
    """Read one value of `recommendations`."""
    raise BadEventError("not written yet")
