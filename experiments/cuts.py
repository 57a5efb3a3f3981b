"""Where to cut Ward's tree: rules against each other on the same users.

    python -m experiments cuts --data DIR [--encoder NAME] [--json FILE]

The users, the true areas and the feed are those of `areas`; users of one to three assets a class come on top, as most
real profiles are small. Of every rule are reported the adjusted Rand index (ARI), the feed's recall minus that of the
true areas of the same users, and how many areas it finds more than there are. The rules are
  calibrated    production's: by what each modality's assets look like, and by how surely a profile's own are kin;
                areas as close as one are joined, assets settle, and outliers part or are put out (below 100 pairs no
                catalogue is known, and it is `uncalibrated`)
  uncalibrated  production's where it knows too few assets: 1.1 (m / 2) ^ .2 for m assets
  fixed         the Ward distance of a grid that has the best ARI on these very users, chosen by labels that nobody has
                in production: between vectors as they are or as seen from the catalogue's mean, the same for all sizes
                or growing with them (`experiments/fixed.py`)
  best for all  the same, one distance for both kinds of users
  true number   production's tree cut into as many areas as there are; then assets settle
  best cut      of all cuts of production's tree the one with the best ARI, by the labels: no rule for the cut has a
                better ARI before assets settle; another cut may have a better feed
  closest       every asset in the class whose other assets' mean is closest to it: what is lost even so, labels know
                and vectors do not show
  scaled        1.5 times the distance of random pairs
  silhouette    the number of areas with the best mean silhouette, one area below .1
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import pdist, squareform
from sklearn.metrics import silhouette_samples

from experiments import by_labels, grid
from experiments.datasets import DataError, Items
from experiments.fixed import DISTANCES, Distance, groupings
from experiments.outcome import Outcome
from experiments.simulation import Rules, User, draw, simulate, uploaded
from experiments.tables import markdown
from zccr_stream import measures
from zccr_stream.catalogue import Catalogue
from zccr_stream.events import MODALITIES
from zccr_stream.grouping import CUT, Limits
from zccr_stream.interests import Area, AreaRule, Profile, areas_of, find_areas
from zccr_stream.measures import Classes, half_width
from zccr_stream.settings import Settings

DRAWS = 10
SMALL = (1, 2, 3)
RECALL = "recall@20"
SPLIT = Limits(doubt_max=1e9, sure=math.inf, clear=math.inf, loose=-math.inf, broad=math.inf, strangers=math.inf)
"""Splits all assets but what is closer than any limit, as far as `areas_max` lets it."""
SMALLEST = 1e-9
"""The distance that does so where no catalogue is known."""

Users = list[User]
Vectors = npt.NDArray[np.float32]
Report = dict[str, Any]


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the grid's size."""
    grid.add_options(command, DRAWS)
    grid.add_outliers(command)


def measure(items: Items, options: argparse.Namespace) -> Outcome:
    """Compare the rules on every cell of the grid that can be drawn, and on small profiles.

    Raises:
        DataError: no labels, too few items of each label for any cell, or users of one asset alone.
    """
    labelled, codes = grid.labelled(items)
    rules = Rules.of(Settings(area_cut=None), items.by_modality())
    parts: dict[str, Users] = {}
    for part, assets in (("common", options.assets), ("small", SMALL)):
        cells, _ = grid.cells(options.classes, assets, np.bincount(codes))
        users = [
            draw(codes, c, m, np.random.default_rng([grid.SEED, c, m, number]), options.outliers)
            for c, m in cells
            for number in range(options.draws)
        ]
        parts[part] = [user for user in users if len(user.own) > 1]
        if not parts[part]:
            raise DataError(f"{part} users have one asset each, nothing to cut: ask for more by --classes and --assets")
    aris = {part: _fixed_aris(labelled, users, rules.areas) for part, users in parts.items()}
    both = DISTANCES[int(np.argmax(sum(aris.values())))]
    report: Report = {}
    for part, users in parts.items():
        own = DISTANCES[int(np.argmax(aris[part]))]
        for name, values in _measured(labelled, users, rules, {"fixed": own, "best for all": both}).items():
            report.setdefault(name, {})[part] = values
        report["fixed"][part]["cut"], report["best for all"][part]["cut"] = str(own), str(both)
    head = f"{items.space}: {len(labelled):,} labelled pairs; {options.draws} users a cell, both directions"
    return Outcome(report, f"{head}\n\n{_table(report)}")


