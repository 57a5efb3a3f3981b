"""The snapshot file: checked blocks, written and read one at a time, so that no second copy of an index is needed.

A file is a magic line, then blocks, then an end block that counts them. Each block is its head (length of the
description, length of the data, CRC-32 of both lengths, description and data), a JSON description and arrays end to
end. A file that is torn, foreign or changed in a single bit is refused. It replaces the old one in one step, once it
is on disk. Knows nothing of indexes or Kafka.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from io import BufferedReader
from itertools import pairwise
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

MAGIC = b"zccr-stream index 2\n"
HEAD = struct.Struct("<IQI")  # length of the description, length of the data, CRC-32 of these two and of both
LENGTHS = struct.Struct("<IQ")
DESCRIPTION_MAX = 16 * 2**20
DATA_MAX = 2**32


class SnapshotError(Exception):
    """A snapshot that cannot be used or written: missing, torn, of another source. Rebuild from the topic instead."""


class Header(NamedTuple):
    """What a snapshot is of: the space it holds, the next offset to read of each partition, and when it was taken.

    The time is in the file, in seconds since 1970, since a copy of a file is younger than what is in it.
    """

    source: str
    dimension: int
    positions: Mapping[int, int]
    taken_at_s: float


class Block(NamedTuple):
    """The states of n assets: live ones of one modality, or removed ones, which have no modality, users or vectors.

    `users` (n,) point into `user_ids`; `vectors` are (n, d).
    """

    modality: str | None
    asset_ids: Sequence[str]
    revisions: npt.NDArray[np.int64]
    user_ids: Sequence[str]
    users: npt.NDArray[np.int32]
    vectors: npt.NDArray[np.float16]


def write(path: Path, header: Header, blocks: Iterator[Block]) -> None:
    """Write a snapshot beside `path`, sync it to disk and put it in place.

    Raises:
        SnapshotError: it could not be written; what was at `path` is untouched.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep(path)
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX)
                _write(file, header, blocks)
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
        _sync_folder(path.parent)
    except OSError as error:
        raise SnapshotError(
            f"cannot write the snapshot {path}: {error}; is the disk full or the folder ours?"
        ) from error


