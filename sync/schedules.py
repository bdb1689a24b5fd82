"""Rows of scheduled publications and moves: made, listed, cancelled; claimed and ended by the worker.

All times are those of Postgres' clock, which every machine shares. A claim names itself: a worker that lost
it to another one, because it was stopped for a while, finds that out by `is_held`, and writes nothing. Rows
are backed up, and not derived from Git.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, LiteralString
from uuid import UUID, uuid4

from sync import rows
from sync.db import Transaction

CHANNEL: Final = "gitstore_schedules"
"""NOTIFY channel for a new schedule."""
LEASE_SECONDS: Final = 10.0
"""Seconds after which a claim that is not renewed passes to another worker."""
FURTHEST: Final = timedelta(days=366)
MOST: Final = 100
"""Schedules of a workflow that wait."""
LATEST: Final = timedelta(hours=1)
"""How late a schedule may be carried out, if no worker ran at its time."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The change that a schedule makes, and its author. `kind` is publish, move or promote.

    A publication is that of `draft_commit`; it makes the version current if `activate`. A move is to
    `version_number`, which has `weight` percent if there is a `second_number`. `ledger_oid` is the newest
    entry that counted. The worker acts as `actor_id`, with `actor_user` if that is a user.
    """

    project_id: UUID
    workflow_id: UUID
    kind: str
    at: datetime
    environment: str | None
    source: str | None
    draft_commit: str | None
    version_number: int | None
    weight: int
    second_number: int | None
    held: bool
    activate: bool
    message: str
    ledger_oid: str | None
    author_name: str | None
    author_email: str | None
    actor_id: UUID
    actor_name: str
    actor_kind: str
    actor_user: str | None
    on_behalf_of: str | None

    @property
    def weights(self) -> dict[int, int]:
        """The versions of a move, with their weights in percent."""
        first = {self.version_number: self.weight} if self.version_number is not None else {}
        return first if self.second_number is None else {**first, self.second_number: 100 - self.weight}


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule(Plan):
    """A schedule. `state` is waiting, running, done, stopped (with `code` and `reason`) or cancelled."""

    id: UUID
    created_at: datetime
    state: str
    ended_at: datetime | None
    ended_by: str | None
    code: str | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownSchedule(Schedule):
    """A schedule with the present slug and name of its workflow."""

    slug: str
    workflow_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim(Schedule):
    """A due schedule that this worker has claimed. `crashes` counts the claims that ended without a result.

    `taken_over`: the ledger may record the change already. `missed`: it is due for longer than `LATEST`.
    """

    claim: UUID
    crashes: int
    taken_over: bool
    missed: bool

    @property
    def owner(self) -> UUID:
        return self.workflow_id

    @property
    def slow(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Waiting:
    """The number of schedules that are due, and the seconds since the first of them was."""

    due: int
    delay: float


_INSERT: Final[LiteralString] = (
    "insert into gitstore.schedules (id, due_at, "  # noqa: S608 - of constants
    + rows.columns(Plan)
    + ") select %(id)s, at, "
    + rows.columns(Plan)
    + """
    from jsonb_populate_recordset(null::gitstore.schedules, %(plans)s)
    where at > clock_timestamp() and at <= clock_timestamp() + %(furthest)s
    on conflict (workflow_id, coalesce(environment, ''), at) where state in ('waiting', 'running') do nothing
    returning """
    + rows.columns(Schedule)
    + ", pg_notify('gitstore_schedules', '')"
)
_SAME: Final[LiteralString] = (
    rows.select(Schedule)
    + """
    from gitstore.schedules where workflow_id = %(workflow)s and state in ('waiting', 'running')
        and coalesce(environment, '') = coalesce(%(environment)s, '') and at = %(at)s
"""
)
_COUNT: Final[LiteralString] = """
    select count(*) from gitstore.schedules
    where workflow_id = %(workflow)s and state in ('waiting', 'running')
"""
_SHOWN: Final[LiteralString] = (
    rows.select(Schedule, "s.")
    + """, w.slug, w.name as workflow_name
    from gitstore.schedules s join gitstore.workflows w on w.id = s.workflow_id
