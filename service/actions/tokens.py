"""Actions on access tokens: create and revoke."""

from __future__ import annotations

from gitstore.definition.quoting import clip
from gitstore.errors import Code, MalformedError, NotFoundError
from gitstore.system import now
from service import logs, lookup
from service.api.inputs import CreateToken
from service.context import Caller
from service.credentials import digest, new_token
from service.logs import Event
from sync import audit, tokens
from sync.tokens import Token


def create(caller: Caller, body: CreateToken) -> tuple[Token, str]:
    """Create a token; return it and its secret, which is not stored."""
    if body.expires_at is not None and body.expires_at <= now():
        raise MalformedError("expires_at is in the past")
    secret = new_token()
    with caller.as_user() as tx:
        made = tokens.create(
            tx, caller.project_id, body.name, body.role.value, digest(secret), body.expires_at
        )
        details = {"name": body.name, "role": body.role.value}
        audit.note(tx, caller.project_id, caller.origin, "token.created", str(made.id), details)
    logs.action(Event.TOKEN_CREATED, **caller.said, created=str(made.id), role=body.role.value)
    return made, secret


def revoke(caller: Caller, shown: str) -> None:
    """Revoke the token: it stops working immediately. Raises `not_found` if it is not active."""
    found = lookup.uuid_of(shown)
    with caller.as_user() as tx:
        # Recorded first: the last action of a token may be to revoke itself.
        audit.note(tx, caller.project_id, caller.origin, "token.revoked", str(found))
        if found is None or not tokens.revoke(tx, caller.project_id, found):
            raise NotFoundError(Code.NOT_FOUND, f"there is no token {clip(shown)!r} in force")
    logs.action(Event.TOKEN_REVOKED, **caller.said, revoked=str(found))
