"""Uploads as people make them, for benchmarks: photos and sentences come in or are made, `asset-uploaded` goes out.

Made photos have the size, the smoothness and the grain of what phones send through messengers: they cost what real
ones cost to fetch and decode, and mean nothing. Real ones come from a folder. Every upload is a new asset.
"""

from __future__ import annotations

import base64
import io
import json
import random
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
from PIL import Image

from zccr_stream.events import IMAGE, TEXT, AssetUploaded, Message, dump_input

SOURCE = "bench"
SIZES_PX = ((640, 480), (480, 640), (500, 375), (224, 224))
MADE = 192  # more than a batch, so that no batch holds a photo twice
_VOCABULARY = (
    "a the my our two some old small young happy brown dog child woman man bicycle beach street kitchen garden river "
    "mountain bread soup guitar train runs jumps waits sleeps plays stands with near over under behind at in red blue"
)


@dataclass(frozen=True, slots=True)
class Media:
    """What may be uploaded: photos as `data:` URIs, and sentences."""

    photos: Sequence[str]
    sentences: Sequence[str]


def made_media() -> Media:
    """Photos and sentences out of noise, the same in every run."""
    noise, words, vocabulary = np.random.default_rng(0), random.Random(0), _VOCABULARY.split()
    photos = [_photo(noise, SIZES_PX[number % len(SIZES_PX)]) for number in range(MADE)]
    return Media(photos, [" ".join(words.choices(vocabulary, k=words.randint(6, 24))) for _ in range(20 * MADE)])


def read_media(folder: Path) -> Media:
    """Photos and sentences of a folder with `captions.jsonl`: lines of `{"image", "captions"}`, files in `images/`."""
    lines = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()][:1000]
    photos = [data_uri((folder / "images" / line["image"]).read_bytes()) for line in lines]
    return Media(photos, [caption for line in lines for caption in line["captions"]])


def _photo(noise: np.random.Generator, size_px: tuple[int, int]) -> str:
    width, height = size_px
    coarse = noise.integers(0, 256, (height // 40, width // 40, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize(size_px, Image.Resampling.BICUBIC), np.float32)
    grained = smooth + noise.normal(0, 6, smooth.shape)
    encoded = io.BytesIO()
    Image.fromarray(grained.clip(0, 255).astype(np.uint8)).save(encoded, "JPEG", quality=85)
    return data_uri(encoded.getvalue())


def data_uri(jpeg: bytes) -> str:
    """A photo that needs no fetching."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def uploads(media: Media, users: int, image_share: float) -> Iterator[AssetUploaded]:
    """New assets without end, of so many users in turn: a user's uploads are as far apart as can be."""
    kinds = random.Random(1)
    photos, sentences = 0, 0
    for number in count():
        now_ns = time.time_ns()
        image = kinds.random() < image_share
        photos, sentences = photos + image, sentences + (not image)
        yield AssetUploaded(
            event_id=str(uuid.uuid4()),
            occurred_at_ns=now_ns,
            received_at_ms=now_ns // 1_000_000,
            asset_id=str(uuid.uuid4()),
            user_id=f"user-{number % users}",
            modality=IMAGE if image else TEXT,
            uri=media.photos[photos % len(media.photos)] if image else None,
            text=None if image else f"{media.sentences[sentences % len(media.sentences)]} {number}",
        )


def message(upload: AssetUploaded) -> Message:
    """The upload as it is published."""
    return dump_input(upload, SOURCE)
