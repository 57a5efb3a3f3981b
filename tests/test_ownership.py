import dataclasses
import functools
import itertools
import random
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.waiting import wait_until
from zccr_stream.embedded import Embedded
from zccr_stream.events import AssetDeleted, AssetUploaded, InputEvent, UserDeleted
from zccr_stream.ownership import NotMigratedError, PostgresOwnership, binary, sessions, statements
from zccr_stream.ownership.registers import Register, Row, decide, rank, reduce
from zccr_stream.parts import Announcement, UnavailableError, Writes

MODEL = "test/model"
D = 8
DEADLINE_S = 20.0

Vector = npt.NDArray[np.float16]
Connect = Callable[..., PostgresOwnership]


@pytest.fixture(scope="module")
def shared(database_url: str, template_database: str) -> Iterator[sa.Engine]:
    """One migrated database for this file: making one per test takes longer than most of the tests."""
    name = f"zccr_ownership_{uuid.uuid4().hex[:12]}"
    outside = sa.create_engine(database_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with outside.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE {template_database} STRATEGY file_copy")
    engine = sa.create_engine(sa.make_url(database_url).set(database=name))
    yield engine
    engine.dispose()
    with outside.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def engine(shared: sa.Engine) -> sa.Engine:
    """Connections of the test's own to empty tables, to look at rows and to get in the way."""
    run(shared, "TRUNCATE assets, users, unannounced_assets, unannounced_profiles")
    return shared


@pytest.fixture
def connect(engine: sa.Engine) -> Iterator[Connect]:
    """Make ownerships of the test's database, each with connections of its own, as a process has."""
    with ExitStack() as opened:

        def make(model: str = MODEL, url: str | None = None, **limits: int) -> PostgresOwnership:
            defaults = {
                "pool_size": 4,
                "connect_timeout_s": 10,
                "statement_timeout_ms": 30_000,
                "lock_timeout_ms": 20_000,
                "idle_timeout_ms": 60_000,
                "attempts_max": 20,
            }
            url = url or engine.url.render_as_string(hide_password=False)
            ownership = PostgresOwnership(url, model=model, dimension=D, **(defaults | limits))
            opened.callback(ownership.close)
            return ownership

        yield make


@pytest.fixture
def ownership(connect: Connect) -> PostgresOwnership:
    return connect()


def run(engine: sa.Engine, statement: str) -> Sequence[sa.Row[Any]]:
    with engine.begin() as connection:
        result = connection.execute(sa.text(statement))
        return result.all() if result.returns_rows else []


# --- events, and the oracle: the state as the contract's one sentence has it ----------------------


@functools.cache
def vector_of(content: str) -> Vector:
    """A vector that belongs to one content alone."""
    vector = np.random.default_rng(list(content.encode())).standard_normal(D)
    return (vector / np.linalg.norm(vector)).astype(np.float16)


def uploaded(
    asset: str, user: str, at: int, event: str, modality: str = "image", received: int = 0, content: str | None = None
) -> AssetUploaded:
    """The content is the event's own unless given."""
    return AssetUploaded(event, at, received, asset, user, modality, uri=content or event)


def deleted(asset: str, at: int, event: str, received: int = 0) -> AssetDeleted:
    return AssetDeleted(event, at, received, asset)


def gone(user: str, at: int, event: str = "gone", received: int = 0) -> UserDeleted:
    return UserDeleted(event, at, received, user)


def writes_of(events: Sequence[InputEvent], model: str = MODEL) -> Writes:
    uploads = [event for event in events if isinstance(event, AssetUploaded)]
    return Writes(
        model=model,
        uploads=uploads,
        vectors=np.array([vector_of(upload.uri or "") for upload in uploads], np.float16).reshape(-1, D),
        deletions=[event for event in events if isinstance(event, AssetDeleted)],
        user_deletions=[event for event in events if isinstance(event, UserDeleted)],
    )


@dataclass(frozen=True)
class State:
    """Everything but the counters: each asset's row, and when each user was last deleted."""

    assets: Mapping[str, tuple[object, ...]]
    deleted_at_ns: Mapping[str, int]

    def live(self, user_id: str) -> set[tuple[str, object]]:
        """The user's live assets, each with the event it comes from."""
        return {(asset_id, row[2]) for asset_id, row in self.assets.items() if row[3] == user_id}

    def contents(self, user_id: str) -> dict[str, tuple[object, ...]]:
        """The user's live assets, each with all of its row."""
        return {asset_id: row for asset_id, row in self.assets.items() if row[3] == user_id}


def oracle(events: Sequence[InputEvent]) -> State:
    """The state as a function of the set of events alone."""
    deletions: dict[str, int] = {}
    for event in events:
        if isinstance(event, UserDeleted):
            deletions[event.user_id] = max(event.occurred_at_ns, deletions.get(event.user_id, event.occurred_at_ns))
    assets: dict[str, tuple[object, ...]] = {}
    writes = [event for event in events if not isinstance(event, UserDeleted)]
    for asset_id in {write.asset_id for write in writes}:
        greatest = max(
            (write for write in writes if write.asset_id == asset_id),
            key=rank,
        )
        dead = isinstance(greatest, AssetDeleted) or deletions.get(greatest.user_id, -1) >= greatest.occurred_at_ns
        *stamp, tie_break = rank(greatest)
        if isinstance(greatest, AssetDeleted):
            assets[asset_id] = (*stamp, None, None, None, None, b"")
        elif dead:
            assets[asset_id] = (*stamp, None, None, None, None, tie_break[:16] + b"\xff" * 16)
        else:
            content = (greatest.user_id, greatest.modality, MODEL, vector_of(greatest.uri or "").tobytes())
            assets[asset_id] = (*stamp, *content, tie_break)
    return State(assets, deletions)


def stored(engine: sa.Engine, prefix: str = "") -> State:
    """The state as PostgreSQL has it, of ids with this prefix."""
    with engine.connect() as connection:
        assets = connection.execute(
            sa.text(
                "SELECT asset_id, occurred_at_ns, deleted, event_id, user_id, modality, model, embedding, "
                "tie_break FROM assets WHERE starts_with(asset_id, :prefix)"
            ),
            {"prefix": prefix},
        )
        rows = {row[0]: (*row[1:7], None if row[7] is None else bytes(row[7]), bytes(row[8])) for row in assets}
        users = connection.execute(
            sa.text(
                "SELECT user_id, deleted_at_ns FROM users WHERE starts_with(user_id, :prefix) "
                "AND deleted_at_ns IS NOT NULL"
            ),
            {"prefix": prefix},
        )
        return State(rows, dict(users.all()))


# Few assets, users and times, so that nearly every event meets another. Event ids that order differently by code point,
# by UTF-16 and by any language's collation. Two producers may use one id for two contents.
def histories(prefix: str = "") -> st.SearchStrategy[list[InputEvent]]:
    asset_ids = st.sampled_from(["a", "b", "c"]).map(lambda name: prefix + name)
    user_ids = st.sampled_from(["u", "v", "é"]).map(lambda name: prefix + name)
    times = st.integers(0, 4)
    ids = st.sampled_from(["", "Z", "a", "é", "\uffff", "\U0001f600", "-", " "])
    event = st.one_of(
        st.builds(
            uploaded,
            asset_ids,
            user_ids,
            times,
            ids,
            st.sampled_from(["image", "text"]),
            content=st.sampled_from(["one", "two"]),
        ),
        st.builds(deleted, asset_ids, times, ids),
        st.builds(gone, user_ids, times, ids),
    )
    return st.lists(event, max_size=14)


def deliveries(events: Sequence[InputEvent], random_: random.Random) -> list[list[InputEvent]]:
    """The same events in some order, some of them twice, cut into batches."""
    delivered = [*events, *random_.sample(list(events), random_.randint(0, len(events)))]
    random_.shuffle(delivered)
    batches: list[list[InputEvent]] = []
    while delivered:
        size = random_.randint(1, 6)
        batches.append(delivered[:size])
        delivered = delivered[size:]
    return batches


# --- the state is a function of the set of events -------------------------------------------------


@given(histories(), st.randoms(use_true_random=False))
@settings(max_examples=200, deadline=None)
def test_registers_come_to_the_same_in_any_order_batching_and_repetition(
    events: list[InputEvent], random_: random.Random
) -> None:
    rows: dict[str, Row] = {}
    deletions: dict[str, int] = {}
    for delivered in deliveries(events, random_):
        batch = reduce(writes_of(delivered))
        for user_id, deletion in batch.user_deletions.items():
            deletions[user_id] = max(deletion.occurred_at_ns, deletions.get(user_id, deletion.occurred_at_ns))
        standing = {
            asset_id: Register(row.user_id, row.rank, row.revision)
            for asset_id, row in rows.items()
            if asset_id in batch.writes or row.user_id in batch.user_deletions
        }
        changes = decide(batch, standing, {user_id: deletions.get(user_id) for user_id in batch.user_ids})
        rows.update({row.asset_id: row for row in changes.rows})

    expected = oracle(events).assets
    assert {asset_id: (*row.rank, row.user_id, row.modality) for asset_id, row in rows.items()} == {
        asset_id: (*row[:3], row[7], *row[3:5]) for asset_id, row in expected.items()
    }


def test_of_a_batch_only_the_greatest_writes_count_whatever_their_place() -> None:
    uploads = [uploaded("a", "u", 1, "e1"), uploaded("a", "u", 2, "é"), uploaded("a", "v", 2, "z")]
    events: list[InputEvent] = [*uploads, gone("u", 1), gone("u", 3), gone("u", 2)]
    for order in itertools.permutations(events):
        batch = reduce(writes_of(order))
        write = batch.writes["a"]
        assert write.event.event_id == "é"  # after z by code point
        assert write.vector == [event.event_id for event in order if isinstance(event, AssetUploaded)].index("é")
        assert batch.user_deletions["u"].occurred_at_ns == 3
    write = reduce(writes_of([*uploads, deleted("a", 2, "")])).writes["a"]
    assert (write.event.event_id, write.vector) == ("", None)


def test_writes_are_ordered_by_time_then_deletion_then_id_then_owner_and_content() -> None:
    upload = uploaded("x", "u", 10, "a")
    others = [
        uploaded("x", "v", 10, "a"),
        uploaded("x", "u", 10, "a", "text"),
        uploaded("x", "u", 10, "a", content="other"),
        AssetUploaded("a", 10, 0, "x", "u", "image", text=upload.uri),
        AssetUploaded("a", 10, 0, "x", "u", "text", text="one"),
        AssetUploaded("a", 10, 0, "x", "u", "text", text="two"),
        AssetUploaded("a", 10, 0, "x", "u1", "text", text="two"),
    ]
    ordered = [
        rank(deleted("x", 9, "z")),
        *sorted(map(rank, [upload, *others])),
        rank(uploaded("x", "u", 10, "b")),
        rank(deleted("x", 10, "a")),
        rank(deleted("x", 10, "b")),
        rank(uploaded("x", "u", 11, "a")),
    ]

    assert ordered == sorted(ordered)
    assert len(set(ordered)) == len(ordered)
    assert rank(upload) == rank(dataclasses.replace(upload, received_at_ms=5))


def test_what_an_erasure_leaves_says_neither_what_was_erased_nor_whose_else(
    engine: sa.Engine, ownership: PostgresOwnership
) -> None:
    left = set()
    for content in ("one", "two"):
        ownership.write(writes_of([uploaded("a", "u", 1, "e", content=content)]))
        ownership.write(writes_of([uploaded("b", "u", 1, "e", content=content), gone("u", 2)]))
        ownership.write(writes_of([uploaded("c", "u", 1, "e", "text", content=content)]))
        left.add(tuple(stored(engine).assets[asset_id][-1] for asset_id in "abc"))
        run(engine, "TRUNCATE assets, users")

    (ties,) = left
    assert len(set(ties)) == 3


def test_of_equal_writes_a_greater_one_than_stands_is_still_to_be_encoded(ownership: PostgresOwnership) -> None:
    lesser, middle, greatest = sorted((uploaded("x", user, 1, "e") for user in "uvw"), key=rank)
    ownership.write(writes_of([middle]))

    assert ownership.standing([lesser, middle, greatest]).tolist() == [True, True, False]


class Follower:
    """A reader of both internal topics: keeps the last message of a key, as compaction does."""

    def __init__(self) -> None:
        self.assets: dict[str, tuple[int, str | None, bytes | None]] = {}
        self.versions: dict[str, int] = {}
        self.out_of_order: list[str] = []
        self._lock = threading.Lock()

    def follow(self, announcement: Announcement) -> None:
        embeddings = announcement.embeddings
        with self._lock:
            for n, asset_id in enumerate(embeddings.asset_ids):
                revision = int(embeddings.revisions[n])
                if asset_id in self.assets and self.assets[asset_id][0] > revision:
                    self.out_of_order.append(asset_id)
                live = bool(embeddings.live[n])
                assert live or not embeddings.vectors[n].any()
                self.assets[asset_id] = (
                    revision,
                    embeddings.user_ids[n] if live else None,
                    embeddings.vectors[n].tobytes() if live else None,
                )
            for change in announcement.changes:
                self.versions[change.user_id] = max(change.profile_version, self.versions.get(change.user_id, 0))

    def live(self) -> dict[str, tuple[object, object]]:
        return {asset_id: (user, vector) for asset_id, (_, user, vector) in self.assets.items() if user is not None}


def live(state: State) -> dict[str, tuple[object, object]]:
    return {asset_id: (row[3], row[6]) for asset_id, row in state.assets.items() if row[3] is not None}


@given(st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_postgres_comes_to_the_same_and_announces_exactly_what_changed(
    engine: sa.Engine, ownership: PostgresOwnership, data: st.DataObject
) -> None:
    """After every batch the rows are the oracle's, and a reader of the announcements holds exactly what lives.

    One version more for exactly the users whose live assets changed.
    """
    prefix = f"{next(_examples)}-"
    events = data.draw(histories(prefix))
    follower = Follower()
    versions: dict[str, int] = {}
    arrived: list[InputEvent] = []
    for delivered in deliveries(events, data.draw(st.randoms(use_true_random=False))):
        before = oracle(arrived)
        arrived.extend(delivered)
        after = oracle(arrived)
        touched = ownership.write(writes_of(delivered))
        with ownership.announcing(touched.asset_ids, touched.user_ids) as announcement:
            follower.follow(announcement)

        assert stored(engine, prefix) == after
        users = {prefix + name for name in ("u", "v", "é")}
        changed = {user_id for user_id in users if before.contents(user_id) != after.contents(user_id)}
        assert {change.user_id for change in announcement.changes} == set(touched.user_ids) == changed
        for user_id in changed:
            versions[user_id] = versions.get(user_id, 0) + 1
        assert follower.versions == versions
        assert follower.live() == live(after)
        assert ownership.standing(arrived).all()


_examples = itertools.count()


def test_many_processes_at_once_come_to_the_same_and_publish_in_order(engine: sa.Engine, connect: Connect) -> None:
    """Four get the same events in different orders, changes of owner and deletions of users among them.

    Rows and topic end as the oracle has them, no asset goes backwards in the topic, and nothing deadlocks.
    """
    random_ = random.Random(7)
    assets, users = [f"a{n}" for n in range(24)], [f"u{n}" for n in range(6)]
    events: list[InputEvent] = []
    for n in range(400):
        kind = random_.random()
        at, event_id = random_.randint(0, 60), f"e{n}"
        if kind < 0.75:
            events.append(uploaded(random_.choice(assets), random_.choice(users), at, event_id))
        elif kind < 0.95:
            events.append(deleted(random_.choice(assets), at, event_id))
        else:
            events.append(gone(random_.choice(users), at // 3, event_id))
    # Users that are new to two processes at once may deadlock, and are tried again; those that are known must not.
    known: list[InputEvent] = [uploaded(f"b{n}", user, 1, f"f{n}") for n, user in enumerate(users)]
    connect().write(writes_of(known))
    events += known
    topic = Follower()
    deadlocks_before = deadlocks(engine)

    def process(seed: int) -> None:
        ownership = connect()
        order = random.Random(seed)
        mine = events.copy()
        order.shuffle(mine)
        for start in range(0, len(mine), 16):
            touched = ownership.write(writes_of(mine[start : start + 16]))
            with ownership.announcing(touched.asset_ids, touched.user_ids) as announcement:
                topic.follow(announcement)
        ownership.close()

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(process, seed) for seed in range(4)]:
            done.result()

    with connect().leftovers(0, 1000) as announcement:
        topic.follow(announcement)

    expected = oracle(events)
    assert stored(engine) == expected
    assert topic.live() == live(expected)
    assert topic.out_of_order == []
    assert connect().backlog().assets == connect().backlog().profiles == 0
    versions = run(engine, "SELECT user_id, profile_version FROM users WHERE profile_version > 0")
    assert {row.user_id: row.profile_version for row in versions} == topic.versions
    assert deadlocks(engine) == deadlocks_before


def deadlocks(engine: sa.Engine) -> object:
    """How many deadlocks the database has seen in sessions that are closed."""
    ((count,),) = run(engine, "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()")
    return count


def test_two_owners_of_one_new_asset_at_once_leave_the_greater(engine: sa.Engine, connect: Connect) -> None:
    """Neither sees the other's row, so that both take the asset for new: the later commit is tried again."""
    for n in range(10):
        barrier = threading.Barrier(2)
        events = [uploaded(f"a{n}", "u", 1, "e1"), uploaded(f"a{n}", "v", 2, "e2")]

        def process(event: InputEvent, barrier: threading.Barrier = barrier) -> None:
            ownership = connect()
            ownership.standing([event])  # connected
            barrier.wait(DEADLINE_S)
            ownership.write(writes_of([event]))

        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(process, event) for event in events]:
                done.result()
        assert stored(engine, f"a{n}").live("v") == {(f"a{n}", "e2")}


# --- what is to be announced outlives every crash -------------------------------------------------


def ids(announcement: Announcement) -> tuple[list[str], dict[str, int]]:
    return (
        list(announcement.embeddings.asset_ids),
        {change.user_id: change.profile_version for change in announcement.changes},
    )


def announced(ownership: PostgresOwnership) -> tuple[list[str], dict[str, int]]:
    """Announce everything that is left."""
    with ownership.leftovers(0, 1000) as announcement:
        return ids(announcement)


def test_a_crash_after_the_commit_leaves_the_marks_to_whoever_sweeps(connect: Connect) -> None:
    crashed, sweeper = connect(), connect()
    crashed.write(writes_of([uploaded("a", "u", 1, "e1"), uploaded("b", "v", 1, "e2")]))

    with sweeper.leftovers(3600, 100) as announcement:
        assert ids(announcement) == ([], {})
    backlog = sweeper.backlog()
    assert (backlog.assets, backlog.profiles) == (2, 2)
    assert backlog.oldest_s is not None
    assert announced(sweeper) == (["a", "b"], {"u": 1, "v": 1})
    assert announced(sweeper) == ([], {})
    assert sweeper.backlog().oldest_s is None


def test_a_change_of_owner_is_announced_to_both_even_if_its_event_comes_again_after_a_crash(
    ownership: PostgresOwnership,
) -> None:
    ownership.write(writes_of([uploaded("a", "u", 1, "e1")]))
    announced(ownership)
    touched = ownership.write(writes_of([uploaded("a", "v", 2, "e2")]))
    assert touched.user_ids == ["u", "v"]

    redelivered = ownership.write(writes_of([uploaded("a", "v", 2, "e2")]))
    assert (redelivered.asset_ids, redelivered.user_ids) == ([], [])
    assert announced(ownership) == (["a"], {"u": 2, "v": 1})


def test_marks_stay_when_publishing_fails(ownership: PostgresOwnership) -> None:
    touched = ownership.write(writes_of([uploaded("a", "u", 1, "e1")]))

    with (
        pytest.raises(UnavailableError, match="Kafka"),
        ownership.announcing(touched.asset_ids, touched.user_ids),
    ):
        raise UnavailableError("Kafka is away")

    assert announced(ownership) == (["a"], {"u": 1})


def test_marks_stay_when_the_process_dies_while_publishing(connect: Connect, engine: sa.Engine) -> None:
    ownership, sweeper = connect(), connect()
    touched = ownership.write(writes_of([uploaded("a", "u", 1, "e1")]))

    with (
        pytest.raises(UnavailableError, match="terminat"),
        ownership.announcing(touched.asset_ids, touched.user_ids),
    ):
        run(
            engine,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE state = 'idle in transaction' AND datname = current_database()",
        )

    assert announced(sweeper) == (["a"], {"u": 1})
    assert ownership.standing([uploaded("a", "u", 1, "e1")]).tolist() == [True]  # connected again


def test_a_process_that_hangs_while_publishing_loses_its_locks(connect: Connect) -> None:
    hanging, sweeper = connect(idle_timeout_ms=1000), connect()
    touched = sweeper.write(writes_of([uploaded("a", "u", 1, "e1")]))
    swept: dict[str, int] = {}

    with pytest.raises(UnavailableError), hanging.announcing(touched.asset_ids, touched.user_ids):

        def all_swept() -> bool:
            """The locks may go between the sweep's look at assets and its look at users."""
            asset_ids, versions = announced(sweeper)
            swept.update(dict.fromkeys(asset_ids, 1) | versions)
            return len(swept) == 2

        wait_until(all_swept, DEADLINE_S, "the locks are given to the sweep")

    assert swept == {"a": 1, "u": 1}


def waiting_for_a_lock(engine: sa.Engine) -> bool:
    return bool(
        run(engine, "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()")
    )


def test_a_write_during_an_announcement_waits_for_it_and_is_announced_after_it(
    connect: Connect, engine: sa.Engine
) -> None:
    """Else its mark would be deleted with the one that is being announced, or its state published before the older."""
    first, second = connect(), connect()
    touched = first.write(writes_of([uploaded("a", "u", 1, "e1")]))

    with ThreadPoolExecutor(1) as pool:
        with first.announcing(touched.asset_ids, touched.user_ids) as announcement:
            writing = pool.submit(second.write, writes_of([uploaded("a", "u", 2, "e2")]))
            wait_until(lambda: waiting_for_a_lock(engine), DEADLINE_S, "the second write waits")
            assert not writing.done()
            assert announcement.embeddings.revisions.tolist() == [1]
            assert announced(second) == ([], {})  # the sweep skips what is being announced
        writing.result(DEADLINE_S)

    with second.announcing(["a"], ["u"]) as announcement:
        assert announcement.embeddings.revisions.tolist() == [2]
        assert announcement.embeddings.vectors[0].tolist() == vector_of("e2").tolist()
        assert ids(announcement) == (["a"], {"u": 2})


def test_an_announcement_that_waited_for_a_write_gives_what_was_written(
    ownership: PostgresOwnership, engine: sa.Engine
) -> None:
    ownership.write(writes_of([uploaded("a", "u", 1, "e1")]))

    def announce() -> tuple[list[int], dict[str, int]]:
        with ownership.announcing(["a"], ["u"]) as announcement:
            return announcement.embeddings.revisions.tolist(), ids(announcement)[1]

    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as connection:  # as a write does it: state first, marks last
            connection.execute(sa.text("UPDATE users SET profile_version = 2"))
            connection.execute(sa.text("UPDATE assets SET revision = 2"))
            connection.execute(sa.text("UPDATE unannounced_assets SET noted_at = noted_at"))
            connection.execute(sa.text("UPDATE unannounced_profiles SET received_at_ms = 0"))
            announcing = pool.submit(announce)
            wait_until(lambda: waiting_for_a_lock(engine), DEADLINE_S, "the announcement waits")
        assert announcing.result(DEADLINE_S) == ([2], {"u": 2})


def test_marks_coalesce_and_keep_the_oldest_arrival(ownership: PostgresOwnership) -> None:
    ownership.write(writes_of([uploaded("a", "u", 1, "e1", received=50), uploaded("b", "u", 1, "e2", received=40)]))
    ownership.write(writes_of([uploaded("a", "u", 2, "e3", received=70)]))

    with ownership.leftovers(0, 10) as announcement:
        assert announcement.embeddings.revisions.tolist() == [2, 1]
        assert [(c.user_id, c.profile_version, c.received_at_ms) for c in announcement.changes] == [("u", 2, 40)]


def test_leftovers_come_in_bounded_portions_oldest_first(ownership: PostgresOwnership) -> None:
    for n in range(5):
        ownership.write(writes_of([uploaded(f"a{9 - n}", "u", 1, f"e{n}")]))

    portions = []
    for _ in range(4):
        with ownership.leftovers(0, 2) as announcement:
            portions.append(list(announcement.embeddings.asset_ids))
    assert portions == [["a8", "a9"], ["a6", "a7"], ["a5"], []]


def test_what_never_lived_is_not_announced(ownership: PostgresOwnership) -> None:
    """Deletions of assets that nobody uploaded cost the topic nothing, however many are sent."""
    touched = ownership.write(writes_of([deleted("a", 5, "e1"), gone("u", 5), uploaded("b", "u", 4, "e2")]))

    assert (list(touched.asset_ids), list(touched.user_ids)) == ([], [])
    assert announced(ownership) == ([], {})
    assert ownership.standing([uploaded("a", "u", 4, "e0"), uploaded("b", "v", 3, "e0"), gone("u", 5)]).all()


def test_assets_of_another_model_are_left_to_its_processes(connect: Connect) -> None:
    old, new = connect(model="old"), connect(model="new")
    old.write(writes_of([uploaded("a", "u", 1, "e1")], model="old"))
    new.write(writes_of([uploaded("b", "u", 1, "e2")], model="new"))

    with suppress(KeyboardInterrupt), new.announcing(["a", "b"], []) as announcement:
        assert ids(announcement)[0] == ["b"]
        raise KeyboardInterrupt  # the mark stays
    with new.leftovers(0, 1) as announcement:
        assert ids(announcement)[0] == ["b"]  # though the mark of a is older
    assert announced(new)[0] == []
    assert [list(profile.asset_ids) for profile in new.profiles(["u"], NothingHeld())] == [["b"]]
    assert new.sizes(["u"]).tolist() == [1]
    assert announced(old)[0] == ["a"]


# --- deletions of users ---------------------------------------------------------------------------


def test_the_deletion_of_a_user_leaves_ids_and_times_alone(ownership: PostgresOwnership, engine: sa.Engine) -> None:
    ownership.write(writes_of([uploaded(f"a{n}", "u", n, f"e{n}") for n in range(2000)]))
    with ownership.leftovers(0, 5000):
        pass
    ownership.write(writes_of([gone("u", 1998)]))

    state = stored(engine)
    assert state.live("u") == {("a1999", "e1999")}
    assert {row[3:7] for asset_id, row in state.assets.items() if asset_id != "a1999"} == {(None, None, None, None)}
    with ownership.leftovers(0, 5000) as announcement:
        assert len(announcement.embeddings) == 1999
        assert not announcement.embeddings.live.any()
        assert ids(announcement)[1] == {"u": 2}


def test_an_upload_of_a_deleted_user_supersedes_but_does_not_live(
    ownership: PostgresOwnership, engine: sa.Engine
) -> None:
    ownership.write(writes_of([uploaded("a", "v", 1, "e1"), gone("u", 9)]))
    ownership.write(writes_of([uploaded("a", "u", 2, "e2")]))

    assert stored(engine) == oracle([uploaded("a", "v", 1, "e1"), gone("u", 9), uploaded("a", "u", 2, "e2")])
    assert stored(engine).assets["a"][:-1] == (2, False, "e2", None, None, None, None)
    assert announced(ownership) == (["a"], {"v": 2})


# --- profiles -------------------------------------------------------------------------------------


class NothingHeld:
    """Holds no vector."""

    def vectors(
        self, asset_ids: Sequence[str], revisions: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.bool_], Vector]:
        return np.zeros(len(asset_ids), np.bool_), np.zeros((len(asset_ids), D), np.float16)


@dataclass
class Held:
    """Holds vectors of ones at these revisions, and does something when asked."""

    revisions: Mapping[str, int]
    when_asked: Callable[[], object] = lambda: None
    asked: list[tuple[str, int]] = field(default_factory=list)

    def vectors(
        self, asset_ids: Sequence[str], revisions: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.bool_], Vector]:
        self.asked.extend(zip(asset_ids, revisions.tolist(), strict=True))
        self.when_asked()
        held = np.array([self.revisions.get(a) == r for a, r in zip(asset_ids, revisions, strict=True)], np.bool_)
        return held, np.where(held[:, None], np.ones(D, np.float16), np.zeros(D, np.float16))


