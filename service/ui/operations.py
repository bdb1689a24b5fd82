"""For owners: the repositories that are followed, who is told of what, and what was sent to them."""

from __future__ import annotations

from typing import Final

from flask import Response, request

from gitstore.errors import Code, GitstoreError
from gitstore.model import Permission
from service import logs
from service.api import lookup
from service.ui.entering import enter, field, go
from sync import audit
from webhooks import history, resolving, sources, subscriptions

PAGE: Final = 50
_STATES: Final = ("pending", "succeeded", "failed")


def list_sources() -> Response:
    visit = enter(Permission.OWN, "listing sources")
    caller = visit.caller
    with caller.reading() as tx:
        rows = sources.sources(tx, caller.project_id)
        open_ = {
            row.id: resolving.open_divergences(tx, caller.project_id, row.id, limit=PAGE) for row in rows
        }
    return visit.page("sources.html", rows=rows, open=open_, said=request.args.get("said"))


def sync_source(which: str) -> Response:
    """Sync it now. The worker does, in a moment."""
    visit = enter(Permission.OWN, "syncing a source")
    caller, found = visit.caller, lookup.uuid_of(which)
    with caller.as_user() as tx:
        if found is None or not sources.ask(tx, caller.project_id, found):
            raise GitstoreError(Code.NOT_FOUND, f"there is no source {which[:80]!r}")
    return go("list_sources", said="asked")


def resolve_divergence(which: str, divergence: str) -> Response:
    """Decide about a draft that has gone different ways."""
    visit = enter(Permission.OWN, "resolving a divergence")
    caller, source, named = visit.caller, lookup.uuid_of(which), lookup.uuid_of(divergence)
    take = field("take")
    if source is None or named is None or take not in ("ours", "theirs"):
        raise GitstoreError(Code.NOT_FOUND, "there is no open divergence of that id")
    with caller.as_user() as tx:
        decided = resolving.resolve(tx, caller.project_id, source, named, take, caller.principal.name)
        details = {"ref": decided.ref, "take": take}
        audit.note(tx, caller.project_id, caller.origin, "divergence.resolved", str(source), details)
    logs.action("resolved", **caller.said, source=str(source), ref=decided.ref, take=take)
    return go("list_sources", said="resolved")


def list_subscriptions() -> Response:
    """The subscriptions, and below them what was sent, the newest first."""
    visit = enter(Permission.OWN, "listing subscriptions")
    caller, state = visit.caller, request.args.get("state")
    of_one = lookup.uuid_of(request.args.get("subscription", ""))
    with caller.reading() as tx:
        rows = subscriptions.subscriptions(tx, caller.project_id)
        sent, following = history.deliveries(
            tx,
            caller.project_id,
            subscription_id=of_one,
            state=state if state in _STATES else None,  # type: ignore[arg-type] # one of them
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
        states=_STATES,
        said=request.args.get("said"),
    )


def show_delivery(which: str) -> Response:
    visit = enter(Permission.OWN, "reading a delivery")
    caller, found = visit.caller, lookup.uuid_of(which)
    with caller.reading() as tx:
        row = history.delivery(tx, caller.project_id, found) if found else None
        if row is None:
            raise _unknown(which)
        attempts = history.attempts(tx, row.id)
        subscription = subscriptions.subscription(tx, caller.project_id, row.subscription_id)
    return visit.page(
        "delivery.html",
        delivery=row,
        attempts=attempts,
        subscription=subscription,
        said=request.args.get("said"),
    )


def send_again(which: str) -> Response:
    visit = enter(Permission.OWN, "sending a delivery again")
    caller, found = visit.caller, lookup.uuid_of(which)
    with caller.as_user() as tx:
        row = history.redeliver(tx, caller.project_id, found) if found else None
        if row is None:
            raise _unknown(which)
        audit.note(tx, caller.project_id, caller.origin, "delivery.again", str(row.id))
    logs.action("redelivered", **caller.said, delivery=str(row.id), subscription=str(row.subscription_id))
    return go("show_delivery", which=str(row.id), said="again")


def _unknown(shown: str) -> GitstoreError:
    return GitstoreError(Code.NOT_FOUND, f"there is no delivery {shown[:80]!r} to a subscription that exists")
