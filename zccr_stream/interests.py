"""A profile's vectors -> areas of interest (paper, section 3.2). Pure.

Comes in: one user's assets in one snapshot. Goes out: per modality groups of them, each with a weight, a
medoid to show and a seed to search with. PCA, Ward, a cut; then back in the full space the seeds (Figure 10).
The same assets give the same areas, in whatever order they come. Knows nothing of indexes and databases.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import linkage
from scipy.linalg.lapack import ssyevd
from scipy.spatial.distance import squareform

from zccr_stream.events.identifiers import lot

CUT = 1.1
"""Where no catalogue says up to which distance two assets are one area: of CLIP models, roughly."""

CENTROID = "centroid"
MEDOID = "medoid"

_BLOCK_ROWS = 8192  # 16 MB of 512 float32: what is worked on at once, however large the profile is
_RISE, _NEAREST, _KIN, _KIN_MAX = 1.1, 0.4, 2.0, 3.0  # of `_limits`; docs/results.md says how they were chosen
_TIE = 1e-6  # mean cosines closer than this are equal: float32 does not tell them apart

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Profile:
    """A user's live assets in one snapshot, n of them; `vectors` is (n, d) float32, unit length."""

    user_id: str
    profile_version: int
    asset_ids: Sequence[str]
    modalities: Sequence[str]
    occurred_at_ns: npt.NDArray[np.int64]
    vectors: npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue:
    """What one modality's assets of all users look like in the encoder's space: the scale for areas.

    `mean` is (d,). Seen from there, unrelated assets of every encoder are at right angles on average, and
    `dimensions`, p, says how strictly: it is one over their mean squared cosine, which of p even dimensions is p.
    """

    mean: Floats
    dimensions: float

    @classmethod
    def of(cls, vectors: Floats) -> Catalogue:
        """Measure a catalogue by (n, d) unit vectors, or by a random sample of it.

        Raises:
            ValueError: there are fewer than two.
        """
        n = len(vectors)
        if n < 2:
            raise ValueError(f"a catalogue of {n} vectors; expected at least 2")
        mean = vectors.mean(axis=0, dtype=np.float64).astype(np.float32)
        centred: npt.NDArray[np.float64] = _centred(vectors, mean).astype(np.float64)
        products = centred @ centred.T if n < centred.shape[1] else centred.T @ centred
        own = np.einsum("nd,nd->n", centred, centred)
        squared_cosine = ((products**2).sum() - (own**2).sum()) / (n * (n - 1))  # of different assets alone
        return cls(mean, max(1.0, float(1 / max(squared_cosine, _TIE))))


