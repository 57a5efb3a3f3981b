"""Pictures and captions -> unit vectors, fetched, decoded and encoded by the stream's own parts, once."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
from PIL.Image import Image
from rich.console import Console
from rich.progress import Progress

from experiments.cache import Arrays, cached
from experiments.datasets.items import Captions, DataError, Items, Picture, Vectors
from zccr_stream import assemble
from zccr_stream.encoders import EncoderError
from zccr_stream.events import IMAGE, TEXT, AssetUploaded, BadInputError
from zccr_stream.parts import Encoder
from zccr_stream.settings import Settings


def encoded(pictures: Sequence[Picture], chosen: Sequence[int], settings: Settings, cache: Path) -> Items:
    """Encode n pictures and the caption of each that is its pair.

    Args:
        pictures: what is encoded.
        chosen: (n,) which of its captions is a picture's pair.
        settings: of the encoder and the limits of what is decoded.
        cache: folder that keeps what was encoded.

    Raises:
        DataError: a picture cannot be read or the encoder not be used.
    """
    texts = [picture.captions[number] for picture, number in zip(pictures, chosen, strict=True)]
    paths = [picture.path for picture in pictures]
    labels = [picture.label for picture in pictures]
    several = any(len(picture.captions) > 1 for picture in pictures)
    encoder = functools.cache(lambda: assemble.encoder(settings))
    with _errors_named(settings):
        return Items(
            assemble.model(settings),
            _images(encoder, paths, settings, cache),
            _texts(encoder, texts, settings, cache),
            texts,
            labels if any(labels) else None,
            [picture.name for picture in pictures],
            paths,
            functools.partial(_all_captions, pictures, settings, cache) if several else None,
        )


def loaded(paths: Sequence[Path], settings: Settings, doing: str) -> Iterator[list[Image]]:
    """The pictures in batches, as the stream decodes them, behind a progress bar that says what is done with them.

    Raises:
        DataError: a picture cannot be read.
    """
    named = paths
    paths = [path.resolve() for path in paths]  # data sets are often linked to, and the stream follows no link outside
    folder = Path(os.path.commonpath([path.parent for path in paths]))
    contents = assemble.contents(settings.model_copy(update={"file_root": folder}))
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for start in progress.track(range(0, len(paths), settings.encode_batch_max), description=doing):
            batch = []
            part = paths[start : start + settings.encode_batch_max]
            for number, content in enumerate(contents.load([_upload(path) for path in part]), start):
                if not isinstance(content, Image):
                    raise DataError(f"{named[number]} cannot be read as a picture: {content}")
                batch.append(content)
            yield batch


def fingerprint(paths: Sequence[Path], *made_by: str) -> str:
    """Of what makes something of the pictures and of their bytes: the same data anywhere give the same."""
    digest = _digest(*made_by)
    for path in paths:
        try:
            digest.update(blake2b(path.read_bytes()).digest())
        except OSError as error:
            raise DataError(f"a picture cannot be read: {error}") from error
    return digest.hexdigest()


def fingerprint_of_texts(texts: Sequence[str], *made_by: str) -> str:
    """The same of texts."""
    digest = _digest(*made_by)
    for text in texts:
        digest.update(blake2b(text.encode("utf-8", "surrogatepass")).digest())
    return digest.hexdigest()


def _digest(*made_by: str) -> blake2b:
    return blake2b("\n".join(made_by).encode(), digest_size=16)


@contextlib.contextmanager
def _errors_named(settings: Settings) -> Iterator[None]:
    try:
        yield
    except EncoderError as error:
        raise DataError(f"the encoder {settings.encoder!r} cannot be used: {error}") from error
    except BadInputError as error:
        raise DataError(f"a caption cannot be encoded: {error}") from error


def _all_captions(pictures: Sequence[Picture], settings: Settings, cache: Path) -> Captions:
    texts = [caption for picture in pictures for caption in picture.captions]
    owner = np.repeat(np.arange(len(pictures)), [len(picture.captions) for picture in pictures])
    with _errors_named(settings):
        return Captions(_texts(lambda: assemble.encoder(settings), texts, settings, cache), owner)


def _images(encoder: Callable[[], Encoder], paths: Sequence[Path], settings: Settings, cache: Path) -> Vectors:
    def encode() -> Arrays:
        batches = loaded(paths, settings, f"encoding pictures with {settings.encoder}")
        return {"images": np.concatenate([encoder().encode(IMAGE, batch) for batch in batches])}

    name = fingerprint(paths, assemble.model(settings), settings.encode_precision)
    return cached(cache, name, ("images",), len(paths), encode)["images"]


def _texts(encoder: Callable[[], Encoder], texts: Sequence[str], settings: Settings, cache: Path) -> Vectors:
    def encode() -> Arrays:
        size = settings.encode_batch_max
        doing = f"encoding captions with {settings.encoder}"
        with Progress(console=Console(stderr=True), transient=True) as progress:
            starts = progress.track(range(0, len(texts), size), description=doing)
            return {"texts": np.concatenate([encoder().encode(TEXT, texts[at : at + size]) for at in starts])}

    name = fingerprint_of_texts(texts, assemble.model(settings), settings.encode_precision)
    return cached(cache, name, ("texts",), len(texts), encode)["texts"]


def _upload(path: Path) -> AssetUploaded:
    return AssetUploaded(str(path), 0, 0, str(path), "nobody", IMAGE, uri=path.as_uri())
