"""WSGI middleware for every request: its id, its log line and metrics, and headers for browsers.

A WSGI application around Flask's, so that no request is missed, and so that the line is logged when the last
byte of the answer is sent.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from werkzeug.wsgi import ClosingIterator

from gitstore import budget
from service import cors, fairness, logs
from service.clients import Proxies, set_address
from service.context import FACTS, request_id_from
from service.cors import GIT_PATHS, Origins
from service.metrics import Metrics

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_PUSH_SHARE: Final = 8  # a push may hold as many definitions as commands: 10,000
ENDPOINT: Final = "gitstore.endpoint"
"""WSGI environment key in which Flask leaves the name of the route."""

SHORTCUT: Final = "gitstore.shortcut"
"""Key of the Flask extension that answers some requests in the event loop; without it, threads do."""

# Browsers must treat an answer as data: they may not run, frame or sniff it. Pages override this.
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class LoopAnswer:
    """An answer that was made in the event loop. `finish` is called when its last byte is sent."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    finish: Callable[[], None]


class Answer(NamedTuple):
    """An answer. `body` is None if the client has it already."""

    body: bytes | None
    content_type: str
    headers: tuple[tuple[str, str], ...]

    @property
    def status(self) -> str:
        return "304 NOT MODIFIED" if self.body is None else "200 OK"

    def all_headers(self) -> list[tuple[str, str]]:
        """Return the headers, with those about the body."""
        if self.body is None:
            return [*self.headers]
        about_body = (("Content-Type", self.content_type), ("Content-Length", str(len(self.body))))
        return [*about_body, *self.headers]


Reads = Callable[["WSGIEnvironment"], Awaitable[Answer | None] | None]
Shortcut = Callable[["WSGIEnvironment"], Awaitable[LoopAnswer | None] | None]
"""Answers some requests in the event loop; returns None, at once or later, for the application to answer."""

_ENCODED: Final = [(name.lower().encode(), value.encode()) for name, value in _HEADERS.items()]


class RequestMiddleware:
    """The WSGI application that wraps Flask's."""

    def __init__(
        self,
        inner: WSGIApplication,
        metrics: Metrics,
        cpu: int,
        proxies: Proxies | None = None,
        slow: int = 0,
    ) -> None:
        """Wrap `inner`. `cpu` is the budget of a request, in seconds of CPU time.

        A request that takes `slow` milliseconds is logged with where they went; with 0, none is.
        """
        self._inner = inner
        self._metrics = metrics
        self._cpu = cpu
        self._proxies = proxies
        self._slow = slow

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = self._begun(environ)
        spent = budget.Spent()

        def start(line: str, headers: list[tuple[str, str]], *rest: Any) -> Callable[[bytes], object]:
            request.status = int(line[:3])
            there = {name.lower() for name, _ in headers}
            ours = {**_HEADERS, "X-Request-Id": request.id}
            headers.extend((name, value) for name, value in ours.items() if name.lower() not in there)
            return start_response(line, headers, *rest)

        def finish() -> None:
            fairness.release(environ)
            self._finished(request, spent.seconds)
            about.close()

        about = ExitStack()
        about.enter_context(logs.about(request_id=request.id))
        try:
            with budget.limited(cpu_seconds(environ, self._cpu)), budget.measured() as spent:
                return ClosingIterator(self._inner(environ, start), finish)
        except BaseException:
            finish()
            raise

    def shortcut(self, reads: Reads, origins: Origins | None) -> Shortcut:
        """Wrap `reads`, which answers requests in the event loop, as this object wraps the application."""

        async def answered(request: _Request, answering: Awaitable[Answer | None]) -> LoopAnswer | None:
            try:
                answer = await answering
            except Exception:
                self._finished(request, {}, request_id=request.id)
                raise
            if answer is None:
                return None
            waited = {"database": time.perf_counter() - request.started}
            request.status = int(answer.status[:3])
            headers = cors.added(answer.all_headers(), origins, request.environ)
            return LoopAnswer(
                request.status,
                [
                    *((name.lower().encode(), value.encode("latin-1")) for name, value in headers),
                    *_ENCODED,
                    (b"x-request-id", request.id.encode()),
                ],
                answer.body or b"",
                lambda: self._finished(request, waited, request_id=request.id),
            )

        def app(environ: WSGIEnvironment) -> Awaitable[LoopAnswer | None] | None:
            request = self._begun(environ)
            answering = reads(environ)
            return answered(request, answering) if answering is not None else None

        return app

    def _begun(self, environ: WSGIEnvironment) -> _Request:
        facts: dict[str, Any] = {"request_id": request_id_from(environ.get("HTTP_X_REQUEST_ID"))}
        environ[FACTS] = facts
        set_address(environ, self._proxies)
        return _Request(environ, facts)

    def _finished(self, request: _Request, spent: Mapping[str, float], **facts: Any) -> None:
        """Count a request, and log it. `facts` come first in its line."""
        seconds = time.perf_counter() - request.started
        environ = request.environ
        endpoint, method = environ.get(ENDPOINT), environ["REQUEST_METHOD"]
        path = environ.get("PATH_INFO", "").encode("latin-1", "replace").decode("utf-8", "replace")[:1000]
        self._metrics.request(endpoint=endpoint, method=method, status=request.status, seconds=seconds)
        logs.request(
            **facts,
            method=method,
            path=path,
            status=request.status,
            duration_ms=seconds * 1000,
            endpoint=endpoint,
            **{name: fact for name, fact in request.facts.items() if name != "request_id"},
        )
        if 0 < self._slow <= seconds * 1000:
            logs.slow_request(
                **facts,
                duration_ms=seconds * 1000,
                spent=spent,
                method=method,
                path=path,
                status=request.status,
                endpoint=endpoint,
            )


class _Request:
    """A request until its answer is sent: its facts are for its line in the log."""

    def __init__(self, environ: WSGIEnvironment, facts: dict[str, Any]) -> None:
        self.environ = environ
        self.facts = facts
        self.id: str = facts["request_id"]
        self.started = time.perf_counter()
        self.status = 500


def cpu_seconds(environ: WSGIEnvironment, cpu: int) -> int:
    """Return the CPU budget of a request in seconds; `cpu` is that of most requests."""
    return cpu * (_PUSH_SHARE if environ.get("PATH_INFO", "").endswith(GIT_PATHS) else 1)
