"""PostgreSQL's binary COPY format: rows of plain values out, one column of equally long bytes in.

It keeps vectors out of psycopg2's hexadecimal text, which costs twice the time both ways. It does not know any table.
Format: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_FALSE = b"\0\0\0\1\0"
_TRUE = b"\0\0\0\1\1"

Value = str | bytes | int | bool | None


def dump(rows: Iterable[Sequence[Value]], columns: int) -> bytes:
    """Rows of text, bytea, bigint and boolean values as one COPY stream."""
    count = struct.pack("!h", columns)
    parts = [_HEADER]
    for row in rows:
        assert len(row) == columns
        parts.append(count)
        parts.extend(_field(value) for value in row)
    parts.append(_TRAILER)
    return b"".join(parts)


def load(stream: memoryview) -> list[list[memoryview | None]]:
    """The rows of a COPY stream, each field as it stands there."""
    rows: list[list[memoryview | None]] = []
    at = len(_HEADER)
    while stream[at : at + 2] != _TRAILER:
        (columns,) = struct.unpack_from("!h", stream, at)
        at += 2
        row: list[memoryview | None] = []
        for _ in range(columns):
            (length,) = struct.unpack_from("!i", stream, at)
            at += 4
            row.append(None if length < 0 else stream[at : at + length])
            at += max(length, 0)
        rows.append(row)
    return rows


def load_vectors(stream: memoryview, n: int, dimension: int) -> npt.NDArray[np.float16]:
    """The n vectors of a COPY stream of one bytea column, (n, d), as a view of the stream.

    Raises:
        ValueError: it holds another number of rows, or a vector of another length.
    """
    row = np.dtype([("columns", ">i2"), ("length", ">i4"), ("vector", "<f2", (dimension,))])
    body = stream[len(_HEADER) : -len(_TRAILER)]
    if len(body) != n * row.itemsize:
        raise ValueError(f"expected {n} vectors of {dimension} float16 in {n * row.itemsize} bytes, not {len(body)}")
    rows = np.frombuffer(body, row)
    if not (rows["length"] == 2 * dimension).all():
        raise ValueError(f"expected vectors of {dimension} float16")
    vectors: npt.NDArray[np.float16] = rows["vector"]
    return vectors


def _field(value: Value) -> bytes:
    if value is None:
        return _NULL
    if isinstance(value, bool):
        return _TRUE if value else _FALSE
    if isinstance(value, int):
        return struct.pack("!iq", 8, value)
    raw = value.encode() if isinstance(value, str) else value
    return len(raw).to_bytes(4, "big") + raw
