"""Content from http(s) URLs: a URL comes in, bounded bytes and the declared charset go out.

Made for URLs that strangers choose: every redirect is checked like the first URL, credentials neither go out
nor into messages, bytes are counted as they come. Knows nothing of images, texts or events.
"""

from __future__ import annotations

import re
import ssl
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from ipaddress import IPv6Address

import httpcore
import httpx

from zccr_stream.content.addresses import parse_networks
from zccr_stream.content.fetched import Fetched, declared_charset
from zccr_stream.content.network import CheckedNetwork, Deadline
from zccr_stream.events import BadInputError, TryLaterError

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRY_LATER = frozenset({408, 425, 429})
_HOST = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?")
# Compressed only where the server insists: a picture gains nothing by it.
_HEADERS = ((b"User-Agent", b"zccr-stream"), (b"Accept", b"*/*"), (b"Accept-Encoding", b"identity"))


class WebFetcher:
    """Fetches http(s) URLs over shared keep-alive connections; may be used from several threads.

    Args:
        schemes: of `http` and `https`, those that are allowed; a redirect may lead to these only.
        private_networks: CIDR networks that may be connected to although they are not public.
        ca_file: PEM file of certificate authorities; None: certifi's.
        redirects_max: how many redirects are followed.
        connect_timeout_s: bound of one connection attempt.
        idle_timeout_s: how long an idle connection is kept.
        connections_max: how many connections are open at a time.
    """

    def __init__(
        self,
        *,
        schemes: frozenset[str],
        private_networks: Sequence[str],
        ca_file: str | None,
        redirects_max: int,
        connect_timeout_s: float,
        idle_timeout_s: float,
        connections_max: int,
    ) -> None:
        self._schemes = schemes
        self._redirects_max = redirects_max
        self._deadline = Deadline()
        tls = ssl.create_default_context(cafile=ca_file) if ca_file else httpx.create_ssl_context(trust_env=False)
        self._connect_timeout_s = connect_timeout_s
        # The pool below httpx's client: the client brings in proxies, .netrc, cookies and decompression without a
        # bound, each of which would have to be switched off, and follows a redirect's URL before it can be checked.
        self._pool = httpcore.ConnectionPool(
            ssl_context=tls,
            max_connections=connections_max,
            max_keepalive_connections=connections_max,
            keepalive_expiry=idle_timeout_s,
            network_backend=CheckedNetwork(parse_networks(private_networks), self._deadline),
        )

    def fetch(self, uri: str, bytes_max: int, timeout_s: float) -> Fetched:
        """Fetch at most `bytes_max` bytes, as sent and as decompressed, within `timeout_s` as a whole.

        Raises:
            BadInputError: the URL, what it leads to or what it answers can never be content.
            TryLaterError: it may be in a while.
        """
        self._deadline.start(timeout_s)
        first = url = _parse(uri, self._schemes)
        try:
            for _ in range(self._redirects_max + 1):
                answer = self._get(url, bytes_max, timeout_s)
                if isinstance(answer, Fetched):
                    return answer
                url = answer
        except httpcore.TimeoutException as error:
            raise TryLaterError("fetch", f"{shown(url)} did not answer in full within {timeout_s:.3g} s") from error
        except httpcore.LocalProtocolError as error:
            raise BadInputError("fetch", f"{shown(url)} cannot be asked for: {error}") from error
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise TryLaterError("fetch", f"{shown(url)} could not be read: {error}") from error
        raise BadInputError("fetch", f"{shown(first)} redirects more than {self._redirects_max} times")

    def close(self) -> None:
        """Close the connections."""
        self._pool.close()

    def _get(self, url: httpx.URL, bytes_max: int, timeout_s: float) -> Fetched | httpx.URL:
        """One request: the content, or where it is said to be."""
        with closing(self._ask(url, timeout_s)) as response:
            if response.status_code in _REDIRECTS and "location" in response.headers:
                return _redirected(url, response.headers["location"], self._schemes)
            _check_status(url, response.status_code)
            data = _read(response, shown(url), bytes_max)
            return Fetched(data, declared_charset(response.headers.get("content-type", "")))

    def _ask(self, url: httpx.URL, timeout_s: float) -> httpx.Response:
        """Send the request; the response's body is still to be read."""
        answer = self._pool.handle_request(
            httpcore.Request(
                "GET",
                httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=[(b"Host", url.netloc), *_HEADERS],
                extensions={"timeout": {"connect": self._connect_timeout_s, "pool": timeout_s}},
            )
        )
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer))


