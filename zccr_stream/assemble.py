"""The composition root: settings -> parts. The only place where doors, use cases and settings meet.

Comes in: `Settings`. Go out: the parts that the two consumers and the command line put together, and the process
around them: log, signals, metrics port, exit code.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from zccr_stream import __version__, metrics
from zccr_stream.catalogue import Catalogue, Joint, JointSpace
from zccr_stream.content import ContentLoader, DecodeLimits, FetchLimits
from zccr_stream.encoders import EncoderError, dimension_of, load_encoder, model_of
from zccr_stream.events import (
    ASSET_EMBEDDED,
    MODALITIES,
    PROFILE_CHANGED,
    Record,
)
from zccr_stream.index import LiveIndex, SnapshotError
from zccr_stream.index.live import CATALOGUE_MIN
from zccr_stream.interests import CONTRAST, CONTRAST_MIN, AreaRule
from zccr_stream.ownership import NotMigratedError, PostgresOwnership
from zccr_stream.ownership import migrate as migrate_database
from zccr_stream.parts import Encoder, MessageTooLargeError, UnavailableError
from zccr_stream.pipeline import Ingest, Refresh, follow
from zccr_stream.ranking import RankingRule
from zccr_stream.settings import Settings, explain
from zccr_stream.stream.background import Background
from zccr_stream.stream.consumer import BatchConsumer, Limits
from zccr_stream.stream.follower import Follower
from zccr_stream.stream.publisher import Publisher
from zccr_stream.stream.topics import INPUT_TOPICS, TopicReport, TopicRule, identify
from zccr_stream.stream.topics import ensure_topics as ensure_topics_in
from zccr_stream.stream.workers import Handler, RetryRule

logger = logging.getLogger(__name__)

INGEST_GROUP = "zccr-ingest"
RECOMMEND_GROUP = "zccr-recommend"

_DELIVERY_TIMEOUT_S = 30
_SWEEP_LIMIT = 500
_HEARTBEAT_MS = 3000


@dataclass(frozen=True, slots=True)
class Process:
    """What runs around a consumer: the wish to stop, threads beside the loop, the probes."""

    stop: threading.Event
    background: Background
    health: metrics.Health


@contextlib.contextmanager
def process(settings: Settings, topics: Sequence[str]) -> Iterator[Process]:
    """Run the block as a consumer process: it logs, answers probes, and stops at SIGTERM and SIGINT."""
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    warn_of_unknown_settings()
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    health = metrics.Health(heartbeat_max_age_s=settings.max_poll_interval_ms / 1000)
    metrics.set_build_info(__version__)
    metrics.expect(topics, MODALITIES)
    server = metrics.serve(settings.metrics_port, health, settings.metrics_address)
    logger.info("metrics and probes on port %d", server.port)
    background = Background()
    try:
        yield Process(stop, background, health)
    finally:
        stop.set()
        background.join(timeout_s=2)
        server.close()


def warn_of_unknown_settings() -> None:
    """A misspelt variable would silently leave the default in force."""
    for name in os.environ:
        if name.startswith("ZCCR_") and name.removeprefix("ZCCR_").lower() not in Settings.model_fields:
            logger.warning("%s is no setting; docs/settings.md lists them", name)


def kafka_config(settings: Settings) -> dict[str, Any]:
    """What every Kafka client is configured with."""
    return {"bootstrap.servers": settings.bootstrap_servers, "client.id": "zccr-stream", **settings.kafka_config}


def publisher(settings: Settings) -> Publisher:
    """The way out to Kafka."""
    return Publisher(kafka_config(settings), settings.topic_prefix, _DELIVERY_TIMEOUT_S)


def contents(settings: Settings) -> ContentLoader:
    """Where uploads' content comes from."""
    return ContentLoader(
        FetchLimits(
            schemes=frozenset(settings.fetch_schemes) - (set() if settings.file_root else {"file"}),
            private_networks=settings.fetch_private_networks,
            ca_file=str(settings.fetch_ca_file) if settings.fetch_ca_file else None,
            store_prefixes=settings.fetch_store_prefixes,
            store_options=settings.fetch_store_options,
            file_root=str(settings.file_root) if settings.file_root else None,
            image_bytes_max=settings.fetch_image_bytes_max,
            text_bytes_max=settings.fetch_text_bytes_max,
            redirects_max=settings.fetch_redirects_max,
            connect_timeout_s=settings.fetch_connect_timeout_s,
            timeout_s=settings.fetch_timeout_s,
            batch_timeout_s=settings.fetch_batch_timeout_s,
            concurrency=settings.fetch_concurrency,
        ),
        DecodeLimits(
            pixels_max=settings.image_pixels_max,
            pixels_in_flight_max=settings.image_pixels_in_flight_max,
            pixels_kept_max=settings.image_pixels_kept_max,
            side_min_px=settings.image_side_min_px,
            text_chars_max=settings.text_chars_max,
        ),
    )


