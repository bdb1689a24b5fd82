"""Fair scheduling: limits on concurrent requests, and one heavy request at a time per credential.

A request is heavy by criteria known before the work (defined only here):

- it is a git request, fetch or push, of any size: a small pack may unpack to a large one;
- its body is larger than LARGE;
- it parses or compares stored definitions which are together larger than LARGE: its view, which knows them,
  asks (`lookup.admit`).

A process works on `threads` requests at once, and at most half of them are heavy, so that light ones always
find a thread. A credential has one heavy request running, over all processes. Further ones wait, without
occupying one of the `threads`, and start round-robin between tenants. The queue is bounded: requests that do
not fit, or wait too long, are refused with 429. When it is full, a request of a tenant with fewer queued
requests displaces the newest request of the tenant with the most.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gitstore.budget import spending
from gitstore.errors import TemporaryError
from gitstore.system import try_lock
from service.errors import HttpCode
from service.metrics import Outcome

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

LARGE: Final = 16 * 1024
"""Bytes of a body, or of stored definitions: up to this size a request costs at most about 20 ms of CPU."""
GIT: Final = frozenset({"git.info_refs", "git.fetch", "git.push"})
"""Routes whose requests are all heavy."""
QUEUED: Final = 32
"""Heavy requests that wait in a process. Each occupies a thread of the server, but no place at work."""
QUEUED_EACH: Final = 16
"""Maximum of these for one credential."""
WAIT_SECONDS: Final = 10.0
LEASE_SECONDS: Final = 60.0
"""Time after which a request no longer counts as heavy: mostly a large clone with a slow client."""
RETRY_AFTER: Final = 2
ANONYMOUS: Final = "anonymous"
"""Tenant of every request without a credential. It runs one heavy request at a time in a process."""

_POLL_SECONDS: Final = 0.05  # another process does not signal that it released a credential
_LOCK_FILES: Final = 4096  # two credentials that hash to the same file take turns like one credential


def is_heavy(endpoint: str | None, body: int, definitions: int) -> bool:
    """Return whether a request is heavy by its route, or by the bytes of its body and definitions."""
    return endpoint in GIT or body > LARGE or definitions > LARGE


def is_apart(endpoint: str | None, body: int) -> bool:
    """Return whether a heavy request gets its own process; not if git's process does the work."""
    return endpoint not in GIT or (endpoint == "git.push" and body > LARGE)


