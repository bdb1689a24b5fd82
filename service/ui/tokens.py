"""Pages for owners: the project's access tokens. A new one is shown once."""

from __future__ import annotations

from typing import Any

from flask import Response, request

from gitstore.definition.quoting import clip
from gitstore.errors import Code, GitstoreError, NotFoundError
from gitstore.model import Permission
from gitstore.system import now
from service import errors, lookup
from service.actions import tokens as owning
from service.api.bodies import validated
from service.api.inputs import CreateToken
from service.auth import Role
from service.ui.visit import Visit, enter, field, go, shown_once
from sync import tokens


def list_tokens() -> Response:
    return _page(enter(Permission.OWN, "listing tokens"), {})


def create_token() -> Response:
    visit = enter(Permission.OWN, "creating a token")
    given: dict[str, Any] = {"name": field("name").strip(), "role": field("role")}
    last_day = field("last_day").strip()
    if last_day:
        given["expires_at"] = f"{last_day}T23:59:59Z"
    try:
        made, secret = owning.create(visit.caller, validated(CreateToken, given))
    except GitstoreError as error:
        return _page(visit, {**given, "last_day": last_day}, error)
    return shown_once(
        visit,
        "tokens",
        "A new access token",
        f"{made.name}: {made.role}. It is shown this once, and stored nowhere: whoever has it may do what "
        "its role may.",
        {"Token": secret},
        to=("list_tokens", {}),
    )


def ask_revoke_token(which: str) -> Response:
    visit = enter(Permission.OWN, "revoking a token")
    caller, found = visit.caller, lookup.uuid_of(which)
    with caller.reading() as tx:
        row = next((each for each in tokens.tokens(tx, caller.project_id) if each.id == found), None)
    if row is None or row.revoked_at is not None:
        raise NotFoundError(Code.NOT_FOUND, f"there is no token {clip(which)!r} in force")
    own = row.id == caller.principal.id
    return visit.page(
        "ask.html",
        area="tokens",
        title="Revoke the token?",
        about=f"{row.name} ({row.role})",
        text="From then on it opens nothing: whoever uses it is turned away at once."
        + (" It is the one that you are signed in with." if own else ""),
        action=("revoke_token", {"which": which}),
        button="Revoke the token",
        to=("list_tokens", {}),
    )


def revoke_token(which: str) -> Response:
    owning.revoke(enter(Permission.OWN, "revoking a token").caller, which)
    return go("list_tokens", said="revoked")


def _page(visit: Visit, given: dict[str, Any], error: GitstoreError | None = None) -> Response:
    caller = visit.caller
    with caller.reading() as tx:
        rows = tokens.tokens(tx, caller.project_id)
    return visit.page(
        "tokens.html",
        int(errors.STATUS[error.code]) if error else 200,
        rows=sorted(rows, key=lambda row: row.revoked_at is not None),
        own=caller.principal.id,
        roles=[role.value for role in Role],
        given=given,
        error=error,
        now=now(),
        said=request.args.get("said"),
    )