def ownership(settings: Settings) -> PostgresOwnership:
    """The truth in PostgreSQL; nothing is connected yet."""
    return PostgresOwnership(
        settings.database_url,
        model=model_of(settings.encoder),
        dimension=dimension_of(settings.encoder),
        pool_size=settings.database_pool_size,
        connect_timeout_s=settings.database_connect_timeout_s,
        statement_timeout_ms=settings.database_statement_timeout_ms,
        lock_timeout_ms=settings.database_lock_timeout_ms,
        idle_timeout_ms=settings.database_idle_timeout_ms,
        attempts_max=settings.database_attempts_max,
    )


def model(settings: Settings) -> str:
    """The name of the space that the settings' encoder encodes to; nothing is loaded for it."""
    return model_of(settings.encoder)


def encoder(settings: Settings) -> Encoder:
    """The encoder, loaded: this takes seconds."""
    loaded = load_encoder(
        settings.encoder,
        settings.device,
        precision=settings.encode_precision,
        batch_max=settings.encode_batch_max,
        threads_max=settings.encode_threads_max,
    )
    metrics.set_model_info(loaded.model, loaded.dimension)
    metrics.set_encoder_info(loaded.device, loaded.precision)
    return loaded


def area_rule(
    settings: Settings,
    catalogues: Mapping[str, Catalogue],
    joint_of: Callable[[Mapping[str, Catalogue]], Joint] = Joint.of,
) -> AreaRule:
    """How areas of interest are found in these catalogues, by modality."""
    together = settings.area_joint and set(catalogues) == set(MODALITIES)
    return AreaRule(
        variance=settings.area_variance,
        cut=settings.area_cut,
        growth=settings.area_growth,
        areas_max=settings.areas_max,
        sample_size=settings.area_sample_size,
        seed=settings.area_seed,
        catalogues=catalogues,
        joint=joint_of(catalogues) if together else None,
    )


def too_few_assets(settings: Settings, sizes: Mapping[str, int]) -> str | None:
    """What these settings ask for and so few assets, `sizes` by modality, do not give yet, as a sentence."""
    fewest = min(sizes.get(modality, 0) for modality in MODALITIES)
    waits = {
        "the calibrated cut": CATALOGUE_MIN if settings.area_cut is None else 0,
        "seeds in contrast": CONTRAST_MIN if settings.area_seed == CONTRAST else 0,
        "joint areas": CATALOGUE_MIN if settings.area_joint else 0,
        "calibrated scores": CATALOGUE_MIN if settings.scores == "calibrated" else 0,
    }
    waiting = [f"{what} ({least:,})" for what, least in waits.items() if fewest < least]
    if not waiting:
        return None
    known = ", ".join(f"{sizes.get(modality, 0):,} {modality}s" for modality in MODALITIES)
    return f"Measured without {', '.join(waiting)}: these need so many assets of each modality, and there are {known}."


def ranking_rule(settings: Settings) -> RankingRule:
    """How hits become rankings and a feed."""
    return RankingRule(
        k=settings.k,
        feed_size=settings.feed_size,
        near_duplicate=settings.near_duplicate,
        diversity=settings.feed_diversity,
        calibrated=settings.scores == "calibrated",
        merged=settings.feed_merged,
    )


