"""/deliveries: deliveries to subscribers, with every attempt. For the project's owners."""

from __future__ import annotations

from http import HTTPStatus

from flask import Response, request

from gitstore.model import Permission
from service import lookup
from service.actions import subscriptions as owning
from service.api.answers import answer, next_link
from service.api.inputs import Query
from service.api.openapi import new_blueprint, says
from service.api.subscription_schemas import (
    Attempt,
    DeliveriesQuery,
    Delivery,
    DeliveryPage,
    DeliveryPath,
    FullDelivery,
)
from service.context import enter
from service.lookup import cursor_to, moment_in
from webhooks import delivery_log

blueprint = new_blueprint("deliveries", "What was sent to subscribers, and what they answered.")


@blueprint.get("/deliveries", responses=says(200, DeliveryPage, "Link"))
def list_deliveries(query: DeliveriesQuery) -> Response:
    """Deliveries, the newest first: of one subscription, or in one state."""
    caller = enter(Permission.OWN, "listing deliveries", project=query.project)
    with caller.reading() as tx:
        rows, following = delivery_log.deliveries(
            tx,
            caller.project_id,
            subscription_id=query.subscription,
            state=query.state,
            before=moment_in(query.cursor),
            limit=query.limit,
        )
    place = f"{following[0].isoformat()} {following[1]}" if following else None
    page = DeliveryPage.model_construct(
        deliveries=[Delivery.of(row) for row in rows], next_cursor=cursor_to(place) if place else None
    )
    return answer(page, link=next_link(request, caller, "/deliveries", place))


@blueprint.get("/deliveries/<id>", responses=says(200, FullDelivery))
def get_delivery(path: DeliveryPath, query: Query) -> Response:
    """One delivery, with every attempt."""
    caller = enter(Permission.OWN, "reading a delivery", project=query.project)
    found = lookup.uuid_of(path.id)
    with caller.reading() as tx:
        row = delivery_log.delivery(tx, caller.project_id, found) if found else None
        attempts = delivery_log.attempts(tx, row.id) if row else []
    if row is None:
        raise owning.no_delivery(path.id)
    return answer(FullDelivery.of(row, history=[Attempt.of(attempt) for attempt in attempts]))


@blueprint.post("/deliveries/<id>/redeliver", responses=says(202, Delivery))
def redeliver(path: DeliveryPath, query: Query) -> Response:
    """Deliver it again, now, under the same `webhook-id`; a failure begins the schedule of retries anew."""
    caller = enter(Permission.OWN, "delivering again", project=query.project)
    return answer(Delivery.of(owning.redeliver(caller, path.id)), HTTPStatus.ACCEPTED)
