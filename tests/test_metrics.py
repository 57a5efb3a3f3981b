"""Every metric once, the timing seam, and the probes over HTTP on loopback."""

import http.client
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from zccr_stream import metrics
from zccr_stream.events import BadEventError, BadInputError, TryLaterError
from zccr_stream.metrics import probes

# Labels whose values come from configuration or from a fixed set, so that their number is bounded.
BOUNDED = {"stage", "reason", "topic", "partition", "kind", "modality", "version", "model", "dimension", "device"}
BOUNDED |= {"precision", "le"}
UNITS = {"seconds", "bytes", "items", "records", "messages", "vectors", "marks", "areas", "ready", "progress", "info"}


def value(name: str, **labels: str) -> float | None:
    return metrics.REGISTRY.get_sample_value(name, labels)


def count(name: str, **labels: str) -> float:
    found = value(name, **labels)
    assert found is not None, f"no series {name} {labels}"
    return found


def failures(stage: str) -> float:
    return sum(count("zccr_stage_failures_total", stage=stage, reason=reason) for reason in metrics.REASONS)


def assert_rises(read: Callable[[], float], by: float, act: Callable[[], object]) -> None:
    before = read()
    act()
    assert read() - before == pytest.approx(by)


# The timing seam


@given(
    items=st.integers(0, 50),
    reported=st.lists(st.integers(1, 5), max_size=5),
    raises=st.booleans(),
)
def test_what_enters_a_stage_leaves_it_well_or_fails(items: int, reported: list[int], raises: bool) -> None:
    """In = out + failed, whatever is reported and however the block ends."""
    reported = [failed for row, failed in enumerate(reported) if sum(reported[: row + 1]) <= items]
    entered = count("zccr_stage_items_in_total", stage="own")
    left, failed_before = count("zccr_stage_items_out_total", stage="own"), failures("own")

    def act() -> None:
        with metrics.stage("own", items):
            for failed in reported:
                metrics.failed("own", "try_later", failed)
            if raises:
                raise RuntimeError

    if raises:
        with pytest.raises(RuntimeError):
            act()
    else:
        act()

    out = count("zccr_stage_items_out_total", stage="own") - left
    assert count("zccr_stage_items_in_total", stage="own") - entered == items
    assert out == (0 if raises else items - sum(reported))
    assert failures("own") - failed_before == items - out


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (BadInputError("fetch", "no such image"), "bad_input"),
        (BadEventError("no asset_id"), "bad_input"),
        (TryLaterError("fetch", "the store is down"), "try_later"),
        (ZeroDivisionError(), "error"),
        (KeyboardInterrupt(), "stopped"),
    ],
)
def test_an_error_that_ends_a_stage_is_counted_by_its_reason_and_goes_on_unchanged(
    error: BaseException, reason: str
) -> None:
    def act() -> None:
        with pytest.raises(type(error)) as caught, metrics.stage("fetch", 3):
            raise error
        assert caught.value is error

    assert_rises(lambda: count("zccr_stage_failures_total", stage="fetch", reason=reason), 3, act)


def test_each_batch_is_timed_sized_and_stamped() -> None:
    before_s = count("zccr_stage_last_processed_timestamp_seconds", stage="rank")
    durations = count("zccr_stage_duration_seconds_count", stage="rank")
    sizes = count("zccr_stage_batch_items_sum", stage="rank")

    with metrics.stage("rank", 7):
        assert count("zccr_stage_items_in_progress", stage="rank") == 7

    assert count("zccr_stage_items_in_progress", stage="rank") == 0
    assert count("zccr_stage_duration_seconds_count", stage="rank") == durations + 1
    assert count("zccr_stage_batch_items_sum", stage="rank") == sizes + 7
    assert count("zccr_stage_last_processed_timestamp_seconds", stage="rank") > before_s


def test_a_stage_that_raises_keeps_its_time_stamp_and_leaves_nothing_in_progress() -> None:
    before_s = count("zccr_stage_last_processed_timestamp_seconds", stage="areas")

    with pytest.raises(RuntimeError), metrics.stage("areas", 2):
        raise RuntimeError

    assert count("zccr_stage_last_processed_timestamp_seconds", stage="areas") == before_s
    assert count("zccr_stage_items_in_progress", stage="areas") == 0


