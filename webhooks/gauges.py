"""How sources and deliveries stand, in figures for whoever watches the service: of all projects together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, LiteralString

from sync.db import Transaction

SOURCE_STATES: Final = ("new", "ok", "failing", "paused", "poison")
SUBSCRIPTION_STATES: Final = ("active", "failing", "paused", "disabled")

# A source that never succeeded has been waiting for it since it was made.
_SOURCES: Final[LiteralString] = """
    select case when paused then 'paused' when poisoned_at is not null then 'poison'
            when failures > 0 then 'failing' when succeeded_at is null then 'new' else 'ok' end,
        count(*), extract(epoch from now() - min(coalesce(succeeded_at, created_at)))::float8
    from gitstore.sources group by 1
"""
_DIVERGENCES: Final[LiteralString] = "select count(*) from gitstore.divergences where resolved_at is null"
_SUBSCRIPTIONS: Final[LiteralString] = """
    select case when state = 'active' and failing_since is not null then 'failing' else state end, count(*)
    from gitstore.subscriptions where state <> 'deleted' group by 1
"""
_PENDING: Final[LiteralString] = "select count(*) from gitstore.deliveries where state = 'pending'"


@dataclass(frozen=True, slots=True)
class Gauges:
    """`since_success`: seconds, of the source that waits longest for one, among those that are neither paused
    nor poison; 0 where there is none.
    """

    sources: Mapping[str, int]
    since_success: float
    divergences: int
    subscriptions: Mapping[str, int]
    pending: int


def gauges(tx: Transaction) -> Gauges:
    """As the mirror."""
    found = tx.tuples(_SOURCES)
    waits = [float(seconds) for state, _, seconds in found if state not in ("paused", "poison")]
    return Gauges(
        sources=dict.fromkeys(SOURCE_STATES, 0) | {state: count for state, count, _ in found},
        since_success=max([0.0, *waits]),
        divergences=tx.value(_DIVERGENCES),
        subscriptions=dict.fromkeys(SUBSCRIPTION_STATES, 0) | dict(tx.tuples(_SUBSCRIPTIONS)),
        pending=tx.value(_PENDING),
    )
