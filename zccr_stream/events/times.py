"""RFC 3339 times <-> nanoseconds since 1970 in UTC, exact.

A string comes in and an int64 goes out, and back; `datetime` alone would stop at microseconds.
Knows nothing of events.
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta

EXPECTED = "an RFC 3339 time with its offset, such as '2026-11-23T12:00:00.5Z'"

_RFC_3339 = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:([Zz])|([+-])([0-9]{2}):([0-9]{2}))?"
)
_EPOCH = datetime(1970, 1, 1)  # UTC; naive, since that is written twice as fast
_EPOCH_DAY = _EPOCH.toordinal()
_DAY_S = 86_400
_SECOND_NS = 1_000_000_000
# The lowest int64 is left out: numpy reads it as "not a time".
NS_MIN, NS_MAX = -(2**63) + 1, 2**63 - 1
# A longer string is no time; the bound keeps a hostile one from costing anything.
_LENGTH_MAX = 64


def parse_time(text: str) -> int:
    """Read an RFC 3339 time with any offset as nanoseconds since 1970; further digits are cut off.

    A leap second, 23:59:60 UTC, counts as the second after it, as POSIX time does.

    Raises:
        ValueError: what is wrong with it, in a few words.
    """
    match = _RFC_3339.fullmatch(text) if len(text) <= _LENGTH_MAX else None
    if match is None:
        raise ValueError("not of that form")
    year, month, day, hour, minute, second, fraction, zulu, sign, offset_hour, offset_minute = match.groups()
    if zulu is None and sign is None:
        raise ValueError("it has no offset")
    try:
        days = date(int(year), int(month), int(day)).toordinal() - _EPOCH_DAY
    except ValueError:
        raise ValueError("there is no such day") from None
    if int(hour) > 23 or int(minute) > 59 or int(second) > 60:
        raise ValueError("there is no such time of day")
    offset_s = _offset_s(sign, offset_hour, offset_minute) if sign else 0
    seconds = days * _DAY_S + int(hour) * 3600 + int(minute) * 60 + int(second) - offset_s
    if second == "60" and seconds % _DAY_S:
        raise ValueError("second 60 is only in 23:59:60 UTC")
    ns = seconds * _SECOND_NS + (int(fraction[:9].ljust(9, "0")) if fraction else 0)
    if not NS_MIN <= ns <= NS_MAX:
        raise ValueError("it is outside 1677-09-21 to 2262-04-11")
    return ns


def _offset_s(sign: str, hours: str, minutes: str) -> int:
    if int(hours) > 23 or int(minutes) > 59:
        raise ValueError("there is no such offset")
    offset_s = int(hours) * 3600 + int(minutes) * 60
    return -offset_s if sign == "-" else offset_s


def format_time(ns: int, digits: int = 9) -> str:
    """Write nanoseconds since 1970 as RFC 3339 in UTC with `digits` decimals, further ones cut off."""
    seconds, fraction = divmod(ns, _SECOND_NS)
    moment = (_EPOCH + timedelta(seconds=seconds)).isoformat()
    decimals = f".{fraction:09d}"[: digits + 1] if digits else ""
    return f"{moment}{decimals}Z"
