"""Arrays that took long to make, in a folder, by a name that says what they were made of."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

Arrays = Mapping[str, npt.NDArray[Any]]


def cached(folder: Path, name: str, arrays: Collection[str], n: int, make: Callable[[], Arrays]) -> Arrays:
    """Read the arrays of that name, or make and keep them; of two processes at once the later one's file stays.

    What cannot be read, or is not what it should be, is made anew.

    Args:
        folder: where they are kept.
        name: says what they are made of.
        arrays: their names.
        n: how many rows of finite numbers each has.
        make: makes them.

    Raises:
        OSError: the folder cannot be made, before the work, or written.
    """
    kept = folder / f"{name}.npz"
    with contextlib.suppress(OSError, ValueError, TypeError, EOFError, BadZipFile), kept.open("rb") as file:
        found = dict(np.load(file, allow_pickle=False))
        if found.keys() == set(arrays) and all(len(rows) == n and np.isfinite(rows).all() for rows in found.values()):
            return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"{folder} cannot be made ({error.strerror}): give another folder by --cache") from error
    made = make()
    half_written = kept.with_name(f"{name}.{os.getpid()}.npz")
    np.savez(half_written, allow_pickle=False, **made)
    half_written.replace(kept)
    return made