def test_failures_belong_to_the_batch_of_their_own_thread_and_stage() -> None:
    """A failure in one thread, or of an outer stage, takes nothing from another batch."""
    inside = threading.Barrier(2)

    def other() -> None:
        with metrics.stage("encode", 5):
            inside.wait(10)
            inside.wait(10)

    thread = threading.Thread(target=other)
    with metrics.stage("encode", 4):
        thread.start()
        inside.wait(10)
        metrics.failed("encode", "bad_input", 4)
    encoded = count("zccr_stage_items_out_total", stage="encode")
    inside.wait(10)
    thread.join(10)
    assert count("zccr_stage_items_out_total", stage="encode") - encoded == 5

    fetched, parsed = (count("zccr_stage_items_out_total", stage=stage) for stage in ("fetch", "parse"))
    with metrics.stage("fetch", 4), metrics.stage("parse", 3):
        metrics.failed("decode", "bad_input", 2)
    assert count("zccr_stage_items_out_total", stage="fetch") - fetched == 2
    assert count("zccr_stage_items_out_total", stage="parse") - parsed == 3


def test_a_batch_of_nothing_is_neither_timed_nor_sized() -> None:
    before = (
        count("zccr_stage_duration_seconds_count", stage="fetch"),
        count("zccr_stage_batch_items_count", stage="fetch"),
    )

    with metrics.stage("fetch", 0):
        pass

    after = (
        count("zccr_stage_duration_seconds_count", stage="fetch"),
        count("zccr_stage_batch_items_count", stage="fetch"),
    )
    assert after == before


@pytest.mark.parametrize(
    "act",
    [
        lambda: metrics.stage("frobnicate", 1).__enter__(),
        lambda: metrics.failed("frobnicate", "error"),
        lambda: metrics.failed("parse", "because"),
        lambda: metrics.retried("frobnicate"),
        lambda: metrics.dead_lettered("t", "rank"),
        lambda: metrics.rebalanced("often"),
    ],
)
def test_a_label_outside_its_fixed_set_is_refused(act: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match="are "):
        act()


# The rest of the metrics


def test_ages_are_counted_one_by_one_and_clocks_that_disagree_as_zero() -> None:
    ages = [0.2, -3.0, float("nan"), float("inf"), 1.0]
    total = count("zccr_event_to_recommendation_seconds_sum")

    def act() -> None:
        metrics.observe_event_to_recommendation(ages)

    assert_rises(lambda: count("zccr_event_to_recommendation_seconds_count"), 3, act)
    assert count("zccr_event_to_recommendation_seconds_sum") - total == pytest.approx(1.2)


def test_the_lag_of_a_partition_is_gone_once_it_is_revoked() -> None:
    metrics.set_lag("asset-uploaded", 3, 17)
    assert count("zccr_consumer_lag_messages", topic="asset-uploaded", partition="3") == 17

    metrics.clear_lag("asset-uploaded", 3)
    metrics.clear_lag("asset-uploaded", 3)

    assert value("zccr_consumer_lag_messages", topic="asset-uploaded", partition="3") is None


def test_counts_and_sizes_show_as_given() -> None:
    def read(name: str, **labels: str) -> Callable[[], float]:
        return lambda: count(name, **labels)

    metrics.expect(["t"], ["image"])
    assert_rises(read("zccr_consumer_records_total", topic="t"), 4, lambda: metrics.consumed("t", 4))
    assert_rises(read("zccr_consumer_batch_records_sum"), 4, lambda: metrics.observe_batch(4))
    metrics.published("t", 0)
    assert_rises(read("zccr_published_messages_total", topic="t"), 2, lambda: metrics.published("t", 2))
    assert_rises(
        read("zccr_dead_letters_total", topic="t", stage="decode"), 1, lambda: metrics.dead_lettered("t", "decode")
    )
    assert_rises(read("zccr_retries_total", stage="fetch"), 2, lambda: metrics.retried("decode", 2))
    assert_rises(read("zccr_consumer_rebalances_total", kind="lost"), 1, lambda: metrics.rebalanced("lost"))
    assert_rises(read("zccr_database_retries_total"), 1, metrics.database_retried)
    assert_rises(read("zccr_profile_areas_count", modality="image"), 2, lambda: metrics.observe_areas("image", [1, 5]))
    assert_rises(read("zccr_lists_total", modality="image"), 9, lambda: metrics.count_lists("image", 9, 2))
    assert_rises(read("zccr_short_lists_total", modality="image"), 2, lambda: metrics.count_lists("image", 9, 2))

    metrics.set_index_size("image", 12)
    metrics.set_index_behind(5)
    metrics.set_snapshot(1e9, 4096)
    assert count("zccr_index_vectors", modality="image") == 12
    assert count("zccr_index_behind_messages") == 5
    assert count("zccr_snapshot_timestamp_seconds") == 1e9
    assert count("zccr_snapshot_size_bytes") == 4096


