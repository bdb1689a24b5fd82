"""The loop of the worker's background tasks: deliveries, synchronization of sources, and maintenance.

A loop calls `tick` when it is notified by Postgres (sync/notifications.py), when a thread has finished, and
when the time that the last tick returned has passed. A lease loop claims due work and does it in threads.
Slow work has a lane of its own, so that it does not delay the rest. At a shutdown, unfinished work is
released to the next worker. Several loops, on any machine, share the work.

The loop itself sends the heartbeats, so that a supervisor can detect a blocked loop.
"""

from __future__ import annotations

import queue
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Generic, LiteralString, Protocol, TypeVar
from uuid import UUID

from gitstore.errors import BusyError, GitstoreError
from sync.db import Database
from sync.notifications import listen

BEAT_SECONDS: Final = 2.0
POLL_SECONDS: Final = 10.0
"""Longest pause of a lease loop, in case a notification is missed."""
MOST_CRASHES: Final = 3
"""Consecutive crashes after which work is given up. A crash is a process that exited or was killed during the
work, because it hung or exceeded a limit. A recorded failure is not a crash and resets the count."""
CRASH_PAUSE_SECONDS: Final = 60.0
"""Delay before the second retry; each later retry adds this again. The first retry is immediate."""
WORKER_ENDED: Final = "the worker was killed or stopped responding during this work"

_PAUSES: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)  # seconds, after consecutive failures
_MIN_INTERVAL: Final = 0.02  # seconds between ticks, so that one tick serves threads that finish together
_SLOW_FOR: Final = 600.0  # seconds for which the owner of slow work counts as slow
_PATIENCE: Final = 2.0  # seconds that running work gets to finish at a shutdown

Beat = Callable[[], None]
"""Callback that records that the calling loop is alive."""
Report = Callable[[BaseException], None]
"""Callback that logs an error of a loop."""


def no_beat() -> None:
    """Do nothing: the heartbeat of an unsupervised loop."""


def no_report(_error: BaseException) -> None:
    """Do nothing."""


def given_up(reason: str, remedy: str) -> str:
    """Return the error that is stored with work that was given up."""
    return f"{reason}; given up after {MOST_CRASHES} crashes in a row: {remedy}"


