"""Queue of deliveries: rows created from events and claimed by workers on any machine.

The transaction that removes an event from the queue creates its deliveries. A claim sets due_at to the end of
its lease. If a worker is killed between sending and recording, the delivery is due again at that time and is
sent once more with the same id. Times come from the database's clock, which all machines share, unless `now`
is given.

Every transaction locks the subscription's row first and then the rows of its deliveries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, LiteralString
from uuid import UUID

from sync.db import Transaction
from webhooks.lease_loop import CRASH_PAUSE_SECONDS, MOST_CRASHES, given_up

CHANNEL: Final = "gitstore_deliveries"
"""NOTIFY channel for deliveries that become due without a new event."""
FAN_OUT: Final = 500

# The lock on the subscriptions prevents a pause between this statement and the commit. A subscription that is
# paused or disabled gets deliveries that are held; it gets no event about its own disabling.
_FAN_OUT: Final[LiteralString] = """
    with taken as materialized (
        delete from gitstore.event_queue where event_id in (
            select event_id from gitstore.event_queue limit %(limit)s for update skip locked)
        returning event_id
    ), matching as materialized (
        select s.id, s.project_id, s.state, e.id as event_id, e.type
        from taken
        join gitstore.events e on e.id = taken.event_id
        join gitstore.subscriptions s on s.project_id = e.project_id and e.type = any(s.events)
            and s.state <> 'deleted' and s.created_at <= e.recorded_at
            and e.data ->> 'subscription_id' is distinct from s.id::text
        order by e.recorded_at, e.id
        for share of s
    )
    insert into gitstore.deliveries (project_id, subscription_id, event_id, type, due_at)
    select project_id, id, event_id, type,
        case when state = 'active' then coalesce(%(now)s, clock_timestamp()) end
    from matching
    on conflict (subscription_id, event_id) do nothing
"""
# `waiting` skips from one subscription to the next in the index. A slow or failing subscription gets one
# attempt at a time, and all such subscriptions share `slow_room`, so that any number of them leaves capacity
# for the others.
_CLAIM: Final[LiteralString] = """
    with recursive clock (now) as materialized (
        select coalesce(%(now)s, clock_timestamp())
    ), waiting (id) as (
        (select subscription_id from gitstore.deliveries where due_at is not null
         order by subscription_id limit 1)
        union all
        select (select d.subscription_id from gitstore.deliveries d
                where d.due_at is not null and d.subscription_id > waiting.id
                order by d.subscription_id limit 1)
        from waiting where waiting.id is not null
    ), due as materialized (
        select candidate.id, candidate.due_at, candidate.claimed, lane.slow,
            row_number() over (partition by lane.slow order by candidate.due_at) as place
        from waiting
        cross join clock
        join gitstore.subscriptions s on s.id = waiting.id and (s.quiet_until is null or s.quiet_until <= now)
        cross join lateral (
            select s.failing_since is not null or s.id = any(%(slow)s) as slow
        ) lane
        left join unnest(%(busy)s::uuid[], %(counts)s::int[]) as sending (id, count) on sending.id = s.id
        cross join lateral (
            select d.id, d.due_at, d.claimed from gitstore.deliveries d
            where d.subscription_id = s.id and d.due_at <= now and d.crashes = 0
            order by d.due_at
            limit greatest(case when lane.slow then 1 else %(each)s end - coalesce(sending.count, 0), 0)
            for update skip locked
        ) candidate
    ), mine as materialized (
        select id, claimed, slow from due where place <= case when slow then %(slow_room)s else %(room)s end
        order by due_at limit %(room)s
    ), claimed as (
        update gitstore.deliveries d set due_at = now + %(lease)s, claimed = true
        from mine cross join clock where d.id = mine.id
        returning d.*, mine.slow, mine.claimed as crashed
    )
"""
# Deliveries that crashed before are claimed one at a time.
_ALONE: Final[LiteralString] = """
    with clock (now) as materialized (
        select coalesce(%(now)s, clock_timestamp())
    ), mine as materialized (
        select d.id, d.claimed from gitstore.deliveries d cross join clock
        join gitstore.subscriptions s on s.id = d.subscription_id
            and (s.quiet_until is null or s.quiet_until <= now)
        where d.crashes > 0 and d.due_at <= now
        order by d.crashes, d.due_at limit 1 for update of d skip locked
    ), claimed as (
        update gitstore.deliveries d set due_at = now + %(lease)s, claimed = true
        from mine cross join clock where d.id = mine.id
        returning d.*, true as slow, mine.claimed as crashed
    )
"""
_SELECT: Final[LiteralString] = """
    select c.id, c.project_id, p.slug as project, c.subscription_id, c.event_id, c.type, c.tries,
        c.due_at as lease, c.slow, c.crashes, c.crashed, s.url, e.workflow_id,
        coalesce(e.created_at, c.created_at) as at,
        coalesce(c.data, e.data) as data,
        array(select k.sealed from gitstore.subscription_secrets k
              where k.subscription_id = s.id and (k.retires_at is null or k.retires_at > now)
              order by k.created_at desc) as sealed
    from claimed c cross join clock
    join gitstore.projects p on p.id = c.project_id
    join gitstore.subscriptions s on s.id = c.subscription_id
    left join gitstore.events e on e.id = c.event_id
    order by at, c.id
