"""A batch of uploads comes in; one outcome per upload goes out, in the same order, failures as values.

Fetched and decoded side by side in a bounded pool, each within its deadline and all within the batch's.
Knows the sources by their schemes; retries are not made here.
"""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

from PIL.Image import Image

from zccr_stream.content.fetched import Fetched
from zccr_stream.content.files import FileReader
from zccr_stream.content.images import ImageDecoder
from zccr_stream.content.inline import read_data_uri
from zccr_stream.content.limits import DecodeLimits, FetchLimits
from zccr_stream.content.stores import STORE_SCHEMES, StoreReader
from zccr_stream.content.texts import clean_text, decode_text
from zccr_stream.content.web import WebFetcher
from zccr_stream.events import IMAGE, AssetUploaded, BadInputError, TryLaterError

Outcome = Image | str | BadInputError | TryLaterError

SCHEMES = frozenset({"data", "file", "gs", "http", "https", "s3"})
_SURROGATE = re.compile("[\ud800-\udfff]")  # from JSON's \\ud800: no encoding holds it alone
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,20}):")


class ContentLoader:
    """Loads the content of uploads; close it when done.

    Args:
        fetch: where content may come from, and what fetching may cost.
        decode: what decoding may cost.

    Raises:
        ValueError: limits that name something unknown, missing or not installed.
    """

    def __init__(self, fetch: FetchLimits, decode: DecodeLimits) -> None:
        if unknown := fetch.schemes - SCHEMES:
            raise ValueError(f"unknown schemes {sorted(unknown)}; expected some of {sorted(SCHEMES)}")
        self._fetch_limits = fetch
        self._decode_limits = decode
        self._images = ImageDecoder(decode)
        self._web = WebFetcher(
            schemes=fetch.schemes & {"http", "https"},
            private_networks=fetch.private_networks,
            ca_file=fetch.ca_file,
            redirects_max=fetch.redirects_max,
            connect_timeout_s=fetch.connect_timeout_s,
            idle_timeout_s=fetch.timeout_s,
            connections_max=fetch.concurrency,
        )
        self._files = None if fetch.file_root is None else FileReader(fetch.file_root)
        self._stores = {
            scheme: StoreReader(scheme, fetch.store_prefixes, fetch.store_options.get(scheme, {}))
            for scheme in STORE_SCHEMES
            if scheme in fetch.schemes
        }
        self._pool = ThreadPoolExecutor(fetch.concurrency, thread_name_prefix="zccr-content")

    def load(self, uploads: Sequence[AssetUploaded]) -> list[Outcome]:
        """Fetch and decode a batch side by side; one outcome per upload, in the same order.

        What several uploads of the batch point to is loaded once. Returns within the batch's deadline: what
        is not done by then is to be tried later.
        """
        end_s = time.monotonic() + self._fetch_limits.batch_timeout_s
        futures: dict[tuple[str, str | None, str | None], Future[Outcome]] = {}
        for upload in uploads:
            key = (upload.modality, upload.uri, upload.text)
            if key not in futures:
                futures[key] = self._pool.submit(self._outcome, upload, end_s)
        wait(futures.values(), timeout=max(0.0, end_s - time.monotonic()))
        outcomes = {key: self._collected(future) for key, future in futures.items()}
        return [outcomes[upload.modality, upload.uri, upload.text] for upload in uploads]

    def close(self) -> None:
        """Wait for the fetches under way, within their deadlines, and close the connections."""
        self._pool.shutdown(cancel_futures=True)
        self._web.close()

    def _collected(self, future: Future[Outcome]) -> Outcome:
        if future.done():
            return future.result()
        future.cancel()
        return self._late()

    def _late(self) -> TryLaterError:
        timeout_s = self._fetch_limits.batch_timeout_s
        return TryLaterError("fetch", f"the content was not loaded within the {timeout_s:g} s a batch may take")

    def _outcome(self, upload: AssetUploaded, end_s: float) -> Outcome:
        try:
            return self._load(upload, end_s)
        except (BadInputError, TryLaterError) as error:
            _release(error)
            return error

    def _load(self, upload: AssetUploaded, end_s: float) -> Image | str:
        if upload.modality == IMAGE:
            fetched = self._fetch(upload.uri or "", IMAGE, self._fetch_limits.image_bytes_max, end_s)
            return self._images.decode(fetched.data, end_s)
        if upload.text is not None:
            return clean_text(upload.text, self._decode_limits.text_chars_max)
        fetched = self._fetch(upload.uri or "", upload.modality, self._fetch_limits.text_bytes_max, end_s)
        return decode_text(fetched, self._decode_limits.text_chars_max)

    def _fetch(self, uri: str, kind: str, bytes_max: int, end_s: float) -> Fetched:
        scheme = self._scheme(uri)
        if scheme == "data":
            return read_data_uri(uri, kind, bytes_max)
        if scheme == "file":
            return Fetched(self._file(uri, bytes_max))
        timeout_s = min(self._fetch_limits.timeout_s, end_s - time.monotonic())
        if timeout_s <= 0:
            raise self._late()
        if scheme in self._stores:
            return Fetched(self._stores[scheme].fetch(uri, bytes_max, timeout_s))
        return self._web.fetch(uri, bytes_max, timeout_s)

    def _file(self, uri: str, bytes_max: int) -> bytes:
        if self._files is None:
            raise BadInputError("fetch", "file: URIs are refused: no folder is configured that they may lie under")
        return self._files.fetch(uri, bytes_max)

    def _scheme(self, uri: str) -> str:
        match = _SCHEME.match(uri)
        expected = ", ".join(f"{scheme}:" for scheme in sorted(self._fetch_limits.schemes))
        if match is None or (not uri.isascii() and _SURROGATE.search(uri)):
            raise BadInputError("fetch", f"the content has no valid URI; expected one of {expected}")
        scheme = match[1].lower()
        if scheme not in self._fetch_limits.schemes:
            raise BadInputError(
                "fetch",
                f"the scheme {scheme!r} of the content's URI is not allowed; expected one of {expected}",
            )
        return scheme


def _release(error: BaseException) -> None:
    """Let go of what a failure's frames hold: a batch of failures would keep every download in memory."""
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
