"""The internal topics: what ingest tells the recommenders.

Embeddings and profile versions come in as arrays and go out as messages, and back. Whole batches at once: one
buffer for all vectors. Knows nothing of what the vectors mean or of who reads them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic_core import to_json

from zccr_stream.events.envelope import read_object, shown
from zccr_stream.events.identifiers import COUNT_MAX, EXPECTED_ID, is_identifier, read_count, read_identifier
from zccr_stream.events.times import format_time, parse_time
from zccr_stream.events.vocabulary import (
    ASSET_EMBEDDED,
    MODALITIES,
    PROFILE_CHANGED,
    BadEventError,
    CorruptRecordError,
    Embeddings,
    Message,
    ProfileChanged,
    Record,
)

_HALF_BYTES = 2
_LENGTH_TOLERANCE = 0.01  # float16 makes unit vectors longer or shorter by less than a thousandth
_MILLISECONDS = re.compile(rb"-?[0-9]{1,16}")
_NO_TIME = b"1970-01-01T00:00:00Z"


def dump_embeddings(embeddings: Embeddings) -> list[Message]:
    """`asset-embedded`, one message per asset; a removal has no value."""
    n, d = embeddings.vectors.shape
    assert len(embeddings) == n == len(embeddings.revisions) == len(embeddings.live), "arrays of one length"
    width = d * _HALF_BYTES
    blob = np.ascontiguousarray(embeddings.vectors, dtype="<f2").tobytes()
    model = ("model", embeddings.model.encode())
    revisions = embeddings.revisions.tolist()
    times = embeddings.occurred_at_ns.tolist()
    messages = []
    for row, live in enumerate(embeddings.live.tolist()):
        headers = (
            ("user_id", embeddings.user_ids[row].encode()),
            ("modality", embeddings.modalities[row].encode()),
            model,
            ("revision", b"%d" % revisions[row]),
            ("occurred_at", format_time(times[row]).encode()),
        )
        value = blob[row * width : (row + 1) * width] if live else None
        messages.append(Message(ASSET_EMBEDDED, embeddings.asset_ids[row].encode(), value, headers))
    return messages


def parse_embeddings(records: Sequence[Record], model: str, dimension: int) -> Embeddings:
    """Read a batch of `asset-embedded`.

    Assets of another model, or of another dimension, are not live: they are removed from this model's space.

    Args:
        records: n records of any partitions, in order.
        model: the name of the space.
        dimension: d of that space.

    Raises:
        CorruptRecordError: a record that this program did not write.
    """
    columns = _Columns([], [], [], [], [], [])
    for record in records:
        columns.add(record)
    space, width = model.encode(), dimension * _HALF_BYTES
    live = [
        record.value is not None and len(record.value) == width and of_record == space
        for record, of_record in zip(records, columns.models, strict=True)
    ]
    vectors = np.zeros((len(records), dimension), np.float16)
    vectors[live] = _vectors([record for record, is_live in zip(records, live, strict=True) if is_live], dimension)
    return Embeddings(
        model,
        columns.asset_ids,
        columns.user_ids,
        columns.modalities,
        np.array(columns.revisions, np.int64),
        np.array(columns.times_ns, np.int64),
        vectors,
        np.array(live, bool),
    )


@dataclass(frozen=True, slots=True)
class _Columns:
    """What the keys and headers of a batch say, field by field."""

    asset_ids: list[str]
    user_ids: list[str]
    modalities: list[str]
    models: list[bytes]
    revisions: list[int]
    times_ns: list[int]

    def add(self, record: Record) -> None:
        headers = dict(record.headers)
        try:
            self.asset_ids.append(read_identifier(_bytes(record.key).decode()))
            self.models.append(_bytes(headers["model"]))
            self.revisions.append(read_count(_bytes(headers["revision"])))
            # A removal need not say whose asset it was, of which kind, and since when.
            self.user_ids.append((headers.get("user_id") or b"").decode())
            self.modalities.append(_modality(headers.get("modality"), record.value))
            self.times_ns.append(parse_time((headers.get("occurred_at") or _NO_TIME).decode()))
        except KeyError as error:
            raise CorruptRecordError(record, f"header {error.args[0]}: missing") from error
        except ValueError as error:
            raise CorruptRecordError(record, f"key or headers: {error}") from error


def _modality(modality: bytes | None, value: bytes | None) -> str:
    said = (modality or b"").decode()
    if value is not None and said not in MODALITIES:
        raise ValueError(f"modality {said!r}")
    return said


def _bytes(value: bytes | None) -> bytes:
    if value is None:
        raise ValueError("null")
    return value


def _vectors(records: Sequence[Record], dimension: int) -> npt.NDArray[np.float16]:
    """(n, d): the values of n records. One NaN, or one vector that is too long, would spoil every search."""
    vectors = np.frombuffer(b"".join([record.value or b"" for record in records]), "<f2")
    vectors = vectors.reshape(len(records), dimension)
    with np.errstate(invalid="ignore"):  # a NaN is found below, by the length that it makes
        wide = vectors.astype(np.float32)
        lengths = np.sqrt(np.einsum("nd,nd->n", wide, wide))
    broken = np.flatnonzero(~(np.abs(lengths - 1) <= _LENGTH_TOLERANCE))
    if broken.size:
        raise CorruptRecordError(records[broken[0]], f"value: a vector of length {lengths[broken[0]]}, expected 1")
    return vectors


def dump_profile_changes(changes: Sequence[ProfileChanged]) -> list[Message]:
    """`profile-changed`, one message per user; the time of arrival goes along to measure how long it all took."""
    return [
        Message(
            PROFILE_CHANGED,
            change.user_id.encode(),
            to_json({"user_id": change.user_id, "profile_version": change.profile_version}),
            (("received_at_ms", b"%d" % change.received_at_ms),),
        )
        for change in changes
    ]


def parse_profile_changed(record: Record) -> ProfileChanged:
    """Read one `profile-changed` record; without its time of arrival, the record's own timestamp counts (-1: none).

    Raises:
        BadEventError: not a record of this topic.
    """
    if record.value is None:
        raise BadEventError("value: got null, expected a JSON object")
    data = read_object("value", record.value)
    version = data.get("profile_version")
    user_id = data["user_id"] if isinstance(data.get("user_id"), str) else ""
    if not is_identifier(user_id):
        raise BadEventError(f"user_id: got {shown(data.get('user_id'))}, expected {EXPECTED_ID}")
    if not isinstance(version, int) or isinstance(version, bool) or not 0 <= version <= COUNT_MAX:
        raise BadEventError(f"profile_version: got {shown(version)}, expected an integer from 0 to 2^62")
    received_at = dict(record.headers).get("received_at_ms")
    if received_at is None:
        return ProfileChanged(user_id, version, record.timestamp_ms)
    if not _MILLISECONDS.fullmatch(received_at):
        raise BadEventError(f"received_at_ms: got {shown(received_at)}, expected milliseconds since 1970")
    return ProfileChanged(user_id, version, int(received_at))
