"""Reads from a replica of the database: which requests it answers, and what becomes of what it lacks.

An engine's reads, histories and differences may be answered by a replica (GITSTORE_READ_URL). It lags behind,
so a request that it refuses in any way, be it for a version or for a token that it does not know, is asked of
the primary. A read node (`gitstore serve --read-only`) on a replica alone answers 503 in place of 404, since
the object may be on its way.

A replica that lags too far is not read, so that revoked tokens end. A writer gets the position of its write
in the header `Gitstore-Position`; a reader that sends it back sees that write: the replica has a moment to
reach the position, then the primary is asked.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from flask import Response, request

from gitstore.errors import GitstoreError, UnavailableError
from service import errors, logs
from service.clients import UncountedSignIns
from service.context import FACTS, ON_REPLICA, Services, services
from service.errors import HttpCode
from service.logs import Event
from sync import replication
from sync.db import Database
from sync.replication import Position, Progress

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

WAIT_SECONDS: Final = 1.0
"""Seconds in which a replica may reach the position that a reader sends."""

_CHECK_SECONDS: Final = 1.0
_STALE_SECONDS: Final = 5.0
"""Age from which on what is known of a replica does not count."""
_MOST_WAITING: Final = 2
"""Requests of a process that wait for a position; others are asked of the primary at once."""
_TICK: Final = 0.02
_RETRY_AFTER: Final = 1
_READ: Final = re.compile(r"/workflows/[^/]++/(?:versions(?:/(?P<version>[^/]++)(?:/definition)?+)?+|diff)")
_ALSO_ON_READ_NODES: Final = re.compile(
    r"/workflows(?:/[^/]++)?+|/livez|/readyz|/metrics|/openapi\.json|/docs(?:/.*+)?+"
)
_SAFE: Final = ("GET", "HEAD", "OPTIONS")
_MISSED: Final = (HTTPStatus.NOT_FOUND, HTTPStatus.CONFLICT, HTTPStatus.GONE)
"""Answers about an object that is not, or not wholly, in the replica."""


class Replica:
    """A server that may lag, and how far it has come: asked of it once a second. Safe between threads.

    One thread asks, and the others go on with what is known, so that a server that hangs does not stop them.
    """

    def __init__(self, database: Database, most_lag: float) -> None:
        self._database = database
        self._most_lag = most_lag
        self._lock = threading.Lock()
        self._waiting = threading.BoundedSemaphore(_MOST_WAITING)
        self._checked = 0.0
        self._progress: Progress | None = None
        self._was_fresh = True

    def progress(self) -> Progress | None:
        """Return how far it has come; None if it does not answer."""
        if self._age() >= _CHECK_SECONDS:
            is_stale = self._age() >= _STALE_SECONDS
            if not self._lock.acquire(timeout=WAIT_SECONDS if is_stale else 0):
                return None if is_stale else self._progress
            try:
                if self._age() >= _CHECK_SECONDS:
                    self._ask()
            finally:
                self._lock.release()
        return self._progress

    def _age(self) -> float:
        """Return the age of what is known, in seconds."""
        return time.monotonic() - self._checked

    def is_fresh(self) -> bool:
        progress = self.progress()
        return progress is not None and progress.lag <= self._most_lag

    def can_answer(self, position: Position | None) -> bool:
        """Return whether it may be read, and shows all that was written before `position`."""
        if not self.is_fresh():
            return False
        known = self._progress
        if position is None or known is None or known.has(position):
            return known is not None
        if not self._waiting.acquire(blocking=False):
            return False
        try:
            return self._reaches(position)
        finally:
            self._waiting.release()

    def _reaches(self, position: Position) -> bool:
        """Wait for a moment until the replica shows all that was written before `position`."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() <= deadline:
            time.sleep(_TICK)
            with self._lock:
                self._ask()
            known = self._progress
            if known is None or known.has(position):
                return known is not None
        return False

    def _ask(self) -> None:
        try:
            self._progress = replication.progress(self._database)
        except GitstoreError:
            self._progress = None
        self._checked = time.monotonic()
        lag = self._progress.lag if self._progress is not None else None
        fresh = lag is not None and lag <= self._most_lag
        if fresh != self._was_fresh:
            self._was_fresh = fresh
            level, event = ("info", Event.REPLICA_FOLLOWS) if fresh else ("warning", Event.REPLICA_LAGS)
            logs.action(event, level=level, seconds=round(lag, 1) if lag is not None else None)


