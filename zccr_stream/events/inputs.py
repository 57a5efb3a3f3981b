"""The input topics: records -> events, and events -> messages for those who upload.

Checks every field and says in its errors which one was wrong and what is expected; fetches nothing and decides
nothing about order. Times become nanoseconds in UTC, identifiers stay as they are, byte by byte.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic_core import PydanticSerializationError, to_json

from zccr_stream.events.envelope import STRUCTURED_TYPE, Envelope, read_envelope, shown, write_headers
from zccr_stream.events.identifiers import CONTROL, EXPECTED_ID, is_identifier
from zccr_stream.events.times import EXPECTED as EXPECTED_TIME
from zccr_stream.events.times import NS_MAX, format_time, parse_time
from zccr_stream.events.vocabulary import (
    ASSET_DELETED,
    ASSET_UPLOADED,
    IMAGE,
    INPUT_TYPES,
    MODALITIES,
    TEXT,
    USER_DELETED,
    AssetDeleted,
    AssetUploaded,
    BadEventError,
    InputEvent,
    Message,
    Record,
    UserDeleted,
)

# Longer than what browsers and servers agree on; a data: URI carries its content and is as long as the record allows.
URI_LENGTH_MAX = 8192
_MS_NS = 1_000_000

_EXPECTED = {
    "asset_id": EXPECTED_ID,
    "user_id": EXPECTED_ID,
    "modality": " or ".join(map(repr, MODALITIES)),
    "uri": f"a URI of up to {URI_LENGTH_MAX} characters without control characters (a data: URI may be longer)",
    "text": "a string",
    "occurred_at": EXPECTED_TIME,
}
_NO_CONTENT_TYPE = f" (a structured CloudEvent needs the header content-type: {STRUCTURED_TYPE})"


def _identifier(value: str) -> str:
    if not is_identifier(value):
        raise ValueError
    return value


def _modality(value: str) -> str:
    if value not in MODALITIES:
        raise ValueError
    return value


def _uri(value: str) -> str:
    if value[:5].lower() != "data:" and (not 1 <= len(value) <= URI_LENGTH_MAX or not CONTROL.isdisjoint(value)):
        raise ValueError
    return value


def _time(value: object) -> int | None:
    if value is not None and not isinstance(value, str):
        raise ValueError("not a string")
    return None if value is None else parse_time(value)


Identifier = Annotated[str, AfterValidator(_identifier)]
Time = Annotated[int | None, BeforeValidator(_time)]


class _Data(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)

    occurred_at: Time = None


class _AssetUploadedData(_Data):
    asset_id: Identifier
    user_id: Identifier
    modality: Annotated[str, AfterValidator(_modality)]
    uri: Annotated[str, AfterValidator(_uri)] | None = None
    text: str | None = None


class _AssetDeletedData(_Data):
    asset_id: Identifier


class _UserDeletedData(_Data):
    user_id: Identifier


_SCHEMAS: dict[str, type[_Data]] = {
    ASSET_UPLOADED: _AssetUploadedData,
    ASSET_DELETED: _AssetDeletedData,
    USER_DELETED: _UserDeletedData,
}


def parse(record: Record, topic: str) -> InputEvent:
    """Read one record of the input topic `topic` (named without prefix).

    Raises:
        BadEventError: not a valid event of this topic.
    """
    envelope = read_envelope(record)
    if envelope.type not in (None, INPUT_TYPES[topic]):
        raise BadEventError(
            f"{envelope.prefix}type: got {shown(envelope.type)}, expected {INPUT_TYPES[topic]!r} on {topic}"
        )
    data = _check(_SCHEMAS[topic], envelope.data)
    event_id = _event_id(record, envelope)
    occurred_at_ns = _occurred_at_ns(record, envelope, data)
    # Without a record timestamp the event's own time is the nearest there is to its arrival.
    received_at_ms = record.timestamp_ms if record.timestamp_ms >= 0 else occurred_at_ns // _MS_NS
    match data:
        case _AssetUploadedData():
            uri, text = _content(data)
            return AssetUploaded(
                event_id, occurred_at_ns, received_at_ms, data.asset_id, data.user_id, data.modality, uri, text
            )
        case _AssetDeletedData():
            return AssetDeleted(event_id, occurred_at_ns, received_at_ms, data.asset_id)
        case _UserDeletedData():
            return UserDeleted(event_id, occurred_at_ns, received_at_ms, data.user_id)
    raise AssertionError(f"no event for {topic}")


def _check(schema: type[_Data], data: dict[str, Any]) -> _Data:
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(map(_problem, error.errors(include_url=False)))
        raise BadEventError(problems + (_NO_CONTENT_TYPE if "specversion" in data else "")) from error


def _problem(error: Any) -> str:
    field = str(error["loc"][0])
    if error["type"] == "missing":
        return f"{field}: missing, expected {_EXPECTED[field]}"
    reason = str(error.get("ctx", {}).get("error", ""))
    return f"{field}: got {shown(error['input'])}{f' ({reason})' if reason else ''}, expected {_EXPECTED[field]}"


def _content(data: _AssetUploadedData) -> tuple[str | None, str | None]:
    """`uri` and `text`, exactly one of them set: an inline text needs no fetch."""
    if data.modality == TEXT and data.text is not None:
        return None, data.text
    if data.uri is None:
        field = "uri" if data.modality == IMAGE else "text"
        either = "" if data.modality == IMAGE else "the text itself, or in uri "
        raise BadEventError(f"{field}: missing, expected {either}{_EXPECTED['uri']}")
    return data.uri, None


def _event_id(record: Record, envelope: Envelope) -> str:
    if envelope.id is None:
        return f"{record.topic}/{record.partition}/{record.offset}"
    return _checked_id(f"{envelope.prefix}id", envelope.id)


def _checked_id(name: str, event_id: str) -> str:
    if not is_identifier(event_id):
        raise BadEventError(f"{name}: got {shown(event_id)}, expected {EXPECTED_ID}")
    return event_id


def _occurred_at_ns(record: Record, envelope: Envelope, data: _Data) -> int:
    """Event time, first that is there: the envelope's, the data's, the record's."""
    if envelope.time is not None:
        try:
            return parse_time(envelope.time)
        except ValueError as error:
            problem = f"{envelope.prefix}time: got {shown(envelope.time)} ({error})"
            raise BadEventError(f"{problem}, expected {EXPECTED_TIME}") from error
    if data.occurred_at is not None:
        return data.occurred_at
    if 0 <= record.timestamp_ms <= NS_MAX // _MS_NS:
        return record.timestamp_ms * _MS_NS
    problem = f"occurred_at: missing, and the record's timestamp is {record.timestamp_ms}"
    raise BadEventError(f"{problem}, expected {EXPECTED_TIME} in ce_time or occurred_at")