def test_profiles_hold_what_lives_in_the_order_that_was_asked(ownership: PostgresOwnership) -> None:
    texts = [uploaded(f"ü{n}", "u", n, f"e{n}", modality="text") for n in range(3)]
    images = [uploaded("b", "v", 7, "e7"), uploaded("c", "v", 8, "e8")]
    ownership.write(writes_of([*texts, *images, deleted("c", 9, "e9"), gone("w", 1)]))
    v, nobody, u, w = ownership.profiles(["v", "nobody", "u", "w"], NothingHeld())

    assert (v.user_id, v.profile_version, v.asset_ids, v.modalities) == ("v", 1, ["b"], ["image"])
    assert v.occurred_at_ns.tolist() == [7]
    assert (u.asset_ids, u.modalities) == (["ü0", "ü1", "ü2"], ["text"] * 3)
    assert u.vectors.dtype == np.float32
    assert u.vectors.tolist() == [vector_of(f"e{n}").astype(np.float32).tolist() for n in range(3)]
    for empty in (nobody, w):
        assert (empty.profile_version, list(empty.asset_ids), empty.vectors.shape) == (0, [], (0, D))
    assert ownership.sizes(["v", "nobody", "u"]).tolist() == [1, 0, 3]
    assert ownership.profiles([], NothingHeld()) == []


