"""/tokens: the access tokens of the project, for its owners."""

from __future__ import annotations

from http import HTTPStatus

from flask import Response, request

from gitstore.errors import Code, GitstoreError
from gitstore.model import Permission
from service import logs
from service.api import inputs, lookup
from service.api.answers import answer, nothing
from service.api.bodies import read_json
from service.api.openapi import new_blueprint, says, says_nothing, takes
from service.api.schemas import NewToken, Token, TokenList
from service.context import enter, now
from service.credentials import digest, new_token
from sync import audit, tokens

blueprint = new_blueprint("tokens", "Access tokens, each bound to the project and a role.")


@blueprint.get("/tokens", responses=says(200, TokenList))
def list_tokens(query: inputs.Query) -> Response:
    """Every token of the project, without its secret, the oldest first."""
    caller = enter(Permission.OWN, "listing tokens", project=query.project)
    with caller.reading() as tx:
        found = tokens.tokens(tx, caller.project_id)
    return answer(TokenList.model_construct(tokens=[Token.of(row) for row in found]))


@blueprint.post(
    "/tokens",
    responses=says(201, NewToken, "Location", refuses=(413, 415)),
    openapi_extensions=takes(inputs.CreateToken, required=True),
)
def create_token(query: inputs.Query) -> Response:
    """Create a token. Its secret is in this answer and nowhere else."""
    caller = enter(Permission.OWN, "creating a token", project=query.project)
    body = read_json(request, inputs.CreateToken, caller.services.config.limits)
    if body.expires_at is not None and body.expires_at <= now():
        raise GitstoreError(Code.MALFORMED, "expires_at is in the past")
    secret = new_token()
    with caller.as_user() as tx:
        made = tokens.create(
            tx, caller.project_id, body.name, body.role.value, digest(secret), body.expires_at
        )
        details = {"name": body.name, "role": body.role.value}
        audit.note(tx, caller.project_id, caller.origin, "token.created", str(made.id), details)
    logs.action("token_created", **caller.said, created=str(made.id), role=body.role.value)
    location = f"{caller.services.config.public_url}/tokens/{made.id}"
    response = answer(NewToken.of(made, token=secret), HTTPStatus.CREATED, location=location)
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.delete("/tokens/<id>", responses=says_nothing())
def revoke_token(path: inputs.TokenPath, query: inputs.Query) -> Response:
    """Revoke a token: from now on it opens nothing."""
    caller = enter(Permission.OWN, "revoking a token", project=query.project)
    found = lookup.uuid_of(path.id)
    with caller.as_user() as tx:
        # Noted first: the last thing that a token does may be to revoke itself.
        audit.note(tx, caller.project_id, caller.origin, "token.revoked", str(found))
        if found is None or not tokens.revoke(tx, caller.project_id, found):
            raise GitstoreError(Code.NOT_FOUND, f"there is no token {path.id[:80]!r} in force")
    logs.action("token_revoked", **caller.said, revoked=str(found))
    return nothing()
