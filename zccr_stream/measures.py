"""What is measured: of one feed, of areas of interest, of retrieval. Pure.

Comes in: what was shown, and what would have been right. Go out: shares from 0 to 1. A feed counts as a user sees it,
up to a fixed length, so that nobody gains by asking for more; the paper's Recall@10 (section 4.3) takes the union over
all seeds, so that finer areas always gain, and stands beside it for comparison.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from zccr_stream.vectors import TIE

NOTHING = -1  # the class of what is of no interest, and of the places behind a feed that is short

Classes = npt.NDArray[np.intp]
Shares = npt.NDArray[np.float64]
Vectors = npt.NDArray[np.float32]

_ROWS = 1024


def recall(feeds: Classes, relevant: npt.NDArray[np.intp], length: int) -> Shares:
    """(u,) share of what is relevant to each user that the first `length` places of the feed show.

    Args:
        feeds: (u, f) the class of each item shown, 0 to c - 1, or `NOTHING`.
        relevant: (u,) how many items there are to find.
        length: places that count.
    """
    shares: Shares = _found(feeds, length).sum(axis=1) / relevant
    return shares


def precision(feeds: Classes, length: int) -> Shares:
    """(u,) share of the first `length` places that show something relevant; an empty place does not."""
    shares: Shares = _found(feeds, length).sum(axis=1) / length
    return shares


def ndcg(feeds: Classes, relevant: npt.NDArray[np.intp], length: int) -> Shares:
    """(u,) discounted gain of the first `length` places over that of the best possible feed (Järvelin, Kekäläinen).

    An item gains 1 or 0, place i counts 1 / log2(i + 1).
    """
    discounts = 1 / np.log2(np.arange(2, length + 2))
    found = _found(feeds, length)
    best = np.concatenate([[0.0], np.cumsum(discounts)])[np.minimum(relevant, length)]
    shares: Shares = found @ discounts[: found.shape[1]] / best
    return shares


def coverage(feeds: Classes, classes: int, length: int) -> Shares:
    """(u,) share of each user's `classes` of which the first `length` places show anything."""
    shown = feeds[:, :length, None] == np.arange(classes)  # (u, f, c)
    shares: Shares = shown.any(axis=1).mean(axis=1)
    return shares


def paper_recall(lists: Classes, classes: int) -> float:
    """Recall@10 of one user as the paper has it (section 4.3): right items in any seed's list, each counted once.

    Args:
        lists: (s, 10) the class of each seed's hits where the hit is that class's one right item, or `NOTHING`.
        classes: how many right items there are, one a class.
    """
    return len(set(lists[lists != NOTHING].tolist())) / classes


def near_duplicates(vectors: Vectors, cosine: float) -> npt.NDArray[np.bool_]:
    """(f,) which items of a feed of (f, d) unit vectors come within `cosine` of one shown before."""
    near = np.tril(vectors @ vectors.T >= cosine, k=-1)
    return np.asarray(near.any(axis=1), np.bool_)


def diversity(vectors: Vectors, modalities: npt.NDArray[np.str_]) -> float:
    """Mean of 1 - cosine over the pairs of one modality in a feed of (f, d) unit vectors; NaN where there is no pair.

    Pairs of two modalities are left out: how far these lie apart (the modality gap) says nothing about the feed.
    """
    pairs = np.triu(modalities[:, None] == modalities, k=1)  # (f, f)
    return float(1 - (vectors @ vectors.T)[pairs].mean()) if pairs.any() else math.nan


def adjusted_rand(labels: Sequence[int] | Classes, others: Sequence[int] | Classes) -> float:
    """Adjusted Rand index of two groupings of the same n (Hubert, Arabie 1985): 1 equal, 0 as by chance."""
    _, left = np.unique(labels, return_inverse=True)
    _, right = np.unique(others, return_inverse=True)
    assert left.shape == right.shape, "two groupings of the same"
    together = _pairs(np.bincount(left * (right.max() + 1) + right))
    of_left, of_right = _pairs(np.bincount(left)), _pairs(np.bincount(right))
    chance = of_left * of_right / max(_pairs(np.array([len(left)])), 1)
    most = (of_left + of_right) / 2
    return 1.0 if most == chance else (together - chance) / (most - chance)


def counterpart_recall(
    queries: Vectors, answers: Vectors, lengths: Sequence[int], *, beside: Vectors | None = None
) -> dict[int, float]:
    """R@k for every k of `lengths`, where row i of `queries` (n, d) is answered by row i of `answers` (n, d).

    Args:
        queries: vectors of one modality.
        answers: vectors of the other, searched by inner product.
        lengths: places that count.
        beside: (n, d) searched too, as in one index of both modalities, but row i not by query i: it is the query.

    Returns:
        By k, the share of queries whose own answer is among the k nearest. Ties count against it.
    """
    ahead = np.empty(len(queries), np.intp)
    for start in range(0, len(queries), _ROWS):
        block = slice(start, start + _ROWS)
        cosines = queries[block] @ answers.T
        rows = np.arange(len(cosines))
        least = cosines[rows, start + rows, None] - TIE
        ahead[block] = (cosines >= least).sum(axis=1) - 1
        if beside is not None:
            noise = queries[block] @ beside.T
            noise[rows, start + rows] = -np.inf
            ahead[block] += (noise >= least).sum(axis=1)
    return {k: float((ahead < k).mean()) for k in lengths}


def half_width(*groups: npt.ArrayLike) -> float:
    """Half of the 95 % confidence interval of the mean of a group, or of the mean of several groups' means.

    By Student's t; of several groups, which count alike, with the degrees of freedom of Welch and Satterthwaite, for
    their draws may vary by different amounts. Infinite where one has a single draw.
    """
    draws = [np.asarray(group, np.float64) for group in groups]
    if min(map(len, draws)) < 2:
        return math.inf
    errors = np.array([group.var(ddof=1) / len(group) for group in draws])  # of the groups' means, squared
    freedom = errors.sum() ** 2 / max((errors**2 / [len(group) - 1 for group in draws]).sum(), np.finfo(float).tiny)
    return float(stdtrit(max(freedom, 1), 0.975) * math.sqrt(errors.sum())) / len(draws)


def _found(feeds: Classes, length: int) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = feeds[:, :length] != NOTHING
    return found


def _pairs(counts: npt.NDArray[np.intp]) -> float:
    wide = counts.astype(np.float64)
    return float((wide * (wide - 1)).sum() / 2)
