"""Folders of one's own: a listing of pictures with captions, or pictures beside their captions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePosixPath

from experiments.datasets import reading
from experiments.datasets.items import DataError, Picture
from zccr_stream.cli.upload import IMAGE_SUFFIXES

LISTING = "captions.jsonl"


def listed(folder: Path) -> Iterator[Picture]:
    """Read the pictures of `captions.jsonl`; several lines of one picture add to its captions."""
    pictures: dict[str, Picture] = {}
    for number, line in reading.json_lines(folder / LISTING):
        where = f"{folder / LISTING}, line {number}"
        name = PurePosixPath(reading.string(line, "image", where)).as_posix()  # ./a.jpg is a.jpg
        said, label = reading.captions(line.get("captions"), f'{where}, "captions"'), reading.label(line, where)
        known = pictures.get(name)
        if known is None:
            pictures[name] = Picture(_place(folder, name), name, said, label)
            continue
        if label is not None and known.label is not None and label != known.label:
            raise DataError(f"{where}: {name!r} is {label!r}, and on a line before {known.label!r}; expected one label")
        pictures[name] = replace(known, captions=(*known.captions, *said), label=known.label or label)
    yield from pictures.values()


def _place(folder: Path, name: str) -> Path:
    """The picture where it lies, or would lie."""
    inside = folder / "images" / name
    return inside if reading.is_file(inside) or not reading.is_file(folder / name) else folder / name


def beside(folder: Path) -> Iterator[Picture]:
    """Find the pictures at any depth that have a text of the same name; its first line is the caption."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.with_suffix(".txt").is_file():
            caption = path.with_suffix(".txt").read_text("utf-8-sig", errors="replace").partition("\n")[0].strip()
            if caption:
                name = path.relative_to(folder)
                yield Picture(path, name.as_posix(), (caption,), "/".join(name.parts[:-1][:2]) or None)
