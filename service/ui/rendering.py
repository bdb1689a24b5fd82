"""The blueprint of the pages, and rendering: templates, the headers of every page, and the error page."""

from __future__ import annotations

import hashlib
import secrets
from datetime import UTC, datetime
from functools import cache
from gzip import GzipFile
from http import HTTPStatus
from importlib.resources import files
from io import BytesIO
from typing import Any, Final
from urllib.parse import urlsplit

from flask import Blueprint, Response, request, url_for
from jinja2 import Environment, PackageLoader, StrictUndefined
from werkzeug.exceptions import RequestEntityTooLarge

from gitstore import model
from gitstore.definition.document import describe
from gitstore.definition.quoting import clip
from gitstore.diff.summary import count
from gitstore.errors import ForbiddenError, GitstoreError
from gitstore.masking import masked
from gitstore.system import now
from service import errors
from service.access import who
from service.activity import SeenState
from service.assets import HOW_TO_BUILD
from service.comparison import shown
from service.context import request_id, services
from service.errors import UnauthenticatedError
from service.ui.texts import Verbatim, legible

blueprint: Final = Blueprint("ui", __name__)

THEMES: Final = ("system", "light", "dark")
THEME_COOKIE: Final = "gitstore-theme"
# Scripts and styles are our own files: nothing inline, nothing from other origins. A page with the editor
# adds a nonce for the styles that CodeMirror makes.
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
_COMPRESSED: Final = frozenset({"text/html", "application/json"})
_WORTH_IT: Final = 1_000
_UNITS: Final = (("year", 31_557_600), ("month", 2_629_800), ("day", 86_400), ("hour", 3_600), ("minute", 60))


def page(template: str, error: GitstoreError | None = None, **values: Any) -> Response:
    """Return a page of `service/templates`, with the status of `error`."""
    frame = {"theme": theme(), "here": request.full_path.rstrip("?"), "notice": None}
    text = _environment().get_template(template).render({"visit": None, **frame, "error": error, **values})
    status = errors.STATUS[error.code] if error else 200
    response = Response(text, int(status), _HEADERS, content_type="text/html; charset=utf-8")
    if nonce := values.get("nonce"):
        policy = POLICY.replace("style-src 'self'", f"style-src 'self' 'nonce-{nonce}'")
        response.headers["Content-Security-Policy"] = policy
    return response


def is_page(path: str) -> bool:
    """Return whether an error at this path is shown as a page."""
    return path == "/ui" or path.startswith("/ui/")


def refusal(error: GitstoreError) -> Response:
    """Return an error as a page, with the message and status of HTTP, or redirect to the sign-in page."""
    if isinstance(error, UnauthenticatedError) and request.method in ("GET", "HEAD"):
        response = Response(status=303, headers={"Cache-Control": "no-store"})
        response.location = url("sign_in", next=request.full_path.rstrip("?"))
        return response
    status, headers = errors.status_and_headers(error)
    above = request.path.rpartition("/")[0]
    if status == HTTPStatus.METHOD_NOT_ALLOWED and request.method == "GET" and above.count("/") > 1:
        # The address of a form that was refused, entered again: the page above it has the form.
        return Response(status=303, headers={"Cache-Control": "no-store", "Location": prefix() + above})
    response = page(
        "refusal.html",
        error.reworded(masked(error.message)),
        status=status,
        problems=model.Problems.of(error.problems),
        request_id=request_id(),
        slug=(request.view_args or {}).get("slug"),
        typed=_typed() if isinstance(error, UnauthenticatedError | ForbiddenError) else "",
    )
    response.headers.update({name: text for name, text in headers.items() if name != "WWW-Authenticate"})
    return response


def _typed() -> str:
    """Return the definition in a refused form, to be copied: going back does not always restore it."""
    try:
        return request.form.get("definition", "")
    except RequestEntityTooLarge:
        return ""


def url(endpoint: str, **values: Any) -> str:
    """Return the path of a view."""
    return prefix() + url_for("ui." + endpoint, **{key: v for key, v in values.items() if v is not None})


def prefix() -> str:
    """Return the path prefix that a proxy adds to our paths, from GITSTORE_PUBLIC_URL."""
    return urlsplit(services().config.public_url).path


def theme() -> str:
    chosen = request.cookies.get(THEME_COOKIE, "")
    return chosen if chosen in THEMES else THEMES[0]


def static_url(name: str) -> str:
    """Return the URL of a static file, which changes with its content, so that browsers may cache it."""
    is_named_so = name.startswith("built/")
    return url("static_file", file=name, v=None if is_named_so else _digest(name))


@cache
def _digest(name: str) -> str:
    return hashlib.sha256((files("service") / "static" / name).read_bytes()).hexdigest()[:12]


# Compression


def compressed(content: bytes) -> bytes:
    """Return `content` as gzip, with a name of random length.

    So the size of a page that holds both a CSRF token and text of a sender reveals nothing about the token
    ("Heal the Breach").
    """
    packed = BytesIO()
    with GzipFile("x" * secrets.randbelow(64), "wb", 6, packed, mtime=0) as file:
        file.write(content)
    return packed.getvalue()


@blueprint.after_request
def _compress(response: Response) -> Response:
    """Compress a page, if it is worth it, for clients that accept gzip."""
    if response.is_streamed or response.mimetype not in _COMPRESSED or response.content_encoding:
        return response
    response.vary.add("Accept-Encoding")
    if request.accept_encodings["gzip"] > 0 and (response.content_length or 0) >= _WORTH_IT:
        response.set_data(compressed(response.get_data()))
        response.content_encoding = "gzip"
    return response


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("service"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=legible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(url=url, static=static_url, themes=THEMES, how_to_build=HOW_TO_BUILD)
    environment.filters.update(
        ago=ago, moment=moment, whole=whole, called=shown, headline=headline, describe=describe, count=count,
        sentence=sentence, pointer=pointer, token=SeenState.of, verbatim=Verbatim, person=person,
    )  # fmt: skip
    return environment


# Filters


def ago(then: datetime) -> str:
    """Return an age such as "3 hours ago". A time ahead of our clock is "just now"."""
    seconds = (now() - then).total_seconds()
    for unit, size in _UNITS:
        if seconds >= size:
            return f"{count(int(seconds // size), unit)} ago"
    return "just now"


def moment(then: datetime) -> str:
    """Return the time for the attribute `datetime`."""
    return then.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def whole(then: datetime) -> str:
    """Return the exact time for display."""
    return then.astimezone(UTC).strftime("%-d %B %Y, %H:%M:%S UTC")


def sentence(text: str) -> str:
    """Return a message as a sentence; a first word that is a name ("v3", "order-sync") is unchanged."""
    word = text.partition(" ")[0]
    begun = text[:1].upper() + text[1:] if word.isalpha() else text
    return begun if begun.endswith((".", "?", "!")) else begun + "."


def pointer(known: model.Environment) -> str:
    """Return the versions of a pointer, with weights if there are two: "v3", "v4 10 %, v3 90 %"."""
    if known.second is None:
        return f"v{known.version}"
    return ", ".join(f"v{number} {weight} %" for number, weight in known.weights.items())


def person(recorded: str) -> str:
    """Return the display name of an actor that Git records."""
    return who(recorded).name


def headline(text: str) -> str:
    return clip(text.strip().partition("\n")[0])
