"""Queue of sources: what makes them due, leases on due ones, and the recorded results.

A source is due when its poll interval has elapsed, when its webhook was received, when a local event has to
be pushed to it, or on request. Sources of an archived project wait. The lease of a killed worker expires
within a minute. Functions run as the mirror role.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, LiteralString
from uuid import UUID, uuid4

from psycopg.types.json import Jsonb

from gitstore.errors import ConfigError, GitstoreError
from sync.db import Database, Transaction
from webhooks import forges, sources
from webhooks.forges import Forge, Headers, Kind, Received
from webhooks.lease_loop import CRASH_PAUSE_SECONDS, MOST_CRASHES, WORKER_ENDED, given_up
from webhooks.secrets import Sealer
from webhooks.sources import Filter

LEASE_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Claim:
    """A source leased to this worker until `done` or `release`. `claim` identifies the lease.

    `others` are the other sources from which the project imports.
    """

    id: UUID
    project_id: UUID
    url: str
    layout: str
    direction: str
    workflows: list[str]
    drafts: bool
    others: list[UUID]
    sealed_credential: str | None
    full_sync: bool
    failures: int
    claim: UUID

    @property
    def synced(self) -> Filter:
        return Filter(self.workflows, self.drafts)

    @property
    def owner(self) -> UUID:
        return self.id

    @property
    def slow(self) -> bool:
        return self.failures > 0


@dataclass(frozen=True, slots=True)
class Crashed:
    """A source whose process ended during a sync. `project` is the slug."""

    id: UUID
    project: str
    url: str
    crashes: int
    last_error: str

    @property
    def poisoned(self) -> bool:
        """Return whether this crash made the source poison."""
        return self.crashes >= MOST_CRASHES


@dataclass(frozen=True, slots=True)
class Lanes:
    """Lanes with free capacity: quick sources, and slow ones that failed last time or are `known_slow`."""

    quick: bool = True
    slow: bool = True
    known_slow: Sequence[UUID] = ()


# A claim sets due_at to the end of the lease, so that a killed worker does not delay the source until its
# next poll. The limit per project keeps capacity for others if all sources of one project hang. A transaction
# that inserts a receipt holds a key lock on its source. `for no key update` does not conflict with it: a
# skipped source would not cause another notification.
_CLAIM: Final[LiteralString] = """
    with next as (
        select s.id, s.full_sync from gitstore.sources s
        cross join lateral (select s.failures > 0 or s.id = any(%(known_slow)s::uuid[]) as slow) lane
        where (claimed_until is null or claimed_until <= now())
            and case when %(id)s::uuid is not null then id = %(id)s
                else not paused and poisoned_at is null and due_at <= now() and not exists (
                    select from gitstore.projects p where p.id = s.project_id and p.archived_at is not null)
                and case when lane.slow then %(slow)s else %(quick)s end
                and case when lane.slow then 1 else 2 end > (
                    select count(*) from gitstore.sources o
                    where o.project_id = s.project_id and o.claimed_until > now()
                        and (o.failures > 0 or o.id = any(%(known_slow)s::uuid[])) = lane.slow)
                end
        order by due_at limit 1 for no key update of s skip locked
    )
    update gitstore.sources s set claim = %(claim)s, tried_at = now(), full_sync = false,
        claimed_until = now() + make_interval(secs => %(lease)s),
        due_at = now() + make_interval(secs => %(lease)s)
    from next where s.id = next.id
    returning s.id, s.project_id, s.url, s.layout, s.direction, s.workflows, s.drafts,
        array(
            select o.id from gitstore.sources o
            where o.project_id = s.project_id and o.id <> s.id and o.direction <> 'push'
        ) as others,
        s.sealed_credential, next.full_sync, s.failures, s.claim
"""
# The next sync is a full one, since the claim cleared a requested full sync and the process has ended.
_CRASH: Final[LiteralString] = """
    update gitstore.sources s set claim = null, claimed_until = null, full_sync = true,
        failures = failures + 1, crashes = crashes + 1,
        poisoned_at = case when crashes + 1 >= %(most)s then now() end,
        last_error = case when crashes + 1 >= %(most)s then %(given_up)s else %(error)s end,
        due_at = now() + make_interval(secs => %(pause)s * crashes)
    from gitstore.projects p where p.id = s.project_id
"""
_CRASHED: Final[LiteralString] = " returning s.id, p.slug as project, s.url, s.crashes, s.last_error"
_CRASH_EXPIRED: Final[LiteralString] = _CRASH + " and s.claimed_until <= now()" + _CRASHED
_CRASH_ONE: Final[LiteralString] = _CRASH + " and s.id = %(id)s and s.claim = %(claim)s" + _CRASHED
# A webhook received during the sync keeps the source due.
_RENEW: Final[LiteralString] = """
    update gitstore.sources set claimed_until = now() + make_interval(secs => %(lease)s),
        due_at = case when due_at <= now() then due_at else now() + make_interval(secs => %(lease)s) end
    where id = %(id)s and claim = %(claim)s
