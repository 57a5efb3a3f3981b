"""Every event of the contract, read and written: what is accepted, what is refused, and what the refusal says."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
import pytest
from cloudevents.core.bindings import kafka as sdk
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from hypothesis import strategies as st

from zccr_stream.events import (
    ASSET_DELETED,
    ASSET_UPLOADED,
    INPUT_TYPES,
    USER_DELETED,
    AssetDeleted,
    AssetUploaded,
    BadEventError,
    BadInputError,
    CorruptRecordError,
    Embeddings,
    FeedItem,
    InputEvent,
    Message,
    ProfileChanged,
    Recommendations,
    Recommended,
    RecommendedArea,
    Record,
    TryLaterError,
    UserDeleted,
    dump_dead_letter,
    dump_embeddings,
    dump_input,
    dump_profile_changes,
    dump_recommendations,
    parse,
    parse_dead_letter,
    parse_embeddings,
    parse_profile_changed,
    parse_recommendations,
    parse_time,
    restore_dead_letter,
    shorten_dead_letter,
)

TOPICS = list(INPUT_TYPES)
IMAGE: dict[str, Any] = {"asset_id": "a1", "user_id": "u1", "modality": "image", "uri": "https://x.test/a.jpg"}
NOON = "2026-11-23T12:00:00Z"
NOON_MS = 1_795_435_200_000
NOON_NS = NOON_MS * 1_000_000
STRUCTURED = {"content-type": b"application/cloudevents+json"}

IDS = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=255)
NANOSECONDS = st.integers(-(2**63) + 1, 2**63 - 1)
WHEN = {"event_id": IDS, "occurred_at_ns": NANOSECONDS, "received_at_ms": st.just(NOON_MS), "asset_id": IDS}
WORDS = st.text(st.characters(exclude_categories=["Cs"]))
EVENTS: st.SearchStrategy[InputEvent] = st.one_of(
    st.builds(AssetUploaded, **WHEN, user_id=IDS, modality=st.just("text"), uri=st.none(), text=WORDS),
    st.builds(AssetUploaded, **WHEN, user_id=IDS, modality=st.sampled_from(["image", "text"]), uri=IDS, text=st.none()),
    st.builds(AssetDeleted, **WHEN),
    st.builds(UserDeleted, event_id=IDS, occurred_at_ns=NANOSECONDS, received_at_ms=st.just(NOON_MS), user_id=IDS),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=4,
)


def a_record(
    data: object = None,
    headers: Mapping[str, bytes | None] | None = None,
    *,
    value: bytes | None = None,
    timestamp_ms: int = NOON_MS,
    topic: str = ASSET_UPLOADED,
) -> Record:
    value = json.dumps(data).encode() if value is None and data is not None else value
    return Record(f"test.{topic}", 3, 17, timestamp_ms, b"any", value, tuple((headers or {}).items()))


def as_record(message: Message, timestamp_ms: int = NOON_MS) -> Record:
    return Record(f"test.{message.topic}", 0, 0, timestamp_ms, message.key, message.value, message.headers)


def refusal(record: Record, topic: str = ASSET_UPLOADED) -> str:
    with pytest.raises(BadEventError) as raised:
        parse(record, topic)
    assert raised.value.stage == "parse"
    return str(raised.value)


def an_upload(**changes: Any) -> AssetUploaded:
    event = parse(a_record(IMAGE | changes), ASSET_UPLOADED)
    assert isinstance(event, AssetUploaded)
    return event


# Envelopes


@given(EVENTS)
def test_what_is_written_is_read_back_as_it_was(event: InputEvent) -> None:
    message = dump_input(event, "test")

    assert parse(as_record(message), message.topic) == event


@given(EVENTS)
def test_the_three_modes_say_the_same(event: InputEvent) -> None:
    """Binary, structured with data or data_base64, and a bare object whose event id is its place in the topic."""
    message = dump_input(event, "test")
    attributes = {name[3:]: value.decode() for name, value in message.headers if name.startswith("ce_") and value}
    value = message.value or b""
    structured = attributes | {"data": json.loads(value)}
    encoded = attributes | {"data_base64": base64.b64encode(value).decode()}
    bare = json.loads(value) | {"occurred_at": attributes["time"]}

    for record in (as_record(message), a_record(structured, STRUCTURED), a_record(encoded, STRUCTURED)):
        assert parse(record, message.topic) == event
    place = f"test.{message.topic}/3/17"
    assert parse(a_record(bare, topic=message.topic), message.topic) == dataclasses.replace(event, event_id=place)


@pytest.mark.parametrize("mode", [sdk.to_binary_event, sdk.to_structured_event])
def test_reads_what_the_official_sdk_writes(mode: Any) -> None:
    time = "2026-11-23T12:00:00.000001+01:00"
    attributes = {"id": "e1", "source": "/shop", "type": "asset.uploaded", "datacontenttype": "application/json"}
    written = mode(CloudEvent(attributes | {"time": datetime.fromisoformat(time)}, IMAGE))

    event = parse(a_record(headers=written.headers, value=written.value), ASSET_UPLOADED)

    assert event == AssetUploaded("e1", parse_time(time), NOON_MS, "a1", "u1", "image", IMAGE["uri"])


@pytest.mark.parametrize("topic", TOPICS)
def test_the_official_sdk_reads_what_is_written(topic: str) -> None:
    events: dict[str, InputEvent] = {
        ASSET_UPLOADED: AssetUploaded("é1", NOON_NS, NOON_MS, "a1", "ü1", "image", "https://x.test/é.jpg"),
        ASSET_DELETED: AssetDeleted("é1", NOON_NS, NOON_MS, "a1"),
        USER_DELETED: UserDeleted("é1", NOON_NS, NOON_MS, "ü1"),
    }
    message = dump_input(events[topic], "urn:test")
    headers = {name: value or b"" for name, value in message.headers}

    read = sdk.from_kafka_event(sdk.KafkaMessage(headers, message.key, message.value or b""))

    assert (read.get_id(), read.get_source(), read.get_type()) == ("é1", "urn:test", INPUT_TYPES[topic])
    assert read.get_specversion() == "1.0"
    assert read.get_data() == json.loads(message.value or b"")


@pytest.mark.parametrize(
    "content_type",
    [b"application/cloudevents+json", b"Application/CloudEvents+JSON; charset=UTF-8", b" application/cloudevents+json"],
)
def test_structured_mode_is_known_by_its_media_type(content_type: bytes) -> None:
    record = a_record({"id": "e1", "time": NOON, "data": IMAGE}, {"Content-Type": content_type, "ce_id": b"not this"})

    assert parse(record, ASSET_UPLOADED).event_id == "e1"


def test_header_names_have_no_case_and_null_headers_are_absent() -> None:
    record = a_record(IMAGE, {"CE_ID": b"e1", "ce_time": None, "ce_type": None, "other": b"\xff"})

    assert parse(record, ASSET_UPLOADED).event_id == "e1"


@pytest.mark.parametrize(
    ("ce_time", "occurred_at", "timestamp_ms", "expected"),
    [
        ("2026-11-23T12:00:01Z", "2026-11-23T12:00:02Z", NOON_MS, NOON_NS + 1_000_000_000),
        (None, "2026-11-23T12:00:02Z", NOON_MS, NOON_NS + 2_000_000_000),
        (None, None, NOON_MS, NOON_NS),
        (None, None, 0, 0),
        ("2026-11-23T13:00:00.000000001+01:00", None, -1, NOON_NS + 1),
    ],
)
def test_event_time_is_the_first_that_is_there(
    ce_time: str | None, occurred_at: str | None, timestamp_ms: int, expected: int
) -> None:
    headers = {"ce_time": ce_time.encode() if ce_time else None}
    event = parse(a_record(IMAGE | {"occurred_at": occurred_at}, headers, timestamp_ms=timestamp_ms), ASSET_UPLOADED)

    assert event.occurred_at_ns == expected


def test_arrival_is_the_records_timestamp_or_else_the_events_time() -> None:
    event = IMAGE | {"occurred_at": NOON}

    assert parse(a_record(event, timestamp_ms=5), ASSET_UPLOADED).received_at_ms == 5
    assert parse(a_record(event, timestamp_ms=-1), ASSET_UPLOADED).received_at_ms == NOON_MS


# Data


def test_unknown_fields_are_ignored_and_of_duplicates_the_last_wins() -> None:
    value = b'{"asset_id":"first","asset_id":"a1","user_id":"u1","modality":"image","uri":"data:,","x":{"y":[1e999]}}'

    event = parse(a_record(value=value), ASSET_UPLOADED)

    assert isinstance(event, AssetUploaded)
    assert event.asset_id == "a1"


def test_null_counts_as_absent() -> None:
    assert an_upload(text=None, occurred_at=None).uri == IMAGE["uri"]
    assert an_upload(modality="text", uri=None, text="words").text == "words"


def test_exactly_one_of_uri_and_text_is_set() -> None:
    """An inline text needs no fetch; an image's text is no content of it."""
    both = {"text": "words", "uri": "https://x.test/a"}

    assert (an_upload(modality="text", **both).uri, an_upload(modality="text", **both).text) == (None, "words")
    assert (an_upload(modality="image", **both).uri, an_upload(modality="image", **both).text) == (both["uri"], None)
    assert an_upload(modality="text", text=None).text is None
    assert an_upload(modality="text", text="").text == ""


