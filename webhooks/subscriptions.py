"""Subscriptions: the URL, event types and signing secrets of each subscriber, as rows.

Functions take a transaction from `Database.as_user(claims)`; row-level security restricts reading and writing
to the owners of the project. A deleted subscription keeps its row, since its deliveries are history.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, LiteralString
from uuid import UUID, uuid4

from gitstore.errors import Code, ConflictError
from sync.db import Transaction
from sync.events import EventType
from webhooks.secrets import Sealer, new_secret

MOST: Final = 100
"""Largest number of subscriptions of a project. Each event creates one delivery per subscription."""
MOST_SECRETS: Final = 4
"""Largest number of secrets that sign at the same time, regardless of the number of rotations."""
OVERLAP: Final = timedelta(hours=24)
LONGEST_OVERLAP: Final = 168  # hours
WAKE: Final[LiteralString] = "select pg_notify('gitstore_deliveries', '')"
"""Notifies the workers of due deliveries."""
DISABLED: Final = "subscription.disabled"
TEST: Final = "webhook.test"
ABOUT_WORKFLOWS: Final = tuple(kind.value for kind in EventType)
SUBSCRIBABLE: Final = (*ABOUT_WORKFLOWS, DISABLED)
"""Event types that a subscription can receive; by default all of them."""

State = Literal["active", "paused", "disabled"]


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription of a project.

    `reason` explains why it is disabled. `failing_since` is None if the last attempt succeeded.
    """

    id: UUID
    project_id: UUID
    url: str
    events: list[str]
    state: State
    reason: str | None
    failing_since: datetime | None
    created_at: datetime
    updated_at: datetime


_SELECT: Final[LiteralString] = """
    select id, project_id, url, events, state, reason, failing_since, created_at, updated_at
    from gitstore.subscriptions where project_id = %(project)s and state <> 'deleted'
"""
_COUNT_DISABLED: Final[LiteralString] = """
    select count(*) from gitstore.subscriptions where project_id = %(project)s and state = 'disabled'
"""
_BY_ID: Final[LiteralString] = " and id = %(id)s"
_OLDEST_FIRST: Final[LiteralString] = " order by created_at, id"
_CREATE: Final[LiteralString] = """
    insert into gitstore.subscriptions (id, project_id, url, events)
    values (%(id)s, %(project)s, %(url)s, %(events)s)
"""
# A change of the URL or state by a person resets the consequences of earlier failures.
_CHANGE: Final[LiteralString] = """
    update gitstore.subscriptions set url = coalesce(%(url)s, url), events = coalesce(%(events)s, events),
        state = coalesce(%(state)s, state), updated_at = now(),
        reason = case when coalesce(%(state)s, state) = 'disabled' then reason end,
        failing_since = case when %(url)s is null and %(state)s is null then failing_since end,
        quiet_until = case when %(url)s is null and %(state)s is null then quiet_until end
    where project_id = %(project)s and state <> 'deleted' and id = %(id)s
"""
_DELETE: Final[LiteralString] = """
    update gitstore.subscriptions set state = 'deleted', updated_at = now()
    where project_id = %(project)s and state <> 'deleted' and id = %(id)s
"""
_HOLD: Final[LiteralString] = (
    "update gitstore.deliveries set due_at = null where subscription_id = %(id)s and state = 'pending'"
)
_RELEASE: Final[LiteralString] = """
    update gitstore.deliveries set due_at = now(), tries = 0
    where subscription_id = %(id)s and state = 'pending' and due_at is null
"""
_GIVE_UP: Final[LiteralString] = """
    update gitstore.deliveries set state = 'failed', due_at = null, ended_at = now(),
        last_error = 'the subscription was deleted'
    where subscription_id = %(id)s and state = 'pending'
"""
_SIGN_WITH: Final[LiteralString] = """
    insert into gitstore.subscription_secrets (id, subscription_id, project_id, sealed)
    values (%(secret_id)s, %(id)s, %(project)s, %(sealed)s)
"""
_RETIRE_SECRETS: Final[LiteralString] = """
    update gitstore.subscription_secrets set retires_at = now() + %(overlap)s
    where subscription_id = %(id)s and (retires_at is null or retires_at > now() + %(overlap)s)
"""
# A request has no right to delete; the function checks that the caller is an owner.
_DELETE_SECRETS: Final[LiteralString] = "select gitstore.delete_secrets(%(id)s, %(kept)s)"


