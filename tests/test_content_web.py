"""Fetching from URLs that strangers choose, against real servers on loopback that misbehave."""

import gzip
import ipaddress
import socket
import ssl
import threading
import time
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from hypothesis import example, given
from hypothesis import strategies as st

from tests.content_server import Request, Server
from zccr_stream.content import network
from zccr_stream.content.addresses import parse_networks, refusal
from zccr_stream.content.web import WebFetcher
from zccr_stream.events import BadInputError, TryLaterError

_BYTES_MAX = 100_000
_PATIENCE_S = 5.0  # over a deadline, on a machine that does much else at the same time


def _fetcher(
    *,
    schemes: frozenset[str] = frozenset({"http", "https"}),
    private_networks: tuple[str, ...] = ("127.0.0.1/32",),
    ca_file: str | None = None,
) -> WebFetcher:
    return WebFetcher(
        schemes=schemes,
        private_networks=private_networks,
        ca_file=ca_file,
        redirects_max=3,
        connect_timeout_s=2.0,
        idle_timeout_s=30.0,
        connections_max=4,
    )


@pytest.fixture
def server() -> Iterator[Server]:
    with Server().serving() as server:
        yield server


@pytest.fixture
def fetcher() -> Iterator[WebFetcher]:
    fetcher = _fetcher()
    yield fetcher
    fetcher.close()