@given(IDS)
def test_identifiers_stay_as_they_are(identifier: str) -> None:
    """No normalisation: identifiers that look alike are different."""
    event = an_upload(asset_id=identifier, user_id=identifier)

    assert (event.asset_id, event.user_id) == (identifier, identifier)


def test_a_data_uri_may_be_long_and_no_other_may() -> None:
    long = "x" * 1_000_000

    assert an_upload(uri=f"DATA:image/png;base64,{long}").uri == f"DATA:image/png;base64,{long}"
    assert an_upload(uri="https:" + "x" * 8186).uri is not None
    assert refusal(a_record(IMAGE | {"uri": "https:" + "x" * 8187})).startswith("uri: got 'https:xxx")


# Refusals

AN_ID = "expected a string of 1 to 255 characters without control characters"
A_TIME = "expected an RFC 3339 time with its offset, such as '2026-11-23T12:00:00.5Z'"
A_URI = "a URI of up to 8192 characters without control characters (a data: URI may be longer)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modality": "vidoe"}, "modality: got 'vidoe', expected 'image' or 'text'"),
        ({"modality": "Image"}, "modality: got 'Image', expected 'image' or 'text'"),
        ({"modality": None}, "modality: got null, expected 'image' or 'text'"),
        ({"asset_id": ""}, f"asset_id: got '', {AN_ID}"),
        ({"asset_id": 7}, f"asset_id: got 7, {AN_ID}"),
        ({"asset_id": True}, f"asset_id: got true, {AN_ID}"),
        ({"asset_id": ["a"]}, f"asset_id: got an array, {AN_ID}"),
        ({"asset_id": {"id": "a"}}, f"asset_id: got an object, {AN_ID}"),
        ({"asset_id": "a\n"}, rf"asset_id: got 'a\n', {AN_ID}"),
        ({"user_id": "\x1b[31mred\x9b"}, rf"user_id: got '\x1b[31mred\x9b', {AN_ID}"),
        ({"user_id": "\x7f"}, rf"user_id: got '\x7f', {AN_ID}"),
        ({"user_id": "u" * 256}, f"user_id: got '{'u' * 60}'… (256 characters), {AN_ID}"),
        ({"user_id": 10**4000}, f"user_id: got 1{'0' * 59}…, {AN_ID}"),
        ({"uri": ""}, f"uri: got '', expected {A_URI}"),
        ({"uri": "a\x00b"}, rf"uri: got 'a\x00b', expected {A_URI}"),
        ({"uri": None}, f"uri: missing, expected {A_URI}"),
        ({"uri": None, "text": "words"}, f"uri: missing, expected {A_URI}"),
        (
            {"modality": "text", "uri": None},
            f"text: missing, expected the text itself, or in uri {A_URI}",
        ),
        ({"text": 5}, "text: got 5, expected a string"),
        (
            {"occurred_at": "2026-11-23T12:00:00"},
            f"occurred_at: got '2026-11-23T12:00:00' (it has no offset), {A_TIME}",
        ),
        ({"occurred_at": 1795435200}, f"occurred_at: got 1795435200 (not a string), {A_TIME}"),
        (
            {"asset_id": 7, "modality": "vidoe"},
            f"asset_id: got 7, {AN_ID}; modality: got 'vidoe', expected 'image' or 'text'",
        ),
    ],
)
def test_bad_data_is_told_by_field(changes: dict[str, Any], message: str) -> None:
    assert refusal(a_record(IMAGE | changes)) == message


