"""Times of single calls, for tables that have them beside the paper's."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np


def milliseconds(work: Callable[..., object], *arguments: object) -> float:
    """Milliseconds that a call takes."""
    started = time.perf_counter()
    work(*arguments)
    return 1e3 * (time.perf_counter() - started)


def spread(times: Sequence[float]) -> dict[str, float]:
    """Mean, deviation and median of times in milliseconds."""
    return {"mean_ms": float(np.mean(times)), "std_ms": float(np.std(times)), "median_ms": float(np.median(times))}
