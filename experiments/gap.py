"""How far the modality gap can be closed (paper, section 3.1.3).

    python -m experiments gap --data DIR [--encoder NAME] [--json FILE] [--figures DIR]

The paper finds no counterparts once both modalities are searched together, and leaves closing the gap to others. Here
every way is told samples of pictures and of captions and is then tested on other pairs: a random half of the pairs, in
`--halves` draws; R@k of the counterpart with both modalities searched (2 n assets without the query) and with the
wanted one alone, which is the ceiling and shows whether closing hurts. `own` is the share of the query's own modality
in the first ten: 1 is the gap, .5 is parity; far below, recall is bought by hiding what is of one's own modality.
  one index     ways that map vectors, so that one index by cosine holds both modalities;
  merged lists  ways that standardise scores, by which lists of two indexes become one feed;
  paired        ways that must know what belongs together, which a platform does not: for comparison.
All others see pictures of one half of the other half and captions of the rest of it, so that nothing they see belongs
together; a second table has production's two and the paired ones on the whole other half, where samples are larger and
their contents the same. The intervals are over halves of the same pairs, so they are somewhat too narrow.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import Progress

from experiments.closing import KS, WAYS, Found, Way, mean_shares, try_way
from experiments.datasets import DataError, Items
from experiments.grid import at_least
from experiments.outcome import Outcome
from experiments.tables import markdown, share
from zccr_stream.measures import half_width

SEED = 0
HALVES = 5
PAIRS_MAX = 2000
ON_ALL = ("as it is", "centred", "aligned", "calibrated", "Procrustes", "ridge", "CCA")

Report = dict[str, Any]


def add_options(command: argparse.ArgumentParser) -> None:
    """Add how much is drawn."""
    for name, default, help_ in (
        ("halves", HALVES, "random halves that are tested on"),
        ("pairs", PAIRS_MAX, "pairs at most, a random part of more"),
    ):
        command.add_argument(
            f"--{name}", type=at_least(1), default=default, metavar="N", help=f"{help_}; by default %(default)s"
        )


def measure(items: Items, options: argparse.Namespace) -> Outcome:
    """Try all ways on every half.

    Raises:
        DataError: fewer than 8 pairs.
    """
    pairs = min(len(items), options.pairs)
    if pairs < 8:
        raise DataError(f"too few pairs, {pairs}; expected at least 8: two for each sample and four to test on")
    unpaired, all_known = _closing(items, options)
    report: Report = {"unpaired": unpaired, "known": all_known}
    texts = [
        f"{items.space}: {pairs:,} pairs, means of {options.halves} halves ± half of the 95 % confidence interval",
        _table(unpaired),
        "Samples of the same items, and ways that know what belongs together:",
        _table(all_known),
    ]
    return Outcome(report, "\n\n".join(texts), {"gap": _figure(unpaired, all_known)})


def _closing(items: Items, options: argparse.Namespace) -> tuple[Report, Report]:
    """Every way's report, told unpaired samples, and that of some told all of the other half."""
    strict = {name: way for name, way in WAYS.items() if not way.paired}
    found: dict[str, list[Found]] = {name: [] for name in strict}
    known: dict[str, list[Found]] = {name: [] for name in ON_ALL}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        trying = progress.add_task("closing the gap", total=options.halves * (len(found) + len(known)))
        for number in range(options.halves):
            order = np.random.default_rng([SEED, number]).permutation(len(items))[: options.pairs]
            quarter, half = len(order) // 4, len(order) // 2
            test = items.images[order[half:]], items.captions[order[half:]]
            apart = items.images[order[:quarter]], items.captions[order[quarter:half]]
            together = items.images[order[:half]], items.captions[order[:half]]
            for several, samples in ((found, apart), (known, together)):
                for name, halves in several.items():
                    halves.append(try_way(WAYS[name], samples, *test))
                    progress.advance(trying)
    return {name: _report(halves, WAYS[name]) for name, halves in found.items()}, {
        name: _report(halves, WAYS[name]) for name, halves in known.items()
    }


def _report(halves: Sequence[Found], way: Way) -> Report:
    columns = {name: [half.mixed[name]["10"] for half in halves] for name in ("t2i", "i2t")}
    return {
        "kind": "paired" if way.paired else "one index" if way.one_index else "merged lists",
        "mixed": mean_shares([half.mixed for half in halves]),
        "unimodal": mean_shares([half.unimodal for half in halves]),
        "own": {name: float(np.mean([half.own[name] for half in halves])) for name in columns},
        "half_widths": {name: half_width(column) for name, column in columns.items() if len(column) > 1},
    }


def _table(report: Mapping[str, Report]) -> str:
    heads = ["way", "kind"]
    for name in ("text to image", "image to text"):
        heads += [f"{name} R@1 / 5 / 10", "± @10", "own", "unimodal"]
    rows: list[list[str | float]] = []
    for way, of_way in report.items():
        row: list[str | float] = [way, of_way["kind"]]
        for direction in ("t2i", "i2t"):
            row += [
                _shown(of_way["mixed"][direction]),
                of_way["half_widths"].get(direction, "–"),
                of_way["own"][direction],
                _shown(of_way["unimodal"][direction]),
            ]
        rows.append(row)
    return markdown(heads, rows)


def _shown(shares: Mapping[str, float]) -> str:
    return " / ".join(share(shares[str(k)]) for k in KS)


def _figure(unpaired: Mapping[str, Report], known: Mapping[str, Report]) -> Figure:
    """R@10 of every way in both directions, and the unimodal index beside it."""
    paired = {name: of_way for name, of_way in known.items() if of_way["kind"] == "paired"}
    ways = {**unpaired, **paired}
    figure = Figure(figsize=(9, 0.32 * len(ways) + 1.6), layout="constrained")
    colours = {"one index": "tab:blue", "merged lists": "tab:orange", "paired": "tab:gray"}
    for axes, direction, title in zip(
        figure.subplots(1, 2, sharey=True), ("t2i", "i2t"), ("text to image", "image to text"), strict=True
    ):
        for place, of_way in enumerate(ways.values()):
            width = of_way["half_widths"].get(direction)
            axes.barh(place, of_way["mixed"][direction]["10"], xerr=width, color=colours[of_way["kind"]])
        points = [of_way["unimodal"][direction]["10"] for of_way in ways.values()]
        axes.plot(points, range(len(ways)), "k|", markersize=11, label="wanted modality alone")
        axes.set_yticks(range(len(ways)), list(ways))
        axes.set(title=title, xlabel="R@10, both modalities searched", xlim=(0, 1))
    axes.set_ylim(len(ways) - 0.4, -0.6)
    for kind, colour in colours.items():
        axes.barh(0, 0, color=colour, label=kind)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure
