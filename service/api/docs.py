"""/openapi.json, and /docs: the page that shows it, with the assets of flask-openapi3-swagger.

The page needs no other network, and runs only scripts from this server: its own script is a separate file,
since the plugin's page has it inline.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Final, cast

from flask import Blueprint, Response, current_app, send_from_directory
from flask_openapi3.openapi import OpenAPI

from service.api.openapi import document

blueprint = Blueprint("docs", __name__)

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


@blueprint.get("/openapi.json")
def openapi() -> Response:
    """The OpenAPI document."""
    app = cast(OpenAPI, current_app._get_current_object())  # type: ignore[attr-defined]
    return Response(_document(app), content_type="application/json", headers={"Cache-Control": "no-cache"})


@blueprint.get("/docs")
def page() -> Response:
    return _own(_PAGE, "text/html; charset=utf-8")


@blueprint.get("/docs/start.js")
def start() -> Response:
    return _own(_START, "text/javascript; charset=utf-8")


@blueprint.get("/docs/<path:file>")
def static_file(file: str) -> Response:
    return send_from_directory(_FILES, file, conditional=True, max_age=86_400)


def _own(text: str, content_type: str) -> Response:
    headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
    return Response(text, content_type=content_type, headers=headers)
