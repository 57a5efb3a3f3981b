"""Made-up profiles and catalogues whose kinds are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from zccr_stream.events import IMAGE
from zccr_stream.grouping import Limits
from zccr_stream.interests import Area, AreaRule, Profile

RULE = AreaRule(variance=0.99, cut=1.1, growth=0.2, areas_max=100, sample_size=1000, seed="centroid")
Floats = npt.NDArray[np.float32]

LIMITS = Limits(  # closer
    rise=1.5, nearest=0.4, doubt_max=3.0, sure=10.5, even=3.0, alike=0.3, clear=0.5, apart=0.3, loose=1.0, broad=np.inf
)
TOGETHER = replace(LIMITS, loose=-np.inf)  # nothing that is left over is parted


def units(vectors: npt.NDArray[np.float64]) -> Floats:
    scaled: Floats = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return scaled


def mixture(labels: Sequence[int], dimension: int, spread: float, seed: int) -> Floats:
    """Unit vectors around one direction per label; `spread` is the length of what is added to it."""
    random = np.random.default_rng(seed)
    centres = units(random.normal(size=(max(labels, default=0) + 1, dimension)))
    noise = random.normal(size=(len(labels), dimension)) / dimension**0.5
    return units(centres[np.asarray(labels, dtype=np.intp)] + spread * noise)


def profile_of(vectors: Floats, modalities: Sequence[str] | None = None, times: Sequence[int] | None = None) -> Profile:
    n = len(vectors)
    return Profile(
        user_id="user",
        profile_version=1,
        asset_ids=[f"asset-{row:06}" for row in range(n)],
        modalities=modalities or [IMAGE] * n,
        occurred_at_ns=np.array(times if times is not None else range(n), dtype=np.int64),
        vectors=vectors,
    )


def rows_of(profile: Profile, rows: npt.NDArray[np.intp]) -> Profile:
    """The profile with only these rows, in this order."""
    return replace(
        profile,
        asset_ids=[profile.asset_ids[row] for row in rows],
        modalities=[profile.modalities[row] for row in rows],
        occurred_at_ns=profile.occurred_at_ns[rows],
        vectors=profile.vectors[rows],
    )


def labels_of(areas: Sequence[Area], n: int) -> npt.NDArray[np.intp]:
    labels = np.full(n, -1)
    for label, area in enumerate(areas):
        labels[area.members] = label
    return labels


def named(profile: Profile, areas: Sequence[Area]) -> list[tuple[object, ...]]:
    """Areas without row numbers."""
    return [
        (
            area.area_id,
            area.modality,
            area.weight,
            [profile.asset_ids[row] for row in area.members],
            profile.asset_ids[area.medoid],
            area.seed.tobytes(),
        )
        for area in areas
    ]


def oldest(profile: Profile, area: Area) -> int:
    rows: list[int] = area.members.tolist()
    return min(rows, key=lambda row: (profile.occurred_at_ns[row], profile.asset_ids[row]))


def worlds(count: int, kinds: int, length: float, spread: float, seed: int) -> tuple[Floats, npt.NDArray[np.intp]]:
    """A catalogue of 25 assets of every kind in 128 dimensions, so many `kinds` in each world, and the assets' kinds.

    The directions that a world's kinds have in common are of this `length`, those of kinds of length 1.
    """
    kind = np.repeat(np.arange(count * kinds), 25)
    of_world = mixture(list(range(count)), 128, 0.0, seed)[kind // kinds]
    noise = np.random.default_rng(seed).normal(size=(len(kind), 128)) / 128**0.5
    return units(
        length * of_world + mixture(list(range(count * kinds)), 128, 0.0, seed + 10)[kind] + spread * noise
    ), kind


def space(kinds: int, dimension: int, spread: float, shared: float, seed: int) -> Floats:
    """A catalogue of 20 assets of every kind; `shared` is the length of the direction that all have in common."""
    vectors = mixture(np.repeat(np.arange(kinds), 20).tolist(), dimension, spread, seed).astype(np.float64)
    vectors[:, 0] += shared
    return units(vectors)
