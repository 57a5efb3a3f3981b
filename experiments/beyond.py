"""What could be better than the paper's way from areas to a feed, each against production, over the same users.

    python -m experiments beyond --data DIR [--encoder NAME] [--json FILE] [--figures DIR]

A simulated user owns half pictures and half captions of each class and wants both; of what others own they are to find
one more item of each class as picture and as caption, all others of the class left out (`recall`, in the first 20
places of the feed). `precision`, `nDCG`, `coverage` (of the classes in each modality), `diversity` (mean of 1 - cosine
within a modality) and `near-duplicates` (within a cosine of .9) count with everything of the classes put back.
`above` is the mean difference to production over the same users, ± half of its 95 % confidence interval. Ways:
  seeds         in contrast to the catalogue's mean alone; the centroid as it is, as in the paper; the medoid; three of
                the area's assets in place of one seed
  turns         all areas alike, where production's turns are in proportion to the areas' weights
  diversity     maximal marginal relevance: being unlike what is shown counts against the score
  scores        calibrated, so that they can be compared across modalities; and an area's turn its best hit's of either
  joint areas   images and texts in one area, searched in both indexes; and all in one index of the aligned vectors
`as setting` says what switches it on; `no`: it was measured here and is not in the product. Below 100 pairs no
catalogue is known, and below 256 none that seeds stand in contrast to: ways that need one are production's then, and a
line says so.

Nothing here says when things were uploaded. So a second table has users whose classes came one after the other and who
want the newest half of these alone (`changing`), beside the same users with mixed uploads who want all (`steady`): what
a decay of the areas' weights with time would gain, and cost. `half-life` is in shares of the profile. The ARI is
against the classes over both modalities, which areas a modality cannot reach: compare it among joint areas.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress

from experiments import grid
from experiments.both import LENGTH, MODALITIES, Reader, ToAreas
from experiments.datasets import Items
from experiments.outcome import Outcome
from experiments.simulation import Rules, Values, group_numbers
from experiments.tables import markdown
from zccr_stream import assemble
from zccr_stream.catalogue import Joint
from zccr_stream.interests import CENTROID, JOINT, Area, AreaRule, Profile, areas_of, find_areas
from zccr_stream.measures import Classes, half_width
from zccr_stream.settings import Settings

DRAWS = 10
ASSETS = (4, 10, 20)
SEEDS_EACH = 3
HALF_LIVES = (0.25, 0.5, 1.0)
PRODUCTION = "production"
ONE_INDEX = "joint areas, one index"
VALUES = ("recall", "precision", "ndcg", "coverage", "diversity", "near_duplicates", "pictures", "ari", "areas")

Report = dict[str, Any]


def _found(profile: Profile, _: Classes, rule: AreaRule) -> list[Area]:
    return find_areas(profile, rule)


@dataclass(frozen=True, slots=True)
class Way:
    """A way to a feed: production's with these settings, or with areas made otherwise."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    to_areas: ToAreas = _found

    def shown(self) -> str:
        """As environment variables."""
        if self.to_areas is not _found:
            return "no"
        return " ".join(f"ZCCR_{name.upper()}={value}" for name, value in self.settings.items()) or "the default"


def _true(profile: Profile, classes: Classes, rule: AreaRule) -> list[Area]:
    return areas_of(profile, classes, rule)


def _alike(profile: Profile, _: Classes, rule: AreaRule) -> list[Area]:
    return [replace(area, weight=1.0) for area in find_areas(profile, rule)]


def _from_the_mean(profile: Profile, _: Classes, rule: AreaRule) -> list[Area]:
    """In contrast to the catalogue's mean, in whatever its assets vary."""
    groups = group_numbers(find_areas(profile, rule), len(profile.asset_ids))
    even = {
        modality: replace(catalogue, whitener=np.eye(len(catalogue.mean), dtype=np.float32))
        for modality, catalogue in rule.catalogues.items()
    }
    return areas_of(profile, groups, replace(rule, catalogues=even))


