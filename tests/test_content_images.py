"""Decoding of every kind of image, of what only looks like one, and of what was made to do harm."""

import io
import random
import struct
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw, PngImagePlugin

from zccr_stream.content import images
from zccr_stream.content.images import ImageDecoder
from zccr_stream.content.limits import DecodeLimits
from zccr_stream.events import BadInputError, TryLaterError

# Pillow warns of what is odd in a corrupt file, which is what some files here are for.
pytestmark = pytest.mark.filterwarnings(r"ignore::UserWarning:PIL\..*")

_FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")


def _decoder(
    pixels_max: int = 1_000_000,
    pixels_in_flight_max: int = 2_000_000,
    pixels_kept_max: int = 1_000_000,
    side_min_px: int = 64,
) -> ImageDecoder:
    limits = DecodeLimits(
        pixels_max=pixels_max,
        pixels_in_flight_max=pixels_in_flight_max,
        pixels_kept_max=pixels_kept_max,
        side_min_px=side_min_px,
        text_chars_max=1,
    )
    return ImageDecoder(limits)


def _decode(data: bytes, decoder: ImageDecoder | None = None) -> Image.Image:
    return (decoder or _decoder()).decode(data, time.monotonic() + 60)


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def _scene() -> Image.Image:
    """Four plain quarters: red, green, blue, yellow; 64 x 48."""
    image = Image.new("RGB", (64, 48), "red")
    draw = ImageDraw.Draw(image)
    draw.rectangle((32, 0, 63, 23), "lime")
    draw.rectangle((0, 24, 31, 47), "blue")
    draw.rectangle((32, 24, 63, 47), "yellow")
    return image


def _pixels(image: Image.Image) -> npt.NDArray[np.int_]:
    assert image.mode == "RGB"
    return np.asarray(image, dtype=int)


def _at(image: Image.Image, x: float, y: float) -> tuple[int, ...]:
    """The colour at a place given as shares of width and height."""
    return tuple(_pixels(image)[int(y * image.height), int(x * image.width)])


def _near(colour: tuple[int, ...], expected: tuple[int, ...], tolerance: int = 40) -> bool:
    return all(abs(a - b) <= tolerance for a, b in zip(colour, expected, strict=True))


@pytest.mark.parametrize("kind", _FORMATS)
def test_every_format_is_read(kind: str) -> None:
    image = _decode(_encoded(_scene(), kind))
    assert image.size == (64, 48)
    assert _near(_at(image, 0.25, 0.25), (255, 0, 0))
    assert _near(_at(image, 0.75, 0.25), (0, 255, 0))
    assert _near(_at(image, 0.25, 0.75), (0, 0, 255))
    assert _near(_at(image, 0.75, 0.75), (255, 255, 0))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_image_is_turned_upright(kind: str, orientation: int) -> None:
    """The stored pixels are turned by the inverse of what each value of the tag asks for."""
    inverse = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = _scene() if orientation == 1 else _scene().transpose(inverse[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = _decode(_encoded(stored, kind, exif=exif))
    assert image.size == (64, 48)
    assert _near(_at(image, 0.25, 0.25), (255, 0, 0))
    assert _near(_at(image, 0.25, 0.75), (0, 0, 255))


@pytest.mark.parametrize(
    "exif", [b"Exif\x00\x00garbage", b"Exif\x00\x00II*\x00\xff\xff\xff\xff", b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00"]
)
def test_broken_metadata_does_not_lose_the_image(exif: bytes) -> None:
    assert _decode(_encoded(_scene(), "JPEG", exif=exif)).size == (64, 48)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_becomes_rgb(kind: str) -> None:
    image = _decode(_encoded(Image.new("CMYK", (20, 10), (0, 255, 255, 0)), kind))
    assert _near(_at(image, 0.5, 0.5), (255, 0, 0))


def test_ycbcr_becomes_rgb() -> None:
    image = _decode(_encoded(Image.new("RGB", (32, 32), (200, 30, 30)).convert("YCbCr"), "TIFF"))
    assert _near(_at(image, 0.5, 0.5), (200, 30, 30))


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
def test_a_palette_becomes_its_colours(kind: str) -> None:
    image = _decode(_encoded(_scene().quantize(8), kind))
    assert _near(_at(image, 0.75, 0.25), (0, 255, 0))


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "1"), ("PNG", "L"), ("TIFF", "1"), ("TIFF", "L"), ("JPEG", "L"), ("BMP", "1")]
)
def test_grey_becomes_rgb(kind: str, mode: str) -> None:
    image = _decode(_encoded(Image.new("L", (20, 10), 255).convert(mode), kind))
    assert _near(_at(image, 0.5, 0.5), (255, 255, 255), 2)


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "RGBA"), ("WEBP", "RGBA"), ("TIFF", "RGBA"), ("AVIF", "RGBA"), ("PNG", "LA")]
)
def test_what_is_transparent_is_white_and_what_is_half_is_half(kind: str, mode: str) -> None:
    source = Image.new("RGBA", (60, 20), (0, 0, 0, 0))
    source.paste((0, 0, 0, 128), (20, 0, 40, 20))
    source.paste((0, 0, 0, 255), (40, 0, 60, 20))
    options = {"lossless": True} if kind == "WEBP" else {}
    image = _decode(_encoded(source.convert(mode), kind, **options))
    assert _near(_at(image, 1 / 6, 0.5), (255, 255, 255), 3)
    assert _near(_at(image, 3 / 6, 0.5), (127, 127, 127), 4)
    assert _near(_at(image, 5 / 6, 0.5), (0, 0, 0), 3)


