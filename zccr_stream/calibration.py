"""Vectors and scores of several modalities -> comparable ones, though a gap lies between them (paper, 3.1.3). Pure.

Comes in: samples of each modality's vectors, which need not belong together. Go out: for one joint index a map of
each modality into one space; for feeds merged from an index a modality, scores that stand beside each other.
Deterministic, and the same up to rounding in whatever order a sample comes. Knows nothing of indexes and feeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zccr_stream.vectors import TIE, at_unit_length

Floats = npt.NDArray[np.float32]
Wide = npt.NDArray[np.float64]

_COPY = -2  # below every cosine
_SAME = 0.9995  # a cosine above this is the asset itself or a copy, stored in float16
_STEPS_MAX = 50
_CONVERGED = 1e-3  # of the greatest entry: more steps change no ranking that was measured
_BLOCK_ROWS = 4096


@dataclass(frozen=True, slots=True)
class Alignment:
    """A modality's map into the joint space: less `mean` (d,), times `matrix` (d, d), at unit length again."""

    mean: Floats
    matrix: Floats

    def apply(self, vectors: Floats) -> Floats:
        """Map (n, d) unit vectors of the modality to (n, d) float32 unit vectors of the joint space.

        A vector that is its modality's mean has no direction left; it keeps its own.

        Raises:
            ValueError: vectors of another shape.
        """
        if vectors.ndim != 2 or vectors.shape[1] != len(self.mean):
            raise ValueError(f"vectors {vectors.shape}; expected (n, {len(self.mean)})")
        left = vectors - self.mean
        at_mean = np.linalg.norm(left, axis=1) < TIE
        left[at_mean] = vectors[at_mean]
        mapped = left @ self.matrix
        return at_unit_length(mapped).astype(np.float32)


def align(samples: Mapping[str, Floats]) -> dict[str, Alignment]:
    """Find the maps that close the modality gap, from unpaired samples of each modality.

    Of every modality the mean is taken away (the ends of the gap, eq. 11), and what is left is transported to the
    Wasserstein barycentre of all modalities' covariances: the Gaussian that lies nearest to all (Agueh, Carlier 2011;
    the fixed point of Álvarez-Esteban et al. 2016). The covariances count at equal scale and are shrunk towards a
    sphere (Chen et al. 2010), all by what the most uncertain of them needs: few samples leave little more than the
    means. Below some hundred vectors of a modality do not expect much.

    Args:
        samples: (m, d) unit vectors by modality, each with an m of its own, at least 1.

    Raises:
        ValueError: an empty sample, or vectors of different lengths.
    """
    if not samples:
        return {}
    shapes = {modality: sample.shape for modality, sample in samples.items()}
    if any(len(shape) != 2 or 0 in shape for shape in shapes.values()) or len({s[1] for s in shapes.values()}) > 1:
        raise ValueError(f"samples {shapes}; expected (m, d) of each modality, with one d and each m at least 1")
    means = {modality: sample.mean(axis=0, dtype=np.float64) for modality, sample in samples.items()}
    spreads = [_spread(sample.astype(np.float64) - means[modality]) for modality, sample in samples.items()]
    shrinkage = max(intensity for _, intensity in spreads)
    sphere = np.eye(len(spreads[0][0]))
    maps = _transports([(1 - shrinkage) * spread + shrinkage * sphere for spread, _ in spreads])
    return {
        modality: Alignment(mean.astype(np.float32), matrix.astype(np.float32))
        for (modality, mean), matrix in zip(means.items(), maps, strict=True)
    }


def local_mean(vectors: Floats, bank: Floats, neighbours: int) -> Floats:
    """How near anything of a modality comes to each vector: the mean cosine of its nearest in a sample.

    Args:
        vectors: (n, d) unit vectors.
        bank: (m, d) unit vectors of one modality; one that is the vector itself, or a copy, does not count. Where there
            are nothing but copies, they are what is usual: 1.
        neighbours: how many of the nearest.

    Returns:
        (n,) means.

    Raises:
        ValueError: fewer than 1 neighbours, or more than the bank holds.
    """
    if not 1 <= neighbours <= len(bank):
        raise ValueError(f"neighbours is {neighbours}; expected from 1 up to the bank's {len(bank)} vectors")
    means = np.empty(len(vectors), np.float32)
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = slice(start, start + _BLOCK_ROWS)
        cosines = vectors[block] @ bank.T
        cosines[cosines > _SAME] = _COPY
        nearest = np.partition(cosines, -neighbours, axis=1)[:, -neighbours:]
        others = nearest > _COPY
        found = np.count_nonzero(others, axis=1)
        means[block] = np.where(found > 0, np.where(others, nearest, 0).sum(axis=1) / np.maximum(found, 1), 1)
    return means


def comparable(scores: Floats, of_seeds: Floats, of_hits: Floats) -> Floats:
    """Scores of hits that can be merged with those of other modalities: how much nearer a hit is than usual.

    Cross-domain similarity local scaling (Conneau et al. 2018): from a cosine goes what is usual for the seed among
    assets of the hit's modality, and for the hit among assets of the seed's, half of each. 0 is as near as usual.

    Args:
        scores: (s, k) cosines of hits of one modality with seeds of one modality.
        of_seeds: (s,) `local_mean` of the seeds in a sample of the hits' modality.
        of_hits: (s, k) `local_mean` of the hits in a sample of the seeds' modality.

    Raises:
        ValueError: shapes that do not fit together.
    """
    if scores.ndim != 2 or of_seeds.shape != scores.shape[:1] or of_hits.shape != scores.shape:
        raise ValueError(f"scores {scores.shape}, of seeds {of_seeds.shape}, of hits {of_hits.shape}; see the docs")
    calibrated: Floats = (scores - (of_seeds[:, None] + of_hits) / 2).astype(np.float32)
    return calibrated


def _spread(centred: Wide) -> tuple[Wide, float]:
    """The covariance (d, d) of centred vectors (m, d) at a mean variance of 1, and how far to shrink it, 0 to 1."""
    m, d = centred.shape
    covariance = centred.T @ centred / m
    variance = float(np.trace(covariance)) / d
    if m == 1 or np.sqrt(variance * d) < TIE:
        return np.eye(d), 1.0
    squares = float((covariance**2).sum())
    uncertain = (1 - 2 / d) * squares + (variance * d) ** 2
    certain = (m + 1 - 2 / d) * (squares - variance**2 * d)
    return covariance / variance, min(1.0, uncertain / certain) if certain > 0 else 1.0


def _transports(covariances: list[Wide]) -> list[Wide]:
    """The symmetric maps (d, d) of Gaussians to their barycentre."""
    barycentre = np.mean(covariances, axis=0)
    for _ in range(_STEPS_MAX):
        root, inverse = _power(barycentre, 0.5), _power(barycentre, -0.5)
        middle = np.mean([_power(root @ covariance @ root, 0.5) for covariance in covariances], axis=0)
        before, barycentre = barycentre, inverse @ middle @ middle @ inverse
        if np.abs(barycentre - before).max() < _CONVERGED * np.abs(before).max():
            break
    root = _power(barycentre, 0.5)
    return [root @ _power(root @ covariance @ root, -0.5) @ root for covariance in covariances]


def _power(matrix: Wide, exponent: float) -> Wide:
    """A power of a symmetric matrix that is positive up to rounding."""
    values, axes = np.linalg.eigh((matrix + matrix.T) / 2)
    power: Wide = (axes * np.maximum(values, np.finfo(np.float64).eps * values[-1]) ** exponent) @ axes.T
    return power