def _several_seeds(profile: Profile, _: Classes, rule: AreaRule) -> list[Area]:
    """Up to `SEEDS_EACH` of each area's assets, drawn, in place of its seed; they share its turns."""
    parts = []
    for area in find_areas(profile, rule):
        random = np.random.default_rng(int(area.area_id, 16) % 2**32)
        members = random.permutation(area.members)[:SEEDS_EACH]
        parts += [
            replace(area, weight=area.weight / len(members), seed=_contrast(profile, int(member), rule))
            for member in members.tolist()
        ]
    return parts


def _contrast(profile: Profile, row: int, rule: AreaRule) -> npt.NDArray[np.float32]:
    (area,) = areas_of(
        replace(
            profile,
            asset_ids=[profile.asset_ids[row]],
            modalities=[profile.modalities[row]],
            occurred_at_ns=profile.occurred_at_ns[[row]],
            vectors=profile.vectors[[row]],
        ),
        np.zeros(1, np.intp),
        rule,
    )
    return area.seed


def _decaying(half_life: float) -> ToAreas:
    """Areas whose weights are sums of what is left of each asset's; production orders them by size alone."""

    def to_areas(profile: Profile, _: Classes, rule: AreaRule) -> list[Area]:
        n = len(profile.asset_ids)
        left = 0.5 ** ((n - 1 - profile.occurred_at_ns) / (half_life * n))
        areas = [replace(area, weight=float(left[area.members].sum())) for area in find_areas(profile, rule)]
        return sorted(areas, key=lambda area: -area.weight)

    return to_areas


TOGETHER = {"area_joint": "true"}
CALIBRATED = {"scores": "calibrated"}
MERGED = {**CALIBRATED, "feed_merged": "true"}

WAYS: Mapping[str, Way] = {
    PRODUCTION: Way(),
    "true areas": Way({}, _true),
    "contrast to the mean alone": Way({}, _from_the_mean),
    "centroids as they are": Way({"area_seed": "centroid"}),
    "medoids": Way({"area_seed": "medoid"}),
    "three assets for seeds": Way({}, _several_seeds),
    "all areas' turns alike": Way({}, _alike),
    "diversity .1": Way({"feed_diversity": 0.1}),
    "diversity .3": Way({"feed_diversity": 0.3}),
    "calibrated scores": Way(CALIBRATED),
    "calibrated, merged": Way(MERGED),
    "joint areas": Way(TOGETHER),
    "joint areas, calibrated": Way({**TOGETHER, **CALIBRATED}),
    "joint areas, calibrated, merged": Way({**TOGETHER, **MERGED}),
    "joint true areas": Way(TOGETHER, _true),
}
"""By name; beside these, `ONE_INDEX`."""


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the grid's size."""
    grid.add_options(command, DRAWS, ASSETS)


def measure(items: Items, options: argparse.Namespace) -> Outcome:
    """Measure every way on the same users.

    Raises:
        DataError: no labels, or too few items of each label for any cell.
    """
    labelled, codes = grid.labelled(items)
    drawable, left_out = grid.cells(options.classes, options.assets, np.bincount(codes))
    vectors = labelled.by_modality()
    rules = {name: Rules.of(Settings(**way.settings), items.by_modality()) for name, way in WAYS.items()}
    catalogues = rules[PRODUCTION].areas.catalogues
    joint = Joint.of(catalogues) if set(catalogues) == set(MODALITIES) else None
    decays = {f"half-life {half_life}": _decaying(half_life) for half_life in HALF_LIVES}
    found: dict[str, list[Values]] = {}
    decayed: dict[str, list[Values]] = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        simulating = progress.add_task("simulating users", total=len(drawable) * options.draws)
        for cell in drawable:
            for number in range(options.draws):
                reader = Reader(vectors, codes, cell, number)
                for name, way in WAYS.items():
                    found.setdefault(name, []).append(reader.values(way.to_areas, rules[name]))
                if joint is not None:
                    found.setdefault(ONE_INDEX, []).append(_in_one_index(reader, rules[PRODUCTION], joint))
                if cell[0] > 1:
                    changing = Reader(vectors, codes, cell, number, by_class=True)
                    for name, to_areas in {PRODUCTION: WAYS[PRODUCTION].to_areas, **decays}.items():
                        decayed.setdefault(name, []).append(_with_time(reader, changing, to_areas, rules[PRODUCTION]))
                progress.advance(simulating)
    report = {"ways": _report(found, VALUES), "time": _report(decayed, ("steady", "changing")) if decayed else {}}
    head = (
        f"{items.space}: {len(labelled):,} labelled pairs, {codes.max() + 1:,} classes; means of {len(drawable)} cells "
        f"of {options.draws} users, ± half of the 95 % confidence interval"
    )
    tables = [head, _ways_table(report["ways"])]
    if report["time"]:
        tables += ["Weights that decay with time:", _time_table(report["time"])]
    asked = Settings(area_joint=True, scores="calibrated")
    if waiting := assemble.too_few_assets(asked, dict.fromkeys(MODALITIES, len(items))):
        tables.insert(1, waiting)
    if left_out:
        tables.append(grid.too_few(left_out))
    return Outcome(report, "\n\n".join(tables), {"beyond": _figure(report["ways"])})


