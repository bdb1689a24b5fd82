"""Building of answers: JSON, entity tags, and links to the next page."""

from __future__ import annotations

from http import HTTPStatus
from urllib.parse import urlencode

from flask import Request, Response
from pydantic import BaseModel

from service.api.bodies import JSON
from service.api.schemas import Version
from service.context import Caller
from service.lookup import cursor_to

IMMUTABLE = "private, immutable, max-age=31536000"
CHANGING = "private, no-cache"
_SPELT = {"etag": "ETag"}  # spelt as in RFC 9110; some clients compare case-sensitively


def answer(model: BaseModel, status: int = HTTPStatus.OK, **headers: str | None) -> Response:
    """Return `model` as JSON. A header's key is spelt as in `cache_control`; None omits the header."""
    response = Response(model.model_dump_json() + "\n", status, content_type=JSON)
    response.headers["Cache-Control"] = CHANGING
    for name, value in headers.items():
        if value is not None:
            response.headers[_SPELT.get(name) or name.replace("_", "-").title()] = value
    return response


def unchanged(tag: str) -> Response:
    """Return 304 Not Modified: the client has the representation of `tag` (RFC 9110 section 15.4.5)."""
    response = Response(status=HTTPStatus.NOT_MODIFIED, headers={"ETag": tag, "Cache-Control": CHANGING})
    del response.headers["Content-Type"]
    return response


def nothing() -> Response:
    """Return 204 No Content, without a content type."""
    response = Response(status=HTTPStatus.NO_CONTENT)
    del response.headers["Content-Type"]
    return response


def tag_of(version: Version) -> str:
    """Return the entity tag of a version's JSON: for a draft its commit, which If-Match accepts.

    Otherwise the number is included: a commit may be published twice, and `latest` and `current` may name
    either.
    """
    number = "" if version.state == "draft" else f"-v{version.version_number}"
    suffix = "-current" if version.is_current else ""
    return f'"{version.commit}{number}{suffix}"'


def workflow_url(caller: Caller, slug: str) -> str:
    return f"{caller.services.config.public_url}/workflows/{slug}"


def next_link(request: Request, caller: Caller, path: str, place: str | int | None) -> str | None:
    """Return the Link header of the page after `place` (RFC 8288), with this page's own query."""
    if place is None:
        return None
    query = {name: value for name, value in request.args.items() if name != "cursor"}
    target = f"{caller.services.config.public_url}{path}?{urlencode({**query, 'cursor': cursor_to(place)})}"
    return f'<{target}>; rel="next"'
