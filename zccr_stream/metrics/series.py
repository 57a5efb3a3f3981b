"""Every metric that is not a stage's, and the functions that feed them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence

from prometheus_client import Gauge

from zccr_stream.metrics.registry import counter, gauge, histogram

REBALANCES = ("assigned", "revoked", "lost")
DEAD_LETTER_STAGES = ("parse", "fetch", "decode", "encode")  # the contract's `zccr.errors.stage`

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_RECORDS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
_AREAS = (0, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500)

_event_to_recommendation = histogram(
    "zccr_event_to_recommendation_seconds",
    "From the arrival of the oldest event behind a refresh to its recommendations' delivery.",
    _SECONDS,
)

_consumed = counter("zccr_consumer_records_total", "Records consumed.", "topic")
_consumer_batch = histogram("zccr_consumer_batch_records", "Records in one consumed batch.", _RECORDS)
_lag = gauge(
    "zccr_consumer_lag_messages",
    "Messages between the position and the end of an assigned partition.",
    "topic",
    "partition",
)
_rebalances = counter("zccr_consumer_rebalances_total", "Changes of the assignment.", "kind")
_dead_letters = counter("zccr_dead_letters_total", "Records sent to the dead letters.", "topic", "stage")
_published = counter("zccr_published_messages_total", "Messages delivered to a topic.", "topic")

_database_retries = counter("zccr_database_retries_total", "Database transactions tried again.")
_marks = gauge("zccr_unannounced_marks", "Changes in Postgres that are still to be announced.")
_marks_oldest = gauge(
    "zccr_unannounced_oldest_timestamp_seconds", "When the oldest unannounced change was made; 0: none."
)

_index_vectors = gauge("zccr_index_vectors", "Vectors in the index.", "modality")
_index_behind = gauge("zccr_index_behind_messages", "Messages of asset-embedded not yet in the index.")
_snapshot_at = gauge("zccr_snapshot_timestamp_seconds", "When the newest snapshot was taken; 0: none.")
_snapshot_size = gauge("zccr_snapshot_size_bytes", "Size of the newest snapshot.")

_profile_areas = histogram("zccr_profile_areas", "Areas of interest of one profile.", _AREAS, "modality")
_lists = counter("zccr_lists_total", "Lists recommended, one per area and target modality.", "modality")
_short_lists = counter("zccr_short_lists_total", "Lists recommended with fewer than k assets.", "modality")

# Gauges of 1 and not of the library's type Info: that one shows a series before anything is known.
_build = gauge("zccr_build_info", "The running build; always 1.", "version")
_model = gauge("zccr_model_info", "The space that vectors are in; always 1.", "model", "dimension")
_encoder = gauge("zccr_encoder_info", "Where the encoder runs; always 1.", "device", "precision")

for _kind in REBALANCES:
    _rebalances.labels(_kind)


def expect(topics: Iterable[str] = (), modalities: Iterable[str] = ()) -> None:
    """Start the series of these consumed topics and modalities at 0: a first failure then shows as a rise."""
    for topic in topics:
        _consumed.labels(topic)
        for name in DEAD_LETTER_STAGES:
            _dead_letters.labels(topic, name)
    for modality in modalities:
        for family in (_profile_areas, _lists, _short_lists):
            family.labels(modality)


_AGE_MAX_S = 3600.0


def observe_event_to_recommendation(seconds: Sequence[float]) -> None:
    """One age per refreshed user, between 0 and an hour: a record with a wrong time must not spoil every mean."""
    observe = _event_to_recommendation.observe
    for age_s in seconds:
        if math.isfinite(age_s):
            observe(min(max(0.0, age_s), _AGE_MAX_S))


def consumed(topic: str, records: int) -> None:
    """Count records consumed."""
    _consumed.labels(topic).inc(records)


def observe_batch(records: int) -> None:
    """One consumed batch."""
    _consumer_batch.observe(records)


def published(topic: str, messages: int) -> None:
    """Count messages whose delivery was confirmed."""
    _published.labels(topic).inc(messages)


def set_lag(topic: str, partition: int, messages: int) -> None:
    """How far the position is behind the end of an assigned partition."""
    _lag.labels(topic, str(partition)).set(messages)


def clear_lag(topic: str, partition: int) -> None:
    """Forget a partition that was revoked or lost: whoever holds it now reports it."""
    with contextlib.suppress(KeyError):
        _lag.remove(topic, str(partition))


def rebalanced(kind: str) -> None:
    """Count a change of the assignment; `kind` is one of `REBALANCES`."""
    if kind not in REBALANCES:
        raise ValueError(f"no rebalance {kind!r}; they are {', '.join(REBALANCES)}")
    _rebalances.labels(kind).inc()


def dead_lettered(topic: str, stage: str, records: int = 1) -> None:
    """Count records sent to the dead letters of `topic`; `stage` is one of `DEAD_LETTER_STAGES`."""
    if stage not in DEAD_LETTER_STAGES:
        raise ValueError(f"no stage {stage!r} of dead letters; they are {', '.join(DEAD_LETTER_STAGES)}")
    _dead_letters.labels(topic, stage).inc(records)


def database_retried() -> None:
    """Count a transaction that is tried again."""
    _database_retries.inc()


def set_marks(pending: int, oldest_s: float | None) -> None:
    """Changes still to be announced, and when the oldest was made (seconds since 1970; None: none)."""
    _marks.set(pending)
    _marks_oldest.set(oldest_s or 0.0)


def set_index_size(modality: str, vectors: int) -> None:
    """Vectors in one modality's index."""
    _index_vectors.labels(modality).set(vectors)


def set_index_behind(messages: int) -> None:
    """Messages of `asset-embedded` that are not in the index yet."""
    _index_behind.set(messages)


def set_snapshot(taken_s: float, size_bytes: int) -> None:
    """The newest snapshot: when it was taken (seconds since 1970) and its size."""
    _snapshot_at.set(taken_s)
    _snapshot_size.set(size_bytes)


def observe_areas(modality: str, areas: Iterable[int]) -> None:
    """How many areas of a modality each profile has."""
    observe = _profile_areas.labels(modality).observe
    for count in areas:
        observe(count)


def count_lists(modality: str, lists: int, short: int) -> None:
    """Count lists recommended of a target modality, and those of them with fewer than k assets."""
    _lists.labels(modality).inc(lists)
    _short_lists.labels(modality).inc(short)


def set_build_info(version: str) -> None:
    """The running version of this project."""
    _inform(_build, version)


def set_model_info(model: str, dimension: int) -> None:
    """The space that vectors are in."""
    _inform(_model, model, str(dimension))


def set_encoder_info(device: str, precision: str) -> None:
    """Where the encoder runs, and in which precision."""
    _inform(_encoder, device, precision)


def _inform(info: Gauge, *values: str) -> None:
    info.clear()
    info.labels(*values).set(1)
