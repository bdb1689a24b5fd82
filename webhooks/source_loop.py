"""The loop that syncs due sources: several at a time, each in its own thread.

Sources that are slow or failed last time have a separate lane, so that an upstream that hangs does not delay
the others. The loop sleeps until a notification (NOTIFY) of a due source or until the next due time.

The loop calls `beat` every few seconds, unless a sync is stuck beyond its own limits. A supervisor can
therefore detect a blocked loop or thread.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Final
from uuid import UUID

from gitstore.errors import GitstoreError
from sync.db import Database
from webhooks import pulse, source_leases, sources
from webhooks.listener import Listener
from webhooks.pulse import Beat
from webhooks.source_leases import Claim, Lanes
from webhooks.source_sync import SourceSync, StoppingError

QUICK: Final = 4
"""Concurrent syncs of quick sources."""
SLOW: Final = 4
"""Concurrent syncs of slow or failing sources."""

_POLL_SECONDS: Final = 10.0  # in case a notification is missed
_PAUSES: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
_SLOW_SECONDS: Final = 10.0
_SLOW_FOR: Final = 600.0  # seconds for which a source counts as slow after a slow sync
_PATIENCE: Final = 2.0  # seconds that running syncs get to finish at a shutdown


class SyncLoop:
    """A loop that runs until `stop` is set. Several loops, on any machine, share the work."""

    def __init__(
        self,
        follower: SourceSync,
        database: Database,
        stop: threading.Event,
        *,
        quick: int = QUICK,
        slow: int = SLOW,
        slow_seconds: float = _SLOW_SECONDS,
        trouble: Callable[[BaseException], None] = lambda _: None,
        beat: Beat = pulse.silent,
    ) -> None:
        self._follower = follower
        self._database = database
        self._stop = stop
        self._trouble = trouble
        self._beat_now = beat
        self._wake = threading.Event()
        self._quick, self._slow, self._slow_seconds = quick, slow, slow_seconds
        self._lock = threading.Lock()
        self._running: dict[threading.Thread, tuple[Claim, float]] = {}
        self._slow_until: dict[UUID, float] = {}
        self._happened: queue.SimpleQueue[UUID] = queue.SimpleQueue()

    def run(self) -> None:
        """Sync due sources until `stop` is set. Retries while the database is unavailable."""
        listener = Listener(
            self._database.conninfo,
            self._wake,
            self._stop,
            channels=(sources.CHANNEL,),
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
            pulse.wait(self._wake, pause, self._beat)
        deadline = time.monotonic() + _PATIENCE
        with self._lock:
            running = list(self._running)
        for thread in (*running, listener):
            # Another worker repeats a sync that takes longer, once its lease has expired.
            thread.join(max(deadline - time.monotonic(), 0.0))

    def wake(self) -> None:
        """Wake the loop for due work or for a shutdown."""
        self._wake.set()

    def _beat(self) -> None:
        if not self._follower.is_stuck():
            self._beat_now()

    def tick(self) -> float:
        """Start due syncs while lanes have capacity. Return the seconds until the next tick."""
        self._push_what_happened()
        self._follower.note_ended_leases()
        while True:
            self._beat()
            lanes, pause = self._room()
            if not (lanes.quick or lanes.slow):
                return pause
            with self._database.as_mirror() as tx:
                claim = source_leases.claim(tx, lanes=lanes)
                next_in = source_leases.seconds_to_next(tx) if claim is None else None
            if claim is None:
                return pause if next_in is None else min(max(next_in, 0.05), pause)
            thread = threading.Thread(target=self._sync, args=(claim,), name="sync", daemon=True)
            with self._lock:
                self._running[thread] = (claim, time.monotonic())
            thread.start()

    def _room(self) -> tuple[Lanes, float]:
        """Return the lanes with free capacity, and the seconds until that may change without an event."""
        with self._lock:
            now = time.monotonic()
            for claim, started in self._running.values():
                if now - started >= self._slow_seconds:
                    self._slow_until[claim.id] = now + _SLOW_FOR
            self._slow_until = {key: until for key, until in self._slow_until.items() if until > now}
            lane: dict[bool, list[float]] = {False: [], True: []}  # whether it is the slow one -> start times
            for claim, started in self._running.values():
                lane[claim.failures > 0 or claim.id in self._slow_until].append(started)
            lanes = Lanes(
                quick=len(lane[False]) < self._quick,
                slow=len(lane[True]) < self._slow,
                known_slow=list(self._slow_until),
            )
        waits = [max(started + self._slow_seconds - now, 0.05) for started in lane[False]]
        return lanes, min([_POLL_SECONDS, *waits])

    def _sync(self, claim: Claim) -> None:
        started = time.monotonic()
        try:
            self._follower.sync(claim)
        except StoppingError:
            pass
        except Exception as error:  # the lease expires, and another worker takes over
            self._trouble(error)
        finally:
            with self._lock:
                self._running.pop(threading.current_thread(), None)
                if time.monotonic() - started < self._slow_seconds:
                    self._slow_until.pop(claim.id, None)
            self._wake.set()

    def _heard(self, _channel: str, payload: str) -> None:
        """Handle a notification. Its payload is empty for a due source, or the id of an event to push."""
        try:
            self._happened.put(UUID(payload))
        except ValueError:
            return

    def _push_what_happened(self) -> None:
        ids = []
        while not self._happened.empty():
            ids.append(self._happened.get())
        if ids:
            with self._database.as_mirror() as tx:
                source_leases.push_due(tx, ids)
