"""The command line as a person uses it, against a real broker and database."""

import base64
import io
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from confluent_kafka.admin import AdminClient
from PIL import Image
from typer.testing import CliRunner

from tests.installation import Installation, installation
from tests.waiting import wait_until
from zccr_stream import assemble, oversight
from zccr_stream.cli import app
from zccr_stream.cli.newest import Newest
from zccr_stream.events import (
    ASSET_DELETED,
    ASSET_UPLOADED,
    DEAD_LETTER_SUFFIX,
    USER_DELETED,
    AssetUploaded,
    BadInputError,
    FeedItem,
    Recommendations,
    Recommended,
    RecommendedArea,
    Record,
    TryLaterError,
    dump_dead_letter,
    dump_recommendations,
    parse,
    shorten_dead_letter,
)
from zccr_stream.stream.records import record_of

ROOT = Path(__file__).parent.parent
DEADLINE_S = 60.0
YESTERDAY_MS = int(time.time() * 1000) - 86_400_000


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "200"}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def start(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "zccr_stream", *arguments],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def photo(path: Path, side: int = 64, noise: bool = False) -> Path:
    pixels = os.urandom(side * side * 3) if noise else bytes(range(256)) * (side * side * 3 // 256)
    Image.frombytes("RGB", (side, side), pixels).save(path)
    return path


def test_help_teaches_every_command() -> None:
    said = run("--help")

    for command in ("migrate", "topics", "demo", "upload", "watch", "status", "dlq", "verify", "up"):
        assert command in said
    assert "ZCCR_" in said


def test_migrate_and_topics_may_be_run_again(installed: Installation) -> None:
    assert "up to date" in run("migrate")
    assert "up to date" in run("migrate")
    assert run("topics").count("as wanted") == 10


def test_photos_and_texts_become_events(installed: Installation, tmp_path: Path) -> None:
    folder = tmp_path / "holiday"
    folder.mkdir()
    photo(folder / "dog.png")
    (folder / "notes.md").write_text("A dog on the beach.")
    (folder / "other.zip").write_bytes(b"not for us")

    said = run("upload", "--user", "ann", str(folder))

    assert "2 uploads of ann published" in said
    assert {asset_id: event.modality for asset_id, event in uploaded(installed).items()} == {
        "ann/dog.png": "image",
        "ann/notes.md": "text",
    }


def test_users_with_slashes_do_not_share_assets(installed: Installation, tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c.txt").write_text("A dog on the beach.")

    run("upload", "--user", "a", str(tmp_path / "a"))
    run("upload", "--user", "a/b", str(tmp_path / "a" / "b"))

    owners = {asset_id: event.user_id for asset_id, event in uploaded(installed).items()}
    assert owners == {"a/b/c.txt": "a", "a%2Fb/c.txt": "a/b"}


def uploaded(installed: Installation) -> dict[str, AssetUploaded]:
    events = [parse(record_of(message), ASSET_UPLOADED) for message in installed.read(ASSET_UPLOADED)]
    return {event.asset_id: event for event in events if isinstance(event, AssetUploaded)}


def picture(event: AssetUploaded) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode((event.uri or "").split(",", 1)[1])))


def test_large_photos_are_scaled_down_to_fit_a_message(installed: Installation, tmp_path: Path) -> None:
    """As the stream sees them: transparent on white, 16 bits by their depth."""
    noise = photo(tmp_path / "noise.png", side=1200, noise=True)
    clear = Image.frombytes("RGBA", (1200, 1200), os.urandom(1200 * 1200 * 4))
    clear.putalpha(0)
    clear.save(tmp_path / "clear.png")
    dim = np.random.default_rng(1).integers(0, 23_000, (1200, 1200), dtype=np.uint16)
    Image.fromarray(dim).save(tmp_path / "dim.png")

    run("upload", "--user", "ann", *(str(tmp_path / name) for name in ("noise.png", "clear.png", "dim.png")))

    events = uploaded(installed)
    assert noise.stat().st_size > 2_000_000
    assert all(len(event.uri or "") < 1_000_000 for event in events.values())
    assert np.asarray(picture(events["ann/clear.png"])).min() > 250
    assert np.asarray(picture(events["ann/dim.png"]).convert("L")).mean() == pytest.approx(11_500 / 257, abs=3)


