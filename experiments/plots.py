"""Small multiples in the form of the paper's Figures 14 to 20.

Comes in: lines of means with intervals, by row and column. Goes out: a `Figure` with one legend, in colours that
colour-blind readers tell apart. Knows nothing of what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

VERMILION, BLUE, GREEN, PURPLE = "#D55E00", "#0072B2", "#009E73", "#CC79A7"  # Okabe, Ito 2008
GREY, BLACK = "#7F7F7F", "#000000"
Style = Literal["-", "--"]
SOLID: Style = "-"
DASHED: Style = "--"

_PANEL_INCHES = (2.3, 1.9)
_LEGEND_INCHES = 1.3
_LINE, _RIM = 1.2, 0.7  # points: the last line's width, and how much wider each one below it is


@dataclass(frozen=True, slots=True)
class Points:
    """A line's points in one panel: `means` over `xs`, each ± `half_widths`; infinite ones draw no band."""

    xs: Sequence[float]
    means: Sequence[float]
    half_widths: Sequence[float]


@dataclass(frozen=True, slots=True)
class Line:
    """One system: its points by row and column of the grid, where it has any."""

    name: str
    colour: str
    style: Style
    panels: Mapping[tuple[str, str], Points]


def small_multiples(
    title: str, rows: Sequence[str], columns: Sequence[str], lines: Sequence[Line], x_label: str, y_label: str
) -> Figure:
    """Draw shares from 0 to 1: a panel for every row and column, each line in all panels that it has points in."""
    size = (_PANEL_INCHES[0] * len(columns) + 1, _PANEL_INCHES[1] * len(rows) + _LEGEND_INCHES)
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(rows), len(columns), sharex=True, sharey=True, squeeze=False)
    xs = sorted({x for line in lines for points in line.panels.values() for x in points.xs})
    margin = 0.05 * (xs[-1] - xs[0]) or 1
    panels[0, 0].set(xlim=(xs[0] - margin, xs[-1] + margin), ylim=(-0.03, 1.03), xticks=xs)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            _draw(panels[i, j], [(line, line.panels[row, column]) for line in lines if (row, column) in line.panels])
        panels[i, 0].set_ylabel(row)
    for j, column in enumerate(columns):
        panels[0, j].set_title(column, fontsize="medium")
        panels[-1, j].set_xlabel(x_label)
    handles = [
        Line2D([], [], color=line.colour, linestyle=line.style, label=line.name) for line in lines if line.panels
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(title)
    figure.supylabel(y_label, fontsize="medium")
    return figure


def _draw(panel: Axes, lines: Sequence[tuple[Line, Points]]) -> None:
    panel.set_autoscale_on(False)  # the limits are set, and to find them for every line takes most of the time
    for above, (line, points) in zip(range(len(lines) - 1, -1, -1), lines, strict=True):
        means, widths = np.asarray(points.means), np.asarray(points.half_widths)
        panel.plot(
            points.xs,
            means,
            color=line.colour,
            linestyle=line.style,
            linewidth=_LINE + _RIM * above,  # where lines coincide, each shows below the next
            marker="o",
            markersize=3,
            label=line.name,
        )
        low, high = np.clip(means - widths, 0, 1), np.clip(means + widths, 0, 1)
        panel.fill_between(points.xs, low, high, where=np.isfinite(widths), color=line.colour, alpha=0.12, linewidth=0)
    panel.grid(alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
    if not lines:
        panel.text(0.5, 0.5, "not measured", ha="center", va="center", transform=panel.transAxes, color=GREY)
