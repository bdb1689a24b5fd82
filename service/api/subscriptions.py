"""/subscriptions and /deliveries: webhooks to subscribers, for the project's owners."""

from __future__ import annotations

from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any, Final, Literal, Self
from uuid import UUID

from flask import Response
from pydantic import Field

from gitstore.model import Permission
from service import lookup
from service.actions import subscriptions as actions
from service.api.http import Answer, answer, answer_page, no_content, read_json, url
from service.api.openapi import ObjectPath, PageQuery, Query, declares, new_blueprint
from service.context import enter
from service.inputs import Body, ChangeSubscription, CreateSubscription, OverlapHours, ReplaySubscription
from webhooks import delivery_log, subscriptions
from webhooks.subscriptions import ABOUT_WORKFLOWS, OVERLAP

_SECRET: Final = "of Standard Webhooks (`whsec_…`): shown only once"  # noqa: S105

blueprint = new_blueprint("subscriptions", "Outgoing webhooks, signed per Standard Webhooks.")
deliveries = new_blueprint("deliveries", "Deliveries to subscribers, and their answers.")


class Subscription(Answer):
    id: UUID
    url: str
    events: list[str]
    state: Literal["active", "paused", "disabled"]
    reason: str | None = Field(description="why it is disabled")
    failing_since: datetime | None = Field(description="null if the last attempt succeeded")
    created_at: datetime
    updated_at: datetime


class NewSubscription(Subscription):
    secret: str = Field(description=_SECRET)


class SubscriptionList(Answer):
    subscriptions: list[Subscription]


class RotateSecret(Body):
    overlap_hours: OverlapHours | None = Field(
        24, description="how long deliveries are signed with the previous secrets, too"
    )


class NewSecret(Answer):
    secret: str = Field(description=_SECRET)


class Delivery(Answer):
    id: UUID
    subscription_id: UUID
    webhook_id: UUID = Field(description="the event's id: the same on every attempt, and in `webhook-id`")
    type: str = Field(examples=list(ABOUT_WORKFLOWS[:1]))
    state: delivery_log.State = Field(
        description="`poison`: the process that sent it crashed three times in a row; it is not retried "
        "until it is redelivered"
    )
    attempts: int
    last_status: int | None
    last_error: str | None
    next_attempt_at: datetime | None = Field(
        description="null if it has ended, or its subscription is paused or disabled"
    )
    created_at: datetime
    ended_at: datetime | None

    @classmethod
    def of(cls, row: delivery_log.Delivery, **values: Any) -> Self:
        return cls.from_row(row, webhook_id=row.event_id, next_attempt_at=row.due_at, **values)


class Replayed(Answer):
    deliveries: int = Field(description="number of deliveries that are sent again")
    next_since: datetime | None = Field(
        description=f"if there are more than {delivery_log.MOST_REPLAYED} events: `since` of the call that "
        "sends those that follow; else null"
    )


class DeliveryPage(Answer):
    deliveries: list[Delivery]
    next_cursor: str | None


class Attempt(Answer):
    number: int
    url: str
    started_at: datetime
    duration_ms: int
    status: int | None = Field(description="null: no answer")
    error: str | None = Field(description="null: success")
    response: str | None = Field(description="the first 16 KiB of the answer's body")


class FullDelivery(Delivery):
    history: list[Attempt] = Field(description="every attempt, oldest first")


class DeliveriesQuery(PageQuery):
    subscription: UUID | None = Field(None, description="the id of a subscription")
    state: delivery_log.State | None = None


@blueprint.get("/subscriptions", **declares(200, SubscriptionList))
def list_subscriptions(query: Query) -> Response:
    """List the subscriptions of the project, oldest first."""
    caller = enter(Permission.OWN, "listing subscriptions", project=query.project)
    with caller.reading() as tx:
        rows = subscriptions.subscriptions(tx, caller.project_id)
    return answer(SubscriptionList.model_construct(subscriptions=list(map(Subscription.from_row, rows))))


@blueprint.post(
    "/subscriptions",
    **declares(201, NewSubscription, "Location", errors=(409, 422), body=CreateSubscription),
)
def create_subscription(query: Query) -> Response:
    """Subscribe a URL to events. Only this answer contains the secret that signs its deliveries."""
    caller = enter(Permission.OWN, "creating a subscription", project=query.project)
    row, secret = actions.create(caller, **read_json(caller, CreateSubscription).given())
    made = NewSubscription.from_row(row, secret=secret)
    location = url(caller, f"/subscriptions/{row.id}")
    return answer(made, HTTPStatus.CREATED, location=location, cache_control="no-store")


