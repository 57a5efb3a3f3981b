"""Does what was published agree with the truth? States of assets and users from both sides -> where they differ.

What the topics say is gathered in `Published`; the truth streams past it. It does not know Kafka or databases, nor how
a difference came about: a topic or a database that was restored from a backup, or rows that were changed by hand.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from zccr_stream.events import CorruptRecordError, Embeddings, Record, recommendations_id

logger = logging.getLogger(__name__)

NOT_PUBLISHED = "not published in its newest state"
ORPHAN = "published, but not live in the database"
AHEAD = "published in a newer state than the database has: was it restored from a backup?"
UNEQUAL = "published with another content"


class AssetState(NamedTuple):
    """An asset: its revision, and the digest of owner, modality and vector; None where it is not live."""

    revision: int
    digest: bytes | None


class UserState(NamedTuple):
    """A user: the version of the profile, and whether any asset is in it."""

    version: int
    has_assets: bool


def digest(user_id: str, modality: str, vector: bytes) -> bytes:
    """16 bytes of owner, modality and the vector's float16 bytes, as the database computes them too."""
    return hashlib.md5(f"{user_id}\x01{modality}\x01".encode() + vector, usedforsecurity=False).digest()


@dataclass(frozen=True, slots=True)
class Truth:
    """One snapshot of the database: live assets and all users, and those whose announcement is still under way."""

    assets: Iterable[tuple[str, AssetState]]
    users: Iterable[tuple[str, UserState]]
    unannounced_assets: frozenset[str]
    unannounced_users: frozenset[str]


class Published:
    """The last state of every asset and user in the topics; some 300 bytes each."""

    def __init__(self) -> None:
        self.assets: dict[str, AssetState] = {}
        self.users: dict[str, UserState] = {}

    def apply(self, embeddings: Embeddings) -> None:
        """Take a batch of `asset-embedded`: the last record of an asset counts, as compaction keeps it."""
        for row, live in enumerate(embeddings.live.tolist()):
            vector = embeddings.vectors[row].tobytes()
            content = digest(embeddings.user_ids[row], embeddings.modalities[row], vector) if live else None
            self.assets[embeddings.asset_ids[row]] = AssetState(int(embeddings.revisions[row]), content)

    def take_recommendations(self, records: Sequence[Record]) -> None:
        """Take a batch of `recommendations`: the greatest version of a user counts, as subscribers keep it."""
        for record in records:
            try:
                user_id, version = recommendations_id(record)
            except CorruptRecordError as error:
                logger.error("%s", error)
                continue
            if version >= self.users.get(user_id, UserState(0, False)).version:
                self.users[user_id] = UserState(version, record.value is not None)


@dataclass(slots=True)
class Audit:
    """What was compared, and by id what differs: the published revision or version, and in words how."""

    live_assets: int = 0
    users: int = 0
    unannounced: int = 0
    asset_differences: dict[str, tuple[int, str]] = field(default_factory=dict)
    user_differences: dict[str, tuple[int, str]] = field(default_factory=dict)

    def standing_since(self, before: Audit) -> Audit:
        """Only what differed in the same way before: what was merely on its way has moved on."""
        return Audit(
            self.live_assets,
            self.users,
            self.unannounced,
            dict(self.asset_differences.items() & before.asset_differences.items()),
            dict(self.user_differences.items() & before.user_differences.items()),
        )

    def __bool__(self) -> bool:
        return bool(self.asset_differences or self.user_differences)


def compare(truth: Truth, published: Published) -> Audit:
    """Hold what was published against the truth; what is noted as still to be announced is left out."""
    audit = Audit(unannounced=len(truth.unannounced_assets) + len(truth.unannounced_users))
    orphans = {asset_id for asset_id, state in published.assets.items() if state.digest is not None}
    for asset_id, state in truth.assets:
        audit.live_assets += 1
        orphans.discard(asset_id)
        said = published.assets.get(asset_id, AssetState(0, None))
        if said != state and asset_id not in truth.unannounced_assets:
            audit.asset_differences[asset_id] = (said.revision, _asset_difference(state, said))
    for asset_id in orphans - truth.unannounced_assets:
        audit.asset_differences[asset_id] = (published.assets[asset_id].revision, ORPHAN)
    strangers = set(published.users)
    for user_id, of_user in truth.users:
        audit.users += 1
        strangers.discard(user_id)
        # A user without assets whose tombstone compaction has taken away is as it should be.
        of_topic = published.users.get(user_id, UserState(0, True) if of_user.has_assets else of_user)
        if of_topic != of_user and user_id not in truth.unannounced_users:
            audit.user_differences[user_id] = (of_topic.version, _user_difference(of_user, of_topic))
    for user_id in strangers - truth.unannounced_users:
        audit.user_differences[user_id] = (published.users[user_id].version, AHEAD)
    return audit


def _asset_difference(state: AssetState, said: AssetState) -> str:
    if said.revision > state.revision:
        return AHEAD
    return NOT_PUBLISHED if said.revision < state.revision or said.digest is None else UNEQUAL


def _user_difference(state: UserState, said: UserState) -> str:
    return AHEAD if said.version > state.version else NOT_PUBLISHED
