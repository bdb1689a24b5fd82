"""Cross-origin requests (CORS): pages of the origins in a setting may call the API from a browser.

Answers never allow credentials, so browsers send no cookies: a page sends its user's token itself. Pages of
gitstore and git are not available to other origins.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

HANDOVER: Final = "/ui/handover"
"""The only path of the page that a host's front end calls."""
GIT_PATHS: Final = ("/info/refs", "/git-upload-pack", "/git-receive-pack")
"""Ends of the paths of git's smart HTTP protocol."""
ANY: Final = "*"
_ORIGIN: Final = re.compile(r"https?://(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?", re.ASCII)
_NOT_API: Final = ("/ui/", "/hooks/")
_NOT_API_ENDS: Final = ("/ui", "/git-upload-archive", *GIT_PATHS)
_EXPOSED: Final = "ETag, Gitstore-Position, Link, Location, Retry-After, X-Request-Id"
_PREFLIGHT: Final = (
    ("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE"),
    (
        "Access-Control-Allow-Headers",
        "Authorization, Content-Type, Gitstore-Position, If-Match, If-None-Match, X-Request-Id",
    ),
    ("Access-Control-Max-Age", "7200"),
)


@dataclass(frozen=True, slots=True)
class Origins:
    """Allowed origins, or ANY."""

    names: frozenset[str]

    @classmethod
    def parse(cls, text: str) -> Origins:
        """Parse comma-separated origins. Raises ValueError."""
        names = frozenset(part.strip() for part in text.split(",") if part.strip())
        if not all(name == ANY or (_ORIGIN.fullmatch(name) and _is_canonical(name)) for name in names):
            raise ValueError(text)
        return cls(names)

    def __str__(self) -> str:
        """Return the text form that `parse` accepts."""
        return ",".join(sorted(self.names))

    def allows(self, origin: str) -> bool:
        return ANY in self.names or origin in self.names


def _is_canonical(origin: str) -> bool:
    """Return whether browsers send the origin in this form, without the default port."""
    parts = urlsplit(origin)
    return parts.port != {"http": 80, "https": 443}[parts.scheme]


def around(inner: WSGIApplication, origins: Origins | None) -> WSGIApplication:
    """Wrap `inner` so that pages of `origins` may call the API."""
    if origins is None:
        return inner
    allowed = origins

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if not _is_api(environ.get("PATH_INFO", "")):
            return inner(environ, start_response)
        own = _headers(allowed, environ.get("HTTP_ORIGIN", ""))

        def start(status: str, headers: list[tuple[str, str]], *rest: Any) -> Callable[[bytes], object]:
            return start_response(status, _with_vary(headers, own), *rest)

        asks = environ["REQUEST_METHOD"] == "OPTIONS" and "HTTP_ACCESS_CONTROL_REQUEST_METHOD" in environ
        if asks and len(own) > 1:
            start("204 No Content", list(_PREFLIGHT))
            return []
        return inner(environ, start)

    return app


def added(
    headers: list[tuple[str, str]], origins: Origins | None, environ: WSGIEnvironment
) -> list[tuple[str, str]]:
    """Return `headers` of an answer to a read, and those that let pages of `origins` read it."""
    if origins is None:
        return headers
    return _with_vary(headers, _headers(origins, environ.get("HTTP_ORIGIN", "")))


def _is_api(path: str) -> bool:
    return path == HANDOVER or not (path.startswith(_NOT_API) or path.endswith(_NOT_API_ENDS))


def _headers(allowed: Origins, origin: str) -> list[tuple[str, str]]:
    """Return the headers of an answer to `origin`, including those that allow access if it is allowed."""
    anyone = ANY in allowed.names
    vary = [] if anyone else [("Vary", "Origin")]
    if not origin or not allowed.allows(origin):
        return vary
    access = [
        ("Access-Control-Allow-Origin", ANY if anyone else origin),
        ("Access-Control-Expose-Headers", _EXPOSED),
    ]
    return [*vary, *access]


def _with_vary(headers: list[tuple[str, str]], own: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return both lists, with one header Vary."""
    varies = [value for name, value in (*headers, *own) if name.lower() == "vary"]
    others = [pair for pair in (*headers, *own) if pair[0].lower() != "vary"]
    return [*others, ("Vary", ", ".join(varies))] if varies else others
