"""What may be an identifier of an asset, a user or an event, and which numbers count their states. Pure."""

from __future__ import annotations

from hashlib import blake2b

ID_LENGTH_MAX = 255
EXPECTED_ID = f"a string of 1 to {ID_LENGTH_MAX} characters without control characters"
CONTROL = frozenset(map(chr, (*range(0x20), *range(0x7F, 0xA0), *range(0xD800, 0xE000))))
# Nothing counts that far, and a number above it would leave no room for the states that follow.
COUNT_MAX = 2**62
_DIGITS_MAX = 19


def is_identifier(value: str) -> bool:
    """Whether it is what `EXPECTED_ID` says."""
    return 1 <= len(value) <= ID_LENGTH_MAX and CONTROL.isdisjoint(value)


def read_identifier(value: str) -> str:
    """An identifier of an internal topic.

    Raises:
        ValueError: it is none.
    """
    if not is_identifier(value):
        raise ValueError(f"no identifier, expected {EXPECTED_ID}")
    return value


def lot(text: str) -> int:
    """A number below 2 ** 64 that stands for this text, as good as drawn, and the same everywhere."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def read_count(value: str | bytes) -> int:
    """A revision or version, as its digits.

    Raises:
        ValueError: anything but digits, or larger than any count of states.
    """
    if not (value.isascii() and value.isdigit() and len(value) <= _DIGITS_MAX):
        raise ValueError(f"no number of 1 to {_DIGITS_MAX} digits")
    count = int(value)
    if count > COUNT_MAX:
        raise ValueError("out of range")
    return count
