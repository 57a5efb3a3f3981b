"""How good the constants of the calibrated cut are, over several data sets: `zccr_stream.grouping.Limits`.

    python -m experiments.constants DIR [DIR ...] [--encoder NAME] [--draws N] [--seed N]

Simulated users of one modality, in six groups: `common` have 1 to 10 classes of 5 to 30 assets each, `small` of 1 to
3, `many` have 20 classes, `skewed` have 3, 8 or 20 classes whose sizes fall by Zipf's law, as far as there are classes
of such sizes, and 5 to 15 outliers: assets of other classes, each an area of its own. `sparse` are as `small`, with 5
outliers. `uneven` have 10 to 30 assets of one class and a few others: outliers, or 2 to 5 of one to three classes.
Areas are compared with the classes by the adjusted Rand index (ARI). The constants were chosen on users like those of
`--seed 0`. `ZCCR_AREA_CUT` is not heeded.

The first table has production's areas beside what a Ward distance chosen by the labels of these very users gives: the
best for each group, and `one for all` that must serve all groups. Distances are between vectors as they are or as
seen from the catalogue's mean, the same for all sizes or growing with them (`experiments/fixed.py`). The second changes
one constant at a time: ARI minus that best one of each group, mean and worst of the data sets, and minus the one for
all, mean of all groups and data sets. The third leaves every data set out once: which of these constants are best on
all others, and what they give on it.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError
from pydantic_settings import SettingsError
from rich.console import Console
from rich.progress import Progress

from experiments import datasets, grid
from experiments.datasets import DataError, Items
from experiments.fixed import DISTANCES, Wide, groupings
from experiments.simulation import Rules, group_numbers, uploaded
from experiments.tables import markdown
from zccr_stream.assemble import warn_of_unknown_settings
from zccr_stream.encoders import MINI
from zccr_stream.events import MODALITIES
from zccr_stream.grouping import Limits
from zccr_stream.interests import AreaRule, Profile, find_areas
from zccr_stream.measures import Classes, adjusted_rand
from zccr_stream.settings import Settings, explain

GROUPS = ("common", "small", "many", "skewed", "sparse", "uneven")
EVEN = {
    "common": (grid.CLASSES, grid.ASSETS, 0),
    "small": (grid.CLASSES, (1, 2, 3), 0),
    "many": ((20,), (3, 5, 10), 0),
    "sparse": (grid.CLASSES, (1, 2, 3), 5),
}
"""Classes, assets of each, and outliers."""
SKEWED = ((3, 8, 20), (5, 10, 15))
"""Classes, and outliers."""
SKEWED_EACH = 8  # assets a class on average
UNEVEN = (
    *(([10, 3], 0), ([20, 5], 0), ([20, 3, 3], 0), ([20, 2, 2, 2], 3), ([10], 4), ([20], 2), ([20], 5), ([30], 5)),
    *(([10], 1), ([20], 1)),
)
"""Assets of each class, and outliers."""

STEPS = {
    "rise": (0.0, 1.6, 1.9),
    "nearest": (0.0, 0.5, 0.7),
    "doubt_max": (0.0, 2.5, 3.5),
    "sure": (10.5, 14.0, math.inf),
    "even": (1.0, 2.0, 4.0),
    "unlike": (-math.inf, 0.0, 0.05, 0.15),
    "alike": (0.0, 0.2, 0.4),
    "clear": (0.0, 0.3, 0.7, math.inf),
    "apart": (0.25, 0.35, math.inf),
    "loose": (-math.inf, 0.7, 1.3),
    "broad": (0.3, 0.5, math.inf),
    "strangers": (1.0, 3.0, math.inf),
}

Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Drawn:
    """One user's assets of one modality, the true groups of these, (n,), and the ARI of each fixed distance, (f,)."""

    group: str
    profile: Profile
    true: Classes
    fixed: Wide


