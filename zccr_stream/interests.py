"""A profile's vectors -> areas of interest (paper, section 3.2). Pure.

Comes in: one user's assets in one snapshot. Goes out: per modality groups of them, each with a weight, a
medoid to show and a seed to search with. PCA, Ward, a cut; then back in the full space the seeds (Figure 10).
The same assets give the same areas, in whatever order they come. Knows nothing of indexes and databases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.linalg import eigh
from scipy.sparse import csr_array
from scipy.spatial.distance import squareform

CENTROID = "centroid"
MEDOID = "medoid"

_BLOCK_ROWS = 8192  # 16 MB of 512 float32: what is worked on at once, however large the profile is
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


@dataclass(frozen=True, slots=True)
class AreaRule:
    """How areas are found.

    `variance` is the share that PCA keeps. Two groups of n assets together are one area up to a Ward distance of
    `cut` (n / 2) ** `growth`: so `cut` is the distance up to which two single assets are one. `areas_max` is the most
    areas of a modality (more are merged along the tree). Above `sample_size` assets a sample of that many is
    clustered. `seed` is `centroid` or `medoid`.
    """

    variance: float
    cut: float
    growth: float
    areas_max: int
    sample_size: int
    seed: str

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
        ValueError: the profile's columns do not fit together, or a vector is not finite.
    """
    _check(profile)
    rows_by_modality: dict[str, list[int]] = {}
    for row in sorted(range(len(profile.asset_ids)), key=profile.asset_ids.__getitem__):
        rows_by_modality.setdefault(profile.modalities[row], []).append(row)
    areas = [
        area
        for modality, rows in rows_by_modality.items()
        for area in _modality_areas(profile, modality, np.array(rows, dtype=np.intp), rule)
    ]
    newest = {area.area_id: int(profile.occurred_at_ns[area.members].max()) for area in areas}
    return sorted(areas, key=lambda area: (-len(area.members), -newest[area.area_id], area.area_id))


def _modality_areas(profile: Profile, modality: str, rows: Labels, rule: AreaRule) -> Iterator[Area]:
    """The areas among `rows` of the profile: all of one modality, in the order of their asset ids."""
    vectors = _unit(profile.vectors[rows])
    labels = _group(vectors, [profile.asset_ids[row] for row in rows], rule)
    sums = _sums(vectors, labels)
    closeness = _closeness(vectors, labels, sums)
    by_label = np.argsort(labels, kind="stable")
    for label, part in enumerate(np.split(by_label, np.flatnonzero(np.diff(labels[by_label])) + 1)):
        members = rows[part]
        medoid = part[np.argmax(closeness[part] >= closeness[part].max() - _TIE * len(part))]
        seed = vectors[medoid] if rule.seed == MEDOID else _centroid(sums[label], vectors[medoid])
        oldest = min(members, key=lambda row: (profile.occurred_at_ns[row], profile.asset_ids[row]))
        yield Area(
            area_id=_area_id(profile.user_id, modality, profile.asset_ids[oldest]),
            modality=modality,
            weight=len(members) / len(profile.asset_ids),
            members=members,
            medoid=int(rows[medoid]),
            seed=seed,
        )


def _group(vectors: Floats, asset_ids: Sequence[str], rule: AreaRule) -> Labels:
    """(n,) labels 0, 1, …: Ward on all, or on a sample with the rest given to the nearest centroid.

    The sample is the assets whose ids hash lowest: one upload more or less changes at most one of it.
    """
    n = len(vectors)
    if n <= rule.sample_size:
        return _ward(vectors, rule)
    hashes = np.frombuffer(b"".join(map(_digest, asset_ids)), dtype=">u8")
    sample = np.sort(np.argsort(hashes, kind="stable")[: rule.sample_size])
    labels = np.full(n, -1, dtype=np.intp)
    labels[sample] = _ward(vectors[sample], rule)
    centroids = _sums(vectors[sample], labels[sample]) / np.bincount(labels[sample])[:, None]
    offsets = np.einsum("kd,kd->k", centroids, centroids) / 2
    weights = centroids.T.astype(np.float32)
    for block in _blocks(n):
        nearest = np.argmax(vectors[block] @ weights - offsets, axis=1)
        labels[block] = np.where(labels[block] < 0, nearest, labels[block])
    return labels


