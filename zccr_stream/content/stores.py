"""Content from object stores (`s3:`, `gs:`): a URI comes in, bounded bytes go out.

fsspec's file systems do the reading, with the credentials of this process, so which buckets may be named is a
setting. Knows nothing of images, texts or events.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Mapping, Sequence
from typing import Any

import fsspec.asyn

from zccr_stream.events import BadInputError, TryLaterError

STORE_SCHEMES = ("gs", "s3")

# gcsfs's core, not what it registers: that asks another service, over gRPC, what kind of bucket it is first.
_FILE_SYSTEMS = {"s3": "s3fs.S3FileSystem", "gs": "gcsfs.core.GCSFileSystem"}

# What the libraries below each file system let through.
_FAULTS = {
    "s3": ("botocore.exceptions.BotoCoreError", "botocore.exceptions.ClientError", "aiohttp.ClientError"),
    "gs": (
        *("gcsfs.retry.HttpError", "gcsfs.retry.NonRetryableError", "google.auth.exceptions.GoogleAuthError"),
        *("requests.exceptions.RequestException", "aiohttp.ClientError"),
    ),
}


class StoreReader:
    """Reads objects of one store.

    Args:
        scheme: `s3` or `gs`.
        prefixes: a URI must start with one of these; empty: any.
        options: what fsspec's file system is constructed with.

    Raises:
        ValueError: the package that reads this store is not installed.
    """

    def __init__(self, scheme: str, prefixes: Sequence[str], options: Mapping[str, Any]) -> None:
        self._prefixes = tuple(prefix for prefix in prefixes if prefix.startswith(f"{scheme}://"))
        self._restricted = bool(prefixes)
        try:
            file_system = _named(_FILE_SYSTEMS[scheme])
            self._faults: tuple[type[Exception], ...] = (OSError, *(_named(name) for name in _FAULTS[scheme]))
        except ImportError as error:
            hint = f"what reads it is not installed: pip install 'zccr-stream[{scheme}]'"
            raise ValueError(f"the scheme {scheme!r} is allowed, but {hint}") from error
        # Not the instance that fsspec would cache: it would be one per thread, each with connections of its own.
        self._files = file_system(skip_instance_cache=True, use_listings_cache=False, **options)

    def fetch(self, uri: str, bytes_max: int, timeout_s: float) -> bytes:
        """Read at most `bytes_max` bytes of an object within `timeout_s`.

        Raises:
            BadInputError: no such object, not readable, in a bucket that is not allowed, or too large.
            TryLaterError: the store failed or was too slow.
        """
        name = repr(uri[:200])
        scheme, _, path = uri.partition("://")
        # "?" would name a version; ".." may be resolved on the way, past the prefix that was checked.
        if not path.partition("/")[2] or "?" in path or ".." in path.split("/"):
            raise BadInputError("fetch", f"{name} does not name an object; expected {scheme}://bucket/key")
        if self._restricted and not uri.startswith(self._prefixes):
            raise BadInputError("fetch", f"{name} lies outside the buckets and folders that are allowed")
        try:
            data = self._read(path, bytes_max + 1, timeout_s)
        except (FileNotFoundError, IsADirectoryError) as error:
            raise BadInputError("fetch", f"there is no object {name}") from error
        except (PermissionError, ValueError) as error:
            raise BadInputError(
                "fetch", f"the object {name} may not be read by this service: {_reason(error)}"
            ) from error
        except TimeoutError as error:
            raise TryLaterError("fetch", f"{name} did not come in full within {timeout_s:.3g} s") from error
        except self._faults as error:
            raise TryLaterError("fetch", f"the object {name} could not be read: {_reason(error)}") from error
        if len(data) > bytes_max:
            raise BadInputError("fetch", f"the object {name} holds more than the {bytes_max:,} bytes that are allowed")
        return data

    def _read(self, path: str, end: int, timeout_s: float) -> bytes:
        """Ask for a range, so that a huge object is not sent; the deadline cancels the request."""

        async def read() -> bytes:
            async with asyncio.timeout(timeout_s):
                return bytes(await self._files._cat_file(path, start=0, end=end))

        return bytes(fsspec.asyn.sync(self._files.loop, read))


def _reason(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]


def _named(name: str) -> Any:
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)
