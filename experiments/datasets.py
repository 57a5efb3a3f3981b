"""A folder -> pictures and captions as unit vectors, row i of both belonging together, with labels where there are any.

Comes in: a folder of embeddings (`images.npy`, `captions.npy`, `items.jsonl`) or of captioned pictures. Goes out:
`Items`. Pictures are fetched, decoded and encoded as the stream does it, once: the vectors are kept in a cache.
Knows nothing of what is measured on them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import Progress

from zccr_stream import assemble
from zccr_stream.cli.upload import IMAGE_SUFFIXES
from zccr_stream.encoders import EncoderError
from zccr_stream.events import IMAGE, TEXT, AssetUploaded
from zccr_stream.pipeline import Content
from zccr_stream.settings import Settings

LAYOUTS = """\
A folder of data is one of
  embeddings   images.npy and captions.npy, (n, d) floating point, and items.jsonl with n lines
               {"text": CAPTION, "label": KIND}; row i of all three belongs together, labels may be missing
  a listing    captions.jsonl with a line {"image": NAME, "captions": [CAPTION, ...], "label": KIND} a picture;
               pictures lie in the folder or in its images/, labels may be missing, the first caption counts
  pictures     at any depth, each beside a .txt file of the same name whose first line is its caption; pictures in
               folders by kind have these, up to two levels deep, as labels"""

EMBEDDINGS = ("images.npy", "captions.npy", "items.jsonl")
LISTING = "captions.jsonl"

Vectors = npt.NDArray[np.float32]


class DataError(Exception):
    """A folder that cannot be read as data; the message says what is expected."""


@dataclass(frozen=True, slots=True)
class Items:
    """n pictures with a caption each.

    `images` and `captions` are (n, d) float32 of unit length, `labels` None where no item has one; `space` names
    what encoded them.
    """

    space: str
    images: Vectors
    captions: Vectors
    texts: Sequence[str]
    labels: Sequence[str | None] | None

    def __len__(self) -> int:
        return len(self.texts)

    def vectors(self, modality: str) -> Vectors:
        """(n, d) of one modality."""
        return self.images if modality == IMAGE else self.captions


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture, its caption and, where known, its kind."""

    path: Path
    caption: str
    label: str | None = None


def load(folder: Path, encoder: str, device: str, cache: Path) -> Items:
    """Load a folder of data in any of the `LAYOUTS`.

    Args:
        folder: the data.
        encoder: what encodes pictures and captions; precomputed embeddings do without.
        device: where it runs.
        cache: folder that keeps what was encoded.

    Raises:
        DataError: there is no such data, it cannot be read, or its parts do not fit together.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder.\n{LAYOUTS}")
    if (folder / "images.npy").exists():
        return precomputed(folder)
    pictures = list(captioned(folder.resolve()))
    if not pictures:
        raise DataError(f"{folder} holds neither embeddings nor captioned pictures.\n{LAYOUTS}")
    settings = Settings(encoder=encoder, device=device, file_root=_common_folder(pictures))
    space, images, captions = _encoded(pictures, settings, cache)
    return Items(space, images, captions, [picture.caption for picture in pictures], _labels(pictures))


def cache_folder() -> Path:
    """Find the folder below the XDG cache folder that keeps embeddings."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zccr-stream" / "embeddings"


def precomputed(folder: Path) -> Items:
    """Read embeddings; whatever their length was, they come out at unit length."""
    if missing := [name for name in EMBEDDINGS if not (folder / name).is_file()]:
        raise DataError(f"{folder} has images.npy, but no {' and no '.join(missing)}.\n{LAYOUTS}")
    images, captions = (_unit_vectors(folder / name) for name in EMBEDDINGS[:2])
    lines = list(_json_lines(folder / EMBEDDINGS[2]))
    if images.shape != captions.shape or len(images) != len(lines):
        raise DataError(
            f"{folder}: images.npy is {images.shape}, captions.npy is {captions.shape} and items.jsonl has "
            f"{len(lines)} lines; expected one row of the same length in each of both per line"
        )
    texts = [_text(line, "text", folder / EMBEDDINGS[2], number) for number, line in lines]
    labels = [_label(line) for _, line in lines]
    return Items("precomputed", images, captions, texts, labels if any(labels) else None)


