"""Content from http(s) URLs: a URL comes in, bounded bytes and the declared charset go out.

Made for URLs that strangers choose: every redirect is checked like the first URL, credentials neither go out
nor into messages, bytes are counted as they come. Knows nothing of images, texts or events.
"""

from __future__ import annotations

import logging
import ssl
import zlib
from collections.abc import Iterator, Sequence
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpcore
import httpx

from zccr_stream.content.addresses import parse_networks
from zccr_stream.content.fetched import Fetched
from zccr_stream.content.network import CheckedNetwork, Deadline
from zccr_stream.events import BadInputError, TryLaterError

# Its INFO line holds the whole URL, and queries of signed URLs are credentials.
logging.getLogger("httpx").setLevel(logging.WARNING)

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_TRY_LATER = frozenset({408, 425, 429})


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
        pool = httpcore.ConnectionPool(
            ssl_context=tls,
            max_connections=connections_max,
            max_keepalive_connections=connections_max,
            keepalive_expiry=idle_timeout_s,
            network_backend=CheckedNetwork(parse_networks(private_networks), self._deadline),
        )
        self._client = httpx.Client(
            transport=_Transport(pool),
            # A proxy would resolve names itself and .netrc would send credentials: neither is taken.
            trust_env=False,
            # One uploader's cookies must not go out with another's requests.
            cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=())),
            # A decompressor without a bound would run before the bytes could be counted.
            headers={"user-agent": "zccr-stream", "accept": "*/*", "accept-encoding": "identity"},
            timeout=httpx.Timeout(None, connect=connect_timeout_s),
        )

    def fetch(self, uri: str, bytes_max: int, timeout_s: float) -> Fetched:
        """Fetch at most `bytes_max` bytes, as sent and as decompressed, within `timeout_s` as a whole.

        Raises:
            BadInputError: the URL, what it leads to or what it answers can never be content.
            TryLaterError: it may be in a while.
        """
        self._deadline.start(timeout_s)
        url = _parse(uri, self._schemes)
        try:
            for _ in range(self._redirects_max + 1):
                answer = self._get(url, bytes_max)
                if isinstance(answer, Fetched):
                    return answer
                url = answer
        except httpcore.TimeoutException as error:
            raise TryLaterError("fetch", f"{shown(url)} did not answer in full within {timeout_s:.3g} s") from error
        except httpcore.LocalProtocolError as error:
            raise BadInputError("fetch", f"{shown(url)} cannot be asked for: {error}") from error
        except (httpcore.NetworkError, httpcore.ProtocolError) as error:
            raise TryLaterError("fetch", f"{shown(url)} could not be read: {error}") from error
        raise BadInputError(
            "fetch", f"{shown(_parse(uri, self._schemes))} redirects more than {self._redirects_max} times"
        )

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _get(self, url: httpx.URL, bytes_max: int) -> Fetched | httpx.URL:
        """One request: the content, or where it is said to be."""
        with self._client.stream("GET", url, follow_redirects=False) as response:
            if response.status_code in _REDIRECTS and "location" in response.headers:
                return _redirected(url, response.headers["location"], self._schemes)
            _check_status(url, response.status_code)
            data = _read(response, shown(url), bytes_max)
            return Fetched(data, response.charset_encoding)


def shown(url: httpx.URL) -> str:
    """The URL as it may stand in a message: without query and userinfo, which hold credentials."""
    host = f"[{url.host}]" if ":" in url.host else url.host
    port = "" if url.port is None else f":{url.port}"
    path = url.path if len(url.path) <= 200 else url.path[:200] + "…"
    return f"{url.scheme}://{host}{port}{path}"


def _parse(uri: str, schemes: frozenset[str]) -> httpx.URL:
    try:
        url = httpx.URL(uri)
    except (httpx.InvalidURL, ValueError) as error:
        # The error's text may repeat the URL, credentials included, so only the part without them is shown.
        raise BadInputError("fetch", f"the URL cannot be read: {_reason(error, uri)}") from error
    if url.scheme not in schemes:
        expected = ", ".join(sorted(schemes)) or "none"
        raise BadInputError(
            "fetch", f"scheme {url.scheme[:20]!r} of the URL is not allowed; expected one of: {expected}"
        )
    if not url.host:
        raise BadInputError("fetch", "the URL names no host; expected https://host/path")
    if url.userinfo:
        raise BadInputError("fetch", f"{shown(url)} carries a user name or password; expected a URL without them")
    if url.port == 0:
        raise BadInputError("fetch", f"{shown(url)} names port 0; expected 1 to 65535")
    return url


def _reason(error: Exception, uri: str) -> str:
    reason = str(error)
    return "it is malformed" if "@" in uri or "?" in uri else reason[:200]


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
    try:
        for chunk in response.iter_raw():
            yield inflater.decompress(chunk, bytes_max + 1)
            if inflater.unconsumed_tail:
                raise BadInputError("fetch", f"{name} inflates to more than the {bytes_max:,} bytes that are allowed")
    except zlib.error as error:
        raise BadInputError("fetch", f"{name} is sent as {coding} but is not: {error}") from error
    if not inflater.eof or inflater.unused_data:
        raise BadInputError("fetch", f"{name} is sent as {coding}, but its compressed data is not whole")


class _Transport(httpx.BaseTransport):
    """httpx over a connection pool of ours: httpx's own transport does not take a network."""

    def __init__(self, pool: httpcore.ConnectionPool) -> None:
        self._pool = pool

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        url = request.url
        answer = self._pool.handle_request(
            httpcore.Request(
                method=request.method,
                url=httpcore.URL(scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path),
                headers=request.headers.raw,
                extensions=request.extensions,
            )
        )
        return httpx.Response(answer.status, headers=answer.headers, stream=_Body(answer))

    def close(self) -> None:
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, answer: httpcore.Response) -> None:
        self._answer = answer

    def __iter__(self) -> Iterator[bytes]:
        return self._answer.iter_stream()

    def close(self) -> None:
        self._answer.close()