def test_the_oldest_mark_reads_zero_where_there_is_none() -> None:
    metrics.set_marks(2, 1e9)
    assert (count("zccr_unannounced_marks"), count("zccr_unannounced_oldest_timestamp_seconds")) == (2, 1e9)

    metrics.set_marks(0, None)

    assert (count("zccr_unannounced_marks"), count("zccr_unannounced_oldest_timestamp_seconds")) == (0, 0)


def test_what_is_running_shows_once_however_often_it_is_said() -> None:
    for model in ("mini", "ViT-B-32/laion2b_s34b_b79k"):
        metrics.set_model_info(model, 512)
    metrics.set_build_info("0.1.0")
    metrics.set_encoder_info("cuda:0", "float16")

    shown = [family for family in metrics.REGISTRY.collect() if family.name == "zccr_model_info"]
    assert [sample.labels["model"] for sample in shown[0].samples] == ["ViT-B-32/laion2b_s34b_b79k"]
    assert count("zccr_build_info", version="0.1.0") == 1
    assert count("zccr_encoder_info", device="cuda:0", precision="float16") == 1


def test_series_that_can_be_known_start_at_zero() -> None:
    """So that the first failure shows as a rise, which `rate` of a series that just appeared would miss."""
    metrics.expect(["fresh-topic"], ["audio"])

    for stage in metrics.STAGES:
        for reason in metrics.REASONS:
            assert value("zccr_stage_failures_total", stage=stage, reason=reason) is not None
        assert value("zccr_stage_duration_seconds_count", stage=stage) is not None
    for stage in metrics.DEAD_LETTER_STAGES:
        assert value("zccr_dead_letters_total", topic="fresh-topic", stage=stage) == 0
    assert value("zccr_consumer_records_total", topic="fresh-topic") == 0
    assert value("zccr_index_vectors", modality="audio") is None, "a process without an index shows none"
    assert value("zccr_short_lists_total", modality="audio") == 0


def ours() -> list[Any]:
    return [family for family in metrics.REGISTRY.collect() if not family.name.startswith(("process_", "python_"))]


@pytest.mark.parametrize("family", ours(), ids=lambda family: str(family.name))
def test_names_follow_the_rules_of_prometheus(family: Any) -> None:
    """One prefix, base units, units last, a help text, and labels of which there are few."""
    full_name = f"{family.name}_total" if family.type == "counter" else family.name
    labels = {label for sample in family.samples for label in sample.labels}

    assert re.fullmatch(r"zccr(_[a-z]+)+", full_name)
    assert not re.search(r"_(ms|millis|milliseconds|minutes|hours|kb|mb|percent|count|sum|bucket)(_|$)", full_name)
    assert family.name.rpartition("_")[2] not in {"total", "created"}
    assert family.type == "counter" or family.name.rpartition("_")[2] in UNITS
    assert family.documentation.endswith(".")
    assert labels <= BOUNDED


