"""Encoded bytes come in, an upright RGB image within bounds goes out.

Pillow's door. Size is checked in the header before a pixel is decoded, and the pixels decoded at a time are
bounded over all threads. Knows nothing of where the bytes came from.
"""

from __future__ import annotations

import math
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from zccr_stream.content.limits import DecodeLimits
from zccr_stream.events import BadInputError, TryLaterError

# Pillow reads many more, some by running other programs (EPS) or with parsers that few files exercise.
# JPEG includes MPO, the several pictures in one file of many cameras and phones.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
_EXPECTED = "expected JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"

# Common things that are no image of these formats, told apart to help whoever sent them.
_LOOKS_LIKE = (
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML or SVG document"),
    (b"<!doctype html", "a web page"),
    (b"<html", "a web page"),
    (b"%pdf", "a PDF document"),
    (b"%!ps", "a PostScript document"),
    (b"{", "a JSON document"),
    (b"\x00\x00\x01\x00", "an icon"),
    (b"8bps", "a Photoshop document"),
    (b"\x00\x00\x00\x0cjp  ", "a JPEG 2000 image"),
    (b"\xff\x0a", "a JPEG XL image"),
)

# What Pillow's parsers raise on corrupt data; fuzzing met them all but the last three.
_CORRUPT = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    struct.error,
    zlib.error,
    LookupError,
    TypeError,
    ArithmeticError,
    RuntimeError,
    AttributeError,
    AssertionError,
)

_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# A progressive JPEG may repeat a tiny scan a million times, and each costs a pass over all pixels (0.1 s for
# 64 million). Encoders write 10 to 18, a preview and a second picture in the same file as many again.
_JPEG_SCANS_MAX = 64
_JPEG_PASSES_MAX = 1_000_000_000  # scans x pixels

# A file may also consist of millions of tiny segments or strips, and Pillow handles each in Python: 20 MB of them
# took 17 s, or 800 MB. Large photos are read in some 10,000 parts.
_PARTS_MAX = 100_000


class ImageDecoder:
    """Decodes images; may be used from several threads.

    Raises:
        ValueError: a bound above Pillow's own, or bounds that exclude each other.
    """

    def __init__(self, limits: DecodeLimits) -> None:
        if Image.MAX_IMAGE_PIXELS is not None and limits.pixels_max > Image.MAX_IMAGE_PIXELS:
            raise ValueError(f"pixels_max is {limits.pixels_max:,}, above Pillow's own {Image.MAX_IMAGE_PIXELS:,}")
        if limits.pixels_in_flight_max < limits.pixels_max:
            raise ValueError("pixels_in_flight_max must be at least pixels_max, or the largest image could never start")
        Image.init()  # else the formats that Pillow does not load by itself are unknown to it
        self._limits = limits
        self._pixels = _PixelBudget(limits.pixels_in_flight_max)

    def decode(self, data: bytes, end_s: float) -> Image.Image:
        """Decode the first frame to RGB, upright, transparency on white; begin by `end_s` (monotonic) or not.

        Raises:
            BadInputError: not an image of a known format, corrupt, truncated, or with too many pixels.
            TryLaterError: no memory for it now, or the others being decoded left no room for it in time.
        """
        try:
            with self._pixels.held(self._room_to_open(data), end_s):
                image = Image.open(_Parts(data), formats=_FORMATS)
                self._check_size(image)
            with image, self._pixels.held(image.width * image.height, end_s):
                return self._load(image, data)
        except UnidentifiedImageError as error:
            raise BadInputError("decode", f"the content is {_looks_like(data)}; {_EXPECTED}") from error
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise BadInputError("decode", f"the image has too many pixels; {self._allowed()}") from error
        except _CORRUPT as error:
            raise BadInputError("decode", f"the image is corrupt or truncated: {_reason(error)}") from error
        except MemoryError as error:
            raise TryLaterError("decode", "no memory to decode the image") from error

    def _room_to_open(self, data: bytes) -> int:
        """Pixels' worth of memory that the structure of a file may take: 32 bytes for each of its bytes."""
        return min(2 * len(data), self._limits.pixels_in_flight_max)

    def _check_size(self, image: ImageFile.ImageFile) -> None:
        width, height = image.size
        if len(image.tile) > _PARTS_MAX:
            raise BadInputError("decode", f"the image is cut into {len(image.tile):,} pieces; at most {_PARTS_MAX:,}")
        if width < 1 or height < 1:
            raise BadInputError("decode", f"the image is of {width} x {height} pixels; expected at least 1 x 1")
        if width * height > self._limits.pixels_max:
            message = f"the image is of {width:,} x {height:,} = {width * height:,} pixels; {self._allowed()}"
            raise BadInputError("decode", message)

    def _allowed(self) -> str:
        return f"at most {self._limits.pixels_max:,} are allowed"

    def _load(self, image: Image.Image, data: bytes) -> Image.Image:
        if image.format in ("JPEG", "MPO"):
            scans, pixels = data.count(b"\xff\xda"), image.width * image.height
            if scans > _JPEG_SCANS_MAX or scans * pixels > _JPEG_PASSES_MAX:
                raise BadInputError("decode", f"the JPEG goes over its {pixels:,} pixels in {scans:,} scans, too many")
            side = self._limits.side_min_px
            image.draft("RGB", (side, side))  # the size is a lower bound: nothing that is needed gets lost
        image.load()
        turn = _UPRIGHT.get(_orientation(image))
        shrunk = _shrink(_to_8_bit(image), self._limits.pixels_kept_max)
        flat = _to_rgb(shrunk)
        return flat if turn is None else flat.transpose(turn)


