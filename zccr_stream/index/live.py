"""The index that a recommender holds: apply, search, vectors, snapshot, restore.

One thread at a time writes, any number read beside it without waiting. A search sees the state of one moment: every
asset once, in its newest applied state. What belongs to an asset is kept by id in one place: the slot where it lives,
or the revision at which it was removed, so that an older message never brings it back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zccr_stream.catalogue import Catalogue
from zccr_stream.events import Embeddings
from zccr_stream.index import snapshots
from zccr_stream.index.arena import ABSENT, Arena, Names, Part, Rows, read
from zccr_stream.index.nearest import nearest, prepare_faiss
from zccr_stream.index.sample import Sample
from zccr_stream.ranking import Hits

NEVER = np.iinfo(np.int64).min
REMOVED_PER_BLOCK = 65_536
LENGTH_TOLERANCE = 0.01

CATALOGUE_MIN = 100
"""Assets of a modality from which on they say what unrelated ones look like."""
CATALOGUE_SIZE = 512
"""Assets that stand for all: their mean is within .05 of that of all, their squared cosines are 130,000."""


class LiveIndex:
    """One exact index per modality.

    Args:
        dimension: length of the vectors, d.
        segment_rows: vectors per segment.
        dead_share_max: share of a full segment that may be dead before what lives in it is moved and it is freed.
    """

    def __init__(self, dimension: int, segment_rows: int, dead_share_max: float) -> None:
        self._dimension = dimension
        self._segment_rows = segment_rows
        self._dead_share_max = dead_share_max
        self._writing = threading.Lock()
        self._state = self._empty()
        self._catalogues: dict[str, tuple[tuple[str, ...], Catalogue]] = {}
        prepare_faiss(dimension)

    def apply(self, embeddings: Embeddings) -> None:
        """Bring the index to these n states, each only where its revision is newer than the one held.

        An asset may come several times, change its modality and its owner, and be removed before it was known.

        Raises:
            ValueError: columns of different lengths, or a live vector that is not of unit length; nothing is applied.
        """
        self._check(embeddings)
        with self._writing:
            self._state.apply(embeddings, self._dead_share_max)

    def search(self, modality: str, seeds: npt.NDArray[np.float32], user_ids: Sequence[str], k: int) -> Hits:
        """Find the k nearest assets to each of s seeds, (s, d) of unit length, that are not of that seed's user.

        Exact, and a function of the live assets alone: scores are rounded float64 inner products, and assets of equal
        score come in the order of their ids. Where there are fewer than k, rows are -1 and scores -inf.

        Raises:
            ValueError: seeds of another shape, not of unit length or not one user each, or k below 1.
        """
        s = len(user_ids)
        if seeds.shape != (s, self._dimension) or k < 1:
            raise ValueError(f"seeds {seeds.shape} and k {k}; expected ({s}, {self._dimension}) and at least 1")
        _check_length(seeds, lambda row: f"seed {row} of user {user_ids[row]!r}")
        state = self._state
        view = state.arena.views.get(modality, ())
        users = state.users.get(user_ids, ABSENT)  # after the view: whoever owns an asset in it has a code by now
        scores, slots = nearest(view, seeds, users.astype(np.int32), k)
        distinct, rows = np.unique(slots, return_inverse=True)
        blank = int(len(distinct) > 0 and distinct[0] == ABSENT)
        segments = {part.segment.number: part.segment for part in view}
        _, columns = read(segments, distinct[blank:], self._dimension, np.float32)
        owners = [state.user_ids[code] for code in columns.users.tolist()]
        return Hits(scores, rows.reshape(slots.shape) - blank, columns.asset_ids.tolist(), owners, columns.vectors)

    def vectors(
        self, asset_ids: Sequence[str], revisions: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float16]]:
        """(n,) which are held at exactly this revision, and their vectors as applied, (n, d), zero where not held.

        Beside a writer that is just moving an asset, it may count as not held.
        """
        state = self._state
        found, rows = state.arena.gather(state.live.get(asset_ids, ABSENT))
        held = found & (rows.revisions == revisions)
        rows.vectors[~held] = 0
        return held, rows.vectors

    def sizes(self) -> dict[str, int]:
        """Live assets by modality, of each modality that had one since the start or the snapshot."""
        views = self._state.arena.views
        return {modality: sum(part.count - part.dead_count for part in view) for modality, view in views.items()}

    def catalogues(self) -> dict[str, Catalogue]:
        """What the assets of each modality look like, of those with `CATALOGUE_MIN` or more.

        A function of the live assets alone, measured again when those change that stand for all. For one thread.
        """
        state, kept = self._state, self._catalogues
        self._catalogues = {}
        for modality, sample in list(state.samples.items()):
            asset_ids = sample.asset_ids
            if len(asset_ids) < CATALOGUE_MIN:
                continue
            if modality in kept and kept[modality][0] is asset_ids:
                self._catalogues[modality] = kept[modality]
                continue
            found, rows = state.arena.gather(state.live.get(asset_ids, ABSENT))
            if found.all():
                revisions = zip(asset_ids, rows.revisions.tolist(), strict=True)
                self._catalogues[modality] = asset_ids, Catalogue.of(rows.vectors.astype(np.float32), revisions)
            elif modality in kept:  # a writer is just moving one of them: what was measured before holds until then
                self._catalogues[modality] = kept[modality]
        return {modality: catalogue for modality, (_, catalogue) in self._catalogues.items()}

    def snapshot(self, path: Path, positions: Mapping[int, int], source: str, taken_at_s: float) -> None:
        """Write a snapshot of one moment while searches and writes go on.

        Args:
            path: the file; the one there is replaced in one step.
            positions: next offset to read, by partition; what lies before must have been applied. Later states may be
                in the snapshot too: applying them again changes nothing.
            source: what it was applied from, such as cluster, topic and model.
            taken_at_s: now, in seconds since 1970.

        Raises:
            SnapshotError: it could not be written; the file that was there is untouched.
        """
        with self._writing:
            state = self._state
            views = state.arena.views
            removed, revisions = state.removed.items()
        header = snapshots.Header(source, self._dimension, positions, taken_at_s)
        parts = (_live_block(part, state.user_ids) for view in views.values() for part in view)
        snapshots.write(path, header, chain(parts, _removed_blocks(removed, revisions, self._dimension)))

    def restore(self, path: Path, source: str) -> snapshots.Header:
        """Replace the content by that of a snapshot and return what it says of itself; on an error nothing changes.

        Raises:
            SnapshotError: there is none, it is torn or corrupt, or of another source or dimension.
        """
        state = self._empty()
        for item in snapshots.read(path, source, self._dimension):
            if isinstance(item, snapshots.Header):
                header = item
            else:
                state.load(item)
        state.arena.publish()
        with self._writing:
            self._state = state
        return header

    def _empty(self) -> _State:
        return _State(Arena(self._dimension, self._segment_rows))

    def _check(self, embeddings: Embeddings) -> None:
        n, d = len(embeddings), self._dimension
        columns = (embeddings.user_ids, embeddings.modalities, embeddings.revisions, embeddings.live)
        if any(len(column) != n for column in columns) or embeddings.vectors.shape != (n, d):
            lengths = [len(column) for column in columns]
            raise ValueError(f"{n} assets with columns of {lengths} and vectors {embeddings.vectors.shape}; d is {d}")
        rows = np.flatnonzero(embeddings.live)
        _check_length(embeddings.vectors[rows], lambda row: f"asset {embeddings.asset_ids[rows[row]]!r}")


class _State:
    """What is held: slots in the arena, and by asset id the slot where it lives or the revision of its removal."""

    def __init__(self, arena: Arena) -> None:
        self.arena = arena
        self.live = Names()
        self.removed = Names()
        self.users = Names()
        self.user_ids: list[str] = []  # by code
        self.samples: dict[str, Sample] = {}  # by modality

    def apply(self, embeddings: Embeddings, dead_share_max: float) -> None:
        slots = self.live.get(embeddings.asset_ids, ABSENT)
        rows = self._newer(embeddings, slots)
        live, slots = embeddings.live[rows], slots[rows]
        replaced = self._by_modality(embeddings, rows, slots)
        self._put(embeddings, rows[live])
        self._remove(embeddings, rows[~live])
        self.arena.kill(slots[slots != ABSENT])
        self._resample(embeddings, rows[live], replaced)
        self._compact(dead_share_max, len(rows))
        self.arena.publish()

    def load(self, block: snapshots.Block) -> None:
        """Take a block of a snapshot, whose assets are not held yet."""
        if block.modality is None:
            self.removed.put(block.asset_ids, block.revisions.tolist())
            return
        users = self._codes(block.user_ids)[block.users]
        rows = Rows(_objects(block.asset_ids), users, block.revisions, block.vectors)
        self.live.put(block.asset_ids, self.arena.place(block.modality, rows).tolist())
        self._sample(block.modality).put(block.asset_ids)

    def _by_modality(
        self, embeddings: Embeddings, rows: npt.NDArray[np.intp], slots: npt.NDArray[np.int64]
    ) -> dict[str, list[str]]:
        """Those of the rows that live in a slot already, (n,), by the modality they have there."""
        found: dict[str, list[str]] = {}
        for modality, at in self.arena.by_modality(slots):
            found.setdefault(modality, []).extend(embeddings.asset_ids[row] for row in rows[at].tolist())
        return found

    def _resample(
        self, embeddings: Embeddings, rows: npt.NDArray[np.intp], replaced: Mapping[str, Sequence[str]]
    ) -> None:
        """Keep the samples, of what is in the arena now: without what was replaced, with the live rows."""
        for modality, asset_ids in replaced.items():
            self._sample(modality).drop(asset_ids, partial(self.arena.asset_ids, modality))
        put: dict[str, list[str]] = {}
        for row in rows.tolist():
            put.setdefault(embeddings.modalities[row], []).append(embeddings.asset_ids[row])
        for modality, asset_ids in put.items():
            self._sample(modality).put(asset_ids)

    def _sample(self, modality: str) -> Sample:
        return self.samples.setdefault(modality, Sample(CATALOGUE_SIZE))

    def _newer(self, embeddings: Embeddings, slots: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
        """Rows that are newer than what is held, the newest of each asset."""
        unknown = np.flatnonzero(slots == ABSENT)
        held = np.full(len(slots), NEVER)
        held[unknown] = self.removed.get([embeddings.asset_ids[row] for row in unknown.tolist()], NEVER)
        newer = np.flatnonzero(embeddings.revisions > self.arena.revisions(slots, held))
        asset_ids = [embeddings.asset_ids[row] for row in newer.tolist()]
        if len(set(asset_ids)) == len(asset_ids):
            return newer
        newest: dict[str, int] = {}
        for row, asset_id in zip(newer.tolist(), asset_ids, strict=True):
            if embeddings.revisions[row] > embeddings.revisions[newest.setdefault(asset_id, row)]:
                newest[asset_id] = row
        return np.fromiter(newest.values(), np.intp, len(newest))

    def _put(self, embeddings: Embeddings, rows: npt.NDArray[np.intp]) -> None:
        modalities = [embeddings.modalities[row] for row in rows.tolist()]
        for modality in dict.fromkeys(modalities):
            chosen = [row for row, other in zip(rows.tolist(), modalities, strict=True) if other == modality]
            asset_ids = [embeddings.asset_ids[row] for row in chosen]
            users = self._codes([embeddings.user_ids[row] for row in chosen])
            columns = _objects(asset_ids), users, embeddings.revisions[chosen], embeddings.vectors[chosen]
            self.live.put(asset_ids, self.arena.place(modality, Rows(*columns)).tolist())
            self.removed.drop(asset_ids)

    def _remove(self, embeddings: Embeddings, rows: npt.NDArray[np.intp]) -> None:
        asset_ids = [embeddings.asset_ids[row] for row in rows.tolist()]
        self.removed.put(asset_ids, embeddings.revisions[rows].tolist())
        self.live.drop(asset_ids)

    def _compact(self, dead_share_max: float, batch: int) -> None:
        """Free wasteful segments, as many as a batch of this size may have made: it keeps up, and stays short."""
        for _ in range(1 + int(batch / (dead_share_max * self.arena.segment_rows))):
            part = self.arena.wasteful(dead_share_max)
            if part is None:
                return
            rows = part.live_rows()
            self.live.put(rows.asset_ids.tolist(), self.arena.place(part.segment.modality, rows).tolist())
            self.arena.drop(part.segment)

    def _codes(self, user_ids: Sequence[str]) -> npt.NDArray[np.int32]:
        """(n,) codes of users, new ones for new users."""
        codes = self.users.get(user_ids, ABSENT)
        new = dict.fromkeys(user_ids[row] for row in np.flatnonzero(codes == ABSENT).tolist())
        if new:
            self.users.put(list(new), range(len(self.user_ids), len(self.user_ids) + len(new)))
            self.user_ids.extend(new)
            codes = self.users.get(user_ids, ABSENT)
        return codes.astype(np.int32)


def _live_block(part: Part, user_ids: Sequence[str]) -> snapshots.Block:
    rows = part.live_rows()
    codes, users = np.unique(rows.users, return_inverse=True)
    return snapshots.Block(
        part.segment.modality,
        rows.asset_ids.tolist(),
        rows.revisions,
        [user_ids[code] for code in codes.tolist()],
        users.astype(np.int32),
        rows.vectors.astype(np.float16),
    )


def _removed_blocks(asset_ids: list[str], revisions: list[int], dimension: int) -> Iterator[snapshots.Block]:
    nobody, nothing = np.empty(0, np.int32), np.empty((0, dimension), np.float16)
    for start in range(0, len(asset_ids), REMOVED_PER_BLOCK):
        span = slice(start, start + REMOVED_PER_BLOCK)
        yield snapshots.Block(None, asset_ids[span], np.array(revisions[span], np.int64), [], nobody, nothing)


def _objects(texts: Sequence[str]) -> npt.NDArray[np.object_]:
    """The strings themselves in an array, where numpy would copy them."""
    array = np.empty(len(texts), object)
    array[:] = texts
    return array


def _check_length(vectors: npt.NDArray[np.floating], name: Callable[[int], str]) -> None:
    """Refuse a vector that is not of unit length: its inner products are no cosines, and NaN has no order."""
    wide = vectors.astype(np.float32)
    lengths = np.sqrt(np.einsum("nd,nd->n", wide, wide))
    bad = np.flatnonzero(~(np.abs(lengths - 1) <= LENGTH_TOLERANCE))
    if len(bad):
        raise ValueError(f"{name(int(bad[0]))} has a vector of length {lengths[bad[0]]}; expected 1")