def test_what_cannot_be_uploaded_is_said_and_the_rest_is_published(installed: Installation, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    (tmp_path / "empty.txt").write_text(" ")
    (tmp_path / "good.txt").write_text("A dog.")
    header = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "bomb.png").write_bytes(bomb)

    result = CliRunner().invoke(app, ["upload", "--user", "ann", str(tmp_path)], env={"COLUMNS": "300"})

    assert result.exit_code == 1
    assert "1 uploads of ann published" in result.output
    for name in ("bad.png", "empty.txt", "bomb.png"):
        assert re.search(rf"skipped.*{name}: ", result.output), result.output
    assert uploaded(installed).keys() == {"ann/good.txt"}


def test_names_that_no_event_may_have_are_said(installed: Installation, tmp_path: Path) -> None:
    (tmp_path / "good.txt").write_text("A dog.")

    result = CliRunner().invoke(app, ["upload", "--user", "a\tb", str(tmp_path)], env={"COLUMNS": "300"})

    assert result.exit_code == 1
    assert "control" in result.output


def test_files_of_one_name_are_kept_apart_by_their_folders_or_refused(installed: Installation, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.txt").write_text(f"A dog in {folder}.")

    both = [str(tmp_path / folder / "1.txt") for folder in ("a", "b")]
    refused = CliRunner().invoke(app, ["upload", "--user", "ann", *both], env={"COLUMNS": "300"})
    run("upload", "--user", "ann", str(tmp_path))

    assert refused.exit_code == 2
    assert "same asset" in refused.output
    assert uploaded(installed).keys() == {"ann/a/1.txt", "ann/b/1.txt"}


def recommendations(user_id: str, version: int) -> Recommendations:
    hit = Recommended("photo-1", "ben", 0.75)
    area = RecommendedArea("a1b2c3", "text", 1, 1.0, f"text-{version}", {"image": [hit], "text": []})
    return Recommendations(
        user_id,
        version,
        1_780_000_000_000_000_000,
        "mini",
        [area],
        [FeedItem("photo-1", "ben", "image", "a1b2c3", 0.75)],
    )


def test_watch_shows_each_users_newest_and_ends_when_asked(installed: Installation) -> None:
    installed.publisher.publish(
        [dump_recommendations(recommendations(*of)) for of in (("ann", 2), ("ann", 1), ("ben", 1))]
    )

    said = run("watch", "--once")
    of_ann = run("watch", "--once", "--user", "ann")

    assert "ann, version 2" in said
    assert "ann, version 1" not in said
    assert "0.75 photo-1" in said
    assert "ben, version 1" in said
    assert "ben, version 1" not in of_ann


def test_watch_follows_until_it_is_interrupted(installed: Installation) -> None:
    with start("watch", "--user", "ann") as watching:
        installed.publisher.publish([dump_recommendations(recommendations("ann", 1))])
        assert watching.stdout is not None
        assert any("ann, version 1" in line for line in watching.stdout)
        watching.send_signal(signal.SIGINT)

        assert watching.wait(30) == 0


def test_an_older_version_is_never_shown_after_a_newer_one() -> None:
    newest = Newest()

    def take(user_id: str, version: int) -> None:
        message = dump_recommendations(recommendations(user_id, version))
        newest.take([Record("recommendations", 0, 0, 0, message.key, message.value, message.headers)])

    take("ann", 5)
    newest.changed.clear()
    take("ann", 3)
    assert newest.changed == set()
    take("ann", 5)
    gone = dump_recommendations(Recommendations("ann", 6, 0, "mini", [], []))
    newest.take([Record("recommendations", 0, 0, 0, gone.key, gone.value, gone.headers)])
    take("ann", 5)
    newest.take([Record("recommendations", 0, 0, 0, b"not ours", None, ())])

    assert newest.changed == {"ann"}
    assert newest.by_user == {"ann": None}


def test_watch_does_not_obey_markup_in_names(installed: Installation) -> None:
    installed.publisher.publish([dump_recommendations(recommendations("[red]ann[/red]", 1))])

    assert "[red]ann[/red], version 1" in run("watch", "--once")


def test_status_counts_what_is_there(installed: Installation) -> None:
    state = json.loads(run("status", "--json"))

    assert state["live image assets"] == 0
    assert state["still to be announced"] == 0
    assert state["ingest lag of " + installed.settings.topic_prefix + "asset-uploaded"] == 0


@pytest.mark.parametrize(
    ("environment", "code", "said"),
    [
        ({"ZCCR_BATCH_MAX": "many"}, 2, "wrong settings"),
        ({"ZCCR_BOOTSTRAP_SERVERS": "127.0.0.1:1"}, 1, "unavailable"),
        ({"ZCCR_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}, 1, "unavailable"),
    ],
)
def test_what_is_wrong_is_one_clear_line(
    installed: Installation, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], code: int, said: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    ended = start("status")
    _, errors = ended.communicate(timeout=90)

    assert ended.returncode == code, errors
    assert said in errors
    assert "Traceback" not in errors


def test_a_database_without_tables_says_what_to_run(
    bootstrap_servers: str, database_url: str, topic_prefix: str, tmp_path: Path
) -> None:
    with installation(bootstrap_servers, database_url, topic_prefix, tmp_path) as bare:
        consumer = bare.start("consumers.ingest")

        assert consumer.wait(60) == 1
        assert "zccr-stream migrate" in consumer.log.read_text()
        assert not re.search("Traceback", consumer.log.read_text())


def refused(installed: Installation, topic: str, error: BadInputError | TryLaterError, key: str, value: bytes) -> None:
    record = Record(installed.settings.topic_prefix + topic, 1, 7, YESTERDAY_MS, key.encode(), value, (("a", b"1"),))
    installed.publisher.publish([dump_dead_letter(record, topic, error, attempts=5)])


def test_dead_letters_are_shown_and_replayed_once(installed: Installation) -> None:
    refused(installed, ASSET_UPLOADED, TryLaterError("fetch", "timed out after 10 s"), "late", b"late")
    refused(installed, ASSET_UPLOADED, BadInputError("decode", "no [red]image"), "bad", b"bad")
    shortened = Record(ASSET_DELETED, 0, 3, 0, b"large", b"x" * 100, ())
    letter = dump_dead_letter(shortened, ASSET_DELETED, BadInputError("parse", "no JSON"), attempts=1)
    installed.publisher.publish([shorten_dead_letter(letter)])

    shown = run("dlq")
    replayed = run("dlq", "--replay", "--stage", "fetch")
    left = run("dlq")
    (again,) = installed.read(ASSET_UPLOADED)
    done = run("dlq", "--done")
    none_left = run("dlq")
    everything = json.loads(run("dlq", "--all", "--replay", "--json"))

    assert "3 dead letters" in shown
    assert "timed out after 10 s" in shown
    assert "no [red]image" in shown
    assert f"{ASSET_UPLOADED} 1@7" in shown
    assert "1 published again" in replayed
    assert "3 dead letters" in left
    assert "noted as dealt with" in done
    assert "no dead letters" in none_left
    assert (again.key(), again.value(), again.timestamp()[1]) == (b"late", b"late", YESTERDAY_MS)
    place = f"{installed.settings.topic_prefix}{ASSET_UPLOADED}/1/7"
    assert again.headers() == [("a", b"1"), ("ce_id", place.encode())]  # a bare event's id is the place it came from
    assert everything["replayed"] == 2
    assert {(of["topic"], of["stage"]): of["letters"] for of in everything["counts"]} == {
        (ASSET_UPLOADED, "fetch"): 1,
        (ASSET_UPLOADED, "decode"): 1,
        (ASSET_DELETED, "parse"): 1,
    }
    assert "cannot be replayed" in shown
    assert installed.read(ASSET_DELETED) == []


def test_dead_letters_of_a_topic_that_was_made_again_are_shown(installed: Installation) -> None:
    """Its offsets begin anew, below those that were dealt with before."""
    refused(installed, ASSET_UPLOADED, BadInputError("decode", "no image"), "key", b"old")
    run("dlq", "--done")
    admin = AdminClient(assemble.kafka_config(installed.settings))
    name = installed.settings.topic_prefix + ASSET_UPLOADED + DEAD_LETTER_SUFFIX
    admin.delete_topics([name], operation_timeout=DEADLINE_S)[name].result(DEADLINE_S)
    wait_until(lambda: name not in admin.list_topics(timeout=DEADLINE_S).topics, DEADLINE_S, "it is gone")
    run("topics")
    refused(installed, ASSET_UPLOADED, BadInputError("decode", "no image"), "key", b"new")

    assert "1 dead letter:" in run("dlq")


def test_what_fails_again_while_it_is_replayed_is_left_for_the_next_time(installed: Installation) -> None:
    for n in range(6):
        refused(installed, ASSET_UPLOADED, TryLaterError("fetch", "still away"), f"key-{n}", b"old")
    truth = assemble.ownership(installed.settings)
    hasty = {
        "queued.min.messages": 1,
        "max.partition.fetch.bytes": 1,
        "fetch.queue.backoff.ms": 1,
    }  # fetches a record, not what is there
    one_by_one = installed.settings.model_copy(update={"follow_batch_max": 1, "kafka_config": hasty})
    taken: list[bytes | None] = []

    def take(records: Sequence[Record]) -> None:
        for record in records:
            taken.append(record.value)
            assert record.key is not None
            refused(installed, ASSET_UPLOADED, TryLaterError("fetch", "still away"), record.key.decode(), b"new")

    for _ in range(2):
        oversight.dead_letters(one_by_one, truth, ASSET_UPLOADED, take, again=False, done=True)

    truth.close()
    assert taken == [b"old"] * 6 + [b"new"] * 6


def test_letters_that_are_not_whole_or_too_large_are_not_replayed_and_stop_nothing(installed: Installation) -> None:
    """Without its headers a record would be another event: the one it carries in them would be lost, its time too."""
    unreadable = Record("t", 0, 0, YESTERDAY_MS, b"k", b"{}", (), has_readable_headers=False)
    installed.publisher.publish(
        [dump_dead_letter(unreadable, ASSET_UPLOADED, BadInputError("parse", "no"), attempts=1)]
    )
    refused(installed, ASSET_UPLOADED, BadInputError("decode", "no image"), "large", os.urandom(6_500_000))
    refused(installed, USER_DELETED, BadInputError("parse", "no \x1b[31mJSON"), "\x1b[31mkey", b"x")

    said = run("dlq", "--replay")

    assert "3 dead letters" in said
    assert "1 published again" in said
    assert "2 cannot be replayed" in said
    assert "\x1b[31m" not in said
    assert installed.read(ASSET_UPLOADED) == []
    assert "no dead letters" in run("dlq")


@pytest.mark.parametrize("options", [("--replay", "--stage", "fetc"), ("--done", "--stage", "fetch")])
def test_what_would_hide_letters_by_mistake_is_refused(installed: Installation, options: Sequence[str]) -> None:
    assert CliRunner().invoke(app, ["dlq", *options]).exit_code == 2
