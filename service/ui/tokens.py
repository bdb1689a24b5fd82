"""Pages for owners: the project's access tokens. A new one is shown once."""

from __future__ import annotations

from typing import Any

from flask import Response

from gitstore.errors import GitstoreError
from gitstore.model import Permission
from gitstore.system import now
from service import lookup
from service.access import Role
from service.actions import tokens as actions
from service.inputs import CreateToken, validated
from service.ui.rendering import blueprint
from service.ui.visits import Visit, enter, field, go, shown_once
from sync import tokens


@blueprint.get("/ui/tokens")
def list_tokens() -> Response:
    return _page(enter(Permission.OWN, "listing tokens"), {})


@blueprint.post("/ui/tokens")
def create_token() -> Response:
    visit = enter(Permission.OWN, "creating a token")
    given: dict[str, Any] = {"name": field("name").strip(), "role": field("role")}
    last_day = field("last_day").strip()
    if last_day:
        given["expires_at"] = f"{last_day}T23:59:59Z"
    try:
        created, secret = actions.create(visit.caller, **validated(CreateToken, given).given())
    except GitstoreError as error:
        return _page(visit, {**given, "last_day": last_day}, error)
    return shown_once(
        visit,
        area="tokens",
        title="New access token",
        text=f"{created.name} ({created.role}). The token is shown only once: save it now.",
        values={"Token": secret},
        to=("list_tokens", {}),
    )


@blueprint.get("/ui/tokens/<which>/revoke")
def ask_revoke_token(which: str) -> Response:
    visit = enter(Permission.OWN, "revoking a token")
    caller, token_id = visit.caller, lookup.uuid_of(which)
    with caller.reading() as tx:
        row = next((token for token in tokens.tokens(tx, caller.project_id) if token.id == token_id), None)
    if row is None or row.revoked_at is not None:
        raise actions.not_active(which)
    own = row.id == caller.principal.id
    return visit.page(
        "ask.html",
        area="tokens",
        question="Revoke the token?",
        about=f"{row.name} ({row.role})",
        text="It stops working immediately." + (" You are signed in with it." if own else ""),
        action=("revoke_token", {"which": which}),
        to=("list_tokens", {}),
    )


@blueprint.post("/ui/tokens/<which>/revoke")
def revoke_token(which: str) -> Response:
    actions.revoke(enter(Permission.OWN, "revoking a token").caller, which)
    return go("list_tokens", notice="revoked")


def _page(visit: Visit, given: dict[str, Any], error: GitstoreError | None = None) -> Response:
    caller = visit.caller
    with caller.reading() as tx:
        rows = tokens.tokens(tx, caller.project_id)
    return visit.page(
        "tokens.html",
        error,
        rows=sorted(rows, key=lambda row: row.revoked_at is not None),
        own=caller.principal.id,
        roles=[role.value for role in Role],
        given=given,
        now=now(),
    )
