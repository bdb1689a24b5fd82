"""Housekeeping of all projects: pruning of old rows, and gauges for monitoring.

Functions run as the mirror role.

`prune` deletes old ended deliveries with their attempts, old receipts, and previous secrets of sources, in
slices of one transaction each, so that locks are short and a shutdown is prompt. Locked rows, for example of
a delivery that is being redelivered, are skipped until the next run. A delivery that is still to be sent is
kept at any age. A delivery that is held for a paused or disabled subscription fails at the age limit;
otherwise held deliveries would accumulate without bound.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, LiteralString

from sync.db import Database, Transaction

SLICE: Final = 500

_RECEIPTS: Final[LiteralString] = """
    delete from gitstore.receipts where (source_id, delivery) in (
        select source_id, delivery from gitstore.receipts where received_at < now() - %(age)s::interval
        order by received_at limit %(slice)s for update skip locked)
"""
_HELD: Final[LiteralString] = """
    update gitstore.deliveries set state = 'failed', ended_at = now(), last_error = %(why)s
    where id in (
        select id from gitstore.deliveries
        where state = 'pending' and due_at is null and created_at < now() - %(age)s::interval
        order by created_at limit %(slice)s for update skip locked)
"""
_DELIVERIES: Final[LiteralString] = """
    with old as materialized (
        select id from gitstore.deliveries where ended_at < now() - %(age)s::interval
        order by ended_at limit %(slice)s for update skip locked
    ), old_attempts as (
        delete from gitstore.delivery_attempts where delivery_id in (select id from old)
    )
    delete from gitstore.deliveries where id in (select id from old)
"""
# After its rotation, only a thief could use a secret.
_PREVIOUS: Final[LiteralString] = """
    update gitstore.sources set sealed_previous_secret = null, previous_secret_until = null
    where id in (
        select id from gitstore.sources where previous_secret_until <= now()
        limit %(slice)s for no key update skip locked)
"""


@dataclass(frozen=True, slots=True)
class Pruned:
    """Numbers of pruned rows. `held` counts deliveries that failed because they were held too long."""

    deliveries: int
    receipts: int
    held: int

    def __bool__(self) -> bool:
        return bool(self.deliveries or self.receipts or self.held)


def prune(
    database: Database, age: timedelta, stopping: Callable[[], bool] = lambda: False, *, slice_: int = SLICE
) -> Pruned:
    """Prune rows older than `age`, which is a day at least, and secrets after their rotation.

    Returns the numbers of rows.

    A repeated delivery whose receipt was pruned causes a redundant fetch only. Once `stopping` returns True,
    the remaining rows are left to the next run.
    """
    why = f"held for {age.days} days because its subscription is paused or disabled"

    def sliced(query: LiteralString, **more: object) -> int:
        total = 0
        while not stopping():
            with database.as_mirror() as tx:
                count = tx.run(query, age=age, slice=slice_, **more)
            total += count
            if count < slice_:
                break
        return total

    pruned = Pruned(held=sliced(_HELD, why=why), deliveries=sliced(_DELIVERIES), receipts=sliced(_RECEIPTS))
    sliced(_PREVIOUS)
    return pruned


# Gauges

SOURCE_STATES: Final = ("new", "ok", "failing", "paused", "poison")
SUBSCRIPTION_STATES: Final = ("active", "failing", "paused", "disabled")

# For a source that never succeeded, the age counts from its creation. An archived project pauses its sources.
_SOURCES: Final[LiteralString] = """
    select case when paused or archived_at is not null then 'paused'
            when poisoned_at is not null then 'poison'
            when failures > 0 then 'failing' when succeeded_at is null then 'new' else 'ok' end,
        count(*), extract(epoch from now() - min(coalesce(succeeded_at, s.created_at)))::float8
    from gitstore.sources s join gitstore.projects p on p.id = s.project_id group by 1
"""
_DIVERGENCES: Final[LiteralString] = "select count(*) from gitstore.divergences where resolved_at is null"
_SUBSCRIPTIONS: Final[LiteralString] = """
    select case when state = 'active' and failing_since is not null then 'failing' else state end, count(*)
    from gitstore.subscriptions where state <> 'deleted' group by 1
"""
_PENDING: Final[LiteralString] = "select count(*) from gitstore.deliveries where state = 'pending'"


@dataclass(frozen=True, slots=True)
class Gauges:
    """The values of the gauges.

    `since_success` is the longest time in seconds since a source's last successful sync, over the sources
    that are neither paused nor poison; 0 without such sources. `pending` counts deliveries.
    """

    sources: Mapping[str, int]
    since_success: float
    divergences: int
    subscriptions: Mapping[str, int]
    pending: int


def gauges(tx: Transaction) -> Gauges:
    """Return the current values. `tx` runs as the mirror role."""
    rows = tx.tuples(_SOURCES)
    waits = [float(seconds) for state, _, seconds in rows if state not in ("paused", "poison")]
    return Gauges(
        sources=dict.fromkeys(SOURCE_STATES, 0) | {state: count for state, count, _ in rows},
        since_success=max([0.0, *waits]),
        divergences=tx.value(_DIVERGENCES),
        subscriptions=dict.fromkeys(SUBSCRIPTION_STATES, 0) | dict(tx.tuples(_SUBSCRIPTIONS)),
        pending=tx.value(_PENDING),
    )
