"""The retry policy: the verdict on an attempt, and the time of the next one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webhooks.attempts import DELAYS, Ending, Outcome, judge, retry_after

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("statuses", "ending"),
    [
        ((200, 201, 202, 204, 299), Ending.SUCCEEDED),
        ((410,), Ending.GONE),
        ((100, 199, 300, 301, 302, 304, 307, 400, 401, 404, 408, 429, 500, 503, 599), Ending.RETRY),
    ],
)
def test_the_status_decides_the_ending(statuses: tuple[int, ...], ending: Ending) -> None:
    """The reason of a failure names the status."""
    for status in statuses:
        verdict = judge(Outcome(status), 1, NOW, 0.0)
        assert verdict.ending is ending
        assert ending is Ending.SUCCEEDED or str(status) in (verdict.error or "")


def test_the_schedule_is_that_of_the_standard() -> None:
    minutes = [verdict.delay for tries in range(1, 10) if (verdict := judge(Outcome(500), tries, NOW, 0.0))]
    assert minutes == list(DELAYS)
    assert sum(DELAYS, timedelta()) == timedelta(hours=75, minutes=35, seconds=5)
    last = judge(Outcome(500), 10, NOW, 0.0)
    assert (last.ending, last.delay) == (Ending.FAILED, None)


@given(st.integers(1, 9), st.floats(0, 1))
def test_jitter_lengthens_a_delay_by_at_most_a_tenth(tries: int, random: float) -> None:
    delay = judge(Outcome(error="no answer"), tries, NOW, random).delay
    assert delay is not None
    assert DELAYS[tries - 1] <= delay <= DELAYS[tries - 1] * 1.1


def test_retry_after_lengthens_a_delay() -> None:
    """The subscription receives nothing for that time."""
    longer = judge(Outcome(503, retry_after="3600"), 1, NOW, 1.0)
    assert longer.delay == longer.quiet == timedelta(hours=1)
    shorter = judge(Outcome(429, retry_after="1"), 2, NOW, 0.0)
    assert (shorter.delay, shorter.quiet) == (timedelta(minutes=5), timedelta(seconds=1))


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ("120", timedelta(seconds=120)),
        (" 0 ", timedelta()),
        ("99999999999999999999", timedelta(hours=24)),
        (format_datetime(NOW + timedelta(minutes=5), usegmt=True), timedelta(minutes=5)),
        (format_datetime(NOW + timedelta(days=9), usegmt=True), timedelta(hours=24)),
        (format_datetime(NOW - timedelta(minutes=5), usegmt=True), None),
        (None, None),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("\u0663", None),
        ("Thu, 99 Jan 2026 00:00:00 GMT", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(header: str | None, wait: timedelta | None) -> None:
    """An invalid header is ignored."""
    assert retry_after(header, NOW) == wait


@given(st.text())
def test_any_retry_after_is_accepted_or_ignored(header: str) -> None:
    wait = retry_after(header, NOW)
    assert wait is None or timedelta() <= wait <= timedelta(hours=24)
