"""A profile's vectors -> areas of interest (paper, section 3.2). Pure.

Comes in: one user's assets in one snapshot. Goes out: per modality groups of them, each with a weight, a medoid to
show and a seed to search with (Figure 10). The same assets give the same areas, in whatever order they come. Knows
nothing of indexes and databases.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from zccr_stream.catalogue import Catalogue, Joint
from zccr_stream.events.identifiers import lot
from zccr_stream.grouping import GroupRule, find_groups
from zccr_stream.vectors import TIE, at_unit_length

CONTRAST, CENTROID, MEDOID = SEEDS = ("contrast", "centroid", "medoid")
"""What tells the centroid from the catalogue, or it as it is (eq. 10), or the asset nearest to the others (eq. 9)."""
CONTRAST_MIN = 256
"""Assets known of a catalogue from which on it is seeds' ground: one of fewer leans to the user's own."""

JOINT = "joint"  # in the ids of areas that hold several modalities


Floats = npt.NDArray[np.float32]
Wide = npt.NDArray[np.float64]
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


@dataclass(frozen=True, slots=True, kw_only=True)
class AreaRule(GroupRule):
    """How areas are found: how assets are grouped, and what groups search with.

    `seed` is `contrast`, `centroid` or `medoid`. `catalogues` are by modality. Where there is a `joint` space, areas
    hold all modalities together that it knows.
    """

    seed: str
    catalogues: Mapping[str, Catalogue] = field(default_factory=dict)
    joint: Joint | None = None

    def __post_init__(self) -> None:
        GroupRule.__post_init__(self)  # with slots, super() is of the class before it got them
        if self.seed not in SEEDS:
            raise ValueError(f"seed is {self.seed!r}; expected one of {', '.join(SEEDS)}")

    def ground(self, modality: str) -> Catalogue | None:
        """What seeds of a modality stand in contrast to; None: they are what they are."""
        catalogue = self.catalogues.get(modality)
        return catalogue if self.seed == CONTRAST and catalogue and len(catalogue.sample) >= CONTRAST_MIN else None


@dataclass(frozen=True, slots=True)
class Area:
    """An area of interest.

    `members` are rows of the profile in the order of their asset ids, of these `modalities`. `medoid` is one of them,
    and `modality` its own. `seed` is (d,) of unit length.
    """

    area_id: str
    modality: str
    weight: float
    members: npt.NDArray[np.intp]
    medoid: int
    seed: npt.NDArray[np.float32]
    modalities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Kind:
    """Rows of a profile whose assets may share an area, in the order of their asset ids: a modality's, or all."""

    name: str
    rows: Labels
    vectors: Floats  # (rows, d) of unit length, where they are compared
    catalogue: Catalogue | None


def find_areas(profile: Profile, rule: AreaRule) -> list[Area]:
    """Find a user's areas of interest in every modality, heaviest first; their weights sum to 1.

    Every asset is in exactly one area. Of areas of equal size the one with the newest asset comes first.
    An `area_id` stands for the oldest asset of its area: it stays while the area grows and others change.
    When areas merge the older's stays; when one splits the part with its oldest asset keeps it.

    Raises:
        ValueError: the profile's columns do not fit together, or a vector is not of unit length.
    """
    units = _units(profile)
    areas: list[Area] = []
    for kind in _kinds(profile, units, rule):
        asset_ids = [profile.asset_ids[row] for row in kind.rows.tolist()]
        areas += _areas(profile, units, kind, find_groups(kind.vectors, asset_ids, rule, kind.catalogue), rule)
    return _heaviest_first(profile, areas)


def areas_of(profile: Profile, groups: Labels, rule: AreaRule) -> list[Area]:
    """The areas that a profile has when its groups, (n,), are given: in each modality one a group, as `find_areas`.

    What is in a group below 0 is in no area.

    Raises:
        ValueError: as `find_areas`.
    """
    units = _units(profile)
    areas: list[Area] = []
    for kind in _kinds(profile, units, rule):
        areas += _areas(profile, units, kind, groups[kind.rows], rule)
    return _heaviest_first(profile, areas)


def _kinds(profile: Profile, units: Floats, rule: AreaRule) -> Iterator[_Kind]:
    order = np.array(sorted(range(len(profile.asset_ids)), key=profile.asset_ids.__getitem__), dtype=np.intp)
    modalities = sorted(set(profile.modalities))
    if rule.joint is not None and modalities and set(modalities) <= set(rule.joint.alignments):
        mapped = rule.joint.apply(units[order], [profile.modalities[row] for row in order.tolist()])
        yield _Kind(JOINT, order, mapped, rule.joint.catalogue)
        return
    of_row = np.asarray(profile.modalities, dtype=np.str_)[order]
    for modality in modalities:
        rows = order[of_row == modality]
        yield _Kind(modality, rows, units[rows], rule.catalogues.get(modality))


