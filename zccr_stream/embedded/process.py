"""A server as a child process that ends with its owner, under a small keeper process of its own.

Comes in: a command and how to stop it. Goes out: a running server, or an error that shows its log's tail.
It does not know what the server is. Children are tied to processes, not threads (the keeper holds the tie), so any
thread may start or stop one.
"""

import importlib.util
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

_KEEPER = Path(__file__).with_name("keeper.py")
_TAIL_LINES = 25
_LOG_MAX_BYTES = 16 * 1024 * 1024  # looked at when a server starts
_TAIL_BYTES = 16_384
_POLL_S = 0.02


class EmbeddedError(Exception):
    """An embedded server could not be installed, started or reached; the message says what to do."""


class Child:
    """One server under its keeper: start, wait until it answers, stop, kill."""

    def __init__(
        self,
        name: str,
        *,
        log: Path,
        stop_signal: signal.Signals,
        death_signal: signal.Signals,
        grace_s: float,
        remove: Path | None = None,
    ) -> None:
        """Describe the server; nothing runs yet.

        Args:
            name: What messages call it.
            log: Where its output is appended.
            stop_signal: What asks it to stop.
            death_signal: What the kernel sends it should its keeper be killed.
            grace_s: Seconds from `stop_signal` to SIGKILL.
            remove: A folder that the keeper removes once the owner has died without `stop()`.
        """
        self._name = name
        self._log = log
        self._options = [
            f"--stop-signal={stop_signal.value}",
            f"--death-signal={death_signal.value}",
            f"--grace-s={grace_s}",
        ]
        if remove is not None:
            self._options.append(f"--remove={remove}")
        self._keeper: subprocess.Popen[str] | None = None
        self._pid = 0

    @property
    def pid(self) -> int:
        """The server's process id; raises `EmbeddedError` when it does not run."""
        if not self.running:
            raise EmbeddedError(f"{self._name} is not running")
        return self._pid

    @property
    def running(self) -> bool:
        """Whether the server runs."""
        return self._keeper is not None and self._keeper.poll() is None

    def require_stopped(self) -> None:
        """Raise `EmbeddedError` when the server runs."""
        if self.running:
            raise EmbeddedError(f"{self._name} is already running")

    def start(
        self,
        command: list[str],
        answers: Callable[[], bool],
        *,
        timeout_s: float,
        environment: dict[str, str] | None = None,
    ) -> None:
        """Run the command in its log's folder and wait until `answers()`; on failure nothing is left running."""
        self.require_stopped()
        deadline = time.monotonic() + timeout_s
        if self._log.exists() and self._log.stat().st_size > _LOG_MAX_BYTES:
            self._log.replace(self._log.with_suffix(".log.old"))
        with self._log.open("ab") as log:
            keeper = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_KEEPER), f"--owner={os.getpid()}", *self._options, "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=self._log.parent,
                env=environment,
                start_new_session=True,  # Ctrl-C in a terminal reaches the owner alone, which then stops them
            )
        self._keeper = keeper
        try:
            assert keeper.stdout is not None
            with keeper.stdout as pid:
                self._pid = int(pid.readline() or 0)
            self._wait(keeper, answers, deadline, timeout_s)
        except BaseException:
            self.kill()
            raise

    def _wait(
        self, keeper: subprocess.Popen[str], answers: Callable[[], bool], deadline: float, timeout_s: float
    ) -> None:
        while not answers():
            if (status := keeper.poll()) is not None:
                raise EmbeddedError(f"{self._name} ended with status {status} while starting; {self.tail()}")
            if time.monotonic() > deadline:
                raise EmbeddedError(f"{self._name} did not answer within {timeout_s:g} s; {self.tail()}")
            time.sleep(_POLL_S)

    def check(self) -> None:
        """Raise `EmbeddedError`, with the log's tail, when the server was started and has ended by itself."""
        if self._keeper is not None and (status := self._keeper.poll()) is not None:
            raise EmbeddedError(f"{self._name} ended by itself with status {status}; {self.tail()}")

    def stop(self) -> None:
        """Stop the server in order, or by force once its grace is over; does nothing when it does not run."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL the server and all its processes, as a crash would."""
        self._end(signal.SIGUSR1)

    def _end(self, order: signal.Signals) -> None:
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.send_signal(order)
            keeper.wait()

    def tail(self) -> str:
        """The end of the server's log, for an error message."""
        try:
            with self._log.open("rb") as log:
                log.seek(0, os.SEEK_END)
                log.seek(max(0, log.tell() - _TAIL_BYTES))
                lines = log.read().decode(errors="replace").splitlines()
        except OSError as error:
            return f"its log {self._log} cannot be read ({error.strerror})"
        if not lines:
            return f"its log {self._log} is empty"
        return "\n".join([f"the end of its log {self._log}:", *lines[-_TAIL_LINES:]])


def package(name: str, *, server: str, variable: str) -> Path:
    """The folder of an installed package, found without importing it.

    Raises:
        EmbeddedError: It is not installed; says which extra to install, or which variable names a running server.
    """
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise EmbeddedError(
            f"the embedded {server} is not installed: pip install 'zccr-stream[demo]', "
            f"or name a {server} that runs already in {variable}"
        )
    return Path(spec.origin).parent


def choose_port(folder: Path, wanted: int) -> int:
    """The wanted port, else (0) the one remembered in the folder while nothing listens there, else a free one."""
    note = folder / "port"
    if wanted:
        if in_use(wanted):
            raise EmbeddedError(f"port {wanted} is taken on 127.0.0.1: stop what listens there, or choose another port")
        return wanted
    kept = note.read_text().strip() if note.exists() else ""
    if kept.isdecimal() and 1024 <= int(kept) <= 65535 and not in_use(int(kept)):
        return int(kept)
    port = free_port()
    note.write_text(f"{port}\n")
    return port


def free_port() -> int:
    """A TCP port that nothing on this machine listens on now.

    Below the range from which the system takes ports for outgoing connections: there a port would be safe only while
    the server holds it, and a client that keeps calling a server that is down could even end up connected to itself.
    """
    for port in random.SystemRandom().sample(range(15_000, 32_000), 200):
        if not in_use(port):
            return port
    raise EmbeddedError("found no free TCP port between 15000 and 32000 on 127.0.0.1")


def in_use(port: int) -> bool:
    """Whether the loopback port cannot be bound."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False