def test_held_vectors_are_taken_at_their_revision_only(ownership: PostgresOwnership) -> None:
    ownership.write(writes_of([uploaded(asset_id, "u", 1, f"{asset_id}1") for asset_id in "abcd"]))
    ownership.write(writes_of([uploaded("b", "u", 2, "b2")]))
    held = Held({"a": 1, "b": 1, "d": 1})

    (profile,) = ownership.profiles(["u"], held)

    assert held.asked == [("a", 1), ("b", 2), ("c", 1), ("d", 1)]
    ones = [1.0] * D
    assert profile.vectors.tolist() == [ones, vector_of("b2").tolist(), vector_of("c1").tolist(), ones]


def test_profiles_come_from_one_snapshot(connect: Connect) -> None:
    """Between reading the ids and reading the vectors everything changes: the profile is still the old one, whole."""
    ownership, other = connect(), connect()
    ownership.write(writes_of([uploaded("a", "u", 1, "a1"), uploaded("b", "u", 1, "b1"), uploaded("c", "v", 1, "c1")]))
    replace: list[InputEvent] = [
        uploaded("a", "u", 2, "a2"),
        deleted("b", 2, "b2"),
        uploaded("d", "u", 2, "d2"),
        gone("v", 2),
    ]

    u, v = ownership.profiles(["u", "v"], Held({}, when_asked=lambda: other.write(writes_of(replace))))

    assert (u.profile_version, u.asset_ids) == (1, ["a", "b"])
    assert u.vectors.tolist() == [vector_of("a1").tolist(), vector_of("b1").tolist()]
    assert v.vectors.tolist() == [vector_of("c1").tolist()]
    assert [profile.asset_ids for profile in ownership.profiles(["u", "v"], NothingHeld())] == [["a", "d"], []]