def captioned(folder: Path) -> Iterator[Picture]:
    """Find the pictures of a folder, each with its first caption."""
    listing = folder / LISTING
    if listing.is_file():
        place = folder / "images" if (folder / "images").is_dir() else folder
        for number, line in _json_lines(listing):
            captions = line.get("captions")
            if not isinstance(captions, list) or not captions or not isinstance(captions[0], str):
                raise DataError(f'{listing}, line {number}: no "captions"; expected a list of sentences')
            yield Picture(place / _text(line, "image", listing, number), captions[0], _label(line))
        return
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.with_suffix(".txt").is_file():
            caption = path.with_suffix(".txt").read_text("utf-8", errors="replace").partition("\n")[0].strip()
            if caption:
                yield Picture(path, caption, "/".join(path.relative_to(folder).parts[:-1][:2]) or None)


def _labels(pictures: Sequence[Picture]) -> list[str | None] | None:
    labels = [picture.label for picture in pictures]
    return labels if any(labels) else None


def _encoded(pictures: Sequence[Picture], settings: Settings, cache: Path) -> tuple[str, Vectors, Vectors]:
    """The space and both modalities' (n, d) vectors, from the cache where they are there."""
    try:
        space = assemble.model(settings)
        kept = cache / f"{_fingerprint(space, pictures, settings)}.npz"
        if kept.is_file():
            with np.load(kept) as arrays:
                return space, arrays["images"], arrays["captions"]
        images, captions = _encode(pictures, settings)
    except EncoderError as error:
        raise DataError(f"the encoder {settings.encoder!r} cannot be used: {error}") from error
    cache.mkdir(parents=True, exist_ok=True)
    half_written = kept.with_name(f"{kept.stem}.{os.getpid()}.npz")
    np.savez(half_written, images=images, captions=captions)
    half_written.replace(kept)
    return space, images, captions


def _fingerprint(space: str, pictures: Sequence[Picture], settings: Settings) -> str:
    """Of the encoder and every picture's bytes and caption: the same data anywhere has the same vectors."""
    digest = blake2b(f"{space}\n{settings.encode_precision}\n".encode(), digest_size=16)
    for picture in pictures:
        try:
            content = blake2b(picture.path.read_bytes()).digest()
        except OSError as error:
            raise DataError(f"a picture cannot be read: {error}") from error
        digest.update(content + blake2b(picture.caption.encode("utf-8", "surrogatepass")).digest())
    return digest.hexdigest()


def _encode(pictures: Sequence[Picture], settings: Settings) -> tuple[Vectors, Vectors]:
    """(n, d) of the pictures and of their captions, loaded and encoded in batches by the stream's own parts."""
    encoder, contents = assemble.encoder(settings), assemble.contents(settings)
    images, captions = [], []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        batches = range(0, len(pictures), settings.encode_batch_max)
        for start in progress.track(batches, description=f"encoding with {settings.encoder}"):
            batch = pictures[start : start + settings.encode_batch_max]
            loaded: list[Content] = []
            for content in contents.load([_upload(picture.path) for picture in batch]):
                if isinstance(content, Exception):
                    raise DataError(f"a picture cannot be read: {content}")
                loaded.append(content)
            images.append(encoder.encode(IMAGE, loaded))
            captions.append(encoder.encode(TEXT, [picture.caption for picture in batch]))
    return np.concatenate(images), np.concatenate(captions)


def _upload(path: Path) -> AssetUploaded:
    return AssetUploaded(str(path), 0, 0, str(path), "nobody", IMAGE, uri=path.as_uri())


def _common_folder(pictures: Sequence[Picture]) -> Path:
    return Path(os.path.commonpath([picture.path.parent for picture in pictures]))


def _unit_vectors(path: Path) -> Vectors:
    try:
        vectors = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as an array: {error}") from error
    if vectors.ndim != 2 or not np.issubdtype(vectors.dtype, np.floating):
        raise DataError(f"{path} is {vectors.dtype} of shape {vectors.shape}; expected (n, d) floating point")
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        row = int(np.argmin((np.isfinite(lengths) & (lengths > 0))[:, 0]))
        raise DataError(f"{path}, row {row}: a vector of length {lengths[row, 0]}; expected a direction")
    units: Vectors = (wide / lengths).astype(np.float32)
    return units


def _json_lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """The number and the object of every line that is not blank; texts may hold any other line break."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8: {error}") from error
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}; expected a JSON object on every line") from error
        if not isinstance(value, dict):
            raise DataError(f"{path}, line {number}: {line[:60]!r}; expected a JSON object on every line")
        yield number, value


def _label(line: Mapping[str, Any]) -> str | None:
    value = line.get("label")
    return None if value is None else str(value) or None


def _text(line: Mapping[str, Any], key: str, path: Path, number: int) -> str:
    value = line.get(key)
    if not isinstance(value, str):
        raise DataError(f'{path}, line {number}: no "{key}"; expected a string')
    return value
