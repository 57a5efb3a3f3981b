"""Times are exact to the nanosecond, whatever offset they come with."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zccr_stream.events.times import NS_MAX, NS_MIN, format_time, parse_time

NANOSECONDS = st.integers(NS_MIN, NS_MAX)
SECOND_NS = 1_000_000_000


@given(NANOSECONDS)
def test_every_nanosecond_survives_writing_and_reading(ns: int) -> None:
    assert parse_time(format_time(ns)) == ns


@given(NANOSECONDS, st.integers(0, 9))
def test_fewer_digits_cut_off_and_never_round_up(ns: int, digits: int) -> None:
    written = format_time(ns, digits)

    assert len(written) == len("2026-11-23T12:00:00Z") + (digits + 1 if digits else 0)
    unit = 10 ** (9 - digits)
    if ns // unit * unit >= NS_MIN:
        assert parse_time(written) == ns // unit * unit


@given(
    st.datetimes(datetime(1678, 1, 1), datetime(2262, 1, 1)),
    st.integers(-1439, 1439),
    st.sampled_from("Tt"),
)
def test_agrees_with_datetime_at_any_offset(local: datetime, offset_minutes: int, separator: str) -> None:
    """The standard library, exact to the microsecond, is the oracle."""
    moment = local.replace(tzinfo=timezone(timedelta(minutes=offset_minutes)))
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)

    expected = (since.days * 86_400 + since.seconds) * SECOND_NS + since.microseconds * 1_000
    assert parse_time(moment.isoformat(separator)) == expected


@pytest.mark.parametrize(
    ("text", "same_as"),
    [
        ("2026-11-23t12:00:00z", "2026-11-23T12:00:00Z"),
        ("2026-11-23T12:00:00-00:00", "2026-11-23T12:00:00Z"),
        ("2026-11-23T12:00:00.5Z", "2026-11-23T12:00:00.500000000Z"),
        # More than nanoseconds is cut off, not rounded.
        ("2026-11-23T12:00:00.1234567899999Z", "2026-11-23T12:00:00.123456789Z"),
        # A leap second counts as the second after it, at any offset.
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00Z"),
        ("2016-12-31T23:59:60.25Z", "2017-01-01T00:00:00.25Z"),
        ("2017-01-01T00:59:60+01:00", "2017-01-01T00:00:00Z"),
    ],
)
def test_other_spellings(text: str, same_as: str) -> None:
    assert parse_time(text) == parse_time(same_as)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("2026-11-23T12:00:00", "it has no offset"),
        ("2026-11-23", "not of that form"),
        ("2026-11-23 12:00:00Z", "not of that form"),
        ("2026-11-23T12:00Z", "not of that form"),
        ("2026-11-23T12:00:00.Z", "not of that form"),
        ("2026-11-23T12:00:00+0100", "not of that form"),
        ("2026-11-23T12:00:00Z\n", "not of that form"),
        ("٢٠٢٦-11-23T12:00:00Z", "not of that form"),
        ("1795435200", "not of that form"),
        ("", "not of that form"),
        ("2026-11-23T12:00:00." + "1" * 100_000 + "Z", "not of that form"),
        ("2026-02-29T12:00:00Z", "there is no such day"),
        ("0000-01-01T12:00:00Z", "there is no such day"),
        ("2026-11-23T24:00:00Z", "there is no such time of day"),
        ("2026-11-23T12:60:00Z", "there is no such time of day"),
        ("2026-11-23T12:00:61Z", "there is no such time of day"),
        ("2026-11-23T12:00:60Z", "second 60 is only in 23:59:60 UTC"),
        ("2026-11-23T23:59:60+01:00", "second 60 is only in 23:59:60 UTC"),
        ("2026-11-23T12:00:00+24:00", "there is no such offset"),
        ("2026-11-23T12:00:00+12:60", "there is no such offset"),
        ("1677-09-21T00:12:43Z", "it is outside 1677-09-21 to 2262-04-11"),
        ("2262-04-11T23:47:16.854775808Z", "it is outside 1677-09-21 to 2262-04-11"),
        # The lowest int64 means "not a time" to numpy.
        ("1677-09-21T00:12:43.145224192Z", "it is outside 1677-09-21 to 2262-04-11"),
    ],
)
def test_says_what_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as raised:
        parse_time(text)
    assert str(raised.value) == reason


def test_the_bounds_are_within_reach() -> None:
    assert parse_time("2262-04-11T23:47:16.854775807Z") == NS_MAX
    assert parse_time("1677-09-21T00:12:43.145224193Z") == NS_MIN


@given(st.text())
def test_any_other_text_is_refused_and_nothing_worse(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert NS_MIN <= parse_time(text) <= NS_MAX
