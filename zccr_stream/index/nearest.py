"""The exact k nearest others of a batch of seeds, over frozen parts.

FAISS finds the best of every part quickly; where that may not be all (own or dead assets, or ties, crowd the front),
the part is scanned above the score that is known to be needed. What is left is scored again in float64, each pair by
itself, and ordered by (score, asset id). So the result depends on the seeds and the live assets alone: not on slots,
insertion order, batch, threads or machine. Knows nothing of writing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import faiss
import numpy as np
import numpy.typing as npt

from zccr_stream.index.arena import ABSENT, SLOT_BITS, SLOT_MASK, Part, Slots, Vectors, View

Scores = npt.NDArray[np.float32]
Codes = npt.NDArray[np.int32]

SPARE = 32  # fetched beyond k; to twice this FAISS slows by under a tenth
SEEDS_MAX = 256  # bounds the scores of one scan: SEEDS_MAX x rows of a segment
ENTRIES_MAX = 4_000_000  # bounds what the quick pass may hold at once, in (score, slot) entries
PAIRS_MAX = 65_536  # candidates held before they are reduced to the k best
PAIRS_BLOCK = 2_048  # pairs scored again at a time: 8 MB of float64 each side at d = 512
SEQUENTIAL_SEEDS = 2  # to this many seeds FAISS's own scan beats BLAS, and from the next on loses


@dataclass(frozen=True, slots=True)
class Found:
    """Pairs of a seed and an asset, p of them; `seeds` are rows of the batch."""

    seeds: npt.NDArray[np.intp]
    slots: Slots
    scores: Scores

    def where(self, keep: npt.NDArray[np.bool_] | npt.NDArray[np.intp]) -> Found:
        """The pairs at `keep`."""
        return Found(self.seeds[keep], self.slots[keep], self.scores[keep])


def prepare_faiss(dimension: int) -> None:
    """Send batches to BLAS: as the wheel comes, up to 128,000 / d seeds take a path several times slower."""
    faiss.cvar.distance_compute_blas_threshold = (SEQUENTIAL_SEEDS + 1) * dimension


def nearest(view: View, seeds: Vectors, users: Codes, k: int) -> tuple[Scores, Slots]:
    """Find the k live assets nearest to each of s seeds, (s, d), that are not of the seed's user, (s,) codes.

    Returns:
        (s, k) scores, best first, -inf where there is no further asset, and (s, k) slots, -1 there.
    """
    s = len(seeds)
    scores = np.full((s, k), -np.inf, np.float32)
    slots = np.full((s, k), ABSENT, np.int64)
    block = int(np.clip(ENTRIES_MAX // max(1, len(view) * (k + SPARE)), 1, SEEDS_MAX))
    for start in range(0, s, block):
        span = slice(start, start + block)
        found = _Search(view, np.ascontiguousarray(seeds[span], np.float32), users[span], k).run()
        ranks = np.arange(len(found.seeds)) - np.searchsorted(found.seeds, found.seeds)
        scores[span][found.seeds, ranks] = found.scores
        slots[span][found.seeds, ranks] = found.slots
    return scores, slots


class _Search:
    """One block of seeds over one view.

    `floor` (s,) is what an asset's float32 score must reach to be among the k best: the k-th best valid score seen so
    far, less the most by which two float32 scores of the same pair may differ.
    """

    def __init__(self, view: View, seeds: Vectors, users: Codes, k: int) -> None:
        self.view = view
        self.seeds = seeds
        self.users = users
        self.k = k
        self.segments = {part.segment.number: part.segment for part in view}
        self.margin = _margin(seeds.shape[1])
        self.floor = np.full(len(seeds), -2.0, np.float32)  # below any cosine
        self.owners = _Owners(users)

    def run(self) -> Found:
        """(p,) pairs, at most k per seed, by seed and best first."""
        found, pending = self._quick_pass()
        for number in np.flatnonzero(pending.any(axis=0)).tolist():
            due = pending[:, number] >= self.floor
            if due.any():
                part = self.view[number]
                stale = due[found.seeds] & (found.slots >> SLOT_BITS == part.segment.number)  # the scan finds these too
                found = _join(found.where(~stale), self._scan(part, np.flatnonzero(due)))
                if len(found.seeds) > PAIRS_MAX:
                    found = self._best(found)
        return self._best(found)

    def _quick_pass(self) -> tuple[Found, Scores]:
        """The best of each part, and (s, parts) the score above which a part may hold more than was fetched."""
        s = len(self.seeds)
        unseen = np.full((s, len(self.view)), -np.inf, np.float32)
        scores, slots = [np.empty((s, 0), np.float32)], [np.empty((s, 0), np.int64)]
        for number, part in enumerate(self.view):
            light = self.owners.counts(part) <= SPARE
            unseen[~light, number] = np.inf
            best, at, unseen[light, number] = self._fetch(part, light)
            scores.append(np.full((s, best.shape[1]), -np.inf, np.float32))
            slots.append(np.zeros((s, best.shape[1]), np.int64))
            scores[-1][light], slots[-1][light] = best, at
        table = np.hstack(scores)
        self._raise_floor(table)
        rows, columns = np.nonzero(table >= self.floor[:, None])
        found = Found(rows, np.hstack(slots)[rows, columns], table[rows, columns])
        return found, np.where(unseen >= self.floor[:, None], unseen, np.float32(-np.inf))

    def _fetch(self, part: Part, light: npt.NDArray[np.bool_]) -> tuple[Scores, Slots, Scores]:
        """FAISS's best of one part for the seeds in `light`: scores, -inf if own or dead, slots, and the last score."""
        segment, count = part.segment, part.count
        fetch = min(count, self.k + SPARE)
        seeds, users = (self.seeds, self.users) if light.all() else (self.seeds[light], self.users[light])
        if not (fetch and len(seeds)):
            nothing = np.empty((len(seeds), 0))
            return nothing.astype(np.float32), nothing.astype(np.int64), np.full(len(seeds), -np.inf, np.float32)
        scores, offsets = faiss.knn(seeds, segment.vectors[:count], fetch, faiss.METRIC_INNER_PRODUCT)
        last = scores[:, -1].copy() if fetch < count else np.full(len(seeds), -np.inf, np.float32)
        wrong = segment.users[offsets] == users[:, None]
        if part.dead_count:
            wrong |= part.dead[offsets]
        scores[wrong] = -np.inf
        return scores, offsets + (segment.number << SLOT_BITS), last

    def _scan(self, part: Part, due: npt.NDArray[np.intp]) -> Found:
        """Every valid asset of a part that reaches the floor of the seeds in `due`, or enough of them."""
        segment, count = part.segment, part.count
        scores = self.seeds[due] @ segment.vectors[:count].T  # (due, count)
        rows, offsets = np.nonzero(scores >= self.floor[due][:, None])
        right = (segment.users[offsets] != self.users[due][rows]) & ~part.dead[offsets]
        rows, offsets = rows[right], offsets[right]
        found = Found(due[rows], offsets + (segment.number << SLOT_BITS), scores[rows, offsets])
        bounds = np.searchsorted(rows, np.arange(len(due) + 1))
        for row in np.flatnonzero(np.diff(bounds) > self.k).tolist():
            self._raise_floor(found.scores[None, bounds[row] : bounds[row + 1]], due[row : row + 1])
        return found.where(found.scores >= self.floor[found.seeds])

    def _raise_floor(self, scores: Scores, at: npt.NDArray[np.intp] | slice = slice(None)) -> None:
        """Take (rows, n) valid scores, -inf for none, of the seeds `at` into account."""
        n = scores.shape[1]
        if n >= self.k:
            kth = np.partition(scores, n - self.k, axis=1)[:, n - self.k]
            self.floor[at] = np.maximum(self.floor[at], kth - self.margin)

    def _best(self, found: Found) -> Found:
        """The k best of each seed by (exact score, asset id), ordered."""
        found = found.where(np.lexsort((-found.scores, found.seeds)))
        starts = np.searchsorted(found.seeds, np.arange(len(self.seeds) + 1))
        kth = starts[:-1] + self.k - 1
        enough = np.flatnonzero(kth < starts[1:])
        self.floor[enough] = np.maximum(self.floor[enough], found.scores[kth[enough]] - self.margin)
        found = found.where(found.scores >= self.floor[found.seeds])
        found = replace(found, scores=self._exact(found))
        found = found.where(np.lexsort((self._name_ranks(found), -found.scores, found.seeds)))
        return found.where(np.arange(len(found.seeds)) - np.searchsorted(found.seeds, found.seeds) < self.k)

    def _exact(self, found: Found) -> Scores:
        """(p,) scores: products and sums in float64, each pair by itself in a fixed order, rounded once."""
        scores = np.empty(len(found.seeds), np.float32)
        for pairs, slots in _in_blocks(found.slots):
            vectors = self._vectors(slots)
            seeds, rows = found.seeds[pairs], np.searchsorted(slots, found.slots[pairs])
            if len(pairs) > 4 * len(slots):  # many copies of few vectors, near many seeds: score each vector once
                vectors, same = _distinct(vectors)
                rows = same[rows]
            keys, back = np.unique(seeds * len(vectors) + rows, return_inverse=True)
            seeds, rows = np.divmod(keys, len(vectors))
            exact = np.empty(len(keys), np.float32)
            for start in range(0, len(keys), PAIRS_BLOCK):
                span = slice(start, start + PAIRS_BLOCK)
                exact[span] = (vectors[rows[span]].astype(np.float64) * self.seeds[seeds[span]]).sum(axis=1)
            scores[pairs] = exact[back]
        return scores

    def _vectors(self, slots: Slots) -> Vectors:
        """(n, d) vectors of ascending slots."""
        vectors = np.empty((len(slots), self.seeds.shape[1]), np.float32)
        for number, span in _runs(slots >> SLOT_BITS):
            vectors[span] = self.segments[number].vectors[slots[span] & SLOT_MASK]
        return vectors

    def _name_ranks(self, found: Found) -> npt.NDArray[np.int64]:
        """(p,) numbers that order assets of equal score by id; looked up only where there are such."""
        ranks = np.zeros(len(found.seeds), np.int64)
        order = np.lexsort((found.scores, found.seeds))
        seeds, scores = found.seeds[order], found.scores[order]
        equal = np.flatnonzero((seeds[1:] == seeds[:-1]) & (scores[1:] == scores[:-1]))
        tied = order[np.union1d(equal, equal + 1)]
        slots, back = np.unique(found.slots[tied], return_inverse=True)
        names = [self.segments[slot >> SLOT_BITS].asset_ids[slot & SLOT_MASK] for slot in slots.tolist()]
        positions = np.empty(len(slots), np.int64)
        positions[sorted(range(len(names)), key=names.__getitem__)] = np.arange(len(names))
        ranks[tied] = positions[back]
        return ranks


