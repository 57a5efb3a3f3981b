"""Every metric once: name, labels, help. And /metrics, /livez, /readyz on one port.

In come counts, seconds and sizes from every other module; out goes the Prometheus exposition. `stage` is the
one timing seam of each step. Knows nothing of events, users or assets: no label is unbounded, since topics,
partitions, modalities and models come from configuration. One process is one consumer: no multi-process mode.
"""

from __future__ import annotations

import contextlib
import math
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    MetricsHandler,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

STAGES = (
    "parse",  # records to events
    "fetch",  # fetch and decode content
    "encode",  # content to vectors
    "own",  # write to Postgres
    "announce",  # publish what changed
    "profile",  # read profiles from Postgres
    "areas",  # profiles to areas of interest
    "search",  # seeds to neighbours
    "rank",  # neighbours to rankings and a feed
    "publish",  # publish recommendations
    "apply",  # embeddings into the index
)
REASONS = (
    "bad_input",  # can never succeed
    "try_later",  # may succeed later
    "dead_letter",  # could have succeeded, but the attempts ran out
    "error",  # our own fault
    "stopped",  # the process was asked to stop meanwhile
)
REBALANCES = ("assigned", "revoked", "lost")
DEAD_LETTER_STAGES = ("parse", "fetch", "decode", "encode")  # the contract's `zccr.errors.stage`

# The stage an error names may be finer than the seam it happened in.
_SEAMS = {**{name: name for name in STAGES}, "decode": "fetch"}
# The events stand above this module, so their errors are known here by name only.
_REASONS_BY_ERROR = {"BadInputError": "bad_input", "TryLaterError": "try_later"}

_SHORT_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_LONG_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_ITEMS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096)
_AREAS = (0, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500)

# A start time per series would double their number and no panel needs it.
disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry(auto_describe=True)
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)


def _counter(name: str, help_text: str, *labels: str) -> Counter:
    return Counter(name, help_text, labels, registry=REGISTRY)


def _gauge(name: str, help_text: str, *labels: str) -> Gauge:
    return Gauge(name, help_text, labels, registry=REGISTRY)


def _histogram(name: str, help_text: str, buckets: Sequence[float], *labels: str) -> Histogram:
    return Histogram(name, help_text, labels, buckets=buckets, registry=REGISTRY)


_event_to_recommendation = _histogram(
    "zccr_event_to_recommendation_seconds",
    "From the arrival of the oldest event behind a refresh to its recommendations' delivery.",
    _LONG_S,
)

_stage_in = _counter("zccr_stage_items_in_total", "Items that entered a stage.", "stage")
_stage_out = _counter("zccr_stage_items_out_total", "Items that left a stage well.", "stage")
_stage_failures = _counter("zccr_stage_failures_total", "Items that failed in a stage.", "stage", "reason")
_stage_progress = _gauge("zccr_stage_items_in_progress", "Items inside a stage now.", "stage")
_stage_last = _gauge("zccr_stage_last_processed_timestamp_seconds", "When a stage last ended well; 0 before.", "stage")
_stage_duration = _histogram("zccr_stage_duration_seconds", "Time that one batch spent in a stage.", _SHORT_S, "stage")
_stage_batch = _histogram("zccr_stage_batch_items", "Items in one batch of a stage.", _ITEMS, "stage")

_consumed = _counter("zccr_consumer_records_total", "Records consumed.", "topic")
_consumer_batch = _histogram("zccr_consumer_batch_records", "Records in one consumed batch.", _ITEMS)
_lag = _gauge(
    "zccr_consumer_lag_messages",
    "Messages between the position and the end of an assigned partition.",
    "topic",
    "partition",
)
_rebalances = _counter("zccr_consumer_rebalances_total", "Changes of the assignment.", "kind")
_retries = _counter("zccr_retries_total", "Items tried again after a failure that may pass.", "stage")
_dead_letters = _counter("zccr_dead_letters_total", "Records sent to the dead letters.", "topic", "stage")
_published = _counter("zccr_published_messages_total", "Messages delivered to a topic.", "topic")

_database_retries = _counter("zccr_database_retries_total", "Database transactions tried again.")
_marks = _gauge("zccr_unannounced_marks", "Changes in Postgres that are still to be announced.")
_marks_oldest = _gauge(
    "zccr_unannounced_oldest_timestamp_seconds", "When the oldest unannounced change was made; 0: none."
)

_index_vectors = _gauge("zccr_index_vectors", "Vectors in the index.", "modality")
_index_behind = _gauge("zccr_index_behind_messages", "Messages of asset-embedded not yet in the index.")
_snapshot_at = _gauge("zccr_snapshot_timestamp_seconds", "When the newest snapshot was taken; 0: none.")
_snapshot_size = _gauge("zccr_snapshot_size_bytes", "Size of the newest snapshot.")

