"""The AsyncAPI document is valid, and says what the code does: topics, headers, fields, examples.

`asyncapi-3.0.0.schema.json.gz` is the official schema, unchanged: `schemas/3.0.0-without-$id.json` of the npm package
`@asyncapi/specs` 6.11.1, licence Apache-2.0.
"""

from __future__ import annotations

import dataclasses
import gzip
import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from referencing import Registry
from referencing.jsonschema import DRAFT7

from zccr_stream.assemble import INGEST_GROUP, RECOMMEND_GROUP
from zccr_stream.events import (
    INPUT_TYPES,
    AssetDeleted,
    AssetUploaded,
    BadEventError,
    Embeddings,
    FeedItem,
    InputEvent,
    Message,
    ProfileChanged,
    Recommendations,
    Recommended,
    RecommendedArea,
    Record,
    UserDeleted,
    dump_dead_letter,
    dump_embeddings,
    dump_input,
    dump_profile_changes,
    dump_recommendations,
    parse,
    parse_embeddings,
    parse_profile_changed,
    parse_time,
    shorten_dead_letter,
)
from zccr_stream.metrics import DEAD_LETTER_STAGES
from zccr_stream.settings import Settings
from zccr_stream.stream.topics import TopicRule

ROOT = Path(__file__).parent.parent
DOCUMENT: dict[str, Any] = yaml.safe_load((ROOT / "docs/asyncapi.yaml").read_text())
MESSAGES: dict[str, Any] = DOCUMENT["components"]["messages"]
REGISTRY: Registry[Any] = Registry().with_resource("urn:document", DRAFT7.create_resource(DOCUMENT))
NOON_NS = 1_795_435_200_123_000_000

FORMATS = jsonschema.FormatChecker(formats=())


@FORMATS.checks("date-time", raises=ValueError)
def is_time(value: object) -> bool:
    return not isinstance(value, str) or parse_time(value) is not None


def validator(pointer: str) -> jsonschema.Draft7Validator:
    schema = {"$ref": f"urn:document#/components/messages/{pointer}"}
    return jsonschema.Draft7Validator(schema, registry=REGISTRY, format_checker=FORMATS)


