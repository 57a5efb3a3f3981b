"""What no cut of a tree says: in the full space, which areas are one, who is where and what is left over. Pure.

Comes in: labels of (n, d) assets as seen from their catalogue. Goes out: better ones. The order is `find`'s.
"""

from __future__ import annotations

import math
from itertools import count

import numpy as np
import numpy.typing as npt

from zccr_stream.catalogue import Catalogue
from zccr_stream.grouping import trees
from zccr_stream.grouping.rule import GroupRule, Limits
from zccr_stream.vectors import TIE

_FREE, _INERTIA = 5, 0.01  # rounds of moving assets to what is closer at all, and how much closer a round after them
_BROADLY = 2.0  # deviations of the mean cosine between all areas: more is not by chance
_STRANGE = 0.25  # of how close an area's own assets are to it: what is further off stays out
_SEVERAL = 3  # assets: of more the deviations of all but one say how much one deviates
_PLAINLY = 8 * 1.4826  # median absolute deviations: eight standard ones, where all is normal

Floats = npt.NDArray[np.float32]
Wide = npt.NDArray[np.float64]
Labels = npt.NDArray[np.intp]
Mask = npt.NDArray[np.bool_]


def settle(seen: Floats, labels: Labels) -> Labels:
    """Move each of (n, d) assets to the area whose seed it is closest to, its own's as that would be without it.

    Ward takes no merge back, though what joined early may lie closer to what came together later. These are rounds of
    spherical k-means in which all assets move at once. Two may change places for ever; so after `_FREE` rounds another
    area must be closer by more in every round, and all come to rest. What is alone stays alone, what is far from an
    area's assets stays out, and no area is added.
    """
    every = np.arange(len(seen))
    for turn in count():
        totals, sizes = _sums(seen, labels), np.bincount(labels)
        closeness = seen @ totals.T / np.maximum(np.linalg.norm(totals, axis=1), TIE)
        own, alone = _closeness_to(totals[labels] - seen, seen)
        nearest_strangers = _STRANGE * np.bincount(labels, own) / sizes
        closeness[closeness < nearest_strangers] = -1  # below any cosine that may win
        closeness[every, labels] = np.where(alone, np.inf, own + max(TIE, _INERTIA * (turn - _FREE)))
        closest = np.argmax(closeness, axis=1)
        if np.array_equal(closest, labels):
            break
        labels = np.unique(closest, return_inverse=True)[1]
    return labels


def join(seen: Floats, labels: Labels, limits: Limits, catalogue: Catalogue) -> Labels:
    """Make one area of any two of (n, d) assets' areas that are as close as one, the clearest first (`Limits`)."""
    several = np.flatnonzero(np.bincount(labels) > 1)
    k, sizes = len(several), np.bincount(labels)[several].astype(np.float64)
    totals = _sums(seen, labels)[several].astype(np.float64)
    products, own = totals @ totals.T, np.bincount(labels, np.einsum("nd,nd->n", seen, seen))[several]
    clear = limits.clear / math.sqrt(catalogue.dimensions)
    left = np.ones(k, np.bool_)

    def surplus_of(one: int) -> Wide:
        inside, pairs = products.diagonal() - own, sizes * (sizes - 1)  # cosines of different assets, and how many
        usual = (inside[one] + inside) / (pairs[one] + pairs)
        between = products[one] / (sizes[one] * sizes)
        surplus: Wide = between - limits.alike * usual - clear
        return np.where(left & (np.arange(k) != one) & (usual - between <= limits.apart), surplus, -np.inf)

    surplus = np.stack([surplus_of(one) for one in range(k)]) if k > 1 else np.full((1, 1), -np.inf)
    labels = labels.copy()
    while surplus.max() >= 0:
        one, other = divmod(int(surplus.argmax()), k)
        products[one] += products[other]
        products[:, one] += products[:, other]
        sizes[one] += sizes[other]
        own[one] += own[other]
        left[other] = False
        labels[labels == several[other]] = several[one]
        surplus[one] = surplus[:, one] = surplus_of(one)
        surplus[other] = surplus[:, other] = -np.inf
    return np.unique(labels, return_inverse=True)[1]


def part(seen: Floats, labels: Labels, rule: GroupRule, catalogue: Catalogue) -> Labels:
    """Part the areas of (n, d) assets that hold what is left over, along trees of their own (`Limits`).

    How surely these have kin is asked of them alone, as if they were all there is. One area after the other is parted
    as long as there is room. What lies at the catalogue's mean has no direction and stays where it is.
    """
    totals, sizes = _sums(seen, labels).astype(np.float64), np.bincount(labels)
    squares = np.einsum("nd,nd->n", seen, seen)
    own = np.bincount(labels, squares)
    inside = np.einsum("kd,kd->k", totals, totals) - own
    least = rule.limits.least(catalogue)
    labels, areas = labels.copy(), len(sizes)
    for label in np.flatnonzero((own > 1.5) & (inside < least * np.maximum(sizes * (sizes - 1), 1))).tolist():
        rows = np.flatnonzero((labels == label) & (squares > TIE))
        parts = _parts(seen[rows], rule, catalogue, rule.areas_max - areas + 1)
        labels[rows[parts > 0]] = areas - 1 + parts[parts > 0]
        areas += int(parts.max())
    return labels


