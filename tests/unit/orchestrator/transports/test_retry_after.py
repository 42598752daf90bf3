"""Reading the Retry-After header."""

import email.utils
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.transports.outcomes import retry_after_seconds

NOW = datetime(2026, 1, 5, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        (" 120 ", 120.0),
        ("007", 7.0),
        ("-5", None),
        ("+5", None),
        ("1.5", None),
        ("²", None),
        ("٣", None),
        ("soon", None),
        ("Mon, 05 Jan 2026 12:00:30 GMT", 30.0),
        ("Mon, 05 Jan 2026 12:00:30 -0000", 30.0),
        ("Mon, 05 Jan 2026 14:00:30 +0200", 30.0),
        ("Monday, 05-Jan-26 12:00:30 GMT", 30.0),
        ("Mon, 05 Jan 2026 11:00:00 GMT", 0.0),
        ("Mon, 35 Jan 2026 11:00:00 GMT", None),
        ("Mon, 05 Jan 99999999999999999999 11:00:00 GMT", None),
        ("Mon, 05 Jan 2026 11:00:00 +99999999", None),
    ],
)
def test_seconds_and_dates(value: str | None, expected: float | None) -> None:
    """A number of seconds, or a date, never below zero; None for what is neither."""
    assert expected == retry_after_seconds(value, NOW)


def test_a_number_of_any_length_is_a_long_time() -> None:
    """No number is too long to be read."""
    seconds = retry_after_seconds("9" * 10_000, NOW)
    assert seconds is not None
    assert seconds > 10_000_000


@given(st.text())
def test_any_text_is_seconds_or_nothing(value: str) -> None:
    """No header makes the reader fail."""
    seconds = retry_after_seconds(value, NOW)
    assert seconds is None or seconds >= 0


PARTS = ["Mon,", "5", "05", "Jan", "2026", "99999999999999999999", "12:00:00", "1:2:3:4", "GMT"]
MORE = ["+9999", "-0000", "EST", ",", "-", ":", "12.30", "AM", "0", "-1", "(comment)", "\\"]


@given(st.lists(st.sampled_from(PARTS + MORE), max_size=8))
def test_any_jumble_of_a_date_is_seconds_or_nothing(parts: list[str]) -> None:
    """Nor does what almost is a date."""
    seconds = retry_after_seconds(" ".join(parts), NOW)
    assert seconds is None or seconds >= 0


@given(st.integers(0, 10**8))
def test_a_date_is_its_distance(seconds: int) -> None:
    """Dates as RFC 9110 writes them are read back exactly."""
    value = email.utils.format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)
    assert seconds == retry_after_seconds(value, NOW)
