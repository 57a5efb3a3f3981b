"""The vocabulary of the stream: topics, records and messages, events, errors.

Frozen values without behaviour. Knows nothing of JSON, CloudEvents, Kafka clients, databases or vectors' meaning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

IMAGE = "image"
TEXT = "text"
MODALITIES = (IMAGE, TEXT)

ASSET_UPLOADED = "asset-uploaded"
ASSET_DELETED = "asset-deleted"
USER_DELETED = "user-deleted"
ASSET_EMBEDDED = "asset-embedded"
PROFILE_CHANGED = "profile-changed"
RECOMMENDATIONS = "recommendations"
DEAD_LETTER_SUFFIX = ".dlq"

# The type of the one event that each input topic carries.
INPUT_TYPES = {
    ASSET_UPLOADED: "asset.uploaded",
    ASSET_DELETED: "asset.deleted",
    USER_DELETED: "user.deleted",
}
RECOMMENDATIONS_TYPE = "recommendations.refreshed"


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
    """One Kafka record as it came; `timestamp_ms` is -1 where it has none, no headers where they are unreadable."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    has_readable_headers: bool = True


class CorruptRecordError(Exception):
    """A record of an internal topic that cannot be read, so that its reader's state would be wrong without it.

    Args:
        record: which one.
        message: what is wrong with it.
    """

    def __init__(self, record: Record, message: str) -> None:
        super().__init__(f"{record.topic}, partition {record.partition}, offset {record.offset}: {message}")


@dataclass(frozen=True, slots=True)
class Message:
    """One message to publish; `topic` is without the prefix. Without `timestamp_ms` it gets the time of sending."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_ms: int | None = None


@dataclass(frozen=True, slots=True)
class AssetUploaded:
    """A user's asset, new or replaced; exactly one of `uri` and `text` is set, an image has `uri`."""

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
