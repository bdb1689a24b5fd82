"""WSGI middleware for every request: its id, its log line and metrics, and headers for browsers.

A WSGI application around Flask's, so that no request is missed, and so that the line is logged when the last
byte of the answer is sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

from werkzeug.wsgi import ClosingIterator

from gitstore import budget
from service import fairness, logs
from service.clients import Proxies, set_address
from service.context import FACTS, request_id_from
from service.cors import GIT_PATHS
from service.metrics import Metrics

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_PUSH_SHARE: Final = 4  # a push may hold many definitions
ENDPOINT: Final = "gitstore.endpoint"
"""WSGI environment key in which Flask leaves the name of the route."""

# Browsers must treat an answer as data: they may not run, frame or sniff it. Pages override this.
_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; sandbox",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}


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
        started = time.perf_counter()
        facts: dict[str, Any] = {"request_id": request_id_from(environ.get("HTTP_X_REQUEST_ID"))}
        environ[FACTS] = facts
        set_address(environ, self._proxies)
        status, spent = 500, budget.Spent()

        def start(line: str, headers: list[tuple[str, str]], *rest: Any) -> Callable[[bytes], object]:
            nonlocal status
            status = int(line[:3])
            there = {name.lower() for name, _ in headers}
            ours = {**_HEADERS, "X-Request-Id": facts["request_id"]}
            headers.extend((name, value) for name, value in ours.items() if name.lower() not in there)
            return start_response(line, headers, *rest)

        def finish() -> None:
            fairness.release(environ)
            seconds = time.perf_counter() - started
            endpoint, method = environ.get(ENDPOINT), environ["REQUEST_METHOD"]
            path = environ.get("PATH_INFO", "").encode("latin-1", "replace").decode("utf-8", "replace")[:1000]
            self._metrics.request(endpoint=endpoint, method=method, status=status, seconds=seconds)
            logs.request(
                method=method,
                path=path,
                status=status,
                duration_ms=seconds * 1000,
                endpoint=endpoint,
                **{name: fact for name, fact in facts.items() if name != "request_id"},
            )
            if 0 < self._slow <= seconds * 1000:
                logs.slow_request(
                    duration_ms=seconds * 1000,
                    spent=spent.seconds,
                    method=method,
                    path=path,
                    status=status,
                    endpoint=endpoint,
                )
            about.close()

        about = ExitStack()
        about.enter_context(logs.about(request_id=facts["request_id"]))
        try:
            with budget.limited(cpu_seconds(environ, self._cpu)), budget.measured() as spent:
                return ClosingIterator(self._inner(environ, start), finish)
        except BaseException:
            finish()
            raise


def cpu_seconds(environ: WSGIEnvironment, cpu: int) -> int:
    """Return the CPU budget of a request in seconds; `cpu` is that of most requests."""
    return cpu * (_PUSH_SHARE if environ.get("PATH_INFO", "").endswith(GIT_PATHS) else 1)
