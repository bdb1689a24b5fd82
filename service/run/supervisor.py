"""Supervision of the children of `gitstore serve`: restart and shutdown.

A child that exits is restarted: the web server, the worker, the embedded Postgres. The worker is also
replaced if one of its loops has stalled (heartbeats.py). SIGTERM, SIGHUP and Ctrl-C stop them in order: the
web server and the worker, then Postgres. The children are in sessions of their own, so that a terminal's
Ctrl-C reaches this process alone.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import Final, Protocol

from gitstore.errors import GitstoreError
from service import logs
from service.logs import Event
from service.run.heartbeats import STALL_SECONDS, Heartbeats

GRACEFUL_SECONDS: Final = 30
"""Seconds that a request in progress may take to finish when the service stops."""

_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
_PARENT_SECONDS: Final = 0.5  # between two checks of the parent, where the kernel cannot signal its death
_TICK: Final = 0.05
_WORKER_SECONDS: Final = 10.0  # that the worker may take to end
_MORE_SECONDS: Final = 5.0  # that the web server may take beyond its grace period
_LONGEST_PAUSE: Final = 30.0
_STEADY_SECONDS: Final = 60.0  # after which a child counts as running well
_START_SECONDS: Final = 40.0  # that the worker may take, beyond a stall, until its loops run
_OWN_STALL_SECONDS: Final = 5.0  # between two checks: this process was suspended, not the worker
_IMPATIENT_SECONDS: Final = 1.0  # one Ctrl-C may arrive twice, by way of `uv run`


class Stopped(BaseException):
    """A signal requested a stop during an operation that it may interrupt."""


class Signals:
    """SIGTERM, SIGINT and SIGHUP, recorded; raised only within `interrupting`."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self._raises = False

    @property
    def stop(self) -> bool:
        return bool(self.times)

    @property
    def hurry(self) -> bool:
        """Whether a second stop was requested."""
        return bool(self.times) and self.times[-1] - self.times[0] > _IMPATIENT_SECONDS

    def install(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._note)
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup(1) ignores it
            signal.signal(signal.SIGHUP, self._note)

    @contextmanager
    def interrupting(self) -> Iterator[None]:
        """Raise Stopped on a signal within the block: for long waits."""
        if self.stop:
            raise Stopped
        self._raises = True
        try:
            yield
        finally:
            self._raises = False

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.times.append(time.monotonic())
        if self._raises:
            self._raises = False
            raise Stopped


class Postgres(Protocol):
    """The part of `sync.embedded.EmbeddedPostgres` that is used here."""

    def start(self) -> str: ...

    def stop(self) -> None: ...

    def poll(self) -> int | None: ...


@dataclass
class Retry:
    """Backoff of a child that exits: restart at once, then after 1, 2, 4 ... seconds."""

    started: float = 0.0
    due: float | None = None
    pause: float = 0.0

    def after_end(self, now: float) -> None:
        if self.due is None:
            if now - self.started > _STEADY_SECONDS:
                self.pause = 0.0
            self.due = now + self.pause
            self.pause = min(max(self.pause * 2, 1.0), _LONGEST_PAUSE)

    def is_due(self, now: float) -> bool:
        return self.due is not None and now >= self.due

    def begin(self, now: float) -> None:
        self.started, self.due = now, None