@pytest.mark.parametrize(("topic", "missing"), [(ASSET_DELETED, "asset_id"), (USER_DELETED, "user_id")])
def test_a_missing_field_is_named(topic: str, missing: str) -> None:
    assert refusal(a_record({"other": 1}), topic) == f"{missing}: missing, {AN_ID}"


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"", "value: got b'', expected a JSON object in UTF-8 (EOF while parsing a value at line 1 column 0)"),
        (b"[1]", "value: got an array, expected a JSON object"),
        (b'"x"', "value: got 'x', expected a JSON object"),
        (b"null", "value: got null, expected a JSON object"),
        (b"1.5", "value: got 1.5, expected a JSON object"),
    ],
)
def test_a_value_that_is_no_object(value: bytes, message: str) -> None:
    assert refusal(a_record(value=value)) == message


@pytest.mark.parametrize(
    "value",
    [
        b'{"asset_id":"\xff"}',
        b'{"asset_id":"\\ud800"}',
        b'{"asset_id":NaN}',
        b'{"asset_id":-Infinity}',
        b'{"asset_id":' + b"9" * 5_000 + b"}",
        b"[" * 1_000_000,
        b'{"a":' * 100_000,
        b"\xef\xbb\xbf{}",
        b"{'asset_id':'a'}",
        b"{} {}",
        b"\x00\x01\x02\x03\x04",
    ],
    ids=lambda value: repr(value[:20]),
)
def test_a_value_that_is_no_json(value: bytes) -> None:
    message = refusal(a_record(value=value))

    assert message.startswith("value: got b")
    assert "expected a JSON object in UTF-8" in message


