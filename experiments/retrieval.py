"""Finding a picture by its caption and a caption by its picture (paper, section 4.2, Tables 3 and 4).

    python -m experiments retrieval --data DIR [--encoder NAME] [--json FILE] [--figures DIR]

R@k is the share of queries whose own counterpart is among the k nearest by cosine, exact. Every pair is a query, in
both directions. Ties count against it, also those of other items with the very same caption. Searched is
  unimodal    an index of the wanted modality alone, n items;
  multimodal  one index of both modalities, 2 n items without the query itself, the counterpart still wanted;
  closed      the same with the modality gap closed by production's calibration of scores: from every cosine goes what
              is usual for the query among assets of the hit's modality and for the hit among assets of the query's,
              as samples of both modalities tell by their nearest one; the stream, whose seeds stand for many assets,
              asks the nearest ten (`python -m experiments gap` compares these, and other ways).
The samples are a random half of the pairs, of which it is not used what belongs together; queries and index are the
other half, so that nothing is known of what is tested. `aligned` beside it closes the gap in the vectors alone, so that
one index by cosine can hold both modalities.
Unimodal and multimodal are of all pairs, as in the paper, whose search space is 1,000 items (in the multimodal case 500
of each) and whose values are means of 100 queries. R@k falls as a search space grows, so beside `closed` the table
shows the other two on the same half.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from experiments import plots
from experiments.closing import KS, WAYS, Directions, try_way
from experiments.datasets import DataError, Items
from experiments.outcome import Outcome
from experiments.plots import Line, Points, small_multiples
from experiments.tables import markdown
from zccr_stream.measures import Vectors, counterpart_recall

SEED = 0
COLOURS = (plots.VERMILION, plots.PURPLE, plots.GREEN, plots.GREY, plots.BLUE, plots.BLACK)


def add_options(command: argparse.ArgumentParser) -> None:
    """Add nothing: all pairs are queries."""


def measure(items: Items, options: argparse.Namespace) -> Outcome:
    """Measure the search spaces on all pairs and on the half that closing the gap is tested on.

    Raises:
        DataError: too few pairs to halve.
    """
    n = len(items)
    if n < 2:
        raise DataError(f"too few pairs, {n}; expected at least 2, to estimate on one half")
    order = np.random.default_rng(SEED).permutation(n)
    fit, test = order[: n // 2], order[n // 2 :]
    samples = items.images[fit], items.captions[fit]
    images, captions = items.images[test], items.captions[test]
    plain, aligned, closed = (
        try_way(WAYS[name], samples, images, captions) for name in ("as it is", "aligned", "calibrated")
    )
    report = {
        "unimodal": directions(items.images, items.captions, mixed=False),
        "multimodal": directions(items.images, items.captions, mixed=True),
        "closed": closed.mixed,
    }
    half = {
        "unimodal": plain.unimodal,
        "unimodal, aligned": aligned.unimodal,
        "unimodal, calibrated": closed.unimodal,
        "multimodal": plain.mixed,
        "multimodal, aligned: one index": aligned.mixed,
        "multimodal, gap closed (calibrated)": closed.mixed,
    }
    repeated = sum(count for count in Counter(items.texts).values() if count > 1)
    text = "\n".join(
        [
            f"{items.space}: {n:,} pairs"
            + (f", {repeated:,} of them with a caption that another has too" * (repeated > 0)),
            "",
            _table({"unimodal": report["unimodal"], "multimodal": report["multimodal"]}, n),
            "",
            f"The half that is tested when samples of the other half close the gap ({len(test):,} pairs):",
            "",
            _table(half, len(test)),
        ]
    )
    return Outcome(report, text, {"retrieval": _figure(report, half)})


def directions(images: Vectors, captions: Vectors, mixed: bool) -> Directions:
    """R@k by direction and k; `mixed` searches both modalities at once."""
    shares = {
        name: counterpart_recall(queries, answers, KS, beside=queries if mixed else None)
        for name, queries, answers in (("t2i", captions, images), ("i2t", images, captions))
    }
    return {name: {str(k): share for k, share in by_k.items()} for name, by_k in shares.items()}


def _figure(every: Mapping[str, Directions], half: Mapping[str, Directions]) -> Figure:
    """R@k of all search spaces over k, a row for each direction: of all pairs, and of the half that is tested."""
    rows = {"t2i": "text to image", "i2t": "image to text"}
    columns = {"all pairs": {name: every[name] for name in ("unimodal", "multimodal")}, "the half that is tested": half}
    lines = [
        Line(
            name,
            colour,
            style,
            {
                (row, column): Points(KS, [spaces[name][direction][str(k)] for k in KS], [math.inf] * len(KS))
                for direction, row in rows.items()
                for column, spaces in columns.items()
                if name in spaces
            },
        )
        for name, colour, style in zip(half, COLOURS, (plots.SOLID, plots.DASHED, plots.DASHED) * 2, strict=True)
    ]
    return small_multiples(
        "One search space or two (the paper's Tables 3 and 4)", list(rows.values()), list(columns), lines, "k", "R@k"
    )


def _table(report: Mapping[str, Directions], pairs: int) -> str:
    heads = [f"{name} R@{k}" for name in ("text to image", "image to text") for k in KS]
    rows: list[list[str | float]] = [
        [name, *(spaces[direction][str(k)] for direction in ("t2i", "i2t") for k in KS)]
        for name, spaces in report.items()
    ]
    return markdown([f"search space ({pairs:,} pairs)", *heads], rows)
