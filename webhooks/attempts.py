"""Delivery attempts: the retry policy, and the record of an attempt with its consequences.

The schedule is the one that Standard Webhooks recommends. Random jitter lengthens each delay, so that
deliveries that failed together are not retried together. A Retry-After header (RFC 9110 section 10.2.3) can
lengthen a delay further, up to a day.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Final, LiteralString
from uuid import uuid4

from gitstore.system import rfc3339
from sync import audit, events
from sync.audit import WORKER
from sync.db import Transaction
from webhooks.delivery_queue import Due
from webhooks.subscriptions import DISABLED, hold

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


# The policy. Pure.


class Ending(StrEnum):
    """The effect of an attempt on its delivery."""

    SUCCEEDED = "succeeded"
    RETRY = "retry"
    FAILED = "failed"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of an attempt: the response, with the beginning of its body, or an error message."""

    status: int | None = None
    error: str | None = None
    retry_after: str | None = None
    response: bytes | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision about a delivery.

    `delay` is the time until its next attempt. `quiet` is the time for which the subscriber asked to receive
    no request at all. `disabled` is whether the attempt disabled the subscription.
    """

    ending: Ending
    error: str | None = None
    delay: timedelta | None = None
    quiet: timedelta | None = None
    disabled: bool = False


def judge(outcome: Outcome, tries: int, now: datetime, random: float) -> Verdict:
    """Return the verdict on an attempt.

    `tries` counts the attempts since the start of the schedule, including this one; `random` is from 0 to 1.
    """
    if outcome.status is not None and 200 <= outcome.status < 300:
        return Verdict(Ending.SUCCEEDED)
    error = outcome.error or _answered(outcome.status)
    if outcome.status == HTTPStatus.GONE:
        return Verdict(Ending.GONE, error)
    quiet = retry_after(outcome.retry_after, now)
    if tries > len(DELAYS):
        return Verdict(Ending.FAILED, f"{error}; that was the last attempt", quiet=quiet)
    delay = DELAYS[max(tries, 1) - 1] * (1 + JITTER * random)
    return Verdict(Ending.RETRY, error, max(delay, quiet) if quiet else delay, quiet)


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


def _answered(status: int | None) -> str:
    if status is not None and 300 <= status < 400:
        return f"answered {status}: redirects are not followed: subscribe with the final URL"
    return f"answered {status}"


# The record. Every transaction locks the subscription's row first and then the rows of its deliveries.

_MARK_HEALTHY: Final[LiteralString] = """
    update gitstore.subscriptions set failing_since = null, quiet_until = null
    where id = %(subscription)s and (failing_since is not null or quiet_until is not null)
"""
_MARK_FAILING: Final[LiteralString] = """
    update gitstore.subscriptions
    set failing_since = coalesce(failing_since, %(now)s, clock_timestamp()),
        quiet_until = greatest(quiet_until, coalesce(%(now)s, clock_timestamp()) + %(quiet)s::interval)
    where id = %(subscription)s
    returning coalesce(%(now)s, clock_timestamp()) - failing_since
"""
# If the lease has expired, or the delivery was held during the attempt, only the attempt is recorded. A
# successful attempt ends the delivery in every case.
_RECORD: Final[LiteralString] = """
    with recorded as (
        update gitstore.deliveries set
            attempts = attempts + 1, tries = tries + 1, claimed = false, crashes = 0,
            last_status = %(status)s, last_error = %(error)s,
            state = case when %(succeeded)s then 'succeeded'
                when due_at = %(lease)s and %(delay)s::interval is null then 'failed' else state end,
            ended_at = case when %(succeeded)s or (due_at = %(lease)s and %(delay)s::interval is null)
                then coalesce(%(now)s, clock_timestamp()) else ended_at end,
            due_at = case when %(succeeded)s then null
                when due_at = %(lease)s then coalesce(%(now)s, clock_timestamp()) + %(delay)s::interval
                else due_at end
        where id = %(id)s
        returning id, project_id, attempts
    )
    insert into gitstore.delivery_attempts
        (delivery_id, number, project_id, url, started_at, duration_ms, status, error, response)
    select id, attempts, project_id, %(url)s, %(started_at)s, %(duration_ms)s, %(status)s, %(error)s,
        %(response)s
    from recorded
"""
_DISABLE: Final[LiteralString] = """
    update gitstore.subscriptions set state = 'disabled', reason = %(reason)s, updated_at = now()
    where id = %(subscription)s and state in ('active', 'paused')
    returning url, failing_since
"""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A finished attempt."""

    started_at: datetime
    seconds: float
    outcome: Outcome


def record(
    tx: Transaction, due: Due, attempt: Attempt, verdict: Verdict, now: datetime | None = None
) -> Verdict:
    """Record an attempt and its consequences. Return the verdict, with `disabled`."""
    values = {
        "id": due.id,
        "lease": due.lease,
        "now": now,
        "succeeded": verdict.ending is Ending.SUCCEEDED,
        "delay": verdict.delay,
        "status": attempt.outcome.status,
        "error": verdict.error,
        "url": due.url,
        "started_at": attempt.started_at,
        "duration_ms": round(attempt.seconds * 1000),
        "response": _text(attempt.outcome.response),
    }
    if verdict.ending is Ending.SUCCEEDED:
        with tx.connection.pipeline():  # one round trip
            tx.connection.execute(_MARK_HEALTHY, {"subscription": due.subscription_id})
            tx.connection.execute(_RECORD, values)
        return verdict
    failing: timedelta | None = tx.value(
        _MARK_FAILING, subscription=due.subscription_id, quiet=verdict.quiet, now=now
    )
    tx.run(_RECORD, **values)
    disabled = False
    if verdict.ending is Ending.GONE:
        disabled = _disable(tx, due, "it answered 410 Gone")
    elif failing is not None and failing >= DISABLED_AFTER and due.tries + 1 >= GRACE:
        disabled = _disable(tx, due, "all deliveries failed for 5 days")
    return replace(verdict, disabled=disabled)


def _disable(tx: Transaction, due: Due, reason: str) -> bool:
    """Disable a subscription and hold its deliveries, with an audit row and an event.

    Returns False if it was already disabled or deleted.
    """
    disabled = tx.tuples(_DISABLE, subscription=due.subscription_id, reason=reason)
    for url, failing_since in disabled:
        hold(tx, due.subscription_id)
        event = {
            "id": uuid4(),
            "project_id": due.project_id,
            "workflow_id": None,
            "type": DISABLED,
            "created_at": tx.value("select now()"),
            "data": {
                "subscription_id": str(due.subscription_id),
                "url": url,
                "reason": reason,
                "failing_since": rfc3339(failing_since),
            },
        }
        events.insert(tx, [event])
        audit.note(tx, due.project_id, WORKER, DISABLED, str(due.subscription_id), {"reason": reason})
    return bool(disabled)


def _text(response: bytes | None) -> str | None:
    """Return the response as text that Postgres can store: invalid UTF-8 and NUL become U+FFFD."""
    if response is None:
        return None
    return response.decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