def test_a_null_value_says_how_to_delete() -> None:
    assert refusal(a_record()) == (
        "value: got null, expected a JSON object (to delete an asset publish asset.deleted to asset-deleted)"
    )


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"ce_type": b"asset.deleted"}, "ce_type: got 'asset.deleted', expected 'asset.uploaded' on asset-uploaded"),
        ({"ce_specversion": b"0.3"}, "ce_specversion: got '0.3', expected '1.0'"),
        ({"ce_id": b""}, f"ce_id: got '', {AN_ID}"),
        ({"ce_id": b"a\xff"}, r"ce_id: got b'a\xff', expected UTF-8"),
        ({"ce_time": b"yesterday"}, f"ce_time: got 'yesterday' (not of that form), {A_TIME}"),
        (
            {"content-type": b"application/cloudevents-batch+json"},
            "content-type: got 'application/cloudevents-batch+json', expected one event as "
            "'application/cloudevents+json'",
        ),
        (
            {"content-type": b"application/cloudevents+avro"},
            "content-type: got 'application/cloudevents+avro', expected one event as 'application/cloudevents+json'",
        ),
    ],
)
def test_a_bad_envelope_is_told_by_header(headers: dict[str, bytes | None], message: str) -> None:
    assert refusal(a_record(IMAGE, headers)) == message


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({}, "data: missing, expected an object (or its JSON in data_base64)"),
        ({"data": None}, "data: missing, expected an object (or its JSON in data_base64)"),
        ({"data": "{}"}, "data: got '{}', expected an object"),
        ({"data_base64": 5}, "data_base64: got 5, expected a string of base64"),
        ({"data_base64": "é"}, "data_base64: got 'é', expected a string of base64"),
        ({"data_base64": "e30*="}, "data_base64: got 'e30*=', expected a string of base64"),
        ({"data_base64": "W10="}, "data_base64: got an array, expected a JSON object"),
        ({"data": IMAGE, "type": "asset.deleted"}, "type: got 'asset.deleted', expected 'asset.uploaded'"),
        ({"data": IMAGE, "specversion": 1.0}, "specversion: got 1.0, expected a string"),
        ({"data": IMAGE, "time": "soon"}, f"time: got 'soon' (not of that form), {A_TIME}"),
        ({"data": IMAGE, "id": "a\n"}, rf"id: got 'a\n', {AN_ID}"),
    ],
)
def test_a_bad_structured_event_is_told_by_attribute(event: dict[str, Any], message: str) -> None:
    assert refusal(a_record(event, STRUCTURED)).startswith(message)


def test_a_structured_event_without_its_content_type_is_recognised() -> None:
    message = refusal(a_record({"specversion": "1.0", "id": "e1", "type": "asset.uploaded", "data": IMAGE}))

    assert message.startswith(f"asset_id: missing, {AN_ID}; ")
    assert message.endswith("(a structured CloudEvent needs the header content-type: application/cloudevents+json)")


@pytest.mark.parametrize("timestamp_ms", [-1, 2**62])
def test_an_event_without_any_time_is_refused(timestamp_ms: int) -> None:
    assert refusal(a_record(IMAGE, timestamp_ms=timestamp_ms)) == (
        f"occurred_at: missing, and the record's timestamp is {timestamp_ms}, {A_TIME} in ce_time or occurred_at"
    )


