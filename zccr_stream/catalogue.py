"""What all users' assets look like in the encoder's space: the scale for one user's areas and seeds. Pure.

Comes in: a sample of each modality's vectors. Go out: how one asset looks among all, how strictly unrelated ones are at
right angles, and for areas that hold images and texts together the maps of both into one space. Knows nothing of users
and indexes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.linalg import cholesky
from scipy.linalg.lapack import dtrtri

from zccr_stream.calibration import Alignment, align
from zccr_stream.vectors import TIE, at_unit_length

_SHRINKAGE = 30.0  # of a catalogue's covariance, towards so many times its mean variance in every direction
_KIN = 2.0  # deviations from right angles from which on one of the catalogue's assets is an asset's kin
_PULL, _FEW = 0.5, 2.0  # how much kin count beside oneself; in deviations, of how much kin they count half of that
_NEIGHBOURS = 3  # a copy among them does not matter
_NEW_SHARE_MAX = 1 / 8  # of the assets that a joint space is found by

COPY = 0.995
"""The cosine, as seen from a catalogue, above which one asset is a copy of another: encoded anew, or the same."""

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue:
    """One modality's assets of all users, known by a `sample` of them, (m, d), those with `revisions` by asset id.

    `mean` is (d,), and `whitener`, W, is (d, d): W W' is the inverse of the assets' covariance S, shrunk a long way
    towards a sphere (to S + 30 tr(S) / d), up to a factor that keeps lengths much as they were. Directions in which all
    assets differ anyway say less of what is alike. Seen so, unrelated assets of every encoder are at right angles on
    average.

    One asset says little of its kind; assets that are surely like it say more. Of the sample's `directions`, (m, d), an
    asset's kin are those whose cosine is more than two deviations: the root of its mean squared cosine with all, where
    copies and itself count as 0. They weigh what is above that, and half of their mean is added to the asset, or less
    where all of it is little, as the few of many strangers that are above by chance: part of a step of mean shift
    (Comaniciu, Meer 2002). So kinds that the catalogue has much of are told apart though any two assets of them are
    little alike.

    `dimensions`, p, says how strictly strangers among their kin are at right angles: it is one over their mean squared
    cosine, which of p even dimensions is p. Where kinds lie in few directions, or in few worlds of kinds, that is less
    than what assets of one kind differ in: `within` says the same of what parts assets from their nearest neighbours.
    """

    sample: Floats = field(repr=False)
    mean: Floats = field(repr=False)
    whitener: Floats = field(repr=False)
    directions: Floats = field(repr=False)
    dimensions: float
    within: float
    revisions: frozenset[tuple[str, int]] = field(default=frozenset(), repr=False)

    @classmethod
    def of(cls, sample: Floats, revisions: Iterable[tuple[str, int]] = ()) -> Catalogue:
        """Measure a catalogue by (m, d) unit vectors: all there are, or drawn at random.

        Raises:
            ValueError: there are fewer than two.
        """
        m = len(sample)
        if m < 2:
            raise ValueError(f"a catalogue of {m} vectors; expected at least 2")
        mean = sample.mean(axis=0, dtype=np.float64).astype(np.float32)
        whitener = _whitener(sample - mean)
        directions = at_unit_length((sample - mean) @ whitener)
        among_kin = _among_kin(directions, directions)
        dimensions = _dimensions(among_kin)
        within = _dimensions(_from_neighbours(among_kin), otherwise=dimensions)
        return cls(sample, mean, whitener, directions, dimensions, within, frozenset(revisions))

    def seen(self, vectors: Floats) -> Floats:
        """The directions, (n, d), of `vectors` as seen from here; what lies at the mean has none and stays there."""
        return at_unit_length((vectors - self.mean) @ self.whitener)

    def among_kin(self, seen: Floats) -> Floats:
        """The directions, (n, d), of assets as `seen` from here, (n, d), drawn towards their kin (`Catalogue`)."""
        return _among_kin(seen, self.directions)

    def contrasts(self, vectors: Floats) -> Floats:
        """What tells each of (n, d) `vectors` from the catalogue's assets, (n, d); 0 of what lies at their mean.

        It is the direction of the linear discriminant W W' (x - mean) (Fisher's, with the shrunk covariance): it orders
        vectors y by the product of x and y as seen from here, before their lengths are made 1.
        """
        return at_unit_length((vectors - self.mean) @ self.whitener @ self.whitener.T)


@dataclass(frozen=True, slots=True, eq=False)
class Joint:
    """The space in which images and texts lie together, though the modality gap parts them (paper, 3.1.3).

    `alignments`, by modality, lead there; `catalogue` is all modalities' assets as seen there.
    """

    alignments: Mapping[str, Alignment] = field(repr=False)
    catalogue: Catalogue

    @classmethod
    def of(cls, catalogues: Mapping[str, Catalogue]) -> Joint:
        """Find the space that these catalogues, by modality, have in common; their samples need not be pairs."""
        alignments = align({modality: catalogue.sample for modality, catalogue in catalogues.items()})
        aligned = [alignments[modality].apply(catalogue.sample) for modality, catalogue in catalogues.items()]
        return cls(alignments, Catalogue.of(np.concatenate(aligned)))

    def apply(self, vectors: Floats, modalities: Sequence[str]) -> Floats:
        """Map (n, d) unit vectors of these n modalities to (n, d) unit vectors of the joint space."""
        mapped = np.empty_like(vectors)
        of_row = np.asarray(modalities, dtype=np.str_)
        for modality in sorted(set(modalities)):
            rows = np.flatnonzero(of_row == modality)
            mapped[rows] = self.alignments[modality].apply(vectors[rows])
        return mapped


class JointSpace:
    """The joint space of a running service, which is found again once much of the catalogues has changed.

    To find it takes about a second, and one upload changes nothing that could be seen. So what it is depends a little
    on when the process started.
    """

    def __init__(self) -> None:
        self._found_in: dict[str, frozenset[tuple[str, int]]] = {}
        self._joint: Joint | None = None

    def of(self, catalogues: Mapping[str, Catalogue]) -> Joint:
        """The joint space of these catalogues, by modality, or of what they were not long ago."""
        samples = {modality: catalogue.revisions for modality, catalogue in catalogues.items()}
        if self._joint is None or _new_share(samples, self._found_in) > _NEW_SHARE_MAX:
            self._joint, self._found_in = Joint.of(catalogues), samples
        return self._joint


def _new_share(
    now: Mapping[str, frozenset[tuple[str, int]]], before: Mapping[str, frozenset[tuple[str, int]]]
) -> float:
    """Of the modality that changed most; all of it, where nobody knows which assets they are."""
    both = [(revisions, before.get(modality, frozenset())) for modality, revisions in now.items()]
    return max(1 - len(revisions & known) / max(len(revisions), len(known), 1) for revisions, known in both)


def _whitener(centred: Floats) -> Floats:
    """W, (d, d), of (m, d) vectors less their mean; the identity where they are all the same."""
    d = centred.shape[1]
    covariance = (centred.T @ centred / len(centred)).astype(np.float64)
    variance = covariance.trace() / d
    if variance < TIE**2:
        return np.eye(d, dtype=np.float32)
    shrunk = covariance / variance + _SHRINKAGE * np.eye(d)
    inverse: Floats = dtrtri(cholesky(shrunk / (1 + _SHRINKAGE)))[0].astype(np.float32)
    return inverse


def _among_kin(seen: Floats, directions: Floats) -> Floats:
    """See `Catalogue`: the directions, (n, d), of (n, d) assets drawn towards those of (m, d) that are their kin."""
    cosines = seen @ directions.T
    cosines[cosines > COPY] = 0
    deviations = np.sqrt(np.einsum("nm,nm->n", cosines, cosines) / len(directions))[:, None]
    weights = np.maximum(cosines - _KIN * deviations, 0)
    totals = weights.sum(axis=1, keepdims=True) + _FEW * deviations
    return at_unit_length(seen + _PULL * (weights @ directions) / np.where(totals > 0, totals, 1))


def _dimensions(directions: Floats, otherwise: float = 1 / TIE) -> float:
    """One over the mean squared cosine of two different of (m, d) directions; what has none does not count."""
    directions = directions[directions.any(axis=1)].astype(np.float64)
    m, d = directions.shape
    if m < 2:
        return otherwise
    products = directions @ directions.T if m < d else directions.T @ directions
    own = np.einsum("nd,nd->n", directions, directions)
    return float(1 / max(((products**2).sum() - (own**2).sum()) / (m * (m - 1)), TIE))


def _from_neighbours(seen: Floats) -> Floats:
    """The directions, (m, d), in which each of (m, d) assets lies from the mean of its nearest; copies have none."""
    k = min(_NEIGHBOURS, len(seen) - 1)
    cosines = seen @ seen.T
    np.fill_diagonal(cosines, -np.inf)
    nearest = np.argpartition(cosines, -k, axis=1)[:, -k:]
    return at_unit_length(seen - seen[nearest].mean(axis=1))
