"""Actions on access tokens: create and revoke."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from gitstore.errors import GitstoreError, MalformedError
from gitstore.system import now
from service import lookup
from service.access import digest, new_token
from service.caller import Caller
from service.logs import Event
from sync import audit, tokens
from sync.audit import Origin
from sync.db import Transaction
from sync.tokens import Token


def create(caller: Caller, name: str, role: str, expires_at: datetime | None = None) -> tuple[Token, str]:
    """Create a token; return it and its secret, which is not stored."""
    if expires_at is not None and expires_at <= now():
        raise MalformedError("expires_at is in the past")
    with caller.as_user() as tx:
        token, secret = insert(tx, caller.project_id, caller.origin, name, role, expires_at)
    caller.log(Event.TOKEN_CREATED, created=str(token.id), role=token.role)
    return token, secret


def insert(
    tx: Transaction,
    project_id: UUID,
    origin: Origin,
    name: str,
    role: str,
    expires_at: datetime | None = None,
) -> tuple[Token, str]:
    """Create a token within a transaction, as `create` does."""
    secret = new_token()
    token = tokens.create(tx, project_id, name, str(role), digest(secret), expires_at)
    audit.note(tx, project_id, origin, "token.created", str(token.id), {"name": name, "role": token.role})
    return token, secret


def revoke(caller: Caller, token_id: str) -> None:
    """Revoke the token: it stops working immediately. Raises `not_found` if it is not active."""
    known = lookup.uuid_of(token_id)
    with caller.as_user() as tx:
        # Recorded first: the last action of a token may be to revoke itself.
        caller.audit(tx, "token.revoked", known, {})
        if known is None or not tokens.revoke(tx, caller.project_id, known):
            raise not_active(token_id)
    caller.log(Event.TOKEN_REVOKED, revoked=str(known))


def not_active(token_id: str) -> GitstoreError:
    """Return the error for a token that is revoked or does not exist."""
    return lookup.not_found("active token", token_id)