def subscriptions(tx: Transaction, project_id: UUID) -> list[Subscription]:
    """Return the subscriptions of a project, oldest first."""
    return tx.rows(Subscription, _SELECT + _OLDEST_FIRST, project=project_id)


def subscription(tx: Transaction, project_id: UUID, subscription_id: UUID) -> Subscription | None:
    return tx.row(Subscription, _SELECT + _BY_ID, project=project_id, id=subscription_id)


def count_disabled(tx: Transaction, project_id: UUID) -> int:
    return int(tx.value(_COUNT_DISABLED, project=project_id))


def create(
    tx: Transaction, sealer: Sealer, project_id: UUID, url: str, events: Sequence[str]
) -> tuple[Subscription, str]:
    """Create a subscription. Return it and its secret, which cannot be read again.

    The caller has checked the URL and the event types. Raises `limit_reached`.
    """
    if len(subscriptions(tx, project_id)) >= MOST:
        raise ConflictError(Code.LIMIT_REACHED, f"a project has at most {MOST} subscriptions", limit=MOST)
    key = {"id": uuid4(), "project": project_id}
    tx.run(_CREATE, **key, url=url, events=list(events))
    secret = add_secret(tx, sealer, key["id"], project_id)
    (created,) = tx.rows(Subscription, _SELECT + _BY_ID, **key)
    return created, secret


def change(
    tx: Transaction,
    project_id: UUID,
    subscription_id: UUID,
    *,
    url: str | None = None,
    events: Sequence[str] | None = None,
    state: Literal["active", "paused"] | None = None,
) -> Subscription | None:
    """Change the given fields. Return the subscription, or None if it does not exist.

    Deliveries of a paused or disabled subscription are held; its activation sends them, with a new
    schedule of retries.
    """
    types = list(events) if events is not None else None
    values = {"project": project_id, "id": subscription_id, "url": url, "events": types, "state": state}
    if not tx.run(_CHANGE, **values):
        return None
    if state == "paused":
        hold(tx, subscription_id)
    elif state == "active":
        tx.run(_RELEASE, id=subscription_id)
        tx.value(WAKE)
    return subscription(tx, project_id, subscription_id)


def rotate(
    tx: Transaction, sealer: Sealer, project_id: UUID, subscription_id: UUID, overlap: timedelta = OVERLAP
) -> str | None:
    """Add and return a new secret, or return None if the subscription does not exist.

    Earlier secrets continue to sign until `overlap` has passed.
    """
    if subscription(tx, project_id, subscription_id) is None:
        return None
    tx.run(_RETIRE_SECRETS, id=subscription_id, overlap=overlap)
    tx.run(_DELETE_SECRETS, id=subscription_id, kept=MOST_SECRETS - 1)
    return add_secret(tx, sealer, subscription_id, project_id)


def delete(tx: Transaction, project_id: UUID, subscription_id: UUID) -> bool:
    """Delete a subscription and its secrets; its pending deliveries fail. Return whether it existed."""
    if not tx.run(_DELETE, project=project_id, id=subscription_id):
        return False
    tx.run(_GIVE_UP, id=subscription_id)
    tx.run(_DELETE_SECRETS, id=subscription_id, kept=0)
    return True


def hold(tx: Transaction, subscription_id: UUID) -> None:
    """Hold the pending deliveries of a subscription that was paused or disabled in this transaction."""
    tx.run(_HOLD, id=subscription_id)


def purpose(subscription_id: UUID) -> str:
    """Return the purpose for which the subscription's secrets are sealed."""
    return f"subscription {subscription_id}"


def add_secret(tx: Transaction, sealer: Sealer, subscription_id: UUID, project_id: UUID) -> str:
    """Add a new secret that signs from now on, and return it."""
    secret = new_secret()
    sealed = sealer.seal(purpose(subscription_id), secret)
    values = {"secret_id": uuid4(), "id": subscription_id, "project": project_id, "sealed": sealed}
    tx.run(_SIGN_WITH, **values)
    return secret
