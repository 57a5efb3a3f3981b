import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.script import ScriptDirectory

from tests.waiting import wait_until
from zccr_stream.ownership import NotMigratedError, check_migrated, migrate
from zccr_stream.ownership.migrating import config
from zccr_stream.parts import UnavailableError
from zccr_stream.tables import metadata

DEADLINE_S = 60.0
ROOT = Path(__file__).parent.parent

New = Callable[..., sa.Engine]


@pytest.fixture
def new(database_url: str) -> Iterator[New]:
    """Make empty databases."""
    outside = sa.create_engine(database_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with ExitStack() as made:

        def run(statement: str) -> None:
            with outside.connect() as connection:
                connection.exec_driver_sql(statement)

        def make(options: str = "") -> sa.Engine:
            name = f"zccr_migrations_{uuid.uuid4().hex[:12]}"
            run(f"CREATE DATABASE {name} TEMPLATE template0 {options}")
            made.callback(run, f"DROP DATABASE {name} WITH (FORCE)")
            return sa.create_engine(sa.make_url(database_url).set(database=name), poolclass=sa.NullPool)

        yield make


def url(engine: sa.Engine) -> str:
    return engine.url.render_as_string(hide_password=False)


def ask(engine: sa.Engine, query: str) -> list[tuple[Any, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(sa.text(query))]


def schema(engine: sa.Engine) -> dict[str, list[tuple[Any, ...]]]:
    """Everything that PostgreSQL knows of the tables, as it says it itself."""
    ours = "relnamespace = 'public'::regnamespace AND relname <> 'alembic_version'"
    return {
        "tables": ask(engine, f"SELECT relname, reloptions FROM pg_class WHERE {ours} AND relkind = 'r' ORDER BY 1"),
        "columns": ask(
            engine,
            "SELECT relname, attnum, attname, atttypid::regtype::text, attcollation::regcollation::text, attnotnull, "
            "attstorage, pg_get_expr(adbin, adrelid) FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid "
            f"LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum WHERE {ours} AND relkind = 'r' "
            "AND attnum > 0 ORDER BY 1, 2",
        ),
        "indexes": ask(
            engine,
            "SELECT pg_get_indexdef(indexrelid) FROM pg_index JOIN pg_class ON pg_class.oid = indrelid "
            f"WHERE {ours} ORDER BY 1",
        ),
        "constraints": ask(
            engine,
            "SELECT relname, conname, pg_get_constraintdef(pg_constraint.oid) FROM pg_constraint "
            f"JOIN pg_class ON pg_class.oid = conrelid WHERE {ours} ORDER BY 1, 2",
        ),
    }


def test_the_migrated_schema_is_the_one_of_the_tables(new: New) -> None:
    """By Alembic's check, and by PostgreSQL's catalogue, which knows collations, storage and options too."""
    migrated, created = new(), new()
    migrate(url(migrated))
    command.check(config(url(migrated)))
    metadata.create_all(created)

    assert schema(migrated) == schema(created)
    assert [name for name, _ in schema(migrated)["tables"]] == sorted(metadata.tables)


def test_migrating_again_changes_nothing(new: New) -> None:
    engine = new()
    migrate(url(engine))
    before = schema(engine), ask(engine, "SELECT xmin::text FROM alembic_version")
    migrate(url(engine))

    assert (schema(engine), ask(engine, "SELECT xmin::text FROM alembic_version")) == before


def test_every_step_goes_back_and_forth(new: New) -> None:
    engine = new()
    migrate(url(engine))
    before = schema(engine)
    command.downgrade(config(url(engine)), "base")
    assert schema(engine)["tables"] == []
    migrate(url(engine))

    assert schema(engine) == before


def test_deployments_at_once_wait_for_each_other(new: New) -> None:
    """As processes: Alembic keeps what it migrates in a global. Started without our modules, which take seconds."""
    engine = new()
    program = """if True:
        import sys
        from alembic import command
        from alembic.config import Config
        config = Config(attributes={"database_url": sys.argv[1]})
        config.set_main_option("script_location", "migrations")
        command.upgrade(config, "head")
    """
    deployments = [
        subprocess.Popen([sys.executable, "-c", program, url(engine)], cwd=ROOT, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    ends = [(deployment.communicate(timeout=DEADLINE_S)[1], deployment.returncode) for deployment in deployments]

    assert ends == [("", 0)] * 3
    check_migrated(engine)


def test_a_deployment_waits_while_another_holds_the_lock(new: New) -> None:
    """Without waiting it would create what the other is about to create."""
    engine = new()
    waiting = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"

    with ThreadPoolExecutor(1) as pool:
        with engine.connect() as other:
            other.execute(sa.text("SELECT pg_advisory_lock(7267727001)"))
            deployment = pool.submit(migrate, url(engine))
            wait_until(lambda: ask(engine, waiting), DEADLINE_S, "the deployment waits")
            assert schema(engine)["tables"] == []
        deployment.result(DEADLINE_S)
    check_migrated(engine)


def test_a_step_that_fails_leaves_nothing(new: New) -> None:
    engine = new()
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE users (mine int)"))  # in the way of the second table

    with pytest.raises(sa.exc.ProgrammingError, match="users"):
        migrate(url(engine))
    assert [name for name, _ in schema(engine)["tables"]] == ["users"]


def test_a_database_that_is_behind_is_refused_and_one_that_is_ahead_is_not(new: New) -> None:
    engine = new()
    with pytest.raises(NotMigratedError, match="run `zccr-stream migrate`"):
        check_migrated(engine)
    migrate(url(engine))
    check_migrated(engine)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = 'of a later release'"))
    check_migrated(engine)


def test_an_encoding_that_cannot_hold_every_id_is_refused(new: New) -> None:
    engine = new("ENCODING 'SQL_ASCII' LOCALE 'C'")
    with pytest.raises(ValueError, match="create it with UTF8"):
        migrate(url(engine))


def test_a_server_that_is_away_is_no_bug() -> None:
    with pytest.raises(UnavailableError, match="refused"):
        migrate("postgresql+psycopg2://zccr@127.0.0.1:1/zccr")


def test_the_history_is_one_line() -> None:
    assert len(ScriptDirectory.from_config(config(None)).get_heads()) == 1


def test_the_url_comes_from_the_settings_where_no_one_hands_one_in(new: New, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = new()
    monkeypatch.setenv("ZCCR_DATABASE_URL", url(engine))
    command.upgrade(config(None), "head")

    check_migrated(engine)


def test_rows_of_before_the_tie_break_are_not_replaced_by_equal_writes(new: New) -> None:
    engine = new()
    command.upgrade(config(url(engine)), "0001")
    with engine.begin() as connection:
        columns = "asset_id, occurred_at_ns, deleted, event_id, revision"
        connection.execute(sa.text(f"INSERT INTO assets ({columns}) VALUES ('a', 1, false, 'e', 1)"))
    migrate(url(engine))

    assert ask(engine, "SELECT encode(tie_break, 'hex') FROM assets") == [("ff" * 32,)]
