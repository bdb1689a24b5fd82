"""Actions on subscriptions and deliveries: create, change, rotate, test, replay, delete; redeliver."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Literal

from gitstore.errors import MalformedError
from gitstore.system import now, rfc3339
from service import lookup
from service.caller import Caller
from service.logs import Event
from sync.db import Transaction
from webhooks import delivery_log, subscriptions
from webhooks.delivery_log import Attempt, Delivery, Replayed
from webhooks.subscriptions import OVERLAP, SUBSCRIBABLE, Subscription

_OF_A_SUBSCRIPTION: Final = " to an existing subscription"


def find(tx: Transaction, caller: Caller, subscription_id: str) -> Subscription:
    read = partial(subscriptions.subscription, tx, caller.project_id)
    return lookup.find("subscription", subscription_id, read)


def create(caller: Caller, url: str, events: Sequence[str] = SUBSCRIBABLE) -> tuple[Subscription, str]:
    """Create a subscription; return it and its secret, which cannot be read again."""
    checked = str(caller.services.egress.check(url))
    sealer = caller.services.sealer()
    with caller.as_user() as tx:
        row, secret = subscriptions.create(tx, sealer, caller.project_id, checked, events)
        caller.audit(tx, "subscription.created", row.id, {"events": row.events})
    caller.log(Event.SUBSCRIPTION_CREATED, subscription=str(row.id))
    return row, secret


def change(
    caller: Caller,
    subscription_id: str,
    *,
    url: str | None = None,
    events: Sequence[str] | None = None,
    state: Literal["active", "paused"] | None = None,
) -> Subscription:
    """Change the subscription; what is None is unchanged."""
    changes = {"url": url, "events": events, "state": state}
    checked = str(caller.services.egress.check(url)) if url is not None else None
    with caller.as_user() as tx:
        row = find(tx, caller, subscription_id)
        changed = subscriptions.change(tx, caller.project_id, row.id, url=checked, events=events, state=state)
        if changed is None:
            raise lookup.not_found("subscription", subscription_id)
        names = sorted(name for name, value in changes.items() if value is not None)
        caller.audit(tx, "subscription.changed", row.id, {"changed": names})
    caller.log(Event.SUBSCRIPTION_CHANGED, subscription=str(row.id), state=changed.state)
    return changed


def delete(caller: Caller, subscription_id: str) -> None:
    """Delete the subscription. Its deliveries can still be read."""
    with caller.as_user() as tx:
        row = find(tx, caller, subscription_id)
        if not subscriptions.delete(tx, caller.project_id, row.id):
            raise lookup.not_found("subscription", subscription_id)
        caller.audit(tx, "subscription.deleted", row.id, {})
    caller.log(Event.SUBSCRIPTION_DELETED, subscription=str(row.id))


def rotate(caller: Caller, subscription_id: str, overlap: timedelta = OVERLAP) -> tuple[Subscription, str]:
    """Return the subscription and its new secret; older ones sign deliveries, too, for `overlap`."""
    with caller.as_user() as tx:
        row = find(tx, caller, subscription_id)
        secret = subscriptions.rotate(tx, caller.services.sealer(), caller.project_id, row.id, overlap)
        if secret is None:
            raise lookup.not_found("subscription", subscription_id)
        details = {"overlap_hours": overlap.total_seconds() / 3600}
        caller.audit(tx, "subscription.rotated", row.id, details)
    caller.log(Event.SUBSCRIPTION_ROTATED, subscription=str(row.id))
    return row, secret


def test(caller: Caller, subscription_id: str) -> Delivery:
    """Deliver a test event to this subscription only."""
    with caller.as_user() as tx:
        return delivery_log.test(tx, find(tx, caller, subscription_id))


def replay(caller: Caller, subscription_id: str, since: datetime) -> Replayed:
    """Send the subscription all events since a time again, at most as old as ended deliveries are kept."""
    days = caller.services.config.keep_days
    if since < now() - timedelta(days=days):
        raise MalformedError(f"only events of the last {days} days can be sent again: choose a later time")
    with caller.as_user() as tx:
        row = find(tx, caller, subscription_id)
        replayed = delivery_log.replay(tx, row, since)
        details = {"since": rfc3339(since), "deliveries": replayed.deliveries}
        caller.audit(tx, "subscription.replayed", row.id, details)
    caller.log(Event.REPLAYED, subscription=str(row.id), deliveries=replayed.deliveries)
    return replayed


def redeliver(caller: Caller, delivery_id: str) -> Delivery:
    """Send a delivery again, now."""
    with caller.as_user() as tx:
        redelivered = partial(delivery_log.redeliver, tx, caller.project_id)
        row = lookup.find("delivery", delivery_id, redelivered, _OF_A_SUBSCRIPTION)
        caller.audit(tx, "delivery.again", row.id, {})
    caller.log(Event.REDELIVERED, delivery=str(row.id), subscription=str(row.subscription_id))
    return row


def delivery(tx: Transaction, caller: Caller, delivery_id: str) -> tuple[Delivery, list[Attempt]]:
    """Return a delivery and its attempts."""
    read = partial(delivery_log.delivery, tx, caller.project_id)
    row = lookup.find("delivery", delivery_id, read, _OF_A_SUBSCRIPTION)
    return row, delivery_log.attempts(tx, row.id)
