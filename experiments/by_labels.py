"""What somebody who knew the labels could do with a profile's vectors: bounds for rules that do not.

Comes in: the vectors of one modality, where they are compared, and the true groups. Go out: groups. Knows nothing of
users, feeds and tables.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from zccr_stream.grouping import trees
from zccr_stream.measures import Classes, adjusted_rand
from zccr_stream.vectors import TIE

Floats = npt.NDArray[np.float32]


def best_cut(vectors: Floats, variance: float, true: Classes) -> Classes:
    """(n,) groups: of all cuts of production's tree of (n, d) vectors the one with the best adjusted Rand index.

    A cut takes any nodes that hold every asset once. Its index is (t - a b / p) / ((a + b) / 2 - a b / p) of p pairs, a
    together in it, b in truth and t in both. Whether some cut has an index above a given one is therefore a question of
    the greatest sum over its nodes of t - c a, which is found from the leaves up; that cut's index is asked for next,
    until there is none above (Dinkelbach's method for ratios).
    """
    n = len(true)
    if n < 2:
        return np.zeros(n, np.intp)
    _, classes = np.unique(true, return_inverse=True)
    counts = np.zeros((2 * n - 1, classes.max() + 1))  # each node's assets of each class
    counts[np.arange(n), classes] = 1
    children = trees.ward(vectors, variance)[:, :2].astype(np.intp)
    for node, (left, right) in enumerate(children, start=n):
        counts[node] = counts[left] + counts[right]
    in_both, in_cut = _pairs(counts).sum(axis=1), _pairs(counts.sum(axis=1))
    share = in_both[-1] / in_cut[-1]
    each, one = np.arange(n), np.zeros(n, np.intp)
    index, best = max((adjusted_rand(groups, classes), groups.tolist()) for groups in (each, one))
    while True:
        nodes = _greatest(in_both - (share + index * (0.5 - share)) * in_cut, children)
        groups = _groups(nodes, children)
        found = adjusted_rand(groups, classes)
        if found <= index + TIE:
            return np.array(best, np.intp)
        index, best = found, groups.tolist()


def closest_class(vectors: Floats, true: Classes) -> Classes:
    """(n,) of each of (n, d) vectors the class whose other assets' sum is closest: all labels are known but its own."""
    names, classes = np.unique(true, return_inverse=True)
    every = np.arange(len(true))
    totals = np.stack([vectors[classes == number].sum(axis=0) for number in range(len(names))])
    closeness = vectors @ totals.T / np.maximum(np.linalg.norm(totals, axis=1), TIE)
    others = totals[classes] - vectors
    lengths = np.linalg.norm(others, axis=1)
    own = np.einsum("nd,nd->n", vectors, others) / np.maximum(lengths, TIE)
    closeness[every, classes] = np.where(lengths > TIE, own, np.inf)  # what is alone stays alone
    closest: Classes = names[np.argmax(closeness, axis=1)]
    return closest


def _pairs(counts: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return counts * (counts - 1) / 2


def _greatest(values: npt.NDArray[np.float64], children: Classes) -> list[int]:
    """The nodes that hold every leaf once and have the greatest sum of values, (2 n - 1,); the fewest of equal ones."""
    n = len(children) + 1
    sums = values.copy()
    for node, (left, right) in enumerate(children, start=n):
        sums[node] = max(values[node], sums[left] + sums[right])
    nodes, waiting = [], [2 * n - 2]
    while waiting:
        node = waiting.pop()
        if node < n or sums[node] == values[node]:
            nodes.append(node)
        else:
            waiting += children[node - n].tolist()
    return nodes


def _groups(nodes: list[int], children: Classes) -> Classes:
    """(n,) the number of the node that holds each leaf."""
    n = len(children) + 1
    groups = np.full(2 * n - 1, -1)
    groups[nodes] = np.arange(len(nodes))
    for node in range(2 * n - 2, n - 1, -1):
        if groups[node] >= 0:
            groups[children[node - n]] = groups[node]
    return groups[:n]