def test_promtool_finds_nothing_to_say() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    metrics.set_lag("t", 0, 1)

    server = metrics.serve(0, metrics.Health(1), "127.0.0.1")
    _, text, _ = get(server.port, "/metrics")
    server.close()
    checked = subprocess.run([promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False)

    assert (checked.returncode, checked.stdout + checked.stderr) == (0, "")


# The probes


class Clock:
    """A clock that stands until it is moved."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_alive_is_who_beat_lately() -> None:
    clock = Clock()
    health = metrics.Health(5, clock)
    clock.now_s += 1000
    assert health.livez() == (200, "starting")

    health.beat()
    clock.now_s += 5
    assert health.livez() == (200, "ok")

    clock.now_s += 0.5
    assert health.livez() == (503, "no heartbeat for 5.5 s, at most 5 s are allowed")

    health.beat()
    assert health.livez() == (200, "ok")


def test_ready_is_who_said_so_and_did_not_take_it_back() -> None:
    health = metrics.Health(5)
    assert health.readyz() == (503, "starting")
    assert count("zccr_ready") == 0

    health.set_ready()
    assert health.readyz() == (200, "ok")
    assert count("zccr_ready") == 1

    health.set_unready("the index is 12 messages behind")
    assert health.readyz() == (503, "the index is 12 messages behind")
    assert count("zccr_ready") == 0


# The server


@pytest.fixture(name="health")
def _health() -> metrics.Health:
    return metrics.Health(5)


@pytest.fixture(name="server")
def _server(health: metrics.Health) -> Iterator[metrics.Server]:
    server = metrics.serve(0, health, "127.0.0.1")
    yield server
    server.close()


def parse_openmetrics(text: str) -> list[Any]:
    return list(openmetrics.text_string_to_metric_families(text))  # type: ignore[no-untyped-call]


def get(port: int, path: str, method: str = "GET", **headers: str) -> tuple[int, str, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text, response.headers


def test_one_port_answers_metrics_and_both_probes(server: metrics.Server, health: metrics.Health) -> None:
    health.set_unready("loading the encoder")
    assert get(server.port, "/livez")[:2] == (200, "starting\n")
    assert get(server.port, "/readyz?verbose")[:2] == (503, "loading the encoder\n")
    assert get(server.port, "/")[0] == 404
    assert get(server.port, "/metrics/../etc/passwd")[0] == 404
    assert get(server.port, "/metrics", "POST")[0] == 501

    status, text, headers = get(server.port, "/metrics")

    assert status == 200
    assert headers["Content-Type"].startswith("text/plain; version=")
    names = {family.name for family in parse_text(text)}
    assert {"zccr_stage_duration_seconds", "process_cpu_seconds", "python_info"} <= names


def test_a_scraper_that_prefers_openmetrics_gets_it(server: metrics.Server) -> None:
    _, text, headers = get(server.port, "/metrics", Accept="application/openmetrics-text; version=1.0.0")

    assert headers["Content-Type"].startswith("application/openmetrics-text")
    shown = {family.name for family in parse_openmetrics(text)}
    assert shown == {family.name for family in metrics.REGISTRY.collect()}


def test_a_port_that_is_taken_is_named_with_what_to_do(server: metrics.Server) -> None:
    with pytest.raises(metrics.ServeError, match=rf"127\.0\.0\.1:{server.port}: .* ZCCR_METRICS_PORT") as caught:
        metrics.serve(server.port, metrics.Health(5), "127.0.0.1")

    assert isinstance(caught.value.__cause__, OSError)


def test_close_frees_the_port() -> None:
    first = metrics.serve(0, metrics.Health(5), "127.0.0.1")
    get(first.port, "/livez")
    first.close()

    second = metrics.serve(first.port, metrics.Health(5), "127.0.0.1")

    assert get(second.port, "/livez")[0] == 200
    second.close()


def test_clients_that_trickle_are_cut_and_others_are_served_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many slow clients as may be open shut others out only until their time is up."""
    monkeypatch.setattr(probes, "_REQUEST_MAX_S", 1.0)
    monkeypatch.setattr(probes, "_CONNECTIONS_MAX", 2)
    server = metrics.serve(0, metrics.Health(5), "127.0.0.1")
    stop = threading.Event()

    def trickle() -> None:
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as slow:
            slow.sendall(b"GET /livez HTTP/1.0\r\n")
            for number in range(200):
                try:
                    slow.sendall(b"X-%d: y\r\n" % number)
                except OSError:
                    return
                if stop.wait(0.1):
                    return
            pytest.fail("a slow client was never cut")

    clients = [threading.Thread(target=trickle) for _ in range(2)]
    for client in clients:
        client.start()
    for client in clients:
        client.join(10)
        assert not client.is_alive()

    assert get(server.port, "/livez")[0] == 200
    stop.set()
    server.close()


def test_a_connection_beyond_the_bound_is_refused_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_CONNECTIONS_MAX", 1)
    server = metrics.serve(0, metrics.Health(5), "127.0.0.1")

    with socket.create_connection(("127.0.0.1", server.port)) as first:
        first.sendall(b"GET /livez")
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            get(server.port, "/livez")

    server.close()
