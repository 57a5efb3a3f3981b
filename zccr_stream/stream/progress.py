"""How far a consumer is: its partitions, the records on their way, and what waits within bounds of number and bytes.

Pure bookkeeping of one thread: knows neither Kafka's client nor what is done with a record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field

from zccr_stream.events import Record


@dataclass(eq=False, slots=True)
class Partition:
    """How far a partition is done, for as long as it is assigned; `retrying` counts what waits for another try."""

    topic: str
    number: int
    position: int | None = None
    unfinished: set[int] = field(default_factory=set)
    committed: int | None = None
    retrying: int = 0

    def committable(self) -> int | None:
        """The offset to commit: everything before it is finished."""
        return min(self.unfinished, default=self.position)


@dataclass(eq=False, slots=True)
class Entry:
    """A record on its way: how often it was tried and when it is due again."""

    record: Record
    partition: Partition
    attempts: int = 0
    due_s: float = 0.0

    @property
    def size_bytes(self) -> int:
        """What it takes in memory, roughly."""
        headers = sum(len(name) + len(value or b"") for name, value in self.record.headers)
        return len(self.record.key or b"") + len(self.record.value or b"") + headers


@dataclass(eq=False, slots=True)
class Batch:
    """What a worker works on since `started_s`; `retries` or `failure` say how it ended."""

    entries: list[Entry]
    started_s: float
    retries: list[Entry] = field(default_factory=list)
    failure: BaseException | None = None

    def touches(self, partitions: Collection[Partition]) -> bool:
        """Whether a record of it is from one of these partitions."""
        return any(entry.partition in partitions for entry in self.entries)


class Waiting:
    """Entries that wait, oldest first, and the bytes they hold."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque()
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def add(self, entry: Entry) -> None:
        """Let an entry wait behind the others."""
        self._entries.append(entry)
        self.size_bytes += entry.size_bytes

    def take(self, count_max: int, which: Callable[[Entry], bool] = lambda _entry: True) -> list[Entry]:
        """Take out the oldest of those that may go, at most so many."""
        taken: list[Entry] = []
        kept: deque[Entry] = deque()
        while self._entries and len(taken) < count_max:
            entry = self._entries.popleft()
            (taken if which(entry) else kept).append(entry)
        self._entries.extendleft(reversed(kept))
        self.size_bytes -= sum(entry.size_bytes for entry in taken)
        return taken

    def forget(self, partitions: Collection[Partition]) -> None:
        """Take out whatever is from these partitions."""
        self.take(len(self), lambda entry: entry.partition in partitions)
