"""Declarations of the endpoints and their parameters, and the OpenAPI 3.1 document generated from them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from typing import Any, Final, cast

from flask import Blueprint, Response, current_app, send_from_directory
from flask_openapi3.blueprint import APIBlueprint
from flask_openapi3.models.info import Info
from flask_openapi3.models.tag import Tag
from flask_openapi3.openapi import OpenAPI
from pydantic import BaseModel, Field
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from service.api.http import JSON, Answer, Problem
from service.errors import PROBLEM_JSON
from service.inputs import Body

LONGEST_PAGE: Final = 100
NUMBER: Final = "v?[1-9][0-9]{0,9}"
ENVIRONMENT: Final = "[a-z][a-z0-9-]{0,39}"
"""An environment, or one of the words for a version."""
ID: Final = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
YAML: Final = ("application/yaml", "text/yaml", "application/x-yaml", "text/x-yaml")  # the first: RFC 9512
DEFINITION_JSON: Final = "application/vnd.gitstore.definition+json"
ENVELOPE_JSON: Final = "application/vnd.gitstore.draft+json"

_REF: Final = "#/components/schemas/"
_SECURITY: Final[dict[str, Any]] = {
    "token": {"type": "http", "scheme": "bearer", "bearerFormat": "gst_…, or the JWT of a user"}
}
_INFO: Final = """\
A Git-backed version store for MeshHook workflows.

`{id}` is a workflow's UUID or its slug. Errors are `application/problem+json` (RFC 9457) with a stable
`code`, and with all `problems` of a definition at once.
"""
_DRAFT_BODIES: Final = """\
The definition in an envelope, a JSON object; or the definition itself. Files, as `application/yaml` or
`application/vnd.gitstore.definition+json`, are stored unchanged. An object, as `application/json`, edits the
file of the draft in place. A body is an envelope if its type is `application/vnd.gitstore.draft+json`, or if
its type is `application/json` and it has no other keys than `definition`, `from_version`, `message`, `author`
and `base_version`.
"""
_OF_WORKFLOW: Final = "/workflows/{id}"
_RENAMED: Final[dict[str, Any]] = {
    "description": "the workflow has another slug by now: send the request to Location",
    "headers": {"Location": {"schema": {"type": "string"}}},
}
_METHODS: Final = ("get", "post", "put", "patch", "delete")
# Possible errors of any endpoint: for an unauthorized caller, under load, or while Postgres is unavailable.
_ALWAYS: Final = (400, 401, 403, 404, 429, 503)

Responses = dict[str | int | HTTPStatus, type[BaseModel] | dict[Any, Any] | None]


# Parameters


class Parameters(BaseModel):
    """Parameters of a path, or of a query; unknown ones of a query are ignored."""


class Query(Parameters):
    project: str | None = Field(None, description="the project's slug or id, if the caller has several")

    @classmethod
    def model_json_schema(cls, *_: Any, **options: Any) -> dict[str, Any]:
        """Return the schema, computed once: flask-openapi3 requests it for every request."""
        return cls._schema(**options)

    @classmethod
    @cache
    def _schema(cls, **options: Any) -> dict[str, Any]:
        return super().model_json_schema(**options)


class PageQuery(Query):
    limit: int = Field(20, ge=1, le=LONGEST_PAGE)
    cursor: str | None = Field(None, description="`next_cursor` of the previous page")


class WorkflowPath(Parameters):
    id: str = Field(description="the workflow's UUID, or its slug")


class ObjectPath(Parameters):
    id: str = Field(json_schema_extra={"format": "uuid"})


# Declarations


def new_blueprint(noun: str, description: str, *, needs_token: bool = True) -> APIBlueprint:
    """Return the blueprint on which the endpoints of a noun are registered."""
    return APIBlueprint(
        noun,
        __name__,
        abp_tags=[Tag(name=noun, description=description)],
        abp_security=[{"token": []}] if needs_token else None,
        operation_id_callback=_operation_id,
    )


def _operation_id(*, name: str, path: str, method: str) -> str:  # noqa: ARG001 - passed by flask-openapi3
    return name


def declares(
    status: int,
    model: type[BaseModel] | None = None,
    *headers: str,
    errors: tuple[int, ...] = (),
    also: Responses | None = None,
    body: type[BaseModel] | None = None,
    with_definition: bool = False,
    required: bool = True,
    match: bool | None = None,
) -> dict[str, Any]:
    """Declare an operation: arguments of a blueprint's decorators.

    It responds with `model` as JSON and these headers, with `also`, or with `errors` and those that every
    endpoint with a token has. It accepts `body` as JSON; `with_definition`, as an envelope or raw bytes.
    `match`: whether it requires (True) or honors (False) If-Match.
    """
    operation: dict[str, Any] = {} if match is None else {_IF_MATCH: match}
    if body is not None:
        operation["requestBody"] = {**_request(body, with_definition), "required": required}
        errors = (*errors, 413, 415)
    responses = {**(also or {}), **responds(status, model, *headers), **problems(*errors)}
    return {"responses": responses, "openapi_extensions": operation}


def responds(status: int, model: type[BaseModel] | None, *headers: str) -> Responses:
    """Declare an answer with `model` as JSON, if any, and these headers."""
    answer: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    answer["headers"] = {name: {"schema": {"type": "string"}} for name in headers}
    if model is not None:
        answer["content"] = {JSON: {"schema": _reference(model)}}
    return {status: answer}


def problems(*statuses: int) -> Responses:
    """Declare an endpoint's errors: `statuses`, and those of every endpoint that needs a token."""
    return {status: problem(status) for status in sorted({*statuses, *_ALWAYS})}


