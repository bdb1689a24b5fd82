"""Which sources are due, who syncs them (a lease), and what came of it: the rows. As the mirror."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, LiteralString
from uuid import UUID, uuid4

from psycopg.types.json import Jsonb

from gitstore.errors import GitstoreError
from sync.db import Transaction
from webhooks import crashes

LEASE_SECONDS: Final = 60
_WAY_OUT: Final = "sync it, or change it, to try again"


@dataclass(frozen=True, slots=True)
class Claim:
    """A source that is ours to sync, until `finish`."""

    id: UUID
    project_id: UUID
    url: str
    layout: str
    direction: str
    sealed_credential: str | None
    full_sync: bool
    failures: int
    claim: UUID


@dataclass(frozen=True, slots=True)
class Crashed:
    """A source whose process ended in the middle of a sync; `project` is the slug."""

    id: UUID
    project: str
    url: str
    crashes: int
    last_error: str

    @property
    def poisoned(self) -> bool:
        """Whether it was given up by this."""
        return self.crashes >= crashes.MOST


@dataclass(frozen=True, slots=True)
class Lanes:
    """For which there is room: sources that are quick; those that failed last time or are `known_slow`."""

    quick: bool = True
    slow: bool = True
    known_slow: Sequence[UUID] = ()


# Due once more when the lease ends: so one whose worker was killed is not forgotten until its next poll.
# However many sources of one project hang, those of others have their turn. A receipt that is being written
# holds the key of its source, and is no reason to pass it over: nobody would wake us again.
_CLAIM: Final[LiteralString] = """
    with next as (
        select s.id, s.full_sync from gitstore.sources s
        cross join lateral (select s.failures > 0 or s.id = any(%(known_slow)s::uuid[]) as slow) lane
        where (claimed_until is null or claimed_until <= now())
            and case when %(id)s::uuid is not null then id = %(id)s
                else not paused and poisoned_at is null and due_at <= now()
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
    returning s.id, s.project_id, s.url, s.layout, s.direction, s.sealed_credential, next.full_sync,
        s.failures, s.claim
"""
# All is looked at again: what was asked of the process that ended is not known any more.
_CRASH: Final[LiteralString] = """
    update gitstore.sources s set claim = null, claimed_until = null, full_sync = true,
        failures = failures + 1, crashes = crashes + 1,
        poisoned_at = case when crashes + 1 >= %(most)s then now() end,
        last_error = case when crashes + 1 >= %(most)s then %(given_up)s else %(error)s end,
        due_at = now() + make_interval(secs => %(pause)s * crashes)
    from gitstore.projects p where p.id = s.project_id
"""
_CRASHED: Final[LiteralString] = " returning s.id, p.slug as project, s.url, s.crashes, s.last_error"
_THOSE_WITH_ENDED_LEASES: Final[LiteralString] = _CRASH + " and s.claimed_until <= now()" + _CRASHED
_THIS_ONE: Final[LiteralString] = _CRASH + " and s.id = %(id)s and s.claim = %(claim)s" + _CRASHED
# What rang meanwhile stays due.
_RENEW: Final[LiteralString] = """
    update gitstore.sources set claimed_until = now() + make_interval(secs => %(lease)s),
        due_at = case when due_at <= now() then due_at else now() + make_interval(secs => %(lease)s) end
    where id = %(id)s and claim = %(claim)s
"""
_OURS: Final[LiteralString] = """
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
# What is due already waits for room, not for time.
_SECONDS_TO_NEXT: Final[LiteralString] = """
    select extract(epoch from min(at) - now())::float8
    from gitstore.sources
    cross join lateral (select greatest(due_at, coalesce(claimed_until, due_at)) as at) next
    where not paused and poisoned_at is null and at > now()
"""
_LAG: Final[LiteralString] = """
    select extract(epoch from now() - min(due_at))::float8 from gitstore.sources
    where not paused and poisoned_at is null and due_at <= now()
        and (claimed_until is null or claimed_until <= now())
"""
_PUSH_DUE: Final[LiteralString] = """
    update gitstore.sources s set due_at = now() from gitstore.events e
    where e.id = any(%(ids)s) and e.type in ('workflow.version.published', 'workflow.draft.updated')
        and s.project_id = e.project_id and s.direction <> 'pull' and not s.paused and s.due_at > now()
"""
_SEEN: Final[LiteralString] = "select ref, oid from gitstore.upstream_refs where source_id = %(id)s"
_SEE: Final[LiteralString] = """
    insert into gitstore.upstream_refs (source_id, project_id, ref, oid)
    select %(id)s, %(project)s, ref, oid from unnest(%(refs)s::text[], %(oids)s::text[]) as new (ref, oid)
    on conflict (source_id, ref) do update set oid = excluded.oid
"""
_UNSEE: Final[LiteralString] = """
    delete from gitstore.upstream_refs where source_id = %(id)s and ref = any(%(refs)s)
"""


def claim(tx: Transaction, source_id: UUID | None = None, lanes: Lanes = Lanes()) -> Claim | None:
    """One that is due and nobody's, or the one with that id, due or not; None where there is none."""
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


def leases_ended(tx: Transaction) -> list[Crashed]:
    """Count a crash for each source whose lease ended by itself, and let it be claimed again."""
    return tx.rows(Crashed, _THOSE_WITH_ENDED_LEASES, **_crash(crashes.WORKER_ENDED))


def crashed(tx: Transaction, ours: Claim, reason: str) -> Crashed | None:
    """Count a crash of the process that synced; None where the lease is another's by now."""
    return tx.row(Crashed, _THIS_ONE, id=ours.id, claim=ours.claim, **_crash(reason))


def _crash(reason: str) -> dict[str, object]:
    told = crashes.given_up(reason, _WAY_OUT)
    return {"most": crashes.MOST, "pause": crashes.PAUSE_SECONDS, "error": reason, "given_up": told}


def renew(tx: Transaction, ours: Claim) -> None:
    tx.run(_RENEW, id=ours.id, claim=ours.claim, lease=LEASE_SECONDS)


def release(tx: Transaction, ours: Claim) -> None:
    """Give it back, undone."""
    tx.run(_RELEASE, id=ours.id, claim=ours.claim, full=ours.full_sync)


def holds(tx: Transaction, ours: Claim) -> bool:
    """Whether it is still ours to record; if so, nobody else records until the transaction ends."""
    return tx.value(_OURS, id=ours.id, claim=ours.claim) is not None


def done(
    tx: Transaction, ours: Claim, report: Mapping[str, Any] | None, error: GitstoreError | None, pause: float
) -> None:
    """Record how it went; after an `error`, it is due again in `pause` seconds."""
    shown = Jsonb(dict(report)) if report is not None else None
    if error is None:
        tx.run(_SUCCEEDED, id=ours.id, report=shown)
    else:
        values = {"id": ours.id, "report": shown, "error": error.message, "full": ours.full_sync}
        tx.run(_FAILED, **values, pause=pause)


def seconds_to_next(tx: Transaction) -> float | None:
    """Until another source is due that is not due yet; None where there is none."""
    found: float | None = tx.value(_SECONDS_TO_NEXT)
    return found


def lag(tx: Transaction) -> float:
    """Return the seconds since the oldest source that is not being synced was due; 0 where there is none."""
    return float(tx.value(_LAG) or 0.0)


def seen(tx: Transaction, ours: Claim) -> dict[str, str]:
    """What the upstream was last seen to hold: ref -> id."""
    return dict(tx.tuples(_SEEN, id=ours.id))


def see(tx: Transaction, ours: Claim, before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Let `now` be what it was last seen to hold."""
    new = {ref: oid for ref, oid in now.items() if before.get(ref) != oid}
    gone = [ref for ref in before if ref not in now]
    if new:
        tx.run(_SEE, id=ours.id, project=ours.project_id, refs=list(new), oids=list(new.values()))
    if gone:
        tx.run(_UNSEE, id=ours.id, refs=gone)


def push_due(tx: Transaction, event_ids: list[UUID]) -> int:
    """Mark as due the sources that what has happened here is to be pushed to; how many there are."""
    return tx.run(_PUSH_DUE, ids=event_ids)
