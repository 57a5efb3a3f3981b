"""Whole journeys from event to event: real broker, real database, real encoder, consumers as processes."""

import base64
import io
import json
import os
import random
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from PIL import Image, ImageDraw

from tests.crashing import Crashing
from tests.installation import Installation
from tests.oracle import Truth, assert_same_to_a_step, truth_of, vectors_of
from tests.waiting import wait_until
from zccr_stream import assemble
from zccr_stream.encoders import load_encoder
from zccr_stream.events import (
    ASSET_UPLOADED,
    IMAGE,
    PROFILE_CHANGED,
    RECOMMENDATIONS,
    TEXT,
    AssetDeleted,
    AssetUploaded,
    InputEvent,
    Message,
    UserDeleted,
)
from zccr_stream.interests import Profile, find_areas
from zccr_stream.parts import Encoder

pytestmark = pytest.mark.timeout(600)

HOUR_NS = 3_600_000_000_000
START_NS = 1_780_000_000_000_000_000
SENTENCES = {
    "dogs": ["a dog runs on the beach", "my puppy sleeps on the sofa", "a labrador catches a ball", "two dogs play"],
    "cars": ["a red sports car", "my old truck on a dusty road", "a racing car at full speed", "a taxi in the city"],
    "food": ["spaghetti with tomato sauce", "a pizza with mushrooms", "fresh bread and cheese", "a bowl of ramen"],
}


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("mini", "cpu", precision="fp32", batch_max=64, threads_max=2)


def picture(seed: int) -> str:
    """A small picture that no other seed gives, as a data: URI."""
    colours = random.Random(seed)
    image = Image.new("RGB", (96, 96), tuple(colours.randrange(256) for _ in range(3)))
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y, size = (colours.randrange(80) for _ in range(3))
        draw.ellipse((x, y, x + size, y + size), fill=tuple(colours.randrange(256) for _ in range(3)))
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return f"data:image/png;base64,{base64.b64encode(encoded.getvalue()).decode()}"


class Script:
    """Events of some users, each a little later than the one before."""

    def __init__(self) -> None:
        self.events: list[InputEvent] = []

    def _next(self) -> tuple[str, int, int]:
        number = len(self.events)
        return f"e{number:03}", START_NS + number * HOUR_NS, 0

    def text(self, user: str, asset: str, text: str) -> None:
        self.events.append(AssetUploaded(*self._next(), asset_id=asset, user_id=user, modality=TEXT, text=text))

    def image(self, user: str, asset: str, seed: int) -> None:
        self.events.append(
            AssetUploaded(*self._next(), asset_id=asset, user_id=user, modality=IMAGE, uri=picture(seed))
        )

    def delete(self, asset: str) -> None:
        self.events.append(AssetDeleted(*self._next(), asset_id=asset))

    def delete_user(self, user: str) -> None:
        self.events.append(UserDeleted(*self._next(), user_id=user))


def everything_that_can_happen() -> list[InputEvent]:
    """Uploads of both modalities, replaced content, modality and owner, deletions, and users who leave and return."""
    script = Script()
    for round_ in range(4):
        for number, (topic, sentences) in enumerate(SENTENCES.items()):
            for user in (f"{topic}-fan", f"{topic}-writer"):
                script.text(user, f"{user}/text-{round_}", f"{sentences[round_]}, says {user}")
            script.image(f"{topic}-fan", f"{topic}-fan/photo-{round_}", 10 * round_ + number)
    script.text("dogs-fan", "dogs-fan/text-0", "another dog altogether")  # new content
    script.image("dogs-writer", "dogs-writer/text-1", 99)  # new modality
    script.text("cars-writer", "food-writer/text-2", "a car that changed hands")  # new owner
    script.delete("cars-fan/text-1")
    script.delete("never-uploaded")
    script.delete_user("food-writer")
    script.text("food-writer", "food-writer/back", "soup, after all")  # returned
    script.text("guest", "guest/only", "a single visit")
    script.delete_user("guest")
    script.text("cars-writer", "guest/only", "taken over")  # from one who left
    script.image("food-fan", "food-fan/photo-0", 77)
    return script.events


