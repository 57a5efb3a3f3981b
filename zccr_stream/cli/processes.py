"""A consumer as a child process: started with its settings, asked for readiness, stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from zccr_stream.embedded.process import free_port

_PROBE_TIMEOUT_S = 5
_LOG_TAIL = 3000


class ProcessEndedError(Exception):
    """A consumer ended by itself; the message has the end of its log."""


@dataclass(frozen=True, slots=True)
class ConsumerProcess:
    """`python -m MODULE`, its metrics port and its log."""

    process: subprocess.Popen[bytes]
    port: int
    log: Path

    @classmethod
    def start(cls, module: str, *arguments: str, environment: Mapping[str, str], log: Path) -> ConsumerProcess:
        """Start it; it loads for some seconds before it is ready."""
        port = free_port()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                env={**os.environ, **environment, "ZCCR_METRICS_PORT": str(port)},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for the parent, which stops its children in order
            )
        return cls(process, port, log)

    def is_ready(self) -> bool:
        """Whether it answers that it is ready.

        Raises:
            ProcessEndedError: it does not run any more.
        """
        self.check()
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=_PROBE_TIMEOUT_S) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def check(self) -> None:
        """Raise `ProcessEndedError` where it ended by itself."""
        if self.process.poll() is not None:
            tail = self.log.read_text(errors="replace")[-_LOG_TAIL:]
            raise ProcessEndedError(f"{self.log.stem} ended with {self.process.returncode}:\n{tail}")

    def metrics(self) -> str:
        """Its metrics as Prometheus would scrape them."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=_PROBE_TIMEOUT_S) as answer:
            return str(answer.read().decode())

    def stop(self, timeout_s: float) -> int:
        """Ask it to stop and wait; the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.wait()

    def wait(self, timeout_s: float) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        return self.process.wait(timeout_s)

    def kill(self) -> None:
        """End it at once."""
        self.process.kill()
        self.process.wait()
