"""`/metrics`: its access rules, the answer to a scrape, and its listener at GITSTORE_METRICS_BIND.

The metrics cover all projects together, so an access token of one project gives no access here.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from flask import Response
from werkzeug.wrappers import Request

from gitstore.errors import Code, GitstoreError, NotFoundError
from service import errors
from service.config import Config
from service.errors import HttpCode, UnauthenticatedError
from service.metrics import CONTENT_TYPE, Metrics, Value
from service.projects import Projects
from service.run import heartbeats
from sync import replication, schedules
from sync.db import Database
from webhooks import delivery_queue, source_queue
from webhooks.housekeeping import gauges

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

GAUGES_SECONDS: Final = 5.0
"""Seconds for which measured gauges are reused: scrapes may be frequent, and each would query Postgres."""

_FORWARDED: Final = ("HTTP_FORWARDED", "HTTP_X_FORWARDED_FOR", "HTTP_X_REAL_IP")
_STALLED_SECONDS: Final = 10
_THREADS: Final = 16  # scrapes at once; further connections are closed


def authorize(config: Config, environ: Mapping[str, Any], *, own_listener: bool = False) -> None:
    """Raise unless the request may read the metrics: `unauthenticated`, or `not_found` if it never may.

    A client counts as local by its TCP peer address, and only if no proxy header names another client.
    """
    if config.metrics_bind is not None and not own_listener:
        raise NotFoundError(Code.NOT_FOUND, "metrics are served at GITSTORE_METRICS_BIND")
    if config.metrics_token is not None:
        scheme, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        expected = config.metrics_token.encode()
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), expected):
            raise UnauthenticatedError("send Authorization: Bearer <GITSTORE_METRICS_TOKEN>")
    elif not (own_listener or _is_local(environ)):
        raise NotFoundError(
            Code.NOT_FOUND,
            "metrics are served to this machine only: set GITSTORE_METRICS_TOKEN or GITSTORE_METRICS_BIND",
        )


def _is_local(environ: Mapping[str, Any]) -> bool:
    try:
        peer = ipaddress.ip_address(environ.get("REMOTE_ADDR", ""))
    except ValueError:
        return False
    mapped = getattr(peer, "ipv4_mapped", None)
    return (mapped or peer).is_loopback and not any(name in environ for name in _FORWARDED)


class Scraper:
    """Answers scrapes with the counters of all processes, and gauges that are at most GAUGES_SECONDS old."""

    def __init__(
        self,
        metrics: Metrics,
        projects: Projects,
        database: Database,
        folder: Path | None = None,
        *,
        replica: Database | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Build a scraper. `folder` holds the heartbeats of the worker, if this service watches one.

        `replica` is the replica that this node reads, if any.
        """
        self._metrics = metrics
        self._projects = projects
        self._database = database
        self._folder = folder
        self._replica = replica
        self._clock = clock
        self._lock = threading.Lock()
        self._measured: Mapping[str, Value] = {}
        self._expires = 0.0

    def answer(self) -> Response:
        with self._lock:  # concurrent scrapes measure once
            if self._clock() >= self._expires:
                self._measured = self._measure()
                self._expires = self._clock() + GAUGES_SECONDS
            measured = self._measured
        headers = {"Cache-Control": "no-store"}
        return Response(self._metrics.exposition(measured), headers=headers, content_type=CONTENT_TYPE)

    def _measure(self) -> Mapping[str, Value]:
        """Measure; the series from a database are left out while it is unavailable."""
        ages, replacements = heartbeats.read(self._folder) or (None, None)
        measured: dict[str, Value] = {
            "gitstore_mirror_lag_seconds": self._projects.mirror_lag(time.time()),
            "gitstore_worker_beat_age_seconds": ages,
            "gitstore_worker_replacements_total": replacements,
        }
        if self._replica is not None:
            with suppress(GitstoreError):
                measured["gitstore_replica_lag_seconds"] = replication.progress(self._replica).lag
        with suppress(GitstoreError), self._database.as_mirror() as tx:
            now, due = gauges(tx), schedules.waiting(tx)
            measured |= {
                "gitstore_delivery_lag_seconds": delivery_queue.lag(tx),
                "gitstore_source_lag_seconds": source_queue.lag(tx),
                "gitstore_schedules_due": due.due,
                "gitstore_schedule_delay_seconds": due.delay,
                "gitstore_sources": now.sources,
                "gitstore_source_success_age_seconds": now.since_success,
                "gitstore_divergences_open": now.divergences,
                "gitstore_subscriptions": now.subscriptions,
                "gitstore_deliveries_pending": now.pending,
            }
        return measured


@contextmanager
def serving(listener: socket.socket, config: Config, scraper: Scraper) -> Iterator[None]:
    """Serve `/metrics`, and nothing else, at `listener` in a thread of this process, within the block."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        return _answered(config, scraper, Request(environ))(environ, start_response)

    server = _Server(listener, app)
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


class _Handler(WSGIRequestHandler):
    timeout = _STALLED_SECONDS

    def log_message(self, *_arguments: object) -> None:
        """Do not log scrapes."""


class _Server(ThreadingMixIn, WSGIServer):
    """The standard library's server on an already listening socket, with a limit on its threads."""

    daemon_threads = True

    def __init__(self, listener: socket.socket, app: WSGIApplication) -> None:
        super().__init__(("", 0), _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.server_name, self.server_port = listener.getsockname()[:2]
        self.setup_environ()
        self.set_app(app)
        self._room = threading.Semaphore(_THREADS)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()


def _answered(config: Config, scraper: Scraper, request: Request) -> Response:
    try:
        _check_target(request)
        authorize(config, request.environ, own_listener=True)
        return scraper.answer()
    except GitstoreError as error:
        return errors.problem(error)


def _check_target(request: Request) -> None:
    if request.path != "/metrics":
        raise NotFoundError(Code.NOT_FOUND, "only /metrics is served here")
    if request.method not in ("GET", "HEAD"):
        raise GitstoreError(HttpCode.METHOD_NOT_ALLOWED, "only GET is served here", allow=["GET", "HEAD"])