def _fixed_aris(items: Items, users: Users, rule: AreaRule) -> npt.NDArray[np.float64]:
    """(f,) mean ARI of each fixed distance."""
    aris = np.zeros(len(DISTANCES))
    for user in users:
        true = user.groups()
        for modality in MODALITIES:
            profile = uploaded(user.own, modality, items.vectors(modality))
            found = groupings(profile, rule.catalogues.get(modality), DISTANCES)
            aris += [measures.adjusted_rand(groups, true) for groups in found]
    return aris / (len(MODALITIES) * len(users))


def _measured(items: Items, users: Users, rules: Rules, fixed: Mapping[str, Distance]) -> dict[str, Report]:
    """By rule, means over all users: every cell has as many."""
    spreads = {modality: _spread(items.vectors(modality)) for modality in MODALITIES}

    def ways(profile: Profile, true: Classes, rule: AreaRule) -> dict[str, list[Area]]:
        modality = profile.modalities[0]
        tree = linkage(profile.vectors, "ward")
        split = replace(rule, limits=SPLIT) if modality in rule.catalogues else replace(rule, cut=SMALLEST)
        groups = dict(zip(fixed, groupings(profile, rule.catalogues.get(modality), list(fixed.values())), strict=True))
        groups["scaled"] = fcluster(tree, 1.5 * spreads[modality], "distance")
        groups["silhouette"] = _silhouette(tree, profile.vectors)
        compared = _compared(profile.vectors, rule.catalogues.get(modality))
        groups["best cut"] = by_labels.best_cut(compared, rule.variance, true)
        groups["closest"] = by_labels.closest_class(compared, true)
        return {
            "true areas": areas_of(profile, true, rule),
            "calibrated": find_areas(profile, rule),
            "uncalibrated": find_areas(profile, replace(rule, cut=CUT)),
            "true number": find_areas(profile, replace(split, areas_max=len(np.unique(true)))),
            **{name: areas_of(profile, of_rule.astype(np.intp), rule) for name, of_rule in groups.items()},
        }

    values: dict[str, list[tuple[float, float, float]]] = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for user in progress.track(users, description="cutting"):
            by_rule = simulate(items, user, rules, ways)
            true = by_rule["true areas"]
            for name, of_rule in by_rule.items():
                outcome = (of_rule["ari"], of_rule[RECALL] - true[RECALL], of_rule["areas"] - true["areas"])
                values.setdefault(name, []).append(outcome)
    return {
        name: {
            **dict(zip(("ari", "above_true", "areas_more"), np.mean(of_rule, axis=0).tolist(), strict=True)),
            **({"half_width": half_width([above for _, above, _ in of_rule])} if len(of_rule) > 1 else {}),
        }
        for name, of_rule in values.items()
    }


def _compared(vectors: Vectors, catalogue: Catalogue | None) -> Vectors:
    """(n, d) where production compares assets."""
    return vectors if catalogue is None else catalogue.among_kin(catalogue.seen(vectors))


def _silhouette(tree: npt.NDArray[np.float64], vectors: Vectors) -> Classes:
    """(n,) labels of the best of up to 30 areas."""
    distances = squareform(pdist(vectors))
    best, labels = 0.1, np.zeros(len(vectors), np.intp)
    for areas in range(2, min(len(vectors), 31)):
        candidate = fcluster(tree, areas, "maxclust").astype(np.intp)
        if 1 < candidate.max() < len(vectors):
            score = float(silhouette_samples(distances, candidate, metric="precomputed").mean())
            if score > best:
                best, labels = score, candidate
    return labels


def _spread(vectors: Vectors) -> float:
    """Root mean square distance of random pairs, of vectors of unit length."""
    mean = vectors.mean(axis=0, dtype=np.float64)
    return float(np.sqrt(max(2 - 2 * mean @ mean, 0)))


def _table(report: Mapping[str, Report]) -> str:
    heads = [f"{part}{name}" for part in ("", "small: ") for name in ("ARI", "above true areas", "areas more")]
    return markdown(
        ["rule", *heads], [[name, *_cells(parts["common"]), *_cells(parts["small"])] for name, parts in report.items()]
    )


def _cells(values: Report) -> Sequence[str]:
    ari = f"{values['ari']:.3f}" + (f" (at {values['cut']})" if "cut" in values else "")
    width = f" ± {values['half_width']:.3f}" if "half_width" in values else ""
    return [ari, f"{values['above_true']:+.3f}{width}", f"{values['areas_more']:+.1f}"]