def _resolve_to(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Give the answers of a name server, one a lookup, the last one from then on; the list names what was asked."""
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    monkeypatch.setattr(network, "resolve", resolve)
    return asked


def test_what_the_server_sends_comes_back_with_its_charset(server: Server, fetcher: WebFetcher) -> None:
    server.answers["/text"] = lambda r: r.answer(200, b"gr\xfc\xdfe", content_type="text/plain; charset=ISO-8859-1")
    fetched = fetcher.fetch(server.url("/text"), _BYTES_MAX, 5)
    assert fetched.data == b"gr\xfc\xdfe"
    assert fetched.charset == "iso-8859-1"


def test_a_body_of_exactly_the_bound_is_allowed_and_one_byte_more_is_not(server: Server, fetcher: WebFetcher) -> None:
    server.answers["/fits"] = lambda r: r.answer(200, b"x" * _BYTES_MAX)
    server.answers["/declared"] = lambda r: r.answer(200, b"x" * (_BYTES_MAX + 1))
    assert len(fetcher.fetch(server.url("/fits"), _BYTES_MAX, 5).data) == _BYTES_MAX
    with pytest.raises(BadInputError, match=r"100,001 bytes; at most 100,000"):
        fetcher.fetch(server.url("/declared"), _BYTES_MAX, 5)


@pytest.mark.parametrize("length", ["-1", "9" * 5_000, "two", "1, 2"])
def test_a_length_that_is_none_is_no_fault_of_ours(server: Server, fetcher: WebFetcher, length: str) -> None:
    server.answers["/x"] = lambda r: r.head(200, content_length=length)
    with pytest.raises((BadInputError, TryLaterError)):
        fetcher.fetch(server.url("/x"), _BYTES_MAX, 5)


def test_an_endless_body_is_cut_at_the_bound(server: Server, fetcher: WebFetcher) -> None:
    def endless(request: Request) -> None:
        request.head(200, connection="close")
        while not server.stopping.is_set():
            request.wfile.write(b"x" * 10_000)

    server.answers["/endless"] = endless
    with pytest.raises(BadInputError, match="more than the 100,000 bytes"):
        fetcher.fetch(server.url("/endless"), _BYTES_MAX, 30)


@pytest.mark.parametrize(
    ("coding", "packed"),
    [
        ("gzip", gzip.compress(b"picture", mtime=0)),
        ("x-gzip", gzip.compress(b"picture", mtime=0)),
        ("deflate", zlib.compress(b"picture")),
    ],
)
def test_what_is_compressed_unasked_is_inflated(
    server: Server, fetcher: WebFetcher, coding: str, packed: bytes
) -> None:
    server.answers["/packed"] = lambda r: r.answer(200, packed, content_encoding=coding)
    assert fetcher.fetch(server.url("/packed"), _BYTES_MAX, 5).data == b"picture"


def test_a_compression_bomb_is_refused_by_what_it_would_become(server: Server, fetcher: WebFetcher) -> None:
    bomb = gzip.compress(bytes(50_000_000), mtime=0)
    assert len(bomb) < _BYTES_MAX
    server.answers["/bomb"] = lambda r: r.answer(200, bomb, content_encoding="gzip")
    tracemalloc.start()
    with pytest.raises(BadInputError, match="100,000 bytes"):
        fetcher.fetch(server.url("/bomb"), _BYTES_MAX, 30)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


@pytest.mark.parametrize("endless", [b"more" * 10_000, zlib.compressobj().flush(zlib.Z_FULL_FLUSH)[2:] * 10_000])
def test_what_inflates_to_nothing_without_end_is_cut(server: Server, fetcher: WebFetcher, endless: bytes) -> None:
    """Behind the end of the compressed data, or as empty blocks of it."""
    start = (
        gzip.compress(b"picture", mtime=0)
        if endless.startswith(b"more")
        else zlib.compressobj().flush(zlib.Z_FULL_FLUSH)
    )

    def answer(request: Request) -> None:
        request.head(200, connection="close", content_encoding="gzip")
        request.wfile.write(start)
        while not server.stopping.is_set():
            request.wfile.write(endless)

    server.answers["/endless"] = answer
    with pytest.raises(BadInputError, match=r"is not whole|in more than the 100,000 bytes"):
        fetcher.fetch(server.url("/endless"), _BYTES_MAX, 60)


@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("gzip", gzip.compress(b"picture", mtime=0)[:-4]),
        ("gzip", gzip.compress(b"picture", mtime=0) + b"more"),
        ("gzip", b"not gzip"),
        ("br", b"whatever"),
        ("gzip, gzip", gzip.compress(gzip.compress(b"picture", mtime=0), mtime=0)),
    ],
)
def test_broken_or_unknown_compression_is_bad_input(
    server: Server, fetcher: WebFetcher, coding: str, body: bytes
) -> None:
    server.answers["/packed"] = lambda r: r.answer(200, body, content_encoding=coding)
    with pytest.raises(BadInputError, match="is sent"):
        fetcher.fetch(server.url("/packed"), _BYTES_MAX, 5)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451, 304, 300])
def test_a_status_that_will_not_change_is_bad_input(server: Server, fetcher: WebFetcher, status: int) -> None:
    server.answers["/x"] = lambda r: r.answer(status)
    with pytest.raises(BadInputError, match=rf"status {status}; expected 200"):
        fetcher.fetch(server.url("/x"), _BYTES_MAX, 5)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_a_status_that_may_change_is_tried_later(server: Server, fetcher: WebFetcher, status: int) -> None:
    server.answers["/x"] = lambda r: r.answer(status)
    with pytest.raises(TryLaterError, match=rf"status {status}"):
        fetcher.fetch(server.url("/x"), _BYTES_MAX, 5)


def test_a_body_shorter_than_declared_is_tried_later(server: Server, fetcher: WebFetcher) -> None:
    def cut(request: Request) -> None:
        request.head(200, content_length="1000")
        request.wfile.write(b"half")
        request.close_connection = True

    server.answers["/cut"] = cut
    with pytest.raises(TryLaterError, match="could not be read"):
        fetcher.fetch(server.url("/cut"), _BYTES_MAX, 5)


def _drip_body(request: Request) -> None:
    request.head(200, content_length="100000")
    request.drip(b"x")


def _drip_headers(request: Request) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\n")
    request.drip(b"X-Slow: yes\r\n")


def _drip_interim(request: Request) -> None:
    request.drip(b"HTTP/1.1 102 Processing\r\n\r\n", every_s=0.001)


def _drip_redirects(request: Request) -> None:
    request.server.stopping.wait(0.4)
    request.answer(302, location=request.path)


@pytest.mark.parametrize("answer", [Request.hang, _drip_body, _drip_headers, _drip_interim, _drip_redirects])
def test_one_deadline_bounds_the_whole_fetch(server: Server, fetcher: WebFetcher, answer: object) -> None:
    """However the time is spent: each single read is quick here, only their sum is not."""
    server.answers["/slow"] = answer  # type: ignore[assignment]
    start_s = time.monotonic()
    with pytest.raises(TryLaterError, match=r"did not answer in full within 0\.6 s"):
        fetcher.fetch(server.url("/slow"), _BYTES_MAX, 0.6)
    assert time.monotonic() - start_s < 0.6 + _PATIENCE_S


def test_a_tls_handshake_that_never_ends_is_cut(fetcher: WebFetcher) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start_s = time.monotonic()
        with pytest.raises(TryLaterError, match="within"):
            fetcher.fetch(f"https://127.0.0.1:{silent.getsockname()[1]}/", _BYTES_MAX, 0.3)
        assert time.monotonic() - start_s < 0.3 + _PATIENCE_S


def test_a_name_server_that_never_answers_is_left(fetcher: WebFetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(network, "resolve", lambda host, port: [str(release.wait())])
    start_s = time.monotonic()
    with pytest.raises(TryLaterError, match="within"):
        fetcher.fetch("http://slow.test/", _BYTES_MAX, 0.2)
    assert time.monotonic() - start_s < 0.2 + _PATIENCE_S
    release.set()


def test_a_closed_port_is_tried_later(fetcher: WebFetcher) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(TryLaterError, match="refused"):
        fetcher.fetch(f"http://127.0.0.1:{port}/", _BYTES_MAX, 5)


def test_an_unknown_name_is_tried_later(fetcher: WebFetcher, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(network, "resolve", unknown)
    with pytest.raises(TryLaterError, match=r"nowhere\.test could not be resolved: Name or service not known"):
        fetcher.fetch("http://nowhere.test/", _BYTES_MAX, 5)


# Redirects


def test_redirects_are_followed_up_to_the_bound(server: Server, fetcher: WebFetcher) -> None:
    for hop in range(5):
        server.answers[f"/{hop}"] = lambda r, to=hop + 1: r.answer(302, location=f"{to}")  # type: ignore[misc]
    server.answers["/5"] = lambda r: r.answer(200, b"arrived")
    assert fetcher.fetch(server.url("/2"), _BYTES_MAX, 5).data == b"arrived"
    with pytest.raises(BadInputError, match="more than 3 times"):
        fetcher.fetch(server.url("/1"), _BYTES_MAX, 5)


def test_a_redirect_loop_ends(server: Server, fetcher: WebFetcher) -> None:
    server.answers["/loop"] = lambda r: r.answer(301, location="/loop")
    with pytest.raises(BadInputError, match="more than 3 times"):
        fetcher.fetch(server.url("/loop"), _BYTES_MAX, 5)
    assert len(server.seen) == 4


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "data:text/plain,hello",
        "s3://bucket/key",
        "http://u:p@127.0.0.1/",
        "http://no host/",
    ],
)
def test_a_redirect_to_anything_but_a_plain_url_is_refused(server: Server, fetcher: WebFetcher, location: str) -> None:
    server.answers["/x"] = lambda r: r.answer(302, location=location)
    with pytest.raises(BadInputError, match="redirects to a place that is refused") as caught:
        fetcher.fetch(server.url("/x"), _BYTES_MAX, 5)
    assert "u:p" not in str(caught.value)


def test_a_redirect_into_a_private_network_never_connects(server: Server, fetcher: WebFetcher) -> None:
    with Server("127.0.0.2").serving() as inside:
        inside.answers["/secret"] = lambda r: r.answer(200, b"secret")
        server.answers["/x"] = lambda r: r.answer(302, location=inside.url("/secret"))
        with pytest.raises(BadInputError, match=r"127\.0\.0\.2 is a loopback address"):
            fetcher.fetch(server.url("/x"), _BYTES_MAX, 5)
        assert not inside.seen


def test_a_redirect_to_a_scheme_that_is_not_allowed_is_refused(server: Server) -> None:
    fetcher = _fetcher(schemes=frozenset({"http"}))
    server.answers["/x"] = lambda r: r.answer(302, location="https://127.0.0.1/")
    with pytest.raises(BadInputError, match="scheme 'https' of the URL is not allowed; expected one of: http"):
        fetcher.fetch(server.url("/x"), _BYTES_MAX, 5)
    fetcher.close()


# Addresses


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.2", "127.1.2", "2130706434", "0x7f000002", "0.0.0.0", "[::1]", "[::ffff:127.0.0.2]"),
        *("10.0.0.1", "192.168.0.1", "172.16.0.1", "[fe80::1]"),
        *("169.254.169.254", "100.100.100.200", "[fd00:ec2::254]"),
    ],
)
def test_a_private_address_is_refused_however_it_is_written(fetcher: WebFetcher, host: str) -> None:
    with pytest.raises(BadInputError, match="expected a host on the public internet"):
        fetcher.fetch(f"http://{host}/", _BYTES_MAX, 5)


def test_without_a_setting_even_this_machine_is_refused(server: Server) -> None:
    fetcher = _fetcher(private_networks=())
    with pytest.raises(BadInputError, match="loopback"):
        fetcher.fetch(server.url("/"), _BYTES_MAX, 5)
    assert not server.seen
    fetcher.close()


def test_the_address_that_was_checked_is_the_one_connected_to(
    server: Server, fetcher: WebFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that no other resolver knows can only be reached at what the one lookup gave."""
    server.answers["/x"] = lambda r: r.answer(200, b"pinned")
    asked = _resolve_to(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])
    assert fetcher.fetch(server.url("/x", "rebinding.test"), _BYTES_MAX, 5).data == b"pinned"
    assert asked == ["rebinding.test"]
    assert server.seen[0][1]["Host"] == f"rebinding.test:{server.server_port}"


