"""Bring a database to the newest schema, or tell that it is not there yet.

A URL comes in. It does not know what the migrations do: they stand in `migrations/`, which the wheel carries along.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from zccr_stream.ownership.sessions import translated


class NotMigratedError(Exception):
    """The database lacks tables that this code needs, or the migrations are not installed; says what to do."""


def migrate(database_url: str) -> None:
    """Bring the database to the newest schema; several at once wait for each other, and one that is there is left be.

    Raises:
        UnavailableError: PostgreSQL is away, or another session held a lock for too long; nothing is half done.
    """
    with translated():
        command.upgrade(config(database_url), "head")


def check_migrated(engine: sa.Engine) -> None:
    """Refuse a database that lacks migrations this code needs; one that is ahead is fine (expand, deploy, contract).

    Raises:
        NotMigratedError: says which revision the database has and what to run.
        UnavailableError: PostgreSQL is away.
    """
    script = ScriptDirectory.from_config(config(None))
    with translated(), engine.connect() as connection:
        revision = MigrationContext.configure(connection).get_current_revision()
    behind = {step.revision for step in script.walk_revisions()} - {script.get_current_head()}
    if revision is None or revision in behind:
        raise NotMigratedError(
            f"the database is at revision {revision}, not {script.get_current_head()}: run `zccr-stream migrate`"
        )


def config(database_url: str | None) -> Config:
    """Alembic's configuration; None leaves the URL to the settings."""
    package = importlib.util.find_spec("migrations")
    if package is None or package.origin is None:
        raise NotMigratedError(
            "the package `migrations` is not installed: install the zccr-stream wheel, or run from its folder"
        )
    configuration = Config()
    # Alembic reads `%` in a path as interpolation.
    configuration.set_main_option("script_location", str(Path(package.origin).parent).replace("%", "%%"))
    configuration.attributes["database_url"] = database_url
    return configuration
