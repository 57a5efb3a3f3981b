"""One profile -> its areas by every projection and clustering of the paper's Table 2.

Comes in: a profile of one modality. Go out: by clustering its areas as production makes them of such groups, with the
centroid as the seed; `medoid_seeds` has the other. Knows nothing of users, search and measures.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial.distance import pdist, squareform
from sklearn.cluster import HDBSCAN
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from sklearn.metrics import silhouette_score

from zccr_stream.interests import Area, AreaRule, Profile, areas_of, find_areas
from zccr_stream.measures import NOTHING, Classes
from zccr_stream.vectors import at_unit_length

NONE, LINEAR, NONLINEAR = PROJECTIONS = ("none", "PCA", "t-SNE")
WARD, WARD_TRUE = "Ward", "Ward, true number"
DENSITY, DENSITY_ONE, DENSITY_EACH = "HDBSCAN", "HDBSCAN, noise one area", "HDBSCAN, noise each alone"
CLUSTERINGS = (WARD, WARD_TRUE, DENSITY, DENSITY_ONE, DENSITY_EACH)

STRUCTURE = 0.5
"""Least mean silhouette of more areas than one: "a reasonable structure" (Kaufman, Rousseeuw 1990). On t-SNE's map of
50 and more points without any the best cut of the tree reaches .3 to .5."""
EQUAL = 1e-6
PERPLEXITY = 30.0  # scikit-learn's default, and the most: a third of the neighbours where these are few

Floats = npt.NDArray[np.floating]


def clustered(
    profile: Profile, projection: str, rule: AreaRule, number: int, smallest: int
) -> Iterator[tuple[str, list[Area]]]:
    """Find a profile's areas by each of the `CLUSTERINGS`.

    Args:
        profile: assets of one modality.
        projection: one of `PROJECTIONS`.
        rule: production's.
        number: how many areas there really are.
        smallest: least assets of an area that HDBSCAN finds.
    """
    points = project(profile.vectors, projection, rule.variance)
    if projection == NONLINEAR:
        yield WARD, areas_of(profile, ward_by_silhouette(points), rule)
    else:
        # All of the variance is a rotation: the distances are those of the vectors.
        yield WARD, find_areas(profile, rule if projection == LINEAR else replace(rule, variance=1.0))
    yield WARD_TRUE, areas_of(profile, ward(points, [number])[:, 0], rule)
    labels = density(points, smallest)
    noise = labels == NOTHING
    alone = np.where(noise, len(labels) + np.arange(len(labels)), labels)
    for name, groups in (
        (DENSITY, labels),
        (DENSITY_ONE, np.where(noise, len(labels), labels)),
        (DENSITY_EACH, alone),
    ):
        yield name, areas_of(profile, groups, rule)


def medoid_seeds(profile: Profile, areas: Sequence[Area]) -> list[Area]:
    """The same areas, each searching with its medoid (eq. 10)."""
    vectors = profile.vectors[[area.medoid for area in areas]] if areas else profile.vectors[:0]
    units = at_unit_length(vectors)
    return [replace(area, seed=unit) for area, unit in zip(areas, units, strict=True)]


def project(vectors: npt.NDArray[np.float32], projection: str, variance: float) -> Floats:
    """(n, d') coordinates of (n, d) vectors; t-SNE's are two. Three points or less, or equal ones, stay as they are."""
    n, d = vectors.shape
    if (
        projection == NONE or n <= 3 or d == 1 or np.ptp(vectors, axis=0).max() < EQUAL
    ):  # t-SNE crashes where nothing varies
        return vectors
    if projection == LINEAR:
        kept: Floats = PCA(n_components=variance, svd_solver="full").fit_transform(vectors)
        return kept
    mapped: Floats = TSNE(perplexity=min(PERPLEXITY, (n - 1) / 3), random_state=0).fit_transform(vectors)
    return mapped


def ward(points: Floats, numbers: Sequence[int]) -> Classes:
    """(n, k) labels of Ward's tree over (n, d') points, cut into each of the k numbers of groups."""
    if len(points) == 1:
        return np.zeros((1, len(numbers)), np.intp)
    labels: Classes = cut_tree(linkage(points, method="ward"), n_clusters=list(numbers)).astype(np.intp)
    return labels


def ward_by_silhouette(points: Floats) -> Classes:
    """(n,) labels of Ward's tree where the mean silhouette is best, of two groups to n / 2; below `STRUCTURE` one."""
    n = len(points)
    numbers = range(2, n // 2 + 1)
    if not numbers:
        return np.zeros(n, np.intp)
    labels = ward(points, numbers)
    distances = squareform(pdist(points))
    silhouettes = [silhouette_score(distances, column, metric="precomputed") for column in labels.T]
    best = int(np.argmax(silhouettes))
    chosen: Classes = labels[:, best] if silhouettes[best] >= STRUCTURE else np.zeros(n, np.intp)
    return chosen


def density(points: Floats, smallest: int) -> Classes:
    """(n,) HDBSCAN's labels of (n, d') points, `NOTHING` for noise; fewer points than `smallest` are all noise."""
    if len(points) < smallest:
        return np.full(len(points), NOTHING)
    labels: Classes = HDBSCAN(min_cluster_size=smallest, copy=True).fit_predict(points).astype(np.intp)
    assert labels.min() >= NOTHING == -1, "scikit-learn says -1 for noise"
    return labels
