"""Isolation of risky work in a child process under limits of memory and time.

Outside input may exhaust memory, or hold Python's GIL for hours; in a child process, this ends only the
child. Children are forked by a fork server (fork_server.py).

The kernel enforces the limits of memory and CPU time (setrlimit); the thread that waits for the child
enforces that of elapsed time.
"""

from __future__ import annotations

import atexit
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Final

from gitstore.errors import Code, ConfigError, GitstoreError
from service import logs
from service.config import Config
from service.logs import Event
from service.run.database import opened
from service.run.fork_server import Child, ForkServer
from sync.db import Database
from webhooks.lease_loop import Beat, no_beat

_TICK: Final = 0.5
_PATIENCE: Final = 1.5  # seconds that a child has left when it is asked to stop
_START_SECONDS: Final = 60.0  # beyond the time of a start on a busy machine
_REPORT_SECONDS: Final = 1.0  # between two signs of progress that a child sends
_NO_MEMORY: Final = 77  # exit status of a child that ran out of memory
_LOCK: Final = threading.Lock()
"""Held while a child is started."""


@cache
def fork_server() -> ForkServer:
    """Return the fork server of this process. Call it first in the main thread, before others start."""
    server = ForkServer()
    atexit.register(server.close)
    return server


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one child.

    Bytes of its private memory; seconds, and seconds of CPU time, between two signs of progress (`step`), and
    seconds in all (`whole`).
    """

    memory: int
    step: int
    whole: int


class CrashError(Exception):
    """A child exited, or was killed, before its work was done. The text is the reason, with subject "it"."""


class StopError(Exception):
    """The work was stopped because `stop` was set."""


class Channel:
    """Channel from the work in a child to the process that waits for it."""

    def __init__(self, connection: Connection[Any, Any], limits: Limits) -> None:
        self._connection = connection
        self._limits = limits
        self._next = 0.0

    def alive(self) -> None:
        """Report progress, which restarts the limits of a step. To be called often."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _REPORT_SECONDS
            _limit(resource.RLIMIT_CPU, int(time.process_time()) + self._limits.step)
            self._connection.send(("alive",))

    def send(self, message: object) -> None:
        """Send `message` to `on_message`."""
        self._connection.send(("message", message))

    def end(self, *outcome: str) -> None:
        """Send the outcome of the work, the last message."""
        self._connection.send(outcome)


Work = Callable[..., None]
"""`work(channel, stop, *arguments)`, a module-level function. Raises StopError soon after `stop` is set."""


class Isolation:
    """Runs work in children, one for each call. Safe to share between threads."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._server = fork_server()
        self._starting: float | None = None

    def is_stuck(self) -> bool:
        """Return whether the fork server does not respond."""
        since = self._starting
        return since is not None and time.monotonic() - since > _START_SECONDS

    def run(
        self,
        work: Work,
        *arguments: object,
        stop: threading.Event,
        on_message: Callable[[Any], None],
        beat: Beat = no_beat,
    ) -> None:
        """Run `work` and wait for its end; `beat` is called while waiting.

        `on_message` is called, in this process, with each message of the work. Raises StopError, CrashError,
        and a GitstoreError that the work raised.
        """
        with closing(self._start(work, arguments)) as child:
            self._watch(child, stop, on_message, beat)

    def _start(self, work: Work, arguments: tuple[object, ...]) -> Child:
        with _LOCK:
            self._starting = time.monotonic()
            try:
                return self._server.start(_run, self._limits, work, arguments)
            except (BrokenPipeError, ConnectionResetError, EOFError):
                # The fork server was killed, and a process with threads cannot fork another one: this process
                # stops, and is replaced (supervisor.py).
                os.kill(os.getpid(), signal.SIGTERM)
                raise StopError from None
            finally:
                self._starting = None

    def _watch(
        self,
        child: Child,
        stop: threading.Event,
        on_message: Callable[[Any], None],
        beat: Beat,
    ) -> None:
        started = last_message = time.monotonic()
        stopping: float | None = None
        while True:
            beat()
            ready = wait([child.connection, child.ended], _TICK)
            now = time.monotonic()
            try:
                while child.connection.poll():
                    last_message = now
                    if _handle(child.connection.recv(), on_message):
                        return
            except (EOFError, OSError):
                raise CrashError(self._reason(child)) from None
            if child.ended in ready and not child.connection.poll():
                raise CrashError(self._reason(child))
            if stopping is None and stop.is_set():
                stopping = now
                child.send_signal(signal.SIGTERM)
            if stopping is not None and now - stopping > _PATIENCE:
                raise StopError
            if now - last_message > self._limits.step + _REPORT_SECONDS:
                raise CrashError(f"made no progress for {self._limits.step} seconds")
            if now - started > self._limits.whole:
                raise CrashError(f"took longer than {self._limits.whole} seconds")

    def _reason(self, child: Child) -> str:
        status = child.status(_PATIENCE)
        if status == _NO_MEMORY:
            return f"needed more than {self._limits.memory // 2**20} MiB of memory"
        if status == -signal.SIGXCPU:
            return f"used {self._limits.step} seconds of CPU time without progress"
        if status is None:
            return "ended without an exit status"
        if status < 0:
            return f"was ended by the signal {signal.Signals(-status).name}"
        return f"ended with the status {status}"


def _handle(message: Any, on_message: Callable[[Any], None]) -> bool:
    """Handle a message; return whether it is the last one. Raises the error that ended the work."""
    match message:
        case ("message", content):
            on_message(content)
        case ("done",):
            return True
        case ("stopped",):
            raise StopError
        case ("refused", code, text):
            raise GitstoreError(Code(code), text)
        case ("failed", text):
            raise CrashError(text)
    return False


def _run(connection: Connection[Any, Any], limits: Limits, work: Work, arguments: tuple[object, ...]) -> None:
    stop = threading.Event()
    # Not in the handler: the main thread may hold the lock of the event.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=stop.set).start())
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_DATA, _inherited() + limits.memory)
    channel = Channel(connection, limits)
    channel.alive()
    try:
        work(channel, stop, *arguments)
    except StopError:
        channel.end("stopped")
    except GitstoreError as error:
        channel.end("refused", error.code.value, error.message)
    except MemoryError:
        os._exit(_NO_MEMORY)
    except Exception as error:
        logs.action(Event.CHILD_FAILED, level="error", exc_info=True)
        channel.end("failed", f"failed by an internal error ({type(error).__name__})")
    else:
        channel.end("done")


def _inherited() -> int:
    """Return the bytes of data of this process, which it shares with the fork server so far (proc(5))."""
    return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()


def _limit(resource_: int, size: int) -> None:
    """Set a soft limit; git, which is started below, has limits of its own."""
    hard = resource.getrlimit(resource_)[1]
    resource.setrlimit(resource_, (size if hard == resource.RLIM_INFINITY else min(size, hard), hard))


@contextmanager
def child_database(config: Config) -> Iterator[Database]:
    """Set up the log of a child process, and connect to the worker's database until the block ends."""
    logs.configure(config.log_format, config.log_level)
    if config.database_url is None:
        raise ConfigError("DATABASE_URL is not set: the worker sets it for its child processes")
    with closing(opened(config, config.database_url, "gitstore worker child", most=4)) as database:
        yield database