def resolve(node: Any) -> Any:
    while isinstance(node, dict) and "$ref" in node:
        target: Any = DOCUMENT
        for part in node["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        node = target
    return node


def topic_of(channel: dict[str, Any]) -> str:
    return str(channel["address"]).removeprefix("{topicPrefix}")


def messages_of(topic: str) -> list[str]:
    (channel,) = (channel for channel in DOCUMENT["channels"].values() if topic_of(channel) == topic)
    return [message["$ref"].rpartition("/")[2] for message in channel["messages"].values()]


def examples() -> list[Any]:
    return [
        pytest.param(name, example, id=f"{name}-{example['name']}")
        for name, message in MESSAGES.items()
        for example in message["examples"]
    ]


def a_record(example: dict[str, Any], topic: str) -> Record:
    headers = tuple((name, value.encode()) for name, value in example["headers"].items())
    payload = example.get("payload")
    return Record(topic, 3, 17, 0, b"any", None if payload is None else json.dumps(payload).encode(), headers)


def assert_documented(message: Message, name: str) -> None:
    """The message is valid by its schema, and no header of it goes unmentioned."""
    headers = {name: (value or b"").decode() for name, value in message.headers}
    validator(f"{name}/headers").validate(headers)
    assert set(headers) <= set(_property_names(MESSAGES[name]["headers"]))
    if MESSAGES[name].get("contentType", "application/json") == "application/json":
        payload = None if message.value is None else json.loads(message.value)
        validator(f"{name}/payload").validate(payload)
        assert_same_names(payload, MESSAGES[name]["payload"])


def assert_same_names(value: Any, schema: Any) -> None:
    """Every field is documented, and every field that is documented as required is there."""
    schema = resolve(schema)
    if isinstance(value, list):
        for item in value:
            assert_same_names(item, schema["items"])
    elif isinstance(value, dict):
        named = _property_names(schema)
        assert "additionalProperties" in schema or set(value) <= set(named)
        for name, item in value.items():
            assert_same_names(item, named.get(name) or schema["additionalProperties"])


def _property_names(schema: Any) -> dict[str, Any]:
    schema = resolve(schema)
    names = dict(schema.get("properties", {}))
    for part in schema.get("allOf", ()):
        names |= _property_names(part)
    return names


# The document by itself


def test_is_valid_asyncapi() -> None:
    schema = json.loads(gzip.decompress((Path(__file__).parent / "asyncapi-3.0.0.schema.json.gz").read_bytes()))

    assert [error.message for error in jsonschema.Draft7Validator(schema).iter_errors(DOCUMENT)] == []


def test_every_reference_leads_somewhere_and_nothing_is_left_over() -> None:
    text = json.dumps(DOCUMENT)
    used = set(re.findall(r'"#/(components/[^"]+)"', text))
    defined = {f"components/{kind}/{name}" for kind, names in DOCUMENT["components"].items() for name in names}

    assert used == defined
    for reference in re.findall(r'"(#/[^"]+)"', text):
        assert resolve({"$ref": reference}) is not None


@pytest.mark.parametrize("name", MESSAGES)
@pytest.mark.parametrize("part", ["headers", "payload"])
def test_schemas_are_schemas(name: str, part: str) -> None:
    jsonschema.Draft7Validator.check_schema(resolve(MESSAGES[name][part]))


@pytest.mark.parametrize(("name", "example"), examples())
def test_examples_are_valid_by_their_own_schema(name: str, example: dict[str, Any]) -> None:
    validator(f"{name}/headers").validate(example["headers"])
    if "payload" in example:
        validator(f"{name}/payload").validate(example["payload"])


# Topics


def test_topics_and_their_settings_are_those_that_are_made() -> None:
    settings = Settings()
    rule = TopicRule(
        settings.partitions, settings.replication_factor, settings.retention_hours, settings.delete_retention_hours
    )
    documented = {}
    for channel in DOCUMENT["channels"].values():
        binding = resolve(channel["bindings"])["kafka"]
        assert binding["partitions"] == settings.partitions
        assert channel["address"].startswith("{topicPrefix}")
        documented[topic_of(channel)] = {
            name: ",".join(value) if isinstance(value, list) else str(value)
            for name, value in binding["topicConfiguration"].items()
        }

    assert documented == rule.configs()


def test_every_channel_is_sent_to_or_received_from() -> None:
    actions: dict[str, set[str]] = {name: set() for name in DOCUMENT["channels"]}
    for operation in DOCUMENT["operations"].values():
        actions[operation["channel"]["$ref"].rpartition("/")[2]].add(operation["action"])

    by_topic = {topic_of(DOCUMENT["channels"][name]): acts for name, acts in actions.items()}
    assert {topic for topic, acts in by_topic.items() if acts == {"receive"}} == set(INPUT_TYPES)
    assert {topic for topic, acts in by_topic.items() if len(acts) == 2} == {"asset-embedded", "profile-changed"}
    assert all(by_topic.values())


def test_consumer_groups_are_those_that_consume() -> None:
    """Of the receivers only the followers of asset-embedded are in no group: each reads everything."""
    groups = {}
    for operation in DOCUMENT["operations"].values():
        if operation["action"] == "receive":
            bindings = resolve(operation.get("bindings", {"kafka": {}}))["kafka"]
            pattern = bindings.get("groupId", {}).get("pattern", "")
            groups[topic_of(resolve(operation["channel"]))] = pattern.removesuffix("$")

    ingest = dict.fromkeys(INPUT_TYPES, INGEST_GROUP)
    assert groups == ingest | {"profile-changed": RECOMMEND_GROUP, "asset-embedded": ""}


# Input


@pytest.mark.parametrize("topic", INPUT_TYPES)
def test_input_examples_are_read(topic: str) -> None:
    read = 0
    for name in messages_of(topic):
        assert MESSAGES[name]["name"] == INPUT_TYPES[topic]
        for example in MESSAGES[name]["examples"]:
            event = parse(a_record(example, topic), topic)
            stated = example["headers"].get("ce_id") or example["payload"].get("id")
            assert event.event_id == (stated or f"{topic}/3/17")
            assert event.occurred_at_ns > 0
            read += 1
    assert read >= 2


FIELDS = ["asset_id", "user_id", "modality", "uri", "text", "occurred_at", "other"]
VALUES = st.one_of(
    st.sampled_from(["image", "text", "a", "é", "", "a\n", "\n", "\x7f", "x" * 255, "x" * 256, "x" * 8193]),
    st.sampled_from(
        ["data:,x", "DATA:\n" + "x" * 9000, "2026-11-23T12:00:00Z", "2026-11-23T12:00:00", "1600-01-01T00:00:00Z"]
    ),
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    st.lists(st.text(), max_size=2) | st.dictionaries(st.text(), st.text(), max_size=2),
)
GOOD = {"asset_id": "a", "user_id": "u", "modality": "text", "uri": "https://x.test", "text": "words"}


@given(
    topic=st.sampled_from(list(INPUT_TYPES)),
    left_out=st.sets(st.sampled_from(sorted(GOOD))),
    changes=st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3),
)
def test_the_code_takes_exactly_what_the_document_allows(
    topic: str, left_out: set[str], changes: dict[str, Any]
) -> None:
    data = {name: value for name, value in GOOD.items() if name not in left_out} | changes

    allowed = validator(f"{messages_of(topic)[0]}/payload").is_valid(data)

    try:
        parse(a_record({"headers": {}, "payload": data}, topic), topic)
    except BadEventError:
        assert not allowed
    else:
        assert allowed