def test_transparent_entries_of_a_palette_are_white() -> None:
    source = Image.new("P", (20, 10), 1)
    source.putpalette([10, 20, 30, 200, 0, 0])
    source.paste(0, (0, 0, 10, 10))
    for options in ({"transparency": 0}, {"transparency": bytes([0, 255])}):
        for kind in ("PNG", "GIF") if options["transparency"] == 0 else ("PNG",):
            image = _decode(_encoded(source, kind, **options))
            assert _at(image, 0.25, 0.5) == (255, 255, 255)
            assert _at(image, 0.75, 0.5) == (200, 0, 0)


@pytest.mark.parametrize(("mode", "key"), [("RGB", (1, 2, 3)), ("L", 7)])
def test_a_transparent_colour_is_white(mode: str, key: Any) -> None:
    image = _decode(_encoded(Image.new(mode, (10, 10), key), "PNG", transparency=key))
    assert _at(image, 0.5, 0.5) == (255, 255, 255)


def _ramp(dtype: Any, high: float) -> npt.NDArray[Any]:
    return np.tile(np.linspace(0, high, 256), (16, 1)).astype(dtype)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_by_its_depth(kind: str) -> None:
    """Neither clipped to white above 255 nor stretched: a ramp stays a ramp, what is dark stays dark."""
    pixels = np.tile(np.arange(256, dtype=np.uint16) * 256 + 99, (16, 1))
    ramp = _decode(_encoded(Image.fromarray(pixels), kind))
    assert np.abs(_pixels(ramp)[0, :, 0] - np.arange(256)).max() <= 1
    dark = _decode(_encoded(Image.fromarray(np.full((8, 8), 2570, np.uint16)), kind))
    assert _at(dark, 0.5, 0.5) == (10, 10, 10)


def test_big_endian_16_bit_grey_is_read() -> None:
    pixels = np.tile(np.arange(256) * 256 + 99, (16, 1)).astype(">u2")
    entries = [
        *((256, 3, 256), (257, 3, 16), (258, 3, 16), (259, 3, 1), (262, 3, 1), (277, 3, 1), (278, 3, 16)),
        *((273, 4, 200), (279, 4, pixels.nbytes)),
    ]
    directory = b"".join(
        struct.pack(">HHI", tag, kind, 1) + (struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value))
        for tag, kind, value in sorted(entries)
    )
    head = b"MM\x00*" + struct.pack(">I", 8) + struct.pack(">H", len(entries)) + directory + bytes(4)
    image = _decode(head.ljust(200, b"\0") + pixels.tobytes())
    assert np.abs(_pixels(image)[0, :, 0] - np.arange(256)).max() <= 1


@pytest.mark.parametrize("high", [1.0, 255.0, 65535.0, 1e9, 3e38])
def test_float_pixels_are_scaled_to_what_holds_them(high: float) -> None:
    image = _decode(_encoded(Image.fromarray(_ramp(np.float32, high)), "TIFF"))
    assert np.abs(_pixels(image)[0, :, 0] - np.arange(256)).max() <= 1


def test_pixels_that_are_no_numbers_are_black_or_white() -> None:
    values = np.array([[np.nan, 0.0, 0.5, 1.0]], np.float32)
    assert list(_pixels(_decode(_encoded(Image.fromarray(values), "TIFF")))[0, :, 0]) == [0, 0, 128, 255]
    values = np.array([[-np.inf, 0.0, np.inf]], np.float32)
    assert list(_pixels(_decode(_encoded(Image.fromarray(values), "TIFF")))[0, :, 0]) == [0, 128, 255]