@given(
    value=st.binary() | JSON.map(lambda data: json.dumps(data).encode()),
    headers=st.dictionaries(
        st.sampled_from(["content-type", "ce_id", "ce_type", "ce_time", "ce_specversion", "x"]),
        st.none()
        | st.binary()
        | st.sampled_from([b"application/cloudevents+json", b"asset.uploaded", b"1.0", NOON.encode()]),
    ),
    topic=st.sampled_from(TOPICS),
)
def test_any_bytes_end_as_an_event_or_a_refusal(value: bytes, headers: dict[str, bytes | None], topic: str) -> None:
    _event_or_refusal(a_record(value=value, headers=headers), topic)


@given(
    changes=st.dictionaries(st.sampled_from([*IMAGE, "text", "occurred_at"]), JSON),
    envelope=st.dictionaries(st.sampled_from(["id", "type", "time", "specversion", "data", "data_base64"]), JSON),
)
def test_any_field_of_any_kind_ends_as_an_event_or_a_refusal(changes: dict[str, Any], envelope: dict[str, Any]) -> None:
    _event_or_refusal(a_record(IMAGE | changes), ASSET_UPLOADED)
    _event_or_refusal(a_record({"data": IMAGE | changes} | envelope, STRUCTURED), ASSET_UPLOADED)


def _event_or_refusal(record: Record, topic: str) -> None:
    try:
        event = parse(record, topic)
    except BadEventError as error:
        message = str(error)
        assert message.isprintable()
        assert len(message) < 2_000
    else:
        assert parse(as_record(dump_input(event, "test")), topic) == event


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (AssetDeleted("e1", 0, 0, "a\n"), rf"asset_id: got 'a\n', {AN_ID}"),
        (AssetDeleted("", 0, 0, "a"), f"event_id: got '', {AN_ID}"),
        (AssetDeleted("e1", 0, 0, "\ud800"), rf"asset_id: got '\ud800', {AN_ID}"),
        (AssetUploaded("e1", 0, 0, "a", "u", "image"), f"uri: missing, expected {A_URI}"),
        (AssetUploaded("e1", 0, 0, "a", "u", "text", text="\ud800"), "text or uri: Error serializing to JSON: "),
    ],
)
def test_nothing_is_written_that_would_be_refused(event: InputEvent, message: str) -> None:
    with pytest.raises(BadEventError) as raised:
        dump_input(event, "test")
    assert str(raised.value).startswith(message)


# asset-embedded


def some_embeddings(n: int = 5, d: int = 4, seed: int = 0) -> Embeddings:
    """The second of every four is a removal."""
    random = np.random.default_rng(seed)
    live = np.arange(n) % 4 != 1
    vectors = random.standard_normal((n, d))
    vectors *= live[:, None] / np.linalg.norm(vectors, axis=1, keepdims=True)
    return Embeddings(
        model="M/1",
        asset_ids=[f"ä{row}" for row in range(n)],
        user_ids=["ü" if is_live else "" for is_live in live],
        modalities=["text" if row % 2 else "image" for row in range(n)],
        revisions=random.integers(0, 2**62, n),
        occurred_at_ns=random.integers(-(2**63) + 1, 2**63 - 1, n),
        vectors=vectors.astype(np.float16),
        live=live,
    )


@given(st.integers(0, 9), st.integers(1, 9), st.integers(0, 2**32))
def test_embeddings_survive_the_topic(n: int, d: int, seed: int) -> None:
    embeddings = some_embeddings(n, d, seed)

    read = parse_embeddings(list(map(as_record, dump_embeddings(embeddings))), "M/1", d)

    for field in dataclasses.fields(Embeddings):
        expected, got = getattr(embeddings, field.name), getattr(read, field.name)
        if isinstance(expected, np.ndarray):
            assert got.dtype == expected.dtype
            np.testing.assert_array_equal(got, expected)
        else:
            assert got == expected


def test_an_embedding_is_as_the_contract_says() -> None:
    vectors = np.array([[1.0, -2.0, 0.5], [0, 0, 0]], np.float16)
    removed = np.array([True, False])
    embeddings = Embeddings(
        "M/1", ["a", "b"], ["u", ""], ["text", "image"], np.array([7, 8]), np.array([NOON_NS] * 2), vectors, removed
    )

    live, removal = dump_embeddings(embeddings)

    assert (live.topic, live.key, live.value) == ("asset-embedded", b"a", b"\x00\x3c\x00\xc0\x00\x38")
    assert live.headers == (
        ("user_id", b"u"),
        ("modality", b"text"),
        ("model", b"M/1"),
        ("revision", b"7"),
        ("occurred_at", b"2026-11-23T12:00:00.000000000Z"),
    )
    assert (removal.key, removal.value, dict(removal.headers)["revision"]) == (b"b", None, b"8")


