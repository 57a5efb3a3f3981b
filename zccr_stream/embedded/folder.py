"""The data folder: held by one process at a time, and not left behind when it is a temporary one.

Comes in: a folder, or none for a temporary one. Goes out: a folder that this process holds a lock on; the system drops
the lock when the process ends, whatever ends it, which is how a later start knows what may be swept away.
It does not know what lies in the folder.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path

from zccr_stream.embedded.process import EmbeddedError

_PREFIX = "zccr-embedded-"
_NEWBORN = "zccr-newborn-"  # not swept: it is renamed once its lock is held
_POLL_S = 0.1


class DataFolder:
    """A folder that is locked until `release()`."""

    def __init__(self, path: Path | None, *, timeout_s: float) -> None:
        """Make and lock the folder.

        Args:
            path: The folder, made if missing; `None` for a temporary one, which `release()` removes.
            timeout_s: Seconds to wait for servers of a former holder that are still ending.
        """
        self.temporary = path is None
        try:
            if path is None:
                _sweep()
                newborn = Path(tempfile.mkdtemp(prefix=_NEWBORN))
                self._lock = _lock(newborn)
                self.path = newborn.rename(newborn.with_name(newborn.name.replace(_NEWBORN, _PREFIX)))
                self.path.chmod(0o711)  # a server that runs as another user must get through to its own folder
            else:
                self.path = path.absolute()
                self.path.mkdir(parents=True, exist_ok=True)
                self._lock = _wait_for_lock(self.path, timeout_s)
        except OSError as error:
            raise EmbeddedError(f"the data folder {path or tempfile.gettempdir()} cannot be used: {error}") from error

    def release(self) -> None:
        """Give the folder up; a temporary one goes."""
        if self.temporary:
            shutil.rmtree(self.path, ignore_errors=True)
        with contextlib.suppress(OSError):
            os.close(self._lock)


def _lock(path: Path) -> int:
    """Lock the folder itself, so that it needs no lock file; `BlockingIOError` when another process holds it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _wait_for_lock(path: Path, timeout_s: float) -> int:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return _lock(path)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise EmbeddedError(
                    f"the data folder {path} is used by another process; stop that one, or choose another folder"
                ) from error
            time.sleep(_POLL_S)


def _sweep() -> None:
    """Remove temporary folders whose processes are gone, keepers included."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if path.is_symlink() or path.stat().st_uid != os.geteuid():
                continue
            lock = _lock(path)
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)
