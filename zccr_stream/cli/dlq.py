"""Dead letters: what was refused and why, and back to where it came from."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from zccr_stream import assemble, oversight
from zccr_stream.events import DeadLetter, Record, format_time, parse_dead_letter, restore_dead_letter
from zccr_stream.settings import Settings

_SHOWN_CHARS = 300
_MS_MAX = 253_402_300_799_999  # the end of the year 9999: a producer may claim any time


def dlq(
    replay: Annotated[
        bool, typer.Option("--replay", help="Publish them again where they came from, and note them as dealt with.")
    ] = False,
    stages: Annotated[
        list[str] | None,
        typer.Option(
            "--stage", help="Only those that failed at this stage (parse, fetch, decode, encode); repeatable."
        ),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also those that a replay has dealt with before.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="How many of the newest are shown.")] = 20,
    json: Annotated[bool, typer.Option("--json", help="As JSON, for machines.")] = False,
) -> None:
    """Show the dead letters: what was refused, where, and why. `--replay` gives them another try.

    Replaying is safe: a write that has been overtaken since changes nothing. After an outage of a store,
    `zccr-stream dlq --replay --stage fetch` brings back what ran out of attempts. A replay deals with all letters up to
    the newest, the ones that `--stage` leaves out included; `--all` finds those again. Replay while the consumers run:
    records keep their time, and a topic may soon drop one that is older than its retention.
    """
    settings = Settings()
    seen = _Seen(stages, limit)
    out = assemble.publisher(settings) if replay else None
    try:
        for topic in oversight.DEAD_LETTER_TOPICS:

            def take(records: Sequence[Record], topic: str = topic) -> None:
                whole = seen.take(topic, records)
                if out is not None:
                    out.publish([restore_dead_letter(record, topic) for record in whole])

            oversight.dead_letters(settings, topic, take, again=everything, done=replay)
    finally:
        if out is not None:
            out.close(5)
    console = Console(soft_wrap=True)
    if json:
        console.print_json(data=seen.summary(replay))
        return
    console.print(seen.table())
    console.print(seen.sentence(replay, everything), highlight=False)


class _Seen:
    """What went by: counts of all, and the newest few."""

    def __init__(self, stages: Sequence[str] | None, limit: int) -> None:
        self._stages = stages
        self._counts: Counter[tuple[str, str]] = Counter()
        self._shortened = 0
        self._newest: deque[tuple[DeadLetter, Record]] = deque(maxlen=limit)

    def take(self, topic: str, records: Sequence[Record]) -> list[Record]:
        """Count a batch of one topic's letters; those that match and can be replayed."""
        whole = []
        for record in records:
            letter = parse_dead_letter(record)
            if self._stages and letter.stage not in self._stages:
                continue
            self._counts[topic, letter.stage] += 1
            self._newest.append((letter, record))
            if letter.shortened:
                self._shortened += 1
            else:
                whole.append(record)
        return whole

    def table(self) -> Table:
        table = Table("time", "from", "stage", "tries", "key", "what was wrong")
        for letter, record in self._newest:
            table.add_row(
                _time(record),
                escape(f"{letter.topic} {letter.partition}@{letter.offset}"),
                escape(letter.stage),
                escape(letter.attempts),
                escape(_key(record)),
                escape(letter.message[:_SHOWN_CHARS]),
            )
        return table

    def sentence(self, replay: bool, everything: bool) -> str:
        total = self._counts.total()
        if not total:
            return (
                "no dead letters"
                if everything
                else "no dead letters that are not dealt with (--all: all that are kept)"
            )
        counts = ", ".join(f"{topic} {stage or 'unknown'} {count}" for (topic, stage), count in self._counts.items())
        said = f"{total} dead letter{'s' if total > 1 else ''}: {escape(counts)}"
        if replay:
            said += f"; {total - self._shortened} published again where they came from"
        else:
            said += "; `zccr-stream dlq --replay` gives them another try"
        if self._shortened:
            said += (
                f"; {self._shortened} were too large to be kept whole and cannot be replayed: the records are at the "
                "places above, for as long as their topics keep them"
            )
        return said

    def summary(self, replay: bool) -> dict[str, object]:
        return {
            "counts": [
                {"topic": topic, "stage": stage, "letters": count} for (topic, stage), count in self._counts.items()
            ],
            "replayed": self._counts.total() - self._shortened if replay else 0,
            "newest": [
                {"time": _time(record), "key": _key(record), **asdict(letter)} for letter, record in self._newest
            ],
        }


def _time(record: Record) -> str:
    return format_time(record.timestamp_ms * 1_000_000, digits=3) if 0 <= record.timestamp_ms <= _MS_MAX else ""


def _key(record: Record) -> str:
    return (record.key or b"").decode(errors="replace")
