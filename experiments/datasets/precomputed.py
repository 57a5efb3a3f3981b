"""Embeddings that are there already, with a caption a picture or with several, and folders of such made anew."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from tokenize import TokenError

import numpy as np

from experiments.datasets import reading
from experiments.datasets.items import Captions, DataError, Items, Vectors

IMAGES = "images.npy"
CAPTIONS = "captions.npy"
PAIRS = "items.jsonl"
SEVERAL = "captions.jsonl"
IMAGE_IDS = "image_ids.json"

SPACE = "precomputed"


def pairs(folder: Path) -> Items:
    """Read embeddings with a caption a picture; whatever their length was, they come out at unit length."""
    images, captions = unit_vectors(folder / IMAGES), unit_vectors(folder / CAPTIONS)
    lines = list(reading.json_lines(folder / PAIRS))
    if images.shape != captions.shape or len(images) != len(lines):
        raise DataError(
            f"{folder}: {IMAGES} is {images.shape}, {CAPTIONS} is {captions.shape} and {PAIRS} has "
            f"{len(lines)} lines; expected one row of the same length in each of both per line"
        )
    texts = [reading.string(line, "text", f"{folder / PAIRS}, line {number}") for number, line in lines]
    labels = [reading.label(line, f"{folder / PAIRS}, line {number}") for number, line in lines]
    return Items(
        SPACE, images, captions, texts, labels if any(labels) else None, [str(row) for row in range(len(lines))]
    )


def several(folder: Path, choose: Callable[[str, int], int]) -> Items:
    """Read embeddings with several captions a picture.

    Args:
        folder: the data.
        choose: a picture's id and how many captions it has come in, which of them is its pair goes out.
    """
    images, captions = unit_vectors(folder / IMAGES), unit_vectors(folder / CAPTIONS)
    ids = reading.strings(reading.json_object(folder / IMAGE_IDS).get("image_ids"), f"{folder / IMAGE_IDS}, image_ids")
    lines = list(reading.json_lines(folder / SEVERAL))
    if len(images) != len(ids) or len(captions) != len(lines) or images.shape[1] != captions.shape[1]:
        raise DataError(
            f"{folder}: {IMAGES} is {images.shape} with {len(ids)} ids, {CAPTIONS} is {captions.shape} with "
            f"{len(lines)} lines in {SEVERAL}; expected rows of the same length, one per id and one per line"
        )
    rows = {name: row for row, name in enumerate(ids)}
    if len(rows) < len(ids):
        twice = next(name for row, name in enumerate(ids) if rows[name] != row)
        raise DataError(f"{folder / IMAGE_IDS}, image_ids: {twice!r} is there twice; expected each image once")
    owner, texts = np.empty(len(lines), np.intp), []
    for place, (number, line) in enumerate(lines):
        where = f"{folder / SEVERAL}, line {number}"
        name = reading.string(line, "image", where)
        if name not in rows:
            raise DataError(f"{where}: image {name!r} is not in {IMAGE_IDS}")
        owner[place] = rows[name]
        texts.append(reading.string(line, "caption", where))
    counts = np.bincount(owner, minlength=len(ids))
    if not counts.all():
        raise DataError(f"{folder / SEVERAL}: image {ids[int(counts.argmin())]!r} has no caption")
    order = np.argsort(owner, kind="stable")
    choices = [choose(name, count) for name, count in zip(ids, counts.tolist(), strict=True)]
    chosen = order[np.cumsum(counts) - counts + choices]
    every = Captions(captions[order], owner[order])
    return Items(
        SPACE,
        images,
        captions[chosen],
        [texts[row] for row in chosen.tolist()],
        None,
        ids,
        all_captions=lambda: every,
    )


def unit_vectors(path: Path) -> Vectors:
    """Read (n, d) floating point as directions."""
    try:
        with path.open("rb") as file:
            vectors = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError, EOFError, TokenError, OverflowError, MemoryError) as error:
        raise DataError(f"{path} cannot be read as an array: {error}") from error
    if vectors.ndim != 2 or not np.issubdtype(vectors.dtype, np.floating):
        raise DataError(f"{path} is {vectors.dtype} of shape {vectors.shape}; expected (n, d) floating point")
    wide = vectors.astype(np.float64)
    with np.errstate(over="ignore"):  # what is too long is told below
        lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        row = int(np.argmin((np.isfinite(lengths) & (lengths > 0))[:, 0]))
        raise DataError(f"{path}, row {row}: a vector of length {lengths[row, 0]}; expected a direction")
    units: Vectors = (wide / lengths).astype(np.float32)
    return units


def check_new(folder: Path) -> None:
    """Refuse a folder that holds something already, before the work on what comes there."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise DataError(f"{folder} is there already, and no empty folder")


def make_folder(folder: Path) -> None:
    """Make a folder for embeddings, before the work on them.

    Raises:
        DataError: it holds something already, or cannot be made.
    """
    check_new(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder} cannot be made: {error.strerror}") from error


def write(folder: Path, images: Vectors, captions: Vectors, texts: Sequence[str], labels: Sequence[str | None]) -> None:
    """Write what `pairs` reads: (n, d) vectors of both modalities, n texts and labels."""
    np.save(folder / IMAGES, images)
    np.save(folder / CAPTIONS, captions)
    lines = ({"text": text, "label": label} for text, label in zip(texts, labels, strict=True))
    (folder / PAIRS).write_text("".join(f"{json.dumps(line)}\n" for line in lines))
