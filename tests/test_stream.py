"""The door to Kafka, against a real broker."""

import ctypes
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from tests.waiting import wait_until
from zccr_stream import events, metrics
from zccr_stream.embedded import Embedded
from zccr_stream.events import ASSET_UPLOADED, BadInputError, Record, TryLaterError
from zccr_stream.parts import MessageTooLargeError, Outcome, UnavailableError
from zccr_stream.stream.consumer import BatchConsumer, Limits
from zccr_stream.stream.follower import Follower
from zccr_stream.stream.progress import Entry, Partition
from zccr_stream.stream.publisher import Publisher
from zccr_stream.stream.records import record_of
from zccr_stream.stream.topics import TopicRule, ensure_topics, identify
from zccr_stream.stream.workers import RetryRule, TooManyDeadLettersError

DEADLINE_S = 60  # a broker that has just started on a busy machine takes half of it to load its coordinators
PARTITIONS = 3
LIMITS = Limits(
    batch_max=8,
    batch_wait_s=0.01,
    batches_in_flight=2,
    queue_max=32,
    waiting_bytes_max=1_000_000,
    retries_waiting_max=100,
    stuck_after_s=60,
    stop_timeout_s=10,
)
RETRIES = RetryRule(attempts=3, backoff_s=0.05, backoff_max_s=0.2, dead_letters_in_a_row_max=50, outage_timeout_s=20)


class Kafka:
    """A topic of the test's own, and what a test does with it."""

    def __init__(self, bootstrap_servers: str, prefix: str) -> None:
        self.config: dict[str, Any] = {"bootstrap.servers": bootstrap_servers}
        self.prefix = prefix
        self.topic = prefix + ASSET_UPLOADED
        self.group = prefix + "group"
        self.admin = AdminClient(self.config)
        self.make(self.topic, PARTITIONS)
        self.make(self.topic + ".dlq", 1)

    def make(self, topic: str, partitions: int, **config: str) -> None:
        self.admin.create_topics([NewTopic(topic, partitions, 1, config=config)])[topic].result(DEADLINE_S)

    def produce(self, values: Sequence[str], topic: str | None = None, **details: Any) -> None:
        producer = Producer(self.config)
        for value in values:
            producer.produce(topic or self.topic, key=value, value=value, **details)
        assert producer.flush(DEADLINE_S) == 0
        producer.close()

    def read(self, topic: str, count: int) -> list[Message]:
        consumer = Consumer({**self.config, "group.id": f"{topic}-reader"})
        wait_until(lambda: topic in consumer.list_topics(timeout=DEADLINE_S).topics, DEADLINE_S, f"{topic} is there")
        partitions = consumer.list_topics(timeout=DEADLINE_S).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
        read: list[Message] = []
        deadline_s = time.monotonic() + DEADLINE_S
        while len(read) < count and time.monotonic() < deadline_s:
            read += [message for message in consumer.consume(count, timeout=0.2) if not message.error()]
        consumer.close()
        return read

    def end(self, topic: str) -> int:
        """How many records a topic of one partition has."""
        consumer = Consumer({**self.config, "group.id": self.group})
        _first, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=DEADLINE_S)
        consumer.close()
        return int(end)

    def uncommitted(self) -> int:
        """Records of the topic that the group has not committed."""
        consumer = Consumer({**self.config, "group.id": self.group})
        committed = consumer.committed([TopicPartition(self.topic, n) for n in range(PARTITIONS)], timeout=DEADLINE_S)
        left = sum(
            consumer.get_watermark_offsets(partition, timeout=DEADLINE_S)[1] - max(0, partition.offset)
            for partition in committed
        )
        consumer.close()
        return left


@pytest.fixture
def kafka(bootstrap_servers: str, topic_prefix: str) -> Kafka:
    return Kafka(bootstrap_servers, topic_prefix)


class Handled:
    """A handler that remembers; `answer` gives the outcome of a value at its n-th try."""

    def __init__(self, answer: Callable[[str, int], Outcome] = lambda _value, _attempt: None) -> None:
        self.answer = answer
        self.seen: Counter[str] = Counter()
        self.batches: list[int] = []
        self._lock = threading.Lock()

    def __call__(self, records: Sequence[Record]) -> list[Outcome]:
        with self._lock:
            self.batches.append(len(records))
            values = [(record.value or b"").decode() for record in records]
            self.seen.update(values)
            return [self.answer(value, self.seen[value]) for value in values]


class Held(Handled):
    """A handler that keeps its batches in hand until they may leave, each record with the same outcome."""

    def __init__(self, outcome: Outcome = None) -> None:
        super().__init__(self._wait)
        self.entered, self.leave = threading.Event(), threading.Event()
        self._outcome = outcome

    def _wait(self, _value: str, _attempt: int) -> Outcome:
        self.entered.set()
        self.leave.wait(DEADLINE_S)
        return self._outcome


