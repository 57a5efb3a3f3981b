"""What data are: captioned pictures as a layout lists them, and as vectors, which is what experiments measure on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zccr_stream.events import IMAGE, TEXT

Vectors = npt.NDArray[np.float32]
Rows = npt.NDArray[np.intp]


class DataError(Exception):
    """A folder that cannot be read as data, or lacks what is asked; the message says what is expected."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as its layout lists it.

    Attributes:
        path: the file.
        name: what the layout calls it, unique in its folder.
        captions: at least one, none of them blank.
        label: its kind, where known.
        split: the part of the data set that it belongs to, where there are such.
    """

    path: Path
    name: str
    captions: Sequence[str]
    label: str | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Captions:
    """All captions of n pictures: `vectors` (m, d) float32 of unit length, `owner` (m,) the row of each one's picture.

    They are in order of `owner`, and those of one picture in their order in the data.
    """

    vectors: Vectors
    owner: Rows


@dataclass(frozen=True, slots=True)
class Items:
    """n pictures with a caption each; row i of everything belongs together.

    Attributes:
        space: names what encoded them.
        images: (n, d) float32 of unit length.
        captions: (n, d) float32 of unit length.
        texts: the captions themselves.
        labels: kinds, where known; None where no item has one.
        names: what the data call each item: a picture's name, or its row from 0 in precomputed embeddings.
        paths: the pictures; None where there are only embeddings.
        all_captions: encodes (once, then from the cache) what else is said of the pictures; None where every picture
            has one caption.
    """

    space: str
    images: Vectors
    captions: Vectors
    texts: Sequence[str]
    labels: Sequence[str | None] | None
    names: Sequence[str] | None = None
    paths: Sequence[Path] | None = None
    all_captions: Callable[[], Captions] | None = None

    def __len__(self) -> int:
        return len(self.texts)

    def vectors(self, modality: str) -> Vectors:
        """(n, d) of one modality."""
        return self.images if modality == IMAGE else self.captions

    def by_modality(self) -> dict[str, Vectors]:
        """(n, d) of each modality."""
        return {IMAGE: self.images, TEXT: self.captions}

    def take(self, rows: Rows) -> Items:
        """Some of the items in another order, each row at most once."""
        numbers = rows.tolist()
        every = self.all_captions
        return replace(
            self,
            images=self.images[rows],
            captions=self.captions[rows],
            texts=[self.texts[row] for row in numbers],
            labels=self.labels and [self.labels[row] for row in numbers],
            names=self.names and [self.names[row] for row in numbers],
            paths=self.paths and [self.paths[row] for row in numbers],
            all_captions=None if every is None else lambda: _taken(every(), rows),
        )


def _taken(captions: Captions, rows: Rows) -> Captions:
    place = np.full(max(captions.owner.max(initial=-1), rows.max(initial=-1)) + 1, -1, np.intp)
    place[rows] = np.arange(len(rows))
    owner = place[captions.owner]
    order = np.argsort(owner, kind="stable")
    kept = order[owner[order] >= 0]
    return Captions(captions.vectors[kept], owner[kept])
