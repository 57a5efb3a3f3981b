"""A folder -> pictures and captions as unit vectors, row i of both belonging together, with labels where there are any.

Comes in: a folder of embeddings or of captioned pictures, in any of the `LAYOUTS`. Goes out: `Items`. Pictures are
fetched, decoded and encoded as the stream does it, once: the vectors are kept in a cache. Knows nothing of what is
measured on them.
"""

from __future__ import annotations

import functools
import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from experiments.datasets import folders, precomputed, published, reading
from experiments.datasets.encoding import encoded
from experiments.datasets.items import Captions, DataError, Items, Picture, Rows, Vectors
from zccr_stream.settings import Settings

__all__ = [
    "CAPTION_CHOICES",
    "LAYOUTS",
    "PRECOMPUTED",
    "SPLITS",
    "Captions",
    "DataError",
    "Items",
    "Label",
    "Picture",
    "Selection",
    "Vectors",
    "cache_folder",
    "captioned",
    "encode",
    "load",
]

PRECOMPUTED = precomputed.SPACE
"""The space of embeddings that nothing here encoded."""

LAYOUTS = """\
A folder of data is one of
  embeddings   images.npy and captions.npy, (n, d) floating point, and items.jsonl with n lines
               {"text": CAPTION, "label": KIND}; row i of all three belongs together, labels may be missing.
               With several captions a picture: captions.npy (m, d) with captions.jsonl, m lines
               {"image": NAME, "caption": CAPTION}, and image_ids.json, {"image_ids": [NAME, ...]} for images.npy
  a listing    captions.jsonl with a line {"image": NAME, "captions": [CAPTION, ...], "label": KIND} a picture, or
               several; pictures lie in the folder or in its images/, labels may be missing
  MSCOCO       dataset_coco.json (Karpathy's splits) or annotations/captions_{val,train}{2014,2017}.json; pictures
               lie in val2014/, train2014/, ... of the folder or of its images/
  Flickr30k    dataset_flickr30k.json (Karpathy's splits), results_20130124.token or results.csv; pictures lie in
               flickr30k-images/, images/ or the folder (Flickr8k in the same way with dataset_flickr8k.json)
  pictures     at any depth, each beside a .txt file of the same name whose first line is its caption; pictures in
               folders by kind have these, up to two levels deep, as labels
It may hold tags too: tags.jsonl with a line {"image": NAME, "image_tags": [TAG, ...], "text_tags": [TAG, ...]} an
item, NAME as the data name the picture (below the folder or its images/); embeddings with a caption a picture have
"row": N, from 0, instead. A kind of tags that no line has is made from the pictures or the captions."""

SPLITS = ("train", "restval", "val", "test", "all")
CAPTION_CHOICES = ("first", "random")
SEED = 0

Label = Callable[[Sequence[Path]], Sequence[str | None]]
"""Pictures come in, the kind of each goes out; None for one to be left out."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which part of the data is loaded.

    Attributes:
        split: one of `SPLITS`; None is `val` where the data have splits, else all.
        limit: at most so many pairs, drawn with a fixed seed after everything else has been chosen; None is all.
        caption: which of a picture's captions is its pair: `first`, or `random` with a fixed seed (the paper's way).
    """

    split: str | None = None
    limit: int | None = None
    caption: str = "first"


EVERYTHING = Selection()


