"""Arrays that took long to make, in a folder, by a name that says what they were made of."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Arrays = Mapping[str, npt.NDArray[Any]]


def cached(folder: Path, name: str, make: Callable[[], Arrays]) -> Arrays:
    """Read the arrays of that name, or make and keep them; of two processes at once the later one's file stays."""
    kept = folder / f"{name}.npz"
    if kept.is_file():
        with np.load(kept) as arrays:
            return dict(arrays)
    made = make()
    folder.mkdir(parents=True, exist_ok=True)
    half_written = kept.with_name(f"{name}.{os.getpid()}.npz")
    np.savez(half_written, allow_pickle=False, **made)
    half_written.replace(kept)
    return made
