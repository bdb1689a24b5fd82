"""Pages for owners: a subscription and its actions. The secret is shown once, when it is created."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from gitstore.errors import GitstoreError
from gitstore.model import Permission
from service import errors
from service.actions import subscriptions as owning
from service.inputs import ChangeSubscription, CreateSubscription, validated
from service.ui.visit import Visit, enter, field, go, shown_once
from webhooks.payload import ABOUT_WORKFLOWS, SUBSCRIBABLE
from webhooks.subscriptions import OVERLAP, Subscription

_ROTATED = (
    "Give it to the receiver now: for 24 hours deliveries are signed with this secret and with the old one, "
    "then with this one alone."
)


def new_subscription() -> Response:
    visit = enter(Permission.OWN, "subscribing")
    return _form(visit, None, {"url": "", "events": list(ABOUT_WORKFLOWS)})


def create_subscription() -> Response:
    visit = enter(Permission.OWN, "subscribing")
    given = _given()
    try:
        made, secret = owning.create(visit.caller, **validated(CreateSubscription, given).given())
    except GitstoreError as error:
        return _form(visit, None, given, error)
    return shown_once(
        visit,
        "webhooks",
        "Subscribed",
        "Deliveries are signed with this secret, per Standard Webhooks. It is shown this once: give it to "
        "the receiver.",
        {"Address": made.url, "Secret": secret},
        to=("show_subscription", {"which": str(made.id)}),
    )


def show_subscription(which: str) -> Response:
    visit = enter(Permission.OWN, "reading a subscription")
    return _page(visit, _read(visit, which), said=request.args.get("said"))


def edit_subscription(which: str) -> Response:
    visit = enter(Permission.OWN, "changing a subscription")
    row = _read(visit, which)
    return _form(visit, row, {"url": row.url, "events": row.events})


def change_subscription(which: str) -> Response:
    visit = enter(Permission.OWN, "changing a subscription")
    given = _given()
    try:
        owning.change(visit.caller, which, **validated(ChangeSubscription, given).given())
    except GitstoreError as error:
        return _form(visit, _read(visit, which), given, error)
    return go("show_subscription", which=which, said="changed")


def switch_subscription(which: str) -> Response:
    """Pause or reactivate the subscription."""
    visit = enter(Permission.OWN, "changing a subscription")
    row = owning.change(
        visit.caller, which, **validated(ChangeSubscription, {"state": field("state")}).given()
    )
    return go("show_subscription", which=which, said=row.state)


def test_subscription(which: str) -> Response:
    visit = enter(Permission.OWN, "testing a subscription")
    made = owning.test(visit.caller, which)
    return go("show_delivery", which=str(made.id), said="tested")


def rotate_secret(which: str) -> Response:
    visit = enter(Permission.OWN, "rotating a secret")
    row, secret = owning.rotate(visit.caller, which, OVERLAP)
    values = {"Address": row.url, "Secret": secret}
    to = ("show_subscription", {"which": which})
    return shown_once(visit, "webhooks", "A new secret", _ROTATED, values, to=to)


def ask_delete_subscription(which: str) -> Response:
    visit = enter(Permission.OWN, "deleting a subscription")
    row = _read(visit, which)
    return visit.page(
        "ask.html",
        area="webhooks",
        title="Delete the subscription?",
        about=row.url,
        text="It is told of nothing any more, and what is still to be delivered to it fails. What was sent "
        "can still be read.",
        action=("delete_subscription", {"which": which}),
        button="Delete the subscription",
        to=("show_subscription", {"which": which}),
    )


def delete_subscription(which: str) -> Response:
    owning.delete(enter(Permission.OWN, "deleting a subscription").caller, which)
    return go("list_subscriptions", said="deleted")


def _read(visit: Visit, which: str) -> Subscription:
    with visit.caller.reading() as tx:
        return owning.find(tx, visit.caller, which)


def _given() -> dict[str, Any]:
    return {"url": field("url").strip(), "events": request.form.getlist("events")}


def _page(visit: Visit, row: Subscription, said: str | None) -> Response:
    return visit.page("subscription.html", row=row, said=said)


def _form(
    visit: Visit, row: Subscription | None, given: dict[str, Any], error: GitstoreError | None = None
) -> Response:
    status = int(errors.STATUS[error.code]) if error else 200
    return visit.page(
        "subscription_form.html", status, row=row, given=given, events=SUBSCRIBABLE, error=error
    )