class Loop(ABC):
    """A loop that runs until `stop` is set. Subclasses define `tick`."""

    def __init__(self, stop: threading.Event, *, beat: Beat = no_beat, report: Report = no_report) -> None:
        self._stop = stop
        self._beat = beat
        self._report = report
        self._wake = threading.Event()

    @abstractmethod
    def tick(self) -> float:
        """Do what is due. Return the seconds until the next tick."""

    def is_stuck(self) -> bool:
        """Return whether to withhold heartbeats, although the loop itself runs."""
        return False

    def recovered(self) -> None:  # noqa: B027 - optional
        """Handle the first successful tick after failed ones."""

    def wake(self) -> None:
        """Wake the loop for due work or for a shutdown."""
        self._wake.set()

    def beat(self) -> None:
        if not self.is_stuck():
            self._beat()

    def run(self) -> None:
        """Call `tick` until `stop` is set.

        If a tick fails, for example without the database, the first error is reported, and the next tick
        follows after a pause that grows. `busy`, a conflict of locks that mostly lasts a moment, is reported
        if the next tick fails, too.
        """
        failures, reported = 0, False
        while True:
            self._wake.clear()
            if self._stop.is_set():
                return
            started = time.monotonic()
            try:
                pause = self.tick()
            except GitstoreError as error:
                if not reported and (failures or not isinstance(error, BusyError)):
                    self._report(error)
                    reported = True
                pause = _PAUSES[min(failures, len(_PAUSES) - 1)]
                failures += 1
            else:
                if reported:
                    self.recovered()
                failures, reported = 0, False
            self._wait(pause)
            self._stop.wait(max(started + _MIN_INTERVAL - time.monotonic(), 0.0))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run in a thread until the block ends."""
        thread = threading.Thread(target=self.run, name=type(self).__name__)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            self.wake()
            thread.join()

    def _wait(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while True:
            self.beat()
            left = deadline - time.monotonic()
            if left <= 0 or self._wake.wait(min(left, BEAT_SECONDS)):
                return


class Lease(Protocol):
    """Claimed work. `owner` identifies the subscription or source; `slow` is whether it failed lately."""

    @property
    def owner(self) -> UUID: ...

    @property
    def slow(self) -> bool: ...


T = TypeVar("T", bound=Lease)


@dataclass(frozen=True, slots=True, eq=False)
class Running(Generic[T]):
    """Work in progress since `started`, in monotonic seconds."""

    lease: T
    started: float


@dataclass(frozen=True, slots=True)
class Progress(Generic[T]):
    """The work in progress by lane, and the owners that are known to be slow."""

    quick: Sequence[Running[T]]
    slow: Sequence[Running[T]]
    known_slow: Sequence[UUID]


class LeaseLoop(Loop, Generic[T]):
    """A loop whose ticks claim work and start it in threads. Subclasses define `tick`, `work` and `release`.

    `channel` is that of the notifications. Work that takes `slow_seconds` makes its owner slow.
    """

    def __init__(
        self,
        database: Database,
        channel: LiteralString,
        stop: threading.Event,
        *,
        slow_seconds: float,
        beat: Beat = no_beat,
        report: Report = no_report,
    ) -> None:
        super().__init__(stop, beat=beat, report=report)
        self._database = database
        self._channel = channel
        self._slow_seconds = slow_seconds
        self._jobs: queue.SimpleQueue[Running[T] | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._idle = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._running: set[Running[T]] = set()
        self._slow_until: dict[UUID, float] = {}

    @abstractmethod
    def work(self, lease: T) -> None:
        """Do claimed work, in one of the threads. Any error is reported."""

    @abstractmethod
    def release(self, leases: Sequence[T]) -> None:
        """Release unfinished work at a shutdown, so that it does not count as a crash."""

    def notified(self, payload: str) -> None:
        """Handle the payload of a notification, in the thread that listens, before the loop wakes."""

    def polled(self) -> None:
        """Find what a notification would have named, in the thread that listens, before the loop wakes."""

    def run(self) -> None:
        listener = threading.Thread(target=self._listen, name="listener", daemon=True)
        listener.start()
        super().run()
        for _ in self._threads:
            self._jobs.put(None)
        deadline = time.monotonic() + _PATIENCE
        for thread in (*self._threads, listener):
            thread.join(max(deadline - time.monotonic(), 0.0))
        with self._lock:
            unfinished = [one.lease for one in self._running]
        try:
            if unfinished:
                self.release(unfinished)
        except GitstoreError as error:
            self._report(error)

    def start(self, leases: Sequence[T]) -> None:
        """Start claimed work, each in an idle thread or in a new one."""
        started = time.monotonic()
        jobs = [Running(lease, started) for lease in leases]
        with self._lock:
            self._running.update(jobs)
        for job in jobs:
            self._jobs.put(job)
            if not self._idle.acquire(blocking=False):
                thread = threading.Thread(target=self._work, daemon=True)
                self._threads.append(thread)
                thread.start()

    def progress(self) -> Progress[T]:
        with self._lock:
            now = time.monotonic()
            for one in self._running:
                if now - one.started >= self._slow_seconds:
                    self._slow_until[one.lease.owner] = now + _SLOW_FOR
            self._slow_until = {owner: until for owner, until in self._slow_until.items() if until > now}
            lanes: tuple[list[Running[T]], list[Running[T]]] = [], []
            for one in self._running:
                lanes[one.lease.slow or one.lease.owner in self._slow_until].append(one)
            return Progress(*lanes, list(self._slow_until))

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._stop.is_set():
                continue
            try:
                self.work(job.lease)
            except Exception as error:  # the lease expires, and another worker takes over
                self._report(error)
            with self._lock:
                self._running.discard(job)
                now = time.monotonic()
                if now - job.started >= self._slow_seconds:
                    self._slow_until[job.lease.owner] = now + _SLOW_FOR
                else:
                    self._slow_until.pop(job.lease.owner, None)
            self._idle.release()
            self._wake.set()

    def _listen(self) -> None:
        listen(self._database, self._channel, self._stop, heard=self._heard, poll=self._poll)
        self._wake.set()

    def _heard(self, payload: str) -> None:
        self.notified(payload)
        self._wake.set()

    def _poll(self) -> None:
        self.polled()
        self._wake.set()