class Places:
    """Limit of `most` concurrent requests; further ones wait, and start in order of arrival."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._lock = threading.Lock()
        self._queue: deque[threading.Lock] = deque()

    def acquire(self) -> None:
        with self._lock:
            if self._free:
                self._free -= 1
                return
            turn = threading.Lock()
            turn.acquire()
            self._queue.append(turn)
        turn.acquire()  # released by `release`, which passes its place on

    def release(self) -> None:
        with self._lock:
            if self._queue:
                self._queue.popleft().release()
            else:
                self._free += 1

    def around(self, inner: WSGIApplication) -> WSGIApplication:
        """Wrap `inner` so that its call and each step of its answer hold a place.

        No place is held while a step is sent.
        """

        def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
            self.acquire()
            try:
                return _Answer(inner(environ, start_response), self)
            finally:
                self.release()

        return app


class _Answer:
    """Body of an answer; producing each step holds a place."""

    def __init__(self, body: Iterable[bytes], places: Places) -> None:
        self._steps = iter(body)
        self._places = places
        self.close: Callable[[], None] = getattr(body, "close", lambda: None)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self._places.acquire()
        try:
            return next(self._steps)
        finally:
            self._places.release()


@dataclass(eq=False)
class Lease:
    """Right to do heavy work, until `release`; before it is `granted`, its entry in the queue."""

    tenant: str
    credential: str
    _shares: FairShares
    granted: threading.Event = field(default_factory=threading.Event)
    refused: bool = False
    started: float = 0.0
    lock: int | None = None
    """Descriptor of the lock file that excludes other processes from the credential."""

    def release(self) -> None:
        """End the work, or the wait. Does nothing if it has already ended."""
        self._shares.release(self)


class FairShares:
    """Heavy requests of one process.

    `folder` is shared by the processes of a service (None: a single process).
    """

    def __init__(
        self,
        threads: int,
        folder: Path | None,
        count: Callable[[Outcome], None],
        *,
        wait_seconds: float = WAIT_SECONDS,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        self.places = Places(threads)
        self._most = max(threads // 2, 1)
        self._folder = folder / "credentials" if folder is not None else None
        if self._folder is not None:
            self._folder.mkdir(exist_ok=True)
        self._count = count
        self._wait_seconds = wait_seconds
        self._lease_seconds = lease_seconds
        self._lock = threading.Lock()
        self._running: list[Lease] = []
        self._waiting: dict[str, deque[Lease]] = {}
        self._polled = 0.0

    @spending("queue")
    def admit(self, tenant: str, credential: str, is_gone: Callable[[], bool] = lambda: False) -> Lease:
        """Wait for the turn of a heavy request that holds a place at work.

        `is_gone` returns whether its client has disconnected. Raises `too_many_requests`.
        """
        lease = Lease(tenant, credential, self)
        with self._lock:
            self._enqueue(lease)
            self._grant()
        outcome: Outcome = "immediate"
        if not lease.granted.is_set() and not lease.refused:
            outcome = "queued"
            self.places.release()
            try:
                self._wait(lease, is_gone)
            finally:
                self.places.acquire()
        with self._lock:
            if lease.granted.is_set():
                self._count(outcome)
                return lease
            self._leave_queue(lease)
        self._count("refused")
        raise TemporaryError(
            HttpCode.TOO_MANY_REQUESTS,
            "too many large requests at once: send those of one token one after the other, and retry in "
            f"{RETRY_AFTER} s",
            retry_after=RETRY_AFTER,
        )

    def release(self, lease: Lease) -> None:
        with self._lock:
            self._end(lease)
            self._grant()

    def _wait(self, lease: Lease, is_gone: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._wait_seconds
        while not lease.granted.wait(_POLL_SECONDS):
            now = time.monotonic()
            with self._lock:
                if now > self._polled + _POLL_SECONDS:  # one thread polls for all waiting requests
                    self._polled = now
                    self._grant()
                if lease.refused or now > deadline or is_gone():
                    return

    # Called with the lock held

    def _enqueue(self, lease: Lease) -> None:
        mine = self._waiting.get(lease.tenant, ())
        if sum(queued.credential == lease.credential for queued in mine) >= QUEUED_EACH:
            lease.refused = True
            return
        if sum(map(len, self._waiting.values())) >= QUEUED:
            longest = max(self._waiting.values(), key=len)
            if len(longest) < len(mine) + 2:
                lease.refused = True
                return
            displaced = longest[-1]
            displaced.refused = True
            self._leave_queue(displaced)
        self._waiting.setdefault(lease.tenant, deque()).append(lease)

    def _leave_queue(self, lease: Lease) -> None:
        queue = self._waiting.get(lease.tenant, deque())
        with suppress(ValueError):  # already removed
            queue.remove(lease)
        if not queue:
            self._waiting.pop(lease.tenant, None)

    def _grant(self) -> None:
        """Start every request that may start: the first tenant's first; then rotate the tenants."""
        now = time.monotonic()
        for running in list(self._running):
            if now - running.started > self._lease_seconds:
                self._end(running)
        while len(self._running) < self._most and (lease := self._next()) is not None:
            lease.started = now
            self._running.append(lease)
            self._leave_queue(lease)
            if lease.tenant in self._waiting:
                self._waiting[lease.tenant] = self._waiting.pop(lease.tenant)
            lease.granted.set()

    def _next(self) -> Lease | None:
        """Return the next request whose credential is free, and lock the credential for it."""
        busy = {running.credential for running in self._running}
        anonymous = any(running.tenant == ANONYMOUS for running in self._running)
        for tenant, queue in self._waiting.items():
            if tenant == ANONYMOUS and anonymous:
                continue
            for lease in queue:
                if lease.credential in busy:
                    continue
                if self._lock_credential(lease):
                    return lease
                busy.add(lease.credential)
        return None

    def _lock_credential(self, lease: Lease) -> bool:
        """Exclude other processes from the credential. The kernel releases the lock when the process ends."""
        if self._folder is None:
            return True
        name = int.from_bytes(hashlib.sha256(lease.credential.encode()).digest()[:4]) % _LOCK_FILES
        handle = os.open(self._folder / f"{name:x}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if not try_lock(handle):
            os.close(handle)
            return False
        lease.lock = handle
        return True

    def _end(self, lease: Lease) -> None:
        if lease in self._running:
            self._running.remove(lease)
        if lease.lock is not None:
            os.close(lease.lock)
            lease.lock = None


DISCONNECTED: Final = "gitstore.disconnected"
"""WSGI environment key of a function that returns whether the client has disconnected; set by the server."""
LEASE: Final = "gitstore.lease"
"""WSGI environment key of a heavy request's lease, present until its answer is sent."""


def release(environ: dict[str, Any]) -> None:
    """Release the lease of a finished request, if it has one."""
    lease = environ.pop(LEASE, None)
    if lease is not None:
        lease.release()
