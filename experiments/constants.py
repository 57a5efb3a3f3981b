"""How good the constants of the calibrated cut are, over several data sets: `zccr_stream.interests.Limits`.

    python -m experiments.constants DIR [DIR ...] [--encoder NAME] [--draws N]

Simulated users of one modality, in four groups: `common` have 1 to 10 classes of 5 to 30 assets each, `small` of 1 to
3, `many` have 20 classes, `skewed` have 3, 8 or 20 classes whose sizes fall by Zipf's law and 5 to 15 assets of other
classes, each an area of its own. Areas are compared with the classes by the adjusted Rand index (ARI).

The first table has production's areas beside what a Ward distance chosen by the labels of these very users gives: the
best for each group, of distances that are the same for all sizes and of those that grow with (m / 2) ^ .2; and `one for
all`, the best of these that must serve all four groups. The second changes one constant at a time: ARI minus that best
one of each group, mean and worst of the data sets, and minus the one for all, mean of all groups and data sets.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress
from scipy.cluster.hierarchy import fcluster, linkage, maxdists

from experiments import datasets, grid
from experiments.datasets import DataError, Items
from experiments.simulation import Rules, group_numbers, uploaded
from experiments.tables import markdown
from zccr_stream.encoders import MINI
from zccr_stream.events import MODALITIES
from zccr_stream.interests import AreaRule, Limits, Profile, find_areas
from zccr_stream.measures import Classes, adjusted_rand
from zccr_stream.settings import Settings

GROUPS = ("common", "small", "many", "skewed")
EVEN = {
    "common": (grid.CLASSES, grid.ASSETS),
    "small": (grid.CLASSES, (1, 2, 3)),
    "many": ((20,), (3, 5, 10)),
}
SKEWED = ((3, 8, 20), (5, 10, 15))
"""Classes, and outliers."""
SKEWED_EACH = 8  # assets a class on average

FIXED = [(cut, growth) for growth in (0.0, 0.2) for cut in np.arange(0.6, 3.25, 0.1).round(1).tolist()]
STEPS = {"rise": (1.0, 1.1, 1.3, 1.4), "nearest": (0.0, 0.2, 0.3, 0.5, 0.6), "kin": (0.0, 1.5, 1.8, 2.4, 2.7)}

Wide = npt.NDArray[np.float64]
Report = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Drawn:
    """One user's assets of one modality, the true groups of these, (n,), and the ARI of each fixed distance, (f,)."""

    group: str
    profile: Profile
    true: Classes
    fixed: Wide


def draws(codes: Classes, number: int) -> Iterator[tuple[str, Classes, Classes]]:
    """`number` users of each kind that can be drawn: their group, their rows of the items, and the true groups."""
    counts = np.bincount(codes)
    for group, (classes, assets) in EVEN.items():
        for c in classes:
            for m in assets:
                if c * m < 2 or np.count_nonzero(counts >= m) < c:
                    continue
                for one in range(number):
                    random = np.random.default_rng([grid.SEED, c, m, one])
                    yield (
                        group,
                        *_mixed(codes, random.choice(np.flatnonzero(counts >= m), c, False), [m] * c, 0, random),
                    )
    for c in SKEWED[0]:
        if c >= len(counts):
            continue
        shares = 1 / np.arange(1, c + 1)
        sizes = np.maximum(1, np.round(shares / shares.sum() * c * SKEWED_EACH)).astype(int).tolist()
        for outliers in SKEWED[1]:
            for one in range(number):
                random = np.random.default_rng([grid.SEED, c, outliers, one, 1])
                large = np.argsort(-counts, kind="stable")[: max(c, int(np.count_nonzero(counts >= sizes[0])))]
                yield "skewed", *_mixed(codes, random.choice(large, c, False), sizes, outliers, random)


def _mixed(
    codes: Classes, classes: Classes, sizes: Sequence[int], outliers: int, random: np.random.Generator
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


def profiles(items: Items, codes: Classes, number: int) -> Iterator[Drawn]:
    """Every user's profile of each modality, and what fixed distances make of it."""
    for group, rows, true in draws(codes, number):
        for modality in MODALITIES:
            profile = uploaded(rows, modality, items.vectors(modality))
            tree = linkage(profile.vectors, "ward")
            fixed = [adjusted_rand(_cut(tree, cut * (tree[:, 3] / 2) ** growth), true) for cut, growth in FIXED]
            yield Drawn(group, profile, true, np.array(fixed))


def _cut(tree: Wide, limits: Wide) -> Classes:
    """(n,) labels of a Ward tree, (n - 1, 4), whose merges stay within their limits, (n - 1,)."""
    heights = tree.copy()
    heights[:, 2] /= limits
    labels: Classes = fcluster(tree, 1, "monocrit", monocrit=maxdists(heights)).astype(np.intp)
    return labels


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


def measure(folders: Mapping[str, Items], number: int) -> Report:
    """By data set: ARI by group of the best fixed distances and of each variant.

    Raises:
        DataError: a data set without labels.
    """
    report: Report = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=len(folders) * len(variants()))
        for name, items in folders.items():
            progress.update(task, description=name)
            labelled, codes = grid.labelled(items)
            rule = Rules.of(Settings(), items.by_modality()).areas
            drawn = list(profiles(labelled, codes, number))
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


def tables(report: Report, number: int) -> str:
    """The report as Markdown."""
    known = asdict(Limits())
    head = f"{number} users a kind and modality; constants " + ", ".join(f"{name} {known[name]:g}" for name in known)
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
    return f"{head}\n\n{first}\n\n{second}"


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
    overall = [of[variant][group] - of["one for all"][group] for of in report.values() for group in of["fixed"]]
    return [*cells, f"{np.mean(overall):+.3f}"]


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
        "--draws", type=grid.positive, default=5, metavar="N", help="users a kind; by default %(default)s"
    )
    options = parser.parse_args(arguments)
    cache = datasets.cache_folder()
    try:
        loaded = {str(folder): datasets.load(folder, options.encoder, "auto", cache) for folder in options.folders}
        report = measure(loaded, options.draws)
    except DataError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    sys.stdout.write(tables(report, options.draws) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