def _in_one_index(reader: Reader, rules: Rules, joint: Joint) -> Values:
    alone = replace(rules.areas, seed=CENTROID, catalogues={JOINT: joint.catalogue}, joint=None)
    return reader.values_in_one_index(WAYS[PRODUCTION].to_areas, replace(rules, areas=alone), joint)


def _with_time(steady: Reader, changing: Reader, to_areas: ToAreas, rules: Rules) -> Values:
    return {
        "steady": steady.values(to_areas, rules)["recall"],
        "changing": changing.values(to_areas, rules)["newest"],
    }


def _report(found: Mapping[str, Sequence[Values]], names: Sequence[str]) -> dict[str, Report]:
    """By way the means, and for the first measures how far they are above production's."""
    report = {}
    for way, users in found.items():
        columns = {name: np.array([values[name] for values in users]) for name in names}
        above = {name: column - [of_one[name] for of_one in found[PRODUCTION]] for name, column in columns.items()}
        both = {name: column[np.isfinite(column)] for name, column in above.items()}
        report[way] = {
            **{name: _mean(column) for name, column in columns.items()},
            "above": {name: _mean(column) for name, column in above.items()},
            "half_widths": {name: half_width(column) for name, column in both.items() if len(column) > 1},
        }
    return report


def _mean(column: npt.NDArray[np.float64]) -> float:
    """Of what could be measured; 0 where nothing could: a feed that shows one item a modality has no diversity."""
    known = column[np.isfinite(column)]
    return float(known.mean()) if len(known) else 0.0


def _ways_table(report: Mapping[str, Report]) -> str:
    heads = ["way", f"recall@{LENGTH}", "above", "precision", "above", "nDCG", "coverage", "diversity"]
    heads += ["near-duplicates", "pictures", "ARI", "areas", "as setting"]
    rows: list[list[str | float]] = []
    for way, of_way in report.items():
        rows.append(
            [
                way,
                of_way["recall"],
                _above(of_way, "recall"),
                of_way["precision"],
                _above(of_way, "precision"),
                *(of_way[name] for name in ("ndcg", "coverage", "diversity", "near_duplicates", "pictures", "ari")),
                f"{of_way['areas']:.1f}",
                "no" if way == ONE_INDEX else WAYS[way].shown(),
            ]
        )
    return markdown(heads, rows)


def _time_table(report: Mapping[str, Report]) -> str:
    rows = [
        [way, *(value for name in ("steady", "changing") for value in (of_way[name], _above(of_way, name)))]
        for way, of_way in report.items()
    ]
    return markdown(["weights", "steady: recall", "above", "changing: recall of the newest half", "above"], rows)


def _above(of_way: Report, name: str) -> str:
    width = of_way["half_widths"].get(name)
    return f"{of_way['above'][name]:+.3f}" + ("" if width is None else f" ± {width:.3f}")


def _figure(report: Mapping[str, Report]) -> Figure:
    """How far every way is above production."""
    ways = [way for way in report if way != PRODUCTION]
    figure = Figure(figsize=(9, 0.3 * len(ways) + 1.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, 3, sharey=True), ("recall", "precision", "coverage"), strict=True):
        for place, way in enumerate(ways):
            axes.errorbar(
                report[way]["above"][name], place, xerr=report[way]["half_widths"].get(name), fmt="o", color="tab:blue"
            )
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set(title=name, xlabel="above production")
        axes.set_yticks(range(len(ways)), ways)
    axes.set_ylim(len(ways) - 0.5, -0.5)
    return figure
