"""Dead letters: a record that failed -> the message that keeps it as it came, with why it failed, and back.

Header names are those of Kafka Streams (KIP-1034), so that tools made for its dead letters read these too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from zccr_stream.events.vocabulary import DEAD_LETTER_SUFFIX, INPUT_TYPES, BadInputError, Message, Record, TryLaterError

# Headers share the size limit of the record they are added to.
_MESSAGE_LENGTH_MAX = 1000
_SHORT_BYTES = 4096
_SHORT_HEADERS = 50
_SHORTENED = "zccr.errors.value_bytes"
_UNREADABLE = "zccr.errors.headers"
_REASONS = frozenset(
    {
        *(f"__streams.errors.{name}" for name in ("exception", "message", "topic", "partition", "offset")),
        *(f"zccr.errors.{name}" for name in ("stage", "attempts")),
        _SHORTENED,
        _UNREADABLE,
    }
)

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What a dead letter says: where the record came from, which stage refused it and why, after how many attempts.

    `whole` is False where part of the record could not be kept: it cannot be published again as it came.
    """

    topic: str
    partition: str
    offset: str
    stage: str
    exception: str
    message: str
    attempts: str
    whole: bool


def dump_dead_letter(record: Record, topic: str, error: BadInputError | TryLaterError, attempts: int) -> Message:
    """The record as it came, for the dead letters of `topic` (named without prefix).

    Args:
        record: what failed; its key, value, headers and timestamp are kept.
        topic: where it came from, without prefix.
        error: why, and at which stage.
        attempts: how often it was tried.
    """
    reasons = {
        "__streams.errors.exception": type(error).__name__,
        "__streams.errors.message": str(error)[:_MESSAGE_LENGTH_MAX],
        "__streams.errors.topic": record.topic,
        "__streams.errors.partition": str(record.partition),
        "__streams.errors.offset": str(record.offset),
        "zccr.errors.stage": error.stage,
        "zccr.errors.attempts": str(attempts),
        **({} if record.has_readable_headers else {_UNREADABLE: "unreadable"}),
    }
    added = tuple((name, value.encode(errors="backslashreplace")) for name, value in reasons.items())
    # A dead letter that was published again as it stands and failed again says why it failed last.
    kept = _without_reasons(record.headers)
    timestamp_ms = record.timestamp_ms if record.timestamp_ms >= 0 else None
    return Message(topic + DEAD_LETTER_SUFFIX, record.key, record.value, kept + added, timestamp_ms)


def shorten_dead_letter(letter: Message) -> Message:
    """The dead letter of a record that is too large to be kept: its beginning, and how long its value was.

    The record itself stays where it came from, at the partition and offset that the headers name.
    """
    headers = tuple((name, None if value is None else value[:_SHORT_BYTES]) for name, value in letter.headers)
    kept = _without_reasons(headers)
    reasons = headers[len(kept) :]
    short = tuple(header for header in kept if len(header[0]) <= _SHORT_BYTES)
    length = (_SHORTENED, str(len(letter.value or b"")).encode())
    key = None if letter.key is None else letter.key[:_SHORT_BYTES]
    return replace(letter, key=key, value=None, headers=(*short[:_SHORT_HEADERS], *reasons, length))


def _without_reasons(headers: Headers) -> Headers:
    """The headers without those that were added behind them, each at most once; a record's own may bear such names."""
    kept, added = len(headers), set[str]()
    while kept and headers[kept - 1][0] in _REASONS - added:
        kept -= 1
        added.add(headers[kept][0])
    return headers[:kept]


def parse_dead_letter(record: Record) -> DeadLetter:
    """Read a record of a dead-letter topic; what it does not say is empty."""
    said = {name: (value or b"").decode(errors="replace") for name, value in record.headers}

    def reason(name: str) -> str:
        return said.get(f"__streams.errors.{name}", "")

    return DeadLetter(
        topic=reason("topic"),
        partition=reason("partition"),
        offset=reason("offset"),
        stage=said.get("zccr.errors.stage", ""),
        exception=reason("exception"),
        message=reason("message"),
        attempts=said.get("zccr.errors.attempts", ""),
        whole=said.keys().isdisjoint((_SHORTENED, _UNREADABLE)),
    )


def restore_dead_letter(record: Record, topic: str) -> Message:
    """The record as it came, for its own `topic` (named without prefix), with its key, value, headers and timestamp.

    A bare event's id is the place it came from. It is written down, so that it stays the same event at its new place,
    however often it is published again.
    """
    timestamp_ms = record.timestamp_ms if record.timestamp_ms >= 0 else None
    headers = _without_reasons(record.headers)
    letter = parse_dead_letter(record)
    said = {name.lower(): value for name, value in headers if value is not None}
    structured = said.get("content-type", b"").strip().lower().startswith(b"application/cloudevents")
    if topic in INPUT_TYPES and letter.offset and "ce_id" not in said and not structured:
        headers = (*headers, ("ce_id", f"{letter.topic}/{letter.partition}/{letter.offset}".encode()))
    return Message(topic, record.key, record.value, headers, timestamp_ms)