_profile_areas = _histogram("zccr_profile_areas", "Areas of interest of one profile.", _AREAS, "modality")
_lists = _counter("zccr_lists_total", "Lists recommended, one per area and target modality.", "modality")
_short_lists = _counter("zccr_short_lists_total", "Lists recommended with fewer than k assets.", "modality")

_ready = _gauge("zccr_ready", "1 when the consumer is ready, else 0.")
_heartbeat = _gauge("zccr_heartbeat_timestamp_seconds", "When the poll loop last went round; 0 before.")
# Gauges of 1 and not of the library's type Info: that one shows a series before anything is known.
_build = _gauge("zccr_build_info", "The running build; always 1.", "version")
_model = _gauge("zccr_model_info", "The space that vectors are in; always 1.", "model", "dimension")
_encoder = _gauge("zccr_encoder_info", "Where the encoder runs; always 1.", "device", "precision")

for _stage in STAGES:
    for _family in (
        _stage_in,
        _stage_out,
        _stage_progress,
        _stage_last,
        _stage_duration,
        _stage_batch,
        _retries,
    ):
        _family.labels(_stage)
    for _reason in REASONS:
        _stage_failures.labels(_stage, _reason)
for _kind in REBALANCES:
    _rebalances.labels(_kind)


def expect(topics: Iterable[str] = (), modalities: Iterable[str] = ()) -> None:
    """Start the series of these consumed topics and modalities at 0: a first failure then shows as a rise."""
    for topic in topics:
        _consumed.labels(topic)
        for name in DEAD_LETTER_STAGES:
            _dead_letters.labels(topic, name)
    for modality in modalities:
        for family in (_index_vectors, _profile_areas, _lists, _short_lists):
            family.labels(modality)


_inside = threading.local()  # the stages that this thread is in, innermost last


