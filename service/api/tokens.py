"""/tokens: the access tokens of the project, for its owners."""

from __future__ import annotations

from http import HTTPStatus

from flask import Response, request

from gitstore.model import Permission
from service.actions import tokens as owning
from service.api import inputs
from service.api.answers import answer, nothing
from service.api.bodies import read_json
from service.api.openapi import new_blueprint, says, says_nothing, takes
from service.api.schemas import NewToken, Token, TokenList
from service.context import enter
from sync import tokens

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
    made, secret = owning.create(caller, body)
    location = f"{caller.services.config.public_url}/tokens/{made.id}"
    response = answer(NewToken.of(made, token=secret), HTTPStatus.CREATED, location=location)
    response.headers["Cache-Control"] = "no-store"
    return response


@blueprint.delete("/tokens/<id>", responses=says_nothing())
def revoke_token(path: inputs.TokenPath, query: inputs.Query) -> Response:
    """Revoke a token: from now on it opens nothing."""
    caller = enter(Permission.OWN, "revoking a token", project=query.project)
    owning.revoke(caller, path.id)
    return nothing()
