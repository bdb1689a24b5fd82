"""/tokens: access tokens of the project. For its owners."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from uuid import UUID

from flask import Response
from pydantic import Field

from gitstore.model import Permission
from service.access import Role
from service.actions import tokens as actions
from service.api.http import Answer, answer, no_content, read_json, url
from service.api.openapi import ObjectPath, Query, declares, new_blueprint
from service.context import enter
from service.inputs import CreateToken
from sync import tokens

blueprint = new_blueprint("tokens", "Access tokens, each bound to the project and a role.")


class Token(Answer):
    id: UUID
    name: str
    role: Role
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None


class NewToken(Token):
    token: str = Field(description="the secret: shown only once")


class TokenList(Answer):
    tokens: list[Token]


@blueprint.get("/tokens", **declares(200, TokenList))
def list_tokens(query: Query) -> Response:
    """List the tokens of the project, without their secrets, oldest first."""
    caller = enter(Permission.OWN, "listing tokens", project=query.project)
    with caller.reading() as tx:
        rows = tokens.tokens(tx, caller.project_id)
    listed = [Token.from_row(row, role=Role(row.role)) for row in rows]
    return answer(TokenList.model_construct(tokens=listed))


@blueprint.post("/tokens", **declares(201, NewToken, "Location", body=CreateToken))
def create_token(query: Query) -> Response:
    """Create a token. Only this answer contains its secret."""
    caller = enter(Permission.OWN, "creating a token", project=query.project)
    row, secret = actions.create(caller, **read_json(caller, CreateToken).given())
    token = NewToken.from_row(row, role=Role(row.role), token=secret)
    location = url(caller, f"/tokens/{row.id}")
    return answer(token, HTTPStatus.CREATED, location=location, cache_control="no-store")


@blueprint.delete("/tokens/<id>", **declares(204))
def revoke_token(path: ObjectPath, query: Query) -> Response:
    """Revoke a token. It stops working immediately."""
    caller = enter(Permission.OWN, "revoking a token", project=query.project)
    actions.revoke(caller, path.id)
    return no_content()