# --- bounds, failures, figures --------------------------------------------------------------------


@contextmanager
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every statement that is sent, COPY included."""
    sent: list[str] = []

    def execute(*arguments: object) -> None:
        sent.append(str(arguments[2]))

    def counting(copy: Callable[..., object]) -> Callable[..., object]:
        def copying(connection: sa.Connection, statement: str, content: object) -> object:
            sent.append(statement)
            return copy(connection, statement, content)

        return copying

    monkeypatch.setattr(sessions, "copy_in", counting(sessions.copy_in))
    monkeypatch.setattr(sessions, "copy_out", counting(sessions.copy_out))
    sa.event.listen(sa.Engine, "before_cursor_execute", execute)
    yield sent
    sa.event.remove(sa.Engine, "before_cursor_execute", execute)
    monkeypatch.undo()


def test_a_batch_takes_as_many_statements_as_one_event(
    ownership: PostgresOwnership, monkeypatch: pytest.MonkeyPatch
) -> None:

    def journey(n: int, tag: str) -> list[int]:
        """Statements of writing, announcing, asking and reading n assets of n users, replaced and partly deleted."""
        new: list[InputEvent] = [uploaded(f"{tag}{i}", f"{tag}{i}", 1, f"e{i}") for i in range(n)]
        changed: list[InputEvent] = [uploaded(f"{tag}{i}", f"{tag}{i + 1}", 2, f"f{i}") for i in range(n)]
        users = [f"{tag}{i}" for i in range(n + 1)]
        counts = []
        with counted(monkeypatch) as sent:

            def count(work: Callable[[], object]) -> None:
                sent.clear()
                work()
                counts.append(len(sent))

            def announce() -> None:
                with ownership.announcing([f"{tag}{i}" for i in range(n)], users):
                    pass

            count(lambda: ownership.write(writes_of(new)))
            count(lambda: ownership.write(writes_of([*changed, *(gone(user, 1) for user in users)])))
            count(announce)
            count(lambda: ownership.standing([*new, *changed]))
            count(lambda: ownership.profiles(users, NothingHeld()))
        return counts

    assert journey(1, "a") == journey(200, "b")
    assert max(journey(1, "c")) <= 7


def test_a_lock_that_is_not_given_is_no_bug_and_leaves_nothing(connect: Connect, engine: sa.Engine) -> None:
    ownership = connect(lock_timeout_ms=50)
    ownership.write(writes_of([uploaded("a", "u", 1, "e1")]))

    with engine.begin() as connection:
        connection.execute(sa.text("SELECT FROM users FOR UPDATE"))
        with pytest.raises(UnavailableError, match="lock timeout"):
            ownership.write(writes_of([uploaded("a", "u", 2, "e2"), uploaded("b", "v", 2, "e3")]))

    assert stored(engine) == oracle([uploaded("a", "u", 1, "e1")])


def test_a_deadlock_is_tried_again(ownership: PostgresOwnership, engine: sa.Engine) -> None:
    """Someone else, who locks in another order, gets in the way: the write is the one to be cut, and goes through."""
    ownership.write(writes_of([uploaded("a", "u", 1, "e1"), uploaded("b", "v", 1, "e2")]))

    with ThreadPoolExecutor(1) as pool:
        with engine.begin() as connection:
            connection.execute(sa.text("SET LOCAL deadlock_timeout = '60s'"))  # the other notices it first
            connection.execute(sa.text("SELECT FROM users WHERE user_id = 'v' FOR UPDATE"))
            both = writes_of([uploaded("a", "u", 2, "f1"), uploaded("b", "v", 2, "f2")])
            writing = pool.submit(ownership.write, both)
            wait_until(lambda: waiting_for_a_lock(engine), DEADLINE_S)
            connection.execute(sa.text("SELECT FROM users WHERE user_id = 'u' FOR UPDATE"))
        assert writing.result(DEADLINE_S).user_ids == ["u", "v"]
    assert stored(engine).live("v") == {("b", "f2")}


def test_an_owner_that_changes_between_two_statements_is_noticed(
    ownership: PostgresOwnership, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write has locked the users it knew; meanwhile the asset went to another: it starts again, to lock that one.

    To lock it late would deadlock with whoever holds it and wants the asset.
    """
    ownership.write(writes_of([uploaded("a", "u", 1, "e1")]))

    with ThreadPoolExecutor(1) as pool, counted(monkeypatch) as sent:
        with engine.begin() as connection:
            connection.execute(sa.text("SELECT FROM assets WHERE asset_id = 'a' FOR UPDATE"))
            writing = pool.submit(ownership.write, writes_of([uploaded("a", "w", 3, "e3")]))
            wait_until(lambda: waiting_for_a_lock(engine), DEADLINE_S)
            connection.execute(sa.text("INSERT INTO users VALUES ('x', 1)"))
            connection.execute(sa.text("UPDATE assets SET user_id = 'x', occurred_at_ns = 2, revision = 2"))
        assert writing.result(DEADLINE_S).user_ids == ["w", "x"]
        assert sum("deleted_at_ns\n    FROM users" in statement for statement in sent) == 2


