"""Delivery log for the owners of a project: deliveries, attempts, redelivery, replay and test events."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, LiteralString, get_args
from uuid import UUID, uuid4

from psycopg.types.json import Jsonb

from sync.db import Transaction
from webhooks.subscriptions import TEST, WAKE, Subscription

State = Literal["pending", "succeeded", "failed", "poison"]
STATES: Final[tuple[State, ...]] = get_args(State)
MOST_REPLAYED: Final = 10_000
"""Events that one replay sends, apart from those recorded at the same moment as its last."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery to one subscription.

    `event_id` is sent to subscribers as webhook-id. `due_at` is None if the delivery has ended or is held.
    """

    id: UUID
    subscription_id: UUID
    event_id: UUID
    type: str
    state: State
    due_at: datetime | None
    attempts: int
    last_status: int | None
    last_error: str | None
    created_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt. `status` is None without a response, and `error` is None after a success."""

    number: int
    url: str
    started_at: datetime
    duration_ms: int
    status: int | None
    error: str | None
    response: str | None


@dataclass(frozen=True, slots=True)
class Replayed:
    """The number of deliveries that a replay sends. `next_since` continues it, or is None at its end."""

    deliveries: int
    next_since: datetime | None


Position = tuple[datetime, UUID]
"""The position of a page's end: created_at and id of its last delivery."""

_SELECT: Final[LiteralString] = """
    select id, subscription_id, event_id, type, state, due_at, attempts, last_status, last_error, created_at,
        ended_at
    from gitstore.deliveries where project_id = %(project)s
"""
_BEFORE: Final[LiteralString] = " and (created_at, id) < (%(before)s, %(before_id)s)"
_OF_ONE: Final[LiteralString] = " and subscription_id = %(subscription)s"
_IN_STATE: Final[LiteralString] = " and state = %(state)s"
_ORDER: Final[LiteralString] = " order by created_at desc, id desc limit %(limit)s"
_BY_ID: Final[LiteralString] = " and id = %(id)s"
_ATTEMPTS: Final[LiteralString] = """
    select number, url, started_at, duration_ms, status, error, response
    from gitstore.delivery_attempts where delivery_id = %(id)s order by number
"""
# Earlier attempts are kept; the retry schedule restarts.
_REDELIVER: Final[LiteralString] = """
    update gitstore.deliveries set state = 'pending', due_at = now(), tries = 0, ended_at = null,
        claimed = false, crashes = 0
    where project_id = %(project)s and id = %(id)s and exists (
        select from gitstore.subscriptions s
        where s.id = subscription_id and s.state in ('active', 'paused', 'disabled'))
"""
_LOCK: Final[LiteralString] = """
    select true from gitstore.subscriptions where project_id = %(project)s and id = %(subscription)s for share
"""
# Deliveries that are being sent now are left alone. `with ties`: the next replay starts after `last`.
_REPLAY: Final[LiteralString] = """
    with chosen as materialized (
        select s.id, s.project_id, s.state, e.id as event_id, e.type, e.recorded_at
        from gitstore.subscriptions s
        join gitstore.events e on e.project_id = s.project_id and e.type = any(s.events)
            and e.recorded_at >= %(since)s and e.data ->> 'subscription_id' is distinct from s.id::text
        where s.project_id = %(project)s and s.id = %(subscription)s and s.state <> 'deleted'
        order by e.recorded_at fetch first (%(most)s) rows with ties
    ), sent as (
        insert into gitstore.deliveries as d (project_id, subscription_id, event_id, type, due_at)
        select project_id, id, event_id, type, case when state = 'active' then now() end
        from chosen order by recorded_at, event_id
        on conflict (subscription_id, event_id) do update set state = 'pending', due_at = excluded.due_at,
            tries = 0, ended_at = null, claimed = false, crashes = 0
        where d.state <> 'pending' or not d.claimed
        returning d.id
    )
    select (select count(*) from sent) as deliveries,
        case when count(*) >= %(most)s then max(recorded_at) end as last
    from chosen
"""
_INSERT_TEST: Final[LiteralString] = """
    insert into gitstore.deliveries (id, project_id, subscription_id, event_id, type, data, due_at)
    values (%(id)s, %(project)s, %(subscription)s, %(event)s, %(type)s, %(data)s, now())
"""
_NEWEST: Final = (datetime.max.replace(tzinfo=UTC), UUID(int=2**128 - 1))


def deliveries(
    tx: Transaction,
    project_id: UUID,
    *,
    subscription_id: UUID | None = None,
    state: State | None = None,
    before: Position | None = None,
    limit: int = 20,
) -> tuple[list[Delivery], Position | None]:
    """Return a page of a project's deliveries, newest first, and the position of the next page or None."""
    query = _SELECT + _BEFORE + (_OF_ONE if subscription_id else "") + (_IN_STATE if state else "") + _ORDER
    at, last = before or _NEWEST
    rows = tx.rows(
        Delivery,
        query,
        project=project_id,
        subscription=subscription_id,
        state=state,
        before=at,
        before_id=last,
        limit=limit + 1,
    )
    page = rows[:limit]
    return page, (page[-1].created_at, page[-1].id) if len(rows) > limit else None


def delivery(tx: Transaction, project_id: UUID, delivery_id: UUID) -> Delivery | None:
    return tx.row(Delivery, _SELECT + _BY_ID, project=project_id, id=delivery_id)


def attempts(tx: Transaction, delivery_id: UUID) -> list[Attempt]:
    """Return the attempts of a delivery, oldest first."""
    return tx.rows(Attempt, _ATTEMPTS, id=delivery_id)


def redeliver(tx: Transaction, project_id: UUID, delivery_id: UUID) -> Delivery | None:
    """Send a delivery again at once with the same id, even to a paused subscription.

    Returns None if the delivery does not exist or its subscription was deleted.
    """
    if not tx.run(_REDELIVER, project=project_id, id=delivery_id):
        return None
    tx.value(WAKE)
    return delivery(tx, project_id, delivery_id)


def replay(
    tx: Transaction, subscription: Subscription, since: datetime, most: int = MOST_REPLAYED
) -> Replayed:
    """Send a subscription the events that were recorded at or after `since`, with the same ids.

    Includes those that it received before and those from before it was created. If it is paused or disabled,
    they are held. `most` limits the number of events, so that one replay is short; `next_since` continues.
    """
    key = {"project": subscription.project_id, "subscription": subscription.id}
    tx.value(_LOCK, **key)  # prevents a pause until the commit
    ((count, last),) = tx.tuples(_REPLAY, **key, since=since, most=most)
    tx.value(WAKE)
    return Replayed(count, last and last + timedelta(microseconds=1))


def test(tx: Transaction, subscription: Subscription) -> Delivery:
    """Send a test event to one subscription, paused or not."""
    message = "This is a test of the subscription."
    key = {"id": uuid4(), "project": subscription.project_id}
    data = Jsonb({"subscription_id": str(subscription.id), "message": message})
    tx.run(_INSERT_TEST, **key, subscription=subscription.id, event=uuid4(), type=TEST, data=data)
    tx.value(WAKE)
    (created,) = tx.rows(Delivery, _SELECT + _BY_ID, **key)
    return created