def test_assets_of_another_model_or_dimension_are_not_live() -> None:
    embeddings = some_embeddings(4)
    records = list(map(as_record, dump_embeddings(embeddings)))
    records[3] = dataclasses.replace(records[3], value=b"\x00\x3c")

    read, of_another = parse_embeddings(records, "M/1", 4), parse_embeddings(records, "M/2", 4)

    assert read.live.tolist() == [True, False, True, False]
    assert not read.vectors[[1, 3]].any()
    assert parse_embeddings(records, "M/1", 1).live.tolist() == [False, False, False, True]
    assert of_another.live.tolist() == [False] * 4
    assert of_another.vectors.shape == (4, 4)
    assert of_another.revisions.tolist() == embeddings.revisions.tolist()


def test_a_removal_needs_only_revision_and_model() -> None:
    record = Record("asset-embedded", 0, 0, 0, b"a", None, (("revision", b"3"), ("model", b"M/1")))

    read = parse_embeddings([record], "M/1", 4)

    assert (read.asset_ids, read.revisions.tolist(), read.live.tolist()) == (["a"], [3], [False])
    assert read.vectors.shape == (1, 4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"key": None}, "key or headers: null"),
        ({"key": b"\xff"}, "key or headers: 'utf-8' codec can't decode byte 0xff"),
        ({"headers": (("model", b"M/1"),)}, "header revision: missing"),
        ({"headers": (("revision", b"1"),)}, "header model: missing"),
        ({"headers": (("revision", b"x"), ("model", b"M/1"))}, "key or headers: no number of 1 to 19 digits"),
        ({"headers": (("revision", b"9" * 19), ("model", b"M/1"))}, "key or headers: out of range"),
        ({"headers": (("revision", b"-1"), ("model", b"M/1"))}, "key or headers: no number of 1 to 19 digits"),
        (
            {"headers": (("revision", b"1"), ("model", b"M/1"), ("modality", b"text"), ("occurred_at", b"now"))},
            "key or headers: not of that form",
        ),
        (
            {"headers": (("revision", b"1"), ("model", b"M/1"), ("modality", b"audio"))},
            "key or headers: modality 'audio'",
        ),
        ({"value": b"\x00\x7c" * 4}, "value: a vector of length inf, expected 1"),
        ({"value": b"\x01\xfc" * 4}, "value: a vector of length nan, expected 1"),
        ({"value": b"\x00\x3c" * 4}, "value: a vector of length 2.0, expected 1"),
        ({"value": b"\x00\x00" * 4}, "value: a vector of length 0.0, expected 1"),
    ],
)
def test_a_corrupt_record_is_named(changes: dict[str, Any], message: str) -> None:
    records = [dataclasses.replace(as_record(m), offset=5) for m in dump_embeddings(some_embeddings(3))]
    records[2] = dataclasses.replace(records[2], offset=6, **changes)

    with pytest.raises(CorruptRecordError) as raised:
        parse_embeddings(records, "M/1", 4)

    assert str(raised.value).startswith(f"test.asset-embedded, partition 0, offset 6: {message}")


# profile-changed


@given(IDS, st.integers(0, 2**62), st.integers(-1, 2**53))
def test_profile_changes_survive_the_topic(user_id: str, version: int, received_at_ms: int) -> None:
    change = ProfileChanged(user_id, version, received_at_ms)

    (message,) = dump_profile_changes([change])

    assert (message.topic, message.key) == ("profile-changed", user_id.encode())
    assert json.loads(message.value or b"") == {"user_id": user_id, "profile_version": version}
    assert parse_profile_changed(as_record(message, timestamp_ms=5)) == change
    assert parse_profile_changed(dataclasses.replace(as_record(message, 5), headers=())).received_at_ms == 5


