"""Made-up embeddings whose classes are known: a folder for `--data`, where everything about areas is under control.

    python -m experiments.mixtures DIR [--classes N] [--dimensions D] [--spread S] [--worlds N] [--gap G] [--seed N]

Each class has a direction, and its items lie around it, `--spread` times as wide as the directions are long. Directions
and items vary along few axes more than along most, as the embeddings of trained encoders do; sizes of classes fall by a
power law, from 250 items to 6. With `--worlds` every class belongs to one of so many, as dogs and cats to one and shoes
and shirts to another, whose directions are one and a half times as long as those of classes. A picture and its caption
share an item and differ by noise, and `--gap` is how far the modalities lie apart. The same options give the same
folder.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from experiments.datasets import DataError, precomputed
from experiments.grid import at_least

NOISE = 0.5  # of the spread, between a picture and its caption
SHARED = 1.0  # what all items have in common
WORLD = 1.5  # what all items of a world have in common
SIZES = (6, 250)
LONGEST = 1e6  # spread and gap: beyond it nothing of the classes is left in float32

Wide = npt.NDArray[np.float64]


def mixture(
    classes: int, dimensions: int, spread: float, worlds: int, gap: float, seed: int
) -> tuple[Wide, Wide, npt.NDArray[np.intp]]:
    """Pictures and captions, (n, d) unit vectors, and each pair's class, (n,)."""
    random = np.random.default_rng(seed)
    sizes = np.clip((random.pareto(1.2, classes) * 25 + SIZES[0]).astype(int), *SIZES)
    labels = np.repeat(np.arange(classes), sizes)
    scale = 1 / np.sqrt(1 + np.arange(dimensions) / (dimensions / 8))
    scale /= np.linalg.norm(scale)
    turns = [np.linalg.qr(random.normal(size=(dimensions, dimensions)))[0] for _ in range(2)]

    def vary(n: int, turn: Wide) -> Wide:
        varied: Wide = (random.normal(size=(n, dimensions)) * scale) @ turn
        return varied

    items = vary(classes, turns[0])[labels] + spread * vary(len(labels), turns[1])
    if worlds > 1:
        of_world = _units(np.random.default_rng([seed, worlds]).normal(size=(worlds, dimensions)))
        items += WORLD * of_world[labels % worlds]
    shared, *sides = _units(random.normal(size=(3, dimensions)))
    pictures, captions = (
        _units(items + NOISE * spread * vary(len(labels), turns[0]) + SHARED * shared + gap * side) for side in sides
    )
    return pictures, captions, labels.astype(np.intp)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the folder; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.mixtures", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="is made where it is missing")
    parser.add_argument("--classes", type=at_least(2), default=60, metavar="N", help="by default %(default)s")
    parser.add_argument("--dimensions", type=at_least(2), default=64, metavar="D", help="by default %(default)s")
    parser.add_argument("--spread", type=_length, default=1.2, metavar="S", help="by default %(default)s")
    parser.add_argument("--worlds", type=at_least(1), default=1, metavar="N", help="by default %(default)s, or none")
    parser.add_argument("--gap", type=_length, default=0.5, metavar="G", help="by default %(default)s")
    parser.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="by default %(default)s")
    options = parser.parse_args(arguments)
    try:
        precomputed.make_folder(options.folder)
        pictures, captions, labels = mixture(
            options.classes, options.dimensions, options.spread, options.worlds, options.gap, options.seed
        )
        texts, kinds = [f"item {row}" for row in range(len(labels))], [f"class {label}" for label in labels.tolist()]
        precomputed.write(options.folder, pictures.astype(np.float32), captions.astype(np.float32), texts, kinds)
    except DataError as error:
        parser.error(str(error))
    except (MemoryError, OverflowError):
        parser.error("there is no memory for so many classes and dimensions: ask for fewer")
    sys.stdout.write(f"{options.folder}: {len(labels):,} pairs of {options.classes} classes\n")
    return 0


def _length(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= LONGEST:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a length from 0 to {LONGEST:g}")
    return value


def _units(vectors: Wide) -> Wide:
    units: Wide = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return units


if __name__ == "__main__":
    sys.exit(main())