def read(path: Path, source: str, dimension: int) -> Iterator[Header | Block]:
    """Read a snapshot: its header, then its blocks, each checked before it is given out.

    What was given out may be used only when the iterator has ended well: a torn file shows at its end.

    Raises:
        SnapshotError: there is none, it is torn or foreign, or of another source or dimension.
    """
    try:
        with path.open("rb") as file:
            yield from _read(file, path, source, dimension)
    except OSError as error:
        raise SnapshotError(f"cannot read the snapshot {path}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise SnapshotError(f"{path} is not a snapshot of this version: {error!r}") from error


def _write(file: Any, header: Header, blocks: Iterator[Block]) -> None:
    file.write(MAGIC)
    positions = {str(partition): offset for partition, offset in header.positions.items()}
    _put(file, {"kind": "header", **header._asdict(), "positions": positions}, [])
    count = 0
    for block in blocks:
        ids, id_lengths = _pack(block.asset_ids)
        names, name_lengths = _pack(block.user_ids)
        description = {
            "kind": "block",
            "modality": block.modality,
            "assets": len(block.asset_ids),
            "users": len(block.user_ids),
            "bytes": [len(ids), len(names)],
        }
        vectors = np.ascontiguousarray(block.vectors, "<f2")
        columns = [id_lengths, name_lengths, block.revisions.astype("<i8"), block.users.astype("<i4"), vectors]
        _put(file, description, [ids, names, *(column.reshape(-1).view(np.uint8).data for column in columns)])
        count += 1
    _put(file, {"kind": "end", "blocks": count}, [])


def _put(file: Any, description: dict[str, Any], data: Sequence[bytes | memoryview]) -> None:
    text = json.dumps(description).encode()
    lengths = LENGTHS.pack(len(text), sum(map(len, data)))
    checksum = zlib.crc32(text, zlib.crc32(lengths))
    for piece in data:
        checksum = zlib.crc32(piece, checksum)
    file.write(lengths + struct.pack("<I", checksum) + text)
    for piece in data:
        file.write(piece)


def _read(file: BufferedReader, path: Path, source: str, dimension: int) -> Iterator[Header | Block]:
    if file.read(len(MAGIC)) != MAGIC:
        raise SnapshotError(f"{path} is not a snapshot of this version")
    size = os.fstat(file.fileno()).st_size
    description, _ = _take(file, path, size)
    if description["kind"] != "header":
        raise SnapshotError(f"{path} does not begin with its header")
    for name, expected in (("source", source), ("dimension", dimension)):
        if description[name] != expected:
            raise SnapshotError(f"{path} is of {name} {description[name]!r}; expected {expected!r}")
    positions = {int(partition): int(offset) for partition, offset in description["positions"].items()}
    yield Header(source, dimension, positions, float(description["taken_at_s"]))
    count = 0
    while True:
        description, data = _take(file, path, size)
        if description["kind"] == "end":
            break
        yield _block(description, data, dimension)
        count += 1
    if description["blocks"] != count or file.read(1):
        raise SnapshotError(f"{path} has {count} blocks and more or less than its end says, {description['blocks']}")


def _take(file: BufferedReader, path: Path, size: int) -> tuple[dict[str, Any], memoryview]:
    head = file.read(HEAD.size)
    if len(head) < HEAD.size:
        raise SnapshotError(f"{path} is torn: it ends at byte {size}, before its last block")
    text_length, data_length, checksum = HEAD.unpack(head)
    if text_length > DESCRIPTION_MAX or data_length > DATA_MAX or file.tell() + text_length + data_length > size:
        raise SnapshotError(f"{path} is torn or corrupt before byte {file.tell()}")
    text = file.read(text_length)
    data = memoryview(bytearray(data_length))
    file.readinto(data)
    actual = zlib.crc32(data, zlib.crc32(text, zlib.crc32(head[: LENGTHS.size])))
    if actual != checksum:
        raise SnapshotError(f"{path} is corrupt before byte {file.tell()}: its checksum is {actual}, not {checksum}")
    description: dict[str, Any] = json.loads(text)
    return description, data


def _block(description: dict[str, Any], data: memoryview, dimension: int) -> Block:
    n, users, modality = description["assets"], description["users"], description["modality"]
    ids_length, names_length = description["bytes"]
    live = 0 if modality is None else n
    sizes = [ids_length, names_length, 2 * n, 2 * users, 8 * n, 4 * live, 2 * live * dimension]
    bounds = np.cumsum([0, *sizes]).tolist()
    ids, names, id_lengths, name_lengths, revisions, owners, vectors = (
        data[start:stop] for start, stop in pairwise(bounds)
    )
    return Block(
        modality,
        _unpack(ids, id_lengths),
        np.frombuffer(revisions, "<i8"),
        _unpack(names, name_lengths),
        np.frombuffer(owners, "<i4"),
        np.frombuffer(vectors, "<f2").reshape(live, dimension),
    )


def _pack(texts: Sequence[str]) -> tuple[bytes, npt.NDArray[np.uint16]]:
    """One UTF-8 blob and each text's length in characters; a lone surrogate survives, as Python may hold one."""
    return "".join(texts).encode("utf-8", "surrogatepass"), np.fromiter(map(len, texts), "<u2", len(texts))


def _unpack(blob: memoryview, lengths: memoryview) -> list[str]:
    whole = bytes(blob).decode("utf-8", "surrogatepass")
    stops = np.cumsum(np.frombuffer(lengths, "<u2"), dtype=np.int64).tolist()
    return [whole[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]


def _sweep(path: Path) -> None:
    """Remove what writers left behind that were killed: a living one holds a lock."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        with contextlib.suppress(OSError), left.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left.unlink()


def _sync_folder(folder: Path) -> None:
    """Make the new name last; some file systems cannot sync a folder, and the content is safe by then."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