"""
_LOCK_OURS: Final[LiteralString] = """
    select id from gitstore.sources where id = %(id)s and claim = %(claim)s for update
"""
_SUCCEEDED: Final[LiteralString] = """
    update gitstore.sources set claim = null, claimed_until = null, succeeded_at = now(), failures = 0,
        crashes = 0, poisoned_at = null, last_error = null, report = coalesce(%(report)s, report),
        due_at = case when due_at <= now() then due_at else now() + make_interval(secs => poll_seconds) end
    where id = %(id)s
"""
_FAILED: Final[LiteralString] = """
    update gitstore.sources set claim = null, claimed_until = null, failures = failures + 1,
        crashes = 0, poisoned_at = null, last_error = %(error)s, report = coalesce(%(report)s, report),
        full_sync = full_sync or %(full)s,
        due_at = case when due_at <= now() then due_at else now() + make_interval(secs => %(pause)s) end
    where id = %(id)s
"""
_RELEASE: Final[LiteralString] = """
    update gitstore.sources set claim = null, claimed_until = null, due_at = now(),
        full_sync = full_sync or %(full)s
    where id = %(id)s and claim = %(claim)s
"""
# Sources that are already due wait for capacity, not for time.
_SECONDS_TO_NEXT: Final[LiteralString] = """
    select extract(epoch from min(at) - now())::float8
    from gitstore.sources
    cross join lateral (select greatest(due_at, coalesce(claimed_until, due_at)) as at) next
    where not paused and poisoned_at is null and at > now()
        and project_id in (select id from gitstore.projects where archived_at is null)
"""
_LAG: Final[LiteralString] = """
    select extract(epoch from now() - min(due_at))::float8 from gitstore.sources
    where not paused and poisoned_at is null and due_at <= now()
        and project_id in (select id from gitstore.projects where archived_at is null)
        and (claimed_until is null or claimed_until <= now())
"""
_PUSH_DUE: Final[LiteralString] = """
    update gitstore.sources s set due_at = now() from gitstore.events e
    where e.id = any(%(ids)s) and (
            e.type = 'workflow.version.published' or e.type = 'workflow.draft.updated' and s.drafts)
        and s.project_id = e.project_id and s.direction <> 'pull' and not s.paused and s.due_at > now()
"""
# A transaction may take a while from the time that it records to its commit.
_RECENT_EVENTS: Final[LiteralString] = """
    select e.id from gitstore.events e
    where e.recorded_at > now() - interval '2 minutes' and e.project_id in (
        select s.project_id from gitstore.sources s where s.direction <> 'pull' and not s.paused)
"""
_UPSTREAM_REFS: Final[LiteralString] = "select ref, oid from gitstore.upstream_refs where source_id = %(id)s"
_SET_REFS: Final[LiteralString] = """
    insert into gitstore.upstream_refs (source_id, project_id, ref, oid)
    select %(id)s, %(project)s, ref, oid from unnest(%(refs)s::text[], %(oids)s::text[]) as new (ref, oid)
    on conflict (source_id, ref) do update set oid = excluded.oid
"""
_DELETE_REFS: Final[LiteralString] = """
    delete from gitstore.upstream_refs where source_id = %(id)s and ref = any(%(refs)s)
"""


def claim(tx: Transaction, source_id: UUID | None = None, lanes: Lanes = Lanes()) -> Claim | None:
    """Claim a due, unclaimed source, or the source with the given id even if it is not due.

    Returns None if no such source is free.
    """
    return tx.row(
        Claim,
        _CLAIM,
        id=source_id,
        claim=uuid4(),
        lease=LEASE_SECONDS,
        quick=lanes.quick,
        slow=lanes.slow,
        known_slow=list(lanes.known_slow),
    )


def crash_expired(tx: Transaction) -> list[Crashed]:
    """Record a crash of each source whose lease expired, and make the source claimable again."""
    return tx.rows(Crashed, _CRASH_EXPIRED, **_crash(WORKER_ENDED))


def crash(tx: Transaction, ours: Claim, reason: str) -> Crashed | None:
    """Record a crash of the process that synced, or return None if another worker holds the lease."""
    return tx.row(Crashed, _CRASH_ONE, id=ours.id, claim=ours.claim, **_crash(reason))


def _crash(reason: str) -> dict[str, object]:
    final = given_up(reason, "sync it, or change it, to try again")
    return {"most": MOST_CRASHES, "pause": CRASH_PAUSE_SECONDS, "error": reason, "given_up": final}


def renew(tx: Transaction, ours: Claim) -> None:
    tx.run(_RENEW, id=ours.id, claim=ours.claim, lease=LEASE_SECONDS)


def release(tx: Transaction, ours: Claim) -> None:
    """Release an unfinished claim and make its source due."""
    tx.run(_RELEASE, id=ours.id, claim=ours.claim, full=ours.full_sync)


def holds(tx: Transaction, ours: Claim) -> bool:
    """Return whether the claim is still valid. If so, lock the source until the transaction ends."""
    return tx.value(_LOCK_OURS, id=ours.id, claim=ours.claim) is not None


def done(
    tx: Transaction, ours: Claim, report: Mapping[str, Any] | None, error: GitstoreError | None, pause: float
) -> None:
    """Record the result and end the claim. After an `error` the source is due again in `pause` seconds."""
    values = {"id": ours.id, "report": Jsonb(dict(report)) if report is not None else None}
    if error is None:
        tx.run(_SUCCEEDED, **values)
    else:
        tx.run(_FAILED, **values, error=error.message, full=ours.full_sync, pause=pause)


def seconds_to_next(tx: Transaction) -> float | None:
    """Return the seconds until the next due time, or None without one."""
    seconds: float | None = tx.value(_SECONDS_TO_NEXT)
    return seconds


def lag(tx: Transaction) -> float:
    """Return the seconds since the oldest unclaimed source became due, or 0 without one."""
    return float(tx.value(_LAG) or 0.0)


def upstream_refs(tx: Transaction, ours: Claim) -> dict[str, str]:
    """Return the upstream's refs as last recorded: ref -> id."""
    return dict(tx.tuples(_UPSTREAM_REFS, id=ours.id))