def migrate(settings: Settings) -> None:
    """Bring the database to the newest schema."""
    migrate_database(settings.database_url)


def ensure_topics(settings: Settings) -> list[TopicReport]:
    """Make the topics that are missing."""
    rule = TopicRule(
        partitions=settings.partitions,
        replication_factor=settings.replication_factor,
        retention_hours=settings.retention_hours,
        delete_retention_hours=settings.delete_retention_hours,
    )
    return ensure_topics_in(kafka_config(settings), settings.topic_prefix, rule)


def ingest_consumer(settings: Settings, handler: Handler, out: Publisher, around: Process) -> BatchConsumer:
    """A member of the group that shares the input topics."""
    limits = _limits(settings, settings.batch_max, settings.batches_in_flight)
    return _consumer(settings, INGEST_GROUP, INPUT_TOPICS, handler, out, limits, around)


def recommend_consumer(settings: Settings, handler: Handler, out: Publisher, around: Process) -> BatchConsumer:
    """A member of the group that shares the changed profiles; one batch at a time, so that changes coalesce."""
    limits = _limits(settings, settings.refresh_batch_max, batches_in_flight=1)
    return _consumer(settings, RECOMMEND_GROUP, [PROFILE_CHANGED], handler, out, limits, around)


def _consumer(
    settings: Settings,
    group: str,
    names: Sequence[str],
    handler: Handler,
    out: Publisher,
    limits: Limits,
    around: Process,
) -> BatchConsumer:
    return BatchConsumer(
        _group_config(settings, group),
        [settings.topic_prefix + name for name in names],
        settings.topic_prefix,
        handler,
        out,
        limits,
        _retry_rule(settings),
        around.health,
    )