def test_endless_conflicts_end_as_unavailable(connect: Connect, monkeypatch: pytest.MonkeyPatch) -> None:
    ownership = connect(attempts_max=3)
    tries = []

    def conflict(*_: object) -> None:
        tries.append(1)
        raise sessions.ConflictError("an asset changed its owner between two statements")

    monkeypatch.setattr(ownership, "_decide", conflict)
    with pytest.raises(UnavailableError, match="on every try"):
        ownership.write(writes_of([uploaded("a", "u", 1, "e1")]))
    assert len(tries) == 3


def test_a_full_pool_is_unavailable_not_a_hang(connect: Connect) -> None:
    ownership = connect(pool_size=1, statement_timeout_ms=1000)

    with (
        ownership.announcing([], []),
        pytest.raises(UnavailableError, match="no free connection"),
    ):
        ownership.backlog()


def test_errors_of_ours_pass_through(connect: Connect, database: str) -> None:
    ownership = connect(url=database)
    other = sa.create_engine(database, poolclass=sa.NullPool)
    run(other, "DROP TABLE unannounced_profiles")

    with pytest.raises(sa.exc.ProgrammingError, match="unannounced_profiles"):
        ownership.write(writes_of([uploaded("a", "u", 1, "e1")]))
    assert stored(other).assets == {}
    with pytest.raises(sa.exc.DataError, match="out of range"):
        ownership.standing([uploaded("a", "u", 2**63, "e1")])
    with pytest.raises(ValueError, match="psycopg2"):
        connect(url="postgresql+psycopg://localhost/zccr")


