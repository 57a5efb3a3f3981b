"""What operators ask of a running installation: its state, its dead letters, what was published, how good it is.

Comes in: `Settings`. Go out: answers for the command line, which knows no doors of its own.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from zccr_stream import metrics
from zccr_stream.assemble import (
    INGEST_GROUP,
    RECOMMEND_GROUP,
    area_rule,
    empty_index,
    kafka_config,
    model,
    ownership,
    ranking_rule,
)
from zccr_stream.audit import Published
from zccr_stream.encoders import dimension_of
from zccr_stream.evaluation import Evaluation, EvaluationRule, Evaluator, SearchSpace, Split, choose_users, hold_out
from zccr_stream.events import ASSET_EMBEDDED, DEAD_LETTER_SUFFIX, MODALITIES, PROFILE_CHANGED, RECOMMENDATIONS, Record
from zccr_stream.ownership import PostgresOwnership
from zccr_stream.parts import UnavailableError
from zccr_stream.pipeline import follow, groups
from zccr_stream.settings import Settings
from zccr_stream.stream.follower import Follower
from zccr_stream.stream.lag import group_lag
from zccr_stream.stream.topics import INPUT_TOPICS, identify

DEAD_LETTER_TOPICS = (*INPUT_TOPICS, PROFILE_CHANGED)
"""Topics that have dead letters, without prefix."""

_USERS_AT_ONCE = 64
_OF_AREAS_AND_FEEDS = (
    "area_variance",
    "area_cut",
    "area_growth",
    "areas_max",
    "area_sample_size",
    "area_seed",
    "area_joint",
    "scores",
    "feed_merged",
    "feed_diversity",
    "near_duplicate",
    "k",
)

Report = Callable[[str, int, int], None]
"""Is told the step, how much of it is done, and how much there is."""


def recommendations_follower(settings: Settings, apply: Callable[[Sequence[Record]], None]) -> Follower:
    """Follows what is recommended, as any subscriber may."""
    config, name = kafka_config(settings), settings.topic_prefix + RECOMMENDATIONS
    identify(config, name)
    return Follower(config, name, apply, settings.follow_batch_max)


def dead_letters(
    settings: Settings,
    truth: PostgresOwnership,
    topic: str,
    take: Callable[[Sequence[Record]], None],
    *,
    again: bool,
    done: bool,
) -> None:
    """Hand over the dead letters of a topic that nobody has dealt with yet, in batches, up to the newest at the start.

    Args:
        settings: The settings.
        truth: Where it is noted what was dealt with.
        topic: Whose dead letters, without prefix.
        take: Gets each batch.
        again: Those that were dealt with before, too.
        done: Note each batch as dealt with, after `take` returned.
    """
    config, name = kafka_config(settings), settings.topic_prefix + topic + DEAD_LETTER_SUFFIX
    source = identify(config, name)
    noted = {} if again else truth.dead_letters_done(source)

    def take_old(records: Sequence[Record]) -> None:
        # What is replayed may fail again at once: it would be replayed again, for ever.
        if old := [record for record in records if record.offset < follower.ends_at_start.get(record.partition, 0)]:
            take(old)

    follower = Follower(config, name, take_old, settings.follow_batch_max)

    def note() -> None:
        nonlocal noted
        reached = {
            partition: min(position, follower.ends_at_start[partition])
            for partition, position in follower.positions.items()
            if partition in follower.ends_at_start
        }
        if done and reached != noted:
            truth.note_dead_letters(source, reached)
            noted = reached

    _follow_to_the_end(follower, noted, note)


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


def evaluate(settings: Settings, rule: EvaluationRule, report: Report) -> Evaluation:
    """Hold out part of the profiles of a sample of users, recommend as production does, and count.

    Reads the database alone, in one snapshot, and writes nothing; holds all vectors in memory, as a recommender does.

    Raises:
        UnavailableError: there is nobody to measure, or the database is away; the message says what to do.
    """
    truth = ownership(settings)
    try:
        truth.check()
        with truth.everything() as everything:
            sizes = everything.sizes()
            if not sizes:
                raise UnavailableError(nothing_live(settings, truth))
            sample = choose_users(sizes, rule)
            if not sample.user_ids:
                raise UnavailableError(
                    f"nobody has {rule.assets_min} assets, the largest profile has {sample.largest}: there is too "
                    "little to hold out. Wait for more uploads, or ask for less with --assets-min"
                )
            splits = [hold_out(uploads, rule) for uploads in everything.uploads(sample.user_ids)]
            index = empty_index(settings)
            space = SearchSpace(index, splits)
            total = sum(sizes.values())
            for page in everything.pages():
                space.add(page)
                report("reading", sum(space.sizes().values()), total)
    finally:
        truth.close()
    evaluator = Evaluator(space, area_rule(settings, index.catalogues()), ranking_rule(settings), rule.seed)
    done = 0
    for group in _grouped(splits, settings.profile_assets_max):
        evaluator.add(group)
        done += len(group)
        report("measuring", done, len(splits))
    return evaluator.evaluation(sample)


def of_areas_and_feeds(settings: Settings) -> dict[str, Any]:
    """The settings that say what recommendations are made of."""
    return {name: getattr(settings, name) for name in _OF_AREAS_AND_FEEDS}


def measured(evaluation: Evaluation, settings: Settings) -> None:
    """Give the evaluation to the metrics, with what was measured and the time of its success."""
    metrics.set_evaluation_info(model(settings), of_areas_and_feeds(settings))
    for feed, lengths in evaluation.feeds.items():
        for length, by_measure in lengths.items():
            for measure, estimate in by_measure.items():
                metrics.set_evaluated(feed, length, measure, estimate.mean, estimate.half_width)
            metrics.set_distinct(feed, length, evaluation.distinct[feed][length])
    for feed, leads in evaluation.above.items():
        for length, lead in leads.items():
            metrics.set_lead(feed, length, lead.mean, lead.half_width)
    users = len(evaluation.sample.user_ids)
    metrics.set_sample(users, evaluation.held_out, evaluation.assets, evaluation.repeats.mean)
    metrics.set_evaluation_success(time.time())


def _grouped(splits: Sequence[Split], assets_max: int) -> Iterator[list[Split]]:
    """Groups of users that fit in memory, and are few enough for a bar that moves."""
    for first in range(0, len(splits), _USERS_AT_ONCE):
        by_user = {split.uploads.user_id: split for split in splits[first : first + _USERS_AT_ONCE]}
        sizes = [len(split.uploads.asset_ids) for split in by_user.values()]
        for group in groups(list(by_user), sizes, assets_max):
            yield [by_user[user_id] for user_id in group]


def nothing_live(settings: Settings, truth: PostgresOwnership) -> str:
    """Why no live asset is in the settings' space, and what to do."""
    if other := truth.other_model():
        return (
            f"no live asset is encoded by {model(settings)}, but some are by {other}: set ZCCR_ENCODER to the "
            "encoder that the consumers run with"
        )
    return "there is no live asset yet: upload something, with the consumers running"
