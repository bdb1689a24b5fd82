"""/subscriptions: who is told of what happens in the project, by webhooks. For its owners."""

from __future__ import annotations

from datetime import timedelta
from http import HTTPStatus

from flask import Response, request

from gitstore.errors import Code, GitstoreError
from gitstore.model import Permission
from service import logs
from service.api import lookup
from service.api.answers import answer, nothing
from service.api.bodies import read_json
from service.api.inputs import Query
from service.api.openapi import new_blueprint, says, says_nothing, takes
from service.api.outgoing import (
    ChangeSubscription,
    CreateSubscription,
    Delivery,
    NewSecret,
    NewSubscription,
    RotateSecret,
    Subscription,
    SubscriptionList,
    SubscriptionPath,
)
from service.context import Caller, enter
from sync import audit
from sync.db import Transaction
from webhooks import history, subscriptions
from webhooks.payload import ABOUT_WORKFLOWS

blueprint = new_blueprint("subscriptions", "Webhooks out, signed per Standard Webhooks.")


@blueprint.get("/subscriptions", responses=says(200, SubscriptionList))
def list_subscriptions(query: Query) -> Response:
    """Every subscription of the project, the oldest first."""
    caller = enter(Permission.OWN, "listing subscriptions", project=query.project)
    with caller.reading() as tx:
        found = subscriptions.subscriptions(tx, caller.project_id)
    return answer(SubscriptionList.model_construct(subscriptions=[Subscription.of(row) for row in found]))


@blueprint.post(
    "/subscriptions",
    responses=says(201, NewSubscription, "Location", refuses=(409, 413, 415, 422)),
    openapi_extensions=takes(CreateSubscription, required=True),
)
def create_subscription(query: Query) -> Response:
    """Subscribe a URL. The secret that its deliveries are signed with is in this answer and nowhere else."""
    caller = enter(Permission.OWN, "subscribing", project=query.project)
    body = read_json(request, CreateSubscription, caller.services.config.limits)
    url = str(caller.services.egress.check(body.url))
    events = body.events or ABOUT_WORKFLOWS
    with caller.as_user() as tx:
        made, secret = subscriptions.create(tx, caller.services.sealer(), caller.project_id, url, events)
        _note(tx, caller, "subscription.created", made, {"events": made.events})
    logs.action("subscription_created", **caller.said, subscription=str(made.id))
    location = f"{caller.services.config.public_url}/subscriptions/{made.id}"
    return _fresh(answer(NewSubscription.of(made, secret=secret), HTTPStatus.CREATED, location=location))


@blueprint.get("/subscriptions/<id>", responses=says(200, Subscription))
def get_subscription(path: SubscriptionPath, query: Query) -> Response:
    """One subscription."""
    caller = enter(Permission.OWN, "reading a subscription", project=query.project)
    with caller.reading() as tx:
        return answer(Subscription.of(_named(tx, caller, path.id)))


@blueprint.patch(
    "/subscriptions/<id>",
    responses=says(200, Subscription, refuses=(413, 415, 422)),
    openapi_extensions=takes(ChangeSubscription, required=True),
)
def change_subscription(path: SubscriptionPath, query: Query) -> Response:
    """Change its URL or its events; pause it, or make it active (again)."""
    caller = enter(Permission.OWN, "changing a subscription", project=query.project)
    body = read_json(request, ChangeSubscription, caller.services.config.limits)
    url = str(caller.services.egress.check(body.url)) if body.url is not None else None
    with caller.as_user() as tx:
        row = _named(tx, caller, path.id)
        changed = subscriptions.change(
            tx, caller.project_id, row.id, url=url, events=body.events, state=body.state
        )
        if changed is None:
            raise _unknown(path.id)
        _note(tx, caller, "subscription.changed", changed, {"changed": sorted(body.model_fields_set)})
    logs.action("subscription_changed", **caller.said, subscription=str(row.id), state=changed.state)
    return answer(Subscription.of(changed))


@blueprint.delete("/subscriptions/<id>", responses=says_nothing())
def delete_subscription(path: SubscriptionPath, query: Query) -> Response:
    """Delete it. Its deliveries can still be read."""
    caller = enter(Permission.OWN, "deleting a subscription", project=query.project)
    with caller.as_user() as tx:
        row = _named(tx, caller, path.id)
        if not subscriptions.delete(tx, caller.project_id, row.id):
            raise _unknown(path.id)
        _note(tx, caller, "subscription.deleted", row, {})
    logs.action("subscription_deleted", **caller.said, subscription=str(row.id))
    return nothing()


@blueprint.post(
    "/subscriptions/<id>/rotate",
    responses=says(200, NewSecret, refuses=(413, 415)),
    openapi_extensions=takes(RotateSecret),
)
def rotate_secret(path: SubscriptionPath, query: Query) -> Response:
    """A new secret. For a while, deliveries are signed with both: give it to the receiver meanwhile."""
    caller = enter(Permission.OWN, "rotating a secret", project=query.project)
    body = read_json(request, RotateSecret, caller.services.config.limits)
    overlap = subscriptions.OVERLAP if body.overlap_hours is None else timedelta(hours=body.overlap_hours)
    with caller.as_user() as tx:
        row = _named(tx, caller, path.id)
        secret = subscriptions.rotate(tx, caller.services.sealer(), caller.project_id, row.id, overlap)
        if secret is None:
            raise _unknown(path.id)
        _note(tx, caller, "subscription.rotated", row, {"overlap_hours": overlap.total_seconds() / 3600})
    logs.action("subscription_rotated", **caller.said, subscription=str(row.id))
    return _fresh(answer(NewSecret.model_construct(secret=secret)))


@blueprint.post("/subscriptions/<id>/test", responses=says(202, Delivery, "Location"))
def test_subscription(path: SubscriptionPath, query: Query) -> Response:
    """Deliver a test event to it, and to no other."""
    caller = enter(Permission.OWN, "testing a subscription", project=query.project)
    with caller.as_user() as tx:
        made = history.test(tx, _named(tx, caller, path.id))
    location = f"{caller.services.config.public_url}/deliveries/{made.id}"
    return answer(Delivery.of(made), HTTPStatus.ACCEPTED, location=location)


def _named(tx: Transaction, caller: Caller, shown: str) -> subscriptions.Subscription:
    found = lookup.uuid_of(shown)
    row = subscriptions.subscription(tx, caller.project_id, found) if found else None
    if row is None:
        raise _unknown(shown)
    return row


def _unknown(shown: str) -> GitstoreError:
    return GitstoreError(Code.NOT_FOUND, f"there is no subscription {shown[:80]!r}")


def _note(
    tx: Transaction, caller: Caller, action: str, row: subscriptions.Subscription, details: dict[str, object]
) -> None:
    audit.note(tx, caller.project_id, caller.origin, action, str(row.id), details)


def _fresh(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response
