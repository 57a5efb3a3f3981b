"""A profile's vectors -> areas of interest (paper, section 3.2): PCA, Ward, cut, seed, weight. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


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

    The share of variance that PCA keeps, where the Ward tree is cut, the most areas per modality, the assets above
    which a sample is clustered, and the seed: `centroid` or `medoid`.
    """

    variance: float
    cut: float
    areas_max: int
    sample_size: int
    seed: str


@dataclass(frozen=True, slots=True)
class Area:
    """An area of interest: `members` are rows of the profile, `medoid` is one of them, `seed` is (d,) unit length."""

    area_id: str
    modality: str
    weight: float
    members: npt.NDArray[np.intp]
    medoid: int
    seed: npt.NDArray[np.float32]


def find_areas(profile: Profile, rule: AreaRule) -> list[Area]:
    """Find a user's areas of interest in every modality, heaviest first; their weights sum to 1."""
    return []