def with_replica(services: Services, database: Database) -> Services:
    """Return `services` with a replica at `database`."""
    uncounted = UncountedSignIns(services.config.metrics_folder)
    auth = replace(services.auth, database=database, sign_ins=uncounted)
    return replace(services, replica=replace(services, database=database, auth=auth))


def around(inner: WSGIApplication, services: Services) -> WSGIApplication:
    """Wrap `inner`: let the replica answer what it may, and refuse what a read node does not serve."""
    config = services.config
    if services.replica is None and not config.read_only:
        return inner
    replica = Replica((services.replica or services).database, config.read_lag_seconds)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        try:
            if config.read_only:
                _check_served(environ)
            if not _may_lag(environ, read_only=config.read_only):
                return inner(environ, start_response)
            given = environ.get("HTTP_GITSTORE_POSITION")
            can_answer = replica.can_answer(Position.parse(given) if given else None)
            if services.replica is not None:
                answer = _on_replica(inner, environ) if can_answer else None
                return answer(environ, start_response) if answer else inner(environ, start_response)
            if not can_answer:
                raise _later("this read node lags behind")
            answer = _Answer(inner, environ)
            progress = replica.progress()
            if answer.status in _MISSED and (progress is None or progress.is_replica):
                answer.close()
                raise _later("this does not exist, or is not yet on this read node")
        except GitstoreError as error:
            refusal = errors.problem(error, str(environ.get(FACTS, {}).get("request_id", "")))
            return refusal(environ, start_response)
        return answer(environ, start_response)

    return app


def check_ready(services: Services) -> None:
    """Raise `unavailable` if a read node cannot answer: its only database does not, or lags too far."""
    if services.replica is not None:
        services.database.ping()
    elif (lag := replication.progress(services.database).lag) > services.config.read_lag_seconds:
        raise _later(f"the replica lags {lag:.0f} s behind")


def add_position(response: Response) -> Response:
    """Add the position of a write to its answer, for readers of replicas."""
    is_write = request.method not in _SAFE and response.status_code < HTTPStatus.MULTIPLE_CHOICES
    if is_write and (request.endpoint or "").partition(".")[0] not in ("ui", "git", "hooks"):
        position = replication.position(services().database)
        if position is not None:
            response.headers[replication.HEADER] = position
    return response


class _Answer:
    """An answer that is sent later, or not at all."""

    def __init__(self, inner: WSGIApplication, environ: WSGIEnvironment) -> None:
        self._begun: list[Any] = []
        self._body = inner(environ, self._start)
        self.status = int(self._begun[0][:3])

    def __call__(self, _environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response(*self._begun)
        return self._body

    def _start(self, *begun: Any) -> Any:
        self._begun = [*begun]

    def close(self) -> None:
        if close := getattr(self._body, "close", None):
            close()


def _on_replica(inner: WSGIApplication, environ: WSGIEnvironment) -> _Answer | None:
    """Return the replica's answer, or None if it refuses the request."""
    environ[ON_REPLICA] = "1"
    try:
        answer = _Answer(inner, environ)
    finally:
        environ.pop(ON_REPLICA, None)
    if answer.status < HTTPStatus.BAD_REQUEST:
        return answer
    answer.close()
    return None


def _may_lag(environ: WSGIEnvironment, *, read_only: bool) -> bool:
    """Return whether a request reads what may be some seconds old: no draft, unless a read node is asked."""
    path = environ.get("PATH_INFO", "")
    read = _READ.fullmatch(path)
    if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
        return False
    if read is None:
        return read_only and path.startswith("/workflows")
    if not path.endswith("/diff"):
        return read["version"] != "draft"
    query = parse_qs(environ.get("QUERY_STRING", ""))
    return read_only or "draft" not in (*query.get("to", ["draft"]), *query.get("from", []))


def _check_served(environ: WSGIEnvironment) -> None:
    """Raise `read_only_node` for a request that a read node does not serve."""
    path = environ.get("PATH_INFO", "")
    read = _READ.fullmatch(path)
    served = read["version"] != "draft" if read else _ALSO_ON_READ_NODES.fullmatch(path) is not None
    if environ["REQUEST_METHOD"] not in _SAFE or not served:
        message = (
            "this is a read node: it serves versions, definitions, histories and differences. Send writes, "
            "and reads of drafts and pages, to another node"
        )
        raise GitstoreError(HttpCode.READ_ONLY_NODE, message)


def _later(message: str) -> UnavailableError:
    return UnavailableError(f"{message}: try again, or ask another node", retry_after=_RETRY_AFTER)
