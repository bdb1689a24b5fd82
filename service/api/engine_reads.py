"""Short way of an engine's reads around Flask: one round trip to Postgres, and no routing or validation.

It answers `GET /workflows/{slug or id}/versions/{current, number or environment}`, with and without
`/definition`, for an access token and with no query but a plain `key`. Any other request, and any that would
not be answered with 200 or 304, goes to Flask, whose views in `service/api/versions.py` define the answers.
Only create_app uses it.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from flask import Request, Response

from gitstore.definition.document import is_bytes_only
from gitstore.environments import is_name
from gitstore.errors import GitstoreError
from gitstore.git.commits import object_of
from gitstore.model import Permission, Problems
from gitstore.names import is_slug, parse_number
from service.access import Role, includes, is_token
from service.api import http, versions
from service.api.openapi import YAML
from service.context import FACTS, Services
from service.lookup import uuid_of
from service.middleware import ENDPOINT
from sync.catalog import InEnvironment
from sync.tokens import ReadVersion

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_PATH: Final = re.compile(r"/workflows/([^/]++)/versions/([a-z0-9-]++)(/definition)?+")
_KEY: Final = re.compile(r"(?:key=([A-Za-z0-9._~-]{1,200}+))?+")
_BEARER: Final = "Bearer "
_UNUSUAL: Final = ("SCRIPT_NAME", "HTTP_GITSTORE_ON_BEHALF_OF", "HTTP_TRANSFER_ENCODING")


def around(inner: WSGIApplication, services: Services) -> WSGIApplication:
    """Wrap `inner`, which answers all that is not answered here."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        response = _answer(environ, services)
        return inner(environ, start_response) if response is None else response(environ, start_response)

    return app


def _answer(environ: WSGIEnvironment, services: Services) -> Response | None:
    """Return the answer, or None for Flask."""
    path = _PATH.fullmatch(environ.get("PATH_INFO", ""))
    if path is None or environ["REQUEST_METHOD"] != "GET" or any(environ.get(name) for name in _UNUSUAL):
        return None
    authorization = environ.get("HTTP_AUTHORIZATION", "")
    token = authorization.removeprefix(_BEARER)
    if token == authorization or not is_token(token):
        return None
    name, version, definition = path.groups()
    workflow = uuid_of(name) or (name if is_slug(name) else None)
    key = _KEY.fullmatch(environ.get("QUERY_STRING", ""))
    number = parse_number(version)
    in_environment = number is None and is_name(version)
    if workflow is None or key is None or not (number or in_environment or version == "current"):
        return None
    which = InEnvironment(version, key[1]) if in_environment else number
    if environ.get("CONTENT_LENGTH", "0") not in ("", "0"):
        return None
    if definition and environ.get("HTTP_ACCEPT", "*/*") != "*/*":
        return None
    known, address = environ.get("HTTP_IF_NONE_MATCH", ""), environ.get("REMOTE_ADDR", "")
    try:
        row = services.auth.read_version(token, address, workflow, which, as_text=not definition, known=known)
    except GitstoreError:
        return None
    if row is None or row.state != "published" or not includes(Role(row.token_role), Permission.READ):
        return None
    request = Request(environ)
    response = (
        _bytes(request, row, numbered=number is not None) if definition else _json(request, row, services)
    )
    if response is not None:
        environ[ENDPOINT] = f"versions.{'read_definition' if definition else 'read_version'}"
        environ.setdefault(FACTS, {}).update(principal=row.token_name, project=row.project_slug)
    return response


def _json(request: Request, row: ReadVersion, services: Services) -> Response | None:
    if not row.valid or is_bytes_only(row.digest):
        return None
    etag = versions.etag_of(row)
    if http.not_modified(request, etag):
        return http.unchanged(etag=etag)
    return versions.answer_of(row, services, Problems(), etag=etag) if row.text is not None else None


def _bytes(request: Request, row: ReadVersion, *, numbered: bool) -> Response | None:
    headers: dict[str, Any] = {
        "etag": f'"{row.blob_sha}"',
        "cache_control": http.IMMUTABLE if numbered else http.CHANGING,
        "vary": "Accept",
    }
    if http.not_modified(request, headers["etag"]):
        return http.unchanged(**headers)
    if row.stored is None or object_of(row.blob_sha, "blob", row.stored) is None:
        return None
    if row.file_name.endswith(".json"):
        return http.answer_bytes(row.stored.removeprefix(codecs.BOM_UTF8), http.JSON, **headers)
    return http.answer_bytes(row.stored, YAML[0], **headers)
