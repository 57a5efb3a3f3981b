"""What a batch of writes changes: each asset one last-writer-wins register, each user deletion a bound in time.

A batch comes in, and what stands for the assets and users in it; rows to store and what to announce go out. Pure: it
does not know how or where rows are stored. The order of writes is (event time, deletion over upload, event id).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from zccr_stream.events import AssetDeleted, AssetUploaded, UserDeleted
from zccr_stream.pipeline import Writes


class Register(NamedTuple):
    """What stands for one asset; `user_id` is None where it does not live."""

    user_id: str | None
    occurred_at_ns: int
    deleted: bool
    event_id: str
    revision: int


class Row(NamedTuple):
    """One asset as it is to be stored; `vector` is a row of the batch's vectors. Not live: all three are None."""

    asset_id: str
    user_id: str | None
    modality: str | None
    occurred_at_ns: int
    deleted: bool
    event_id: str
    revision: int
    vector: int | None


@dataclass(frozen=True, slots=True)
class Batch:
    """The greatest writes of a batch: per asset with its row of the vectors (None for a deletion), and per user."""

    writes: Mapping[str, tuple[AssetUploaded | AssetDeleted, int | None]]
    user_deletions: Mapping[str, UserDeleted]

    @property
    def user_ids(self) -> set[str]:
        """New owners and deleted users."""
        return {write.user_id for write, _ in self.writes.values() if isinstance(write, AssetUploaded)}.union(
            self.user_deletions
        )


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
    greatest: dict[str, tuple[AssetUploaded | AssetDeleted, int | None]] = {}
    events: list[AssetUploaded | AssetDeleted] = [*writes.uploads, *writes.deletions]
    for row, write in enumerate(events):
        vector = row if row < len(writes.uploads) else None
        if write.asset_id not in greatest or rank(write) > rank(greatest[write.asset_id][0]):
            greatest[write.asset_id] = (write, vector)
    user_deletions: dict[str, UserDeleted] = {}
    for event in writes.user_deletions:
        if event.user_id not in user_deletions or event.occurred_at_ns > user_deletions[event.user_id].occurred_at_ns:
            user_deletions[event.user_id] = event
    return Batch(greatest, user_deletions)


def rank(write: AssetUploaded | AssetDeleted | Register) -> tuple[int, bool, str]:
    """The place of a write in the order of writes."""
    deleted = write.deleted if isinstance(write, Register) else isinstance(write, AssetDeleted)
    return write.occurred_at_ns, deleted, write.event_id


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
    write, vector = batch.writes[asset_id]
    if register is not None and rank(write) <= rank(register):
        return None
    revision = register.revision + 1 if register else 1
    stamp = (*rank(write), revision)
    if isinstance(write, AssetUploaded):
        deletion_ns = deleted_at_ns[write.user_id]
        if deletion_ns is None or deletion_ns < write.occurred_at_ns:
            return Row(asset_id, write.user_id, write.modality, *stamp, vector), write.received_at_ms
    return Row(asset_id, None, None, *stamp, None), write.received_at_ms


def _erase(asset_id: str, batch: Batch, register: Register | None) -> tuple[Row, int] | None:
    """The tombstone that the deletion of its owner leaves of an asset that stands, and when that deletion arrived."""
    if register is None or register.user_id is None:
        return None
    deletion = batch.user_deletions.get(register.user_id)
    if deletion is None or deletion.occurred_at_ns < register.occurred_at_ns:
        return None
    return Row(asset_id, None, None, *rank(register), register.revision + 1, None), deletion.received_at_ms
