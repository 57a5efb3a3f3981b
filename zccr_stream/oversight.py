"""What operators ask of a running installation: its state, its dead letters, and what was published.

Comes in: `Settings`. Go out: answers for the command line, which knows no doors of its own.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zccr_stream.assemble import INGEST_GROUP, RECOMMEND_GROUP, kafka_config, model, ownership
from zccr_stream.audit import Published
from zccr_stream.encoders import dimension_of
from zccr_stream.events import ASSET_EMBEDDED, DEAD_LETTER_SUFFIX, MODALITIES, PROFILE_CHANGED, RECOMMENDATIONS, Record
from zccr_stream.pipeline import follow
from zccr_stream.settings import Settings
from zccr_stream.stream.follower import Follower
from zccr_stream.stream.lag import commit_positions, committed_positions, group_lag
from zccr_stream.stream.topics import INPUT_TOPICS, identify

DEAD_LETTER_TOPICS = (*INPUT_TOPICS, PROFILE_CHANGED)
"""Topics that have dead letters, without prefix."""

_DEAD_LETTERS_GROUP = "zccr-dlq"


def recommendations_follower(settings: Settings, apply: Callable[[Sequence[Record]], None]) -> Follower:
    """Follows what is recommended, as any subscriber may."""
    config, name = kafka_config(settings), settings.topic_prefix + RECOMMENDATIONS
    identify(config, name)
    return Follower(config, name, apply, settings.follow_batch_max)


def dead_letters(
    settings: Settings, topic: str, take: Callable[[Sequence[Record]], None], *, again: bool, done: bool
) -> None:
    """Hand over the dead letters of a topic that nobody has dealt with yet, in batches, up to the newest.

    Args:
        settings: The settings.
        topic: Whose dead letters, without prefix.
        take: Gets each batch.
        again: Those that were dealt with before, too.
        done: Note each batch as dealt with, after `take` returned.
    """
    config, name = kafka_config(settings), settings.topic_prefix + topic + DEAD_LETTER_SUFFIX
    group = settings.topic_prefix + _DEAD_LETTERS_GROUP
    positions = committed_positions(config, group, name)
    follower = Follower(config, name, take, settings.follow_batch_max)

    def note() -> None:
        if done:
            commit_positions(config, group, name, follower.positions)

    _follow_to_the_end(follower, {} if again else positions, note)


def _follow_to_the_end(follower: Follower, positions: Mapping[int, int], between: Callable[[], None]) -> None:
    """Follow from these positions on until all is read that was there at the start."""
    stop = threading.Event()

    def look() -> None:
        between()
        if follower.caught_up.is_set():
            stop.set()

    follower.run(positions, stop, between=look)


class PublishedReader:
    """Reads what the topics say, each time on from where it was before up to their newest records."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._positions: dict[str, dict[int, int]] = {ASSET_EMBEDDED: {}, RECOMMENDATIONS: {}}
        self.published = Published()

    def read(self) -> Published:
        """Everything that was published until now."""
        name, dimension = model(self._settings), dimension_of(self._settings.encoder)
        self._follow(ASSET_EMBEDDED, lambda records: follow(records, self.published, name, dimension))
        self._follow(RECOMMENDATIONS, self.published.take_recommendations)
        return self.published

    def _follow(self, topic: str, take: Callable[[Sequence[Record]], None]) -> None:
        config, name = kafka_config(self._settings), self._settings.topic_prefix + topic
        identify(config, name)  # a person wants to hear at once that it is not there
        follower = Follower(config, name, take, self._settings.follow_batch_max)
        _follow_to_the_end(follower, self._positions[topic], between=lambda: None)
        self._positions[topic] = follower.positions


def refresh_lag(settings: Settings) -> int:
    """How many changed profiles are still to be refreshed."""
    topic = settings.topic_prefix + PROFILE_CHANGED
    return group_lag(kafka_config(settings), settings.topic_prefix + RECOMMEND_GROUP, [topic])[topic]


def status(settings: Settings) -> dict[str, Any]:
    """What is there: the truth's counts, what is still to be announced, and the groups' lag."""
    truth = ownership(settings)
    try:
        truth.check()
        counts = truth.statistics()
    finally:
        truth.close()
    lag = {
        name: group_lag(
            kafka_config(settings), settings.topic_prefix + group, [settings.topic_prefix + topic for topic in names]
        )
        for name, group, names in (
            ("ingest", INGEST_GROUP, INPUT_TOPICS),
            ("recommend", RECOMMEND_GROUP, [PROFILE_CHANGED]),
        )
    }
    return {
        "model": model(settings),
        **{f"live {modality} assets": counts.live.get(modality, 0) for modality in MODALITIES},
        "tombstones of assets": counts.tombstones,
        "users": counts.users,
        "still to be announced": counts.backlog.assets + counts.backlog.profiles,
        **{f"{name} lag of {topic}": behind for name, topics in lag.items() for topic, behind in topics.items()},
    }
