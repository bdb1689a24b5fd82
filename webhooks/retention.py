"""Forgetting what is old: deliveries that have ended, with their attempts, and receipts. As the mirror.

In slices, each a transaction of its own, so that nobody waits for it and a stop is never far. Rows that
somebody holds, as to send a delivery again, are passed over until the next time. What is still to be sent
stays, however old; but what is held for a subscription that stays paused ends as failed, since otherwise
it would grow for ever.
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
    ), unsaid as (
        delete from gitstore.delivery_attempts where delivery_id in (select id from old)
    )
    delete from gitstore.deliveries where id in (select id from old)
"""


@dataclass(frozen=True, slots=True)
class Pruned:
    """How many rows were forgotten. `held` counts deliveries that were given up for being held too long."""

    deliveries: int
    receipts: int
    held: int

    def __bool__(self) -> bool:
        return bool(self.deliveries or self.receipts or self.held)


def prune(
    database: Database, age: timedelta, stopping: Callable[[], bool] = lambda: False, *, slice_: int = SLICE
) -> Pruned:
    """Forget what is older than `age`; a day at least. A receipt that is forgotten costs a fetch, no more.

    Where it is `stopping`, the rest is left to the next time.
    """
    why = f"it was held for {age.days} days, as its subscription is paused"

    def sliced(query: LiteralString, **more: object) -> int:
        done = 0
        while not stopping():
            with database.as_mirror() as tx:
                found = tx.run(query, age=age, slice=slice_, **more)
            done += found
            if found < slice_:
                break
        return done

    return Pruned(held=sliced(_HELD, why=why), deliveries=sliced(_DELIVERIES), receipts=sliced(_RECEIPTS))