def test_a_name_that_turns_to_an_inner_address_is_refused_at_the_next_connection(
    server: Server, fetcher: WebFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers["/x"] = lambda r: r.answer(200, b"once", connection="close")
    _resolve_to(monkeypatch, ["127.0.0.1"], ["127.0.0.2"])
    fetcher.fetch(server.url("/x", "rebinding.test"), _BYTES_MAX, 5)
    with pytest.raises(BadInputError, match=r"rebinding\.test leads to 127\.0\.0\.2"):
        fetcher.fetch(server.url("/x", "rebinding.test"), _BYTES_MAX, 5)


def test_one_inner_address_among_others_refuses_the_name(
    server: Server, fetcher: WebFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    _resolve_to(monkeypatch, ["127.0.0.1", "10.0.0.1"])
    with pytest.raises(BadInputError, match=r"leads to 10\.0\.0\.1"):
        fetcher.fetch(server.url("/x", "mixed.test"), _BYTES_MAX, 5)
    assert not server.seen


def test_the_next_address_is_tried_when_one_does_not_answer(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    fetcher = _fetcher(private_networks=("127.0.0.0/8",))
    server.answers["/x"] = lambda r: r.answer(200, b"second")
    _resolve_to(monkeypatch, ["127.0.0.9", "127.0.0.1"])
    assert fetcher.fetch(server.url("/x", "two.test"), _BYTES_MAX, 5).data == b"second"
    fetcher.close()


@given(st.ip_addresses())
@example(ipaddress.ip_address("224.0.0.1"))
@example(ipaddress.ip_address("ff0e::1"))
@example(ipaddress.ip_address("255.255.255.255"))
@example(ipaddress.ip_address("::7f00:1"))
@example(ipaddress.ip_address("fec0::1"))
@example(ipaddress.ip_address("2001:db8::1"))
@example(ipaddress.ip_address("3fff::1"))
@example(ipaddress.ip_address("168.63.129.16"))
def test_an_address_that_is_not_public_unicast_is_refused(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    """Public IPv4 behind NAT64 apart, which the next test is about."""
    special = not address.is_global or address.is_multicast or address.is_reserved or address.is_link_local
    documented = str(address) in ("3fff::1", "168.63.129.16")
    if (special or documented) and not str(address).startswith("64:ff9b::"):
        assert refusal(str(address), ()) is not None
        own = parse_networks((f"{address}/{address.max_prefixlen}",))
        assert refusal(str(address), own) is None


@given(st.ip_addresses(v=4))
@example(ipaddress.IPv4Address("127.0.0.1"))
@example(ipaddress.IPv4Address("169.254.169.254"))
@example(ipaddress.IPv4Address("8.8.8.8"))
def test_an_inner_address_does_not_get_through_inside_an_ipv6_address(inner: ipaddress.IPv4Address) -> None:
    number = int(inner)
    nat64 = ipaddress.IPv6Address(int(ipaddress.IPv6Address("64:ff9b::")) | number)
    assert (refusal(str(nat64), ()) is None) == (refusal(str(inner), ()) is None)
    for base, shift in (("2002::", 80), ("::ffff:0:0", 0), ("::", 0), ("64:ff9b:1::", 0), ("2001:0:4136:e378::", 0)):
        hidden = ipaddress.IPv6Address(int(ipaddress.IPv6Address(base)) | number << shift)
        assert refusal(str(hidden), ()) is not None, hidden


@pytest.mark.parametrize(
    "address",
    ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700:4700::1111", "2001:4860:4860::8888", "2a00:1450:4001:82a::200e"],
)
def test_public_addresses_are_allowed(address: str) -> None:
    assert refusal(address, ()) is None


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def _tls_server(authority: trustme.CA, name: str, asked: list[str | None]) -> Server:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    context.sni_callback = lambda connection, sni, of: asked.append(sni)
    return Server(tls=context)


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return str(path)


def test_tls_asks_for_and_verifies_the_host_name_although_the_address_is_pinned(
    authority: trustme.CA, ca_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _resolve_to(monkeypatch, ["127.0.0.1"])
    asked: list[str | None] = []
    fetcher = _fetcher(ca_file=ca_file)
    with _tls_server(authority, "good.test", asked).serving() as server:
        server.answers["/x"] = lambda r: r.answer(200, b"private")
        assert fetcher.fetch(server.url("/x", "good.test"), _BYTES_MAX, 5).data == b"private"
        assert asked == ["good.test"]
        with pytest.raises(TryLaterError, match="certificate verify failed"):
            fetcher.fetch(server.url("/x", "evil.test"), _BYTES_MAX, 5)
        assert len(server.seen) == 1
    fetcher.close()


def test_a_certificate_of_an_unknown_authority_is_not_trusted(
    authority: trustme.CA, fetcher: WebFetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    _resolve_to(monkeypatch, ["127.0.0.1"])
    with _tls_server(authority, "good.test", []).serving() as server:
        with pytest.raises(TryLaterError, match="certificate verify failed"):
            fetcher.fetch(server.url("/x", "good.test"), _BYTES_MAX, 5)
        assert not server.seen


# What goes out, and what a message says


def test_connections_are_kept_for_the_next_fetch(server: Server, fetcher: WebFetcher) -> None:
    server.answers["/x"] = lambda r: r.answer(200, b"x")
    for _ in range(3):
        fetcher.fetch(server.url("/x"), _BYTES_MAX, 5)
    assert len({port for _, _, port in server.seen}) == 1


def test_nothing_of_the_environment_or_of_earlier_answers_goes_out(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for variable in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.9:9")
    fetcher = _fetcher()
    server.answers["/x"] = lambda r: r.answer(200, b"x", set_cookie="session=1; Path=/")
    for _ in range(2):
        fetcher.fetch(server.url("/x"), _BYTES_MAX, 5)
    for _, headers, _ in server.seen:
        assert set(headers) == {"Host", "User-Agent", "Accept", "Accept-Encoding"}
        assert headers["Accept-Encoding"] == "identity"
    fetcher.close()


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://user:hunter2@127.0.0.1/a?token=hunter2", "carries a user name or password"),
        ("http://127.0.0.1:99999/a?token=hunter2", "names port 99999; expected 1 to 65535"),
        ("http://127.0.0.1:hunter2@/", "the URL"),
        ("http://127.0.0.1:0/a?token=hunter2", "names port 0"),
        ("http:///a?token=hunter2", "names no host"),
        ("http://[::1/a?token=hunter2", "the URL cannot be read"),
        ("http://exa mple/", "the URL cannot be read"),
        ("http://a\x00b/", "the URL cannot be read"),
        (f"http://{'a' * 70}.test/", "the URL cannot be read"),
        (f"http://{'a.' * 200}test/", "the URL cannot be read"),
        ("http://0177.0.0.2/", "the URL cannot be read"),
        ("http://[fe80::1%25lo]/", "the URL cannot be read"),
        ("http://xn--/", "the URL cannot be read"),
        ("http://127.0.0.1:1/a?token=hunter2#hunter2", "could not be read"),
        ("http://127.0.0.2/a?token=hunter2", "loopback"),
        ("ftp://127.0.0.1/", "scheme 'ftp' of the URL is not allowed; expected one of: http, https"),
    ],
)
def test_a_message_says_what_is_wrong_without_credentials(fetcher: WebFetcher, uri: str, message: str) -> None:
    with pytest.raises((BadInputError, TryLaterError), match=message) as caught:
        fetcher.fetch(uri, _BYTES_MAX, 5)
    assert "hunter2" not in str(caught.value)
    assert isinstance(caught.value, BadInputError | TryLaterError)
    assert caught.value.stage == "fetch"


@given(st.text(max_size=60).map(lambda text: "http://" + text))
@example("http://xn--/")
@example("http://\u2488/")
@example("http://.../")
@example("http://%/")
@example("http://a..b/")
@example("http://[v1.x]/")
def test_no_url_brings_anything_but_an_outcome(uri: str) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        _resolve_to(monkeypatch, ["127.0.0.2"])
        fetcher = _FETCHER_OF_URLS
        with pytest.raises((BadInputError, TryLaterError)):
            fetcher.fetch(uri, _BYTES_MAX, 5)


_FETCHER_OF_URLS = _fetcher()