def draws(codes: Classes, number: int, seed: int) -> Iterator[tuple[str, Classes, Classes]]:
    """`number` users of each kind that can be drawn: their group, their rows of the items, and the true groups."""
    counts = np.bincount(codes)
    kinds = [
        (group, [m] * c, outliers)
        for group, (classes, assets, outliers) in EVEN.items()
        for c in classes
        for m in assets
        if c * m + outliers > 1 and np.count_nonzero(counts >= m) >= c and (not outliers or c < len(counts))
    ]
    kinds += [("skewed", _falling(c), outliers) for c in SKEWED[0] if c < len(counts) for outliers in SKEWED[1]]
    kinds += [("uneven", sizes, outliers) for sizes, outliers in UNEVEN if len(sizes) + bool(outliers) <= len(counts)]
    for kind, (group, sizes, outliers) in enumerate(kinds):
        for one in range(number):
            random = np.random.default_rng([seed, kind, one])
            yield group, *_mixed(codes, _able(counts, sizes, random), sizes, outliers, random)


def _falling(classes: int) -> list[int]:
    shares = 1 / np.arange(1, classes + 1)
    sizes: list[int] = np.maximum(1, np.round(shares / shares.sum() * classes * SKEWED_EACH)).astype(int).tolist()
    return sizes


def _able(counts: Classes, sizes: Sequence[int], random: np.random.Generator) -> list[int]:
    """Different classes that have so many items each, largest first; the largest left where none has."""
    left = counts.copy()
    chosen = []
    for size in sizes:
        able = np.flatnonzero(left >= min(size, left.max()))
        chosen.append(int(random.choice(able)))
        left[chosen[-1]] = 0
    return chosen


def _mixed(
    codes: Classes, classes: Sequence[int], sizes: Sequence[int], outliers: int, random: np.random.Generator
) -> tuple[Classes, Classes]:
    """Rows of so many items of these classes and of one item each of some others, and the groups they are."""
    parts = [
        random.permutation(np.flatnonzero(codes == code))[:size] for code, size in zip(classes, sizes, strict=True)
    ]
    strangers = random.permutation(np.flatnonzero(~np.isin(codes, classes)))
    _, first = np.unique(codes[strangers], return_index=True)
    parts += [strangers[[place]] for place in random.permutation(first)[:outliers].tolist()]
    rows, groups = np.concatenate(parts), np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    order = random.permutation(len(rows))
    return rows[order], groups[order]


def profiles(items: Items, codes: Classes, rule: AreaRule, number: int, seed: int) -> Iterator[Drawn]:
    """Every user's profile of each modality, and what fixed distances make of it."""
    for group, rows, true in draws(codes, number, seed):
        for modality in MODALITIES:
            profile = uploaded(rows, modality, items.vectors(modality))
            found = groupings(profile, rule.catalogues[modality], DISTANCES)
            yield Drawn(group, profile, true, np.array([adjusted_rand(groups, true) for groups in found]))


def aris(drawn: Sequence[Drawn], rule: AreaRule) -> dict[str, float]:
    """The mean ARI of a rule's areas by group of users."""
    found = [adjusted_rand(group_numbers(find_areas(one.profile, rule), len(one.true)), one.true) for one in drawn]
    return {
        group: float(np.mean([ari for ari, one in zip(found, drawn, strict=True) if one.group == group]))
        for group in dict.fromkeys(one.group for one in drawn)
    }


def variants() -> dict[str, Limits]:
    """Production's constants, and those with one of them changed."""
    known = Limits()
    changed = {
        f"{name} {value:g}": replace(known, **{name: value}) for name, values in STEPS.items() for value in values
    }
    return {"production": known, **changed}


def measure(folders: Mapping[str, Items], number: int, seed: int) -> Report:
    """By data set: ARI by group of the best fixed distances and of each variant.

    Raises:
        DataError: a data set without labels, too small for a catalogue, or of which no user can be drawn.
    """
    report: Report = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(folders) * len(variants()))
        for name, items in folders.items():
            progress.update(task, description=name)
            try:
                labelled, codes = grid.labelled(items)
            except DataError as error:
                raise DataError(f"{name}: {error}") from error
            rule = Rules.of(Settings(area_cut=None), items.by_modality()).areas
            if not rule.catalogues:
                raise DataError(f"{name} has {len(items)} pairs; expected 100, below which no cut is calibrated")
            drawn = list(profiles(labelled, codes, rule, number, seed))
            if not drawn:
                raise DataError(f"{name} has one class of items; expected at least 2 items of a label, or 2 labels")
            fixed = {
                group: np.mean([one.fixed for one in drawn if one.group == group], axis=0)
                for group in dict.fromkeys(one.group for one in drawn)
            }
            best = int(np.argmax(np.mean(list(fixed.values()), axis=0)))
            report[name] = {
                "fixed": {group: float(of_group.max()) for group, of_group in fixed.items()},
                "one for all": {group: float(of_group[best]) for group, of_group in fixed.items()},
            }
            for variant, limits in variants().items():
                report[name][variant] = aris(drawn, replace(rule, limits=limits))
                progress.advance(task)
    return report


