"""ASGI application around the WSGI application: waiting for clients happens here, and occupies no thread.

A request is read whole, then waits for one of a few threads, in order of arrival. The answer is produced step
by step in these threads, and sent in between, as fast as its client reads. A body of more than `FREE` bytes
is read only with the permission of `Admit`; without it, the application gets the head alone.
"""

from __future__ import annotations

import asyncio
import io
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from dataclasses import dataclass
from functools import cached_property
from typing import IO, TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import unquote_to_bytes, urlsplit

from flask import Response

from gitstore.errors import GitstoreError, MalformedError, TooLargeError
from service import errors
from service.fairness import DISCONNECTED
from service.middleware import Shortcut
from service.run.connections import MOST_HEAD, Connection, Connections, head_too_large

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

T = TypeVar("T")
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

FREE: Final = 64 * 1024
"""Bytes of a body that are read from any client."""

_IN_MEMORY: Final = 512 * 1024  # bytes of a body; a larger one is spooled to a file
_STEP: Final = 64 * 1024  # bytes of an answer
_CLOSE: Final = (b"connection", b"close")
_STREAM: Final = 4 * 2**20  # size assumed for an answer of unknown length while it is sent: it has a process


@dataclass(frozen=True, slots=True)
class Allowance:
    """Bytes of a body to keep, and further bytes to read and discard. None: use the head alone."""

    keep: int
    discard: int = 0


Admit = Callable[["WSGIEnvironment"], Allowance | None]
"""Decides on a body of more than FREE bytes from the head of its request. Called in a thread."""


class Bridge:
    """Serves the WSGI application `app` with `threads` threads. `seconds` is the grace period of a body.

    `shortcut` answers some requests in the event loop, without a thread.
    """

    def __init__(
        self,
        app: WSGIApplication,
        admit: Admit,
        connections: Connections,
        threads: int,
        seconds: Callable[[str], float],
        shortcut: Shortcut | None = None,
    ) -> None:
        self._app = app
        self._shortcut = shortcut
        self._admit = admit
        self._connections = connections
        self._seconds = seconds
        self._threads = ThreadPoolExecutor(threads, "request")

    async def __call__(self, scope: Mapping[str, Any], receive: Receive, send: Send) -> None:
        connection = self._connections.at(scope["client"])
        if connection is None:
            return  # it has ended
        environ = environ_of(scope)
        environ[DISCONNECTED] = lambda: connection.lost or connection.ended
        connection.begin(self._seconds(environ["PATH_INFO"]))
        body = _Body(connection, receive)
        try:
            refusal = await self._read(scope, environ, body)
            if refusal is None:
                connection.work(whole=body.whole)
                if not (body.whole and await self._answered_here(environ, connection, send)):
                    await self._answer(environ, connection, send, close=not body.whole)
            else:
                await _refuse(send, refusal)
        finally:
            connection.end()
            body.close()

    async def _read(self, scope: Mapping[str, Any], environ: WSGIEnvironment, body: _Body) -> Response | None:
        """Read the body into `environ`. Return an answer if the application is not to be called."""
        has_target = len(scope["raw_path"]) + len(scope["query_string"]) <= MOST_HEAD
        if not has_target or sum(len(name) + len(value) + 4 for name, value in scope["headers"]) > MOST_HEAD:
            return errors.problem(head_too_large(has_target))
        try:
            await self._read_body(environ, body)
        except GitstoreError as error:
            return errors.problem(error)
        except OSError as error:  # the file of the body
            return errors.problem(errors.of_unexpected(error))
        return None

    async def _read_body(self, environ: WSGIEnvironment, body: _Body) -> None:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        chunked = environ.pop("HTTP_TRANSFER_ENCODING", None) is not None
        if not length and not chunked:
            environ["wsgi.input"] = io.BytesIO()
            body.whole = True
            return
        environ["wsgi.input"] = body.file
        allowance: Allowance | None = Allowance(FREE)
        if length > FREE or (chunked and not await body.fits(FREE)):
            allowance = await self._run(Context(), lambda: self._admit(environ))
        if allowance is None or length > allowance.keep + allowance.discard:
            environ["wsgi.input"] = _Refused()
            return
        await body.read(allowance)
        if chunked and body.whole:
            environ["CONTENT_LENGTH"] = str(body.size)
        body.file.seek(0)

    async def _answered_here(self, environ: WSGIEnvironment, connection: Connection, send: Send) -> bool:
        """Send the answer that the shortcut makes without a thread; return False if it makes none."""
        answering = self._shortcut(environ) if self._shortcut is not None else None
        answer = await answering if answering is not None else None
        if answer is None:
            return False
        connection.cork()
        try:
            await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
            await _send_part(answer.body, connection, send, last=True)
        finally:
            answer.finish()
        return True

    async def _answer(
        self, environ: WSGIEnvironment, connection: Connection, send: Send, *, close: bool
    ) -> None:
        answer, context = _Answer(self._app, environ), Context()
        part, last = await self._run(context, answer.start)
        headers = [*answer.headers, _CLOSE] if close else answer.headers
        connection.cork()
        try:
            await send({"type": "http.response.start", "status": answer.status, "headers": headers})
            while not connection.lost:
                await _send_part(part, connection, send, last=last)
                if last:
                    return
                part, last = await self._run(context, answer.step)
        finally:
            if not answer.closed:
                await self._run(context, answer.close)

    def _run(self, context: Context, work: Callable[[], T]) -> Awaitable[T]:
        """Run `work` in a thread, in turn. All steps of a request share a context, as in one thread."""
        return asyncio.get_running_loop().run_in_executor(self._threads, context.run, work)


