"""Heavy requests in processes of their own, so that light ones do not wait for the interpreter (GIL).

A serving process forks a fork server before it starts a thread. For each heavy request the fork server forks
a process, which runs the application on the request at a lower priority, within limits of CPU time and
memory, passes the answer back and exits. A request whose process is killed at a limit is answered with 413.

A thread passes two descriptors: a file with the request (its WSGI environment as JSON, then its body) and a
socket for the answer (a head as JSON, then the body in frames).
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import socket
import struct
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn

from flask import Flask, Response

from gitstore import budget
from gitstore.errors import TooLargeError
from service import logs
from service.context import EXTENSION, FACTS, FORKS, Services
from service.fairness import LEASE
from service.middleware import cpu_seconds
from service.run.fork_server import become_child, become_fork_server

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

NICE: Final = 10
MEMORY: Final = 2**30
"""Bytes of private memory that a heavy request may use."""
SECONDS: Final = 120
"""Maximum duration of a heavy request."""

_MORE_CPU: Final = 2  # seconds beyond the budget, whose own error has a message
_KILLED: Final = (
    f"the request exceeded a limit (CPU time of GITSTORE_MAX_CPU, {MEMORY // 2**20} MiB of memory, "
    f"{SECONDS} s): check what was saved, and send less at once"
)
_HEAD: Final = struct.Struct("!I")
_CHUNK: Final = 64 * 1024
_STEP: Final = 2**20  # bytes of a frame, at most


def start(app: Any) -> None:
    """Fork the fork server of this process, which has no thread so far. A test's application has none."""
    if isinstance(app, Flask) and EXTENSION in app.extensions:
        app.extensions[FORKS] = ForkServer(app)


class ForkServer:
    """Client side of the fork server, in the serving process."""

    def __init__(self, app: Flask) -> None:
        self._lock = threading.Lock()
        self._services: Services = app.extensions[EXTENSION]
        self._control, theirs = socket.socketpair()
        parent = os.getpid()
        if os.fork() == 0:
            _serve(app, theirs, parent)
        theirs.close()

    def run(self, environ: WSGIEnvironment) -> Response | None:
        """Return the answer to a request; None if the fork server is gone, or the body cannot be reread.

        Raises `too_large` if the process reached a limit.
        """
        request = _packed(environ)
        if request is None:
            return None
        ours, theirs = socket.socketpair()
        try:
            with theirs, request, self._lock:
                socket.send_fds(self._control, [b"r"], [theirs.fileno(), request.fileno()])
        except OSError:  # it was killed
            ours.close()
            return None
        stream = ours.makefile("rb")
        ours.close()  # the stream keeps it
        try:
            head = json.loads(_frame(stream))
        except EOFError:
            stream.close()
            raise TooLargeError(_KILLED) from None
        for name, arguments, named in head["counted"]:
            getattr(self._services.metrics, name)(*arguments, **named)
        if (spent := budget.spent()) is not None:
            spent.add(head["spent"])
        return Response(_Body(stream), head["status"], [tuple(pair) for pair in head["headers"]])


class _Body:
    """Frames of an answer, up to an empty one."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        while frame := _frame(self._stream):
            yield frame

    def close(self) -> None:
        self._stream.close()


def _packed(environ: WSGIEnvironment) -> IO[bytes] | None:
    """Return the request as a file; None if its body cannot be read from its beginning."""
    body = environ["wsgi.input"]
    length = int(environ.get("CONTENT_LENGTH") or 0)
    if length:
        try:
            body.seek(0)
        except (AttributeError, OSError):
            return None
    kept = {name: value for name, value in environ.items() if isinstance(value, str | int | bool)}
    head = json.dumps({"environ": kept, "facts": environ.get(FACTS, {})}).encode()
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the caller
    file.write(_HEAD.pack(len(head)) + head)
    while length > 0 and (part := body.read(min(length, _CHUNK))):
        file.write(part)
        length -= len(part)
    if environ.get("CONTENT_LENGTH"):
        body.seek(0)  # for the view of this process, where no other one takes the request
    file.seek(0)
    return file


def _frame(stream: IO[bytes]) -> bytes:
    """Return the next frame; raises EOFError if it is incomplete."""
    size = stream.read(_HEAD.size)
    if len(size) == _HEAD.size:
        frame = stream.read(*_HEAD.unpack(size))
        if len(frame) == _HEAD.unpack(size)[0]:
            return frame
    raise EOFError


# In the fork server, and in the processes that it forks


def _serve(app: Flask, control: socket.socket, parent: int) -> NoReturn:
    """Fork a process for each request, until the serving process ends."""
    try:
        become_fork_server(control, parent)  # closes above all the listening socket
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        while True:
            message, descriptors, _, _ = socket.recv_fds(control, 1, 2)
            if not message:
                break
            pid = os.getpid()
            if os.fork() == 0:
                control.close()
                _work(app, pid, *descriptors)
            for descriptor in descriptors:
                os.close(descriptor)
    except BaseException:
        traceback.print_exc()
    os._exit(0)


def _work(app: Flask, parent: int, answer: int, request: int) -> NoReturn:
    try:
        become_child(parent)
        with os.fdopen(request, "rb") as file, socket.socket(fileno=answer) as connection:
            _answer(app, file, connection)
    except BrokenPipeError:
        pass  # the client has disconnected
    except BaseException:
        traceback.print_exc()
    os._exit(0)


def _answer(app: Flask, file: IO[bytes], connection: socket.socket) -> None:
    request = json.loads(_frame(file))
    environ: WSGIEnvironment = {**request["environ"], FACTS: request["facts"], LEASE: None}
    environ |= {"wsgi.input": file, "wsgi.errors": sys.stderr, "wsgi.input_terminated": True}
    gc.set_threshold(50_000, 20, 100)  # the process is short-lived, and its memory is limited
    services: Services = app.extensions[EXTENSION]
    counts = _Counts()
    app.extensions[EXTENSION] = replace(services, metrics=counts)  # type: ignore[arg-type]
    cpu = cpu_seconds(environ, services.config.limits.cpu)
    _limit(cpu + _MORE_CPU)
    head: dict[str, Any] = {}

    def start_response(line: str, headers: list[tuple[str, str]], *_rest: Any) -> Callable[[bytes], object]:
        head.update(status=line, headers=headers)
        return lambda _part: None

    about = logs.about(request_id=request["facts"].get("request_id"))
    with about, budget.limited(cpu), budget.measured() as spent:
        inner: WSGIApplication = type(app).wsgi_app.__get__(app)
        parts = inner(environ, start_response)
        _send(connection, json.dumps({**head, "counted": counts.calls, "spent": spent.seconds}).encode())
        for part in parts:
            for begin in range(0, len(part), _STEP):
                _send(connection, part[begin : begin + _STEP])
        getattr(parts, "close", lambda: None)()
        _send(connection, b"")


def _limit(cpu: float) -> None:
    os.nice(NICE)
    signal.alarm(SECONDS)
    for limit, value in ((resource.RLIMIT_CPU, int(cpu)), (resource.RLIMIT_DATA, MEMORY)):
        _, hard = resource.getrlimit(limit)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (most, hard))


def _send(connection: socket.socket, frame: bytes) -> None:
    connection.sendall(_HEAD.pack(len(frame)) + frame)


class _Counts:
    """Stand-in for the metrics: the serving process counts these events."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *arguments, **named: self.calls.append((name, arguments, named))
