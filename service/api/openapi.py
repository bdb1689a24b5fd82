"""Declarations of the endpoints, and the OpenAPI 3.1 document generated from them."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, Final

from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.info import Info
from flask_openapi3.models.tag import Tag
from flask_openapi3.openapi import OpenAPI
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from service.api import diff_schemas, inputs, schemas, source_schemas, subscription_schemas
from service.api.bodies import JSON, YAML
from service.errors import PROBLEM_JSON

_REF: Final = "#/components/schemas/"
_SECURITY: Final[dict[str, Any]] = {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "gst_…"}}
_INFO: Final = """\
A Git-backed version store for MeshHook workflows.

`{id}` is a workflow's UUID or its slug. Whatever is refused is told as `application/problem+json` (RFC 9457)
with a stable `code`, and with all `problems` of a definition at once.
"""
_DRAFT_BODIES: Final = """\
The definition in an envelope, a JSON object; or the definition itself, as `application/yaml` or
`application/json`, kept byte for byte. A JSON object is taken for an envelope if it has a key `definition`,
`from_version`, `message`, `author` or `base_version` and no key `nodes`, or if it is empty. Any other is the
definition itself.
"""
_ANSWERS: Final = (
    diff_schemas.Diff,
    schemas.CreatedWorkflow,
    schemas.FullVersion,
    schemas.Health,
    schemas.Ready,
    schemas.NewToken,
    schemas.Problem,
    schemas.SavedDraft,
    schemas.SupersededList,
    schemas.TokenList,
    schemas.Validation,
    schemas.Version,
    schemas.VersionPage,
    schemas.Workflow,
    schemas.WorkflowPage,
    *source_schemas.ANSWERS,
    *subscription_schemas.ANSWERS,
)
_BODIES: Final = (
    inputs.CreateDraft,
    inputs.CreateToken,
    inputs.CreateWorkflow,
    inputs.MoveCurrent,
    inputs.Publish,
    inputs.RestoreDraft,
    inputs.Revert,
    inputs.SaveDraft,
    inputs.Validate,
    *source_schemas.BODIES,
    *subscription_schemas.BODIES,
)
_METHODS: Final = ("get", "post", "put", "patch", "delete")
# Possible answers of any endpoint to an unknown caller, under load, or while Postgres is unavailable.
_ALWAYS: Final = (400, 401, 403, 404, 429, 503)

Responses = dict[str | int | HTTPStatus, type[BaseModel] | dict[Any, Any] | None]


def new_blueprint(noun: str, about: str, *, needs_token: bool = True) -> APIBlueprint:
    """Return the blueprint on which the endpoints of a noun are registered."""
    return APIBlueprint(
        noun,
        __name__,
        abp_tags=[Tag(name=noun, description=about)],
        abp_security=[{"token": []}] if needs_token else None,
        operation_id_callback=_name,
    )


def _name(*, name: str, path: str, method: str) -> str:  # noqa: ARG001 - passed by flask-openapi3
    return name


def says(
    status: int,
    model: type[BaseModel],
    *headers: str,
    refuses: tuple[int, ...] = (),
    needs_token: bool = True,
) -> Responses:
    """Declare an answer with a `model` as JSON and these headers, in addition to errors."""
    answer = {
        "description": HTTPStatus(status).phrase,
        "content": {JSON: {"schema": {"$ref": _REF + model.__name__}}},
        "headers": {name: {"schema": {"type": "string"}} for name in headers},
    }
    return {status: answer, **(refusals(*refuses) if needs_token else {})}


def says_nothing(*refuses: int, headers: tuple[str, ...] = ()) -> Responses:
    """Declare 204 with these headers, in addition to errors."""
    answer = {
        "description": HTTPStatus.NO_CONTENT.phrase,
        "headers": {name: {"schema": {"type": "string"}} for name in headers},
    }
    return {204: answer, **refusals(*refuses)}


def refusals(*statuses: int) -> Responses:
    """Declare an endpoint's problem+json answers: `statuses`, and those of every endpoint with a token."""
    return {status: refusal(status) for status in sorted({*statuses, *_ALWAYS})}


def refusal(status: int) -> dict[str, Any]:
    return {
        "description": HTTPStatus(status).phrase,
        "content": {PROBLEM_JSON: {"schema": {"$ref": _REF + schemas.Problem.__name__}}},
    }


def takes(model: type[BaseModel], *, required: bool = False, match: bool | None = None) -> dict[str, Any]:
    """Declare the operation's JSON body; `match` is as in `if_match`."""
    content = {JSON: {"schema": {"$ref": _REF + model.__name__}}}
    return {"requestBody": {"content": content, "required": required}, **if_match(needed=match)}


def takes_draft(
    model: type[BaseModel], *, required: bool = False, match: bool | None = None
) -> dict[str, Any]:
    """As `takes`, for bodies with a definition: the envelope `model`, or raw bytes."""
    raw = {"schema": {"type": "object", "description": "a definition"}}
    envelope = {"anyOf": [{"$ref": _REF + model.__name__}, {"type": "object", "description": "a definition"}]}
    body = {
        "description": _DRAFT_BODIES,
        "content": {JSON: {"schema": envelope}, YAML[0]: raw},
        "required": required,
    }
    return {"requestBody": body, **if_match(needed=match)}


IF_MATCH: Final = "x-if-match"
"""Temporary key, until the document is generated: whether the operation requires or honours If-Match."""


def if_match(*, needed: bool | None) -> dict[str, Any]:
    """Declare that the operation requires If-Match (True), honours it (False), or ignores it (None)."""
    return {} if needed is None else {IF_MATCH: needed}


def new_app(name: str, version: str, description: str = _INFO) -> OpenAPI:
    """Return a Flask application that collects its blueprints' declarations. It serves no page of its own."""
    return OpenAPI(
        name,
        info=Info(title="gitstore", version=version, description=description),
        security_schemes=_SECURITY,
        operation_id_callback=_name,
        validation_error_status=400,
        validation_error_model=schemas.Problem,
        doc_ui=False,
        static_folder=None,
    )


def register(app: OpenAPI, blueprint: APIBlueprint) -> None:
    """Register the endpoints of a noun. Nouns may share a path, which `register_api` alone would lose."""
    for path, item in blueprint.paths.items():
        there = app.paths.get(path)
        for method in _METHODS:
            operation = getattr(there, method, None)
            if operation is not None:
                setattr(item, method, operation)
    app.register_api(blueprint)


def document(app: OpenAPI) -> dict[str, Any]:
    """Return the OpenAPI document of all endpoints registered with `app`."""
    made: dict[str, Any] = app.api_doc
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [(model, "serialization") for model in _ANSWERS]
    models += [(model, "validation") for model in _BODIES]
    _, definitions = models_json_schema(models, ref_template=_REF + "{model}")
    made["components"]["schemas"] = definitions["$defs"]
    for item in made["paths"].values():
        for operation in item.values():
            if JSON in operation["responses"]["400"]["content"]:
                del operation["responses"]["400"]  # flask-openapi3's own, if no input can be malformed
            needed = operation.pop(IF_MATCH, None)
            if needed is not None:
                operation.setdefault("parameters", []).append(_if_match_parameter(needed))
    return made


def _if_match_parameter(needed: bool) -> dict[str, Any]:
    return {
        "name": "If-Match",
        "in": "header",
        "required": needed,
        "description": "the ETag of the draft that the caller has seen, or `*`",
        "schema": {"type": "string"},
    }