@dataclass(frozen=True, slots=True)
class AreaRule:
    """How areas are found.

    `variance` is the share that PCA keeps. Where a modality's catalogue is known, it says up to which Ward distance two
    groups together are one area (`_limits`). Where not, that is `cut` (n / 2) ** `growth` for n assets: so `cut` is the
    distance up to which two single assets are one, and depends on the encoder. `areas_max` is the most areas of a
    modality (more are merged along the tree). Above `sample_size` assets a sample of that many is clustered. `seed` is
    `centroid` or `medoid`. `catalogues` are by modality.
    """

    variance: float
    cut: float
    growth: float
    areas_max: int
    sample_size: int
    seed: str
    catalogues: Mapping[str, Catalogue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.variance <= 1:
            raise ValueError(f"variance is {self.variance}; expected a share above 0 and up to 1")
        if not self.cut > 0:
            raise ValueError(f"cut is {self.cut}; expected a Ward distance above 0")
        if not 0 <= self.growth <= 0.5:
            raise ValueError(f"growth is {self.growth}; expected an exponent from 0 to 0.5")
        if self.areas_max < 1:
            raise ValueError(f"areas_max is {self.areas_max}; expected at least 1")
        if self.sample_size < 1:
            raise ValueError(f"sample_size is {self.sample_size}; expected at least 1")
        if self.seed not in (CENTROID, MEDOID):
            raise ValueError(f"seed is {self.seed!r}; expected {CENTROID!r} or {MEDOID!r}")


@dataclass(frozen=True, slots=True)
class Area:
    """An area of interest.

    `members` are rows of the profile in the order of their asset ids, `medoid` is one of them, `seed` is (d,)
    of unit length.
    """

    area_id: str
    modality: str
    weight: float
    members: npt.NDArray[np.intp]
    medoid: int
    seed: npt.NDArray[np.float32]


def find_areas(profile: Profile, rule: AreaRule) -> list[Area]:
    """Find a user's areas of interest in every modality, heaviest first; their weights sum to 1.

    Every asset is in exactly one area. Of areas of equal size the one with the newest asset comes first.
    An `area_id` stands for the oldest asset of its area: it stays while the area grows and others change.
    When areas merge the older's stays; when one splits the part with its oldest asset keeps it.

    Raises:
        ValueError: the profile's columns do not fit together, or a vector is not of unit length.
    """
    _check(profile)
    order = np.array(sorted(range(len(profile.asset_ids)), key=profile.asset_ids.__getitem__), dtype=np.intp)
    modalities = np.asarray(profile.modalities, dtype=np.str_)[order]
    areas = [
        area
        for modality in sorted(set(profile.modalities))
        for area in _modality_areas(profile, modality, order[modalities == modality], rule)
    ]
    newest = {area.area_id: int(profile.occurred_at_ns[area.members].max()) for area in areas}
    return sorted(areas, key=lambda area: (-len(area.members), -newest[area.area_id], area.area_id))


def _modality_areas(profile: Profile, modality: str, rows: Labels, rule: AreaRule) -> Iterator[Area]:
    """The areas among `rows` of the profile: all of one modality, in the order of their asset ids."""
    vectors = _unit(profile.vectors[rows])
    labels = _group(vectors, profile.asset_ids, rows, rule, rule.catalogues.get(modality))
    by_label = np.argsort(labels, kind="stable")
    for part in np.split(by_label, np.flatnonzero(np.diff(labels[by_label])) + 1):
        members = rows[part]
        medoid, centroid = _represent(vectors[part])
        oldest = members[np.argmin(profile.occurred_at_ns[members])]
        yield Area(
            area_id=_area_id(profile.user_id, modality, profile.asset_ids[oldest]),
            modality=modality,
            weight=len(members) / len(profile.asset_ids),
            members=members,
            medoid=int(members[medoid]),
            seed=vectors[part[medoid]].copy() if rule.seed == MEDOID else centroid,
        )


def _represent(vectors: Floats) -> tuple[int, Floats]:
    """The medoid's row and the centroid's direction (eqs. 9 and 10) of an area's (n, d) vectors, in O(n d).

    The least summed cosine distance is the greatest product with the sum. Ties go to the first row. Where the vectors
    cancel out and there is no direction, the medoid stands in.
    """
    total = vectors.sum(axis=0, dtype=np.float64)
    closeness = vectors @ total.astype(np.float32)
    medoid = int(np.argmax(closeness >= closeness.max() - _TIE * len(vectors)))
    length = float(np.linalg.norm(total))
    if length <= _TIE * len(vectors):
        return medoid, vectors[medoid].copy()
    return medoid, (total / length).astype(np.float32)


def _group(
    vectors: Floats, asset_ids: Sequence[str], rows: Labels, rule: AreaRule, catalogue: Catalogue | None
) -> Labels:
    """(n,) labels 0, 1, …: Ward on all, or on a sample with the rest given to the nearest centroid.

    The sample is the assets whose ids hash lowest: one upload more or less changes at most one of it.
    """
    n = len(vectors)
    if n <= rule.sample_size:
        return _ward(vectors, rule, catalogue)
    hashes = np.array([lot(asset_ids[row]) for row in rows.tolist()], dtype=np.uint64)
    sample = np.sort(np.argsort(hashes, kind="stable")[: rule.sample_size])
    sampled = _ward(vectors[sample], rule, catalogue)
    centroids = np.stack([vectors[sample[sampled == label]].mean(axis=0) for label in range(sampled.max() + 1)])
    offsets = np.einsum("kd,kd->k", centroids, centroids) / 2
    labels = np.empty(n, dtype=np.intp)
    for start in range(0, n, _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        labels[block] = np.argmax(vectors[block] @ centroids.T - offsets, axis=1)
    labels[sample] = sampled
    return labels


def _ward(vectors: Floats, rule: AreaRule, catalogue: Catalogue | None) -> Labels:
    """(n,) labels 0, 1, … of the Ward tree over PCA's projection, cut by the rule (eqs. 5 and 6)."""
    n = len(vectors)
    if n == 1:
        return np.zeros(1, dtype=np.intp)
    seen = vectors if catalogue is None else _centred(vectors, catalogue.mean)
    tree = linkage(_distances(_project(seen, rule.variance)), method="ward")
    heights = tree[:, 2] / (
        rule.cut * (tree[:, 3] / 2) ** rule.growth if catalogue is None else _limits(tree, catalogue)
    )
    return _cut(tree[:, :2].astype(np.intp), heights, rule.areas_max)


def _limits(tree: npt.NDArray[np.float64], catalogue: Catalogue) -> npt.NDArray[np.float64]:
    """The Ward distances up to which the merges of a tree of n assets leave one area, (n - 1,), seen from the mean.

    Strangers lie sqrt(2) apart, give or take deviations of sqrt(2 / p) in p dimensions. In these, for a merge to m:
    - within one cloud merges rise with the root of m: its longest axis is that much longer than the others;
    - the nearest two of n / m groups that are strangers are nearer than most, as the least of so many draws;
    - where most assets have no kin in the profile, a pair must be close to be one: `kin` is how far below strangers an
      asset typically joins the tree, and this says less of larger groups.
    """
    n = len(tree) + 1
    m = tree[:, 3]
    joins = (tree[:, :2] < n).any(axis=1)
    kin = math.sqrt(catalogue.dimensions) * (1 - float(np.median(tree[joins, 2])) / math.sqrt(2))
    deviations = (
        _RISE * np.sqrt(m / 2)
        - _NEAREST * np.sqrt(2 * np.log(n / m))
        - min(max(_KIN - kin, 0), _KIN_MAX) * np.sqrt(2 / m)
    )
    limits: npt.NDArray[np.float64] = math.sqrt(2) * (1 + deviations / math.sqrt(catalogue.dimensions))
    return np.maximum(limits, _TIE)


def _cut(merges: Labels, heights: npt.NDArray[np.float64], areas_max: int) -> Labels:
    """(n,) labels 0, 1, … of n - 1 merges: what holds a merge higher than 1 is split, the highest first.

    (scipy's fcluster takes 0.2 ms for the smallest tree and expects heights that only rise.)
    """
    n = len(merges) + 1
    pairs, highest = merges.tolist(), [0.0] * n + heights.tolist()
    for node, (left, right) in enumerate(pairs, start=n):
        highest[node] = max(highest[node], highest[left], highest[right])
    too_high = [(highest[node], node) for node in range(n, 2 * n - 1) if highest[node] > 1]
    split = {node for _, node in sorted(too_high, reverse=True)[: areas_max - 1]}  # parents before children
    labels, areas = [0] * (2 * n - 1), 1
    for node in range(2 * n - 2, n - 1, -1):
        left, right = pairs[node - n]
        labels[left] = labels[node]
        labels[right] = areas if node in split else labels[node]
        areas += node in split
    return np.array(labels[:n], dtype=np.intp)


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


def _distances(points: Floats) -> npt.NDArray[np.float64]:
    """Condensed Euclidean distances of (n, d') points, by one matrix product."""
    products = points @ points.T
    squares = products.diagonal().copy()
    products *= -2
    products += squares
    products += squares[:, None]
    condensed: npt.NDArray[np.float64] = squareform(products, checks=False).astype(np.float64)
    return np.sqrt(np.maximum(condensed, 0, out=condensed), out=condensed)


def _centred(vectors: Floats, mean: Floats) -> Floats:
    """The directions of `vectors` as seen from `mean`; what lies there has none and stays there."""
    seen = vectors - mean
    lengths = np.sqrt(np.einsum("nd,nd->n", seen, seen))
    seen /= np.where(lengths > _TIE, lengths, np.float32(1))[:, None]
    return seen


def _unit(vectors: Floats) -> Floats:
    """`vectors` scaled in place to unit length: float16 storage leaves them off by up to 1e-3."""
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    if not (np.abs(lengths - 1) < 0.1).all():
        raise ValueError(f"a vector of length {lengths[np.argmax(~(np.abs(lengths - 1) < 0.1))]}; expected unit length")
    vectors /= lengths[:, None]
    return vectors


def _area_id(user_id: str, modality: str, asset_id: str) -> str:
    # Identifiers hold no control characters, so a line feed keeps them apart.
    return format(lot(f"{user_id}\n{modality}\n{asset_id}"), "016x")


def _check(profile: Profile) -> None:
    n = len(profile.asset_ids)
    shapes = (len(profile.modalities), len(profile.occurred_at_ns), len(profile.vectors))
    if shapes != (n, n, n) or (n and profile.vectors.ndim != 2):
        raise ValueError(
            f"profile of {profile.user_id!r}: {n} asset ids, but {shapes} modalities, times and vectors; "
            "expected one of each per asset"
        )
