"""Pages for owners: sources, webhook subscriptions, and their deliveries."""

from __future__ import annotations

from typing import Final

from flask import Response, request

from gitstore.model import Permission
from service import lookup
from service.actions import sources as owning_sources
from service.actions import subscriptions as owning
from service.inputs import Resolve, validated
from service.ui.visit import enter, field, go
from webhooks import delivery_log, divergence_decisions, sources, subscriptions

PAGE: Final = 50


def list_sources() -> Response:
    visit = enter(Permission.OWN, "listing sources")
    caller = visit.caller
    with caller.reading() as tx:
        rows = sources.sources(tx, caller.project_id)
        open_ = {
            row.id: divergence_decisions.open_divergences(tx, caller.project_id, row.id, limit=PAGE)
            for row in rows
        }
    return visit.page("sources.html", rows=rows, open=open_, said=request.args.get("said"))


def sync_source(which: str) -> Response:
    """Sync the source now. The worker does so within moments."""
    owning_sources.sync(enter(Permission.OWN, "syncing a source").caller, which)
    return go("list_sources", said="asked")


def resolve_divergence(which: str, divergence: str) -> Response:
    """Resolve a divergence of a draft."""
    visit = enter(Permission.OWN, "resolving a divergence")
    body = validated(Resolve, {"take": field("take")})
    owning_sources.resolve(visit.caller, which, divergence, body.take)
    return go("list_sources", said="kept" if body.take == "ours" else "resolved")


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
        said=request.args.get("said"),
    )


def show_delivery(which: str) -> Response:
    visit = enter(Permission.OWN, "reading a delivery")
    caller = visit.caller
    with caller.reading() as tx:
        row, attempts = owning.delivery(tx, caller, which)
        subscription = subscriptions.subscription(tx, caller.project_id, row.subscription_id)
    return visit.page(
        "delivery.html",
        delivery=row,
        attempts=attempts,
        subscription=subscription,
        said=request.args.get("said"),
    )


def send_again(which: str) -> Response:
    row = owning.redeliver(enter(Permission.OWN, "sending a delivery again").caller, which)
    return go("show_delivery", which=str(row.id), said="again")
