"""MSCOCO, Flickr30k and Flickr8k as their authors publish them, with Karpathy's splits where his file is there.

dataset_coco.json, …                Karpathy and Fei-Fei 2015 (arXiv:1412.2306): {"images": [{"filename",
                                    "filepath"?, "split", "sentences": [{"raw"}, …]}, …]}
annotations/captions_val2014.json   MSCOCO's own (train and val, 2014 and 2017): {"images": [{"id", "file_name"}, …],
                                    "annotations": [{"image_id", "caption"}, …]}
results_20130124.token              Flickr30k's own: NAME#NUMBER, a tab, the caption
results.csv                         the same as Kaggle has it: NAME| NUMBER| CAPTION
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from experiments.datasets import reading
from experiments.datasets.items import DataError, Picture

KARPATHY = ("dataset_coco.json", "dataset_flickr30k.json", "dataset_flickr8k.json")
COCO_YEARS = ("2014", "2017")
COCO_SPLITS = ("val", "train")
TOKENS = "results_20130124.token"
TABLE = "results.csv"

PLACES = ("", "images", "flickr30k-images", "flickr30k_images", "Flicker8k_Dataset", "Flickr8k_Dataset")
"""Where pictures lie in the folder: as the archives are named, the misspelt one too, or gathered in images/."""

TOKEN = re.compile(r"(?P<image>[^#\t]+)#\d+\t(?P<caption>.*)")
ROW = re.compile(r"(?P<image>[^|]+)\|\s*\d+\s*(?:\||(?<=\s))(?P<caption>.*)")
"""One row of the published results.csv, the 20,000th, lacks the second bar."""


def reader(folder: Path) -> Callable[[], Iterator[Picture]] | None:
    """Find what reads the folder, or None where nothing published lies in it."""
    for name in KARPATHY:
        if (folder / name).is_file():
            return lambda: _karpathy(folder, folder / name)
    for year in COCO_YEARS:
        if any(_annotations(folder, split, year).is_file() for split in COCO_SPLITS):
            return lambda: _coco(folder, year)
    for name, form, example in ((TOKENS, TOKEN, "NAME#NUMBER<tab>CAPTION"), (TABLE, ROW, "NAME| NUMBER| CAPTION")):
        if (folder / name).is_file():
            return lambda: _flickr(folder, folder / name, form, example)
    return None


def _karpathy(folder: Path, file: Path) -> Iterator[Picture]:
    for number, image in enumerate(reading.objects(reading.json_object(file).get("images"), f'{file}, "images"')):
        where = f"{file}, image {number}"
        name = reading.string(image, "filename", where)
        sentences = [one.get("raw") for one in reading.objects(image.get("sentences"), f'{where}, "sentences"')]
        below = reading.string(image, "filepath", where) if image.get("filepath") is not None else ""
        path = _place(folder, Path(below) / name)
        yield Picture(path, name, reading.captions(sentences, where), split=reading.string(image, "split", where))


def _annotations(folder: Path, split: str, year: str) -> Path:
    return folder / "annotations" / f"captions_{split}{year}.json"


def _coco(folder: Path, year: str) -> Iterator[Picture]:
    for split in COCO_SPLITS:
        file = _annotations(folder, split, year)
        if not file.is_file():
            continue
        content = reading.json_object(file)
        said: dict[int | str, list[object]] = {}
        for number, annotation in enumerate(reading.objects(content.get("annotations"), f'{file}, "annotations"')):
            owner = reading.identifier(annotation, "image_id", f"{file}, annotation {number}")
            said.setdefault(owner, []).append(annotation.get("caption"))
        for number, image in enumerate(reading.objects(content.get("images"), f'{file}, "images"')):
            where = f"{file}, image {number}"
            name = reading.string(image, "file_name", where)
            path = _place(folder, Path(f"{split}{year}") / name)
            sentences = said.get(reading.identifier(image, "id", where))
            yield Picture(path, name, reading.captions(sentences, where), split=split)


def _flickr(folder: Path, file: Path, form: re.Pattern[str], example: str) -> Iterator[Picture]:
    said: dict[str, list[str]] = {}
    for number, line in reading.lines(file):
        if number == 1 and line.startswith("image_name"):
            continue
        match = form.fullmatch(line.rstrip("\r"))
        if match is None:
            raise DataError(f"{file}, line {number}: {line[:60]!r}; expected {example}")
        said.setdefault(match["image"].strip(), []).append(match["caption"])
    for name, sentences in said.items():
        yield Picture(_place(folder, Path(name)), name, reading.captions(sentences, f"{file}, {name}"))


def _place(folder: Path, name: Path) -> Path:
    """The picture where it lies; where it would lie if it is missing."""
    paths = (folder / place / name for place in PLACES)
    return next(filter(reading.is_file, paths), folder / name)
