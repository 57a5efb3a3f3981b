"""Loading a batch: order, side by side, bounds, every source, texts. Web and images have test files of their own."""

import base64
import importlib
import io
import os
import socket
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from tests.content_server import Request, Server
from tests.waiting import wait_until
from zccr_stream.content import ContentLoader, DecodeLimits, FetchLimits
from zccr_stream.content.fetched import Fetched, declared_charset
from zccr_stream.content.loader import SCHEMES
from zccr_stream.content.stores import StoreReader
from zccr_stream.content.texts import clean_text, decode_text
from zccr_stream.events import IMAGE, TEXT, AssetUploaded, BadInputError, TryLaterError

_PATIENCE_S = 10.0  # over a deadline, on a machine that does much else at the same time
_DECODE = DecodeLimits(
    pixels_max=1_000_000, pixels_in_flight_max=2_000_000, pixels_kept_max=500_000, side_min_px=64, text_chars_max=1_000
)

MakeLoader = Callable[..., ContentLoader]


@pytest.fixture
def make_loader() -> Iterator[MakeLoader]:
    loaders: list[ContentLoader] = []

    def make(**changes: Any) -> ContentLoader:
        limits: dict[str, Any] = {
            "schemes": frozenset({"data", "file", "http", "https"}),
            "private_networks": ("127.0.0.1/32",),
            "ca_file": None,
            "store_prefixes": (),
            "store_options": {},
            "file_root": None,
            "image_bytes_max": 100_000,
            "text_bytes_max": 5_000,
            "redirects_max": 3,
            "connect_timeout_s": 2.0,
            "timeout_s": 20.0,
            "batch_timeout_s": 60.0,
            "concurrency": 8,
        }
        loaders.append(ContentLoader(FetchLimits(**(limits | changes)), _DECODE))
        return loaders[-1]

    yield make
    for loader in loaders:
        loader.close()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server().serving() as server:
        yield server


def _upload(modality: str, uri: str | None = None, text: str | None = None) -> AssetUploaded:
    return AssetUploaded("event", 0, 0, "asset", "user", modality, uri, text)