class _Owners:
    """How many of a part's assets belong to the users of a batch of seeds."""

    def __init__(self, users: Codes) -> None:
        distinct, ranks = np.unique(users, return_inverse=True)
        self._ranks = np.where(users >= 0, ranks + 1, 0)  # (s,) these users numbered from 1, unknown ones 0
        self._rank_of = np.zeros(int(users.max(initial=0)) + 2, np.int16)  # a code beyond falls on the last: nobody
        known = distinct >= 0
        self._rank_of[distinct[known]] = np.flatnonzero(known) + 1

    def counts(self, part: Part) -> npt.NDArray[np.int64]:
        """(s,) how many assets of a part, dead ones included, belong to each seed's user."""
        ranks = self._rank_of.take(part.segment.users[: part.count], mode="clip")
        counts = np.bincount(ranks, minlength=int(self._ranks.max(initial=0)) + 1)
        counts[0] = 0
        return counts[self._ranks]


def _margin(dimension: int) -> np.float32:
    """Twice the error bound of a float32 inner product of unit vectors, summed in any order (Higham 2002, 3.1).

    A tenth is added for lengths that are not exactly 1 and for the last rounding.
    """
    return np.float32(2 * 1.1 * (dimension + 2) * 2.0**-24)


def _join(a: Found, b: Found) -> Found:
    return Found(
        np.concatenate((a.seeds, b.seeds)),
        np.concatenate((a.slots, b.slots)),
        np.concatenate((a.scores, b.scores)),
    )