def bad_events() -> dict[str, Message]:
    """Each kind of bad input that the first consumer knows, by what its dead letter must say."""

    def message(value: bytes) -> Message:
        return Message(ASSET_UPLOADED, b"somebody", value)

    def upload(**data: Any) -> Message:
        return message(json.dumps({"asset_id": "bad", "user_id": "somebody", **data}).encode())

    not_an_image = "data:image/png;base64," + base64.b64encode(b"not an image at all").decode()
    truncated = picture(1)[: len(picture(1)) // 2 // 4 * 4 + 2]
    return {
        "parse: JSON": message(b"{not json"),
        "parse: modality": upload(modality="video", uri="https://example.org/v.mp4"),
        "parse: uri": upload(modality="image"),
        "fetch: file": upload(modality="image", uri="file:///etc/passwd"),
        "fetch: loopback": upload(modality="image", uri="http://127.0.0.1:9/dog.jpg"),
        "fetch: ftp": upload(modality="image", uri="ftp://example.org/dog.jpg"),
        "decode: image": upload(modality="image", uri=not_an_image),
        "decode: truncated": upload(modality="image", uri=truncated),
        "decode: empty": upload(modality="text", text="   \n"),
        "encode: empty": upload(modality="text", text="\u200b" * 8192 + "a cat"),
    }


def test_an_upload_becomes_its_owners_recommendations(installed: Installation) -> None:
    """One event in, one recommendation out; what the contract says of it holds."""
    ingest, recommend = installed.start("consumers.ingest"), installed.start("consumers.recommend")
    installed.wait_ready(ingest, recommend)
    script = Script()
    script.text("ann", "ann/1", "a dog runs on the beach")
    script.text("ben", "ben/1", "a puppy on the sand")
    script.text("cem", "cem/1", "spaghetti with tomato sauce")
    script.image("cem", "cem/2", 1)
    installed.publish(script.events)
    installed.wait_settled()
    script.text("ann", "ann/2", "my dog by the sea")
    installed.publish(script.events[-1:])
    installed.wait_settled()

    recommended = installed.recommendations()["ann"]

    assert recommended is not None
    assert recommended["profile_version"] == 2
    assert recommended["model"] == installed.settings.encoder
    assert recommended["areas"][0]["recommended"]["text"][0]["asset_id"] == "ben/1"
    assert recommended["areas"][0]["recommended"]["image"][0]["asset_id"] == "cem/2"
    assert {item["user_id"] for item in recommended["feed"]} == {"ben", "cem"}
    assert [process.stop(timeout_s=25) for process in (ingest, recommend)] == [0, 0]


def test_bad_changes_of_profiles_become_dead_letters_and_the_others_are_refreshed(installed: Installation) -> None:
    installed.wait_ready(installed.start("consumers.recommend"))
    bad = [b"x", None, b'{"user_id":5,"profile_version":1}', b'{"user_id":"n\\u0000l","profile_version":1}']
    good = b'{"user_id":"ann","profile_version":1}'
    installed.publish([Message(PROFILE_CHANGED, b"k", value) for value in (*bad, good)])
    installed.wait_settled()

    letters = installed.read(PROFILE_CHANGED + ".dlq")
    assert sorted(letter.value() or b"" for letter in letters) == sorted(value or b"" for value in bad)
    assert installed.recommendations() == {"ann": None}


def test_bad_input_becomes_dead_letters_and_the_events_around_it_go_through(installed: Installation) -> None:
    """Every kind of bad input says which stage refused it and why, in words."""
    installed.start("consumers.ingest")
    installed.start("consumers.recommend")
    script = Script()
    kinds = bad_events()
    for number, bad in enumerate(kinds.values()):
        script.text(f"user-{number}", f"user-{number}/1", f"sentence number {number}")
        installed.publish([script.events[-1], bad])
    installed.wait_settled()

    letters = installed.read(ASSET_UPLOADED + ".dlq")
    found = {letter.value(): dict(letter.headers() or []) for letter in letters}
    for kind, bad in kinds.items():
        stage, word = kind.split(": ")
        headers = found[bad.value]
        said = headers["__streams.errors.message"].decode()  # type: ignore[union-attr]
        assert headers["zccr.errors.stage"] == stage.encode(), (kind, said)
        assert word.lower() in said.lower() or word in ("truncated",), (kind, said)
    assert len(letters) == len(kinds)
    assert installed.live().keys() == {f"user-{number}/1" for number in range(len(kinds))}


def test_lists_are_as_long_as_their_topic_takes(installed: Installation) -> None:
    """Whose recommendations are too large gets shorter lists, and nobody waits for them."""
    name = installed.settings.topic_prefix + RECOMMENDATIONS
    resource = ConfigResource(
        ResourceType.TOPIC,
        name,
        incremental_configs=[ConfigEntry("max.message.bytes", "2000", incremental_operation=AlterConfigOpType.SET)],
    )
    admin = AdminClient({"bootstrap.servers": installed.settings.bootstrap_servers})
    admin.incremental_alter_configs([resource])[resource].result(30)
    installed.environment |= {"ZCCR_K": "100"}
    script = Script()
    for number in range(100):
        script.text("ben", f"ben/{random.Random(number).randbytes(8).hex()}", f"a dog runs on beach {number}")
    installed.start("consumers.ingest")
    recommend = installed.start("consumers.recommend")
    installed.publish(script.events)
    installed.wait_settled()
    script.text("ann", "ann/1", "a dog on the beach")
    installed.publish(script.events[-1:])
    installed.wait_settled()

    recommended = installed.recommendations()["ann"]

    assert recommended is not None
    (area,) = recommended["areas"]
    assert 1 <= len(area["recommended"]["text"]) < 100
    assert "now lists of 50 for 'ann'" in recommend.log.read_text()


def test_shuffled_and_delivered_twice_over_several_processes_the_state_is_the_same(
    installed: Installation, encoder: Encoder
) -> None:
    """Any order, any number of deliveries, any process: rows, index content and areas are those of the events alone."""
    events = everything_that_can_happen()
    deliveries = events * 2
    random.Random(7).shuffle(deliveries)
    processes = [installed.start(f"consumers.{name}") for name in ("ingest", "recommend") for _ in range(2)]
    installed.wait_ready(*processes)
    for start in range(0, len(deliveries), 12):
        installed.publish(deliveries[start : start + 12])
    installed.wait_settled()

    assert_state(installed, events, encoder)
    assert [process.stop(timeout_s=25) for process in processes] == [0, 0, 0, 0]


def test_a_killed_recommender_goes_on_from_its_snapshot(installed: Installation, tmp_path: Path) -> None:
    """What came after the snapshot is read on from the topic; a snapshot that the topic does not follow is left."""
    (tmp_path / "snapshots").mkdir()
    installed.environment |= {"ZCCR_SNAPSHOT_DIR": str(tmp_path / "snapshots"), "ZCCR_SNAPSHOT_INTERVAL_S": "1"}
    script = Script()
    script.text("ben", "ben/1", "a puppy on the sand")
    installed.start("consumers.ingest")
    first = installed.start("consumers.recommend")
    installed.publish(script.events)
    installed.wait_settled()
    snapshot = tmp_path / "snapshots" / f"{installed.settings.topic_prefix}asset-embedded.snapshot"
    taken_s = time.time()
    wait_until(lambda: snapshot.exists() and snapshot.stat().st_mtime > taken_s, 60, "a snapshot of it")
    first.kill()
    script.text("cem", "cem/1", "a dog by the sea")
    installed.publish(script.events[1:])
    second = installed.start("consumers.recommend")
    installed.wait_settled()
    script.text("ann", "ann/1", "a dog runs on the beach")
    installed.publish(script.events[2:])
    installed.wait_settled()

    recommended = installed.recommendations()["ann"]

    assert "restored {'text': 1}" in second.log.read_text()
    assert recommended is not None
    assert {item["asset_id"] for item in recommended["feed"]} == {"ben/1", "cem/1"}


INGEST_POINTS = [
    "zccr_stream.content.loader:ContentLoader.load@before",
    "zccr_stream.content.loader:ContentLoader.load@after",
    "zccr_stream.encoders.towers:TowersEncoder.encode@after",
    "zccr_stream.ownership.postgres:PostgresOwnership._store@after",  # written, not committed
    "zccr_stream.ownership.postgres:PostgresOwnership.write@after",  # committed, not announced
    "zccr_stream.stream.publisher:Publisher.publish@before",  # marks locked
    "zccr_stream.stream.publisher:Publisher.publish@after",  # delivered, marks not cleared
    "zccr_stream.pipeline:Ingest.__call__@after",  # announced, offsets not committed
    "zccr_stream.stream.workers:Workers._bury@before",
    "zccr_stream.stream.workers:Workers._bury@after",  # dead letters delivered, offsets not committed
    "zccr_stream.stream.consumer:BatchConsumer._commit@before",
    "zccr_stream.pipeline:Ingest.sweep@after",
]
RECOMMEND_POINTS = [
    "zccr_stream.index.live:LiveIndex.apply@after",
    "zccr_stream.ownership.postgres:PostgresOwnership.profiles@after",
    "zccr_stream.index.live:LiveIndex.search@after",
    "zccr_stream.stream.publisher:Publisher.publish@before",
    "zccr_stream.stream.publisher:Publisher.publish@after",  # published, offsets not committed
    "zccr_stream.index.snapshots:_put@after",  # a snapshot half written
]


def test_killed_anywhere_the_state_is_that_of_a_run_without_kills(
    installed: Installation, encoder: Encoder, tmp_path: Path
) -> None:
    """SIGKILL at each point of the journey, among them between commit and publish of a change of owner."""
    if "ZCCR_BOOTSTRAP_SERVERS" not in os.environ:  # a broker of one's own allows no less than 6 s by default
        installed.environment["ZCCR_SESSION_TIMEOUT_MS"] = "3000"
    events = everything_that_can_happen()
    slices = np.array_split(np.arange(len(events)), len(INGEST_POINTS))
    bad = list(bad_events().values())
    with Crashing("consumers.ingest", "zccr_stream.encoders.mini") as ingest:
        for point, rows in zip(INGEST_POINTS, slices, strict=True):
            # A change of owner in every slice: its former owner is known to nobody but the marks in the database.
            change = _change_of_owner(len(events))
            installed.publish([*(events[row] for row in rows), *change, bad[0]])
            events += change
            assert_killed(installed, ingest, point)
    snapshots = tmp_path / "snapshots"
    snapshots.mkdir()
    installed.environment |= {"ZCCR_SNAPSHOT_DIR": str(snapshots), "ZCCR_SNAPSHOT_INTERVAL_S": "1"}
    installed.start("consumers.ingest")
    with Crashing("consumers.recommend") as recommend:
        for point in RECOMMEND_POINTS:
            change = _change_of_owner(len(events))
            installed.publish(change)
            events += change
            assert_killed(installed, recommend, point)
    installed.start("consumers.recommend")
    installed.wait_settled()

    assert_state(installed, events, encoder)


def assert_killed(installed: Installation, crashing: Crashing, point: str) -> None:
    log = installed.folder / f"{point.rpartition(':')[2]}.log"
    code = crashing.run(point, installed.environment | {"ZCCR_METRICS_PORT": "0"}, log)
    assert code == -signal.SIGKILL, (point, log.read_text()[-2000:])


def _change_of_owner(number: int) -> list[InputEvent]:
    """The asset that goes round: each time another user takes it over, with new content."""
    script = Script()
    script.events = [AssetDeleted("", 0, 0, "")] * number
    script.text(f"owner-{number % 5}", "goes-round", f"a sentence of owner {number % 5}, the {number}th")
    return script.events[number:]


def assert_state(installed: Installation, events: Sequence[InputEvent], encoder: Encoder) -> None:
    """Truth, index and recommendations are what the set of events says."""
    truth = truth_of(events)
    assert_rows(installed, truth, encoder)
    assert installed.announced() == installed.live(), "the topic's last states are not the truth"
    assert installed.recommended_versions() == installed.versions(), "a change of a profile was not refreshed"
    assert_recommendations(installed)


def assert_rows(installed: Installation, truth: Truth, encoder: Encoder) -> None:
    rows = installed.truth()
    expected = [
        (
            asset_id,
            truth.live[asset_id].user_id if asset_id in truth.live else None,
            truth.live[asset_id].modality if asset_id in truth.live else None,
            encoder.model if asset_id in truth.live else None,
            write.occurred_at_ns,
            isinstance(write, AssetDeleted),
            write.event_id,
        )
        for asset_id, write in sorted(truth.writes.items())
    ]
    assert rows["registers"] == expected
    assert rows["users"] == sorted(truth.deleted_users.items())
    stored = dict(zip(sorted(truth.writes), rows["vectors"], strict=True))
    for asset_id, vector in zip(truth.live, vectors_of(list(truth.live.values()), encoder), strict=True):
        assert_same_to_a_step(stored[asset_id], vector, asset_id)  # the batch it came in may round it differently


def assert_recommendations(installed: Installation) -> None:
    """Areas are those of the profile; nothing own and nothing deleted is recommended in the last refreshes."""
    live = installed.live()
    recommendations = installed.recommendations()
    for user_id, version in installed.versions().items():
        owned = sorted(asset_id for asset_id, row in live.items() if row[0] == user_id)
        recommended = recommendations[user_id]
        if not owned:
            assert recommended is None
            continue
        assert recommended is not None
        assert recommended["profile_version"] == version
        assert [
            (area["area_id"], area["modality"], area["size"], area["weight"], area["representative"])
            for area in recommended["areas"]
        ] == _areas(installed, user_id, owned)
        listed = [hit for area in recommended["areas"] for hits in area["recommended"].values() for hit in hits]
        assert not {hit["asset_id"] for hit in [*listed, *recommended["feed"]]}.intersection(owned)


def _areas(installed: Installation, user_id: str, owned: Sequence[str]) -> list[tuple[Any, ...]]:
    live = installed.live()
    truth = assemble.ownership(installed.settings)
    (profile,) = truth.profiles([user_id], Nothing(truth))
    truth.close()
    assert list(profile.asset_ids) == owned
    assert isinstance(profile, Profile)
    assert all(np.array_equal(profile.vectors[n], np.frombuffer(live[a][3], "<f2")) for n, a in enumerate(owned))
    return [
        (area.area_id, area.modality, len(area.members), pytest.approx(area.weight, abs=1e-5), owned[area.medoid])
        for area in find_areas(profile, assemble.area_rule(installed.settings, {}))
    ]


class Nothing:
    """Holds no vectors, so that all are read from the database."""

    def __init__(self, _truth: object) -> None:
        self.dimension = 384

    def vectors(self, asset_ids: Sequence[str], _revisions: Any) -> tuple[Any, Any]:
        return np.zeros(len(asset_ids), bool), np.zeros((len(asset_ids), self.dimension), np.float16)
