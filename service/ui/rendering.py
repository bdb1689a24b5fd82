"""Rendering of templates to pages: the common frame, the headers, and the error page."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Final
from urllib.parse import urlsplit

from flask import Request, Response, request, url_for
from jinja2 import Environment, PackageLoader, StrictUndefined

from gitstore.definition.document import describe
from gitstore.errors import GitstoreError
from gitstore.model import Problems
from service import errors, logs
from service.context import request_id, services
from service.errors import HttpCode
from service.ui import filters

THEMES: Final = ("system", "light", "dark")
THEME_COOKIE: Final = "gitstore-theme"
# Scripts and styles are our own files: nothing inline, nothing from other origins.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "Content-Security-Policy": POLICY,
    # Not no-store: going back must restore typed text.
    "Cache-Control": "private, no-cache",
    "Cross-Origin-Opener-Policy": "same-origin",
}


def page(template: str, code: int = 200, **values: Any) -> Response:
    """Return a page of `service/templates`. Undefined names are errors, and everything is escaped."""
    text = _environment().get_template(template).render(
        {"theme": theme(request), "visit": None, "here": request.full_path.rstrip("?"), **values}
    )  # fmt: skip
    return Response(text, code, _HEADERS, content_type="text/html; charset=utf-8")


def refusal(error: GitstoreError) -> Response:
    """Return an error as a page, with the message and status of HTTP, or redirect to the sign-in page."""
    if error.code is HttpCode.UNAUTHENTICATED and request.method in ("GET", "HEAD"):
        made = Response(status=303, headers={"Cache-Control": "no-store"})
        made.location = url("sign_in", next=request.full_path.rstrip("?"))
        return made
    answer = errors.refused(error)
    made = page(
        "refusal.html",
        int(answer.status),
        error=error.reworded(logs.without_secrets(error.message)),
        status=answer.status,
        problems=Problems.of(error.problems),
        request_id=request_id(),
        slug=(request.view_args or {}).get("slug"),
    )
    made.headers.update(_without_challenge(answer.headers))
    return made


def url(endpoint: str, **values: Any) -> str:
    """Return the path of a view."""
    return prefix() + url_for("ui." + endpoint, **{key: v for key, v in values.items() if v is not None})


def prefix() -> str:
    """Return the path prefix that a proxy adds to our paths, from GITSTORE_PUBLIC_URL."""
    return urlsplit(services().config.public_url).path


def theme(request: Request) -> str:
    chosen = request.cookies.get(THEME_COOKIE, "")
    return chosen if chosen in THEMES else THEMES[0]


def static_url(name: str) -> str:
    """Return the URL of a static file, which changes with its content, so that browsers may cache it."""
    return url("static_file", file=name, v=_version(name))


def _without_challenge(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name != "WWW-Authenticate"}


@cache
def _version(name: str) -> str:
    return hashlib.sha256((files("service") / "static" / name).read_bytes()).hexdigest()[:12]


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("service"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(url=url, static=static_url, themes=THEMES)
    made.filters.update(
        ago=filters.ago, moment=filters.moment, whole=filters.whole, called=filters.called,
        headline=filters.headline, describe=describe, count=filters.count, sentence=filters.sentence,
    )  # fmt: skip
    return made
