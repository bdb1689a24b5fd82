"""What an attempt's outcome means, and when the next one is due. Pure.

The schedule is the one that Standard Webhooks recommends; a delay is lengthened at random, so that what
failed together is not tried together again. A Retry-After (RFC 9110 section 10.2.3) can make it longer, up
to a day.
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
"""Attempts that a delivery has before it can disable its subscription: an old failure and a new one with
nothing in between are not yet five days of failure."""
LONGEST_WAIT: Final = timedelta(hours=24)


class Ending(StrEnum):
    """What becomes of a delivery by an attempt."""

    SUCCEEDED = "succeeded"
    RETRY = "retry"
    FAILED = "failed"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt met: the answer's status and Retry-After, or why there is none, in words."""

    status: int | None = None
    error: str | None = None
    retry_after: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """`delay` is until the next attempt; for `quiet`, the subscriber asked to be left alone altogether."""

    ending: Ending
    error: str | None = None
    delay: timedelta | None = None
    quiet: timedelta | None = None


def judge(outcome: Outcome, tries: int, now: datetime, random: float) -> Verdict:
    """`tries` counts the attempts since the delivery began, this one included; `random` is from 0 to 1."""
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
    """How long a Retry-After asks to wait, a day at most; None where it asks nothing that makes sense."""
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
