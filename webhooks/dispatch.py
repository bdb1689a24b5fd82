"""The loop that has sources synced: a few at a time, each in a thread of its own, so that none waits for
another that is slow. It sleeps until it is told (NOTIFY) that something is due, or until the next one is."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

from gitstore.errors import GitstoreError
from sync import events
from sync.db import Database
from webhooks import due, sources
from webhooks.due import Claim
from webhooks.following import Follower, StoppingError
from webhooks.listening import Listener

THREADS: Final = 4

_POLL_SECONDS: Final = 10.0  # in case nobody told us
_PAUSES: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
_PATIENCE: Final = 2.0  # seconds that a sync has left when the dispatcher is to stop


class Dispatcher:
    """Runs until `stop` is set. Several of them, on any machine, share the work."""

    def __init__(
        self,
        follower: Follower,
        database: Database,
        stop: threading.Event,
        *,
        threads: int = THREADS,
        trouble: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        self._follower = follower
        self._database = database
        self._stop = stop
        self._trouble = trouble
        self._wake = threading.Event()
        self._free = threading.BoundedSemaphore(threads)
        self._running: set[threading.Thread] = set()
        self._happened: queue.SimpleQueue[UUID] = queue.SimpleQueue()

    def run(self) -> None:
        """Sync what is due, again and again. A database that is away is waited for."""
        listener = Listener(
            self._database.conninfo,
            self._wake,
            self._stop,
            channels=(sources.CHANNEL, events.CHANNEL),
            heard=self._heard,
        )
        listener.start()
        failures = 0
        while not self._stop.is_set():
            self._wake.clear()
            try:
                pause = self.tick()
                failures = 0
            except GitstoreError as error:
                if not failures:
                    self._trouble(error)
                pause = _PAUSES[min(failures, len(_PAUSES) - 1)]
                failures += 1
            self._wake.wait(pause)
        deadline = time.monotonic() + _PATIENCE
        for thread in (*self._running, listener):
            # What takes longer is synced again by another, when its lease is over.
            thread.join(max(deadline - time.monotonic(), 0.0))

    def wake(self) -> None:
        """Look now: something is due, or the dispatcher is to stop."""
        self._wake.set()

    def tick(self) -> float:
        """Begin what is due, as far as there is room; seconds until there is reason to look again."""
        self._push_what_happened()
        while self._free.acquire(blocking=False):
            claim = None
            try:
                claim = self._follower.claim()
            finally:
                if claim is None:
                    self._free.release()
            if claim is None:
                with self._database.as_mirror() as tx:
                    next_in = due.seconds_to_next(tx)
                return _POLL_SECONDS if next_in is None else min(max(next_in, 0.05), _POLL_SECONDS)
            thread = threading.Thread(target=self._sync, args=(claim,), name="sync", daemon=True)
            self._running.add(thread)
            thread.start()
        return _POLL_SECONDS  # woken when a thread is free again

    def _sync(self, claim: Claim) -> None:
        try:
            self._follower.sync(claim)
        except StoppingError:
            pass
        except Exception as error:  # the lease ends by itself, and another takes it on
            self._trouble(error)
        finally:
            self._free.release()
            self._running.discard(threading.current_thread())
            self._wake.set()

    def _heard(self, channel: str, payload: str) -> None:
        if channel == events.CHANNEL:
            try:
                self._happened.put(UUID(payload))
            except ValueError:
                return  # somebody else's, on our channel

    def _push_what_happened(self) -> None:
        ids = []
        while not self._happened.empty():
            ids.append(self._happened.get())
        if ids:
            with self._database.as_mirror() as tx:
                due.push_due(tx, ids)
