"""Actions on subscriptions and deliveries: create, change, rotate, test, delete; redeliver."""

from __future__ import annotations

from datetime import timedelta

from gitstore.definition.quoting import clip
from gitstore.errors import Code, GitstoreError, NotFoundError
from service import logs, lookup
from service.api.subscription_schemas import ChangeSubscription, CreateSubscription
from service.context import Caller
from service.logs import Event
from sync import audit
from sync.db import Transaction
from webhooks import delivery_log, subscriptions
from webhooks.delivery_log import Delivery
from webhooks.payload import ABOUT_WORKFLOWS
from webhooks.subscriptions import Subscription


def named(tx: Transaction, caller: Caller, shown: str) -> Subscription:
    """Return the subscription with the id `shown`. Raises `not_found`."""
    found = lookup.uuid_of(shown)
    row = subscriptions.subscription(tx, caller.project_id, found) if found else None
    if row is None:
        raise _unknown(shown)
    return row


def create(caller: Caller, body: CreateSubscription) -> tuple[Subscription, str]:
    """Create a subscription; return it and its secret, which cannot be read again."""
    url = str(caller.services.egress.check(body.url))
    events = body.events or ABOUT_WORKFLOWS
    with caller.as_user() as tx:
        made, secret = subscriptions.create(tx, caller.services.sealer(), caller.project_id, url, events)
        _note(tx, caller, "subscription.created", made, {"events": made.events})
    logs.action(Event.SUBSCRIPTION_CREATED, **caller.said, subscription=str(made.id))
    return made, secret


def change(caller: Caller, shown: str, body: ChangeSubscription) -> Subscription:
    url = str(caller.services.egress.check(body.url)) if body.url is not None else None
    with caller.as_user() as tx:
        row = named(tx, caller, shown)
        changed = subscriptions.change(
            tx, caller.project_id, row.id, url=url, events=body.events, state=body.state
        )
        if changed is None:
            raise _unknown(shown)
        _note(tx, caller, "subscription.changed", changed, {"changed": sorted(body.model_fields_set)})
    logs.action(Event.SUBSCRIPTION_CHANGED, **caller.said, subscription=str(row.id), state=changed.state)
    return changed


def delete(caller: Caller, shown: str) -> None:
    with caller.as_user() as tx:
        row = named(tx, caller, shown)
        if not subscriptions.delete(tx, caller.project_id, row.id):
            raise _unknown(shown)
        _note(tx, caller, "subscription.deleted", row, {})
    logs.action(Event.SUBSCRIPTION_DELETED, **caller.said, subscription=str(row.id))


def rotate(caller: Caller, shown: str, overlap: timedelta) -> tuple[Subscription, str]:
    """Return the subscription, and its new secret; older ones sign too until `overlap` has passed."""
    with caller.as_user() as tx:
        row = named(tx, caller, shown)
        secret = subscriptions.rotate(tx, caller.services.sealer(), caller.project_id, row.id, overlap)
        if secret is None:
            raise _unknown(shown)
        _note(tx, caller, "subscription.rotated", row, {"overlap_hours": overlap.total_seconds() / 3600})
    logs.action(Event.SUBSCRIPTION_ROTATED, **caller.said, subscription=str(row.id))
    return row, secret


def test(caller: Caller, shown: str) -> Delivery:
    """Deliver a test event to this subscription only."""
    with caller.as_user() as tx:
        return delivery_log.test(tx, named(tx, caller, shown))


def redeliver(caller: Caller, shown: str) -> Delivery:
    """Send a delivery again, now."""
    found = lookup.uuid_of(shown)
    with caller.as_user() as tx:
        row = delivery_log.redeliver(tx, caller.project_id, found) if found else None
        if row is None:
            raise no_delivery(shown)
        audit.note(tx, caller.project_id, caller.origin, "delivery.again", str(row.id))
    logs.action(Event.REDELIVERED, **caller.said, delivery=str(row.id), subscription=str(row.subscription_id))
    return row


def no_delivery(shown: str) -> GitstoreError:
    return NotFoundError(
        Code.NOT_FOUND, f"there is no delivery {clip(shown)!r} to a subscription that exists"
    )


def _unknown(shown: str) -> GitstoreError:
    return NotFoundError(Code.NOT_FOUND, f"there is no subscription {clip(shown)!r}")


def _note(
    tx: Transaction, caller: Caller, action: str, row: Subscription, details: dict[str, object]
) -> None:
    audit.note(tx, caller.project_id, caller.origin, action, str(row.id), details)