def _runs(values: npt.NDArray[np.int64]) -> Iterator[tuple[int, slice]]:
    """Ascending values, and where each of them stands."""
    distinct, starts = np.unique(values, return_index=True)
    for value, (start, stop) in zip(distinct.tolist(), pairwise([*starts.tolist(), len(values)]), strict=True):
        yield value, slice(start, stop)


def _in_blocks(slots: Slots) -> Iterator[tuple[npt.NDArray[np.intp], Slots]]:
    """Split pairs into blocks that touch at most PAIRS_BLOCK slots: their places, and the slots, ascending."""
    order = np.argsort(slots, kind="stable")
    distinct, starts = np.unique(slots[order], return_index=True)
    for start in range(0, len(distinct), PAIRS_BLOCK):
        stop = starts[start + PAIRS_BLOCK] if start + PAIRS_BLOCK < len(distinct) else len(order)
        yield order[starts[start] : stop], distinct[start : start + PAIRS_BLOCK]


def _distinct(vectors: Vectors) -> tuple[Vectors, npt.NDArray[np.intp]]:
    """The different rows of (n, d), bit by bit, and (n,) which of them each row is."""
    whole = vectors.view(np.dtype((np.void, vectors.shape[1] * vectors.itemsize))).ravel()
    _, first, same = np.unique(whole, return_index=True, return_inverse=True)
    return vectors[first], same