def start_child(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    *,
    stdin: int = subprocess.DEVNULL,
    keep: Collection[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a child; the descriptors `keep` stay open in it.

    Call from the main thread: the kernel signals a parent's death when the thread that forked the child ends.
    """
    return subprocess.Popen(
        arguments,
        env=dict(environment),
        stdin=stdin,
        pass_fds=tuple(keep),
        start_new_session=True,
    )


def die_with_parent(parent: int) -> None:
    """Kill this process at once when `parent` (its pid) dies. A child calls this at its own start.

    Where supported, the kernel sends a signal; the setting survives exec but not fork. SIGKILL: work that a
    crash of the parent leaves unfinished is recovered by the next process, as after any crash.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    else:
        threading.Thread(target=_watch_parent, args=(parent,), name="lifeline", daemon=True).start()
    # The parent may have died before the request.
    _end_unless_child_of(parent)


def _watch_parent(parent: int) -> None:
    while True:
        _end_unless_child_of(parent)
        time.sleep(_PARENT_SECONDS)


def _end_unless_child_of(parent: int) -> None:
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def end_at_once(child: subprocess.Popen[bytes]) -> None:
    """Kill a child that is not serving; does nothing if it has ended."""
    if child.stdin is not None:
        with suppress(BrokenPipeError):
            child.stdin.close()
    if child.poll() is None:
        child.kill()
    child.wait()


@dataclass
class WatchedWorker:
    """The background worker: restarted when it has exited, killed and restarted when it has stalled.

    It has stalled when one of its loops has not sent a heartbeat for `stall_seconds`: the process is stopped,
    or hangs.
    """

    start: Callable[[], subprocess.Popen[bytes]]
    beats: Heartbeats
    stall_seconds: float = STALL_SECONDS
    process: subprocess.Popen[bytes] | None = None
    _retry: Retry = field(default_factory=lambda: Retry(due=0.0))
    _checked: float = 0.0
    _started: float = 0.0
    _since: float = 0.0  # silence counts from this time on

    def check(self, now: float) -> None:
        """Replace the worker if necessary. To be called often; `now` is of the monotonic clock."""
        if self.process is not None:
            self._check_process(self.process, now)
        self._checked = now
        if self._retry.is_due(now):
            self._retry.begin(now)
            self.beats.begin(now)
            self._started = self._since = now
            self.process = self.start()

    def _check_process(self, process: subprocess.Popen[bytes], now: float) -> None:
        if process.poll() is not None:
            logs.action(Event.WORKER_EXITED, level="error", status=process.returncode)
            self._replace("ended", now)
            return
        if now - self._checked > _OWN_STALL_SECONDS:
            # This process, or the machine, was suspended: the worker gets its full time again.
            self._since = now
        ages = self.beats.ages(now)
        loops = [loop for loop, age in ages.items() if self._is_silent(age, now)]
        if loops:
            seconds = round(max(ages[loop] for loop in loops), 1)
            logs.action(Event.WORKER_STALLED, level="error", loops=loops, seconds=seconds, killed=True)
            process.kill()
            process.wait()
            self._replace("stalled", now)

    def _is_silent(self, age: float, now: float) -> bool:
        """Return whether the last beat of a loop, `age` ago, is too old; the first beat has more time."""
        has_begun = now - age > self._started + 0.001
        allowed = self.stall_seconds if has_begun else self.stall_seconds + _START_SECONDS
        return min(age, now - self._since) > allowed

    def _replace(self, ending: str, now: float) -> None:
        self.beats.count(ending)
        self.process = None
        self._retry.after_end(now)


@dataclass
class Supervisor:
    """Supervises the children until a signal arrives."""

    signals: Signals
    postgres: Postgres | None
    web: subprocess.Popen[bytes]
    start_web: Callable[[], subprocess.Popen[bytes]]
    worker: WatchedWorker | None
    _web_retry: Retry = field(default_factory=Retry)
    _postgres_retry: Retry = field(default_factory=Retry)

    def watch(self) -> None:
        """Run until a signal arrives. Clients that connect without a web server wait for the next one."""
        while not self.signals.stop:
            now = time.monotonic()
            self._check_web(now)
            if self.worker is not None:
                self.worker.check(now)
            try:
                self._check_postgres(now)
            except Stopped:
                break
            time.sleep(_TICK)

    def stop(self) -> None:
        """Stop the children: requests finish, within GRACEFUL_SECONDS at most; then Postgres is stopped."""
        worker = self.worker.process if self.worker is not None else None
        children = [self.web, *([worker] if worker else [])]
        for child in children:
            child.terminate()
        _end("web", self.web, self.signals, GRACEFUL_SECONDS + _MORE_SECONDS)
        if worker is not None:
            end_worker(worker, self.signals)
        if self.postgres is not None:
            self.postgres.stop()

    def _check_web(self, now: float) -> None:
        if (status := self.web.poll()) is not None and self._web_retry.due is None:
            logs.action(Event.WEB_EXITED, level="error", status=status)
            self._web_retry.after_end(now)
        if self._web_retry.is_due(now):
            self._web_retry.begin(now)
            self.web = self.start_web()

    def _check_postgres(self, now: float) -> None:
        if self.postgres is None:
            return
        if (status := self.postgres.poll()) is not None and self._postgres_retry.due is None:
            logs.action(Event.POSTGRES_EXITED, level="error", status=status)
            self._postgres_retry.after_end(now)
        if self._postgres_retry.is_due(now):
            self._postgres_retry.begin(now)
            try:
                with self.signals.interrupting():
                    self.postgres.start()
            except GitstoreError as error:
                logs.action(Event.POSTGRES_START_FAILED, level="error", reason=error.message)
                self._postgres_retry.after_end(time.monotonic())
            else:
                logs.action(Event.POSTGRES_RESTARTED)


def end_worker(worker: subprocess.Popen[bytes], signals: Signals) -> None:
    """Wait for the end of a worker that was asked to stop; kill it if that takes too long."""
    _end("worker", worker, signals, _WORKER_SECONDS)


def _end(name: str, child: subprocess.Popen[bytes], signals: Signals, seconds: float) -> None:
    deadline, hurried = time.monotonic() + seconds, False
    while child.poll() is None:
        if time.monotonic() > deadline:
            logs.action(Event.CHILD_KILLED, level="error", child=name, after_seconds=seconds)
            child.kill()
            child.wait()
        elif signals.hurry and not hurried:
            hurried = True
            child.send_signal(signal.SIGQUIT)
            deadline = min(deadline, time.monotonic() + _MORE_SECONDS)
        time.sleep(_TICK)