"""
)
_FIND: Final[LiteralString] = _SHOWN + " where s.project_id = %(project)s and s.id = %(id)s"
_PAGE: Final[LiteralString] = (
    _SHOWN
    + """
    where s.project_id = %(project)s and (%(workflow)s::uuid is null or s.workflow_id = %(workflow)s)
        and (%(state)s::text is null or s.state = %(state)s)
        and (%(at)s::timestamptz is null or (s.at, s.id) < (%(at)s, %(last)s))
    order by s.at desc, s.id desc limit %(limit)s
"""
)
_CANCEL: Final[LiteralString] = """
    update gitstore.schedules
    set state = 'cancelled', due_at = null, ended_at = clock_timestamp(), ended_by = %(by)s
    where project_id = %(project)s and id = %(id)s and state = 'waiting'
"""
_CLAIM: Final[LiteralString] = (
    """
    with mine as materialized (
        select id, state = 'running' as taken_over from gitstore.schedules due
        where due_at <= clock_timestamp() and not exists (
            select from gitstore.schedules earlier
            where earlier.workflow_id = due.workflow_id and earlier.state in ('waiting', 'running')
                and (earlier.at, earlier.id) < (due.at, due.id))
        order by due_at limit %(room)s for update skip locked
    )
    update gitstore.schedules s set state = 'running', claim = %(claim)s,
        crashes = s.crashes + mine.taken_over::int,
        due_at = clock_timestamp() + make_interval(secs => %(lease)s)
    from mine where s.id = mine.id
    returning """  # noqa: S608 - of constants
    + rows.columns(Schedule, "s.")
    + ", s.claim, s.crashes, mine.taken_over, s.at < clock_timestamp() - %(latest)s::interval as missed"
)
_RENEW: Final[LiteralString] = """
    update gitstore.schedules set due_at = clock_timestamp() + make_interval(secs => %(lease)s)
    where claim = any(%(claims)s) and state = 'running'
"""
_IS_HELD: Final[LiteralString] = """
    select exists (
        select from gitstore.schedules where id = %(id)s and claim = %(claim)s and state = 'running')
"""
# Nothing was written, so it may also be cancelled.
_RELEASE: Final[LiteralString] = """
    update gitstore.schedules set state = 'waiting', claim = null, due_at = clock_timestamp() + %(pause)s
    where id = %(id)s and claim = %(claim)s and state = 'running'
"""
# Perhaps it was written: the next claim looks, and does not count as one after a crash.
_AGAIN: Final[LiteralString] = """
    update gitstore.schedules set crashes = crashes - 1, due_at = clock_timestamp() + %(pause)s
    where id = %(id)s and claim = %(claim)s and state = 'running'
"""
_END: Final[LiteralString] = """
    update gitstore.schedules set state = %(state)s, due_at = null, ended_at = clock_timestamp(),
        version_number = coalesce(%(number)s, version_number), code = %(code)s, reason = %(reason)s
    where id = %(id)s and claim = %(claim)s and state = 'running'
    returning extract(epoch from ended_at - at)::float8
"""
_NEXT: Final[LiteralString] = """
    select extract(epoch from min(due_at) - clock_timestamp())::float8 from gitstore.schedules
    where due_at is not null
"""
_DUE: Final[LiteralString] = """
    select count(*) as due,
        coalesce(greatest(extract(epoch from clock_timestamp() - min(at)), 0), 0)::float8 as delay
    from gitstore.schedules where due_at is not null and at <= clock_timestamp()
