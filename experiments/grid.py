"""The grid of simulated users: how many classes they have assets of, and how many of each (paper, Table 2).

Comes in: labelled items and the command line. Go out: the classes by number and the cells that can be drawn of them.
Knows nothing of what is measured in a cell.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence

import numpy as np

from experiments.datasets import DataError, Items
from zccr_stream.measures import Classes

CLASSES = (1, 2, 5, 10)
ASSETS = (5, 10, 20, 30)
SEED = 0
"""User i of a cell is drawn by `default_rng([SEED, classes, assets, i])`: the same in every experiment."""

COUNT_MAX = 10**9  # what is more is a slip of the hand

Cells = list[tuple[int, int]]
"""Classes and assets of each class."""


def add_options(command: argparse.ArgumentParser, draws: int, each: Sequence[int] = ASSETS) -> None:
    """Add the grid's size; by default a cell has `draws` users, with so many assets of `each` class."""
    for name, default, help_ in (
        ("classes", CLASSES, "classes a user has assets of"),
        ("assets", each, "assets of each class"),
    ):
        shown = " ".join(map(str, default))
        command.add_argument(
            f"--{name}", type=at_least(1), nargs="+", default=default, metavar="N", help=f"{help_}; by default {shown}"
        )
    command.add_argument(
        "--draws", type=at_least(1), default=draws, metavar="N", help="users a cell; by default %(default)s"
    )


def add_outliers(command: argparse.ArgumentParser) -> None:
    """Add assets of other classes to every profile."""
    command.add_argument(
        "--outliers",
        type=at_least(0),
        default=0,
        metavar="N",
        help="assets of other classes in every profile, each an area of its own, as far as there are other classes; "
        "by default none",
    )


def at_least(least: int) -> Callable[[str], int]:
    """Make what reads a count from the command line."""

    def read(text: str) -> int:
        digits = text.lstrip("0")[:20] or "0"
        if not text.isdecimal() or not least <= int(digits) <= COUNT_MAX:
            bounds = f"at least {least}, at most {COUNT_MAX:,}"
            raise argparse.ArgumentTypeError(f"{text[:40]!r}; expected a whole number, {bounds}")
        return int(digits)

    return read


def labelled(items: Items) -> tuple[Items, Classes]:
    """The items that have a label, and these as numbers, (n,): of others it is unknown who would want them.

    Raises:
        DataError: there are no labels, or all are the same.
    """
    if items.labels is None:
        raise DataError(
            "these items have no labels, and the true areas of interest are classes of labels: add "
            '"label": KIND to the lines of items.jsonl or captions.jsonl, or put the pictures into folders by kind; '
            "of pictures, --labels classifier finds ImageNet's classes"
        )
    rows = np.array([row for row, label in enumerate(items.labels) if label is not None])
    labels = [label for label in items.labels if label is not None]
    names, codes = np.unique(labels, return_inverse=True)
    if len(names) == 1:
        raise DataError(
            f"all {len(rows):,} labelled items are {labels[0]!r}: add items of other kinds, to tell areas apart by"
        )
    return items.take(rows), codes.astype(np.intp)


def cells(classes: Sequence[int], assets: Sequence[int], counts: Classes) -> tuple[Cells, list[str]]:
    """The cells that can be drawn from classes of so many items, and the names of the others.

    Raises:
        DataError: no cell can be drawn.
    """
    every = [(c, m) for c in dict.fromkeys(classes) for m in dict.fromkeys(assets)]
    drawable = [(c, m) for c, m in every if np.count_nonzero(counts > m) >= c]
    if not drawable:
        raise DataError(
            f"too few items of a label: a user needs at least {min(classes)} classes of more than "
            f"{min(assets)} items, of which one is to be found; the largest of {len(counts)} classes have "
            f"{', '.join(map(str, np.sort(counts)[:-6:-1].tolist()))}. Add items, or ask for less by --classes "
            "and --assets"
        )
    return drawable, [f"{c} x {m}" for c, m in every if (c, m) not in drawable]


def classes_shown(classes: int) -> str:
    """A number of classes in words, as plots' columns are headed."""
    return f"{classes} {'class' if classes == 1 else 'classes'}"


def too_few(left_out: Sequence[str]) -> str:
    """Say which cells were left out."""
    return f"Left out, as too few classes have enough items: {', '.join(left_out)}."
