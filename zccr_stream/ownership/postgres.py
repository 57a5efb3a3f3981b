"""The pipeline's `Ownership` on PostgreSQL: batches of writes, marks of what is to be announced, profiles.

Every call takes a fixed number of statements, however many events, assets or users it is given. What a batch changes is
decided in `registers`; here is how rows are locked, read and stored.

Locks. A user's live assets change only under the lock of that user's row; an asset's register only under its own. All
are taken in one order (users, assets, marks of assets, marks of users; each by ascending id), so that transactions
wait for each other and hardly ever deadlock; where they do, or where an owner changed between two statements, the
transaction is tried again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from zccr_stream.audit import AssetState, Truth, UserState
from zccr_stream.events import NS_MIN, InputEvent, ProfileChanged, UserDeleted
from zccr_stream.interests import Profile
from zccr_stream.ownership import binary, reading, sessions
from zccr_stream.ownership import statements as sql
from zccr_stream.ownership.everything import Everything
from zccr_stream.ownership.migrating import check_migrated
from zccr_stream.ownership.registers import Batch, Changes, Rank, Register, Row, decide, rank, reduce
from zccr_stream.parts import Announcement, HeldVectors, Touched, Writes

_STREAMED_ROWS = 10_000


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is still to be announced; `oldest_s` is when the oldest of it was noted, in Unix time, None: nothing."""

    assets: int
    profiles: int
    oldest_s: float | None


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts of the truth: live assets by modality, tombstones of assets, users (deleted ones included)."""

    live: Mapping[str, int]
    tombstones: int
    users: int
    backlog: Backlog


class PostgresOwnership:
    """The truth in PostgreSQL; safe to use from several threads and processes.

    Every method raises `UnavailableError` where PostgreSQL is away or too slow: nothing is half done, try again.
    """

    def __init__(
        self,
        database_url: str,
        *,
        model: str,
        dimension: int,
        pool_size: int,
        connect_timeout_s: int,
        statement_timeout_ms: int,
        lock_timeout_ms: int,
        idle_timeout_ms: int,
        attempts_max: int,
    ) -> None:
        """Describe the database; nothing is connected yet.

        Args:
            database_url: SQLAlchemy URL, driver psycopg2.
            model: The space whose vectors are written and read; assets in another one are left to its processes.
            dimension: Length of that space's vectors, d.
            pool_size: Most connections at once.
            connect_timeout_s: How long one attempt to connect may take.
            statement_timeout_ms: How long a statement may take.
            lock_timeout_ms: How long a statement waits for a lock.
            idle_timeout_ms: How long an announcement may take before its locks are taken away; longer than the
                delivery of a batch of messages may take.
            attempts_max: How often a batch is tried where other transactions got in its way.
        """
        self._engine = sessions.connect(
            database_url,
            pool_size=pool_size,
            connect_timeout_s=connect_timeout_s,
            statement_timeout_ms=statement_timeout_ms,
            lock_timeout_ms=lock_timeout_ms,
            idle_timeout_ms=idle_timeout_ms,
        )
        # One statement that only reads needs no transaction around it: two round trips less.
        self._reads = self._engine.execution_options(isolation_level="AUTOCOMMIT")
        self._snapshots = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
        self._model = model
        self._dimension = dimension
        self._attempts_max = attempts_max

    def check(self) -> None:
        """Refuse a database without the tables: raises `NotMigratedError` that says what to run."""
        check_migrated(self._engine)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def standing(self, events: Sequence[InputEvent]) -> npt.NDArray[np.bool_]:
        """(n,): True where the truth already holds this write or a greater one, so that it need not be encoded."""
        stands = np.zeros(len(events), np.bool_)
        writes = [(n, event) for n, event in enumerate(events) if not isinstance(event, UserDeleted)]
        deletions = [(n, event) for n, event in enumerate(events) if isinstance(event, UserDeleted)]
        places = [rank(event) for _, event in writes]
        parameters = {
            "writes": [n for n, _ in writes],
            "asset_ids": [event.asset_id for _, event in writes],
            "occurred": [place.occurred_at_ns for place in places],
            "deleted": [place.deleted for place in places],
            "event_ids": [place.event_id for place in places],
            "tie_breaks": [place.tie_break for place in places],
            "deletions": [n for n, _ in deletions],
            "user_ids": [event.user_id for _, event in deletions],
            "user_deleted": [event.occurred_at_ns for _, event in deletions],
        }
        with sessions.translated(), self._reads.connect() as connection:
            stands[[n for (n,) in connection.execute(sql.STANDING, parameters)]] = True
        return stands

    def write(self, writes: Writes) -> Touched:
        """Apply a batch in one transaction and note in it what is to be announced.

        Of several writes of one asset only the greatest counts; one not greater than what stands changes nothing.
        An upload whose owner was deleted at or after its time leaves a tombstone: it still supersedes older writes.
        """
        assert writes.model == self._model, f"vectors of {writes.model} for the truth of {self._model}"
        assert writes.vectors.shape == (len(writes.uploads), self._dimension), writes.vectors.shape
        assert writes.vectors.dtype == np.float16, writes.vectors.dtype
        batch = reduce(writes)
        if not batch.writes and not batch.user_deletions:
            return Touched((), ())

        def apply(connection: sa.Connection) -> Touched:
            changes = self._decide(connection, batch)
            self._store(connection, changes, writes.vectors)
            return Touched(changes.announced, list(changes.received_at_ms))

        return sessions.attempt(self._engine, self._attempts_max, apply)

    @contextmanager
    def announcing(self, asset_ids: Sequence[str], user_ids: Sequence[str]) -> Iterator[Announcement]:
        """Lock what is noted for these assets and users and give its newest state.

        The notes are cleared when the block ends well and kept when it raises. They stay locked until then, that is,
        until delivery is confirmed: another process that changed one of these assets meanwhile cannot commit, let
        alone publish, before this state is in the topic. Compaction keeps the last message of a key, so an older state
        must never be published after a newer one.
        """
        parameters = {"asset_ids": list(asset_ids), "user_ids": list(user_ids)}
        with self._locked(sql.LOCK_MARKED_ASSETS, sql.LOCK_MARKED_USERS, parameters) as announcement:
            yield announcement

    @contextmanager
    def leftovers(self, older_than_s: float, limit: int) -> Iterator[Announcement]:
        """The same for notes that a crash left behind, at most `limit` assets and as many users, oldest first.

        What another process is announcing just now is skipped.
        """
        parameters = {"model": self._model, "older_than_s": older_than_s, "limit": limit}
        with self._locked(sql.LOCK_LEFT_ASSETS, sql.LOCK_LEFT_USERS, parameters) as announcement:
            yield announcement

    def profiles(self, user_ids: Sequence[str], held: HeldVectors) -> list[Profile]:
        """These distinct users' live assets, by ascending id, in one snapshot; vectors that `held` has are not read.

        A user without live assets has an empty profile, one never heard of at version 0. An asset takes about 8 d bytes
        while this runs and 4 d in the result: 100,000 assets of 512 dimensions 410 MB and 205 MB. Where that is too
        much, ask `sizes` first and then for fewer users at a time; one user is the least.
        """
        assert len(set(user_ids)) == len(user_ids), "a user twice"
        with sessions.translated(), self._snapshots.begin() as connection:
            return reading.profiles(connection, user_ids, held, self._model, self._dimension)

    def sizes(self, user_ids: Sequence[str]) -> npt.NDArray[np.int64]:
        """(n,): how many live assets each of n users has."""
        with sessions.translated(), self._reads.connect() as connection:
            return np.array(
                connection.scalars(sql.SIZES, {"user_ids": list(user_ids), "model": self._model}).all(), np.int64
            )

    def backlog(self) -> Backlog:
        """What is still to be announced; cheap enough for a metric."""
        with sessions.translated(), self._reads.connect() as connection:
            return Backlog(*connection.execute(sql.BACKLOG).one())

    def statistics(self) -> Statistics:
        """Counts of the truth; reads every asset's row, so not for a metric."""
        with sessions.translated(), self._reads.connect() as connection:
            counts: dict[str | None, int] = dict(connection.execute(sql.COUNT_ASSETS).all())
            users: int = connection.scalars(sql.COUNT_USERS).one()
        tombstones = counts.pop(None, 0)
        live = {modality: count for modality, count in counts.items() if modality is not None}
        return Statistics(live, tombstones, users, self.backlog())

    @contextmanager
    def auditing(self) -> Iterator[Truth]:
        """Everything, in one snapshot, to hold what was published against; assets and users stream past once."""
        with sessions.translated(), self._snapshots.begin() as connection:
            unannounced_assets = frozenset(connection.scalars(sql.UNANNOUNCED_ASSETS))
            unannounced_users = frozenset(connection.scalars(sql.UNANNOUNCED_USERS))
            streaming = connection.execution_options(yield_per=_STREAMED_ROWS)
            assets = streaming.execute(sql.AUDIT_ASSETS, {"model": self._model})
            users = streaming.execute(sql.AUDIT_USERS, {"model": self._model})
            yield Truth(
                (
                    (asset_id, AssetState(revision, bytes(digest), owner))
                    for asset_id, revision, digest, owner in assets
                ),
                ((user_id, UserState(version, has_assets)) for user_id, version, has_assets in users),
                unannounced_assets,
                unannounced_users,
            )

    @contextmanager
    def everything(self) -> Iterator[Everything]:
        """All that is live, in one snapshot, to be read in pages; between two reads it may wait only so long."""
        with sessions.translated(), self._snapshots.begin() as connection:
            yield Everything(connection, self._model, self._dimension)

    def other_model(self) -> str | None:
        """A model other than this one that live assets are encoded by, if there is any; may read every row."""
        with sessions.translated(), self._reads.connect() as connection:
            return connection.scalars(sql.OTHER_MODEL, {"model": self._model}).first()

    def unannounced_assets(self) -> frozenset[str]:
        """Assets that are still to be announced."""
        with sessions.translated(), self._reads.connect() as connection:
            return frozenset(connection.scalars(sql.UNANNOUNCED_ASSETS))

    def announce_again(self, revisions: Mapping[str, int], versions: Mapping[str, int], received_at_ms: int) -> None:
        """Note assets and users as still to be announced, above what was published of them.

        Args:
            revisions: By asset the greatest revision that was published; assets without a row are announced as removed.
            versions: By user the greatest version that was published.
            received_at_ms: From when on the users' refreshes count as under way.
        """

        def note(connection: sa.Connection) -> None:
            connection.execute(sql.RAISE_VERSIONS, {"user_ids": list(versions), "versions": list(versions.values())})
            connection.execute(
                sql.RAISE_REVISIONS,
                {"asset_ids": list(revisions), "revisions": list(revisions.values()), "never": NS_MIN},
            )
            connection.execute(sql.MARK_ASSETS, {"asset_ids": list(revisions)})
            connection.execute(
                sql.MARK_USERS, {"user_ids": list(versions), "received": [received_at_ms] * len(versions)}
            )

        sessions.attempt(self._engine, self._attempts_max, note)

    def dead_letters_done(self, topic: str) -> dict[int, int]:
        """Up to which offset the dead letters in a topic, as it is identified, were dealt with; by partition."""
        with sessions.translated(), self._reads.connect() as connection:
            return dict(connection.execute(sql.DEAD_LETTERS_DONE, {"topic": topic}).all())

    def note_dead_letters(self, topic: str, positions: Mapping[int, int]) -> None:
        """Note them as dealt with up to these offsets; where more was noted before, that stays."""
        noted = {"topic": topic, "partitions": list(positions), "positions": list(positions.values())}
        sessions.attempt(self._engine, self._attempts_max, lambda found: found.execute(sql.NOTE_DEAD_LETTERS, noted))

    def _decide(self, connection: sa.Connection, batch: Batch) -> Changes:
        """Lock the users and the assets of a batch, and decide what it changes."""
        deletions = batch.user_deletions
        asset_ids = list(batch.writes)
        users = connection.execute(sql.LOCK_USERS, {"user_ids": list(batch.user_ids), "asset_ids": asset_ids})
        deleted_at_ns: dict[str, int | None] = dict(users.all())
        put = sorted((batch.user_ids - deleted_at_ns.keys()) | deletions.keys())
        if put:
            deleted = [deletions[user_id].occurred_at_ns if user_id in deletions else None for user_id in put]
            users = connection.execute(sql.PUT_USERS, {"user_ids": put, "deleted": deleted})
            deleted_at_ns.update(users.all())
        assets = connection.execute(sql.LOCK_ASSETS, {"asset_ids": asset_ids, "deleted_users": list(deletions)})
        standing = {
            asset_id: Register(owner, Rank(at_ns, deleted, event_id, bytes(tie_break)), revision)
            for asset_id, owner, revision, at_ns, deleted, event_id, tie_break in assets
        }
        if not deleted_at_ns.keys() >= {register.user_id for register in standing.values()} - {None}:
            raise sessions.ConflictError("an asset changed its owner between two statements")
        return decide(batch, standing, deleted_at_ns)

    def _store(self, connection: sa.Connection, changes: Changes, vectors: npt.NDArray[np.float16]) -> None:
        """Put the rows in place of those that stand, note what is to be announced and count the versions up.

        Old rows are deleted and all are copied in: one way for new and changed assets, and three times as fast as an
        upsert. A transaction that waited for a deleted row takes the asset for new, meets the unique key and is tried
        again.
        """
        if not changes.rows:
            return
        replaced = [row.asset_id for row in changes.rows if row.revision > 1]
        if replaced:
            connection.execute(sql.DELETE_ASSETS, {"asset_ids": replaced})
        sessions.copy_in(connection, sql.COPY_ASSETS, self._dump(changes.rows, vectors))
        connection.execute(sql.MARK_ASSETS, {"asset_ids": list(changes.announced)})
        connection.execute(
            sql.MARK_USERS,
            {"user_ids": list(changes.received_at_ms), "received": list(changes.received_at_ms.values())},
        )

    def _dump(self, rows: Sequence[Row], vectors: npt.NDArray[np.float16]) -> bytes:
        """Rows as `COPY_ASSETS` takes them."""
        raw = np.ascontiguousarray(vectors, "<f2")
        asset_ids, user_ids, modalities, places, revisions, rows_of_vectors = zip(*rows, strict=True)
        occurred, deleted, event_ids, tie_breaks = zip(*places, strict=True)
        return binary.dump(
            binary.texts(asset_ids),
            binary.texts(user_ids),
            binary.texts(modalities),
            binary.texts(None if row is None else self._model for row in rows_of_vectors),
            binary.bigints(occurred),
            binary.booleans(deleted),
            binary.texts(event_ids),
            binary.byteas(tie_breaks),
            binary.bigints(revisions),
            binary.byteas(None if row is None else raw[row].tobytes() for row in rows_of_vectors),
        )

    @contextmanager
    def _locked(
        self, lock_assets: sa.TextClause, lock_users: sa.TextClause, parameters: Mapping[str, object]
    ) -> Iterator[Announcement]:
        """Lock marks, give what they announce, and delete them."""
        with sessions.translated(), self._engine.begin() as connection:
            asset_ids = connection.scalars(lock_assets, parameters).all()
            received_at_ms: dict[str, int] = dict(connection.execute(lock_users, parameters).all())
            announcement = self._announcement(connection, asset_ids, received_at_ms)
            yield announcement
            announced = {
                "asset_ids": list(announcement.embeddings.asset_ids),
                "user_ids": [change.user_id for change in announcement.changes],
            }
            connection.execute(sql.CLEAR_MARKS, announced)

    def _announcement(
        self, connection: sa.Connection, asset_ids: Sequence[str], received_at_ms: Mapping[str, int]
    ) -> Announcement:
        """The newest state of assets and users whose marks are locked, which no one can change until they are not.

        It is read after the marks are locked, in statements of its own: a statement that waits for a lock gives the
        locked row as it is by then, but what it joins to it as it was before.
        """
        embeddings = reading.states(connection, asset_ids, self._model, self._dimension)
        versions = connection.execute(sql.VERSIONS, {"user_ids": list(received_at_ms)})
        changes = [ProfileChanged(user_id, version, received_at_ms[user_id]) for user_id, version in versions]
        return Announcement(embeddings, changes)
