"""Folders of one's own: a listing of pictures with captions, or pictures beside their captions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from experiments.datasets import reading
from experiments.datasets.items import Picture
from zccr_stream.cli.upload import IMAGE_SUFFIXES

LISTING = "captions.jsonl"


def listed(folder: Path) -> Iterator[Picture]:
    """Read the pictures of `captions.jsonl`."""
    place = folder / "images" if (folder / "images").is_dir() else folder
    for number, line in reading.json_lines(folder / LISTING):
        where = f"{folder / LISTING}, line {number}"
        name = reading.string(line, "image", where)
        said = reading.captions(line.get("captions"), where)
        yield Picture(place / name, name, said, reading.label(line, where))


def beside(folder: Path) -> Iterator[Picture]:
    """Find the pictures at any depth that have a text of the same name; its first line is the caption."""
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.with_suffix(".txt").is_file():
            caption = path.with_suffix(".txt").read_text("utf-8", errors="replace").partition("\n")[0].strip()
            if caption:
                name = path.relative_to(folder)
                yield Picture(path, name.as_posix(), (caption,), "/".join(name.parts[:-1][:2]) or None)
