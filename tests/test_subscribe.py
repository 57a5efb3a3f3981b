"""The subscriber of `docs/subscribe.md`, as it stands there, against a real broker."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from zccr_stream.events import FeedItem, Message, Recommendations, RecommendedArea, dump_recommendations

DEADLINE_S = 60


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page's one block of Python, as a file."""
    page = (Path(__file__).parent.parent / "docs/subscribe.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    path = tmp_path_factory.mktemp("subscribe") / "subscribe.py"
    path.write_text(block)
    return path


def some_recommendations(user_id: str, version: int, *asset_ids: str) -> Message:
    """As they are published; no assets make a tombstone."""
    areas = [RecommendedArea("area", "image", 1, 1.0, "own", {})] if asset_ids else []
    feed = [FeedItem(asset_id, "other", "image", "area", 0.5) for asset_id in asset_ids]
    return dump_recommendations(Recommendations(user_id, version, 0, "M/1", areas, feed))


def publish(bootstrap_servers: str, topic: str, messages: Sequence[Message]) -> None:
    producer = Producer({"bootstrap.servers": bootstrap_servers, "enable.idempotence": True})
    for message in messages:
        producer.produce(topic, key=message.key, value=message.value, headers=list(message.headers))
    assert producer.flush(DEADLINE_S) == 0


@contextmanager
def running(program: Path, *arguments: str) -> Iterator[IO[str]]:
    """What the program prints, while it runs."""
    process = subprocess.Popen([sys.executable, program, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout
    finally:
        process.kill()
        process.communicate()


def test_it_follows_by_version_and_tombstone(program: Path, bootstrap_servers: str, topic_prefix: str) -> None:
    topic = f"{topic_prefix}recommendations"
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    admin.create_topics([NewTopic(topic, 1, 1, config={"cleanup.policy": "compact"})])[topic].result(DEADLINE_S)
    before = [
        some_recommendations("u/1", 2, "a1", "a2"),
        some_recommendations("ü2", 1, "b1"),
        some_recommendations("u/1", 1, "stale"),
    ]
    after = [
        some_recommendations("u/1", 2, "a1", "a2"),  # a redelivery
        some_recommendations("ü2", 3),
        some_recommendations("ü2", 2, "stale"),
        some_recommendations("ü2", 4, "b2"),
    ]

    publish(bootstrap_servers, topic, before)
    with running(program, bootstrap_servers, topic) as printed:
        first = [printed.readline() for _ in range(2)]
        publish(bootstrap_servers, topic, after)
        then = [printed.readline() for _ in range(3)]

    assert first == ["u/1 a1 (0.50) a2 (0.50)\n", "ü2 b1 (0.50)\n"]
    assert then == ["u/1 a1 (0.50) a2 (0.50)\n", "ü2 has no assets left\n", "ü2 b2 (0.50)\n"]


class Received:
    """A message as the client hands it over."""

    def __init__(self, message: Message) -> None:
        self._message = message

    def key(self) -> bytes | None:
        return self._message.key

    def value(self) -> bytes | None:
        return self._message.value

    def headers(self) -> list[tuple[str, bytes | None]]:
        return list(self._message.headers)


def load(program: Path) -> Any:
    spec = importlib.util.spec_from_file_location("subscribe", program)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0), (2, 2, 0, 1, 2)])
@pytest.mark.parametrize("last", [(), ("a3",)])
def test_any_order_ends_in_the_greatest_version(program: Path, order: Sequence[int], last: tuple[str, ...]) -> None:
    history = [
        some_recommendations("u", 1, "a1"),
        some_recommendations("u", 2, "a2"),
        some_recommendations("u", 3, *last),
    ]
    recommended = load(program).Recommended()

    for position in order:
        recommended.apply(Received(history[position]))

    held = {user: [item["asset_id"] for item in value["feed"]] for user, value in recommended.by_user.items()}
    assert held == ({"u": list(last)} if last else {})