class _Parts(BytesIO):
    """Bytes that may be read in a bounded number of parts."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._left = _PARTS_MAX

    def read(self, size: int | None = -1, /) -> bytes:
        self._left -= 1
        if self._left < 0:
            raise OSError(f"it is made of more than {_PARTS_MAX:,} parts")
        return super().read(size)


def _looks_like(data: bytes) -> str:
    if not data:
        return "empty"
    start = data[:64].removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n").lower() or data[:64]
    if data[4:8] == b"ftyp":
        return f"an ISO media file of brand {data[8:12].decode('latin-1')!r} (HEIC, video)"
    return next((what for prefix, what in _LOOKS_LIKE if start.startswith(prefix)), "not an image that can be read")


def _reason(error: BaseException) -> str:
    return str(error)[:200] or type(error).__name__


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except _CORRUPT:
        return 1  # the pixels are whole: broken metadata only loses the turn


def _to_8_bit(image: Image.Image) -> Image.Image:
    """Bring deep and indexed pixels to a mode that can be scaled."""
    mode = image.mode
    if mode.startswith("I;16"):
        # By the depth, not by the brightest pixel: what is dark stays dark.
        return Image.fromarray((np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8))
    if mode in ("I", "F"):
        return Image.fromarray(_stretched(np.asarray(image, dtype=np.float32)))
    if mode in ("1", "P", "PA", "La", "RGBa") or "transparency" in image.info:
        return image.convert("RGBA" if image.has_transparency_data or mode in ("La", "RGBa") else "RGB")
    return image


def _stretched(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Scale 32-bit pixels, (h, w), to 8 bits.

    The file does not say what is white. Where all lies in 0..1, 0..255 or 0..65535 that range is taken, else
    the range of the pixels.
    """
    values = np.nan_to_num(values)
    low, high = float(values.min()), float(values.max())
    if low >= 0.0:
        low, high = 0.0, next((white for white in (1.0, 255.0, 65535.0) if high <= white), high)
    if high <= low:
        return np.zeros(values.shape, np.uint8)
    scaled = (values / 2 - low / 2) * (255.0 / (high / 2 - low / 2))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def _shrink(image: Image.Image, pixels_max: int) -> Image.Image:
    width, height = image.size
    if width * height <= pixels_max:
        return image
    scale = math.sqrt(pixels_max / (width * height))
    size = (max(1, int(width * scale)), max(1, int(height * scale)))
    return image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA"):
        rgba = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(rgba, mask=rgba.getchannel("A"))
        return white
    return image.convert("RGB") if image.mode != "RGB" else image.copy()


class _PixelBudget:
    """Bounds the pixels that are being decoded at any time."""

    def __init__(self, pixels: int) -> None:
        self._left = pixels
        self._changed = threading.Condition()

    @contextmanager
    def held(self, pixels: int, end_s: float) -> Iterator[None]:
        with self._changed:
            if not self._changed.wait_for(lambda: self._left >= pixels, timeout=end_s - time.monotonic()):
                raise TryLaterError("decode", "other images left no room to decode this one in time")
            self._left -= pixels
        try:
            yield
        finally:
            with self._changed:
                self._left += pixels
                self._changed.notify_all()