@given(
    topic=st.sampled_from(list(INPUT_TYPES)),
    headers=st.dictionaries(
        st.sampled_from(["ce_id", "ce_type", "ce_time", "ce_specversion", "content-type", "other"]),
        st.text(max_size=5)
        | st.sampled_from([*INPUT_TYPES.values(), "1.0", "2026-11-23T12:00:00Z", "application/cloudevents+avro"]),
    ),
)
def test_the_code_takes_exactly_the_headers_that_the_document_allows(topic: str, headers: dict[str, str]) -> None:
    allowed = validator(f"{messages_of(topic)[0]}/headers").is_valid(headers)

    try:
        parse(a_record({"headers": headers, "payload": GOOD}, topic), topic)
    except BadEventError:
        assert not allowed
    else:
        assert allowed


EVENTS: list[InputEvent] = [
    AssetUploaded("e1", NOON_NS, 0, "a1", "u1", "image", uri="https://media.example.org/a1.jpg"),
    AssetUploaded("e1", NOON_NS, 0, "a1", "u1", "text", text="words"),
    AssetDeleted("e1", NOON_NS, 0, "a1"),
    UserDeleted("e1", NOON_NS, 0, "u1"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_input_as_written_is_documented(event: InputEvent) -> None:
    message = dump_input(event, "/test")

    assert_documented(message, messages_of(message.topic)[0])


# Output


def recommendations_of(example: dict[str, Any]) -> Recommendations:
    """The example as the code holds it."""
    data = example["payload"]
    areas = [
        RecommendedArea(
            **area
            | {
                "recommended": {
                    modality: [Recommended(**item) for item in items] for modality, items in area["recommended"].items()
                }
            }
        )
        for area in data["areas"]
    ]
    return Recommendations(
        data["user_id"],
        data["profile_version"],
        parse_time(data["generated_at"]),
        data["model"],
        areas,
        [FeedItem(**item) for item in data["feed"]],
    )


def assert_written_as(message: Message, example: dict[str, Any], topic: str) -> None:
    assert message.topic == topic
    assert {name: (value or b"").decode() for name, value in message.headers} == example["headers"]
    assert (None if message.value is None else json.loads(message.value)) == example["payload"]


def test_recommendations_are_written_as_in_the_examples() -> None:
    (refreshed,) = MESSAGES["recommendationsRefreshed"]["examples"]
    (removed,) = MESSAGES["recommendationsRemoved"]["examples"]
    recommendations = recommendations_of(refreshed)
    none_left = dataclasses.replace(
        recommendations,
        areas=[],
        feed=[],
        profile_version=13,
        generated_at_ns=parse_time(removed["headers"]["ce_time"]),
    )

    assert_written_as(dump_recommendations(recommendations), refreshed, "recommendations")
    assert_written_as(dump_recommendations(none_left), removed, "recommendations")
    assert_documented(dump_recommendations(recommendations), "recommendationsRefreshed")
    assert_documented(dump_recommendations(none_left), "recommendationsRemoved")


def test_the_contract_shows_the_same_form() -> None:
    """The JSON of the contract, its ellipses kept, is valid by the document and written by the code."""
    (block,) = re.findall(r"```json\n(.*?)```", (ROOT / "docs/contract.md").read_text(), re.DOTALL)
    example = {"payload": json.loads(block)}

    message = dump_recommendations(recommendations_of(example))

    assert json.loads(message.value or b"") == example["payload"]
    assert_documented(message, "recommendationsRefreshed")


def test_the_contract_names_every_topic_type_and_header() -> None:
    contract = (ROOT / "docs/contract.md").read_text()
    topics = {topic_of(channel) for channel in DOCUMENT["channels"].values() if ".dlq" not in channel["address"]}
    written = _property_names(MESSAGES["recommendationsRefreshed"]["headers"]) | _property_names(
        MESSAGES["assetEmbedded"]["headers"]
    )
    # Dead letters' headers are told by the ends of their names.
    added = {name.removeprefix("__streams.errors") for name in _property_names(MESSAGES["deadLetter"]["headers"])}

    for name in (*topics, *INPUT_TYPES.values(), *written, *added - {".exception"}):
        assert f"`{name}`" in contract or f"`{name}:" in contract, name


def test_the_contract_gives_the_defaults_that_stand() -> None:
    contract = (ROOT / "docs/contract.md").read_text()
    fields = Settings.model_fields
    rows = re.findall(r"^\| `ZCCR_(\w+)` \|.*\| ([^|]+) \|$", contract, re.MULTILINE)

    assert len(rows) >= 8
    for name, default in rows:
        actual = fields[name.lower()].get_default(call_default_factory=True)
        shown = "unset: refused" if actual is None else str(actual) or "empty"
        assert default.strip("`") == shown, name
    assert f"default {Settings().feed_size}" in contract


# Internal topics


def test_embeddings_are_written_as_in_the_examples() -> None:
    (embedded,) = MESSAGES["assetEmbedded"]["examples"]
    (removed,) = MESSAGES["assetRemoved"]["examples"]
    model = embedded["headers"]["model"]
    vector = np.array([1.0, 0.0], "<f2").tobytes()
    record = dataclasses.replace(a_record(embedded, "asset-embedded"), value=vector)

    embeddings = parse_embeddings([record, a_record(removed, "asset-embedded")], model, 2)

    assert embeddings.live.tolist() == [True, False]
    live, removal = dump_embeddings(embeddings)
    assert dict(live.headers) == dict(record.headers)
    assert_written_as(removal, removed, "asset-embedded")
    assert_documented(live, "assetEmbedded")
    assert_documented(removal, "assetRemoved")


def test_the_bytes_of_a_vector_are_the_documented_ones() -> None:
    """D little-endian half-precision numbers: 1.0 is 0x3C00."""
    number, ones = np.array([1]), np.ones((1, 3), np.float16)

    (message,) = dump_embeddings(Embeddings("m", ["a"], ["u"], ["image"], number, number, ones, np.array([True])))

    assert message.value == b"\x00\x3c" * 3


def test_profile_changes_are_written_as_in_the_example() -> None:
    (example,) = MESSAGES["profileChanged"]["examples"]

    change = parse_profile_changed(a_record(example, "profile-changed"))

    assert change == ProfileChanged("u1", 12, 1_795_435_200_123)
    (message,) = dump_profile_changes([change])
    assert_written_as(message, example, "profile-changed")
    assert_documented(message, "profileChanged")


# Dead letters


def test_a_dead_letter_is_written_as_in_the_example() -> None:
    (example,) = MESSAGES["deadLetter"]["examples"]
    kept = {name: value for name, value in example["headers"].items() if name == "ce_id"}
    record = a_record({"headers": kept, "payload": example["payload"]}, "asset-uploaded")
    with pytest.raises(BadEventError) as raised:
        parse(record, "asset-uploaded")

    message = dump_dead_letter(record, "asset-uploaded", raised.value, attempts=1)

    assert_written_as(message, example, "asset-uploaded.dlq")
    added = _property_names(MESSAGES["deadLetter"]["headers"])
    unreadable = dataclasses.replace(record, headers=(), has_readable_headers=False)
    worst = shorten_dead_letter(dump_dead_letter(unreadable, "asset-uploaded", raised.value, attempts=1))
    assert set(added) == {name for name, _ in worst.headers}
    optional = {"zccr.errors.value_bytes", "zccr.errors.headers"}
    assert set(added) - optional == {name for name, _ in message.headers} - set(kept)
    assert added["zccr.errors.stage"]["enum"] == list(DEAD_LETTER_STAGES)
