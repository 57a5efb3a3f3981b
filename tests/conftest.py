"""Servers for every test that asks for them: those that the environment names, else embedded ones, started once."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import settings

from tests.installation import Installation, installation
from zccr_stream.embedded import Embedded
from zccr_stream.ownership import migrate

# How long one example takes says more about the machine than about the code.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

_START_TIMEOUT_S = 150.0  # a machine that does much else at the same time


@pytest.fixture(scope="session")
def embedded(request: pytest.FixtureRequest) -> Iterator[Embedded]:
    """The embedded servers that some test of this session needs and the environment does not name."""
    asked = {name for item in request.session.items for name in getattr(item, "fixturenames", ())}
    kafka = "bootstrap_servers" in asked and "ZCCR_BOOTSTRAP_SERVERS" not in os.environ
    postgres = "database_url" in asked and "ZCCR_DATABASE_URL" not in os.environ
    with Embedded(kafka=kafka, postgres=postgres, start_timeout_s=_START_TIMEOUT_S) as servers:
        yield servers


@pytest.fixture(scope="session")
def bootstrap_servers(request: pytest.FixtureRequest) -> str:
    """Address of a Kafka broker shared by all tests: keep apart by `topic_prefix`."""
    named = os.environ.get("ZCCR_BOOTSTRAP_SERVERS")
    return named or _embedded(request).bootstrap_servers


@pytest.fixture(scope="session")
def database_url(request: pytest.FixtureRequest) -> str:
    """URL of a PostgreSQL database in which a test may create databases of its own."""
    named = os.environ.get("ZCCR_DATABASE_URL")
    return named or _embedded(request).database_url


@pytest.fixture(scope="session")
def template_database(database_url: str) -> Iterator[str]:
    """Name of a migrated database, made once, to clone per test."""
    name = f"zccr_template_{uuid.uuid4().hex[:12]}"
    _run(database_url, f"CREATE DATABASE {name} TEMPLATE template0")
    migrate(_named(database_url, name))
    yield name
    _run(database_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def database(database_url: str, template_database: str) -> Iterator[str]:
    """URL of a migrated database that no other test sees."""
    name = f"zccr_test_{uuid.uuid4().hex[:12]}"
    _run(database_url, f"CREATE DATABASE {name} TEMPLATE {template_database} STRATEGY file_copy")
    yield _named(database_url, name)
    _run(database_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def topic_prefix() -> str:
    """Prefix of this test's topics and groups, which no other test has."""
    return f"t{uuid.uuid4().hex[:12]}-"


@pytest.fixture
def installed(
    bootstrap_servers: str, database: str, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Installation]:
    """A whole installation of this test's own; its consumers are started by the test."""
    with installation(bootstrap_servers, database, topic_prefix, tmp_path) as running:
        # The commands that a test runs read these, too.
        for name, value in running.environment.items():
            monkeypatch.setenv(name, value)
        yield running


def _embedded(request: pytest.FixtureRequest) -> Embedded:
    servers = request.getfixturevalue("embedded")
    assert isinstance(servers, Embedded)
    return servers


def _named(database_url: str, database: str) -> str:
    return sa.make_url(database_url).set(database=database).render_as_string(hide_password=False)


def _run(database_url: str, statement: str) -> None:
    engine = sa.create_engine(database_url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.execute(sa.text(statement))
