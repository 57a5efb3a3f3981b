"""Threads beside the main loop: the first failure of any of them stops the process, uncommitted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from zccr_stream.parts import UnavailableError

logger = logging.getLogger(__name__)


class Background:
    """Daemon threads with one fate: `check` raises what the first of them raised."""

    def __init__(self) -> None:
        self._failure: BaseException | None = None
        self._threads: list[threading.Thread] = []

    def start(self, name: str, work: Callable[[], object]) -> None:
        """Run `work` in a thread of its own."""

        def run() -> None:
            try:
                work()
            except BaseException as failure:
                logger.exception("%s failed", name)
                self._failure = self._failure or failure

        thread = threading.Thread(target=run, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def every(self, interval_s: float, name: str, work: Callable[[], object], stop: threading.Event) -> None:
        """Run `work` every so often until `stop`; an outage is waited out."""

        def repeat() -> None:
            while not stop.wait(interval_s):
                try:
                    work()
                except UnavailableError as outage:
                    logger.warning("%s: %s", name, outage)

        self.start(name, repeat)

    def check(self) -> None:
        """Raise what a thread raised, if one did."""
        if self._failure is not None:
            raise self._failure

    def join(self, timeout_s: float) -> None:
        """Wait for the threads to end."""
        for thread in self._threads:
            thread.join(timeout_s)
