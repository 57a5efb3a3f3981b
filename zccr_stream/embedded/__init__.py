"""Apache Kafka and PostgreSQL as child processes, from package registries alone, for demo, tests and development.

Comes in: which of the two, and a data folder or none. Goes out: `bootstrap_servers` and `database_url` of servers that
answer, on loopback ports. Nothing of them outlives the process that started them, whatever ends it.
It does not know topics or tables.
"""

import logging
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path
from types import TracebackType
from typing import Self

from zccr_stream.embedded import jars
from zccr_stream.embedded.folder import DataFolder
from zccr_stream.embedded.kafka import Kafka, java
from zccr_stream.embedded.postgres import Postgres, binaries
from zccr_stream.embedded.process import EmbeddedError

__all__ = ["Embedded", "EmbeddedError", "Kafka", "Postgres", "require"]

START_TIMEOUT_S = 120.0
_LOCK_TIMEOUT_S = 15.0
_log = logging.getLogger(__name__)


def require(*, kafka: bool = True, postgres: bool = True) -> None:
    """Raise `EmbeddedError` with what to install when a wanted server is not installed; starts nothing."""
    if kafka:
        jars.require()
        java()
    if postgres:
        binaries()


class Embedded:
    """Kafka, PostgreSQL or both, from `start()` to `stop()`; also a context manager."""

    def __init__(
        self,
        *,
        kafka: bool = True,
        postgres: bool = True,
        data: Path | None = None,
        durable: bool = False,
        kafka_port: int = 0,
        postgres_port: int = 0,
        start_timeout_s: float = START_TIMEOUT_S,
        report: Callable[[str], None] = _log.info,
    ) -> None:
        """Say what to start; nothing runs yet.

        Args:
            kafka: Whether to start Kafka.
            postgres: Whether to start PostgreSQL.
            data: Folder that keeps everything for the next start; `None` for a temporary one.
            durable: Whether what was acknowledged survives a power cut (it survives a crash of the servers anyway);
                slower, so not for tests.
            kafka_port: Port on 127.0.0.1; 0 takes a free one.
            postgres_port: Likewise.
            start_timeout_s: Seconds until a server that does not answer counts as failed.
            report: Told in a line each what happens.
        """
        self._wanted = kafka, postgres
        self._data = data
        self._durable = durable
        self._ports = kafka_port, postgres_port
        self._timeout_s = start_timeout_s
        self._report = report
        self._folder: DataFolder | None = None
        self._kafka: Kafka | None = None
        self._postgres: Postgres | None = None

    @property
    def bootstrap_servers(self) -> str:
        """`host:port` of the broker."""
        return self.kafka.bootstrap_servers

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the database, password included."""
        return self.postgres.url

    @property
    def kafka(self) -> Kafka:
        """The broker, which can be killed, stopped and started alone."""
        if self._kafka is None:
            raise EmbeddedError("no Kafka was started here")
        return self._kafka

    @property
    def postgres(self) -> Postgres:
        """The database server, which can be killed, stopped and started alone."""
        if self._postgres is None:
            raise EmbeddedError("no PostgreSQL was started here")
        return self._postgres

    def start(self) -> Self:
        """Start what was asked for, side by side; on failure nothing is left running.

        Raises:
            EmbeddedError: Something is not installed, cannot be fetched, or did not answer in time.
        """
        if self._folder is not None:
            raise EmbeddedError("already started")
        kafka, postgres = self._wanted
        require(kafka=kafka, postgres=postgres)
        self._folder = DataFolder(self._data, timeout_s=_LOCK_TIMEOUT_S)
        try:
            self._describe(self._folder)
            self._start_all()
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """Stop in order what runs, and remove a temporary data folder; may be called at any time, and again."""
        for server in self._servers():
            server.stop()
        if self._folder is not None:
            self._folder.release()
            self._folder = None

    def check(self) -> None:
        """Raise `EmbeddedError`, with the log's tail, when a server has ended by itself."""
        for server in self._servers():
            server.check()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _describe(self, folder: DataFolder) -> None:
        kafka, postgres = self._wanted
        kafka_port, postgres_port = self._ports
        if kafka:
            self._kafka = Kafka(
                folder.path / "kafka",
                durable=self._durable,
                port=kafka_port,
                timeout_s=self._timeout_s,
                temporary=folder.temporary,
                cache=jars.default_cache(),
                report=self._report,
            )
        if postgres:
            self._postgres = Postgres(
                folder.path / "postgres",
                durable=self._durable,
                port=postgres_port,
                timeout_s=self._timeout_s,
                temporary=folder.temporary,
            )

    def _servers(self) -> list[Kafka | Postgres]:
        return [server for server in (self._kafka, self._postgres) if server is not None]

    def _start_all(self) -> None:
        servers = self._servers()
        pool = ThreadPoolExecutor(max(1, len(servers)))
        starts = [pool.submit(server.start) for server in servers]
        try:
            for start in wait(starts, return_when=FIRST_EXCEPTION).done:
                start.result()
        finally:
            while not all(start.done() for start in starts):  # after a failure or Ctrl-C: a killed start gives up
                for server in servers:
                    server.kill()
                wait(starts, timeout=0.1)
            pool.shutdown()
