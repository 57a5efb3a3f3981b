"""Run by Alembic: connect, wait for whoever else is migrating, and run each step in a transaction of its own.

The URL comes from the caller (`Config.attributes`), else from the settings.
"""

import sqlalchemy as sa
from alembic import context

from zccr_stream.tables import metadata

# Any number that no other program uses for an advisory lock in the same database.
_LOCK = 7_267_727_001
_WAIT_FOR_OTHERS = "10min"
# A step that waits for a lock makes everyone behind it wait too: it gives up early and is run again.
_LOCK_TIMEOUT = "4s"
_STATEMENT_TIMEOUT = "5min"


def _database_url() -> str:
    url: str | None = context.config.attributes.get("database_url")
    if url is None:
        from zccr_stream.settings import Settings  # only here: whoever hands in a URL needs no settings

        url = Settings().database_url
    return url


def _migrate(connection: sa.Connection) -> None:
    """The lock is the session's, so that it spans the steps' transactions; it goes with the connection."""
    connection.exec_driver_sql(f"SET lock_timeout = '{_WAIT_FOR_OTHERS}'")
    connection.exec_driver_sql(f"SELECT pg_advisory_lock({_LOCK})")
    connection.exec_driver_sql(f"SET lock_timeout = '{_LOCK_TIMEOUT}'")
    connection.exec_driver_sql(f"SET statement_timeout = '{_STATEMENT_TIMEOUT}'")
    connection.commit()
    context.configure(
        connection=connection,
        target_metadata=metadata,
        transaction_per_migration=True,
        compare_server_default=True,
    )
    with context.begin_transaction():
        context.run_migrations()


if context.is_offline_mode():
    raise NotImplementedError("SQL scripts are not written: `zccr-stream migrate` runs the steps on the database")

_engine = sa.create_engine(_database_url(), poolclass=sa.NullPool, connect_args={"application_name": "zccr-migrate"})
with _engine.connect() as _connection:
    _migrate(_connection)
