"""A pair of towers, images and texts, run as one encoder: contents come in, unit vectors go out.

Checks contents, prepares images side by side, groups texts by length so that little is padded, bounds each forward
pass and halves it when the GPU's memory does not hold it. Knows nothing of which model the towers are.
"""

from __future__ import annotations

import logging
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from PIL.Image import Image
from safetensors import SafetensorError
from torch import Tensor

from zccr_stream.encoders import EncoderError
from zccr_stream.events import IMAGE, TEXT, BadInputError

if TYPE_CHECKING:  # an encoder alone needs nothing of what the pipeline imports
    from tokenizers import Tokenizer

    from zccr_stream.parts import Content

logger = logging.getLogger(__name__)

LOAD_ERRORS = (
    *(AssertionError, AttributeError, EOFError, ImportError, KeyError, OSError, RuntimeError, TypeError, ValueError),
    *(pickle.UnpicklingError, SafetensorError),
)
"""What loaders of models let through when a file holds something else or a download fails."""

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}

TEXT_CHARS_MAX = 8192
"""Characters of a text that are read: far more than the few hundred tokens any tower takes, and quick to tokenize."""

ASPECT_MAX = 16
"""Longer pictures lose their ends: resizing the shorter side of a strip would make the longer one any size."""

GROUP_SIZE_MIN = 8
"""Texts in a group before it may be closed to save padding: smaller passes cost more than they save."""


@dataclass(frozen=True, slots=True)
class Towers:
    """What a model brings; all rows are independent of each other.

    Attributes:
        model: name of the space.
        dimension: d.
        prepare: one RGB image to pixels (3, h, w).
        tokenize: n texts to token ids (n, l), padded on the right, and how many of each to keep, (n,) int64.
        images: pixels (b, 3, h, w) to features (b, d).
        texts: ids (b, l) and lengths (b,) to features (b, d); l is the greatest of the lengths.
    """

    model: str
    dimension: int
    prepare: Callable[[Image], Tensor]
    tokenize: Callable[[list[str]], tuple[Tensor, Tensor]]
    images: Callable[[Tensor], Tensor]
    texts: Callable[[Tensor, Tensor], Tensor]