@pytest.mark.parametrize("high", [255, 65535, 2**31 - 1])
def test_32_bit_integers_are_scaled_to_what_holds_them(high: int) -> None:
    image = _decode(_encoded(Image.fromarray(_ramp(np.int32, high)), "TIFF"))
    assert np.abs(_pixels(image)[0, :, 0] - np.arange(256)).max() <= 1


def test_constant_32_bit_pixels_are_an_image() -> None:
    assert _at(_decode(_encoded(Image.fromarray(np.full((4, 4), -5, np.int32)), "TIFF")), 0, 0) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "AVIF", "MPO"])
def test_of_an_animation_the_first_frame_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    image = _decode(_encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert _near(_at(image, 0.5, 0.5), (255, 0, 0))


# Size


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 2)])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF"])
def test_tiny_and_extreme_shapes_are_images(kind: str, size: tuple[int, int]) -> None:
    assert _decode(_encoded(Image.new("RGB", size), kind)).size == size


@pytest.mark.parametrize(
    ("kind", "mode"), [("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "P"), ("TIFF", "CMYK"), ("PNG", "I;16"), ("TIFF", "F")]
)
def test_large_images_are_scaled_down_keeping_their_shape(kind: str, mode: str) -> None:
    image = Image.fromarray(np.zeros((300, 900), np.uint16)) if mode == "I;16" else Image.new(mode, (900, 300))
    kept = _decode(_encoded(image, kind), _decoder(pixels_kept_max=10_000))
    assert kept.width * kept.height <= 10_000
    assert kept.width * kept.height > 9_000
    assert kept.width / kept.height == pytest.approx(3, rel=0.05)


def test_scaling_keeps_the_picture_and_does_not_mix_transparent_pixels_in() -> None:
    kept = _decode(
        _encoded(_scene().resize((640, 480), Image.Resampling.NEAREST), "PNG"), _decoder(pixels_kept_max=3072)
    )
    assert _near(_at(kept, 0.25, 0.25), (255, 0, 0), 2)
    stripes = Image.new("RGBA", (400, 400), (0, 0, 0, 0))  # black, were it not transparent
    ImageDraw.Draw(stripes).rectangle((0, 0, 399, 199), (255, 0, 0, 255))
    kept = _decode(_encoded(stripes, "PNG"), _decoder(pixels_kept_max=1600))
    assert all(_near(tuple(pixel), (255, pixel[1], pixel[1]), 3) for pixel in _pixels(kept).reshape(-1, 3))


def test_a_jpeg_is_decoded_no_larger_than_needed_and_no_smaller() -> None:
    data = _encoded(_scene().resize((640, 480)), "JPEG")
    assert _decode(data, _decoder(side_min_px=60)).size == (80, 60)
    assert _decode(data, _decoder(side_min_px=61)).size == (160, 120)
    assert _decode(data, _decoder(side_min_px=240)).size == (320, 240)
    assert _decode(data, _decoder(side_min_px=241)).size == (640, 480)


@pytest.mark.parametrize("kind", _FORMATS)
def test_too_many_pixels_are_refused_with_the_numbers(kind: str) -> None:
    data = _encoded(Image.new("RGB", (200, 100)), kind)
    assert _decode(data, _decoder(pixels_max=20_000)).size == (200, 100)
    with pytest.raises(BadInputError, match=r"200 x 100 = 20,000 pixels; at most 19,999 are allowed"):
        _decode(data, _decoder(pixels_max=19_999))


def _png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes((3 * width + 1) * height)) if width * height < 10_000 else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + b"".join(chunk(*c) for c in chunks)
        + chunk(b"IDAT", body)
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize("side", [2_000, 20_000, 2**31 - 1])
def test_a_bomb_is_refused_by_its_header(side: int) -> None:
    start_s = time.monotonic()
    with pytest.raises(BadInputError, match="pixels"):
        _decode(_png(side, side))
    assert time.monotonic() - start_s < 5


@pytest.mark.parametrize("kind", ["GIF", "WEBP"])
def test_a_huge_canvas_around_a_small_frame_is_refused(kind: str) -> None:
    frames = [Image.new("RGB", (100, 100), colour) for colour in ("red", "lime")]
    data = bytearray(_encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    if kind == "GIF":
        data[6:10] = struct.pack("<HH", 65535, 65535)
    else:
        canvas = data.index(b"VP8X") + 12
        data[canvas : canvas + 6] = (16382).to_bytes(3, "little") * 2
    with pytest.raises(BadInputError, match="pixels"):
        _decode(bytes(data))


def test_an_image_without_pixels_is_refused() -> None:
    for width, height in ((0, 5), (5, 0)):
        with pytest.raises(BadInputError):
            _decode(_png(width, height))


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_bomb_in_metadata_does_no_harm(kind: bytes) -> None:
    packed = zlib.compress(bytes(80_000_000))
    start = {b"zTXt": b"key\0\0", b"iTXt": b"key\0\1\0\0\0", b"iCCP": b"name\0\0"}[kind]
    start_s = time.monotonic()
    try:
        image = _decode(_png(4, 4, *[(kind, start + packed)] * 5))
    except BadInputError:
        pass
    else:
        assert image.size == (4, 4)
    assert time.monotonic() - start_s < 20


def test_a_jpeg_that_repeats_its_scans_is_refused() -> None:
    data = _encoded(Image.new("RGB", (100, 100), "white"), "JPEG", progressive=True)
    last_scan = data[data.rindex(b"\xff\xda") : -2]
    _decode(data[:-2] + last_scan * 50 + b"\xff\xd9")
    with pytest.raises(BadInputError, match=r"10,000 pixels in 5,010 scans, too many"):
        _decode(data[:-2] + last_scan * 5_000 + b"\xff\xd9")


def test_the_more_pixels_the_fewer_scans(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _encoded(Image.new("RGB", (100, 100), "white"), "JPEG", progressive=True)
    monkeypatch.setattr(images, "_JPEG_PASSES_MAX", 100_000)
    _decode(data)
    monkeypatch.setattr(images, "_JPEG_PASSES_MAX", 99_999)
    with pytest.raises(BadInputError, match=r"10,000 pixels in 10 scans, too many"):
        _decode(data)


def _gif_of_comments(size: int) -> bytes:
    data = _encoded(_scene(), "GIF")
    palette = 13 + 3 * (2 << (data[10] & 7))
    return data[:palette] + b"\x21\xfe\x01x\0" * (size // 5) + data[palette:]


def _tiff_of_strips(count: int) -> bytes:
    tags = [
        *((256, 3, 1, 900), (257, 3, 1, 900), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (277, 3, 1, 1)),
        *((278, 3, 1, 1), (273, 4, count, 1_000), (279, 4, count, 1_000 + 4 * count)),
    ]
    directory = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(tags)) + directory + bytes(4)
    return head.ljust(1_000, b"\0") + struct.pack("<I", 500) * count + struct.pack("<I", 900) * count


_IN_PIECES = {
    "GIF comments": _gif_of_comments(2_000_000),
    "JPEG segments": _encoded(_scene(), "JPEG").replace(b"\xff\xd8", b"\xff\xd8" + b"\xff\xfe\0\2" * 500_000, 1),
    "JPEG padding": _encoded(_scene(), "JPEG").replace(b"\xff\xd8", b"\xff\xd8" + b"\xff" * 2_000_000, 1),
    "PNG chunks": _png(4, 4, *[(b"abCd", b"")] * 200_000),
    "TIFF strips": _tiff_of_strips(200_000),
}


@pytest.mark.parametrize("name", _IN_PIECES)
def test_a_file_in_too_many_pieces_is_refused(name: str) -> None:
    """Pillow goes over them one by one: without a bound, 20 MB of them keep a processor busy for 10 to 20 s."""
    message = "200,000 pieces; at most 100,000" if name == "TIFF strips" else "more than 100,000 parts"
    with pytest.raises(BadInputError, match=message):
        _decode(_IN_PIECES[name])


def test_tags_that_overlap_do_not_multiply_what_is_read() -> None:
    """A thousand tags that each name the whole file would make 1 GB of 1 MB."""
    tags = b"".join(struct.pack("<HHII", 300 + tag, 1, 1_000_000, 0) for tag in range(1_000))
    data = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 1_000) + tags + bytes(1_000_000)
    tracemalloc.start()
    with pytest.raises(BadInputError):
        _decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50_000_000


def test_progressive_jpegs_are_read() -> None:
    assert _near(_at(_decode(_encoded(_scene(), "JPEG", progressive=True)), 0.25, 0.75), (0, 0, 255))


def test_pixels_in_flight_are_bounded_and_released() -> None:
    """While one image holds the room, another that does not fit waits, and gives up in time."""
    decoder = _decoder(pixels_max=3_072, pixels_in_flight_max=5_000)
    data = _encoded(_scene(), "PNG")
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with decoder._pixels.held(3_000, time.monotonic() + 60):
            entered.set()
            leave.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert entered.wait(60)
    with pytest.raises(TryLaterError, match="no room"):
        decoder.decode(data, time.monotonic() + 0.1)
    threading.Timer(0.1, leave.set).start()
    assert decoder.decode(data, time.monotonic() + 60).size == (64, 48)
    holder.join()
    for _ in range(5):  # a failure gives its room back too
        with pytest.raises(BadInputError):
            decoder.decode(data[:-60], time.monotonic() + 60)


def test_limits_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(ValueError, match="could never start"):
        _decoder(pixels_max=10, pixels_in_flight_max=9)
    with pytest.raises(ValueError, match="above Pillow's own"):
        _decoder(pixels_max=10**9, pixels_in_flight_max=10**9)


# What is no image


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"\xef\xbb\xbf\n<?xml version='1.0'?><svg/>", "an XML or SVG document"),
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"%PDF-1.7 ...", "a PDF document"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "a PostScript document"),
        (b'{"error": "not found"}', "a JSON document"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "HEIC"),
        (b"\x00\x00\x01\x00\x01\x00\x10\x10", "an icon"),
        (b"hello", "not an image that can be read"),
        (bytes(1000), "not an image that can be read"),
    ],
)
def test_what_is_no_image_is_named_and_what_is_expected_too(data: bytes, message: str) -> None:
    with pytest.raises(
        BadInputError, match=rf"{message}.*; expected JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF"
    ) as caught:
        _decode(data)
    assert caught.value.stage == "decode"