class Running:
    """A consumer in a thread of its own."""

    def __init__(self, kafka: Kafka, handler: Callable[[Sequence[Record]], Sequence[Outcome]], **changes: Any) -> None:
        config = {"group.protocol": changes.pop("group_protocol", "classic")}
        if config["group.protocol"] == "classic":
            config |= {"partition.assignment.strategy": "cooperative-sticky"}
        self.health = metrics.Health(heartbeat_max_age_s=60)
        self.stop = threading.Event()
        self.failure: BaseException | None = None
        self._publisher = Publisher(kafka.config, kafka.prefix, delivery_timeout_s=20)
        limits = {name: changes.pop(name) for name in LIMITS.__slots__ if name in changes}
        self.consumer = BatchConsumer(
            {**kafka.config, "group.id": kafka.group, "statistics.interval.ms": 200, **config},
            [kafka.topic],
            kafka.prefix,
            handler,
            self._publisher,
            replace(LIMITS, **limits),
            replace(RETRIES, **changes),
            self.health,
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.consumer.run(self.stop, check=lambda: None)
        except BaseException as failure:  # noqa: BLE001 - the test looks at it
            self.failure = failure

    def wait_ready(self) -> None:
        wait_until(lambda: self.health.readyz()[0] == 200, DEADLINE_S, "the consumer is ready")

    def end(self) -> None:
        self.stop.set()
        self.join()

    def join(self) -> None:
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "the consumer did not stop"
        self._publisher.close(1)


@contextmanager
def running(kafka: Kafka, handler: Any, **changes: Any) -> Iterator[Running]:
    consumer = Running(kafka, handler, **changes)
    try:
        yield consumer
    finally:
        consumer.end()


@pytest.mark.parametrize("group_protocol", ["classic", "consumer"])
def test_every_record_is_handled_once_and_committed(kafka: Kafka, group_protocol: str) -> None:
    values = [f"v{n}" for n in range(100)]
    kafka.produce(values)
    handled = Handled()

    with running(kafka, handled, group_protocol=group_protocol) as consumer:
        wait_until(lambda: len(handled.seen) == 100, DEADLINE_S, "all are handled")

    assert consumer.failure is None
    assert handled.seen == Counter(values)
    assert max(handled.batches) <= LIMITS.batch_max
    assert kafka.uncommitted() == 0


def test_bad_input_becomes_a_dead_letter_as_it_came_and_the_others_go_through(kafka: Kafka) -> None:
    def answer(value: str, _attempt: int) -> Outcome:
        return BadInputError("decode", "no image; expected JPEG, PNG or WebP") if value == "bad" else None

    an_hour_ago_ms = int(time.time() * 1000) - 3_600_000  # the broker deletes in seconds what its retention is past
    kafka.produce(["good-1"])
    kafka.produce(["bad"], headers=[("ce_id", b"e1"), ("trace", None)], timestamp=an_hour_ago_ms)
    kafka.produce(["good-2"])
    handled = Handled(answer)

    with running(kafka, handled):
        wait_until(lambda: len(handled.seen) == 3, DEADLINE_S, "all are handled")
        (letter,) = kafka.read(kafka.topic + ".dlq", 1)

    headers = dict(letter.headers() or [])
    assert (letter.key(), letter.value(), letter.timestamp()[1]) == (b"bad", b"bad", an_hour_ago_ms)
    assert headers["ce_id"] == b"e1"
    assert headers["trace"] is None
    assert headers["__streams.errors.exception"] == b"BadInputError"
    assert headers["__streams.errors.message"] == b"no image; expected JPEG, PNG or WebP"
    assert headers["__streams.errors.topic"] == kafka.topic.encode()
    assert {"__streams.errors.partition", "__streams.errors.offset"} <= headers.keys()
    assert headers["zccr.errors.stage"] == b"decode"
    assert headers["zccr.errors.attempts"] == b"1"
    assert kafka.uncommitted() == 0


def test_what_may_succeed_later_is_tried_again_while_the_others_go_on(kafka: Kafka) -> None:
    def answer(value: str, attempt: int) -> Outcome:
        return TryLaterError("fetch", "timed out") if value == "slow" and attempt < 3 else None

    kafka.produce(["slow", *(f"v{n}" for n in range(20))])
    handled = Handled(answer)

    with running(kafka, handled):
        wait_until(lambda: handled.seen["slow"] == 3, DEADLINE_S, "the slow one succeeded")

    assert all(count == 1 for value, count in handled.seen.items() if value != "slow")
    assert kafka.uncommitted() == 0


def test_offsets_are_not_committed_past_what_waits_for_another_try(kafka: Kafka) -> None:
    kafka.produce(["slow", *(f"v{n}" for n in range(20))])
    handled = Handled(lambda value, _: TryLaterError("fetch", "timed out") if value == "slow" else None)

    with running(kafka, handled, backoff_s=3600.0, backoff_max_s=3600.0):
        wait_until(lambda: len(handled.seen) == 21, DEADLINE_S, "all were tried")

    assert kafka.uncommitted() >= 1
    again = Handled()
    with running(kafka, again):
        wait_until(lambda: again.seen["slow"] == 1, DEADLINE_S, "the slow one comes again")


def test_what_never_succeeds_goes_to_the_dead_letters_after_the_last_try(kafka: Kafka) -> None:
    kafka.produce(["slow"])
    handled = Handled(lambda *_: TryLaterError("fetch", "timed out after 10 s"))

    with running(kafka, handled):
        (letter,) = kafka.read(kafka.topic + ".dlq", 1)

    headers = dict(letter.headers() or [])
    assert handled.seen["slow"] == RETRIES.attempts
    assert headers["zccr.errors.attempts"] == str(RETRIES.attempts).encode()
    assert headers["zccr.errors.stage"] == b"fetch"


def test_too_many_dead_letters_in_a_row_stop_the_consumer_before_the_topic_drains(kafka: Kafka) -> None:
    kafka.produce([f"v{n}" for n in range(100)])
    handled = Handled(lambda *_: BadInputError("encode", "every asset fails"))

    consumer = Running(kafka, handled, dead_letters_in_a_row_max=20, batches_in_flight=1)
    consumer.join()

    assert isinstance(consumer.failure, TooManyDeadLettersError)
    assert kafka.uncommitted() >= 80
    assert kafka.end(kafka.topic + ".dlq") <= 20


def test_a_success_in_between_ends_the_row(kafka: Kafka) -> None:
    kafka.produce([f"v{n}" for n in range(60)])
    handled = Handled(lambda value, _: None if value.endswith("0") else BadInputError("decode", "no image"))

    with running(kafka, handled, dead_letters_in_a_row_max=53, batch_max=60, batch_wait_s=1.0) as consumer:
        wait_until(lambda: len(handled.seen) == 60, DEADLINE_S, "all are handled")

    assert consumer.failure is None


def test_our_own_fault_stops_the_consumer_uncommitted(kafka: Kafka) -> None:
    def answer(value: str, _attempt: int) -> Outcome:
        if value == "v7":
            raise ZeroDivisionError("a bug")
        return None

    kafka.produce([f"v{n}" for n in range(10)])
    consumer = Running(kafka, Handled(answer))
    consumer.join()

    assert isinstance(consumer.failure, ZeroDivisionError)
    again, left = Handled(), kafka.uncommitted()
    with running(kafka, again):
        wait_until(lambda: again.seen.total() == left, DEADLINE_S, "the records come again, of every partition")
    assert again.seen["v7"] == 1
    assert kafka.uncommitted() == 0


def test_an_outage_is_waited_out_and_shown_by_readiness(kafka: Kafka) -> None:
    over = threading.Event()

    def answer(_value: str, _attempt: int) -> Outcome:
        if not over.is_set():
            raise UnavailableError("PostgreSQL is away")
        return None

    kafka.produce(["v1"])
    with running(kafka, Handled(answer)) as consumer:
        wait_until(lambda: consumer.health.readyz() == (503, "PostgreSQL is away"), DEADLINE_S, "not ready")
        over.set()
        wait_until(lambda: consumer.health.readyz()[0] == 200, DEADLINE_S, "ready again")
        wait_until(lambda: kafka.uncommitted() == 0, DEADLINE_S, "committed")

    assert consumer.failure is None


def test_an_outage_that_lasts_stops_the_consumer_uncommitted(kafka: Kafka) -> None:
    def answer(_value: str, _attempt: int) -> Outcome:
        raise UnavailableError("PostgreSQL is away")

    kafka.produce(["v1"])
    consumer = Running(kafka, Handled(answer), outage_timeout_s=1)
    consumer.join()

    assert isinstance(consumer.failure, UnavailableError)
    assert kafka.uncommitted() == 1


def test_a_stop_during_an_outage_is_a_clean_stop(kafka: Kafka) -> None:
    tried = threading.Event()

    def answer(_value: str, _attempt: int) -> Outcome:
        tried.set()
        raise UnavailableError("PostgreSQL is away")

    kafka.produce(["v1"])
    with running(kafka, Handled(answer)) as consumer:
        assert tried.wait(DEADLINE_S)

    assert consumer.failure is None
    assert kafka.uncommitted() == 1


def test_a_stop_finishes_and_commits_the_batch_in_hand(kafka: Kafka) -> None:
    held = Held()
    kafka.produce(["v1"])
    consumer = Running(kafka, held)
    assert held.entered.wait(DEADLINE_S)
    consumer.stop.set()
    held.leave.set()
    consumer.join()

    assert consumer.failure is None
    assert kafka.uncommitted() == 0


def test_a_batch_that_does_not_end_in_time_stays_uncommitted(kafka: Kafka) -> None:
    held = Held()
    kafka.produce(["v1"])
    consumer = Running(kafka, held, stop_timeout_s=0.2)
    assert held.entered.wait(DEADLINE_S)
    consumer.end()
    held.leave.set()

    assert consumer.failure is None
    assert kafka.uncommitted() == 1


def test_a_stop_while_the_broker_is_gone_ends_in_time_whatever_the_client_waits_for(topic_prefix: str) -> None:
    """The client waits for ever to answer the commit of what was in hand, and closes no sooner."""
    held = Held()
    with Embedded(kafka=True, postgres=False, start_timeout_s=DEADLINE_S) as servers:
        kafka = Kafka(servers.bootstrap_servers, topic_prefix)
        kafka.produce(["v1"])
        consumer = Running(kafka, held)
        assert held.entered.wait(DEADLINE_S)
        servers.kafka.kill()
        consumer.stop.set()
        held.leave.set()
        before_s = time.monotonic()
        consumer.join()
        took_s = time.monotonic() - before_s
        servers.kafka.start()  # or the client would go on trying beside all further tests
        closing = [thread for thread in threading.enumerate() if thread.name == "kafka-close"]
        wait_until(lambda: not any(thread.is_alive() for thread in closing), DEADLINE_S, "the client is closed")

    assert consumer.failure is None
    assert took_s < LIMITS.stop_timeout_s + 2


@pytest.mark.parametrize("group_protocol", ["classic", "consumer"])
def test_with_the_broker_there_nobody_waits_for_a_time_out(kafka: Kafka, group_protocol: str) -> None:
    """A member that has committed gives up what another gets, and stops, without waiting until time has run out."""
    kafka.produce([f"v{n}" for n in range(20)])
    handled = Handled()
    first = Running(kafka, handled, group_protocol=group_protocol, stop_timeout_s=50)
    wait_until(lambda: len(handled.seen) == 20, DEADLINE_S, "all are handled")
    with running(kafka, handled, group_protocol=group_protocol, stop_timeout_s=50) as second:
        wait_until(lambda: bool(second.consumer._partitions), 40, "the second got its share")
        kafka.produce([f"w{n}" for n in range(20)])
        wait_until(lambda: len(handled.seen) == 40, DEADLINE_S, "all are handled")
    before_s = time.monotonic()
    first.end()

    assert time.monotonic() - before_s < 20  # a commit or a goodbye that runs out of time takes 25
    assert kafka.uncommitted() == 0


def test_a_stop_while_a_partition_is_given_up_ends_in_time(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held()
    giving_up = threading.Event()
    kafka.produce([f"v{n}" for n in range(6)])
    first = Running(kafka, held, batch_max=100, batch_wait_s=0.3, stop_timeout_s=12)
    assert held.entered.wait(DEADLINE_S)
    drain = first.consumer._drain

    def noted(waiting: Callable[[], bool], deadline_s: float) -> None:
        giving_up.set()
        drain(waiting, deadline_s)

    monkeypatch.setattr(first.consumer, "_drain", noted)
    with running(kafka, Handled()):
        assert giving_up.wait(DEADLINE_S)
        first.stop.set()
        before_s = time.monotonic()
        first.join()
        took_s = time.monotonic() - before_s
        held.leave.set()

    assert first.failure is None
    assert took_s < 12 + 2


def test_slow_work_bounds_what_is_read_ahead_and_never_stops_the_heartbeat(kafka: Kafka) -> None:
    held = Held()
    kafka.produce([f"v{n}" for n in range(500)])
    with running(kafka, held) as consumer:
        assert held.entered.wait(DEADLINE_S)
        wait_until(lambda: len(consumer.consumer._paused) == PARTITIONS, DEADLINE_S, "the partitions are paused")
        for _ in range(3):
            beat = consumer.health._beat_s
            wait_until(lambda beat=beat: consumer.health._beat_s != beat, DEADLINE_S, "polls go on")  # type: ignore[misc]
        assert len(consumer.consumer._queue) <= LIMITS.queue_max + LIMITS.batch_max
        held.leave.set()
        wait_until(lambda: len(held.seen) == 500, DEADLINE_S, "all are handled")


@pytest.mark.parametrize("group_protocol", ["classic", "consumer"])
def test_members_come_and_go_and_nothing_is_lost(kafka: Kafka, group_protocol: str) -> None:
    """Each record is handled; with cooperative rebalancing and commits on revoke, almost none of them twice."""
    handled = Handled()
    values = [f"v{n}" for n in range(600)]
    with ExitStack() as members:
        first = members.enter_context(running(kafka, handled, group_protocol=group_protocol))
        first.wait_ready()
        kafka.produce(values[:200])
        second = Running(kafka, handled, group_protocol=group_protocol)
        kafka.produce(values[200:400])
        wait_until(lambda: bool(second.consumer._partitions), DEADLINE_S, "the second got its share")
        second.end()
        kafka.produce(values[400:])
        wait_until(lambda: len(handled.seen) == 600, DEADLINE_S, "all are handled")

    assert first.failure is None
    assert second.failure is None
    assert set(handled.seen) == set(values)
    assert sum(handled.seen.values()) <= 600 + 2 * LIMITS.batch_max
    assert kafka.uncommitted() == 0


def test_what_is_revoked_is_finished_and_committed_first(kafka: Kafka) -> None:
    """A batch in hand when its partition is revoked is not handled again by the next owner."""
    held = Held()
    kafka.produce([f"v{n}" for n in range(6)])
    with running(kafka, held, batch_max=100, batch_wait_s=0.3) as first:
        assert held.entered.wait(DEADLINE_S)
        with running(kafka, held) as second:
            held.leave.set()
            wait_until(lambda: bool(second.consumer._partitions), DEADLINE_S, "the second got its share")
            wait_until(lambda: len(held.seen) == 6, DEADLINE_S, "all are handled")

    assert first.failure is None
    assert held.seen == Counter(f"v{n}" for n in range(6))


def test_what_is_lost_is_not_committed(kafka: Kafka) -> None:
    """When the group has given a partition away already, its work in hand is repeated by the new owner."""
    held = Held()
    kafka.produce(["v1"])
    consumer = Running(kafka, held)
    assert held.entered.wait(DEADLINE_S)
    lost = [TopicPartition(kafka.topic, number) for number in range(PARTITIONS)]
    consumer.consumer._lost(consumer.consumer._consumer, lost)
    held.leave.set()
    consumer.end()

    assert kafka.uncommitted() == 1


def test_the_lag_is_reported_while_a_partition_is_held(kafka: Kafka) -> None:
    def lags() -> dict[str, float]:
        return {
            sample.labels["partition"]: sample.value
            for family in metrics.REGISTRY.collect()
            for sample in family.samples
            if sample.name == "zccr_consumer_lag_messages" and sample.labels["topic"] == ASSET_UPLOADED
        }

    kafka.produce(["v1"])
    with running(kafka, Handled()):
        wait_until(lambda: set(lags().values()) == {0.0}, DEADLINE_S, "no lag")

    assert lags() == {}


class Followed:
    """A follower in a thread of its own."""

    def __init__(self, kafka: Kafka, topic: str, positions: dict[int, int]) -> None:
        self.values: list[str] = []
        self.stop = threading.Event()
        self.follower = Follower(kafka.config, topic, self._apply, batch_max=10)
        self._thread = threading.Thread(
            target=self.follower.run, args=(positions, self.stop, lambda: None), daemon=True
        )
        self._thread.start()

    def _apply(self, records: Sequence[Record]) -> None:
        assert len(records) <= 10
        self.values += [(record.value or b"").decode() for record in records]

    def end(self) -> None:
        self.stop.set()
        self._thread.join(DEADLINE_S)


def test_a_follower_reads_all_partitions_and_goes_on_where_it_was(kafka: Kafka) -> None:
    kafka.produce([f"v{n}" for n in range(50)])
    first = Followed(kafka, kafka.topic, {})
    assert first.follower.caught_up.wait(DEADLINE_S)
    first.end()
    kafka.produce(["new"])
    second = Followed(kafka, kafka.topic, first.follower.positions)
    assert second.follower.caught_up.wait(DEADLINE_S)
    second.end()

    assert sorted(first.values) == sorted(f"v{n}" for n in range(50))
    assert second.values == ["new"]
    assert sum(second.follower.positions.values()) == 51


def test_a_follower_of_an_empty_topic_is_caught_up_at_once(kafka: Kafka) -> None:
    followed = Followed(kafka, kafka.topic, {})

    assert followed.follower.caught_up.wait(DEADLINE_S)
    followed.end()


def test_a_follower_finds_partitions_that_a_topic_grows(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zccr_stream.stream.follower._LOOK_INTERVAL_S", 0.2)
    followed = Followed(kafka, kafka.topic, {})
    assert followed.follower.caught_up.wait(DEADLINE_S)
    kafka.admin.create_partitions([NewPartitions(kafka.topic, PARTITIONS + 2)])[kafka.topic].result(DEADLINE_S)
    kafka.produce(["grown"], partition=PARTITIONS + 1)

    wait_until(lambda: followed.values == ["grown"], DEADLINE_S, "the new partition is read")
    followed.end()


def test_positions_that_the_topic_does_not_hold_are_not_valid(kafka: Kafka) -> None:
    kafka.produce(["v"], partition=0)
    follower = Follower(kafka.config, kafka.topic, lambda _: None, batch_max=10)

    assert follower.valid({0: 0, 1: 0})
    assert follower.valid({0: 1})
    assert not follower.valid({0: 2})


def test_a_remade_topic_is_another_one(kafka: Kafka) -> None:
    before = identify(kafka.config, kafka.topic)
    kafka.admin.delete_topics([kafka.topic])[kafka.topic].result(DEADLINE_S)

    def remade() -> bool:
        try:
            kafka.make(kafka.topic, PARTITIONS)
        except KafkaException:
            return False
        return True

    def another() -> bool:
        try:
            return identify(kafka.config, kafka.topic) != before
        except UnavailableError:
            return False

    wait_until(remade, DEADLINE_S, "the topic is made again")
    wait_until(another, DEADLINE_S, "it is another topic")
    assert identify(kafka.config, kafka.topic) == identify(kafka.config, kafka.topic)


def test_a_publisher_returns_when_all_is_delivered(kafka: Kafka) -> None:
    publisher = Publisher(kafka.config, kafka.prefix, delivery_timeout_s=20)
    messages = [events.Message(ASSET_UPLOADED, f"k{n}".encode(), b"v", (("h", b"1"),)) for n in range(100)]

    publisher.publish(messages)

    assert {message.key() for message in kafka.read(kafka.topic, 100)} == {f"k{n}".encode() for n in range(100)}


def test_a_publisher_leaves_nothing_under_way(kafka: Kafka) -> None:
    """One message that cannot be sent does not end the wait for those before it and behind it."""
    publisher = Publisher({**kafka.config, "linger.ms": 300}, kafka.prefix, delivery_timeout_s=20)
    messages = [
        events.Message(ASSET_UPLOADED, key, value)
        for key, value in ((b"a", b""), (b"b", bytes(2**26 + 1)), (b"c", b""))
    ]

    with pytest.raises(MessageTooLargeError):
        publisher.publish(messages)

    assert_nothing_under_way(publisher)
    assert {message.key() for message in kafka.read(kafka.topic, 2)} == {b"a", b"c"}


def assert_nothing_under_way(publisher: Publisher) -> None:
    """Long before the client itself would give up; what it counts holds its log as well, until that is served."""
    wait_until(lambda: publisher._producer.flush(0) == 0, 10, "nothing is under way")


@pytest.mark.parametrize("name", ["delivery.timeout.ms", "message.timeout.ms"])
def test_no_setting_of_the_client_makes_a_publisher_give_up_before_it_does(topic_prefix: str, name: str) -> None:
    publisher = Publisher({"bootstrap.servers": "127.0.0.1:1", name: 300_000}, topic_prefix, delivery_timeout_s=1)

    with pytest.raises(UnavailableError, match="did not take"):
        publisher.publish([events.Message(ASSET_UPLOADED, b"k", b"v")])

    assert_nothing_under_way(publisher)


def test_a_missing_topic_says_what_to_do(kafka: Kafka) -> None:
    publisher = Publisher({**kafka.config, "topic.metadata.propagation.max.ms": 500}, kafka.prefix, 20)

    with pytest.raises(UnavailableError, match="zccr-stream topics"):
        publisher.publish([events.Message("no-such-topic", b"k", b"v")])


def test_a_broker_that_does_not_answer_is_an_outage(topic_prefix: str) -> None:
    publisher = Publisher({"bootstrap.servers": "127.0.0.1:1"}, topic_prefix, delivery_timeout_s=1)

    with pytest.raises(UnavailableError):
        publisher.publish([events.Message(ASSET_UPLOADED, b"k", b"v")])


def test_topics_are_made_once_with_their_settings(kafka: Kafka) -> None:
    rule = TopicRule(partitions=2, replication_factor=-1, retention_hours=24, delete_retention_hours=48)

    first = {report.topic: report for report in ensure_topics(kafka.config, kafka.prefix + "x-", rule)}
    second = {report.topic: report for report in ensure_topics(kafka.config, kafka.prefix + "x-", rule)}
    changed = TopicRule(partitions=2, replication_factor=-1, retention_hours=24, delete_retention_hours=72)
    third = {report.topic: report for report in ensure_topics(kafka.config, kafka.prefix + "x-", changed)}

    assert {report.state for report in first.values()} == {"created"}
    assert {report.state for report in second.values()} == {"as wanted"}
    assert "delete.retention.ms" in third[kafka.prefix + "x-asset-embedded"].state
    assert len(first) == 10


class RefusesFirst:
    """The client during a rebalance: the first commit of finished work is refused, as a report says later."""

    def __init__(self, client: Consumer, on_commit: Callable[[KafkaError, list[TopicPartition]], None]) -> None:
        self._client = client
        self._on_commit = on_commit
        self._refused: list[TopicPartition] | None = None
        self.reported = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)

    def poll(self, timeout: float) -> Message | None:
        if self._refused and not self.reported:
            self.reported = True
            self._on_commit(KafkaError(KafkaError.ILLEGAL_GENERATION), self._refused)
        return self._client.poll(timeout)

    def commit(self, offsets: list[TopicPartition], asynchronous: bool) -> None:
        if self._refused is None and any(partition.offset > 0 for partition in offsets):
            self._refused = offsets
        else:
            self._client.commit(offsets=offsets, asynchronous=asynchronous)  # type: ignore[call-overload]


def test_a_commit_that_a_rebalance_refused_is_made_again(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    """No new record has to come for it."""
    monkeypatch.setattr("zccr_stream.stream.consumer._COMMIT_AGAIN_S", 0.05)
    with running(kafka, Handled()) as consumer:
        consumer.wait_ready()
        client = RefusesFirst(consumer.consumer._consumer, consumer.consumer._committed)
        consumer.consumer._consumer = client  # type: ignore[assignment]
        kafka.produce(["v1"])

        wait_until(lambda: client.reported and kafka.uncommitted() == 0, DEADLINE_S, "committed again")


def test_a_follower_waits_for_a_topic_that_is_not_there_yet(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zccr_stream.stream.follower._AGAIN_S", 0.1)
    followed = Followed(kafka, kafka.prefix + "later", {})
    kafka.make(kafka.prefix + "later", 2)
    kafka.produce(["v1"], topic=kafka.prefix + "later")

    wait_until(lambda: followed.values == ["v1"], DEADLINE_S, "the record is read")
    followed.end()


def produce_raw_header(bootstrap_servers: str, topic: str, name: bytes, value: bytes) -> None:
    """Produce through librdkafka's C functions: the Python client writes no header names that are not UTF-8."""
    folder = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    library = ctypes.CDLL(str(next(folder.glob("librdkafka*"))))
    library.rd_kafka_conf_new.restype = library.rd_kafka_new.restype = ctypes.c_void_p
    error = ctypes.create_string_buffer(512)
    config = ctypes.c_void_p(library.rd_kafka_conf_new())
    servers = bootstrap_servers.encode()
    library.rd_kafka_conf_set(config, b"bootstrap.servers", servers, error, ctypes.c_size_t(512))
    producer = ctypes.c_void_p(library.rd_kafka_new(0, config, error, ctypes.c_size_t(512)))
    end, topic_tag, value_tag, flags_tag, header_tag = (ctypes.c_int(tag) for tag in (0, 1, 4, 7, 9))
    library.rd_kafka_producev(
        producer,
        *(topic_tag, ctypes.c_char_p(topic.encode())),
        *(flags_tag, ctypes.c_int(2)),  # copy the value
        *(value_tag, ctypes.c_char_p(value), ctypes.c_size_t(len(value))),
        *(header_tag, ctypes.c_char_p(name), ctypes.c_char_p(b"v"), ctypes.c_ssize_t(1)),
        end,
    )
    assert library.rd_kafka_flush(producer, ctypes.c_int(DEADLINE_S * 1000)) == 0
    library.rd_kafka_destroy(producer)


def test_header_names_that_are_not_utf8_stop_nobody(kafka: Kafka) -> None:
    """They come without headers and are marked, so that the parser refuses them; a follower reads on."""
    produce_raw_header(kafka.config["bootstrap.servers"], kafka.topic, b"x\xff\xfe", b"bad")
    kafka.produce(["good"])
    seen: dict[bytes | None, bool] = {}

    def handle(records: Sequence[Record]) -> list[Outcome]:
        seen.update({record.value: record.has_readable_headers for record in records})
        return [None] * len(records)

    with running(kafka, handle) as consumer:
        wait_until(lambda: len(seen) == 2, DEADLINE_S, "both are handled")
    followed = Followed(kafka, kafka.topic, {})
    assert followed.follower.caught_up.wait(DEADLINE_S)
    followed.end()

    assert consumer.failure is None
    assert seen == {b"bad": False, b"good": True}
    assert sorted(followed.values) == ["bad", "good"]


def test_header_names_that_are_not_utf8_stop_no_hot_loop(kafka: Kafka) -> None:
    """CPython's fast paths overlooked the client's error, and crashed at the next miss of the type cache."""
    kafka.produce([f"{n}" for n in range(100)], headers=[("trace", b"1"), ("none", None)])
    produce_raw_header(kafka.config["bootstrap.servers"], kafka.topic, b"x\xff\xfe", b"bad")
    messages = sorted(kafka.read(kafka.topic, 101), key=lambda message: message.value() == b"bad")

    records = [record_of(message) for message in messages[:-1]]
    sys._clear_type_cache()
    bad = record_of(messages[-1])

    assert {record.headers for record in records} == {(("trace", b"1"), ("none", None))}
    assert (bad.value, bad.headers, bad.has_readable_headers) == (b"bad", (), False)


def test_a_dead_letter_that_is_too_large_is_kept_by_its_beginning(kafka: Kafka) -> None:
    """The broker's limit counts compressed bytes, so a record may come that cannot be published again as it is."""
    kafka.admin.delete_topics([kafka.topic + ".dlq"])[kafka.topic + ".dlq"].result(DEADLINE_S)
    wait_until(lambda: kafka.topic + ".dlq" not in kafka.admin.list_topics().topics, DEADLINE_S, "it is gone")
    kafka.make(kafka.topic + ".dlq", 1, **{"max.message.bytes": "10000"})
    noise = random.Random(1).randbytes(50_000).hex()
    kafka.produce([noise, "small"])
    handled = Handled(lambda *_: BadInputError("decode", "no image"))

    with running(kafka, handled) as consumer:
        letters = kafka.read(kafka.topic + ".dlq", 2)

    assert consumer.failure is None
    by_length = {len(letter.value() or b""): dict(letter.headers() or []) for letter in letters}
    assert by_length.keys() == {0, 5}
    assert by_length[0]["zccr.errors.value_bytes"] == b"100000"
    assert by_length[0]["__streams.errors.message"] == b"no image"
    assert kafka.uncommitted() == 0


def test_what_waits_is_bounded_in_bytes_too(kafka: Kafka) -> None:
    held = Held()
    large = [f"{n}".ljust(50_000, "x") for n in range(100)]
    kafka.produce(large)
    with running(kafka, held, waiting_bytes_max=400_000, queue_max=1000) as consumer:
        assert held.entered.wait(DEADLINE_S)
        wait_until(lambda: len(consumer.consumer._paused) == PARTITIONS, DEADLINE_S, "the partitions are paused")
        assert len(consumer.consumer._queue) < 30
        held.leave.set()
        wait_until(lambda: len(held.seen) == 100, DEADLINE_S, "all are handled")


def test_headers_count_among_the_bytes_that_wait() -> None:
    record = events.Record("t", 0, 0, 0, b"key", b"value", (("header", b"12345"), ("empty", None)))

    assert Entry(record, Partition("t", 0)).size_bytes == 3 + 5 + (6 + 5) + 5


def test_a_batch_that_hangs_shows_as_not_ready(kafka: Kafka) -> None:
    held = Held()
    kafka.produce(["v1"])
    with running(kafka, held, stuck_after_s=0.2) as consumer:
        wait_until(lambda: "worked on" in consumer.health.readyz()[1], DEADLINE_S, "not ready")
        held.leave.set()
        wait_until(lambda: consumer.health.readyz()[0] == 200, DEADLINE_S, "ready again")


def test_retries_of_a_revoked_partition_are_left_to_its_next_owner(kafka: Kafka) -> None:
    """A batch that ends during the revocation gives its retries back too late to be kept."""
    held = Held(TryLaterError("fetch", "timed out"))
    kafka.produce(["v1"])
    with running(kafka, held, backoff_s=3600.0, backoff_max_s=3600.0) as consumer:
        assert held.entered.wait(DEADLINE_S)
        with running(kafka, Handled()), running(kafka, Handled()):
            held.leave.set()
            wait_until(lambda: len(consumer.consumer._partitions) < PARTITIONS, DEADLINE_S, "some are given up")
            left = set(consumer.consumer._partitions.values())
            assert {entry.partition for entry in consumer.consumer._retries} <= left