class _Stage:
    """A batch inside a stage, and what was reported of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.failures = 0


def _stack() -> list[_Stage]:
    if not hasattr(_inside, "stack"):
        _inside.stack = []
    return _inside.stack  # type: ignore[no-any-return]


@contextlib.contextmanager
def stage(name: str, items: int) -> Iterator[None]:
    """Time one step for a batch of `items`.

    What enters leaves well or fails. Items reported with `failed` inside the block, in the same thread,
    failed; the rest of them left well when the block ends, and failed too when it raises.

    Args:
        name: one of `STAGES`.
        items: how many enter.
    """
    if name not in STAGES:
        raise ValueError(f"no stage {name!r}; the stages are {', '.join(STAGES)}")
    batch = _Stage(name)
    _stage_in.labels(name).inc(items)
    _stage_progress.labels(name).inc(items)
    _stack().append(batch)
    started_s = time.perf_counter()
    try:
        yield
    except BaseException as error:
        left = items - batch.failures
        if left > 0:
            failed(name, _reason_of(error), left)
        raise
    else:
        _stage_out.labels(name).inc(max(0, items - batch.failures))
        _stage_last.labels(name).set_to_current_time()
    finally:
        if items:  # batches of nothing would make every quantile look good
            _stage_batch.labels(name).observe(items)
            _stage_duration.labels(name).observe(time.perf_counter() - started_s)
        _stage_progress.labels(name).dec(items)
        _stack().remove(batch)


def _reason_of(error: BaseException) -> str:
    if not isinstance(error, Exception):
        return "stopped"
    for cls in type(error).__mro__:
        if cls.__name__ in _REASONS_BY_ERROR:
            return _REASONS_BY_ERROR[cls.__name__]
    return "error"


def failed(stage: str, reason: str, items: int = 1) -> None:
    """Count items that failed in a stage (one of `STAGES`, or `decode`) for one of `REASONS`."""
    if stage not in _SEAMS or reason not in REASONS:
        raise ValueError(f"no stage {stage!r} or no reason {reason!r}; the reasons are {', '.join(REASONS)}")
    seam = _SEAMS[stage]
    _stage_failures.labels(seam, reason).inc(items)
    for batch in reversed(_stack()):
        if batch.name == seam:
            batch.failures += items
            return


def observe_event_to_recommendation(seconds: Sequence[float]) -> None:
    """One age per refreshed user; clocks that disagree count as 0."""
    observe = _event_to_recommendation.observe
    for age_s in seconds:
        if math.isfinite(age_s):
            observe(max(0.0, age_s))


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


def retried(stage: str, items: int = 1) -> None:
    """Count items that are tried again."""
    if stage not in _SEAMS:
        raise ValueError(f"no stage {stage!r}; the stages are {', '.join(STAGES)}")
    _retries.labels(_SEAMS[stage]).inc(items)


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


class ServeError(Exception):
    """The port of the metrics cannot be served; the message says why and what to do."""


class Health:
    """What the probes answer.

    Alive: the poll loop went round within `heartbeat_max_age_s`; before its first round the process starts
    and is alive. Ready: `set_ready` was called, and `set_unready` not since.
    """

    def __init__(self, heartbeat_max_age_s: float, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._heartbeat_max_age_s = heartbeat_max_age_s
        self._monotonic = monotonic
        self._beat_s: float | None = None
        self._unready: str | None = "starting"
        _ready.set(0)

    def beat(self) -> None:
        """The poll loop went round."""
        self._beat_s = self._monotonic()
        _heartbeat.set_to_current_time()

    def set_ready(self) -> None:
        """From now on there is nothing that work has to wait for."""
        self._unready = None
        _ready.set(1)

    def set_unready(self, reason: str) -> None:
        """Not ready, and why; the text is what /readyz answers."""
        self._unready = reason
        _ready.set(0)

    def livez(self) -> tuple[int, str]:
        """HTTP status and text of /livez."""
        if self._beat_s is None:
            return 200, "starting"
        age_s = self._monotonic() - self._beat_s
        if age_s > self._heartbeat_max_age_s:
            return 503, f"no heartbeat for {age_s:.1f} s, at most {self._heartbeat_max_age_s:g} s are allowed"
        return 200, "ok"

    def readyz(self) -> tuple[int, str]:
        """HTTP status and text of /readyz."""
        unready = self._unready
        return (200, "ok") if unready is None else (503, unready)


_REQUEST_MAX_S = 10.0
_CONNECTIONS_MAX = 16  # a scraper and two probes need three


class Server(socketserver.ThreadingTCPServer):
    """/metrics, /livez and /readyz, in threads of its own until `close`."""

    daemon_threads = True
    allow_reuse_address = True  # a restart need not wait for old connections
    allow_reuse_port = False  # two consumers on one port would answer each other's probes

    def __init__(self, address: str, port: int, health: Health) -> None:
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._started_s: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__((address, port), _handler(health))
        self._thread = threading.Thread(target=self.serve_forever, name="metrics", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that is served, also where 0 was asked for."""
        return int(self.server_address[1])

    def close(self) -> None:
        """Stop serving and free the port."""
        self.shutdown()
        self._thread.join()
        self.server_close()

    def verify_request(self, request: object, client_address: object) -> bool:
        """Refuse a connection beyond the most that may be open."""
        assert isinstance(request, socket.socket)
        with self._lock:
            if len(self._started_s) >= _CONNECTIONS_MAX:
                return False
            self._started_s[request] = time.monotonic()
            return True

    def service_actions(self) -> None:
        """Cut connections that took too long, however busily they trickle."""
        with self._lock:
            for request, started_s in self._started_s.items():
                if time.monotonic() - started_s > _REQUEST_MAX_S:
                    with contextlib.suppress(OSError):
                        request.shutdown(socket.SHUT_RDWR)

    def shutdown_request(self, request: object) -> None:
        """Forget a connection and close it."""
        assert isinstance(request, socket.socket)
        with self._lock:
            self._started_s.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that went away or sent nonsense is no event of ours."""


def _handler(health: Health) -> type[MetricsHandler]:
    class Handler(MetricsHandler):
        registry = REGISTRY
        timeout = _REQUEST_MAX_S  # of one read or write

        def do_GET(self) -> None:  # noqa: N802 - http.server's name
            path = self.path.partition("?")[0]
            if path == "/metrics":
                super().do_GET()
            elif path == "/livez":
                self._answer(*health.livez())
            elif path == "/readyz":
                self._answer(*health.readyz())
            else:
                self._answer(404, "there are /metrics, /livez and /readyz")

        def _answer(self, status: int, text: str) -> None:
            body = f"{text}\n".encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler


def serve(port: int, health: Health, address: str) -> Server:
    """Serve /metrics, /livez and /readyz.

    Args:
        port: 0 takes a free one, see `Server.port`.
        health: what the probes answer.
        address: the local address to listen on; `0.0.0.0` is every one.

    Raises:
        ServeError: the port is taken or may not be had.
    """
    try:
        return Server(address, port, health)
    except OSError as error:
        raise ServeError(
            f"cannot serve metrics on {address}:{port}: {error.strerror or error}; "
            f"free the port or set ZCCR_METRICS_PORT to another one (0: any that is free)"
        ) from error
