"""/subscriptions: webhook subscriptions to events of the project. For its owners."""

from __future__ import annotations

from datetime import timedelta
from http import HTTPStatus

from flask import Response, request

from gitstore.model import Permission
from service.actions import subscriptions as owning
from service.api.answers import answer, nothing
from service.api.bodies import read_json
from service.api.inputs import Query
from service.api.openapi import new_blueprint, says, says_nothing, takes
from service.api.subscription_schemas import (
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
from service.context import enter
from webhooks import subscriptions

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
    made, secret = owning.create(caller, body)
    location = f"{caller.services.config.public_url}/subscriptions/{made.id}"
    return _fresh(answer(NewSubscription.of(made, secret=secret), HTTPStatus.CREATED, location=location))


@blueprint.get("/subscriptions/<id>", responses=says(200, Subscription))
def get_subscription(path: SubscriptionPath, query: Query) -> Response:
    """One subscription."""
    caller = enter(Permission.OWN, "reading a subscription", project=query.project)
    with caller.reading() as tx:
        return answer(Subscription.of(owning.named(tx, caller, path.id)))


@blueprint.patch(
    "/subscriptions/<id>",
    responses=says(200, Subscription, refuses=(413, 415, 422)),
    openapi_extensions=takes(ChangeSubscription, required=True),
)
def change_subscription(path: SubscriptionPath, query: Query) -> Response:
    """Change its URL or its events; pause it, or make it active (again)."""
    caller = enter(Permission.OWN, "changing a subscription", project=query.project)
    body = read_json(request, ChangeSubscription, caller.services.config.limits)
    return answer(Subscription.of(owning.change(caller, path.id, body)))


@blueprint.delete("/subscriptions/<id>", responses=says_nothing())
def delete_subscription(path: SubscriptionPath, query: Query) -> Response:
    """Delete it. Its deliveries can still be read."""
    caller = enter(Permission.OWN, "deleting a subscription", project=query.project)
    owning.delete(caller, path.id)
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
    _, secret = owning.rotate(caller, path.id, overlap)
    return _fresh(answer(NewSecret.model_construct(secret=secret)))


@blueprint.post("/subscriptions/<id>/test", responses=says(202, Delivery, "Location"))
def test_subscription(path: SubscriptionPath, query: Query) -> Response:
    """Deliver a test event to it, and to no other."""
    caller = enter(Permission.OWN, "testing a subscription", project=query.project)
    made = owning.test(caller, path.id)
    location = f"{caller.services.config.public_url}/deliveries/{made.id}"
    return answer(Delivery.of(made), HTTPStatus.ACCEPTED, location=location)


def _fresh(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response
