"""What content may cost and where it may come from: plain values, each with its unit.

Defaults and their reasons live in the settings; nothing here is read from the environment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """Where content may come from, and the bytes and seconds it may take.

    Args:
        schemes: allowed URI schemes, of `data`, `file`, `http`, `https`, `s3`, `gs`.
        private_networks: networks in CIDR notation that may be connected to although they are not public.
        ca_file: PEM file of the authorities that sign https certificates; None: certifi's.
        store_prefixes: an `s3:` or `gs:` URI must start with one of these; empty: whatever may be read.
        store_options: per scheme, what fsspec's file system is constructed with (endpoint, credentials, ...).
        file_root: the folder that `file:` URIs must lie under; None: `file:` is refused.
        image_bytes_max, text_bytes_max: bound of one content, as sent and as decompressed.
        redirects_max: how many redirects are followed.
        connect_timeout_s: bound of one connection attempt, TLS handshake apart.
        timeout_s: bound of one fetch as a whole, from the name lookup over every redirect to the last byte.
        batch_timeout_s: bound of a batch as a whole, decoding included.
        concurrency: how many contents are fetched and decoded side by side.
    """

    schemes: frozenset[str]
    private_networks: tuple[str, ...]
    ca_file: str | None
    store_prefixes: tuple[str, ...]
    store_options: Mapping[str, Mapping[str, Any]] = field(repr=False)  # may hold credentials
    file_root: str | None
    image_bytes_max: int
    text_bytes_max: int
    redirects_max: int
    connect_timeout_s: float
    timeout_s: float
    batch_timeout_s: float
    concurrency: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeLimits:
    """What decoding may cost, and how large its results are.

    Args:
        pixels_max: bound of width x height of one image, before it is decoded.
        pixels_in_flight_max: bound of the pixels being decoded at any time, over all threads; at the worst
            (32-bit images) 16 bytes are held for each.
        pixels_kept_max: larger images are scaled down to this once decoded, so that a batch fits in memory.
        side_min_px: what the encoder needs of the shorter side; JPEG is decoded no larger than needed for it.
        text_chars_max: bound of one text.
    """

    pixels_max: int
    pixels_in_flight_max: int
    pixels_kept_max: int
    side_min_px: int
    text_chars_max: int
