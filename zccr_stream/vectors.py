"""Vectors at unit length, and what float32 does not tell apart. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

TIE = 1e-6
"""Lengths and cosines closer than this are equal, and a length below it is rounding: it has no direction."""


def at_unit_length(
    vectors: npt.NDArray[np.floating], otherwise: npt.NDArray[np.floating] | None = None
) -> npt.NDArray[Any]:
    """(n, d) vectors at unit length, as precise as they were; what has no direction is its row of the others, or 0."""
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
    found = np.zeros_like(vectors) if otherwise is None else otherwise.astype(vectors.dtype)
    np.divide(vectors, lengths, out=found, where=lengths > TIE)
    return found
