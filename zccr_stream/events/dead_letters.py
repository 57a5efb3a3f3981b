"""Dead letters: a record that failed -> the message that keeps it as it came, with why it failed.

Header names are those of Kafka Streams (KIP-1034), so that tools made for its dead letters read these too.
"""

from __future__ import annotations

from dataclasses import replace

from zccr_stream.events.vocabulary import DEAD_LETTER_SUFFIX, BadInputError, Message, Record, TryLaterError

# Headers share the size limit of the record they are added to.
_MESSAGE_LENGTH_MAX = 1000
_SHORT_BYTES = 4096
_SHORT_HEADERS = 50
_REASON_PREFIXES = ("__streams.errors.", "zccr.errors.")


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
    length = ("zccr.errors.value_bytes", str(len(letter.value or b"")).encode())
    key = None if letter.key is None else letter.key[:_SHORT_BYTES]
    return replace(letter, key=key, value=None, headers=(*kept[:_SHORT_HEADERS], *reasons, length))
