"""What a batch of writes changes: each asset one last-writer-wins register, each user deletion a bound in time.

A batch comes in, and what stands for the assets and users in it; rows to store and what to announce go out. Pure: it
does not know how or where rows are stored. The order of writes is (event time, deletion over upload, event id); uploads
that are equal in all three, as those of two careless producers may be, are ordered by owner and content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple

from zccr_stream.events import AssetDeleted, AssetUploaded, UserDeleted
from zccr_stream.parts import Writes

_HASH_BYTES = 16
_ANY_CONTENT = b"\xff" * _HASH_BYTES


class Rank(NamedTuple):
    """The place of a write in the order of writes; `tie_break` is empty for a deletion.

    Of an upload it is a hash of the owner before one of the content. An asset that no longer lives keeps the owner's
    alone, before the greatest content: an erasure leaves no trace of what was uploaded, and what the erased owner
    uploaded besides, equal in all else, does not live either. The hashes hold the asset's and the event's id, so that
    those of one owner are not alike.
    """

    occurred_at_ns: int
    deleted: bool
    event_id: str
    tie_break: bytes


class Register(NamedTuple):
    """What stands for one asset; `user_id` is None where it does not live."""

    user_id: str | None
    rank: Rank
    revision: int


class Row(NamedTuple):
    """One asset as it is to be stored; `vector` is a row of the batch's vectors. Not live: all three are None."""

    asset_id: str
    user_id: str | None
    modality: str | None
    rank: Rank
    revision: int
    vector: int | None


class Write(NamedTuple):
    """A write of a batch; `vector` is its row of the batch's vectors, None for a deletion."""

    event: AssetUploaded | AssetDeleted
    rank: Rank
    vector: int | None


@dataclass(frozen=True, slots=True)
class Batch:
    """The greatest writes of a batch, per asset and per user."""

    writes: Mapping[str, Write]
    user_deletions: Mapping[str, UserDeleted]

    @property
    def user_ids(self) -> set[str]:
        """New owners and deleted users."""
        events = (write.event for write in self.writes.values())
        return {event.user_id for event in events if isinstance(event, AssetUploaded)}.union(self.user_deletions)


@dataclass(frozen=True, slots=True)
class Changes:
    """What a batch changes, by ascending id.

    `announced` are the assets that lived before or live now: what never lived was never announced. `received_at_ms`
    holds each user whose live assets changed, with the arrival of the oldest write behind it.
    """

    rows: Sequence[Row]
    announced: Sequence[str]
    received_at_ms: Mapping[str, int]


def reduce(writes: Writes) -> Batch:
    """Keep the greatest write of each asset and of each user; of equal ones the first."""
    greatest: dict[str, Write] = {}
    events: list[AssetUploaded | AssetDeleted] = [*writes.uploads, *writes.deletions]
    for row, event in enumerate(events):
        write = Write(event, rank(event), row if row < len(writes.uploads) else None)
        if event.asset_id not in greatest or write.rank > greatest[event.asset_id].rank:
            greatest[event.asset_id] = write
    user_deletions: dict[str, UserDeleted] = {}
    for deletion in writes.user_deletions:
        earlier = user_deletions.get(deletion.user_id)
        if earlier is None or deletion.occurred_at_ns > earlier.occurred_at_ns:
            user_deletions[deletion.user_id] = deletion
    return Batch(greatest, user_deletions)


def rank(event: AssetUploaded | AssetDeleted) -> Rank:
    """The place of a write in the order of writes."""
    if isinstance(event, AssetDeleted):
        return Rank(event.occurred_at_ns, True, event.event_id, b"")
    ids = (event.asset_id, event.event_id)
    content = ("text", event.text) if event.uri is None else ("uri", event.uri)
    tie_break = _hash(*ids, event.user_id) + _hash(*ids, event.modality, *content)
    return Rank(event.occurred_at_ns, False, event.event_id, tie_break)


def _hash(*fields: str | None) -> bytes:
    """A hash of fields of which all but the last hold no control characters."""
    return blake2b("\0".join(field or "" for field in fields).encode(), digest_size=_HASH_BYTES).digest()


def decide(batch: Batch, standing: Mapping[str, Register], deleted_at_ns: Mapping[str, int | None]) -> Changes:
    """Decide what a batch changes.

    Args:
        batch: The greatest writes.
        standing: What stands for its assets, and for the assets of the users it deletes; absent: nothing yet.
        deleted_at_ns: When its users were last deleted, the batch's own deletions included.
    """
    rows: list[Row] = []
    announced: list[str] = []
    received_at_ms: dict[str, int] = {}
    for asset_id in sorted(standing.keys() | batch.writes.keys()):
        register = standing.get(asset_id)
        change = _overwrite(asset_id, batch, register, deleted_at_ns) or _erase(asset_id, batch, register)
        if change is None:
            continue
        row, arrival_ms = change
        rows.append(row)
        owners = {row.user_id, register.user_id if register else None} - {None}
        if owners:
            announced.append(asset_id)
        for user_id in owners:
            assert user_id is not None
            received_at_ms[user_id] = min(arrival_ms, received_at_ms.get(user_id, arrival_ms))
    return Changes(rows, announced, dict(sorted(received_at_ms.items())))


def _overwrite(
    asset_id: str, batch: Batch, register: Register | None, deleted_at_ns: Mapping[str, int | None]
) -> tuple[Row, int] | None:
    """The row that a greater write leaves, and when that write arrived; a dead owner's upload leaves a tombstone."""
    if asset_id not in batch.writes:
        return None
    event, place, vector = batch.writes[asset_id]
    if register is not None and place <= register.rank:
        return None
    revision = register.revision + 1 if register else 1
    if isinstance(event, AssetUploaded):
        deletion_ns = deleted_at_ns[event.user_id]
        if deletion_ns is None or deletion_ns < event.occurred_at_ns:
            return Row(asset_id, event.user_id, event.modality, place, revision, vector), event.received_at_ms
    return _tombstone(asset_id, place, revision), event.received_at_ms


def _erase(asset_id: str, batch: Batch, register: Register | None) -> tuple[Row, int] | None:
    """The tombstone that the deletion of its owner leaves of an asset that stands, and when that deletion arrived."""
    if register is None or register.user_id is None:
        return None
    deletion = batch.user_deletions.get(register.user_id)
    if deletion is None or deletion.occurred_at_ns < register.rank.occurred_at_ns:
        return None
    return _tombstone(asset_id, register.rank, register.revision + 1), deletion.received_at_ms


def _tombstone(asset_id: str, place: Rank, revision: int) -> Row:
    if not place.deleted:
        place = place._replace(tie_break=place.tie_break[:_HASH_BYTES] + _ANY_CONTENT)
    return Row(asset_id, None, None, place, revision, None)
