"""Gauges of sources, divergences, subscriptions and deliveries for monitoring, over all projects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, LiteralString

from sync.db import Transaction

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