"""
_END_OF_TIME: Final = UUID(int=2**128 - 1)


def create(tx: Transaction, schedule: UUID, plan: Plan) -> Schedule | None:
    """Insert a schedule with the id `schedule`; or return the one that is there for that pointer and time.

    Return None if the time has passed, or is further away than `FURTHEST`.
    """
    values: Mapping[str, Any] = {"id": schedule, "plans": rows.as_json([plan]), "furthest": FURTHEST}
    for row in tx.tuples(_INSERT, **values):
        return Schedule(**dict(zip(rows.column_names(Schedule), row, strict=False)))
    return tx.row(Schedule, _SAME, workflow=plan.workflow_id, environment=plan.environment, at=plan.at)


def count(tx: Transaction, workflow: UUID) -> int:
    """Return the number of a workflow's schedules that have not ended."""
    return int(tx.value(_COUNT, workflow=workflow))


def find(tx: Transaction, project: UUID, schedule: UUID) -> ShownSchedule | None:
    return tx.row(ShownSchedule, _FIND, project=project, id=schedule)


def page(
    tx: Transaction,
    project: UUID,
    *,
    workflow: UUID | None = None,
    state: str | None = None,
    before: tuple[datetime, UUID] | None = None,
    limit: int,
) -> list[ShownSchedule]:
    """Return schedules of a project or of a workflow, the latest time first; only those `before` a row."""
    at, last = before or (None, _END_OF_TIME)
    wanted = {"workflow": workflow, "state": state, "at": at, "last": last, "limit": limit}
    return tx.rows(ShownSchedule, _PAGE, project=project, **wanted)


def cancel(tx: Transaction, project: UUID, schedule: UUID, by: str) -> bool:
    """Cancel a schedule; return False unless it is waiting."""
    return tx.run(_CANCEL, project=project, id=schedule, by=by) == 1


# For the worker, as the mirror


def claim(tx: Transaction, room: int) -> list[Claim]:
    """Claim due schedules, the first due first; also those of workers that were killed.

    Those of a workflow are carried out one after the other, in the order of their times.
    """
    values = {"room": room, "claim": uuid4(), "lease": LEASE_SECONDS, "latest": LATEST}
    return tx.rows(Claim, _CLAIM, **values)


def renew(tx: Transaction, claims: Sequence[UUID]) -> None:
    """Extend the claims of schedules that are being carried out."""
    tx.run(_RENEW, claims=list(claims), lease=LEASE_SECONDS)


def is_held(tx: Transaction, claimed: Claim) -> bool:
    """Return whether the schedule is still claimed by this claim."""
    return bool(tx.value(_IS_HELD, id=claimed.id, claim=claimed.claim))


def release(tx: Transaction, claimed: Claim, pause: timedelta) -> None:
    """Give up a claim under which nothing was written; the schedule is due again after `pause`."""
    tx.run(_RELEASE, id=claimed.id, claim=claimed.claim, pause=pause)


def look_again(tx: Transaction, claimed: Claim, pause: timedelta) -> None:
    """Let the schedule be claimed again after `pause`, to find in the ledger whether it was carried out."""
    tx.run(_AGAIN, id=claimed.id, claim=claimed.claim, pause=pause)


def finish(tx: Transaction, claimed: Claim, number: int | None) -> float | None:
    """Record that a schedule was carried out; return the seconds after its time, None if it is not held."""
    return _ended(tx, claimed, "done", number=number)


def stop(tx: Transaction, claimed: Claim, code: str, reason: str) -> float | None:
    """Record why a schedule was stopped; return the seconds after its time, None if it is not held."""
    return _ended(tx, claimed, "stopped", code=code, reason=reason)


def _ended(
    tx: Transaction,
    claimed: Claim,
    state: str,
    *,
    number: int | None = None,
    code: str | None = None,
    reason: str | None = None,
) -> float | None:
    values = {"state": state, "number": number, "code": code, "reason": reason}
    delay: float | None = tx.value(_END, id=claimed.id, claim=claimed.claim, **values)
    return delay


def seconds_to_next(tx: Transaction) -> float | None:
    """Return the seconds until a schedule is due, or None without one."""
    seconds: float | None = tx.value(_NEXT)
    return seconds


def waiting(tx: Transaction) -> Waiting:
    """Return how many schedules are due, and for how long."""
    found = tx.row(Waiting, _DUE)
    assert found is not None  # noqa: S101 - an aggregate has a row
    return found