def _areas(profile: Profile, units: Floats, kind: _Kind, labels: Labels, rule: AreaRule) -> list[Area]:
    """An area for each of the labels from 0 on, (n,), of one kind's assets."""
    by_label = np.argsort(labels, kind="stable")
    by_label = by_label[labels[by_label] >= 0]
    if not len(by_label):
        return []
    parts = np.split(by_label, np.flatnonzero(np.diff(labels[by_label])) + 1)
    totals = [kind.vectors[part].sum(axis=0, dtype=np.float64) for part in parts]
    medoids = [
        int(kind.rows[part[_medoid(kind.vectors[part], total)]]) for part, total in zip(parts, totals, strict=True)
    ]
    by_modality = [
        _totals(profile, units, kind.rows[part]) if kind.name == JOINT else {kind.name: total}
        for part, total in zip(parts, totals, strict=True)
    ]
    seeds = units[medoids] if rule.seed == MEDOID else _seeds(by_modality, units[medoids], rule)
    areas = []
    for part, medoid, of_area, seed in zip(parts, medoids, by_modality, seeds, strict=True):
        members = kind.rows[part]
        oldest = members[np.argmin(profile.occurred_at_ns[members])]
        areas.append(
            Area(
                area_id=_area_id(profile.user_id, kind.name, profile.asset_ids[oldest]),
                modality=profile.modalities[medoid],
                weight=len(members) / len(profile.asset_ids),
                members=members,
                medoid=medoid,
                seed=seed,
                modalities=tuple(of_area),
            )
        )
    return areas


def _heaviest_first(profile: Profile, areas: Sequence[Area]) -> list[Area]:
    newest = {area.area_id: int(profile.occurred_at_ns[area.members].max()) for area in areas}
    return sorted(areas, key=lambda area: (-len(area.members), -newest[area.area_id], area.area_id))


def _medoid(vectors: Floats, total: Wide) -> int:
    """The row of the least summed cosine distance (eq. 9) among an area's (n, d) vectors, in O(n d).

    That is the greatest product with their `total`, (d,). Ties go to the first row.
    """
    closeness = vectors @ total.astype(np.float32)
    return int(np.argmax(closeness >= closeness.max() - TIE * len(vectors)))


def _totals(profile: Profile, units: Floats, members: Labels) -> dict[str, Wide]:
    """The sum of the members' vectors by modality."""
    of_row = np.asarray([profile.modalities[row] for row in members.tolist()], dtype=np.str_)
    return {
        modality: units[members[of_row == modality]].sum(axis=0, dtype=np.float64)
        for modality in sorted(set(of_row.tolist()))
    }


def _seeds(totals: Sequence[Mapping[str, Wide]], medoids: Floats, rule: AreaRule) -> Floats:
    """What k areas search with, (k, d): their centroids' directions (eq. 10), in contrast to the catalogue.

    `totals` are an area's vectors' sums by modality. An area of several searches with the sum of theirs, which has a
    side for assets of either. Where vectors cancel out and there is no direction, what there was before stands in, at
    last the medoid, of (k, d).
    """
    sums, first = np.zeros(medoids.shape, np.float64), medoids.astype(np.float64)
    for modality in sorted({modality for of_area in totals for modality in of_area}, reverse=True):
        lines = [line for line, of_area in enumerate(totals) if modality in of_area]
        seeds = at_unit_length(np.stack([totals[line][modality] for line in lines]), medoids[lines])
        ground = rule.ground(modality)
        if ground is not None:
            seeds = at_unit_length(ground.contrasts(seeds.astype(np.float32)).astype(np.float64), seeds)
        sums[lines] += seeds
        first[lines] = seeds
    return at_unit_length(sums, first).astype(np.float32)


def _area_id(user_id: str, modality: str, asset_id: str) -> str:
    # Identifiers hold no control characters, so a line feed keeps them apart.
    return format(lot(f"{user_id}\n{modality}\n{asset_id}"), "016x")


def _units(profile: Profile) -> Floats:
    """(n, d) the profile's vectors at unit length: float16 storage leaves them off by up to 1e-3."""
    n = len(profile.asset_ids)
    shapes = (len(profile.modalities), len(profile.occurred_at_ns), len(profile.vectors))
    if shapes != (n, n, n) or (n and profile.vectors.ndim != 2):
        raise ValueError(
            f"profile of {profile.user_id!r}: {n} asset ids, but {shapes} modalities, times and vectors; "
            "expected one of each per asset"
        )
    lengths = np.sqrt(np.einsum("nd,nd->n", profile.vectors, profile.vectors))
    if not (np.abs(lengths - 1) < 0.1).all():
        raise ValueError(f"a vector of length {lengths[np.argmax(~(np.abs(lengths - 1) < 0.1))]}; expected unit length")
    units: Floats = profile.vectors / lengths[:, None]
    return units
