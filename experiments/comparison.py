"""Systems beside each other over the same simulated users: means, paired differences, tables and plots.

Comes in: how one user's values are measured. Goes out: what of it is reported. Knows nothing of what the systems are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress

from experiments import grid
from experiments.plots import Points
from experiments.simulation import User, draw
from experiments.tables import markdown, share
from zccr_stream.events import IMAGE, TEXT
from zccr_stream.measures import Classes, half_width

TASKS = {
    "text to image": (TEXT, IMAGE),
    "text to text": (TEXT, TEXT),
    "image to text": (IMAGE, TEXT),
    "image to image": (IMAGE, IMAGE),
}
"""By name what was uploaded and what is recommended, in the paper's order."""
MEASURES = ("paper_recall", "feed_recall", "ari", "areas")
NEAR = 0.02
SHOWN = dict(zip(MEASURES, ("paper recall@10", "feed recall@20", "ARI", "areas found"), strict=True))

Values = npt.NDArray[np.float64]
Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean, and half of its 95 % confidence interval: infinite from a single draw, both nan from none."""

    mean: float
    half_width: float

    def __str__(self) -> str:
        if not math.isfinite(self.mean):
            return "-"
        width = f" ± {self.half_width:.3f}" if math.isfinite(self.half_width) else ""
        return re.sub(r"\b0\.", ".", f"{self.mean:.3f}{width}")

    def report(self) -> dict[str, float]:
        """What JSON can hold of it."""
        both = {"mean": self.mean, "half_width": self.half_width}
        return {name: value for name, value in both.items() if math.isfinite(value)}


@dataclass(frozen=True, slots=True)
class Expected:
    """What the paper says: `system` is above `other`, or, where `equal`, as good as it."""

    system: str
    other: str
    equal: bool = False


@dataclass(frozen=True, slots=True)
class Comparison:
    """`values` (s, c, u, t, 4) of s systems, c cells, u users a cell, t tasks and the `MEASURES`; nan: not measured.

    A user is one draw: the tasks' mean is taken first.
    """

    systems: Sequence[str]
    cells: grid.Cells
    tasks: Sequence[str]
    values: Values

    def estimate(self, system: str, measure: str, tasks: slice = slice(None), cells: slice = slice(None)) -> Estimate:
        """A system's mean over tasks and cells; the cells count alike."""
        return _over_cells(self._users(system, measure, tasks)[cells])

    def difference(self, system: str, other: str, measure: str, tasks: slice = slice(None)) -> Estimate:
        """How far a system is above another on the users that both were measured on."""
        return _over_cells(self._users(system, measure, tasks) - self._users(other, measure, tasks))

    def _users(self, system: str, measure: str, tasks: slice) -> Values:
        """(c, u) the tasks' means."""
        of_system = self.values[self.systems.index(system), :, :, tasks, MEASURES.index(measure)]
        means: Values = of_system.mean(axis=2)
        return means

    def columns(self) -> dict[int, str]:
        """The plots' columns by number of classes."""
        return {c: grid.classes_shown(c) for c, _ in self.cells}

    def points(self, system: str, task: str) -> dict[int, Points]:
        """By number of classes the paper's recall over the assets of each."""
        one = self._one_task(task)
        found: dict[int, list[tuple[int, Estimate]]] = {}
        for number, (classes, assets) in enumerate(self.cells):
            estimate = self.estimate(system, "paper_recall", one, slice(number, number + 1))
            if math.isfinite(estimate.mean):
                found.setdefault(classes, []).append((assets, estimate))
        return {
            classes: Points([m for m, _ in line], [e.mean for _, e in line], [e.half_width for _, e in line])
            for classes, line in found.items()
        }

    def _one_task(self, task: str) -> slice:
        place = self.tasks.index(task)
        return slice(place, place + 1)

    def report(self) -> dict[str, Report]:
        """By system its means over all, of each task and of each cell."""
        return {
            system: {
                **self._means(system),
                "tasks": {task: self._means(system, tasks=self._one_task(task)) for task in self.tasks},
                "cells": [
                    {"classes": c, "assets_per_class": m, **self._means(system, cells=slice(number, number + 1))}
                    for number, (c, m) in enumerate(self.cells)
                ],
            }
            for system in self.systems
        }

    def _means(self, system: str, tasks: slice = slice(None), cells: slice = slice(None)) -> Report:
        estimates = {measure: self.estimate(system, measure, tasks, cells) for measure in MEASURES}
        known = {measure: estimate for measure, estimate in estimates.items() if math.isfinite(estimate.mean)}
        return {
            **{measure: estimate.mean for measure, estimate in known.items()},
            "half_widths": {
                measure: estimate.half_width
                for measure, estimate in known.items()
                if math.isfinite(estimate.half_width)
            },
        }

    def overall(self) -> str:
        """A row a system: its means."""
        return markdown(
            ["system", *SHOWN.values()],
            [[system, *(str(self.estimate(system, measure)) for measure in MEASURES)] for system in self.systems],
        )

    def by_task(self, systems: Sequence[str]) -> str:
        """A row a system: the paper's recall and the feed's of each task."""
        rows = [
            [system, *(self._both(system, tasks=self._one_task(task)) for task in self.tasks)] for system in systems
        ]
        return markdown(["paper / feed recall", *self.tasks], rows)

    def by_cell(self, systems: Sequence[str]) -> str:
        """A row a cell: the paper's recall and the feed's of each system."""
        rows = [
            [f"{c} x {m}", *(self._both(system, cells=slice(number, number + 1)) for system in systems)]
            for number, (c, m) in enumerate(self.cells)
        ]
        return markdown(["classes x assets, paper / feed recall", *systems], rows)

    def _both(self, system: str, tasks: slice = slice(None), cells: slice = slice(None)) -> str:
        recalls = [self.estimate(system, measure, tasks, cells).mean for measure in ("paper_recall", "feed_recall")]
        return " / ".join(share(recall, 2) for recall in recalls)

    def conclusions(self, expected: Mapping[str, Expected], near: float) -> tuple[str, list[Report]]:
        """What the paper says, the mean differences over the same users, and whether they bear it out.

        Args:
            expected: by the paper's words.
            near: recalls are alike if all of the interval of their difference is nearer to 0.
        """
        rows, reports = [], []
        for words, one in expected.items():
            differences = {measure: self.difference(one.system, one.other, measure) for measure in MEASURES[:3]}
            holds = {name: _holds(differences[name], one.equal, near) for name in MEASURES[:2]}
            rows.append(
                [words, f"{one.system} - {one.other}", *map(str, differences.values()), " / ".join(holds.values())]
            )
            estimates = {measure: estimate.report() for measure, estimate in differences.items()}
            reports.append({"paper": words, "system": one.system, "other": one.other, **estimates, "holds": holds})
        heads = ["the paper", "difference", *list(SHOWN.values())[:3], "holds, paper's recall / feed's"]
        return markdown(heads, rows), reports

    def differences_by_task(self, expected: Mapping[str, Expected]) -> str:
        """A row a conclusion of the paper: the differences in its recall, task by task."""
        rows = [
            [
                words,
                *(
                    str(self.difference(one.system, one.other, "paper_recall", self._one_task(task)))
                    for task in self.tasks
                ),
            ]
            for words, one in expected.items()
        ]
        return markdown(["difference in the paper's recall", *self.tasks], rows)


