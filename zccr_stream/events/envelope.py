"""The CloudEvents 1.0 envelope over Kafka: binary, structured, or none at all.

A record comes in; its attributes and its data, still unchecked JSON, go out, and attributes go out as headers.
Knows the Kafka protocol binding and the JSON format of CloudEvents; does not know what the data means.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from zccr_stream.events.vocabulary import BadEventError, Record

SPEC_VERSION = "1.0"
JSON_TYPE = "application/json"
STRUCTURED_TYPE = "application/cloudevents+json"
_ATTRIBUTES = ("id", "type", "specversion", "time")
_SHOWN_MAX = 60


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a record says of itself; `prefix` stands before the attributes' names in messages for people."""

    prefix: str
    id: str | None
    type: str | None
    time: str | None
    data: dict[str, Any]


def read_envelope(record: Record) -> Envelope:
    """Take a record's envelope off, whichever mode it is in.

    Raises:
        BadEventError: no value, no JSON object in it, or an envelope that is not CloudEvents 1.0.
    """
    if not record.has_readable_headers:
        raise BadEventError(
            "headers: got a name that is not UTF-8, expected names of CloudEvents attributes (ce_id, …)"
        )
    headers = {name.lower(): value for name, value in record.headers if value is not None}
    if record.value is None:
        hint = "to delete an asset publish asset.deleted to asset-deleted"
        raise BadEventError(f"value: got null, expected a JSON object ({hint})")
    media_type = headers.get("content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
    if media_type.startswith("application/cloudevents"):
        if media_type != STRUCTURED_TYPE:
            raise BadEventError(f"content-type: got {shown(media_type)}, expected one event as {STRUCTURED_TYPE!r}")
        return _structured(record.value)
    attributes = {name: _utf8(f"ce_{name}", headers.get(f"ce_{name}")) for name in _ATTRIBUTES}
    return _envelope("ce_", attributes, read_object("value", record.value))


def _structured(value: bytes) -> Envelope:
    event = read_object("value", value)
    attributes = {name: event.get(name) for name in _ATTRIBUTES}
    for name, attribute in attributes.items():
        if attribute is not None and not isinstance(attribute, str):
            raise BadEventError(f"{name}: got {shown(attribute)}, expected a string")
    return _envelope("", attributes, _data(event))


def _data(event: Mapping[str, Any]) -> dict[str, Any]:
    data, encoded = event.get("data"), event.get("data_base64")
    if isinstance(data, dict):
        return data
    if data is not None:
        raise BadEventError(f"data: got {shown(data)}, expected an object")
    if encoded is None:
        raise BadEventError("data: missing, expected an object (or its JSON in data_base64)")
    try:
        return read_object("data_base64", base64.b64decode(encoded, validate=True))
    except (binascii.Error, ValueError, TypeError) as error:
        raise BadEventError(f"data_base64: got {shown(encoded)}, expected a string of base64") from error


def _envelope(prefix: str, attributes: Mapping[str, str | None], data: dict[str, Any]) -> Envelope:
    version = attributes["specversion"]
    if version not in (None, SPEC_VERSION):
        raise BadEventError(f"{prefix}specversion: got {shown(version)}, expected {SPEC_VERSION!r}")
    return Envelope(prefix, attributes["id"], attributes["type"], attributes["time"], data)


def _utf8(name: str, value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError as error:
        raise BadEventError(f"{name}: got {shown(value)}, expected UTF-8") from error


def read_object(name: str, value: bytes) -> dict[str, Any]:
    """Read a JSON object; of duplicate keys the last wins.

    Raises:
        BadEventError: not UTF-8, not JSON (NaN and Infinity are not), nested too deeply, or not an object.
    """
    try:
        decoded = from_json(value, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        raise BadEventError(f"{name}: got {shown(value)}, expected a JSON object in UTF-8 ({error})") from error
    if not isinstance(decoded, dict):
        raise BadEventError(f"{name}: got {shown(decoded)}, expected a JSON object")
    return decoded


def write_headers(
    event_id: str, event_type: str, source: str, time: str, *, has_data: bool = True
) -> tuple[tuple[str, bytes], ...]:
    """The headers of binary mode."""
    headers = {"ce_specversion": SPEC_VERSION, "ce_id": event_id, "ce_source": source}
    headers |= {"ce_type": event_type, "ce_time": time}
    if has_data:
        headers["content-type"] = JSON_TYPE
    return tuple((name, value.encode()) for name, value in headers.items())


def shown(value: object) -> str:
    """A value as a message may show it: short, and nothing in it that a terminal would act on."""
    match value:
        case None | bool():
            return {None: "null", True: "true", False: "false"}[value]
        case dict():
            return "an object"
        case list():
            return "an array"
        case str() | bytes() if len(value) > _SHOWN_MAX:
            return f"{value[:_SHOWN_MAX]!r}… ({len(value)} {'bytes' if isinstance(value, bytes) else 'characters'})"
        case str() | bytes():
            return repr(value)
        case _:
            number = repr(value)
            return number if len(number) <= _SHOWN_MAX else f"{number[:_SHOWN_MAX]}…"