def problem(status: int) -> dict[str, Any]:
    content = {PROBLEM_JSON: {"schema": _reference(Problem)}}
    return {"description": HTTPStatus(status).phrase, "content": content}


def _request(model: type[BaseModel], with_definition: bool) -> dict[str, Any]:
    if not with_definition:
        return {"content": {JSON: {"schema": _reference(model)}}}
    definition = {"type": "object", "description": "a definition"}
    content = {
        JSON: {"schema": {"anyOf": [_reference(model), definition]}},
        ENVELOPE_JSON: {"schema": _reference(model)},
        DEFINITION_JSON: {"schema": definition},
        YAML[0]: {"schema": definition},
    }
    return {"description": _DRAFT_BODIES, "content": content}


def _reference(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REF + model.__name__}


_IF_MATCH: Final = "x-if-match"
"""Temporary key, until the document is generated: whether the operation requires or honors If-Match."""


# The document


def new_app(name: str, version: str) -> OpenAPI:
    """Return a Flask application that collects its blueprints' declarations. It serves no page of its own."""
    return OpenAPI(
        name,
        info=Info(title="gitstore", version=version, description=_INFO),
        security_schemes=_SECURITY,
        operation_id_callback=_operation_id,
        validation_error_status=400,
        validation_error_model=Problem,
        doc_ui=False,
        static_folder=None,
    )


def register(app: OpenAPI, blueprint: Blueprint) -> None:
    """Register a blueprint; the endpoints of one made by `new_blueprint` are in the document.

    Nouns may share a path, which `register_api` alone would lose.
    """
    if not isinstance(blueprint, APIBlueprint):
        app.register_blueprint(blueprint)
        return
    for path, item in blueprint.paths.items():
        known = app.paths.get(path)
        for method in _METHODS:
            operation = getattr(known, method, None)
            if operation is not None:
                setattr(item, method, operation)
    app.register_api(blueprint)


def document(app: OpenAPI) -> dict[str, Any]:
    """Return the OpenAPI document of all endpoints registered with `app`, with the schemas they reference."""
    made: dict[str, Any] = app.api_doc
    used = set(re.findall(rf"{_REF}(\w+)", json.dumps(made["paths"])))
    models: list[tuple[type[BaseModel], JsonSchemaMode]] = [
        *((model, "serialization") for base in (Answer, Problem) for model in _family(base)),
        *((model, "validation") for model in _family(Body)),
    ]
    chosen = [(model, mode) for model, mode in models if model.__name__ in used]
    _, definitions = models_json_schema(chosen, ref_template=_REF + "{model}")
    made["components"]["schemas"] = definitions["$defs"]
    for path, item in made["paths"].items():
        for operation in item.values():
            if path.startswith(_OF_WORKFLOW):
                operation["responses"]["308"] = _RENAMED
            if JSON in operation["responses"]["400"]["content"]:
                del operation["responses"]["400"]  # flask-openapi3's own, if no input can be malformed
            required = operation.pop(_IF_MATCH, None)
            if required is not None:
                operation.setdefault("parameters", []).append(_if_match_parameter(required))
    return made


def _family(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield model
    for subclass in model.__subclasses__():
        yield from _family(subclass)


def _if_match_parameter(required: bool) -> dict[str, Any]:
    return {
        "name": "If-Match",
        "in": "header",
        "required": required,
        "description": "the ETag of the draft that the caller has seen, or `*`",
        "schema": {"type": "string"},
    }


# /openapi.json, and /docs: the page that shows it, with the assets of flask-openapi3-swagger. It needs no
# other network, and its own script is a separate file, so that only scripts from this server run.

docs = Blueprint("docs", __name__)

_FILES: Final = str(files("flask_openapi3_swagger") / "templates" / "swagger")
# Swagger UI's style sheet contains images (data:); everything else is a file from this server.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE: Final = """\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>gitstore API</title>
<link rel="icon" href="docs/images/swagger.svg">
<link rel="stylesheet" href="docs/css/swagger-ui.css">
<div id="api"><noscript>JavaScript is required: <a href="openapi.json">openapi.json</a></noscript></div>
<script src="docs/js/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</html>
"""
_START: Final = """\
SwaggerUIBundle({url: "openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null});
"""


@cache
def _document(app: OpenAPI) -> str:
    return json.dumps(document(app), ensure_ascii=False, indent=1) + "\n"


@docs.get("/openapi.json")
def openapi() -> Response:
    """The OpenAPI document."""
    app = cast(OpenAPI, current_app._get_current_object())  # type: ignore[attr-defined]
    return Response(_document(app), content_type="application/json", headers={"Cache-Control": "no-cache"})


@docs.get("/docs")
def page() -> Response:
    return _own(_PAGE, "text/html; charset=utf-8")


@docs.get("/docs/start.js")
def start() -> Response:
    return _own(_START, "text/javascript; charset=utf-8")


@docs.get("/docs/<path:file>")
def static_file(file: str) -> Response:
    return send_from_directory(_FILES, file, conditional=True, max_age=86_400)


def _own(text: str, content_type: str) -> Response:
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
    return Response(text, content_type=content_type, headers=headers)
