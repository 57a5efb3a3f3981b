"""Dead letters: a record that failed -> the message that keeps it as it came, with why it failed, and back.

Header names are those of Kafka Streams (KIP-1034), so that tools made for its dead letters read these too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from zccr_stream.events.vocabulary import DEAD_LETTER_SUFFIX, BadInputError, Message, Record, TryLaterError

# Headers share the size limit of the record they are added to.
_MESSAGE_LENGTH_MAX = 1000
_SHORT_BYTES = 4096
_SHORT_HEADERS = 50
_REASON_PREFIXES = ("__streams.errors.", "zccr.errors.")
_SHORTENED = "zccr.errors.value_bytes"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What a dead letter says: where the record came from, which stage refused it and why, after how many attempts."""

    topic: str
    partition: str
    offset: str
    stage: str
    exception: str
    message: str
    attempts: str
    shortened: bool


def dump_dead_letter(record: Record, topic: str, error: BadInputError | TryLaterError, attempts: int) -> Message:
    """The record as it came, for the dead letters of `topic` (named without prefix).

    Args:
        record: what failed; its key, value, headers and timestamp are kept.
        topic: where it came from, without prefix.
        error: why, and at which stage.
        attempts: how often it was tried.
    """
    added = {
        "__streams.errors.exception": type(error).__name__,
        "__streams.errors.message": str(error)[:_MESSAGE_LENGTH_MAX],
        "__streams.errors.topic": record.topic,
        "__streams.errors.partition": str(record.partition),
        "__streams.errors.offset": str(record.offset),
        "zccr.errors.stage": error.stage,
        "zccr.errors.attempts": str(attempts),
    }
    # A dead letter that was published again and failed again says why it failed last.
    kept = tuple((name, value) for name, value in record.headers if name not in added)
    reasons = tuple((name, value.encode(errors="backslashreplace")) for name, value in added.items())
    timestamp_ms = record.timestamp_ms if record.timestamp_ms >= 0 else None
    return Message(topic + DEAD_LETTER_SUFFIX, record.key, record.value, kept + reasons, timestamp_ms)


def shorten_dead_letter(letter: Message) -> Message:
    """The dead letter of a record that is too large to be kept: its beginning, and how long its value was.

    The record itself stays where it came from, at the partition and offset that the headers name.
    """
    headers = tuple((name, None if value is None else value[:_SHORT_BYTES]) for name, value in letter.headers)
    reasons = tuple(header for header in headers if header[0].startswith(_REASON_PREFIXES))
    kept = tuple(header for header in headers if header not in reasons and len(header[0]) <= _SHORT_BYTES)
    length = (_SHORTENED, str(len(letter.value or b"")).encode())
    key = None if letter.key is None else letter.key[:_SHORT_BYTES]
    return replace(letter, key=key, value=None, headers=(*kept[:_SHORT_HEADERS], *reasons, length))


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
        shortened=_SHORTENED in said,
    )


def restore_dead_letter(record: Record, topic: str) -> Message:
    """The record as it came, for its own `topic` (named without prefix), with its key, value, headers and timestamp."""
    headers = tuple(header for header in record.headers if not header[0].startswith(_REASON_PREFIXES))
    timestamp_ms = record.timestamp_ms if record.timestamp_ms >= 0 else None
    return Message(topic, record.key, record.value, headers, timestamp_ms)
