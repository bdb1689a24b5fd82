"""Children of a process with threads, forked on request by a small process without threads: a fork server.

A child that a thread forks inherits the locks that other threads hold. The fork server is itself forked, with
all modules loaded, before its process starts a thread: a child takes about 10 ms, whereas a new interpreter
takes a second, and the pages of the modules are shared.

A request has two descriptors: of a connection, over which the child gets its work (so that secrets are in no
command line), and of a pipe, into which the fork server writes the child's pid and, later, its exit status.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any, Final, NoReturn

from service.run.supervisor import die_with_parent

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_MOST_DESCRIPTORS: Final = 2**16


@dataclass(frozen=True, slots=True)
class Child:
    """A child, the connection to it, and the pipe that has its exit status as soon as it has ended."""

    pid: int
    connection: Connection[Any, Any]
    ended: Connection[Any, Any]

    def status(self, seconds: float) -> int | None:
        """Return the exit status, negative for a signal; None if it has not ended after `seconds`."""
        with suppress(EOFError):  # the fork server was killed
            if self.ended.poll(seconds):
                status: int = self.ended.recv()
                return status
        return None

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            if not self.ended.poll():
                os.kill(self.pid, number)

    def close(self) -> None:
        """Kill the child if it has not ended."""
        self.send_signal(signal.SIGKILL)
        self.connection.close()
        self.ended.close()


class ForkServer:
    """Fork server, forked here: by the main thread, with which it ends, and before there are others."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair()
        parent = os.getpid()
        # The collectors of forked processes do not scan what exists now, so that its pages stay shared.
        gc.collect()
        gc.freeze()
        self.pid = os.fork()
        if self.pid == 0:
            _serve(theirs, parent)
        theirs.close()

    def start(self, run: Callable[..., None], *arguments: object) -> Child:
        """Start a child that calls `run(connection, *arguments)`. Not safe to share between threads.

        Raises BrokenPipeError, ConnectionResetError or EOFError if the fork server was killed.
        """
        ours, theirs = Pipe()
        ended, ending = Pipe(duplex=False)
        try:
            with theirs, ending:
                socket.send_fds(self._control, [b"f"], [theirs.fileno(), ending.fileno()])
            child = Child(ended.recv(), ours, ended)
            with suppress(BrokenPipeError):  # it was killed
                ours.send((run, arguments))
        except BaseException:
            ours.close()
            ended.close()
            raise
        return child

    def close(self) -> None:
        """End the fork server and its children."""
        self._control.close()


# In the fork server, and in the processes that it forks


def become_fork_server(control: socket.socket, parent: int) -> None:
    """End with `parent`, ignore signals to stop, and close every inherited descriptor but `control`'s."""
    die_with_parent(parent)
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    os.closerange(3, control.fileno())
    most = min(resource.getrlimit(resource.RLIMIT_NOFILE)[0], _MOST_DESCRIPTORS)
    os.closerange(control.fileno() + 1, most)
    # Those of a test are files with descriptors of their own.
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__


def become_child(parent: int) -> None:
    """End with `parent`, a fork server, and obey signals again."""
    die_with_parent(parent)
    for number in (*_SIGNALS, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)


def _serve(control: socket.socket, parent: int) -> NoReturn:
    """Fork a child for each request, and report its end, until the process of the requests ends."""
    try:
        become_fork_server(control, parent)
        running: dict[Connection[Any, Any], tuple[int, Connection[Any, Any]]] = {}
        while True:
            for ready in wait([control, *running]):
                if isinstance(ready, Connection):
                    pid, ending = running.pop(ready)
                    ready.close()
                    _, status = os.waitpid(pid, 0)
                    with ending, suppress(BrokenPipeError):  # not awaited any more
                        ending.send(os.waitstatus_to_exitcode(status))
                else:
                    message, descriptors, _, _ = socket.recv_fds(control, 1, 2)
                    if not message:
                        os._exit(0)
                    alive, pid, ending = _forked(control, *descriptors)
                    running[alive] = pid, ending
    except BaseException:
        traceback.print_exc()
    os._exit(1)


def _forked(
    control: socket.socket, work: int, ending: int
) -> tuple[Connection[Any, Any], int, Connection[Any, Any]]:
    """Return a pipe that is readable once the child has ended, its pid, and where its end is reported."""
    alive, held = Pipe(duplex=False)
    report: Connection[Any, Any] = Connection(ending, readable=False)
    connection: Connection[Any, Any] = Connection(work)
    parent = os.getpid()
    with connection, held:
        pid = os.fork()
        if pid == 0:
            control.close()
            _run(connection, parent)
    with suppress(BrokenPipeError):
        report.send(pid)
    return alive, pid, report


def _run(connection: Connection[Any, Any], parent: int) -> NoReturn:
    try:
        become_child(parent)
        run, arguments = connection.recv()
        run(connection, *arguments)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