def test_a_server_that_goes_and_comes_back_is_waited_for(connect: Connect) -> None:
    with Embedded(kafka=False, start_timeout_s=120) as embedded:
        assert embedded.postgres is not None
        ownership = connect(url=embedded.database_url)
        with pytest.raises(NotMigratedError, match="zccr-stream migrate"):
            ownership.check()
        embedded.postgres.stop()
        with pytest.raises(UnavailableError, match="refused"):
            ownership.check()
        embedded.postgres.start()
        with pytest.raises(NotMigratedError):
            ownership.check()


def test_a_connection_that_the_server_ended_while_idle_is_replaced(
    ownership: PostgresOwnership, engine: sa.Engine
) -> None:
    ownership.backlog()
    ended = run(
        engine,
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity "
        "WHERE application_name = 'zccr-stream' AND datname = current_database()",
    )

    assert ended
    assert ownership.backlog().assets == 0


def test_figures_count_what_lives_and_what_waits(ownership: PostgresOwnership) -> None:
    ownership.write(
        writes_of(
            [
                uploaded("a", "u", 1, "e1"),
                uploaded("b", "u", 1, "e2"),
                uploaded("c", "v", 1, "e3", modality="text"),
                deleted("d", 1, "e4"),
                gone("w", 1),
            ]
        )
    )
    figures = ownership.statistics()

    assert (figures.live, figures.tombstones, figures.users) == ({"image": 2, "text": 1}, 1, 3)
    assert (figures.backlog.assets, figures.backlog.profiles) == (3, 2)


