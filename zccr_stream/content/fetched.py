"""The vocabulary of fetching: what every source gives."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fetched:
    """Bytes as they came, and the charset that their sender declared, if any."""

    data: bytes
    charset: str | None = None