def record_upstream_refs(
    tx: Transaction, ours: Claim, before: Mapping[str, str], now: Mapping[str, str]
) -> None:
    """Record `now` as the upstream's refs. `before` are the refs recorded so far."""
    new = {ref: oid for ref, oid in now.items() if before.get(ref) != oid}
    gone = [ref for ref in before if ref not in now]
    if new:
        tx.run(_SET_REFS, id=ours.id, project=ours.project_id, refs=list(new), oids=list(new.values()))
    if gone:
        tx.run(_DELETE_REFS, id=ours.id, refs=gone)


def push_due(tx: Transaction, event_ids: list[UUID]) -> int:
    """Mark the sources to which the events have to be pushed as due. Return their number."""
    return tx.run(_PUSH_DUE, ids=event_ids)


def recent_events(tx: Transaction) -> list[UUID]:
    """Return the ids of the events of the last minutes that may have to be pushed to a source."""
    return [event for (event,) in tx.tuples(_RECENT_EVENTS)]


# Receipts of webhooks


@dataclass(frozen=True, slots=True)
class HookTarget:
    """The fields of a source that are needed to verify a delivery to it. `project` is the slug.

    `sealed_previous_secret` is set while a rotation of the secret lasts.
    """

    id: UUID
    project_id: UUID
    project: str
    forge: str
    sealed_secret: str
    sealed_previous_secret: str | None

    def secrets(self, sealer: Sealer) -> tuple[str, ...]:
        """Return the accepted secrets. A previous one that cannot be decrypted is as good as retired."""
        purpose = sources.secret_purpose(self.id)
        current = sealer.open(purpose, self.sealed_secret)
        if self.sealed_previous_secret is None:
            return (current,)
        try:
            return current, sealer.open(purpose, self.sealed_previous_secret)
        except ConfigError:
            return (current,)


_HOOK_TARGET: Final[LiteralString] = """
    select s.id, s.project_id, p.slug as project, s.forge, s.sealed_secret,
        case when s.previous_secret_until > now() then s.sealed_previous_secret end as sealed_previous_secret
    from gitstore.sources s join gitstore.projects p on p.id = s.project_id where s.id = %(id)s
"""
_INSERT_RECEIPT: Final[LiteralString] = """
    insert into gitstore.receipts (source_id, project_id, delivery, event)
    values (%(source)s, %(project)s, %(delivery)s, %(event)s) on conflict do nothing
"""
# A source that is already due is left unchanged, so that ten deliveries cause one fetch.
_MARK_DUE: Final[LiteralString] = """
    update gitstore.sources set due_at = now() where id = %(source)s and due_at > now() and not paused
"""


def hook_target(database: Database, source_id: UUID) -> HookTarget | None:
    """Return the source with this id, in any project, or None."""
    with database.as_mirror() as tx:
        return tx.row(HookTarget, _HOOK_TARGET, id=source_id)


def accept(
    database: Database, sealer: Sealer, target: HookTarget, headers: Headers, body: bytes, now: datetime
) -> tuple[Received, bool]:
    """Verify a delivery, then record it and mark its source as due in one transaction.

    Returns the delivery and whether it is new; a repeated delivery changes nothing. Raises `bad_signature`.
    """
    received = forges.receive(headers, body, target.secrets(sealer), Forge(target.forge), now)
    with database.as_mirror() as tx:
        values = {"source": target.id, "project": target.project_id, "event": received.event}
        new = received.delivery is None or tx.run(_INSERT_RECEIPT, **values, delivery=received.delivery) > 0
        if new and received.kind is Kind.CHANGED and tx.run(_MARK_DUE, source=target.id):
            tx.value(sources.WAKE)
    return received, new