def one_if_broad(seen: Floats, labels: Labels, limits: Limits, catalogue: Catalogue) -> Labels:
    """Make all areas of (n, d) assets one, where they are closer together than strangers on average (`Limits`).

    Among strangers the product of two areas' sums deviates by that of their lengths, times sqrt(1 / p).
    """
    if not labels.any():
        return labels
    totals, sizes = _sums(seen, labels).astype(np.float64), np.bincount(labels)
    whole, squares = totals.sum(axis=0), np.einsum("kd,kd->k", totals, totals)
    between, pairs = whole @ whole - squares.sum(), sizes.sum() ** 2 - (sizes**2).sum()
    deviation = math.sqrt(2 * max(squares.sum() ** 2 - (squares**2).sum(), 0))
    least = max(limits.broad * pairs, _BROADLY * deviation) * limits.worlds(catalogue) / math.sqrt(catalogue.dimensions)
    return np.zeros_like(labels) if between >= least else labels


def put_out(seen: Floats, labels: Labels, rule: GroupRule, catalogue: Catalogue) -> Labels:
    """Put out of their areas what of (n, d) assets is strange to them, where that is plain (`Limits`).

    An area keeps at least half. What is put out falls into parts, as far as there is room.
    """
    if rule.limits.strangers == math.inf:
        return labels
    own, _ = _closeness_to(_sums(seen, labels)[labels] - seen, seen)
    closest = np.full(labels.max() + 1, -1.0)
    np.maximum.at(closest, labels, own)
    far = np.bincount(labels, own < np.maximum(_STRANGE * closest, 0)[labels])  # most areas need no median
    labels, areas = labels.copy(), len(closest)
    for label in np.flatnonzero(far).tolist():
        rows = np.flatnonzero(labels == label)
        plain, doubly = _plainly_strange(own[rows])
        many = np.count_nonzero(plain) >= rule.limits.strangers
        out = rows[~_not_strange(seen[rows]) if many else doubly]
        room = rule.areas_max - areas
        if len(out) and 2 * len(out) <= len(rows) and room > 0:
            parts = _parts(seen[out], rule, catalogue, room)
            labels[out] = areas + parts
            areas += int(parts.max()) + 1
    return labels


def _parts(seen: Floats, rule: GroupRule, catalogue: Catalogue, areas_max: int) -> Labels:
    """(m,) labels 0, 1, … of (m, d) assets that are no area: by a tree of their own, as if they were all there is."""
    if len(seen) < 2:
        return np.zeros(len(seen), np.intp)
    tree = trees.ward(seen, rule.variance)
    cosines = trees.cosines(seen, tree)
    loose = cosines < rule.limits.least(catalogue)
    return trees.cut(tree, np.where(loose, np.inf, rule.limits.heights(tree, cosines, catalogue)), areas_max)


def _plainly_strange(own: Floats) -> tuple[Mask, Mask]:
    """(m,) which of an area's assets are plainly strange, by their cosines with the sum of the others; which by both.

    Of three assets the one that is strange makes the other two differ, so none is by both.
    """
    usual = float(np.median(own))
    tight = usual - _PLAINLY * float(np.median(np.abs(own - usual)))
    plain: Mask = own < max(min(_STRANGE * usual, tight), 0) - TIE
    doubly: Mask = (own < min(tight, 0) - TIE) & (len(own) > _SEVERAL)
    return plain, doubly


def _not_strange(seen: Floats) -> Mask:
    """(m,) which of an area's (m, d) assets are not strange to the others."""
    kept = np.ones(len(seen), np.bool_)
    while True:
        own, _ = _closeness_to(seen[kept].sum(axis=0) - kept[:, None] * seen, seen)
        near: Mask = kept & (own >= _STRANGE * np.median(own[kept]))
        if np.array_equal(near, kept) or not near.any():
            return near
        kept = near


def _closeness_to(others: Floats, seen: Floats) -> tuple[Floats, Mask]:
    """(n,) the cosines of (n, d) assets with the sums of their others, (n, d), and where there are none.

    It is 1 there, and of what has no direction: nobody can say that these are elsewhere.
    """
    lengths, squares = np.linalg.norm(others, axis=1), np.einsum("nd,nd->n", seen, seen)
    alone = lengths <= TIE
    own: Floats = np.einsum("nd,nd->n", seen, others) / np.maximum(lengths, TIE)
    return np.where(alone | (squares <= TIE), 1, own), alone


def _sums(seen: Floats, labels: Labels) -> Floats:
    """The sum of each area's assets, (k, d), of (n, d)."""
    holds = np.zeros((labels.max() + 1, len(seen)), np.float32)
    holds[labels, np.arange(len(seen))] = 1
    sums: Floats = holds @ seen
    return sums