def compare(
    systems: Sequence[str],
    tasks: Sequence[str],
    cells: grid.Cells,
    draws: int,
    codes: Classes,
    measured: Callable[[User, int], Values],
) -> Comparison:
    """Measure every user of the grid; `measured` gives (s, t, 4) of a user by its number in its cell."""
    values = np.empty((len(systems), len(cells), draws, len(tasks), len(MEASURES)))
    with Progress(console=Console(stderr=True), transient=True) as progress:
        simulating = progress.add_task("simulating users", total=len(cells) * draws)
        for place, (c, m) in enumerate(cells):
            for number in range(draws):
                user = draw(codes, c, m, np.random.default_rng([grid.SEED, c, m, number]))
                values[:, place, number] = measured(user, number)
                progress.advance(simulating)
    return Comparison(systems, cells, tasks, values)


def _over_cells(users: Values) -> Estimate:
    """Of (c, u) values by cell and user, where nan is nobody."""
    columns = [column[~np.isnan(column)] for column in users]
    if not all(map(len, columns)):
        return Estimate(math.nan, math.nan)
    mean = float(np.mean([column.mean() for column in columns]))
    return Estimate(mean, half_width(*columns))


def _holds(difference: Estimate, equal: bool, near: float) -> str:
    low, high = difference.mean - difference.half_width, difference.mean + difference.half_width
    if not math.isfinite(low):
        return "unknown"
    if -near < low and high < near:
        return "yes" if equal else "no, alike"
    if low <= 0 <= high:
        return "not shown"
    if equal:
        return "no"
    return "yes" if low > 0 else "no, the reverse"
