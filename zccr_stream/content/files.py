"""Content from `file:` URIs: a URI comes in, bounded bytes go out.

Only regular files under one root are read, with links resolved; no swap of a folder in between leads out.
Knows nothing of images, texts or events.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from urllib.parse import unquote, urlsplit

from zccr_stream.events import BadInputError, TryLaterError

_OPEN = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK  # the last: opening a fifo would wait for a writer

# No such file, a file for a folder, an impossible name, a loop of links or a swapped-in one, a socket.
_NEVER = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO})


class FileReader:
    """Reads files under `root`.

    Raises:
        ValueError: `root` is not a folder.
    """

    def __init__(self, root: str) -> None:
        self._root = Path(root).resolve()
        if not self._root.is_dir():
            raise ValueError(f"the root of file: URIs must be an existing folder, but {root!r} is not")

    def fetch(self, uri: str, bytes_max: int) -> bytes:
        """Read at most `bytes_max` bytes.

        Raises:
            BadInputError: no regular file under the root, not readable, or too large.
            TryLaterError: the file system failed.
        """
        path = _path(uri)
        try:
            return self._read(path, bytes_max)
        except PermissionError as error:
            raise BadInputError("fetch", f"the file {_shown(path)} may not be read by this service") from error
        except (OSError, RuntimeError) as error:  # the latter: a loop of links, up to Python 3.12
            if isinstance(error, OSError) and error.errno not in _NEVER:
                raise TryLaterError("fetch", f"the file {_shown(path)} could not be read: {error.strerror}") from error
            raise BadInputError("fetch", f"there is no regular file {_shown(path)}") from error

    def _read(self, path: str, bytes_max: int) -> bytes:
        resolved = Path(path).resolve(strict=True)
        if not resolved.is_relative_to(self._root):
            raise BadInputError("fetch", f"the file {_shown(path)} does not lie under the folder that is allowed")
        descriptor = self._open(resolved.relative_to(self._root))
        try:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                raise BadInputError("fetch", f"{_shown(path)} is not a regular file")
            if state.st_size > bytes_max:
                size = f"{state.st_size:,} bytes; at most {bytes_max:,} are allowed"
                raise BadInputError("fetch", f"the file {_shown(path)} holds {size}")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(bytes_max + 1)
        finally:
            os.close(descriptor)
        if len(data) > bytes_max:
            raise BadInputError("fetch", f"the file {_shown(path)} holds more than the {bytes_max:,} bytes allowed")
        return data

    def _open(self, relative: Path) -> int:
        """Open folder by folder without following links: the path was free of them when it was checked."""
        folder = os.open(self._root, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY)
        try:
            *parents, name = relative.parts or (".",)
            for parent in parents:
                inner = os.open(parent, _OPEN | os.O_DIRECTORY, dir_fd=folder)
                os.close(folder)
                folder = inner
            return os.open(name, _OPEN, dir_fd=folder)
        finally:
            os.close(folder)


def _path(uri: str) -> str:
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise BadInputError("fetch", "the file: URI cannot be read; expected file:///absolute/path") from error
    path = unquote(parts.path)
    if parts.netloc not in ("", "localhost") or parts.query or parts.fragment or not path.startswith("/"):
        raise BadInputError("fetch", "the file: URI is not of the form file:///absolute/path (percent-encoded)")
    if "\0" in path or ".." in path.split("/"):
        raise BadInputError("fetch", "the path of the file: URI holds '..' or a NUL; expected a plain absolute path")
    return path


def _shown(path: str) -> str:
    return repr(path if len(path) <= 200 else path[:200] + "…")
