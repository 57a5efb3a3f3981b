"""PostgreSQL's binary COPY format: columns of plain values out, fields and equally long vectors in.

It keeps vectors out of psycopg2's hexadecimal text, which takes more than twice the time both ways. It does not know
any table. Format: https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format".
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_BOOLEANS = (b"\0\0\0\1\0", b"\0\0\0\1\1")
_count = struct.Struct("!h")
_length = struct.Struct("!i")
_bigint = struct.Struct("!iq")


def dump(*columns: Sequence[bytes]) -> bytes:
    """Columns of equally many fields as one COPY stream."""
    assert len({len(column) for column in columns}) == 1
    rows = zip(itertools.repeat(_count.pack(len(columns))), *columns, strict=False)
    return b"".join([_HEADER, *itertools.chain.from_iterable(rows), _TRAILER])


def texts(values: Iterable[str | None]) -> list[bytes]:
    """A column of text."""
    return byteas(None if value is None else value.encode() for value in values)


def byteas(values: Iterable[bytes | None]) -> list[bytes]:
    """A column of bytea."""
    return [_NULL if value is None else _length.pack(len(value)) + value for value in values]


def bigints(values: Iterable[int]) -> list[bytes]:
    """A column of bigint."""
    return [_bigint.pack(8, value) for value in values]


def booleans(values: Iterable[bool]) -> list[bytes]:
    """A column of boolean."""
    return [_BOOLEANS[value] for value in values]


def load(stream: memoryview) -> list[list[bytes | None]]:
    """The rows of a COPY stream, each field as it stands there."""
    rows: list[list[bytes | None]] = []
    at = len(_HEADER)
    while (columns := _count.unpack_from(stream, at)[0]) >= 0:
        at += _count.size
        row: list[bytes | None] = []
        for _ in range(columns):
            (length,) = _length.unpack_from(stream, at)
            at += _length.size
            row.append(None if length < 0 else bytes(stream[at : at + length]))
            at += max(length, 0)
        rows.append(row)
    return rows


def load_integers(field: bytes | None) -> npt.NDArray[np.int64]:
    """Bigints packed one after the other; null holds none."""
    return np.frombuffer(field or b"", ">i8").astype(np.int64)


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
