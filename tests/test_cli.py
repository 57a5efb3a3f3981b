"""The command line as a person uses it, against a real broker and database."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.installation import Installation, installation
from zccr_stream.cli import app
from zccr_stream.cli.upload import data_uri
from zccr_stream.events import (
    ASSET_UPLOADED,
    FeedItem,
    Recommendations,
    Recommended,
    RecommendedArea,
    dump_recommendations,
    parse,
)
from zccr_stream.stream.records import record_of

ROOT = Path(__file__).parent.parent


@pytest.fixture
def installed(
    bootstrap_servers: str, database: str, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Installation]:
    with installation(bootstrap_servers, database, topic_prefix, tmp_path) as running:
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


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

    for command in ("migrate", "topics", "demo", "upload", "watch", "status", "up"):
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

    events = [parse(record_of(message), ASSET_UPLOADED) for message in installed.read(ASSET_UPLOADED)]
    assert "2 uploads of ann published" in said
    assert {(event.asset_id, event.modality) for event in events} == {  # type: ignore[union-attr]
        ("ann/dog.png", "image"),
        ("ann/notes.md", "text"),
    }


def test_a_large_photo_is_scaled_down_to_fit_a_message(tmp_path: Path) -> None:
    large = photo(tmp_path / "large.png", side=2000, noise=True)

    uri = data_uri(large)

    assert large.stat().st_size > 5_000_000
    assert len(uri) < 1_000_000


def test_what_cannot_be_read_is_said_and_the_rest_is_published(installed: Installation, tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"no image")
    (tmp_path / "good.txt").write_text("A dog.")

    result = CliRunner().invoke(app, ["upload", "--user", "ann", str(tmp_path / "bad.png"), str(tmp_path / "good.txt")])

    assert result.exit_code == 1
    assert "1 uploads of ann published" in result.output
    assert "skipped" in result.output
    assert len(installed.read(ASSET_UPLOADED)) == 1


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