def _png(colour: str = "red", size: tuple[int, int] = (8, 6)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def _data_uri(data: bytes, media_type: str) -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def _only(loader: ContentLoader, upload: AssetUploaded) -> Image.Image | str:
    """The content of one upload; raises where there is none."""
    [outcome] = loader.load([upload])
    if isinstance(outcome, BadInputError | TryLaterError):
        raise outcome
    return outcome


# Batches


def test_a_batch_gives_one_outcome_per_upload_in_order(make_loader: MakeLoader, server: Server, tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(_png("blue"))
    server.answers["/green.png"] = lambda r: r.answer(200, _png("lime"))
    server.answers["/busy"] = lambda r: r.answer(503)
    outcomes = make_loader(file_root=str(tmp_path)).load(
        [
            _upload(TEXT, text="a dog on a beach"),
            _upload(IMAGE, server.url("/missing")),
            _upload(IMAGE, server.url("/green.png")),
            _upload(IMAGE, server.url("/busy")),
            _upload(IMAGE, (tmp_path / "photo.png").as_uri()),
            _upload(IMAGE, _data_uri(b"no picture", "image/png")),
            _upload(IMAGE, _data_uri(_png("red"), "image/png")),
            _upload(TEXT, "data:,two%20boats"),
            _upload(TEXT, text=" "),
        ]
    )
    assert [type(outcome) for outcome in outcomes] == [
        *(str, BadInputError, Image.Image, TryLaterError, Image.Image, BadInputError, Image.Image, str, BadInputError)
    ]
    colours = [outcome.getpixel((0, 0)) for outcome in outcomes if isinstance(outcome, Image.Image)]
    assert colours == [(0, 255, 0), (0, 0, 255), (255, 0, 0)]
    assert [outcome for outcome in outcomes if isinstance(outcome, str)] == ["a dog on a beach", "two boats"]
    stages = [outcome.stage for outcome in outcomes if isinstance(outcome, BadInputError | TryLaterError)]
    assert stages == ["fetch", "fetch", "decode", "decode"]


def test_a_batch_of_nothing_is_nothing(make_loader: MakeLoader) -> None:
    assert make_loader().load([]) == []


def test_fetches_of_a_batch_run_side_by_side(make_loader: MakeLoader, server: Server) -> None:
    """No answer comes before all have been asked for, so one after the other would never end."""

    def answer(request: Request) -> None:
        while len({path for path, _, _ in server.seen}) < 8 and not server.stopping.wait(0.01):
            pass
        request.answer(200, b"together")

    for number in range(8):
        server.answers[f"/{number}"] = answer
    outcomes = make_loader().load([_upload(TEXT, server.url(f"/{number}")) for number in range(8)])
    assert outcomes == ["together"] * 8


def test_what_a_batch_names_twice_is_fetched_once(make_loader: MakeLoader, server: Server) -> None:
    server.answers["/x"] = lambda r: r.answer(200, b"once")
    outcomes = make_loader().load([_upload(TEXT, server.url("/x"))] * 5 + [_upload(IMAGE, server.url("/x"))])
    assert outcomes[:5] == ["once"] * 5
    assert isinstance(outcomes[5], BadInputError)
    assert len(server.seen) == 2


def test_a_slow_fetch_ends_by_its_own_deadline_and_the_others_come(make_loader: MakeLoader, server: Server) -> None:
    server.answers["/slow"] = Request.hang
    server.answers["/x"] = lambda r: r.answer(200, b"quick")
    start_s = time.monotonic()
    outcomes = make_loader(timeout_s=0.5).load(
        [_upload(TEXT, server.url("/slow")), *(_upload(TEXT, server.url(f"/x?{number}")) for number in range(20))]
    )
    assert isinstance(outcomes[0], TryLaterError)
    assert outcomes[1:] == ["quick"] * 20
    assert time.monotonic() - start_s < 0.5 + _PATIENCE_S


def test_a_batch_ends_by_its_deadline_and_leaves_the_loader_usable(make_loader: MakeLoader, server: Server) -> None:
    """More hanging fetches than threads: those that never started are to be tried later too."""
    server.answers["/x"] = lambda r: r.answer(200, b"after")
    for number in range(30):
        server.answers[f"/hang{number}"] = Request.hang
    loader = make_loader(timeout_s=50, batch_timeout_s=0.6)
    start_s = time.monotonic()
    outcomes = loader.load([_upload(TEXT, server.url(f"/hang{number}")) for number in range(30)])
    assert time.monotonic() - start_s < 0.6 + _PATIENCE_S
    assert all(isinstance(outcome, TryLaterError) for outcome in outcomes)
    assert len(server.seen) <= 8
    # The threads come free as their fetches end, which is with the batch.
    wait_until(lambda: loader.load([_upload(TEXT, server.url("/x"))]) == ["after"], 20)


def test_a_decoder_that_is_stuck_does_not_hold_its_batch(
    make_loader: MakeLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Decoding cannot be stopped, but it can be left; what queued behind it is not begun any more."""
    release = threading.Event()
    decoded: list[bytes] = []

    def stuck(data: bytes, end_s: float) -> Image.Image:
        decoded.append(data)
        release.wait(60)
        return Image.new("RGB", (1, 1))

    loader = make_loader(concurrency=1, batch_timeout_s=0.3)
    monkeypatch.setattr(loader._images, "decode", stuck)
    start_s = time.monotonic()
    outcomes = loader.load([_upload(IMAGE, _data_uri(data, "image/png")) for data in (b"first", b"second")])
    assert time.monotonic() - start_s < 0.3 + _PATIENCE_S
    assert all(isinstance(outcome, TryLaterError) for outcome in outcomes)
    release.set()
    wait_until(lambda: loader.load([_upload(TEXT, text="after")]) == ["after"], 60)
    assert decoded == [b"first"]


def test_failures_do_not_keep_downloads_in_memory(make_loader: MakeLoader) -> None:
    """A failure is kept until its batch is done; the bytes that its frames held are not."""
    [error] = make_loader().load([_upload(IMAGE, _data_uri(b"x" * 50_000, "image/png"))])
    link: BaseException | None = error if isinstance(error, BaseException) else None
    assert link is not None
    frames: list[types.FrameType] = []
    while link is not None:
        frames += [frame for frame, _ in traceback.walk_tb(link.__traceback__)]
        link = link.__cause__
    assert len(frames) > 2
    assert not [frame for frame in frames if any(isinstance(v, bytes) for v in frame.f_locals.values())]


def test_closing_waits_for_nothing_when_nothing_is_under_way(make_loader: MakeLoader) -> None:
    loader = make_loader()
    loader.load([_upload(TEXT, text="x")])
    start_s = time.monotonic()
    loader.close()
    assert time.monotonic() - start_s < _PATIENCE_S


# Schemes


@pytest.mark.parametrize("scheme", sorted(SCHEMES - {"data"}))
def test_a_scheme_that_is_not_allowed_is_refused_by_name(make_loader: MakeLoader, scheme: str) -> None:
    loader = make_loader(schemes=frozenset({"data"}))
    with pytest.raises(
        BadInputError, match=f"scheme '{scheme}' of the content's URI is not allowed; expected one of data:"
    ):
        _only(loader, _upload(IMAGE, f"{scheme.upper()}://place/thing"))


@pytest.mark.parametrize(
    "uri", ["", "picture.png", "/etc/passwd", "://x", "1a:b", "javascript:1", "s3a::file:///x", " data:,x"]
)
def test_what_is_no_uri_of_a_known_scheme_is_refused(make_loader: MakeLoader, uri: str) -> None:
    with pytest.raises(BadInputError, match="expected one of data:, file:, http:, https:"):
        _only(make_loader(), _upload(IMAGE, uri))


def test_an_unknown_scheme_in_the_settings_is_refused_at_the_start(make_loader: MakeLoader) -> None:
    with pytest.raises(ValueError, match="unknown schemes"):
        make_loader(schemes=frozenset({"gopher"}))


@given(
    st.text(max_size=80),
    st.sampled_from([IMAGE, TEXT]),
    st.sampled_from(["", "data:", "data:image/png;base64,", "file://"]),
)
@example("text/plain;charset=\x00,x", TEXT, "data:")
@example("text/plain;charset*=x'y'z,x", TEXT, "data:")
@example("text/plain;charset*=a\0b'en'x,x", TEXT, "data:")
@example(";base64,\ud800", TEXT, "data:")
def test_no_uri_brings_anything_but_an_outcome(rest: str, modality: str, start: str) -> None:
    outcome = _LOADER_OF_URIS.load([_upload(modality, start + rest)])[0]
    assert isinstance(outcome, str | Image.Image | BadInputError)


_LOADER_OF_URIS = ContentLoader(
    FetchLimits(
        schemes=frozenset({"data", "file"}),
        private_networks=(),
        ca_file=None,
        store_prefixes=(),
        store_options={},
        file_root=str(Path(__file__).parent),
        image_bytes_max=1_000,
        text_bytes_max=1_000,
        redirects_max=0,
        connect_timeout_s=1,
        timeout_s=1,
        batch_timeout_s=60,
        concurrency=1,
    ),
    _DECODE,
)


# data:


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("data:,plain%20text", "plain text"),
        ("data:text/plain,a,b", "a,b"),
        ("data:text/plain;charset=utf-8,gr%C3%BC%C3%9Fe", "grüße"),
        ("data:text/plain;charset=ISO-8859-1,gr%FC%DFe", "grüße"),
        ('DATA:text/plain;charset="utf-8";base64,Z3LDvMOfZQ==', "grüße"),
        ("data:text/plain;base64,Z3LDvMOfZQ", "grüße"),
        ("data:text/plain;BASE64,Z3LD%0AvMOfZQ%3D%3D", "grüße"),
        ("data:text/markdown,%23%20Title", "# Title"),
    ],
)
def test_texts_by_data_uri(make_loader: MakeLoader, uri: str, text: str) -> None:
    assert _only(make_loader(), _upload(TEXT, uri)) == text


@pytest.mark.parametrize(
    ("modality", "uri", "message"),
    [
        (IMAGE, "data:image/png;base64", "malformed"),
        (IMAGE, f"data:{'x' * 300},", "malformed"),
        (IMAGE, "data:text/plain,hello", "media type 'text/plain'; expected image/"),
        (IMAGE, "data:,hello", "media type 'text/plain'; expected image/"),
        (TEXT, "data:image/png;base64,AAAA", "media type 'image/png'; expected text/"),
        (IMAGE, "data:image/png;base64,A!!A", "not valid base64"),
        (IMAGE, "data:image/png;base64,AAAAA", "not valid base64"),
        (IMAGE, _data_uri(bytes(100_001), "image/png"), "100,001 bytes; at most 100,000"),
        (TEXT, "data:," + "x" * 5_001, "5,001 bytes; at most 5,000"),
        (TEXT, "data:," + "%41" * 5_002, "15,006 characters; at most 5,000 bytes"),
    ],
)
def test_bad_data_uris(make_loader: MakeLoader, modality: str, uri: str, message: str) -> None:
    with pytest.raises(BadInputError, match=message) as caught:
        _only(make_loader(), _upload(modality, uri))
    assert caught.value.stage == "fetch"
    assert len(str(caught.value)) < 500


# file:


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder that is served, beside one that is not."""
    root = tmp_path / "served"
    (root / "inner").mkdir(parents=True)
    (root / "inner" / "photo with space.png").write_bytes(_png())
    (root / "caption.txt").write_bytes(b"\xef\xbb\xbfa caption")
    (tmp_path / "secret.txt").write_text("secret")
    return root


def test_files_under_the_root_are_read(make_loader: MakeLoader, root: Path) -> None:
    loader = make_loader(file_root=str(root))
    assert isinstance(_only(loader, _upload(IMAGE, (root / "inner" / "photo with space.png").as_uri())), Image.Image)
    assert _only(loader, _upload(TEXT, f"file://localhost{root}/caption.txt")) == "a caption"
    (root / "link.txt").symlink_to(root / "caption.txt")
    assert _only(loader, _upload(TEXT, (root / "link.txt").as_uri())) == "a caption"


def test_a_root_that_is_reached_by_a_link_is_a_root(make_loader: MakeLoader, root: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(root)
    loader = make_loader(file_root=str(tmp_path / "alias"))
    assert _only(loader, _upload(TEXT, (tmp_path / "alias" / "caption.txt").as_uri())) == "a caption"


def _escapes(root: Path) -> dict[str, str]:
    outside = root.parent / "secret.txt"
    (root / "link.txt").symlink_to(outside)
    (root / "up").symlink_to(root.parent)
    (root / "loop").symlink_to(root / "loop")
    (root.parent / "served-too").mkdir()
    (root.parent / "served-too" / "x.txt").write_text("secret")
    return {
        "a path outside": outside.as_uri(),
        "a path that only starts alike": f"file://{root}-too/x.txt",
        "dots": f"file://{root}/../secret.txt",
        "escaped dots": f"file://{root}/%2e%2e/secret.txt",
        "escaped dots and slash": f"file://{root}/..%2Fsecret.txt",
        "a link outside": f"file://{root}/link.txt",
        "a linked folder outside": f"file://{root}/up/secret.txt",
        "another host": f"file://elsewhere{root}/caption.txt",
        "a NUL": f"file://{root}/caption.txt%00.png",
        "a relative path": "file:caption.txt",
        "a query": f"file://{root}/caption.txt?x",
        "the root itself": f"file://{root}",
        "a folder": f"file://{root}/inner",
        "a file as a folder": f"file://{root}/caption.txt/x",
        "nothing there": f"file://{root}/missing.txt",
        "a host that cannot be read": "file://[/x",
        "a name too long": f"file://{root}/{'x' * 300}",
        "a loop of links": f"file://{root}/loop",
        "a surrogate": f"file://{root}/\ud800",
    }


def test_nothing_outside_the_root_is_read(make_loader: MakeLoader, root: Path) -> None:
    loader = make_loader(file_root=str(root))
    for name, uri in _escapes(root).items():
        outcome = loader.load([_upload(TEXT, uri)])[0]
        assert isinstance(outcome, BadInputError), (name, outcome)
        assert outcome.stage == "fetch"
        assert "secret" not in str(outcome).replace("secret.txt", "")


def test_dots_in_a_path_are_refused_even_where_they_stay_inside(make_loader: MakeLoader, root: Path) -> None:
    with pytest.raises(BadInputError, match=r"holds '\.\.'"):
        _only(make_loader(file_root=str(root)), _upload(TEXT, f"file://{root}/inner/../caption.txt"))


def test_fifos_and_devices_are_refused_without_waiting(make_loader: MakeLoader, root: Path) -> None:
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(root / "socket"))
    start_s = time.monotonic()
    with pytest.raises(BadInputError, match="not a regular file"):
        _only(make_loader(file_root=str(root)), _upload(TEXT, (root / "fifo").as_uri()))
    with pytest.raises(BadInputError, match="not a regular file"):
        _only(make_loader(file_root="/dev"), _upload(TEXT, "file:///dev/zero"))
    with pytest.raises(BadInputError, match="no regular file"):
        _only(make_loader(file_root=str(root)), _upload(TEXT, (root / "socket").as_uri()))
    assert time.monotonic() - start_s < _PATIENCE_S


def test_files_are_bounded(make_loader: MakeLoader, root: Path) -> None:
    (root / "large.txt").write_bytes(b"x" * 5_001)
    with pytest.raises(BadInputError, match="5,001 bytes; at most 5,000"):
        _only(make_loader(file_root=str(root)), _upload(TEXT, (root / "large.txt").as_uri()))
    if Path("/proc/self/smaps").exists():  # says that it is of size 0
        with pytest.raises(BadInputError, match="more than the 5,000 bytes"):
            _only(make_loader(file_root="/proc"), _upload(TEXT, f"file:///proc/{os.getpid()}/smaps"))


def test_no_file_is_read_without_a_root(make_loader: MakeLoader, root: Path) -> None:
    with pytest.raises(BadInputError, match="no folder is configured"):
        _only(make_loader(), _upload(TEXT, (root / "caption.txt").as_uri()))
    with pytest.raises(ValueError, match="existing folder"):
        make_loader(file_root=str(root / "missing"))


# s3: and gs:, read by the real file systems from a store on loopback


@pytest.fixture(params=["s3", "gs"])
def store(request: pytest.FixtureRequest, server: Server) -> tuple[str, dict[str, Any], str]:
    """Scheme, options, and the path under which the server sees objects of the bucket."""
    scheme: str = request.param
    pytest.importorskip({"s3": "s3fs", "gs": "gcsfs"}[scheme])
    if scheme == "s3":
        return scheme, {"anon": True, "endpoint_url": server.url("")}, "/bucket/"
    return scheme, {"token": "anon", "endpoint_url": server.url("")}, "/download/storage/v1/b/bucket/o/"


def _serve_object(server: Server, path: str, body: bytes) -> None:
    def answer(request: Request) -> None:
        first, last = request.headers["Range"].removeprefix("bytes=").split("-")
        part = body[int(first) : int(last) + 1]
        request.answer(206, part, content_range=f"bytes {first}-{int(first) + len(part) - 1}/{len(body)}")

    server.answers[path] = answer


def test_objects_of_stores(make_loader: MakeLoader, server: Server, store: tuple[str, dict[str, Any], str]) -> None:
    scheme, options, path = store
    loader = make_loader(
        schemes=frozenset({scheme}),
        store_options={scheme: options},
        store_prefixes=(f"{scheme}://bucket/open/",),
        timeout_s=60,
    )
    folder = path + quote("open/", safe="" if scheme == "gs" else "/")
    _serve_object(server, folder + "photo.png", _png())
    _serve_object(server, folder + "text.txt", b"a text")
    _serve_object(server, folder + "large.txt", bytes(10_000))
    outcomes = loader.load(
        [
            _upload(IMAGE, f"{scheme}://bucket/open/photo.png"),
            _upload(TEXT, f"{scheme}://bucket/open/text.txt"),
            _upload(TEXT, f"{scheme}://bucket/open/large.txt"),
            _upload(TEXT, f"{scheme}://bucket/open/missing.txt"),
            _upload(TEXT, f"{scheme}://bucket/shut/text.txt"),
            _upload(TEXT, f"{scheme}://bucket"),
            _upload(TEXT, f"{scheme}://bucket/"),
            _upload(TEXT, f"{scheme}:bucket/key"),
            _upload(TEXT, f"{scheme}://bucket/open/../shut/text.txt"),
        ]
    )
    assert isinstance(outcomes[0], Image.Image)
    assert outcomes[1] == "a text"
    expected = {
        2: "more than the 5,000 bytes",
        3: "no object",
        4: "outside the buckets",
        **dict.fromkeys((5, 6, 7, 8), "does not name"),
    }
    for place, message in expected.items():
        assert isinstance(outcomes[place], BadInputError)
        assert message in str(outcomes[place])


def test_a_store_that_is_slow_or_busy_is_tried_later(
    make_loader: MakeLoader, server: Server, store: tuple[str, dict[str, Any], str]
) -> None:
    scheme, options, path = store
    loader = make_loader(schemes=frozenset({scheme}), store_options={scheme: options}, timeout_s=1.0)
    server.answers[path + "slow"] = Request.hang
    server.answers[path + "busy"] = lambda r: r.answer(503, b"<Error><Code>SlowDown</Code></Error>")
    start_s = time.monotonic()
    outcomes = loader.load([_upload(TEXT, f"{scheme}://bucket/{key}") for key in ("slow", "busy")])
    assert all(isinstance(outcome, TryLaterError) for outcome in outcomes)
    assert time.monotonic() - start_s < 1.0 + _PATIENCE_S


def test_an_object_that_may_not_be_read_is_bad_input(make_loader: MakeLoader, server: Server) -> None:
    pytest.importorskip("s3fs")
    loader = make_loader(
        schemes=frozenset({"s3"}), timeout_s=60, store_options={"s3": {"anon": True, "endpoint_url": server.url("")}}
    )
    server.answers["/bucket/denied"] = lambda r: r.answer(403, b"<Error><Code>AccessDenied</Code></Error>")
    with pytest.raises(BadInputError, match="may not be read by this service"):
        _only(loader, _upload(TEXT, "s3://bucket/denied"))


def test_a_store_whose_package_is_missing_is_named_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    real = importlib.import_module

    def without_s3fs(name: str) -> types.ModuleType:
        if name == "s3fs":
            raise ModuleNotFoundError("No module named 's3fs'")
        return real(name)

    monkeypatch.setattr(importlib, "import_module", without_s3fs)
    with pytest.raises(ValueError, match=r"not installed: pip install 'zccr-stream\[s3\]'"):
        StoreReader("s3", (), {})


# Texts


@pytest.mark.parametrize(
    ("data", "charset", "text"),
    [
        (b"\xef\xbb\xbfhello", None, "hello"),
        ("grüße 日本".encode(), None, "grüße 日本"),
        ("grüße".encode("latin-1"), "latin1", "grüße"),
        ("日本".encode("shift_jis"), "Shift_JIS", "日本"),
        ("日本".encode("utf-16"), "utf-16", "日本"),
        ("“smart”".encode("cp1252"), "windows-1252", "“smart”"),
        (b" \r\n two\nlines\t\n", None, "two\nlines"),
        (b"nul\0 bell\x07 esc\x1b[0m", None, "nul bell esc[0m"),
        ("family 👨‍👩‍👧".encode(), None, "family 👨‍👩‍👧"),
    ],
)
def test_texts_are_decoded_and_cleaned(data: bytes, charset: str | None, text: str) -> None:
    assert decode_text(Fetched(data, charset), 1_000) == text


@pytest.mark.parametrize(
    ("data", "charset", "message"),
    [
        (b"", None, "empty"),
        (b" \n\t ", None, "empty"),
        ("\u200b\u200d\ufeff\u00a0".encode(), None, "empty"),
        (b"\0\0\x07", None, "empty"),
        (b"gr\xfc\xdfe", None, r"not valid utf-8 at byte 2 .*; expected UTF-8"),
        (_png(), None, "not valid utf-8"),
        (b"x" * 1_001, None, "1,001 characters; at most 1,000"),
        (b"x", "klingon", "charset 'klingon' is not read; expected utf-8"),
        (b"x", "punycode", "charset 'punycode' is not read; expected utf-8"),
        (b"x", "unicode_escape", "is not read"),
        (b"x", "base64", "is not read"),
        (b"x", "a\0b", "is not read"),
    ],
)
def test_texts_that_cannot_be_read_are_bad_input(data: bytes, charset: str | None, message: str) -> None:
    with pytest.raises(BadInputError, match=message) as caught:
        decode_text(Fetched(data, charset), 1_000)
    assert caught.value.stage == "decode"


@pytest.mark.parametrize(
    ("content_type", "charset"),
    [
        ("text/plain", None),
        ("text/plain; charset=UTF-8", "utf-8"),
        ('text/plain;format=flowed;charset="ISO-8859-1"', "iso-8859-1"),
        ("text/plain; charset = 'utf-8'", "utf-8"),
        ("text/plain; charset=", None),
        ("text/plain; charset*=utf-8''x", None),
        ("", None),
    ],
)
def test_the_charset_is_found_in_a_content_type(content_type: str, charset: str | None) -> None:
    assert declared_charset(content_type) == charset


@given(st.text(alphabet=st.characters(), max_size=50))
@example("\ud800 alone")
def test_a_clean_text_can_be_encoded_and_is_clean(text: str) -> None:
    try:
        cleaned = clean_text(text, 1_000)
    except BadInputError:
        return
    assert cleaned.encode()
    assert "\0" not in cleaned
    assert clean_text(cleaned, 1_000) == cleaned


def test_a_text_by_http_is_read_by_its_declared_charset(make_loader: MakeLoader, server: Server) -> None:
    server.answers["/x"] = lambda r: r.answer(200, b"gr\xfc\xdfe", content_type="text/plain; charset=iso-8859-1")
    server.answers["/y"] = lambda r: r.answer(200, "grüße".encode(), content_type="text/plain")
    loader = make_loader()
    assert loader.load([_upload(TEXT, server.url("/x")), _upload(TEXT, server.url("/y"))]) == ["grüße"] * 2
