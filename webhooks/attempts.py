"""Record delivery attempts: the attempt's row, the next attempt's time and the subscription's state.

Every transaction locks the subscription's row first and then the rows of its deliveries.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, LiteralString
from uuid import uuid4

from sync import audit, events
from sync.audit import WORKER
from sync.db import Transaction
from webhooks import payload
from webhooks.delivery_queue import Due
from webhooks.retry import DISABLED_AFTER, GRACE, Ending, Verdict
from webhooks.subscriptions import give_up

_GONE: Final = "it answered 410 Gone"
_FAILING: Final = "nothing could be delivered for 5 days"
_NO_TEXT: Final = "\N{REPLACEMENT CHARACTER}"

_WELL: Final[LiteralString] = """
    update gitstore.subscriptions set failing_since = null, quiet_until = null
    where id = %(subscription)s and (failing_since is not null or quiet_until is not null)
"""
_UNWELL: Final[LiteralString] = """
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
    """The stored result of an attempt. `response` is the beginning of the response body."""

    started_at: datetime
    duration_ms: int
    status: int | None
    response: bytes | None


def record(
    tx: Transaction, due: Due, attempt: Attempt, verdict: Verdict, now: datetime | None = None
) -> bool:
    """Record an attempt and its consequences. Return whether it disabled the subscription."""
    values = {
        "id": due.id,
        "lease": due.lease,
        "now": now,
        "succeeded": verdict.ending is Ending.SUCCEEDED,
        "delay": verdict.delay,
        "status": attempt.status,
        "error": verdict.error,
        "url": due.url,
        "started_at": attempt.started_at,
        "duration_ms": attempt.duration_ms,
        "response": _text(attempt.response),
    }
    if verdict.ending is Ending.SUCCEEDED:
        with tx.connection.pipeline():  # one round trip
            tx.connection.execute(_WELL, {"subscription": due.subscription_id})
            tx.connection.execute(_RECORD, values)
        return False
    failing: timedelta | None = tx.value(
        _UNWELL, subscription=due.subscription_id, quiet=verdict.quiet, now=now
    )
    tx.run(_RECORD, **values)
    if verdict.ending is Ending.GONE:
        return _disable(tx, due, _GONE)
    if failing is not None and failing >= DISABLED_AFTER and due.tries + 1 >= GRACE:
        return _disable(tx, due, _FAILING)
    return False


def _disable(tx: Transaction, due: Due, why: str) -> bool:
    """Disable a subscription, with an audit row and an event. Return False if already disabled or deleted."""
    found = tx.tuples(_DISABLE, subscription=due.subscription_id, reason=why)
    if not found:
        return False
    url, failing_since = found[0]
    give_up(tx, due.subscription_id, f"the subscription was disabled: {why}")
    data = {
        "subscription_id": str(due.subscription_id),
        "url": url,
        "reason": why,
        "failing_since": payload.timestamp(failing_since),
    }
    event = {
        "id": uuid4(),
        "project_id": due.project_id,
        "workflow_id": None,
        "type": payload.DISABLED,
        "created_at": tx.value("select now()"),
        "data": data,
    }
    events.insert(tx, [event])
    audit.note(tx, due.project_id, WORKER, payload.DISABLED, str(due.subscription_id), {"reason": why})
    return True


def _text(response: bytes | None) -> str | None:
    """Return the response as text that Postgres can store: invalid UTF-8 and NUL become U+FFFD."""
    return (
        None
        if response is None
        else response.decode("utf-8", "replace").replace("\0", "\N{REPLACEMENT CHARACTER}")
    )
