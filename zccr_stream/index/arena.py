"""Vectors and their owners in segments that never move.

One writer appends to free slots and marks slots dead; any number of readers hold views, tuples of frozen parts. A
slot is written once, before the view that counts it is published, and is never used again, so a view stays true for
as long as somebody holds it: no lock, no copy, no growth by copying. Knows nothing of revisions' meaning or searching.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.object_]
Slots = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

ABSENT = -1  # the slot of an asset that is not held
SLOT_BITS = 32  # a slot is a segment's number and an offset in it: number << SLOT_BITS | offset
SLOT_MASK = (1 << SLOT_BITS) - 1


class Segment:
    """A fixed number of slots of one modality; slot `number << SLOT_BITS | offset` is row `offset` of these arrays.

    `vectors` is (rows, d), the other arrays are (rows,). `users` are codes. The memory of rows that are not yet
    written is reserved, not used.
    """

    __slots__ = ("asset_ids", "modality", "number", "revisions", "users", "vectors")

    def __init__(self, number: int, modality: str, rows: int, dimension: int) -> None:
        self.number = number
        self.modality = modality
        self.vectors: Vectors = np.empty((rows, dimension), np.float32)
        self.asset_ids: Ids = np.empty(rows, object)
        self.users: npt.NDArray[np.int32] = np.empty(rows, np.int32)
        self.revisions: npt.NDArray[np.int64] = np.empty(rows, np.int64)


@dataclass(frozen=True, slots=True)
class Rows:
    """The columns of n slots."""

    asset_ids: Ids
    users: npt.NDArray[np.int32]
    revisions: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Part:
    """A segment as it was at one moment: its first `count` slots, of which `dead` (rows,) marks `dead_count`."""

    segment: Segment
    count: int
    dead: Flags
    dead_count: int

    def live_rows(self) -> Rows:
        """A copy of what lives here, in slot order."""
        offsets, segment = np.flatnonzero(~self.dead[: self.count]), self.segment
        return Rows(
            segment.asset_ids[offsets], segment.users[offsets], segment.revisions[offsets], segment.vectors[offsets]
        )


View = tuple[Part, ...]


class Arena:
    """All segments of all modalities. Everything but `views` and `gather` is the writer's alone."""

    def __init__(self, dimension: int, segment_rows: int) -> None:
        self.dimension = dimension
        self.segment_rows = segment_rows
        self.views: Mapping[str, View] = {}
        self._parts: dict[str, dict[int, Part]] = {}  # by modality and segment number; the last one takes appends
        self._segments: dict[int, Segment] = {}
        self._created = 0

    def place(self, modality: str, rows: Rows) -> Slots:
        """Write n rows to free slots, which no view shows before `publish`; returns (n,) slots."""
        n = len(rows.asset_ids)
        slots = np.empty(n, np.int64)
        start = 0
        while start < n:
            part = self._tail(modality)
            segment, first = part.segment, part.count
            stop = min(n, start + self.segment_rows - first)
            last = first + stop - start
            segment.vectors[first:last] = rows.vectors[start:stop]
            segment.asset_ids[first:last] = rows.asset_ids[start:stop]
            segment.users[first:last] = rows.users[start:stop]
            segment.revisions[first:last] = rows.revisions[start:stop]
            slots[start:stop] = np.arange(first, last) + (segment.number << SLOT_BITS)
            self._parts[modality][segment.number] = replace(part, count=last)
            start = stop
        return slots

    def kill(self, slots: Slots) -> None:
        """Mark slots dead, each of which is live."""
        for number, _, offsets in by_segment(slots):
            parts = self._parts[self._segments[number].modality]
            part = parts[number]
            dead = part.dead.copy()  # a published view holds the old one
            dead[offsets] = True
            parts[number] = replace(part, dead=dead, dead_count=part.dead_count + len(offsets))

    def publish(self) -> None:
        """Let new searches see what was placed and killed, all of it at once."""
        self.views = {modality: tuple(parts.values()) for modality, parts in self._parts.items()}

    def wasteful(self, dead_share: float) -> Part | None:
        """A full segment of which at least `dead_share` is dead, the worst first."""
        limit = dead_share * self.segment_rows
        full = (part for parts in self._parts.values() for part in parts.values() if part.count == self.segment_rows)
        return max((part for part in full if part.dead_count >= limit), key=lambda part: part.dead_count, default=None)

    def drop(self, segment: Segment) -> None:
        """Forget a segment; views and readers that hold it keep it alive until they let go."""
        del self._parts[segment.modality][segment.number]
        del self._segments[segment.number]

    def gather(self, slots: Slots) -> tuple[Flags, Rows]:
        """`read` of all segments there are; safe beside the writer."""
        return read(self._segments, slots, self.dimension, np.float16)

    def asset_ids(self, modality: str) -> list[str]:
        """All that live in a modality; the writer's."""
        parts = self._parts.get(modality, {}).values()
        return [name for part in parts for name in part.segment.asset_ids[: part.count][~part.dead[: part.count]]]

    def by_modality(self, slots: Slots) -> Iterator[tuple[str, npt.NDArray[np.intp]]]:
        """Split slots by the modality of their segment: it, and which of the slots lie there, segment by segment."""
        for number, at, _ in by_segment(slots):
            yield self._segments[number].modality, at

    def revisions(self, slots: Slots, absent: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """(n,) revisions of slots, that of `absent` (n,) where a slot is `ABSENT`; the writer's."""
        revisions = absent.copy()
        for number, at, offsets in by_segment(slots):
            revisions[at] = self._segments[number].revisions[offsets]
        return revisions

    def _tail(self, modality: str) -> Part:
        parts = self._parts.setdefault(modality, {})
        if parts:
            part = parts[next(reversed(parts))]
            if part.count < self.segment_rows:
                return part
        segment = Segment(self._created, modality, self.segment_rows, self.dimension)
        part = Part(segment, 0, np.zeros(self.segment_rows, np.bool_), 0)
        self._created += 1
        self._segments[segment.number] = segment
        parts[segment.number] = part
        return part


def read(segments: Mapping[int, Segment], slots: Slots, dimension: int, dtype: type[np.floating]) -> tuple[Flags, Rows]:
    """The columns of n slots, vectors (n, d) as `dtype`, and (n,) which were found.

    Not found are `ABSENT` and slots of segments that are not (or no longer) there; their rows are zero.
    """
    n = len(slots)
    found = np.zeros(n, np.bool_)
    rows = Rows(np.empty(n, object), np.zeros(n, np.int32), np.zeros(n, np.int64), np.zeros((n, dimension), dtype))
    for number, at, offsets in by_segment(slots):
        segment = segments.get(number)
        if segment is not None:
            found[at] = True
            rows.asset_ids[at] = segment.asset_ids[offsets]
            rows.users[at] = segment.users[offsets]
            rows.revisions[at] = segment.revisions[offsets]
            rows.vectors[at] = segment.vectors[offsets]
    return found, rows


def by_segment(slots: Slots) -> Iterator[tuple[int, npt.NDArray[np.intp], npt.NDArray[np.int64]]]:
    """Split slots by segment: its number, which of the slots lie in it, and their offsets there."""
    numbers = slots >> SLOT_BITS
    order = np.argsort(numbers, kind="stable")
    distinct, starts = np.unique(numbers[order], return_index=True)
    bounds = [*starts.tolist(), len(slots)]
    for number, (start, stop) in zip(distinct.tolist(), pairwise(bounds), strict=True):
        if number >= 0:
            at = order[start:stop]
            yield number, at, slots[at] & SLOT_MASK


class Names:
    """Strings to numbers; safe to read beside one writer.

    In many small dictionaries: growing a small one is quick, growing one of millions stops every thread for 80 ms.
    """

    _SHARDS = 256

    def __init__(self) -> None:
        self._shards: tuple[dict[str, int], ...] = tuple({} for _ in range(self._SHARDS))

    def __len__(self) -> int:
        return sum(map(len, self._shards))

    def get(self, names: Sequence[str], absent: int) -> npt.NDArray[np.int64]:
        """(n,) numbers, `absent` where a name is not held."""
        shards, count = self._shards, self._SHARDS
        return np.array([shards[hash(name) % count].get(name, absent) for name in names], np.int64)

    def put(self, names: Sequence[str], numbers: Sequence[int]) -> None:
        """Hold a number for each of n names."""
        shards, count = self._shards, self._SHARDS
        for name, number in zip(names, numbers, strict=True):
            shards[hash(name) % count][name] = number

    def drop(self, names: Sequence[str]) -> None:
        """Hold these names no longer."""
        for name in names:
            self._shards[hash(name) % self._SHARDS].pop(name, None)

    def items(self) -> tuple[list[str], list[int]]:
        """All names and their numbers, as they are now."""
        shards = [shard.copy() for shard in self._shards]
        return [name for shard in shards for name in shard], [number for shard in shards for number in shard.values()]
