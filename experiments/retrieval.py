"""Finding a picture by its caption and a caption by its picture (paper, section 4.2, Tables 3 and 4).

    python -m experiments retrieval --data DIR [--encoder NAME] [--json FILE]

R@k is the share of queries whose own counterpart is among the k nearest by cosine, exact. Every pair is a query, in
both directions. Ties count against it, also those of other items with the very same caption. Searched is
  unimodal    an index of the wanted modality alone, n items;
  multimodal  one index of both modalities, 2 n items without the query itself, the counterpart still wanted;
  closed      the same with the modality gap closed: of every vector its modality's mean (the two ends of the gap,
              eq. 11) is taken away, and what is left is brought to unit length again. The means come from a random
              half of the pairs; queries and index are the other half, so that nothing is known of what is tested.
Unimodal and multimodal are of all pairs, as in the paper, whose search space is 1,000 items (in the multimodal case 500
of each) and whose values are means of 100 queries. R@k falls as a search space grows, so beside `closed` the table
shows the other two on the same half.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping

import numpy as np

from experiments.datasets import DataError, Items
from experiments.outcome import Outcome
from experiments.tables import markdown
from zccr_stream.measures import Vectors, counterpart_recall

KS = (1, 5, 10)
SEED = 0

Report = dict[str, dict[str, dict[str, float]]]
"""By search space, by direction, by k as text: the shape of the JSON file."""


def add_options(command: argparse.ArgumentParser) -> None:
    """Add nothing: all pairs are queries."""


def measure(items: Items, options: argparse.Namespace) -> Outcome:
    """Measure the search spaces on all pairs and on the half that closing the gap is tested on.

    Raises:
        DataError: too few pairs to halve.
    """
    n = len(items)
    if n < 2:
        raise DataError(f"there is {n} pair of picture and caption; expected at least 2, to estimate on one half")
    order = np.random.default_rng(SEED).permutation(n)
    fit, test = order[: n // 2], order[n // 2 :]
    images = _centred(items.images[test], items.images[fit])
    captions = _centred(items.captions[test], items.captions[fit])
    report = {
        "unimodal": directions(items.images, items.captions, mixed=False),
        "multimodal": directions(items.images, items.captions, mixed=True),
        "closed": directions(images, captions, mixed=True),
    }
    half = {
        "unimodal": directions(items.images[test], items.captions[test], mixed=False),
        "unimodal, gap closed": directions(images, captions, mixed=False),
        "multimodal": directions(items.images[test], items.captions[test], mixed=True),
        "multimodal, gap closed": report["closed"],
    }
    repeated = sum(count for count in Counter(items.texts).values() if count > 1)
    text = "\n".join(
        [
            f"{items.space}: {n:,} pairs"
            + (f", {repeated:,} of them with a caption that another has too" * (repeated > 0)),
            "",
            _table({"unimodal": report["unimodal"], "multimodal": report["multimodal"]}, n),
            "",
            f"The half that is tested when the other half's means close the gap ({len(test):,} pairs):",
            "",
            _table(half, len(test)),
        ]
    )
    return Outcome(report, text)


def directions(images: Vectors, captions: Vectors, mixed: bool) -> dict[str, dict[str, float]]:
    """R@k by direction and k; `mixed` searches both modalities at once."""
    return {
        name: {str(k): share for k, share in counterpart_recall(queries, answers, KS, beside_queries=mixed).items()}
        for name, queries, answers in (("t2i", captions, images), ("i2t", images, captions))
    }


def _centred(vectors: Vectors, others: Vectors) -> Vectors:
    """(n, d) unit vectors less the mean of `others` (m, d) of their modality, at unit length again."""
    left = vectors - others.mean(axis=0)
    units: Vectors = left / np.maximum(np.linalg.norm(left, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return units


def _table(report: Mapping[str, dict[str, dict[str, float]]], pairs: int) -> str:
    heads = [f"{name} R@{k}" for name in ("text to image", "image to text") for k in KS]
    rows: list[list[str | float]] = [
        [name, *(spaces[direction][str(k)] for direction in ("t2i", "i2t") for k in KS)]
        for name, spaces in report.items()
    ]
    return markdown([f"search space ({pairs:,} pairs)", *heads], rows)