@blueprint.get("/subscriptions/<id>", **declares(200, Subscription))
def get_subscription(path: ObjectPath, query: Query) -> Response:
    """Read a subscription."""
    caller = enter(Permission.OWN, "reading a subscription", project=query.project)
    with caller.reading() as tx:
        return answer(Subscription.from_row(actions.find(tx, caller, path.id)))


@blueprint.patch(
    "/subscriptions/<id>",
    **declares(200, Subscription, errors=(422,), body=ChangeSubscription),
)
def change_subscription(path: ObjectPath, query: Query) -> Response:
    """Change a subscription's URL or events; pause or reactivate it."""
    caller = enter(Permission.OWN, "changing a subscription", project=query.project)
    row = actions.change(caller, path.id, **read_json(caller, ChangeSubscription).given())
    return answer(Subscription.from_row(row))


@blueprint.delete("/subscriptions/<id>", **declares(204))
def delete_subscription(path: ObjectPath, query: Query) -> Response:
    """Delete a subscription. Its deliveries can still be read."""
    caller = enter(Permission.OWN, "deleting a subscription", project=query.project)
    actions.delete(caller, path.id)
    return no_content()


@blueprint.post("/subscriptions/<id>/rotate", **declares(200, NewSecret, body=RotateSecret, required=False))
def rotate_secret(path: ObjectPath, query: Query) -> Response:
    """Create a new secret. Deliveries are signed with the previous ones, too, for `overlap_hours`."""
    caller = enter(Permission.OWN, "rotating a secret", project=query.project)
    hours = read_json(caller, RotateSecret).overlap_hours
    _, secret = actions.rotate(caller, path.id, OVERLAP if hours is None else timedelta(hours=hours))
    return answer(NewSecret.model_construct(secret=secret), cache_control="no-store")


@blueprint.post("/subscriptions/<id>/test", **declares(202, Delivery, "Location"))
def test_subscription(path: ObjectPath, query: Query) -> Response:
    """Deliver a test event to this subscription only."""
    caller = enter(Permission.OWN, "testing a subscription", project=query.project)
    row = actions.test(caller, path.id)
    return answer(Delivery.of(row), HTTPStatus.ACCEPTED, location=url(caller, f"/deliveries/{row.id}"))


@blueprint.post("/subscriptions/<id>/replay", **declares(202, Replayed, body=ReplaySubscription))
def replay_subscription(path: ObjectPath, query: Query) -> Response:
    """Send all events since a time again, with the same `webhook-id`, also those that were delivered.

    Events can be sent again for as long as deliveries are kept. While the subscription is paused or disabled,
    they are held.
    """
    caller = enter(Permission.OWN, "replaying events", project=query.project)
    replayed = actions.replay(caller, path.id, read_json(caller, ReplaySubscription).since)
    return answer(Replayed.from_row(replayed), HTTPStatus.ACCEPTED)


@deliveries.get("/deliveries", **declares(200, DeliveryPage, "Link"))
def list_deliveries(query: DeliveriesQuery) -> Response:
    """List deliveries, newest first; of one subscription, or in one state."""
    caller = enter(Permission.OWN, "listing deliveries", project=query.project)
    with caller.reading() as tx:
        rows, following = delivery_log.deliveries(
            tx,
            caller.project_id,
            subscription_id=query.subscription,
            state=query.state,
            before=lookup.moment_in(query.cursor),
            limit=query.limit,
        )
    place = f"{following[0].isoformat()} {following[1]}" if following else None
    return answer_page(caller, DeliveryPage, "/deliveries", place, deliveries=list(map(Delivery.of, rows)))


@deliveries.get("/deliveries/<id>", **declares(200, FullDelivery))
def get_delivery(path: ObjectPath, query: Query) -> Response:
    """Read a delivery, with every attempt."""
    caller = enter(Permission.OWN, "reading a delivery", project=query.project)
    with caller.reading() as tx:
        row, attempts = actions.delivery(tx, caller, path.id)
    return answer(FullDelivery.of(row, history=list(map(Attempt.from_row, attempts))))


@deliveries.post("/deliveries/<id>/redeliver", **declares(202, Delivery))
def redeliver(path: ObjectPath, query: Query) -> Response:
    """Send a delivery again, now, with the same `webhook-id`; a failure restarts the schedule of retries."""
    caller = enter(Permission.OWN, "redelivering", project=query.project)
    return answer(Delivery.of(actions.redeliver(caller, path.id)), HTTPStatus.ACCEPTED)
