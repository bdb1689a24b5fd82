"""Pages for owners: subscriptions and their deliveries. A secret is shown once, when it is created."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from flask import Response, request

from gitstore.errors import GitstoreError, MalformedError
from gitstore.model import Permission
from gitstore.system import now, rfc3339
from service import lookup
from service.actions import subscriptions as actions
from service.inputs import ChangeSubscription, CreateSubscription, ReplaySubscription, validated
from service.ui.rendering import blueprint
from service.ui.visits import Visit, enter, field, go, shown_once
from webhooks import delivery_log, subscriptions
from webhooks.subscriptions import OVERLAP, SUBSCRIBABLE, Subscription

PAGE: Final = 50


@blueprint.get("/ui/webhooks")
def list_subscriptions() -> Response:
    """Show the subscriptions, and below them the deliveries, newest first."""
    visit = enter(Permission.OWN, "listing subscriptions")
    caller, state = visit.caller, request.args.get("state")
    of_one = lookup.uuid_of(request.args.get("subscription", ""))
    with caller.reading() as tx:
        rows = subscriptions.subscriptions(tx, caller.project_id)
        sent, following = delivery_log.deliveries(
            tx,
            caller.project_id,
            subscription_id=of_one,
            state=state if state in delivery_log.STATES else None,
            before=lookup.moment_in(request.args.get("cursor")),
            limit=PAGE,
        )
    place = lookup.cursor_to(f"{following[0].isoformat()} {following[1]}") if following else None
    return visit.page(
        "webhooks.html",
        rows=rows,
        urls={row.id: row.url for row in rows},
        sent=sent,
        following=place,
        state=state,
        of_one=of_one,
        states=delivery_log.STATES,
    )


@blueprint.get("/ui/deliveries/<which>")
def show_delivery(which: str) -> Response:
    visit = enter(Permission.OWN, "reading a delivery")
    caller = visit.caller
    with caller.reading() as tx:
        row, attempts = actions.delivery(tx, caller, which)
        subscription = subscriptions.subscription(tx, caller.project_id, row.subscription_id)
    return visit.page("delivery.html", delivery=row, attempts=attempts, subscription=subscription)


@blueprint.post("/ui/deliveries/<which>/again")
def send_again(which: str) -> Response:
    row = actions.redeliver(enter(Permission.OWN, "sending a delivery again").caller, which)
    return go("show_delivery", which=str(row.id), notice="again")


@blueprint.get("/ui/new-webhook")
def new_subscription() -> Response:
    visit = enter(Permission.OWN, "adding a subscription")
    return _form(visit, None, {"url": "", "events": list(SUBSCRIBABLE)})


@blueprint.post("/ui/new-webhook")
def create_subscription() -> Response:
    visit = enter(Permission.OWN, "adding a subscription")
    given = _given()
    try:
        subscription, secret = actions.create(visit.caller, **validated(CreateSubscription, given).given())
    except GitstoreError as error:
        return _form(visit, None, given, error)
    return shown_once(
        visit,
        area="webhooks",
        title="Subscription added",
        text="Configure this secret in the receiver: it signs deliveries, per Standard Webhooks, and is "
        "shown only once.",
        values={"URL": subscription.url, "Secret": secret},
        to=("show_subscription", {"which": str(subscription.id)}),
    )


@blueprint.get("/ui/webhooks/<which>")
def show_subscription(which: str) -> Response:
    visit = enter(Permission.OWN, "reading a subscription")
    row = _read(visit, which)
    oldest = now() - timedelta(days=visit.caller.services.config.keep_days)
    since = max(row.failing_since or now() - timedelta(days=1), oldest + timedelta(hours=1))
    return _page(visit, row, rfc3339(since, "seconds"))


@blueprint.get("/ui/webhooks/<which>/edit")
def edit_subscription(which: str) -> Response:
    visit = enter(Permission.OWN, "changing a subscription")
    row = _read(visit, which)
    return _form(visit, row, {"url": row.url, "events": row.events})


@blueprint.post("/ui/webhooks/<which>/edit")
def change_subscription(which: str) -> Response:
    visit = enter(Permission.OWN, "changing a subscription")
    given = _given()
    try:
        actions.change(visit.caller, which, **validated(ChangeSubscription, given).given())
    except GitstoreError as error:
        return _form(visit, _read(visit, which), given, error)
    return go("show_subscription", which=which, notice="changed")


@blueprint.post("/ui/webhooks/<which>/state")
def switch_subscription(which: str) -> Response:
    """Pause or reactivate the subscription."""
    visit = enter(Permission.OWN, "changing a subscription")
    body = validated(ChangeSubscription, {"state": field("state")})
    row = actions.change(visit.caller, which, **body.given())
    return go("show_subscription", which=which, notice=row.state)


@blueprint.post("/ui/webhooks/<which>/test")
def test_subscription(which: str) -> Response:
    visit = enter(Permission.OWN, "testing a subscription")
    delivery = actions.test(visit.caller, which)
    return go("show_delivery", which=str(delivery.id), notice="tested")


@blueprint.post("/ui/webhooks/<which>/replay")
def replay_subscription(which: str) -> Response:
    visit = enter(Permission.OWN, "replaying events")
    since = field("since").strip()
    try:
        replayed = actions.replay(visit.caller, which, validated(ReplaySubscription, {"since": since}).since)
    except MalformedError as error:
        return _page(visit, _read(visit, which), since, error)
    if replayed.next_since:
        return _page(visit, _read(visit, which), rfc3339(replayed.next_since), replayed=replayed)
    return go("show_subscription", which=which, notice="replayed")


@blueprint.post("/ui/webhooks/<which>/rotate")
def rotate_secret(which: str) -> Response:
    visit = enter(Permission.OWN, "rotating a secret")
    row, secret = actions.rotate(visit.caller, which, OVERLAP)
    return shown_once(
        visit,
        area="webhooks",
        title="New secret",
        text="Configure it in the receiver now. For 24 hours, deliveries are signed with both the old and "
        "the new secret, then only with the new one.",
        values={"URL": row.url, "Secret": secret},
        to=("show_subscription", {"which": which}),
    )


@blueprint.get("/ui/webhooks/<which>/delete")
def ask_delete_subscription(which: str) -> Response:
    visit = enter(Permission.OWN, "deleting a subscription")
    row = _read(visit, which)
    return visit.page(
        "ask.html",
        area="webhooks",
        question="Delete the subscription?",
        about=row.url,
        text="It stops receiving events, and pending deliveries fail. The log of deliveries is kept.",
        action=("delete_subscription", {"which": which}),
        to=("show_subscription", {"which": which}),
    )


@blueprint.post("/ui/webhooks/<which>/delete")
def delete_subscription(which: str) -> Response:
    actions.delete(enter(Permission.OWN, "deleting a subscription").caller, which)
    return go("list_subscriptions", notice="deleted")


def _read(visit: Visit, which: str) -> Subscription:
    with visit.caller.reading() as tx:
        return actions.find(tx, visit.caller, which)


def _page(
    visit: Visit, row: Subscription, since: str, error: GitstoreError | None = None, **values: Any
) -> Response:
    return visit.page("subscription.html", error, row=row, since=since, **values)


def _given() -> dict[str, Any]:
    return {"url": field("url").strip(), "events": request.form.getlist("events")}


def _form(
    visit: Visit, row: Subscription | None, given: dict[str, Any], error: GitstoreError | None = None
) -> Response:
    return visit.page("subscription_form.html", error, row=row, given=given, events=SUBSCRIBABLE)