def _group_config(settings: Settings, group: str) -> dict[str, Any]:
    classic = {
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": settings.session_timeout_ms,
        "heartbeat.interval.ms": min(_HEARTBEAT_MS, settings.session_timeout_ms // 3),
    }
    return {
        "group.id": settings.topic_prefix + group,
        "group.protocol": settings.group_protocol,
        **(classic if settings.group_protocol == "classic" else {}),
        "max.poll.interval.ms": settings.max_poll_interval_ms,
        "statistics.interval.ms": settings.statistics_interval_ms,
        "queued.max.messages.kbytes": 65_536,
        **kafka_config(settings),
    }


def _limits(settings: Settings, batch_max: int, batches_in_flight: int) -> Limits:
    return Limits(
        batch_max=batch_max,
        batch_wait_s=settings.batch_wait_ms / 1000,
        batches_in_flight=batches_in_flight,
        queue_max=settings.queue_max,
        waiting_bytes_max=settings.waiting_bytes_max,
        retries_waiting_max=settings.retries_waiting_max,
        stuck_after_s=settings.batch_stuck_after_s,
        stop_timeout_s=settings.stop_timeout_s,
    )


def _retry_rule(settings: Settings) -> RetryRule:
    return RetryRule(
        attempts=settings.retry_attempts,
        backoff_s=settings.retry_backoff_ms / 1000,
        backoff_max_s=settings.retry_backoff_max_ms / 1000,
        dead_letters_in_a_row_max=settings.dead_letters_in_a_row_max,
        outage_timeout_s=settings.outage_timeout_s,
    )


def run(main: Callable[[Settings], None]) -> int:
    """Run a consumer's `main`; the exit code: 0 when it was asked to stop, 2 for wrong settings, else 1."""
    try:
        main(Settings())
    except (ValidationError, SettingsError) as error:
        sys.stderr.write(f"wrong settings: {explain(error)}\nAll settings: docs/settings.md\n")
        return 2
    except (UnavailableError, MessageTooLargeError, EncoderError, NotMigratedError, metrics.ServeError) as error:
        logger.error("stopped, uncommitted: %s", error)
        return 1
    except Exception:
        logger.exception("stopped, uncommitted: this is a bug")
        return 1
    return 0


def keep_announcing(settings: Settings, ingest: Ingest, truth: PostgresOwnership, around: Process) -> None:
    """Announce what crashed processes left behind, and report how much is still to be announced."""

    def sweep() -> None:
        while ingest.sweep(settings.sweep_older_than_s, _SWEEP_LIMIT) and not around.stop.is_set():
            pass
        backlog = truth.backlog()
        metrics.set_marks(backlog.assets + backlog.profiles, backlog.oldest_s)

    around.background.every(settings.sweep_interval_s, "sweep", sweep, around.stop)


def followed_index(settings: Settings, around: Process) -> LiveIndex:
    """An index that follows `asset-embedded` in a thread of its own; returned once it is caught up."""
    name, dimension = model(settings), dimension_of(settings.encoder)
    metrics.set_model_info(name, dimension)
    topic = settings.topic_prefix + ASSET_EMBEDDED

    def apply(records: Sequence[Record]) -> None:
        follow(records, index, name, dimension)
        _report_sizes(index)

    follower = Follower(kafka_config(settings), topic, apply, settings.follow_batch_max)
    index = empty_index(settings)
    positions: dict[int, int] = {}
    if settings.snapshot_dir:
        snapshot = settings.snapshot_dir / f"{topic}.snapshot"
        source = f"{identify(kafka_config(settings), topic)}/{name}"
        index, positions = _restored(settings, follower, snapshot, source)
        _keep_snapshots(settings, index, follower, snapshot, source, around)
    around.background.start("index", lambda: follower.run(positions, around.stop, between=lambda: None))
    while not follower.caught_up.wait(0.1) and not around.stop.is_set():
        around.health.beat()
        around.health.set_unready("the index is not caught up with asset-embedded yet")
        around.background.check()
    return index


def empty_index(settings: Settings) -> LiveIndex:
    """An index that holds nothing yet."""
    return LiveIndex(dimension_of(settings.encoder), settings.index_segment_rows, settings.index_dead_share_max)


def _restored(settings: Settings, follower: Follower, snapshot: Path, source: str) -> tuple[LiveIndex, dict[int, int]]:
    """The index of the snapshot and the positions it covers, or an empty one, to be rebuilt from the topic."""
    index = empty_index(settings)
    try:
        header = index.restore(snapshot, source)
        age_hours = (time.time() - header.taken_at_s) / 3600
        if age_hours > settings.snapshot_age_max_hours:
            raise SnapshotError(f"{snapshot} is {age_hours:.0f} hours old: removals may be gone from the topic")
        if not follower.valid(header.positions):
            raise SnapshotError(f"{snapshot} ends where the topic does not go on")
    except (FileNotFoundError, SnapshotError) as error:
        logger.warning("the index is rebuilt from the topic: %s", error)
        return empty_index(settings), {}
    logger.info("restored %s from %s", index.sizes(), snapshot)
    metrics.set_snapshot(header.taken_at_s, snapshot.stat().st_size)
    _report_sizes(index)
    return index, dict(header.positions)


def _report_sizes(index: LiveIndex) -> None:
    for modality, size in index.sizes().items():
        metrics.set_index_size(modality, size)


def _keep_snapshots(
    settings: Settings, index: LiveIndex, follower: Follower, snapshot: Path, source: str, around: Process
) -> None:
    def take() -> None:
        taken_at_s = time.time()  # before the positions: what they cover is not older
        try:
            index.snapshot(snapshot, dict(follower.positions), source, taken_at_s)
        except SnapshotError as error:  # a full disk costs a slower start and nothing else
            logger.warning("no snapshot: %s", error)
        else:
            metrics.set_snapshot(taken_at_s, snapshot.stat().st_size)

    around.background.every(settings.snapshot_interval_s, "snapshot", take, around.stop)


def refresh(settings: Settings, truth: PostgresOwnership, index: LiveIndex, out: Publisher) -> Refresh:
    """The use case that turns changed profiles into recommendations."""
    space = JointSpace()
    return Refresh(
        truth,
        index,
        out,
        model(settings),
        lambda: area_rule(settings, index.catalogues(), space.of),
        ranking_rule(settings),
        settings.profile_assets_max,
        time.time_ns,
    )