# --- the binary format ----------------------------------------------------------------------------


def test_columns_survive_the_way_to_postgres_and_back(engine: sa.Engine) -> None:
    texts, integers = ["é\U0001f600", "", None], [2**63 - 1, -(2**63), 0]
    raw, flags = [b"\x00\xff", b"", None], [True, False, True]
    stream = binary.dump(binary.texts(texts), binary.byteas(raw), binary.bigints(integers), binary.booleans(flags))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TEMP TABLE t (a text, b bytea, c bigint, d boolean)")
        sessions.copy_in(connection, "COPY t FROM STDIN (FORMAT binary)", stream)
        back = connection.exec_driver_sql("SELECT * FROM t").all()
        fields = binary.load(sessions.copy_out(connection, "COPY t TO STDOUT (FORMAT binary)", {}))
        connection.exec_driver_sql("DROP TABLE t")

    sent = list(zip(texts, raw, integers, flags, strict=True))
    assert [(a, None if b is None else bytes(b), c, d) for a, b, c, d in back] == sent
    assert [row[:2] for row in fields] == [[None if a is None else a.encode(), b] for a, b, _, _ in sent]
    assert [binary.load_integers(row[2]).tolist() for row in fields] == [[c] for _, _, c, _ in sent]
    assert binary.load(memoryview(binary.dump([], []))) == []


