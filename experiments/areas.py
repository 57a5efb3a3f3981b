"""How well a user's areas of interest are found, and what that is worth in the feed (paper, section 4.3).

    python -m experiments areas --data DIR [--encoder NAME] [--json FILE] [--figures DIR]

A simulated user uploaded m assets of each of c classes, drawn from the labels, all of one modality: once pictures, to
be recommended captions, and once captions, to be recommended pictures. The pairs they were drawn from are theirs alone;
of the rest up to 1,000 belong to others. Four ways to areas go over the same users, seeds and feeds by production's
code and its settings, with all items for the catalogue; scores are cosines, whatever `ZCCR_SCORES`
(`ZCCR_AREA_CUT=1.3 python -m experiments areas …` measures an absolute cut instead):
  rule   the areas that production finds (its default cut is calibrated; below 100 pairs no catalogue is known, and it
         is the one that is not)
  true   the classes themselves
  one    one area a user
  each   one area an asset
As in the paper, of every class one asset is wanted and the others of the class are left out of what is searched. Then
  feed recall   is the share of those in the first 20 places of the one feed: what a user sees, whatever the areas;
  paper recall  is the share in the union of all seeds' top 10: more seeds are more places, so finer always gains;
  ARI           is the adjusted Rand index of the areas and the classes.
Precision, nDCG and coverage count with the others of the classes put back, all of them wanted: the share of the feed's
places that are of the user's classes, the same with the first places worth more, and the share of the classes that
show up. `near-duplicates` are items within a cosine of .9 of one further up (production passes over .97), `diversity`
is the mean of 1 - cosine over all pairs of items shown. Each area's list is as long as the longest feed, so that few
areas can fill it. A cell of the grid has `draws` users, the same in every run; both directions of one user count as one
draw in the confidence intervals. `above true areas` is the mean difference of the same users' feed recall, whose
interval is narrower than those of the two means.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress

from experiments import grid, plots
from experiments.datasets import Items
from experiments.outcome import Outcome
from experiments.plots import Line, Points, small_multiples
from experiments.simulation import LENGTHS, WAYS, Rules, Values, draw, simulate
from experiments.tables import markdown, share
from zccr_stream import assemble
from zccr_stream.events import MODALITIES
from zccr_stream.measures import half_width
from zccr_stream.settings import Settings

DRAWS = 30
LENGTH = 20  # of one modality; production's feed of 50 holds 25 of each

NAMES = dict(zip(WAYS, ("default cut", "true areas", "one area a user", "one area an asset"), strict=True))
COLOURS = dict(zip(WAYS, (plots.VERMILION, plots.GREY, plots.BLUE, plots.GREEN), strict=True))
MEANS = ("feed_recall", "paper_recall", "ari", "areas")
"""What the JSON file reports of each way, over all cells and of each cell."""
ABOVE_TRUE = "feed_recall_above_true"
IN_FEED = ("recall", "precision", "ndcg", "coverage", "near_duplicates", "diversity")

Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Cell:
    """What a cell's users gave by one way: each measure of every draw."""

    classes: int
    assets: int
    draws: Mapping[str, Sequence[float]]

    @property
    def means(self) -> Values:
        """Over the draws."""
        return {name: float(np.mean(values)) for name, values in self.draws.items()}

    @property
    def half_widths(self) -> Values:
        """Half of the means' 95 % confidence intervals."""
        return {name: half_width(values) for name, values in self.draws.items()}

    def report(self) -> Report:
        """What the JSON file holds of it."""
        return {
            "classes": self.classes,
            "assets_per_class": self.assets,
            **{name: mean for name, mean in self.means.items() if name in MEANS},
            "half_widths": _finite(self.half_widths),
        }


def add_options(command: argparse.ArgumentParser) -> None:
    """Add the grid's size."""
    grid.add_options(command, DRAWS)
    grid.add_outliers(command)


def measure(items: Items, options: argparse.Namespace) -> Outcome:
    """Measure all four ways on every cell of the grid that can be drawn.

    Raises:
        DataError: no labels, or too few items of each label for any cell.
    """
    labelled, codes = grid.labelled(items)
    drawable, left_out = grid.cells(options.classes, options.assets, np.bincount(codes))
    settings = Settings()
    rules = Rules.of(settings, items.by_modality())
    cells: dict[str, list[Cell]] = {way: [] for way in WAYS}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        simulating = progress.add_task("simulating users", total=len(drawable) * options.draws)
        for c, m in drawable:
            values: dict[str, list[Values]] = {way: [] for way in WAYS}
            for number in range(options.draws):
                user = draw(codes, c, m, np.random.default_rng([grid.SEED, c, m, number]), options.outliers)
                for way, measured in _with_feed_recall(simulate(labelled, user, rules)).items():
                    values[way].append(measured)
                progress.advance(simulating)
            for way in WAYS:
                draws = {name: [of_user[name] for of_user in values[way]] for name in values[way][0]}
                cells[way].append(Cell(c, m, draws))
    report = {way: _over_cells(cells[way]) for way in WAYS}
    names = NAMES if settings.area_cut is None else NAMES | {"rule": f"cut at {settings.area_cut:g}"}
    head = (
        f"{items.space}: {len(labelled):,} labelled pairs, {codes.max() + 1:,} classes; means of {len(drawable)} cells "
        f"of {options.draws} users in both directions, ± half of the 95 % confidence interval"
    )
    tables = [head, _overall(report, names), _feeds(report, names), _by_cell(report, names)]
    if waiting := assemble.too_few_assets(settings, dict.fromkeys(MODALITIES, len(items))):
        tables.insert(1, waiting)
    if left_out:
        tables.append(grid.too_few(left_out))
    return Outcome(report, "\n\n".join(tables), {"areas": _figure(cells, names)})


