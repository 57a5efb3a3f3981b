"""(n, d) assets -> Ward's tree over PCA's projection (paper, eqs. 3 to 6), what its merges hold, and its cuts. Pure.

A tree is (n - 1, 4) as scipy has it: the two nodes that each merge joins, how far they lie apart, and its size. The
first n nodes are the assets. And, by a tree too, which assets are copies. Knows nothing of limits.
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.linalg.lapack import ssyevd
from scipy.spatial.distance import squareform

from zccr_stream.catalogue import COPY

Floats = npt.NDArray[np.float32]
Wide = npt.NDArray[np.float64]
Labels = npt.NDArray[np.intp]
Number = TypeVar("Number", np.float32, np.float64)


def ward(seen: Floats, variance: float) -> Wide:
    """Ward's tree of (n, d) assets over the components that keep the share `variance`, (n - 1, 4) as scipy has it."""
    tree: Wide = linkage(_distances(_project(seen, variance)), method="ward")
    return tree


def merges(tree: Wide) -> list[tuple[int, int]]:
    """The two nodes that each merge of a tree merges; the first n are the assets."""
    return list(zip(*tree[:, :2].T.astype(np.intp).tolist(), strict=True))


def cut(tree: Wide, heights: Wide, areas_max: int) -> Labels:
    """(n,) labels 0, 1, … of a tree's n - 1 merges: what holds a merge higher than 1 is split, the widest first.

    (scipy's fcluster takes 0.2 ms for the smallest tree and expects heights that only rise.)
    """
    n = len(tree) + 1
    pairs, highest = merges(tree), [0.0] * n + heights.tolist()
    for node, (left, right) in enumerate(pairs, start=n):
        highest[node] = max(highest[node], highest[left], highest[right])
    too_high = [(width, node) for node, width in enumerate(tree[:, 2].tolist(), start=n) if highest[node] > 1]
    split = {node for _, node in sorted(too_high, reverse=True)[: areas_max - 1]}  # parents before children
    labels, areas = [0] * (2 * n - 1), 1
    for node in range(2 * n - 2, n - 1, -1):
        left, right = pairs[node - n]
        labels[left] = labels[node]
        labels[right] = areas if node in split else labels[node]
        areas += node in split
    return np.array(labels[:n], dtype=np.intp)


def typical_highest(tree: Wide, values: Wide) -> float:
    """The median over all assets of the highest value, (n - 1,), of the merges that hold the asset; at least 0."""
    n = len(tree) + 1
    pairs, highest = merges(tree), [0.0] * n + values.tolist()
    for node in range(2 * n - 2, n - 1, -1):
        for child in pairs[node - n]:
            highest[child] = max(highest[child], highest[node])
    return float(np.median(highest[:n]))


def cosines(seen: Floats, tree: Wide) -> Wide:
    """(n - 1,) the mean cosine of two of the (n, d) assets that each merge holds; what has no direction has 0."""
    _, sums, pairs = _held(seen, tree)
    means: Wide = (sums / np.maximum(pairs, 1))[len(seen) :]
    return means


def sides(seen: Floats, tree: Wide) -> tuple[Wide, Wide, Labels]:
    """Of each merge's two sides of (n, d) assets: the mean cosine inside them, between them, and the smaller's size.

    All (n - 1,).
    """
    totals, sums, pairs = _held(seen, tree)
    sizes = np.concatenate([np.ones(len(seen)), tree[:, 3]])
    left, right = tree[:, :2].T.astype(np.intp)
    inside: Wide = (sums[left] + sums[right]) / np.maximum(pairs[left] + pairs[right], 1)
    between: Wide = np.einsum("nd,nd->n", totals[left], totals[right]) / (sizes[left] * sizes[right])
    return inside, between, np.minimum(sizes[left], sizes[right]).astype(np.intp)


def copies_of(seen: Floats) -> Labels:
    """(n,) numbers 0, 1, … of (n, d) assets: any two of one number are copies of each other (`catalogue.COPY`)."""
    distances, farthest = _distances(seen), math.sqrt(2 - 2 * COPY)
    if not (distances <= farthest).any():
        return np.arange(len(seen))
    copies: Labels = fcluster(linkage(distances, "complete"), farthest, "distance") - 1
    return copies


def _held(seen: Floats, tree: Wide) -> tuple[Floats, Wide, Wide]:
    """Of each of 2 n - 1 nodes: the sum of its assets, (…, d), and the sum and the number of cosines of two of them."""
    totals = _added_up(seen, tree)
    own = _added_up(np.einsum("nd,nd->n", seen, seen).astype(np.float64), tree)
    sizes = np.concatenate([np.ones(len(seen)), tree[:, 3]])
    return totals, np.einsum("nd,nd->n", totals, totals) - own, sizes * (sizes - 1)


def _added_up(values: npt.NDArray[Number], tree: Wide) -> npt.NDArray[Number]:
    """Of each node of a tree, (2 n - 1, …), the sum of its assets' values, (n, …)."""
    sums = np.concatenate([values, np.empty_like(values[1:])])
    for node, (left, right) in enumerate(merges(tree), start=len(values)):
        sums[node] = sums[left] + sums[right]
    return sums


def _project(vectors: Floats, variance: float) -> Floats:
    """(n, d') coordinates in the fewest principal components that keep the share `variance` (eqs. 3 and 4).

    From the eigenvectors of the smaller of the Gram matrix (n x n) and the scatter matrix (d x d): exact.
    """
    centred = vectors - vectors.mean(axis=0)
    n, d = centred.shape
    values, axes, failed = ssyevd(centred @ centred.T if n < d else centred.T @ centred)
    if failed:
        raise ValueError(f"no principal components of {n} vectors (LAPACK's ssyevd: {failed})")
    values, axes = np.maximum(values[::-1], 0), axes[:, ::-1]
    kept = 1 + int(np.searchsorted(np.cumsum(values), variance * values.sum()))
    points: Floats = axes[:, :kept] * np.sqrt(values[:kept]) if n < d else centred @ axes[:, :kept]
    return points


def _distances(points: Floats) -> Wide:
    """Condensed Euclidean distances of (n, d') points, by one matrix product."""
    products = points @ points.T
    squares = products.diagonal().copy()
    products *= -2
    products += squares
    products += squares[:, None]
    condensed: Wide = squareform(products, checks=False).astype(np.float64)
    return np.sqrt(np.maximum(condensed, 0, out=condensed), out=condensed)