@pytest.mark.parametrize(
    ("value", "headers", "message"),
    [
        (None, (), "value: got null"),
        (b"[]", (), "value: got an array"),
        (b'{"profile_version":1}', (), "user_id: got null"),
        (b'{"user_id":"","profile_version":1}', (), "user_id: got ''"),
        (b'{"user_id":"n\\u0000l","profile_version":1}', (), "user_id: got 'n\\x00l'"),
        (b'{"user_id":"u","profile_version":true}', (), "profile_version: got true"),
        (b'{"user_id":"u","profile_version":1}', (("received_at_ms", b"x"),), "received_at_ms: got b'x'"),
        (b'{"user_id":"u","profile_version":1}', (("received_at_ms", b"9" * 400),), "received_at_ms: got b'999"),
        (b'{"user_id":"u","profile_version":1}', (("received_at_ms", b"1_0"),), "received_at_ms: got b'1_0'"),
        (b'{"user_id":"u","profile_version":-1}', (), "profile_version: got -1"),
        (b'{"user_id":"u","profile_version":' + b"9" * 40 + b"}", (), "profile_version: got 999"),
    ],
)
def test_a_bad_profile_change_is_told_by_field(
    value: bytes | None, headers: tuple[tuple[str, bytes | None], ...], message: str
) -> None:
    with pytest.raises(BadEventError, match=re.escape(message)):
        parse_profile_changed(Record("profile-changed", 0, 0, 0, b"u", value, headers))


# recommendations


def some_recommendations(score: float = 0.8312345678) -> Recommendations:
    found = {"image": [Recommended("ä9", "u7", score)], "text": []}
    return Recommendations(
        user_id="ü1",
        profile_version=12,
        generated_at_ns=NOON_NS + 123_999_999,
        model="M/1",
        areas=[RecommendedArea("area", "image", 14, 1.0, "a17", found)],
        feed=[FeedItem("ä9", "u7", "image", "area", score)],
    )


def test_recommendations_are_as_the_contract_says() -> None:
    message = dump_recommendations(some_recommendations())

    assert (message.topic, message.key) == ("recommendations", "ü1".encode())
    assert message.headers == (
        ("ce_specversion", b"1.0"),
        ("ce_id", "ü1/12".encode()),
        ("ce_source", b"zccr-stream"),
        ("ce_type", b"recommendations.refreshed"),
        ("ce_time", b"2026-11-23T12:00:00.123Z"),
        ("content-type", b"application/json"),
    )
    expected = {
        "user_id": "ü1",
        "profile_version": 12,
        "generated_at": "2026-11-23T12:00:00.123Z",
        "model": "M/1",
        "areas": [
            {
                "area_id": "area",
                "modality": "image",
                "size": 14,
                "weight": 1.0,
                "representative": "a17",
                "recommended": {"image": [{"asset_id": "ä9", "user_id": "u7", "score": 0.831235}], "text": []},
            }
        ],
        "feed": [{"asset_id": "ä9", "user_id": "u7", "modality": "image", "area_id": "area", "score": 0.831235}],
    }
    assert json.loads(message.value or b"") == expected
    assert parse_recommendations(message.value or b"") == expected
    assert "ä9".encode() in (message.value or b"")


def test_a_user_without_assets_gets_a_tombstone() -> None:
    message = dump_recommendations(dataclasses.replace(some_recommendations(), areas=[], feed=[]))

    assert (message.key, message.value) == ("ü1".encode(), None)
    headers = dict(message.headers)
    assert headers["ce_id"] == "ü1/12".encode()
    assert "content-type" not in headers


def test_a_user_to_whom_nothing_can_be_recommended_is_no_user_without_assets() -> None:
    message = dump_recommendations(dataclasses.replace(some_recommendations(), feed=[]))

    assert json.loads(message.value or b"")["feed"] == []


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_json_has_not_is_an_error(score: float) -> None:
    with pytest.raises(ValueError, match="JSON has no such number"):
        dump_recommendations(some_recommendations(score))


@pytest.mark.parametrize("value", [b"", b"[]", b"{}", b'{"user_id":"u"}', b'{"user_id":1,"profile_version":1}'])
def test_what_is_no_recommendations_is_refused(value: bytes) -> None:
    with pytest.raises(BadEventError):
        parse_recommendations(value)


# Dead letters


@given(
    key=st.none() | st.binary(),
    value=st.none() | st.binary(),
    headers=st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary())),
    timestamp_ms=st.integers(-1, 2**62),
)
def test_a_dead_letter_keeps_the_record_as_it_came(
    key: bytes | None, value: bytes | None, headers: list[tuple[str, bytes | None]], timestamp_ms: int
) -> None:
    record = Record("test.asset-deleted", 3, 17, timestamp_ms, key, value, tuple(headers))

    letter = dump_dead_letter(record, ASSET_DELETED, BadInputError("decode", "no picture"), 1)

    assert (letter.topic, letter.key, letter.value) == ("asset-deleted.dlq", key, value)
    assert letter.timestamp_ms == (None if timestamp_ms == -1 else timestamp_ms)
    assert letter.headers == (
        *headers,
        ("__streams.errors.exception", b"BadInputError"),
        ("__streams.errors.message", b"no picture"),
        ("__streams.errors.topic", b"test.asset-deleted"),
        ("__streams.errors.partition", b"3"),
        ("__streams.errors.offset", b"17"),
        ("zccr.errors.stage", b"decode"),
        ("zccr.errors.attempts", b"1"),
    )