class TowersEncoder:
    """An encoder over a pair of towers; may be called from any thread, one forward pass at a time.

    Attributes:
        device: where it runs, such as `cuda:0`.
        precision: what it multiplies in: fp32, bf16 or fp16.
    """

    def __init__(self, towers: Towers, device: torch.device, precision: str, batch_max: int, threads_max: int) -> None:
        self.device = str(device)
        self.precision = precision
        self._towers = towers
        self._batch_max = batch_max
        self._pool = ThreadPoolExecutor(threads_max, thread_name_prefix="prepare")
        self._forward = threading.Lock()

    @property
    def model(self) -> str:
        """The name of the space."""
        return self._towers.model

    @property
    def dimension(self) -> int:
        """Length of the vectors, d."""
        return self._towers.dimension

    def encode(self, modality: str, contents: Sequence[Content]) -> npt.NDArray[np.float32]:
        """Encode n contents of one modality to (n, d) unit vectors.

        A content's vector does not depend on the batch it comes in: in fp32 to one float16 step (a millionth below
        a thousandth), in fp16 to a cosine of .9999 and in bf16 of .999, as kernels round by the batch's size.

        Raises:
            BadInputError: a text without a visible character as far as it is read.
        """
        if modality == IMAGE:
            batches = self._image_batches(_images(contents))
        elif modality == TEXT:
            batches = self._text_batches(_texts(contents))
        else:
            raise ValueError(f"modality {modality!r}: this encoder has {IMAGE} and {TEXT}")
        vectors = np.empty((len(contents), self.dimension), np.float32)
        tower = self._towers.images if modality == IMAGE else self._towers.texts
        with torch.inference_mode(), self._autocast():
            for rows, inputs in batches:
                vectors[rows] = self._unit(tower, inputs)
        return vectors

    def _autocast(self) -> torch.autocast:
        dtype = PRECISIONS[self.precision]
        return torch.autocast(torch.device(self.device).type, dtype, dtype is not None)

    def _image_batches(self, images: Sequence[Image]) -> Iterator[tuple[Sequence[int], tuple[Tensor, ...]]]:
        """Pixels in batches; the next batch is prepared while the caller has this one."""
        size = self._batch_max
        ahead: list[Future[Tensor]] = []
        for start in [*range(0, len(images), size), len(images)]:
            ready = ahead
            ahead = [self._pool.submit(self._prepare, image) for image in images[start : start + size]]
            if ready:
                pixels = torch.stack([future.result() for future in ready])
                yield range(start - len(ready), start), (pixels,)

    def _prepare(self, image: Image) -> Tensor:
        width, height = min(image.width, ASPECT_MAX * image.height), min(image.height, ASPECT_MAX * image.width)
        if (width, height) != image.size:
            left, top = (image.width - width) // 2, (image.height - height) // 2
            image = image.crop((left, top, left + width, top + height))
        return self._towers.prepare(image)

    def _text_batches(self, texts: list[str]) -> Iterator[tuple[Sequence[int], tuple[Tensor, ...]]]:
        """Token ids in batches of like length, each cut to its longest."""
        if not texts:
            return
        tokens, lengths = self._towers.tokenize(texts)
        order = torch.argsort(lengths, stable=True)
        for group in _groups(lengths[order].tolist(), self._batch_max):
            rows = order[group]
            yield rows.tolist(), (tokens[rows, : int(lengths[rows[-1]])], lengths[rows])

    def _unit(self, tower: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> npt.NDArray[np.float32]:
        """Run a tower over b rows and return unit vectors (b, d)."""
        features = self._run(tower, inputs).float()
        if not torch.isfinite(features).all():
            raise EncoderError(
                f"{self.model} gives numbers that are not finite in this precision: set the precision to bf16 or fp32"
            )
        unit: npt.NDArray[np.float32] = torch.nn.functional.normalize(features, dim=1).cpu().numpy()
        return unit

    def _run(self, tower: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> Tensor:
        """Run a tower in passes that fit; once a pass does not fit the GPU, it and all later ones are halved."""
        size, start, outputs = len(inputs[0]), 0, []
        while start < size:
            stop = min(size, start + self._batch_max)
            try:
                with self._forward:
                    outputs.append(tower(*(rows[start:stop].to(self.device) for rows in inputs)))
                start = stop
            except torch.OutOfMemoryError:
                if stop - start == 1:
                    raise
                self._batch_max = (stop - start) // 2
                logger.warning("%d contents do not fit the GPU's memory; going on with fewer at once", stop - start)
        return torch.cat(outputs)


def _groups(lengths: Sequence[int], batch_max: int) -> Iterator[slice]:
    """Cut ascending lengths into groups that pad no text by more than a quarter, unless the group would be small."""
    start = 0
    for row, length in enumerate(lengths):
        wasteful = row - start >= GROUP_SIZE_MIN and length > lengths[start] * 5 // 4
        if row - start == batch_max or wasteful:
            yield slice(start, row)
            start = row
    if start < len(lengths):
        yield slice(start, len(lengths))


def _images(contents: Sequence[Content]) -> list[Image]:
    images = [content for content in contents if isinstance(content, Image)]
    if len(images) != len(contents):
        raise TypeError(f"modality {IMAGE}: expected PIL images")
    return images


def _texts(contents: Sequence[Content]) -> list[str]:
    """Check n texts and bound them; a lone surrogate, which no tokenizer takes, becomes a question mark."""
    texts = []
    for content in contents:
        if not isinstance(content, str):
            raise TypeError(f"modality {TEXT}: expected str")
        text = content.strip()[:TEXT_CHARS_MAX]
        if not any(character.isprintable() and not character.isspace() for character in text):
            raise BadInputError(
                "encode",
                f"the text is empty as far as it is read, {TEXT_CHARS_MAX:,} characters; send at least one word",
            )
        texts.append(text.encode("utf-8", "replace").decode("utf-8"))
    return texts


def choose_device(device: str) -> torch.device:
    """Turn `auto`, `cpu`, `cuda` or `cuda:N` into a device that is there.

    Raises:
        EncoderError: a GPU was asked for and is not there.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cpu":
        return torch.device(device)
    kind, _, number = device.partition(":")
    if kind != "cuda" or not (number.isdecimal() or device == "cuda"):
        raise EncoderError(f"device {device!r}: expected auto, cpu, cuda or cuda:N")
    if not torch.cuda.is_available():
        raise EncoderError(
            f"device {device!r}: this process sees no CUDA GPU; check the driver and that torch is a CUDA build "
            f"(here {torch.__version__}), or set the device to cpu"
        )
    if int(number or 0) >= torch.cuda.device_count():
        raise EncoderError(f"device {device!r}: there are {torch.cuda.device_count()} GPUs, counted from 0")
    return torch.device(device)


def choose_precision(precision: str, device: torch.device) -> str:
    """Turn `auto`, `fp32`, `bf16` or `fp16` into what the device multiplies in.

    On a CPU by its features, not by a measurement, so that a machine always chooses alike.

    Raises:
        EncoderError: no such precision.
    """
    if precision in PRECISIONS:
        return precision
    if precision != "auto":
        raise EncoderError(f"precision {precision!r}: expected auto, {', '.join(PRECISIONS)}")
    if device.type == "cuda":
        # Vectors are stored in float16, and fp16 rounds eight times finer than bf16 at the same speed.
        return "fp16"
    can = torch.cpu.get_capabilities()
    return "bf16" if can.get("avx512_bf16") or can.get("amx_bf16") else "fp32"


def padded(tokenizer: Tokenizer, tokens_max: int) -> Callable[[list[str]], tuple[Tensor, Tensor]]:
    """Let a tokenizer cut texts to their first tokens and give padded ids and lengths, as `Towers` has them."""
    tokenizer.enable_truncation(tokens_max)
    tokenizer.enable_padding()

    def tokenize(texts: list[str]) -> tuple[Tensor, Tensor]:
        encodings = tokenizer.encode_batch_fast(texts)
        tokens = torch.tensor([encoding.ids for encoding in encodings])
        return tokens, torch.tensor([encoding.attention_mask for encoding in encodings]).sum(dim=1)

    return tokenize
