"""Connections to PostgreSQL, transactions tried again where others got in the way, and errors translated once.

A URL and limits come in; transactions go out, and `UnavailableError` where PostgreSQL is away, too slow or overloaded.
Any other error of the database is a bug of ours and passes through. It does not know any table.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import sqlalchemy as sa
import tenacity

from zccr_stream import metrics
from zccr_stream.parts import UnavailableError

Result = TypeVar("Result")

# Connection, resources, shutdown and system errors; deadlock and serialization; lock, statement and idle time-outs; a
# standby that was not promoted yet. https://www.postgresql.org/docs/current/errcodes-appendix.html
_UNAVAILABLE = ("08", "53", "57", "58", "40", "55P03", "25P03", "25006")
# Deadlock, serialization failure, and a unique key that another transaction was quicker to insert.
_CONFLICTS = ("40P01", "40001", "23505")
# A vanished peer is noticed after 30 + 3 x 10 s, instead of the operating system's two hours.
_KEEPALIVE = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}


class ConflictError(Exception):
    """Another transaction changed what this one had read: it is tried again from the start."""


def connect(
    database_url: str,
    *,
    pool_size: int,
    connect_timeout_s: int,
    statement_timeout_ms: int,
    lock_timeout_ms: int,
    idle_timeout_ms: int,
) -> sa.Engine:
    """An engine; nothing is connected yet. A connection that the server ended is replaced when next taken.

    Args:
        database_url: SQLAlchemy URL, driver psycopg2; libpq options in it win over the limits here.
        pool_size: Most connections; more threads than that wait for one.
        connect_timeout_s: How long one attempt to connect may take.
        statement_timeout_ms: How long a statement may take, and how long a thread waits for a connection.
        lock_timeout_ms: How long a statement waits for a lock.
        idle_timeout_ms: How long a transaction may stand idle, its locks held, before the server ends it.
    """
    url = sa.make_url(database_url)
    if url.get_driver_name() != "psycopg2":
        raise ValueError(f"database URL: expected postgresql+psycopg2://…, not {url.drivername}://…")
    limits = {
        "statement_timeout": statement_timeout_ms,
        "lock_timeout": lock_timeout_ms,
        "idle_in_transaction_session_timeout": idle_timeout_ms,
    }
    options = " ".join([*(f"-c {name}={value}" for name, value in limits.items()), str(url.query.get("options", ""))])
    return sa.create_engine(
        url,
        pool_size=pool_size,
        max_overflow=0,
        pool_timeout=statement_timeout_ms / 1000,
        pool_pre_ping=True,
        connect_args={
            "connect_timeout": connect_timeout_s,
            "options": options.strip(),
            "application_name": "zccr-stream",
            "client_encoding": "utf8",
            **_KEEPALIVE,
        },
    )


@contextmanager
def translated() -> Iterator[None]:
    """Errors of the database that pass by themselves become `UnavailableError`, cause kept."""
    try:
        yield
    except ConflictError as error:
        raise UnavailableError(f"PostgreSQL: {error}, on every try") from error
    except sa.exc.TimeoutError as error:
        raise UnavailableError(f"PostgreSQL: no free connection: {error}") from error
    except sa.exc.DBAPIError as error:
        if not _is_passing(error):
            raise
        raise UnavailableError(f"PostgreSQL: {str(error.orig).strip()}") from error


def attempt(engine: sa.Engine, attempts_max: int, work: Callable[[sa.Connection], Result]) -> Result:
    """Run work in a transaction and commit; from the start again where another transaction got in the way."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_conflict),
        stop=tenacity.stop_after_attempt(attempts_max),
        wait=tenacity.wait_random_exponential(multiplier=0.01, max=0.5),
        before_sleep=lambda _: metrics.database_retried(),
        reraise=True,
    )

    def once() -> Result:
        with engine.begin() as connection:
            return work(connection)

    with translated():
        return retrying(once)


def copy_in(connection: sa.Connection, statement: str, stream: bytes) -> None:
    """Send a COPY stream to the server."""
    with _driver_errors(connection):
        _cursor(connection).copy_expert(statement, io.BytesIO(stream))


def copy_out(connection: sa.Connection, statement: str, parameters: Mapping[str, object]) -> memoryview:
    """Fetch a COPY stream; parameters as psycopg2 writes them, `%(name)s`."""
    stream = io.BytesIO()
    with _driver_errors(connection):
        cursor = _cursor(connection)
        cursor.copy_expert(cursor.mogrify(statement, parameters), stream)
    return stream.getbuffer()


def _cursor(connection: sa.Connection) -> Any:
    """psycopg2's cursor: SQLAlchemy has no COPY."""
    return connection.connection.cursor()


@contextmanager
def _driver_errors(connection: sa.Connection) -> Iterator[None]:
    """psycopg2's errors become SQLAlchemy's, as those of every other statement do."""
    driver: Any = connection.dialect.loaded_dbapi
    try:
        yield
    except driver.Error as error:
        raise sa.exc.DBAPIError.instance(None, None, error, driver.Error, dialect=connection.dialect) from error


def _sqlstate(error: sa.exc.DBAPIError) -> str | None:
    state: str | None = getattr(error.orig, "pgcode", None)
    return state


def _is_conflict(error: BaseException) -> bool:
    return isinstance(error, ConflictError) or (isinstance(error, sa.exc.DBAPIError) and _sqlstate(error) in _CONFLICTS)


def _is_passing(error: sa.exc.DBAPIError) -> bool:
    state = _sqlstate(error)
    if state is None:  # the connection broke before the server could say anything
        return isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError) or error.connection_invalidated
    return state.startswith(_UNAVAILABLE) or state in _CONFLICTS
