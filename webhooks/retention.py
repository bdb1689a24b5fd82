"""Retention: prune old ended deliveries with their attempts, old receipts, and previous secrets of sources.

Functions run as the mirror role.

Rows are deleted in slices, one transaction each, so that locks are short and a shutdown is prompt. Locked
rows, for example of a delivery that is being redelivered, are skipped until the next run. A delivery that is
still to be sent is kept at any age. A delivery that is held for a paused or disabled subscription fails at
the age limit; otherwise held deliveries would accumulate without bound.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, LiteralString

from sync.db import Database

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