def load(
    folder: Path, encoder: str, device: str, cache: Path, selection: Selection = EVERYTHING, label: Label | None = None
) -> Items:
    """Load a folder of data in any of the `LAYOUTS`.

    Args:
        folder: the data.
        encoder: what encodes pictures and captions; precomputed embeddings do without.
        device: where it runs.
        cache: folder that keeps what was encoded.
        selection: which part of it.
        label: gives the pictures labels in place of their own; those that get none are left out.

    Raises:
        DataError: there is no such data, it cannot be read, or its parts do not fit together.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; expected one of data (--help lists the layouts)")
    items = _load(folder, encoder, device, cache, selection, label)
    if not len(items):
        raise DataError(f"{folder} holds no pair of a picture and a caption that was asked for; expected at least one")
    return items


def _load(folder: Path, encoder: str, device: str, cache: Path, selection: Selection, label: Label | None) -> Items:
    if (folder / precomputed.IMAGES).exists():
        if label is not None:
            raise DataError(f"{folder} holds embeddings, and only pictures can be classified: use the labels given")
        return _limited(_embeddings(folder, selection), selection)
    pictures = captioned(folder.resolve())
    if not pictures:
        raise DataError(f"{folder} holds neither embeddings nor captioned pictures.\n{LAYOUTS}")
    pictures = _of_split(pictures, folder, selection.split)
    _check_there(pictures)
    _check_once(pictures)
    if label is not None:
        labels = label([picture.path for picture in pictures])
        found = zip(pictures, labels, strict=True)
        pictures = [replace(picture, label=kind) for picture, kind in found if kind is not None]
    drawn = [pictures[row] for row in _drawn(len(pictures), selection.limit).tolist()]
    return encode(drawn, encoder, device, cache, selection.caption)


def encode(pictures: Sequence[Picture], encoder: str, device: str, cache: Path, caption: str = "first") -> Items:
    """Encode pictures and one caption of each; see `load`."""
    chosen = [_choose(caption, picture.name, len(picture.captions)) for picture in pictures]
    return encoded(pictures, chosen, Settings(encoder=encoder, device=device), cache)


def cache_folder() -> Path:
    """Find the folder below the XDG cache folder that keeps embeddings."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zccr-stream" / "embeddings"


def captioned(folder: Path) -> list[Picture]:
    """Find the pictures of a folder, all splits of them."""
    if (folder / folders.LISTING).is_file():
        return list(folders.listed(folder))
    read = published.reader(folder)
    return list(folders.beside(folder) if read is None else read())


def _embeddings(folder: Path, selection: Selection) -> Items:
    if selection.split not in (None, "all"):
        raise DataError(f"{folder} holds embeddings, which have no splits: leave --split out")
    if (folder / precomputed.CAPTIONS).is_file() and (folder / precomputed.PAIRS).is_file():
        return precomputed.pairs(folder)
    several = (precomputed.CAPTIONS, precomputed.SEVERAL, precomputed.IMAGE_IDS)
    if all((folder / name).is_file() for name in several):
        return precomputed.several(folder, functools.partial(_choose, selection.caption))
    pairs = (precomputed.CAPTIONS, precomputed.PAIRS)
    missing = [name for name in pairs if not (folder / name).is_file()]
    raise DataError(f"{folder} has {precomputed.IMAGES}, but no {' and no '.join(missing)}.\n{LAYOUTS}")


def _of_split(pictures: list[Picture], folder: Path, split: str | None) -> list[Picture]:
    splits = sorted({picture.split for picture in pictures if picture.split is not None})
    if not splits:
        if split not in (None, "all"):
            raise DataError(f"{folder} has no splits: leave --split out (--help lists the layouts that have some)")
        return pictures
    if split == "all":
        return pictures
    wanted = split or "val"
    if wanted not in splits:
        raise DataError(f"{folder} has no split {wanted!r}; it has {', '.join(splits)}, or all")
    return [picture for picture in pictures if picture.split == wanted]


def _check_there(pictures: Sequence[Picture]) -> None:
    missing = [picture.path for picture in pictures if not reading.is_file(picture.path)]
    if missing:
        raise DataError(
            f"{len(missing):,} of {len(pictures):,} pictures are missing, the first is {missing[0]}: expected them "
            "where the layout has them (--help lists the layouts)"
        )


def _check_once(pictures: Sequence[Picture]) -> None:
    """Refuse two pairs of one picture: each would be wrong where the other is found."""
    paths = [os.path.normpath(picture.path) for picture in pictures]
    if len(set(paths)) < len(paths):
        twice, _ = Counter(paths).most_common(1)[0]
        raise DataError(f"{twice} is there twice; expected each picture once, with all of its captions")


def _choose(caption: str, name: str, captions: int) -> int:
    """Which of a picture's captions is its pair: drawn by its name, so that it is the same one in any selection."""
    return 0 if caption == "first" else random.Random(os.fsencode(name)).randrange(captions)


def _drawn(n: int, limit: int | None) -> Rows:
    """(min(n, limit),) rows in their order."""
    return np.sort(np.random.default_rng(SEED).permutation(n)[:limit]).astype(np.intp)


def _limited(items: Items, selection: Selection) -> Items:
    return items if selection.limit is None else items.take(_drawn(len(items), selection.limit))