def _ward(vectors: Floats, rule: AreaRule) -> Labels:
    """(n,) labels 0, 1, … of the Ward tree over PCA's projection, cut by the rule (eqs. 5 and 6)."""
    n = len(vectors)
    if n == 1:
        return np.zeros(1, dtype=np.intp)
    tree = linkage(_distances(_project(vectors, rule.variance)), method="ward")
    tree[:, 2] /= (
        tree[:, 3] / 2
    ) ** rule.growth  # heights need not rise any more: fcluster takes each subtree's highest
    clusters = fcluster(tree, rule.cut, criterion="distance")
    if clusters.max() > rule.areas_max:
        clusters = fcluster(tree, rule.areas_max, criterion="maxclust")
    labels: Labels = clusters.astype(np.intp) - 1
    return labels


def _project(vectors: Floats, variance: float) -> Floats:
    """(n, d') coordinates in the fewest principal components that keep the share `variance` (eqs. 3 and 4).

    From the eigenvectors of the smaller of the Gram matrix (n x n) and the scatter matrix (d x d): exact.
    """
    centred = vectors - vectors.mean(axis=0)
    n, d = centred.shape
    values, axes = eigh(
        centred @ centred.T if n < d else centred.T @ centred,
        driver="evd",
        overwrite_a=True,
        check_finite=False,
    )
    values, axes = np.maximum(values[::-1], 0), axes[:, ::-1]
    kept = 1 + int(np.searchsorted(np.cumsum(values), variance * values.sum()))
    axes = axes[:, :kept]
    points: Floats = axes * np.sqrt(values[:kept]) if n < d else centred @ axes
    return points


def _distances(points: Floats) -> npt.NDArray[np.float64]:
    """Condensed Euclidean distances of (n, d') points, by one matrix product."""
    squares = np.einsum("ij,ij->i", points, points)
    square = squares[:, None] + squares - 2 * (points @ points.T)
    condensed: npt.NDArray[np.float64] = squareform(square, checks=False).astype(np.float64)
    return np.sqrt(np.maximum(condensed, 0, out=condensed), out=condensed)


def _sums(vectors: Floats, labels: Labels) -> npt.NDArray[np.float64]:
    """(areas, d) sums of the vectors with each label."""
    count = int(labels.max()) + 1
    sums = np.zeros((count, vectors.shape[1]))
    for block in _blocks(len(vectors)):
        part = labels[block]
        ones = np.ones(len(part), dtype=np.float32)
        sums += csr_array((ones, (part, np.arange(len(part)))), shape=(count, len(part))) @ vectors[block]
    return sums


def _closeness(vectors: Floats, labels: Labels, sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(n,) summed cosine of each vector to all of its label: its greatest is at the medoid, in O(n d)."""
    closeness = np.empty(len(vectors))
    for block in _blocks(len(vectors)):
        closeness[block] = np.einsum("nd,nd->n", vectors[block], sums[labels[block]])
    return closeness


def _centroid(total: npt.NDArray[np.float64], medoid: Floats) -> Floats:
    """The direction of the sum (eqs. 9 and 10); the medoid where vectors cancel out and there is none."""
    length = float(np.linalg.norm(total))
    return (total / length).astype(np.float32) if length > _TIE else medoid


def _unit(vectors: Floats) -> Floats:
    """`vectors` scaled in place to unit length: float16 storage leaves them off by up to 1e-3."""
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    if not np.isfinite(lengths).all():
        raise ValueError("a profile's vector is not finite; expected vectors of unit length")
    vectors /= np.maximum(lengths, np.float32(_TIE))[:, None]
    return vectors


def _blocks(n: int) -> Iterator[slice]:
    return (slice(start, start + _BLOCK_ROWS) for start in range(0, n, _BLOCK_ROWS))


def _digest(text: str) -> bytes:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _area_id(user_id: str, modality: str, asset_id: str) -> str:
    # Identifiers hold no control characters, so a line feed keeps them apart.
    return _digest(f"{user_id}\n{modality}\n{asset_id}").hex()


def _check(profile: Profile) -> None:
    n = len(profile.asset_ids)
    shapes = (len(profile.modalities), len(profile.occurred_at_ns), len(profile.vectors))
    if shapes != (n, n, n) or (n and profile.vectors.ndim != 2):
        raise ValueError(
            f"profile of {profile.user_id!r}: {n} asset ids, but {shapes} modalities, times and vectors; "
            "expected one of each per asset"
        )