"""
_CRASH: Final[LiteralString] = """
    with crash as (
        select d.id, d.crashes + 1 as crashes, d.crashes + 1 >= %(most)s as poison,
            coalesce(%(now)s, clock_timestamp()) as now
        from gitstore.deliveries d where d.id = %(id)s and d.due_at = %(lease)s and d.claimed
    )
    update gitstore.deliveries d set claimed = false, crashes = crash.crashes,
        state = case when poison then 'poison' else d.state end,
        last_error = case when poison then %(given_up)s else %(error)s end,
        due_at = case when not poison then now + make_interval(secs => %(pause)s * d.crashes) end,
        ended_at = case when poison then now end
    from crash where d.id = crash.id
    returning d.crashes
"""
_RELEASE: Final[LiteralString] = "update gitstore.deliveries set claimed = false where id = any(%(ids)s)"
# Seconds, or null without a future due time. Deliveries that are already due wait for capacity, not for time.
_NEXT: Final[LiteralString] = """
    select extract(epoch from least(
        (select min(due_at) from gitstore.deliveries where due_at > clock_timestamp()),
        (select min(quiet_until) from gitstore.subscriptions where quiet_until > clock_timestamp())
    ) - clock_timestamp())::float8
"""
_LAG: Final[LiteralString] = """
    select greatest(extract(epoch from clock_timestamp() - least(
        (select d.due_at from gitstore.deliveries d join gitstore.subscriptions s on s.id = d.subscription_id
         where d.due_at <= clock_timestamp() and (s.quiet_until is null or s.quiet_until <= clock_timestamp())
         order by d.due_at limit 1),
        (select min(e.recorded_at) from gitstore.event_queue q join gitstore.events e on e.id = q.event_id)
    )), 0)::float8
"""


@dataclass(frozen=True, slots=True)
class Due:
    """A claimed delivery with everything needed to send it.

    `project` is the slug; `tries` counts the attempts before this one; the claim is valid until `lease`;
    `slow` is the lane. `crashes` counts the processes that ended while sending it; `crashed` is whether the
    previous claim ended in a crash that is not counted yet.
    """

    id: UUID
    project_id: UUID
    project: str
    subscription_id: UUID
    event_id: UUID
    type: str
    tries: int
    lease: datetime
    slow: bool
    crashes: int
    crashed: bool
    url: str
    workflow_id: UUID | None
    at: datetime
    data: Mapping[str, Any]
    sealed: list[str]

    @property
    def owner(self) -> UUID:
        return self.subscription_id


@dataclass(frozen=True, slots=True)
class Room:
    """A worker's free capacity. `sending` counts its attempts in progress by subscription id."""

    threads: int
    slow_threads: int
    each: int
    sending: Mapping[UUID, int]
    slow: Sequence[UUID] = ()


def fan_out(tx: Transaction, now: datetime | None = None) -> int:
    """Create deliveries for at most FAN_OUT queued events. Return the number of deliveries."""
    return tx.run(_FAN_OUT, limit=FAN_OUT, now=now)


def claim(tx: Transaction, room: Room, lease: timedelta, now: datetime | None = None) -> list[Due]:
    """Claim due deliveries, oldest due time first, up to the capacity `room`.

    A delivery that has `crashed` set must not be sent: pass it to `crash`.
    """
    return tx.rows(
        Due,
        _CLAIM + _SELECT,
        now=now,
        lease=lease,
        room=room.threads,
        slow_room=room.slow_threads,
        each=room.each,
        busy=list(room.sending),
        counts=list(room.sending.values()),
        slow=list(room.slow),
    )


def claim_alone(tx: Transaction, lease: timedelta, now: datetime | None = None) -> Due | None:
    """Claim one due delivery that crashed before, or return None. `crashed` may be set, as with `claim`."""
    return tx.row(Due, _ALONE + _SELECT, now=now, lease=lease)


def crash(tx: Transaction, due: Due, reason: str, now: datetime | None = None) -> int | None:
    """Record a crash of the process that sent `due`. Return the number of crashes.

    Returns None if the claim has passed to another worker.
    """
    crashes: int | None = tx.value(
        _CRASH,
        id=due.id,
        lease=due.lease,
        now=now,
        most=MOST_CRASHES,
        pause=CRASH_PAUSE_SECONDS,
        error=reason,
        given_up=given_up(reason, "redeliver it to try again"),
    )
    return crashes


def release(tx: Transaction, ids: Sequence[UUID]) -> None:
    """Release claims deliberately, so that the end of their leases does not count as a crash."""
    tx.run(_RELEASE, ids=list(ids))


def seconds_to_next(tx: Transaction) -> float | None:
    """Return the seconds until the next due time, or None without one."""
    seconds: float | None = tx.value(_NEXT)
    return seconds


def lag(tx: Transaction) -> float:
    """Return the seconds since the oldest unsent delivery became due, or 0 without one."""
    return float(tx.value(_LAG) or 0.0)