def _with_feed_recall(measured: Mapping[str, Values]) -> dict[str, Values]:
    """One user's values by way, with the feed's recall and how far it is above that of the true areas."""
    name = f"recall@{LENGTH}"
    return {
        way: {**values, "feed_recall": values[name], ABOVE_TRUE: values[name] - measured["true"][name]}
        for way, values in measured.items()
    }


def _over_cells(cells: Sequence[Cell]) -> Report:
    """One way's report: means over the cells, which count alike."""
    every = {name: [cell.draws[name] for cell in cells] for name in cells[0].draws}
    means = {name: float(np.mean(values)) for name, values in every.items()}
    return {
        **{name: means[name] for name in (*MEANS, ABOVE_TRUE)},
        "half_widths": _finite({name: half_width(*values) for name, values in every.items()}),
        "feeds": {str(length): {name: means[f"{name}@{length}"] for name in IN_FEED} for length in LENGTHS},
        "cells": [cell.report() for cell in cells],
    }


def _finite(half_widths: Values) -> Values:
    """A single draw has no interval, and JSON has no infinity."""
    return {name: half_widths[name] for name in (*MEANS, ABOVE_TRUE) if math.isfinite(half_widths[name])}


def _overall(report: Mapping[str, Report], names: Mapping[str, str]) -> str:
    heads = ["areas", f"feed recall@{LENGTH}", "above true areas", "paper recall@10", "ARI", "areas found"]
    columns = (MEANS[0], ABOVE_TRUE, *MEANS[1:])
    return markdown(
        heads, [[names[way], *(_with_width(of_way, name) for name in columns)] for way, of_way in report.items()]
    )


def _with_width(report: Report, name: str) -> str:
    values = [report[name], *([report["half_widths"][name]] if name in report["half_widths"] else [])]
    return " ± ".join(f"{value:.1f}" if name == "areas" else share(value) for value in values)


def _feeds(report: Mapping[str, Report], names: Mapping[str, str]) -> str:
    columns = [(name, length) for name in IN_FEED[:4] for length in LENGTHS] + [(name, LENGTH) for name in IN_FEED[4:]]
    return markdown(
        ["areas", *(f"{name.replace('_', '-')}@{length}" for name, length in columns)],
        [
            [names[way], *(of_way["feeds"][str(length)][name] for name, length in columns)]
            for way, of_way in report.items()
        ],
    )


def _figure(cells: Mapping[str, Sequence[Cell]], names: Mapping[str, str]) -> Figure:
    """Each measure of every way, a panel for so many classes."""
    columns = {cell.classes: grid.classes_shown(cell.classes) for cell in cells[WAYS[0]]}
    rows = {"feed_recall": f"feed recall@{LENGTH}", "paper_recall": "paper recall@10", "ari": "ARI"}
    lines = [
        Line(
            names[way],
            COLOURS[way],
            plots.SOLID,
            {
                (row, column): Points(
                    [cell.assets for cell in of_way if cell.classes == c],
                    [cell.means[name] for cell in of_way if cell.classes == c],
                    [cell.half_widths[name] for cell in of_way if cell.classes == c],
                )
                for name, row in rows.items()
                for c, column in columns.items()
            },
        )
        for way, of_way in reversed(list(cells.items()))  # the default is drawn over the others
    ]
    return small_multiples(
        "Areas of interest, and what they are worth",
        list(rows.values()),
        list(columns.values()),
        lines,
        "assets of each class",
        "",
    )


def _by_cell(report: Mapping[str, Report], names: Mapping[str, str]) -> str:
    """A row a cell: the four ways' recall, each as `feed / paper`."""
    rows = []
    for number, cell in enumerate(report["rule"]["cells"]):
        cells = [of_way["cells"][number] for of_way in report.values()]
        recalls = [f"{share(one['feed_recall'], 2)} / {share(one['paper_recall'], 2)}" for one in cells]
        rows.append([f"{cell['classes']} x {cell['assets_per_class']}", *recalls, cell["ari"], f"{cell['areas']:.1f}"])
    ways = [f"{name}, feed / paper" for name in names.values()]
    return markdown(["classes x assets", *ways, f"ARI, {names['rule']}", f"areas, {names['rule']}"], rows)
