"""Web server process, a child of `gitstore serve`, and the processes that it forks.

    python -m service.run.web <pid of serve> <fd of the listening socket>

The settings are passed in its environment. The application is loaded and built here, once, and the forked
processes share its memory; each serves the same socket with uvicorn. Loading takes as long as Postgres needs
to start: `serve` writes the database's URL to stdin, as a line of JSON, when Postgres is ready.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import json
import logging
import mmap
import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import uvicorn

from service import assets, fairness, logs
from service.config import Config
from service.logs import Event
from service.metrics import forget_process
from service.middleware import SHORTCUT, Shortcut
from service.run import admission, forking
from service.run.bridge import Admit, Bridge
from service.run.connections import HEAD_SECONDS, Connections, Http, wrapped
from service.run.listener_socket import connections
from service.run.supervisor import GRACEFUL_SECONDS, Retry, die_with_parent

HANGS_SECONDS: Final = 60.0
"""Seconds after which a process without a sign of life is killed."""
_TICK: Final = 0.05
_NOT_STARTED: Final = 3  # exit status of a process that could not begin to serve

MakeApp = Callable[[Config], Any]
"""Builds the WSGI application, which opens no connection and starts no thread before its first request."""


@dataclass
class _Process:
    """One slot among the serving processes, and the process in it."""

    number: int
    pid: int | None = None
    retry: Retry = field(default_factory=lambda: Retry(due=0.0))


class Web:
    """Parent of the processes that serve: starts them, replaces those that end, stops them."""

    def __init__(self, config: Config, descriptor: int, make_app: MakeApp) -> None:
        self._config = config
        self._descriptor = descriptor
        self._make_app = make_app
        self._app: Any = None
        self._processes = [_Process(number) for number in range(config.workers)]
        self._alive = memoryview(mmap.mmap(-1, 8 * config.workers)).cast("d")
        self._stopping = False
        self._status = 0

    def run(self) -> int:
        """Build the application; serve until SIGTERM, SIGINT or a failed start; return the exit status."""
        self._app = self._make_app(self._config)
        # The collectors of forked processes do not scan what exists now, so that its pages stay shared.
        gc.collect()
        gc.freeze()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self._stop)
        while not self._stopping or any(process.pid for process in self._processes):
            for process in self._processes:
                self._check(process)
            time.sleep(_TICK)
        return self._status

    def _stop(self, number: int, _frame: object) -> None:
        if not self._stopping:
            self._stopping = True
            # Nothing listens once the last serving process has closed its own copy.
            os.close(self._descriptor)
        for process in self._processes:
            if process.pid is not None:
                with suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGKILL if number == signal.SIGQUIT else signal.SIGTERM)

    def _check(self, process: _Process) -> None:
        now = time.monotonic()
        if process.pid is not None:
            ended, status = os.waitpid(process.pid, os.WNOHANG)
            if ended:
                self._ended(process, os.waitstatus_to_exitcode(status), now)
            elif now - self._alive[process.number] > HANGS_SECONDS:
                logs.action(Event.WEB_PROCESS_HUNG, level="error", pid=process.pid, killed=True)
                os.kill(process.pid, signal.SIGKILL)
        elif not self._stopping and process.retry.is_due(now):
            self._start(process, now)

    def _start(self, process: _Process, now: float) -> None:
        process.retry.begin(now)
        self._beat(process.number)
        parent = os.getpid()
        # A signal between fork and the next line would be lost.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
        try:
            process.pid = os.fork() or None
            if process.pid is None:
                self._serve(parent, process.number)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))

    def _ended(self, process: _Process, status: int, now: float) -> None:
        forget_process(self._config.metrics_folder, process.pid or 0)
        if not self._stopping:
            logs.action(Event.WEB_PROCESS_EXITED, level="error", pid=process.pid, status=status)
        process.pid = None
        process.retry.after_end(now)
        if status == _NOT_STARTED and not self._stopping:
            self._status = status
            self._stop(signal.SIGTERM, None)

    def _serve(self, parent: int, number: int) -> None:
        """Run a forked process. Never returns."""
        try:
            for numbered in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
                signal.signal(numbered, signal.SIG_DFL)
            die_with_parent(parent)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
            app = self._app
            forking.start(app)
            threads = self._config.threads + fairness.QUEUED  # requests in the queue take one each
            server = Server(app, admission.admission_for(app), threads=threads, most=connections())
            asyncio.run(server.serve(self._descriptor, partial(self._beat, number)))
        except BaseException:
            traceback.print_exc()
            os._exit(_NOT_STARTED)
        os._exit(0)

    def _beat(self, number: int) -> None:
        self._alive[number] = time.monotonic()


class _Listener(socket.socket):
    """Socket that is already listening: the length of its backlog is kept."""

    def listen(self, backlog: int = 0) -> None: ...


class Server:
    """uvicorn, configured by arguments only, in front of the WSGI application `app`."""

    def __init__(self, app: Any, admit: Admit, *, threads: int, most: int) -> None:
        self._connections = Connections(most)
        shortcut: Shortcut | None = getattr(app, "extensions", {}).get(SHORTCUT)
        bridge = Bridge(app, admit, self._connections, threads, admission.seconds, shortcut)
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                bridge,
                http=wrapped(Http, self._connections),  # type: ignore[arg-type]
                ws="none",
                lifespan="off",
                loop="asyncio",
                interface="asgi3",
                backlog=1,  # connections accepted at a time, so that another process gets its share
                timeout_keep_alive=int(2 * HEAD_SECONDS),
                timeout_graceful_shutdown=GRACEFUL_SECONDS,
                log_config=None,
                log_level=logging.ERROR,
                access_log=False,
                server_header=False,
                proxy_headers=False,
            )
        )

    async def serve(self, descriptor: int, beat: Callable[[], None]) -> None:
        """Serve the listening socket `descriptor` until SIGTERM or `stop`. `beat` is called every second."""
        tasks = [asyncio.create_task(work) for work in (self._connections.watch(), _every_second(beat))]
        await self._uvicorn.serve([_Listener(fileno=descriptor)])
        for task in tasks:
            task.cancel()

    def stop(self) -> None:
        """Finish the requests in flight, then end."""
        self._uvicorn.should_exit = True


async def _every_second(beat: Callable[[], None]) -> None:
    while True:
        beat()
        await asyncio.sleep(1)


def main(arguments: Sequence[str], make_app: str = "service.app:create_app") -> None:
    """Serve until SIGTERM. `make_app` is the path of the application factory, as module:name."""
    parent, descriptor = (int(argument) for argument in arguments)
    die_with_parent(parent)
    module, _, name = make_app.partition(":")
    maker: MakeApp = getattr(importlib.import_module(module), name)
    line = sys.stdin.readline()
    if not line:
        return  # serve closed the pipe: it ended before Postgres was ready
    config = Config.from_env(overrides={"DATABASE_URL": json.loads(line)})
    logs.configure(config.log_format, config.log_level)
    if not (config.read_only or assets.are_built()):
        hint = f"{assets.HOW_TO_BUILD}, with access to npm"
        logs.action(Event.EDITOR_NOT_BUILT, level="warning", hint=hint)
    # Without the interpreter's teardown, which takes longer than the rest of the stop.
    os._exit(Web(config, descriptor, maker).run())


if __name__ == "__main__":
    main(sys.argv[1:])