def test_vectors_of_another_length_or_number_are_refused() -> None:
    stream = memoryview(binary.dump(binary.byteas([bytes(16), bytes(16)])))

    assert binary.load_vectors(stream, 2, 8).shape == (2, 8)
    with pytest.raises(ValueError, match="expected 3 vectors"):
        binary.load_vectors(stream, 3, 8)
    mixed = memoryview(binary.dump(binary.byteas([bytes(14), bytes(18)])))
    with pytest.raises(ValueError, match="expected vectors of 8"):
        binary.load_vectors(mixed, 2, 8)


def test_the_sweep_of_a_long_backlog_looks_at_no_more_assets_than_it_takes(
    engine: sa.Engine, ownership: PostgresOwnership
) -> None:
    with engine.begin() as connection:
        for statement in (
            "INSERT INTO assets (asset_id, user_id, modality, model, embedding, occurred_at_ns, deleted, event_id, "
            f"revision) SELECT n::text, 'u', 'image', '{MODEL}', '', 1, false, '', 1 FROM generate_series(1, 20000) n",
            "INSERT INTO unannounced_assets (asset_id) SELECT asset_id FROM assets",
        ):
            connection.execute(sa.text(statement))
    with engine.begin() as connection:
        connection.execute(sa.text("ANALYZE assets, unannounced_assets"))
        parameters = {"model": MODEL, "older_than_s": 0, "limit": 500}
        explain = sa.text(f"EXPLAIN (ANALYZE, FORMAT JSON) {statements.LOCK_LEFT_ASSETS.text}")
        plan = connection.execute(explain, parameters).scalar_one()

    (looked,) = [node for node in nodes(plan[0]["Plan"]) if node.get("Relation Name") == "assets"]
    assert looked["Node Type"].startswith("Index")
    assert looked["Actual Loops"] * looked["Actual Rows"] <= 500


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


# --- dead letters ---------------------------------------------------------------------------------


def test_what_was_dealt_with_is_kept_by_topic_and_never_taken_back(ownership: PostgresOwnership) -> None:
    assert ownership.dead_letters_done("t/1") == {}
    ownership.note_dead_letters("t/1", {0: 5, 2: 7})
    ownership.note_dead_letters("t/1", {0: 3, 1: 1, 2: 9})
    ownership.note_dead_letters("t/2", {})

    assert ownership.dead_letters_done("t/1") == {0: 5, 1: 1, 2: 9}
    assert ownership.dead_letters_done("t/2") == {}