def shown(url: httpx.URL) -> str:
    """The URL as it may stand in a message: without query and userinfo, which hold credentials."""
    host = f"[{url.host}]" if ":" in url.host else url.host
    port = "" if url.port is None else f":{url.port}"
    path = url.path if len(url.path) <= 200 else url.path[:200] + "…"
    return f"{url.scheme}://{host}{port}{path}"


def _parse(uri: str, schemes: frozenset[str]) -> httpx.URL:
    try:
        url = httpx.URL(uri)
        named = _names_a_host(url)
    except (httpx.InvalidURL, ValueError) as error:
        # The error's own text may repeat the URL, credentials included.
        raise BadInputError("fetch", "the URL cannot be read; expected https://host/path, percent-encoded") from error
    if url.scheme not in schemes:
        expected = ", ".join(sorted(schemes)) or "none"
        message = f"scheme {url.scheme[:20]!r} of the URL is not allowed; expected one of: {expected}"
        raise BadInputError("fetch", message)
    if not named:
        raise BadInputError("fetch", "the URL names no host; expected https://host/path")
    if url.userinfo:
        raise BadInputError("fetch", f"{shown(url)} carries a user name or password; expected a URL without them")
    if url.port is not None and not 1 <= url.port <= 65535:
        raise BadInputError("fetch", f"{shown(url)} names port {url.port}; expected 1 to 65535")
    return url


def _names_a_host(url: httpx.URL) -> bool:
    """Whether there is a host; raises ValueError where it can be none, so that no resolver is asked for it."""
    host = url.raw_host.decode("ascii")
    if ":" in host and "%" not in host:
        IPv6Address(host)
    elif host and not _HOST.fullmatch(host):
        raise ValueError("not a host name")
    return url.host != ""


def _redirected(url: httpx.URL, location: str, schemes: frozenset[str]) -> httpx.URL:
    try:
        return _parse(str(url.join(location)), schemes)
    except httpx.InvalidURL as error:
        raise BadInputError("fetch", f"{shown(url)} redirects to something that is not a URL") from error
    except BadInputError as error:
        raise BadInputError("fetch", f"{shown(url)} redirects to a place that is refused: {error}") from error


def _check_status(url: httpx.URL, status: int) -> None:
    if 200 <= status < 300:
        return
    message = f"{shown(url)} answered with status {status}; expected 200"
    if status >= 500 or status in _TRY_LATER:
        raise TryLaterError("fetch", message)
    raise BadInputError("fetch", message)


def _read(response: httpx.Response, name: str, bytes_max: int) -> bytes:
    declared = response.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > bytes_max:
        raise BadInputError("fetch", f"{name} holds {int(declared):,} bytes; at most {bytes_max:,} are allowed")
    data = bytearray()
    for chunk in _decompressed(response, name, bytes_max):
        data += chunk
        if len(data) > bytes_max:
            raise BadInputError("fetch", f"{name} holds more than the {bytes_max:,} bytes that are allowed")
    return bytes(data)


def _decompressed(response: httpx.Response, name: str, bytes_max: int) -> Iterator[bytes]:
    """The body in chunks; what was compressed although not asked for is inflated within the bound."""
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding in ("", "identity"):
        yield from response.iter_raw()
        return
    if coding not in ("gzip", "x-gzip", "deflate"):
        raise BadInputError("fetch", f"{name} is sent with content coding {coding[:40]!r}; expected none, or gzip")
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
    sent = 0
    try:
        for chunk in response.iter_raw():
            yield inflater.decompress(chunk, bytes_max + 1)  # which is too much already: the reader stops there
            sent += len(chunk)
            if inflater.unused_data or sent > bytes_max:
                break
    except zlib.error as error:
        raise BadInputError("fetch", f"{name} is sent as {coding} but is not: {error}") from error
    if sent > bytes_max:
        raise BadInputError("fetch", f"{name} is sent in more than the {bytes_max:,} bytes that are allowed")
    if not inflater.eof or inflater.unused_data:
        raise BadInputError("fetch", f"{name} is sent as {coding}, but its compressed data is not whole")


class _Body(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        return self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()
