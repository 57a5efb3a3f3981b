"""The order of it: a sample, a tree, a cut, and where the catalogue gives the cut, what no cut says. Pure.

Comes in: the vectors of one kind of a profile's assets, and their catalogue. Goes out: a label an asset. Every step is
a function of another module here.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from zccr_stream.catalogue import Catalogue
from zccr_stream.events.identifiers import lot
from zccr_stream.grouping import regroup, trees
from zccr_stream.grouping.rule import CUT, GroupRule
from zccr_stream.vectors import at_unit_length

_BLOCK_ROWS = 8192  # 16 MB of 512 float32: what is worked on at once, however large the profile is

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.intp]


def find_groups(
    vectors: Floats, asset_ids: Sequence[str], rule: GroupRule, catalogue: Catalogue | None = None
) -> Labels:
    """(n,) labels 0, 1, … of (n, d) unit vectors: of all together, or of a sample with the rest given to the nearest.

    The sample is the assets whose ids hash lowest: one upload more or less changes at most one of it. The rest goes to
    the nearest centroid, which where the catalogue gives the cut is the closest in direction, by one product without
    asking for kin; unlike where assets settle, none stays out.
    """
    n = len(vectors)
    if rule.cut is not None:
        catalogue = None
    if n <= rule.sample_size:
        return _cluster(_seen(vectors, catalogue), rule, catalogue)
    hashes = np.array([lot(asset_id) for asset_id in asset_ids], dtype=np.uint64)
    sample = np.sort(np.argsort(hashes, kind="stable")[: rule.sample_size])
    seen = _seen(vectors[sample], catalogue)
    sampled = _cluster(seen, rule, catalogue)
    centroids = np.stack([seen[sampled == label].mean(axis=0) for label in range(sampled.max() + 1)])
    if catalogue is None:
        offsets = np.einsum("kd,kd->k", centroids, centroids) / 2
    else:
        centroids = at_unit_length(centroids) @ catalogue.whitener.T
        offsets = centroids @ catalogue.mean
    labels = np.empty(n, dtype=np.intp)
    for start in range(0, n, _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        labels[block] = np.argmax(vectors[block] @ centroids.T - offsets, axis=1)
    labels[sample] = sampled
    return labels


def _seen(vectors: Floats, catalogue: Catalogue | None) -> Floats:
    """(n, d) where assets are compared: as seen from the catalogue, where one is known."""
    return vectors if catalogue is None else catalogue.seen(vectors)


def _cluster(seen: Floats, rule: GroupRule, catalogue: Catalogue | None) -> Labels:
    """(n,) labels 0, 1, … of the Ward tree over PCA's projection, cut by the rule (eqs. 5 and 6).

    An absolute cut leaves (n, d) `seen` assets where Ward has put them, as in the paper. Where the catalogue gives the
    cut, copies are one asset, and what no cut says comes after it.
    """
    n = len(seen)
    if n < 2:
        return np.zeros(n, dtype=np.intp)
    if catalogue is None:
        tree = trees.ward(seen, rule.variance)
        limits = (CUT if rule.cut is None else rule.cut) * (tree[:, 3] / 2) ** rule.growth
        return trees.cut(tree, tree[:, 2] / limits, rule.areas_max)
    copies = trees.copies_of(seen)
    if copies.max() == n - 1:
        return _cluster_different(seen, rule, catalogue)
    sums = np.zeros((copies.max() + 1, seen.shape[1]), seen.dtype)
    np.add.at(sums, copies, seen)
    return _cluster_different(at_unit_length(sums), rule, catalogue)[copies]


def _cluster_different(seen: Floats, rule: GroupRule, catalogue: Catalogue) -> Labels:
    """(n,) labels of (n, d) assets of which none is a copy: among their kin, by what the catalogue looks like."""
    if len(seen) < 2:
        return np.zeros(len(seen), dtype=np.intp)
    among_kin = catalogue.among_kin(seen)
    tree = trees.ward(among_kin, rule.variance)
    heights = rule.limits.heights(tree, trees.cosines(among_kin, tree), catalogue)
    heights[rule.limits.are_two(*trees.sides(among_kin, tree))] = np.inf
    labels = regroup.settle(among_kin, trees.cut(tree, heights, rule.areas_max))
    labels = regroup.settle(among_kin, regroup.join(among_kin, labels, rule.limits, catalogue))
    labels = regroup.part(among_kin, labels, rule, catalogue)
    labels = regroup.one_if_broad(among_kin, labels, rule.limits, catalogue)
    return regroup.put_out(among_kin, labels, rule, catalogue)