def test_a_record_that_fails_again_says_why_it_failed_last() -> None:
    record = a_record(IMAGE, {"ce_id": b"e1"})
    first = dump_dead_letter(record, ASSET_UPLOADED, TryLaterError("fetch", "time-out"), 5)
    again = dataclasses.replace(record, headers=first.headers)

    second = dump_dead_letter(again, ASSET_UPLOADED, BadInputError("fetch", "x" * 5_000), 1)

    assert [name for name, _ in second.headers] == [name for name, _ in first.headers]
    assert dict(second.headers)["__streams.errors.message"] == b"x" * 1_000
    assert dict(second.headers)["zccr.errors.attempts"] == b"1"


def test_a_dead_letter_is_restored_as_it_came() -> None:
    """A record's own headers may bear the names of ours, be it from another pipeline's dead letters."""
    own = (("__streams.errors.topic", b"mine"), ("zccr.errors.colour", b"red"), ("ce_id", b"e1"))
    record = dataclasses.replace(a_record(IMAGE), headers=own)

    letter = dump_dead_letter(record, ASSET_UPLOADED, BadInputError("parse", "no"), 1)
    restored = restore_dead_letter(dataclasses.replace(record, headers=letter.headers), ASSET_UPLOADED)

    assert letter.headers[:3] == own
    assert (restored.topic, restored.key, restored.value, restored.headers) == (
        ASSET_UPLOADED,
        record.key,
        record.value,
        own,
    )
    assert parse_dead_letter(dataclasses.replace(record, headers=letter.headers)).topic == record.topic


@pytest.mark.parametrize(
    "headers",
    [{}, {"content-type": b"application/json"}, {"ce_id": None}, {"ce_id": b"e1"}, {"CE_ID": b"e1"}],
)
def test_a_restored_dead_letter_is_the_same_event_wherever_it_lies(headers: dict[str, bytes | None]) -> None:
    record = dataclasses.replace(a_record(IMAGE), headers=tuple(headers.items()), offset=17)
    letter = dump_dead_letter(record, ASSET_UPLOADED, TryLaterError("fetch", "time-out"), 5)

    restored = restore_dead_letter(dataclasses.replace(record, headers=letter.headers, offset=3), ASSET_UPLOADED)

    again = dataclasses.replace(record, headers=restored.headers, offset=99)
    assert parse(again, ASSET_UPLOADED) == parse(record, ASSET_UPLOADED)


def test_a_restored_structured_dead_letter_is_as_it_came() -> None:
    record = dataclasses.replace(a_record(IMAGE), headers=tuple(STRUCTURED.items()))
    letter = dump_dead_letter(record, ASSET_UPLOADED, TryLaterError("fetch", "time-out"), 5)

    assert restore_dead_letter(dataclasses.replace(record, headers=letter.headers), ASSET_UPLOADED).headers == (
        record.headers
    )


def test_headers_that_cannot_be_read_are_refused() -> None:
    record = dataclasses.replace(a_record(IMAGE), headers=(), has_readable_headers=False)

    assert refusal(record).startswith("headers: got a name that is not UTF-8")


def test_a_shortened_dead_letter_is_small_whatever_the_record_was() -> None:
    headers = (("n" * 100_000, b"v"), ("v", b"v" * 100_000), *((f"h{n}", b"") for n in range(1_000)))
    record = Record("asset-uploaded", 1, 2, NOON_MS, b"k" * 100_000, b"v" * 9_000_000, headers)

    letter = shorten_dead_letter(dump_dead_letter(record, ASSET_UPLOADED, BadInputError("decode", "no picture"), 1))

    found = dict(letter.headers)
    assert letter.value is None
    assert found["zccr.errors.value_bytes"] == b"9000000"
    assert found["__streams.errors.message"] == b"no picture"
    assert found["__streams.errors.offset"] == b"2"
    size = len(letter.key or b"") + sum(len(name) + len(value or b"") for name, value in letter.headers)
    assert size < 20_000
