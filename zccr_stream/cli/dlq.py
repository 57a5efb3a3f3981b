"""Dead letters: what was refused and why, and back to where it came from."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from zccr_stream import assemble, oversight
from zccr_stream.cli.showing import shown
from zccr_stream.events import DeadLetter, Message, Record, format_time, parse_dead_letter, restore_dead_letter
from zccr_stream.parts import MessageTooLargeError, Publisher
from zccr_stream.settings import Settings

_SHOWN_CHARS = 300
_MS_MAX = 253_402_300_799_999  # the end of the year 9999: a producer may claim any time


class Stage(StrEnum):
    """Where a record was refused."""

    PARSE = "parse"
    FETCH = "fetch"
    DECODE = "decode"
    ENCODE = "encode"


def dlq(
    replay: Annotated[
        bool,
        typer.Option(
            "--replay",
            help="Publish them again where they came from, and note all as dealt with, also those that are not whole.",
        ),
    ] = False,
    done: Annotated[bool, typer.Option("--done", help="Note them as dealt with, without publishing them.")] = False,
    stages: Annotated[
        list[Stage] | None,
        typer.Option("--stage", help="Only those that failed at this stage; repeatable. Nothing is noted then."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also those that were dealt with before.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="How many of the newest are shown.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="As JSON, for machines.")] = False,
) -> None:
    """Show the dead letters: what was refused, where, and why. `--replay` gives them another try.

    Replaying is safe: a write that has been overtaken since changes nothing. After an outage of a store,
    `zccr-stream dlq --replay --stage fetch` brings back what ran out of attempts; look at the rest, and `--done` notes
    all of them. Replay while the consumers run: records keep their time, and a topic may soon drop one that is older
    than its retention.
    """
    if done and stages:
        raise typer.BadParameter("--done notes all letters up to the newest, whatever their stage: leave --stage out")
    settings = Settings()
    seen = _Seen(stages, limit)
    truth = assemble.ownership(settings)
    out = assemble.publisher(settings) if replay else None
    try:
        truth.check()
        for topic in oversight.DEAD_LETTER_TOPICS:

            def take(records: Sequence[Record], topic: str = topic) -> None:
                whole = seen.take(topic, records)
                if out is not None:
                    seen.replayed += _replay(out, topic, whole)

            noted = done or (replay and not stages)
            oversight.dead_letters(settings, truth, topic, take, again=everything, done=noted)
    finally:
        truth.close()
        if out is not None:
            out.close(5)
    console = Console(soft_wrap=True)
    if json:
        console.print_json(data=seen.summary())
        return
    if seen.newest:
        console.print(seen.table())
    console.print(seen.sentence(replay, done, everything), highlight=False)


def _replay(out: Publisher, topic: str, whole: Sequence[Record]) -> int:
    """Publish a batch again where it came from; how many of it, as one may be larger than it may be published."""
    messages = [restore_dead_letter(record, topic) for record in whole]
    try:
        out.publish(messages)
    except MessageTooLargeError:
        return sum(_replay_one(out, message) for message in messages)
    return len(messages)


def _replay_one(out: Publisher, message: Message) -> bool:
    try:
        out.publish([message])
    except MessageTooLargeError:
        return False
    return True


class _Seen:
    """What went by: counts of all, and the newest few by the records' own time."""

    def __init__(self, stages: Sequence[str] | None, limit: int) -> None:
        self._stages = stages
        self._limit = limit
        self._counts: Counter[tuple[str, str]] = Counter()
        self._shortened = 0
        self.replayed = 0
        self.newest: list[tuple[DeadLetter, Record]] = []

    def take(self, topic: str, records: Sequence[Record]) -> list[Record]:
        """Count a batch of one topic's letters; those that match and can be replayed."""
        matching = [
            (letter, record)
            for letter, record in ((parse_dead_letter(record), record) for record in records)
            if not self._stages or letter.stage in self._stages
        ]
        self._counts.update((topic, letter.stage) for letter, _ in matching)
        self.newest = heapq.nlargest(self._limit, [*self.newest, *matching], key=lambda of: of[1].timestamp_ms)
        whole = [record for letter, record in matching if letter.whole]
        self._shortened += len(matching) - len(whole)
        return whole

    def table(self) -> Table:
        table = Table("time", "from", "stage", "tries", "key", "what was wrong")
        for letter, record in reversed(self.newest):
            table.add_row(
                _time(record),
                shown(f"{letter.topic} {letter.partition}@{letter.offset}"),
                shown(letter.stage),
                shown(letter.attempts),
                shown(_key(record)),
                shown(letter.message[:_SHOWN_CHARS]),
            )
        return table

    def sentence(self, replay: bool, done: bool, everything: bool) -> str:
        total = self._counts.total()
        if not total:
            return "no dead letters" if everything else "no dead letters that nobody has dealt with (--all: every one)"
        counts = ", ".join(f"{topic} {stage or 'unknown'} {count}" for (topic, stage), count in self._counts.items())
        said = f"{total} dead letter{'s' if total > 1 else ''}: {shown(counts)}"
        if replay:
            said += f"; {self.replayed} published again where they came from"
        elif done:
            said += "; noted as dealt with (--all shows them again)"
        else:
            said += "; `zccr-stream dlq --replay` gives them another try"
        left = total - self.replayed if replay else self._shortened
        if left:
            said += (
                f"; {left} cannot be replayed, being too large or not kept whole: the records are at the places above, "
                "for as long as their topics keep them"
            )
        return said

    def summary(self) -> dict[str, object]:
        return {
            "counts": [
                {"topic": topic, "stage": stage, "letters": count} for (topic, stage), count in self._counts.items()
            ],
            "replayed": self.replayed,
            "newest": [
                {"time": _time(record), "key": _key(record), **asdict(letter)} for letter, record in self.newest
            ],
        }


def _time(record: Record) -> str:
    return format_time(record.timestamp_ms * 1_000_000, digits=3) if 0 <= record.timestamp_ms <= _MS_MAX else ""


def _key(record: Record) -> str:
    return (record.key or b"").decode(errors="replace")