def tables(report: Report, number: int, seed: int) -> str:
    """The report as Markdown."""
    known = asdict(Limits())
    head = f"{number} users a kind and modality, seed {seed}; constants " + ", ".join(
        f"{name} {known[name]:g}" for name in known
    )
    first = markdown(
        ["data", *(f"{group}: production (best fixed)" for group in GROUPS), "all: production (one for all)"],
        [
            [name, *(_beside(of_data, group) for group in GROUPS), _over_groups(of_data)]
            for name, of_data in report.items()
        ],
    )
    second = markdown(
        ["constants", *(f"{group}: mean / worst" for group in GROUPS), "one for all"],
        [[variant, *_differences(report, variant)] for variant in variants()],
    )
    if len(report) < 2:
        return f"{head}\n\n{first}\n\n{second}"
    third = markdown(
        ["left out", "best on the others", "ARI there", "production", "one for all"],
        [[name, *_left_out(report, name)] for name in report],
    )
    return f"{head}\n\n{first}\n\n{second}\n\n{third}"


def _beside(of_data: Mapping[str, Mapping[str, float]], group: str) -> str:
    if group not in of_data["fixed"]:
        return ""
    return f"{of_data['production'][group]:.3f} ({of_data['fixed'][group]:.3f})"


def _over_groups(of_data: Mapping[str, Mapping[str, float]]) -> str:
    """Groups count alike."""
    known, fixed = (np.mean(list(of_data[way].values())) for way in ("production", "one for all"))
    return f"{known:.3f} ({fixed:.3f})"


def _differences(report: Report, variant: str) -> list[str]:
    cells = []
    for group in GROUPS:
        above = [of[variant][group] - of["fixed"][group] for of in report.values() if group in of["fixed"]]
        cells.append(f"{np.mean(above):+.3f} / {min(above):+.3f}" if above else "")
    return [*cells, f"{_above_one_for_all(report, variant):+.3f}"]


def _left_out(report: Report, name: str) -> list[str]:
    others = {other: of_other for other, of_other in report.items() if other != name}
    best = max(variants(), key=lambda variant: _above_one_for_all(others, variant))
    return [best, *(f"{np.mean(list(report[name][way].values())):.3f}" for way in (best, "production", "one for all"))]


def _above_one_for_all(report: Report, variant: str) -> float:
    """The mean over all groups and data sets."""
    return float(
        np.mean([of[variant][group] - of["one for all"][group] for of in report.values() for group in of["fixed"]])
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.constants",
        description=__doc__,
        epilog=datasets.LAYOUTS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help="labelled data, see below")
    parser.add_argument("--encoder", default=MINI, metavar="NAME", help="encodes pictures; by default %(default)s")
    parser.add_argument(
        "--draws", type=grid.at_least(1), default=5, metavar="N", help="users a kind; by default %(default)s"
    )
    parser.add_argument(
        "--seed", type=grid.at_least(0), default=0, metavar="N", help="of the draws; by default %(default)s"
    )
    options = parser.parse_args(arguments)
    warn_of_unknown_settings()
    cache = datasets.cache_folder()
    try:
        loaded = {str(folder): datasets.load(folder, options.encoder, "auto", cache) for folder in options.folders}
        report = measure(loaded, options.draws, options.seed)
    except DataError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    except (ValidationError, SettingsError) as error:
        parser.exit(2, f"{parser.prog}: wrong settings: {explain(error)}\n")
    except MemoryError as error:
        parser.exit(2, f"{parser.prog}: there is no memory for so many draws ({str(error) or 'out of memory'})\n")
    sys.stdout.write(tables(report, options.draws, options.seed) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
