"""How alike pairs of one modality and of two are, and the gap as a picture (paper, section 3.1.3, Figures 5 to 7).

    python -m experiments similarities --data DIR [--encoder NAME] [--json FILE] [--figures DIR]

Of `--pairs` random items (1,000 as in the paper) all cosines are taken:
  image-text   positive where picture and caption belong together, negative otherwise;
  text-text    positive where both captions are of one picture, as the paper has it; where every picture has a single
               caption, of pictures of one label;
  image-image  positive where both are of one label. Without labels, all that is left is negative.
The gap's norm is the length of the difference of both modalities' means over all items (eq. 11). The t-SNE plot (of
cosines, seeded) shows both modalities as encoded, and beside it as production aligns them, told the same vectors.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from sklearn.manifold import TSNE

from experiments.closing import aligned
from experiments.clusterings import EQUAL
from experiments.datasets import DataError, Items
from experiments.grid import at_least
from experiments.outcome import Outcome
from experiments.tables import markdown
from zccr_stream.events import IMAGE, TEXT
from zccr_stream.measures import Vectors

PAIRS, PAIRS_MIN = 1000, 4
SEED = 0
PERPLEXITY = 30.0
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
POSITIVE, NEGATIVE = "positive", "negative"

FIGURE_5 = {"image-text": {POSITIVE: 0.3}, "text-text": {POSITIVE: 0.8, NEGATIVE: 0.5}}
"""What the paper reads off its box plots of CLIP on MSCOCO and Flickr30k: around these values."""

Cosines = Mapping[str, Mapping[str, Vectors]]
"""By kind of pair, by `positive` and `negative`; a kind without such pairs has no entry for them."""


def add_options(command: argparse.ArgumentParser) -> None:
    """Add how many items are compared."""
    command.add_argument(
        "--pairs", type=at_least(PAIRS_MIN), default=PAIRS, metavar="N", help="items at most; by default %(default)s"
    )


def measure(items: Items, options: argparse.Namespace) -> Outcome:
    """Measure the distributions and draw Figures 5 or 6, and 7.

    Raises:
        DataError: fewer than 4 items.
    """
    rows = np.random.default_rng(SEED).permutation(len(items))[: options.pairs]
    if len(rows) < PAIRS_MIN:
        raise DataError(f"there are {len(rows)} of {len(items):,} items; expected at least 4 to compare")
    images, captions = items.images[rows], items.captions[rows]
    labels = None if items.labels is None else np.array([items.labels[row] or f"\n{row}" for row in rows.tolist()])
    cosines = {
        "image-text": _between(images, captions),
        "text-text": _texts(items.take(rows), labels),
        "image-image": within(images, labels),
    }
    norm = float(np.linalg.norm(items.images.mean(axis=0) - items.captions.mean(axis=0)))
    summaries = {kind: {sign: _summary(values) for sign, values in signs.items()} for kind, signs in cosines.items()}
    text = (
        f"{items.space}: {len(rows):,} of {len(items):,} items; norm of the modality gap (eq. 11): {norm:.3f}\n\n"
        f"{_table(summaries)}"
    )
    report = {"gap_norm": norm, "cosines": summaries}
    return Outcome(report, text, {"similarities": _boxes(cosines), "tsne": _planes(images, captions)})


def within(vectors: Vectors, kinds: npt.NDArray[Any] | None) -> dict[str, Vectors]:
    """Cosines of all pairs of (n, d) unit vectors: positive where both are of one kind, (n,); unknown, all negative."""
    rows, columns = np.triu_indices(len(vectors), k=1)
    cosines = (vectors @ vectors.T)[rows, columns]
    if kinds is None:
        return {NEGATIVE: cosines}
    alike = kinds[rows] == kinds[columns]
    parts = {POSITIVE: cosines[alike], NEGATIVE: cosines[~alike]}
    return {sign: values for sign, values in parts.items() if len(values)}


def _texts(items: Items, labels: npt.NDArray[Any] | None) -> dict[str, Vectors]:
    if items.all_captions is None:
        return within(items.captions, labels)
    every = items.all_captions()
    return within(every.vectors, every.owner)


def _between(images: Vectors, captions: Vectors) -> dict[str, Vectors]:
    cosines = images @ captions.T
    others = ~np.eye(len(images), dtype=np.bool_)
    return {POSITIVE: cosines.diagonal(), NEGATIVE: cosines[others]}


def _summary(values: Vectors) -> dict[str, float]:
    quantiles = np.quantile(values, QUANTILES)
    return {
        "pairs": len(values),
        "mean": float(values.mean()),
        "std": float(values.std()),
        **{f"q{round(100 * q):02}": float(value) for q, value in zip(QUANTILES, quantiles, strict=True)},
    }


def _table(cosines: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    heads = ["pairs", "", "how many", "mean", "std", "5 %", "median", "95 %", "paper, CLIP, about"]
    rows: list[list[str | float]] = [
        [
            kind,
            sign,
            summary["pairs"],
            *(summary[name] for name in ("mean", "std", "q05", "q50", "q95")),
            FIGURE_5.get(kind, {}).get(sign, "–"),
        ]
        for kind, signs in cosines.items()
        for sign, summary in signs.items()
    ]
    return markdown(heads, rows)


def _boxes(cosines: Cosines) -> Figure:
    """Figures 5 and 6: boxes from quartile to quartile, whiskers from 5 % to 95 %."""
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    for shift, sign, colour in ((-0.18, POSITIVE, "tab:blue"), (0.18, NEGATIVE, "tab:red")):
        places = [place for place, signs in enumerate(cosines.values()) if sign in signs]
        boxes = axes.boxplot(
            [signs[sign] for signs in cosines.values() if sign in signs],
            positions=[place + shift for place in places],
            widths=0.3,
            whis=(5, 95),
            showfliers=False,
            patch_artist=True,
            medianprops={"color": "black"},
        )
        for box in boxes["boxes"]:
            box.set(facecolor=colour, alpha=0.6)
        axes.fill([], [], color=colour, alpha=0.6, label=f"{sign} pairs")
    axes.set_xticks(range(len(cosines)), list(cosines))
    axes.set_ylabel("cosine")
    axes.legend()
    return figure


def _planes(images: Vectors, captions: Vectors) -> Figure:
    """Figure 7: both modalities on a plane, as they are and aligned."""
    figure = Figure(figsize=(9, 4.4), layout="constrained")
    maps = aligned(images, captions)
    spaces = {"as encoded": (images, captions), "aligned": (maps[0](images), maps[1](captions))}
    for axes, (title, both) in zip(figure.subplots(1, 2), spaces.items(), strict=True):
        points = plane(np.concatenate(both))
        for name, part in ((IMAGE, points[: len(images)]), (TEXT, points[len(images) :])):
            axes.scatter(*part.T, s=5, alpha=0.6, linewidths=0, label=f"{name}s")
        axes.set(title=title, xticks=[], yticks=[], xlabel="t-SNE 1", ylabel="t-SNE 2")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2, markerscale=3)
    return figure


def plane(vectors: Vectors) -> Vectors:
    """(n, 2) t-SNE of (n, d) unit vectors by cosine distance, the same in every run; a point where all are equal."""
    if np.ptp(vectors, axis=0).max() < EQUAL:
        return np.zeros((len(vectors), 2), np.float32)
    perplexity = min(PERPLEXITY, (len(vectors) - 1) / 3)
    init = "pca" if vectors.shape[1] > 1 else "random"
    tsne = TSNE(metric="cosine", init=init, perplexity=perplexity, random_state=SEED, n_jobs=1)
    points: Vectors = tsne.fit_transform(vectors)
    return points