async def _send_part(part: bytes, connection: Connection, send: Send, *, last: bool) -> None:
    for start in range(0, max(len(part), 1), _STEP):
        end = start + _STEP
        more = not last or end < len(part)
        piece = part[start:end] if len(part) > _STEP else part
        await send({"type": "http.response.body", "body": piece, "more_body": more})
        connection.uncork()
        if more:
            await connection.sent(len(part) if last else _STREAM)
            if connection.lost:
                return


async def _refuse(send: Send, answer: Response) -> None:
    headers = [(name.lower().encode(), value.encode()) for name, value in answer.headers.items()]
    await send({"type": "http.response.start", "status": answer.status_code, "headers": [*headers, _CLOSE]})
    await send({"type": "http.response.body", "body": answer.get_data()})


class _Body:
    """Body of a request, as it arrives."""

    def __init__(self, connection: Connection, receive: Receive) -> None:
        self._connection = connection
        self._receive = receive
        self.size = 0
        self.whole = False

    @cached_property
    def file(self) -> IO[bytes]:
        return tempfile.SpooledTemporaryFile(_IN_MEMORY)  # closed by the bridge

    async def fits(self, size: int) -> bool:
        """Read until more than `size` bytes have arrived, or the end. Return whether the end was reached."""
        await self.read(Allowance(size), keep_all=True)
        return self.whole

    async def read(self, allowance: Allowance, *, keep_all: bool = False) -> None:
        """Read to the end, or beyond the limit. Raises `malformed` if the body stalls or is cut short."""
        while not self.whole and self.size <= allowance.keep + allowance.discard:
            message = await self._next()
            data = message["body"]
            self._connection.received(len(data))
            self.file.write(data if keep_all else data[: max(allowance.keep + 1 - self.size, 0)])
            self.size += len(data)
            self.whole = not message["more_body"]

    async def _next(self) -> Message:
        connection = self._connection
        try:
            async with asyncio.timeout(0 if connection.ended else None) as connection.reading:
                message = await self._receive()
        except TimeoutError:
            how = "ended" if connection.ended else "was not sent in time: it ended"
            raise MalformedError(f"the body {how} after {self.size:,} bytes") from None
        finally:
            connection.reading = None
        if message["type"] == "http.disconnect":
            raise MalformedError(f"the connection ended after {self.size:,} bytes")
        return message

    def close(self) -> None:
        if "file" in self.__dict__:
            self.file.close()


class _Refused(io.RawIOBase):
    """Input stream in place of a body that is not admitted."""

    def readable(self) -> bool:
        return True

    def readinto(self, _buffer: Any) -> int:
        raise TooLargeError("the body is larger than what is accepted without a credential")


class _Answer:
    """Answer of a WSGI application (PEP 3333), produced step by step. Each step may run in another thread."""

    def __init__(self, app: WSGIApplication, environ: WSGIEnvironment) -> None:
        self._app = app
        self._environ = environ
        self._body: Any = ()
        self._parts: Iterator[bytes] = iter(())
        self._written: list[bytes] = []
        self._length: int | None = None
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.closed = False

    def start(self) -> tuple[bytes, bool]:
        """Return the status and the headers, and the first part of the body as `step` returns it."""
        self._body = self._app(self._environ, self._start_response)
        self._parts = iter(self._body)
        return self.step()

    def step(self) -> tuple[bytes, bool]:
        """Return the next part of the body, and whether it is the last."""
        parts = self._written
        try:
            for part in self._parts:
                parts.append(part)
                # Each part of an answer without a length is sent at once: git reports its progress.
                if self._length is None or sum(map(len, parts)) >= _STEP:
                    break
            else:
                self.close()
        except BaseException:
            self.close()
            raise
        self._written = []
        return b"".join(parts), self.closed

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            close = getattr(self._body, "close", None)
            if close is not None:
                close()

    def _start_response(
        self, line: str, headers: list[tuple[str, str]], _error: object = None, /
    ) -> Callable[[bytes], object]:
        self.status = int(line[:3])
        self.headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        lengths = [value for name, value in self.headers if name == b"content-length"]
        self._length = int(lengths[0]) if lengths else None
        return self._written.append


def environ_of(scope: Mapping[str, Any]) -> WSGIEnvironment:
    """Return the WSGI environment (PEP 3333) of an ASGI scope."""
    target: bytes = scope["raw_path"]
    if not target.startswith(b"/") and b"://" in target:  # as to a proxy: RFC 9112 section 3.2.2
        target = urlsplit(target).path or b"/"
    host, port = scope["server"]
    environ: WSGIEnvironment = {
        "REQUEST_METHOD": scope["method"],
        "SCRIPT_NAME": "",
        "PATH_INFO": unquote_to_bytes(target).decode("latin-1"),
        "QUERY_STRING": scope["query_string"].decode("latin-1"),
        "SERVER_NAME": host,
        "SERVER_PORT": str(port),
        "SERVER_PROTOCOL": f"HTTP/{scope['http_version']}",
        "REMOTE_ADDR": scope["client"][0],
        "REMOTE_PORT": str(scope["client"][1]),
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": "http",
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
    }
    for name, value in scope["headers"]:
        if b"_" in name:
            continue  # would collide with another header's name
        key = name.decode("latin-1").upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = f"HTTP_{key}"
        text = value.decode("latin-1")
        separator = "; " if key == "HTTP_COOKIE" else ","
        environ[key] = f"{environ[key]}{separator}{text}" if key in environ else text
    return environ
