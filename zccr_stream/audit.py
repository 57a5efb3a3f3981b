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
ON_ITS_WAY = "still to be announced: the ingest consumers do that"
TO_BE_REFRESHED = "still to be refreshed: the recommend consumers do that"
WAITING = frozenset({ON_ITS_WAY, TO_BE_REFRESHED})
"""What running consumers settle by themselves."""


class AssetState(NamedTuple):
    """An asset: its revision, the digest of owner, modality and vector, and the owner; None, '' where not live."""

    revision: int
    digest: bytes | None
    user_id: str = ""


class UserState(NamedTuple):
    """A user: the version of the profile, and whether any asset is in it."""

    version: int
    has_assets: bool


class Difference(NamedTuple):
    """The revision or version that was published, how it differs, and whose profiles a mended asset is in."""

    published: int
    how: str
    user_ids: frozenset[str] = frozenset()


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
    """The newest state of every asset and user in the topics, as those who follow them keep it; some 300 bytes each."""

    def __init__(self) -> None:
        self.assets: dict[str, AssetState] = {}
        self.users: dict[str, UserState] = {}
        self._user_ids: dict[str, str] = {}

    def apply(self, embeddings: Embeddings) -> None:
        """Take a batch of `asset-embedded`: the greatest revision of an asset counts, of equal ones the last."""
        for row, live in enumerate(embeddings.live.tolist()):
            asset_id, revision = embeddings.asset_ids[row], int(embeddings.revisions[row])
            if asset_id in self.assets and revision < self.assets[asset_id].revision:
                continue
            self.assets[asset_id] = AssetState(revision, None)
            if live:
                user_id = self._user_ids.setdefault(embeddings.user_ids[row], embeddings.user_ids[row])
                content = digest(user_id, embeddings.modalities[row], embeddings.vectors[row].tobytes())
                self.assets[asset_id] = AssetState(revision, content, user_id)

    def take_recommendations(self, records: Sequence[Record]) -> None:
        """Take a batch of `recommendations`: the greatest version of a user counts, of equal ones the last."""
        for record in records:
            try:
                user_id, version = recommendations_id(record)
            except CorruptRecordError as error:
                logger.error("passed over: %s", error)
                continue
            if version >= self.users.get(user_id, UserState(0, False)).version:
                self.users[user_id] = UserState(version, record.value is not None)


@dataclass(slots=True)
class Audit:
    """What was compared, and by id what differs."""

    live_assets: int = 0
    users: int = 0
    assets_that_differ: dict[str, Difference] = field(default_factory=dict)
    users_that_differ: dict[str, Difference] = field(default_factory=dict)

    def standing_since(self, before: Audit) -> Audit:
        """Only what differed in the same way before: what was merely on its way has moved on."""
        return Audit(
            self.live_assets,
            self.users,
            dict(self.assets_that_differ.items() & before.assets_that_differ.items()),
            dict(self.users_that_differ.items() & before.users_that_differ.items()),
        )

    def __bool__(self) -> bool:
        return bool(self.assets_that_differ or self.users_that_differ)


def compare(truth: Truth, published: Published) -> Audit:
    """Hold what was published against the truth."""
    audit = Audit()
    orphans = {asset_id for asset_id, state in published.assets.items() if state.digest is not None}
    for asset_id, state in truth.assets:
        audit.live_assets += 1
        orphans.discard(asset_id)
        said = published.assets.get(asset_id, AssetState(0, None))
        if said != state:
            how = ON_ITS_WAY if asset_id in truth.unannounced_assets else _asset_difference(state, said)
            audit.assets_that_differ[asset_id] = Difference(said.revision, how, _owners(state, said))
    for asset_id in orphans:
        said = published.assets[asset_id]
        how = ON_ITS_WAY if asset_id in truth.unannounced_assets else ORPHAN
        audit.assets_that_differ[asset_id] = Difference(said.revision, how, _owners(said))
    strangers = set(published.users)
    for user_id, of_user in truth.users:
        audit.users += 1
        strangers.discard(user_id)
        # A user without assets whose tombstone compaction has taken away is as it should be.
        of_topic = published.users.get(user_id, UserState(0, True) if of_user.has_assets else of_user)
        if of_topic != of_user:
            how = ON_ITS_WAY if user_id in truth.unannounced_users else _user_difference(of_user, of_topic)
            audit.users_that_differ[user_id] = Difference(of_topic.version, how)
    for user_id in strangers:
        how = ON_ITS_WAY if user_id in truth.unannounced_users else AHEAD
        audit.users_that_differ[user_id] = Difference(published.users[user_id].version, how)
    return audit


def _owners(*states: AssetState) -> frozenset[str]:
    return frozenset(state.user_id for state in states if state.digest is not None)


def _asset_difference(state: AssetState, said: AssetState) -> str:
    if said.revision > state.revision:
        return AHEAD
    return NOT_PUBLISHED if said.revision < state.revision or said.digest is None else UNEQUAL


def _user_difference(state: UserState, said: UserState) -> str:
    return AHEAD if said.version > state.version else NOT_PUBLISHED
