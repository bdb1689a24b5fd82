"""Retry policy: the verdict on an attempt and the time of the next one. Pure.

The schedule is the one that Standard Webhooks recommends. Random jitter lengthens each delay, so that
deliveries that failed together are not retried together. A Retry-After header (RFC 9110 section 10.2.3) can
lengthen a delay further, up to a day.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Final

DELAYS: Final = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=14),
    timedelta(hours=20),
    timedelta(hours=24),
)
JITTER: Final = 0.1
DISABLED_AFTER: Final = timedelta(days=5)
GRACE: Final = 4
"""Attempts that a delivery needs before it can disable its subscription. An old failure and a new one without
attempts in between do not prove five days of failure."""
LONGEST_WAIT: Final = timedelta(hours=24)


class Ending(StrEnum):
    """The effect of an attempt on its delivery."""

    SUCCEEDED = "succeeded"
    RETRY = "retry"
    FAILED = "failed"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of an attempt: the response's status and Retry-After, or an error message."""

    status: int | None = None
    error: str | None = None
    retry_after: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision about a delivery.

    `delay` is the time until its next attempt. `quiet` is the time for which the subscriber asked to receive
    no request at all.
    """

    ending: Ending
    error: str | None = None
    delay: timedelta | None = None
    quiet: timedelta | None = None


def judge(outcome: Outcome, tries: int, now: datetime, random: float) -> Verdict:
    """Return the verdict on an attempt.

    `tries` counts the attempts since the start of the schedule, including this one; `random` is from 0 to 1.
    """
    if outcome.status is not None and 200 <= outcome.status < 300:
        return Verdict(Ending.SUCCEEDED)
    error = outcome.error or _said(outcome.status)
    if outcome.status == HTTPStatus.GONE:
        return Verdict(Ending.GONE, error)
    asked = retry_after(outcome.retry_after, now)
    if tries > len(DELAYS):
        return Verdict(Ending.FAILED, f"{error}; that was the last attempt", quiet=asked)
    delay = DELAYS[max(tries, 1) - 1] * (1 + JITTER * random)
    return Verdict(Ending.RETRY, error, max(delay, asked) if asked else delay, asked)


def retry_after(header: str | None, now: datetime) -> timedelta | None:
    """Return the wait that a Retry-After header asks for, at most a day; None if absent, invalid or past."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        return min(timedelta(seconds=int(text[:9])), LONGEST_WAIT)
    try:
        moment = parsedate_to_datetime(text)
        wait = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - now
    except (ValueError, TypeError, OverflowError):
        return None
    return min(wait, LONGEST_WAIT) if wait > timedelta() else None


def _said(status: int | None) -> str:
    if status is not None and 300 <= status < 400:
        return f"answered {status}: a delivery follows no redirect; subscribe with the address it leads to"
    return f"answered {status}"