@pytest.mark.parametrize("kind", ["EPS", "ICO", "PPM", "TGA", "PCX", "JPEG2000", "ICNS", "SGI"])
def test_formats_that_are_not_on_the_list_are_refused(kind: str) -> None:
    with pytest.raises(BadInputError, match="expected JPEG"):
        _decode(_encoded(Image.new("RGB", (32, 32)), kind))


def test_lab_is_rgb_or_bad_input() -> None:
    """Which of the two depends on the version of Pillow."""
    _outcome(_encoded(Image.new("LAB", (8, 8)), "TIFF"), _decoder())


# Corrupt files


def _samples() -> Iterator[tuple[str, bytes]]:
    noise = Image.fromarray(np.random.default_rng(7).integers(0, 255, (48, 64, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "a description"
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "words " * 50, zip=True)
    for kind in _FORMATS:
        yield kind, _encoded(noise, kind, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF") else {}))
    yield "PNG palette", _encoded(noise.quantize(16), "PNG", transparency=3, pnginfo=text)
    yield "PNG 16 bit", _encoded(Image.fromarray(_ramp(np.uint16, 65535)), "PNG")
    yield "JPEG progressive", _encoded(noise, "JPEG", progressive=True)
    yield "JPEG CMYK", _encoded(noise.convert("CMYK"), "JPEG")
    yield "GIF animated", _encoded(noise, "GIF", save_all=True, append_images=[_scene()])
    yield "WEBP animated", _encoded(noise, "WEBP", save_all=True, append_images=[_scene()])
    for compression in ("tiff_lzw", "tiff_deflate", "packbits", "jpeg"):
        yield f"TIFF {compression}", _encoded(noise, "TIFF", compression=compression)


_SAMPLES = dict(_samples())


@pytest.mark.parametrize("name", _SAMPLES)
def test_a_truncated_file_is_bad_input(name: str) -> None:
    """Half of it never passes for the whole; wherever it is cut, nothing but an outcome comes out."""
    data = _SAMPLES[name]
    decoder = _decoder()
    with pytest.raises(BadInputError):
        _decode(data[: len(data) // 2], decoder)
    for cut in range(0, len(data), max(1, len(data) // 40)):
        _outcome(data[:cut], decoder)


@pytest.mark.parametrize("name", _SAMPLES)
def test_a_file_with_flipped_bits_is_an_image_or_bad_input_in_time(name: str) -> None:
    chance = random.Random(name)
    decoder = _decoder()
    start_s = time.monotonic()
    for _ in range(150):
        data = bytearray(_SAMPLES[name])
        # Half the flips hit the header, where the structure is.
        for _ in range(chance.choice((1, 1, 2, 8))):
            place = chance.randrange(min(len(data), 128)) if chance.random() < 0.5 else chance.randrange(len(data))
            data[place] ^= 1 << chance.randrange(8)
        _outcome(bytes(data), decoder)
    assert time.monotonic() - start_s < 60


def _outcome(data: bytes, decoder: ImageDecoder) -> None:
    try:
        image = _decode(data, decoder)
    except (BadInputError, TryLaterError) as error:
        assert str(error)
    else:
        assert image.mode == "RGB"
        assert image.width * image.height <= 1_000_000