def dump_input(event: InputEvent, source: str) -> Message:
    """An event for its input topic, in binary mode, key `user_id` where it is known.

    Args:
        event: what happened; `received_at_ms` is not written, since the broker notes it.
        source: the URI reference of who says so, for `ce_source`.

    Raises:
        BadEventError: a field that `parse` would refuse.
    """
    match event:
        case AssetUploaded():
            topic, key = ASSET_UPLOADED, event.user_id
            data = {"asset_id": event.asset_id, "user_id": event.user_id, "modality": event.modality}
            data |= {} if event.uri is None else {"uri": event.uri}
            data |= {} if event.text is None else {"text": event.text}
        case AssetDeleted():
            topic, key, data = ASSET_DELETED, event.asset_id, {"asset_id": event.asset_id}
        case UserDeleted():
            topic, key, data = USER_DELETED, event.user_id, {"user_id": event.user_id}
    checked = _check(_SCHEMAS[topic], data)
    if isinstance(checked, _AssetUploadedData):
        _content(checked)
    event_id = _checked_id("event_id", event.event_id)
    headers = write_headers(event_id, INPUT_TYPES[topic], source, format_time(event.occurred_at_ns))
    try:
        return Message(topic, key.encode(), to_json(data), headers)
    except PydanticSerializationError as error:
        raise BadEventError(f"text or uri: {error}") from error
