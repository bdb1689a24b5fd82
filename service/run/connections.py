"""Connections of one serving process: their deadlines, and eviction when there are too many.

A `Connection` wraps uvicorn's protocol and uses only asyncio's public interface. It knows its current wait:
for the head of a request, for a body, for the client to read the answer, or for the application. The first
three have a deadline, so a client that stalls occupies a socket for a limited time, and never a thread.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gitstore.errors import GitstoreError, MalformedError
from service import errors, logs
from service.errors import HttpCode
from service.logs import Event

HEAD_SECONDS: Final = 15.0
"""Seconds from the opening of a connection, or from an answer, to the next complete request head."""
SLOWEST: Final = 1024
"""Minimum average rate, in bytes per second, at which a client sends or reads after a grace period."""
MOST_HEAD: Final = 64 * 1024
"""Bytes of the head of a request."""
MOST_PIPELINED: Final = 100
"""Requests of a connection that wait for the answers to those before them."""
MOST_UNSENT: Final = 128 * 2**20
"""Bytes of answers that a process holds for slow readers."""

_BUFFER: Final = 16 * 1024  # bytes of an answer that asyncio buffers before the sender waits for its client
_SWEEP_SECONDS: Final = 1.0


class Connections:
    """The open connections of a process. Beyond `most`, the one that has waited longest is closed."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[Any, Connection] = {}
        self._waiting: OrderedDict[Connection, None] = OrderedDict()  # longest wait first
        self._unsent = 0
        self._stalled = self._evicted = 0

    def __len__(self) -> int:
        return len(self._open)

    def at(self, address: Any) -> Connection | None:
        """Return the connection of the client at (host, port), or None if it has ended."""
        return self._open.get(tuple(address))

    def opened(self, connection: Connection) -> None:
        self._open[connection.address] = connection
        self.wait(connection)
        if len(self._open) > self._most:
            self._evict(next(iter(self._waiting)))

    def closed(self, connection: Connection) -> None:
        self._open.pop(connection.address, None)
        self._waiting.pop(connection, None)
        self.hold(connection, 0)

    def wait(self, connection: Connection) -> None:
        """Record that the connection waits for its client from now on."""
        self._waiting[connection] = None
        self._waiting.move_to_end(connection)

    def work(self, connection: Connection) -> None:
        """Record that the client waits for the application from now on."""
        self._waiting.pop(connection, None)

    def hold(self, connection: Connection, size: int) -> None:
        """Count `size` bytes as held in memory until the client has read its answer."""
        self._unsent += size - connection.unsent
        connection.unsent = size
        while self._unsent > MOST_UNSENT:
            slowest = next((waiting for waiting in self._waiting if waiting.unsent), connection)
            self._evict(slowest)

    async def watch(self) -> None:
        """Close, once a second, the connections whose deadline has passed; log their number."""
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            now = clock()
            for connection in [waiting for waiting in self._waiting if waiting.deadline < now]:
                self._stalled += 1
                connection.expire()
            if self._stalled or self._evicted:
                logs.action(Event.CONNECTIONS_CLOSED, stalled=self._stalled, evicted=self._evicted or None)
                self._stalled = self._evicted = 0

    def _evict(self, connection: Connection) -> None:
        self._evicted += 1
        self.closed(connection)  # asyncio reports it later
        connection.abort()


class Connection(asyncio.Protocol):
    """One connection. `inner` is the protocol that parses HTTP."""

    def __init__(self, inner: asyncio.Protocol, connections: Connections) -> None:
        self._inner = inner
        self._connections = connections
        self._clock = asyncio.get_running_loop().time
        self._writable = asyncio.Event()
        self._writable.set()
        self._in_request = False
        self._whole = False
        self._receiving = False
        self._lingering = False
        self._head = 0
        self._has_target = False
        self.ended = False
        """Whether the client has closed its sending side. The rest of a body then never arrives."""
        self.reading: asyncio.Timeout | None = None
        """Timeout of the wait for more of a body."""
        self.address: Any = None
        self.deadline = self._clock() + HEAD_SECONDS
        self.unsent = 0
        self.lost = False

    # Callbacks of asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_BUFFER)
        self.address = tuple(transport.get_extra_info("peername", ())[:2])
        self._output = _Output(self._transport, self._close)
        self._inner.connection_made(cast(asyncio.Transport, self._output))
        self._connections.opened(self)

    def data_received(self, data: bytes) -> None:
        if self._lingering:
            return
        if not self._in_request:
            if self._head > MOST_HEAD:
                self._transport.write(refusal(head_too_large(self._has_target)))
                self._linger()
                return
            self._head += len(data)
            self._has_target = self._has_target or b"\n" in data
        self._receiving = True
        self._inner.data_received(data)
        self._receiving = False

    def eof_received(self) -> bool | None:
        """Keep the connection open: a client that has sent everything may still read its answer."""
        self.ended = True
        if self._lingering or not self._in_request:
            return None
        self.interrupt()
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self._writable.set()
        self._connections.closed(self)
        self._inner.connection_lost(error)

    def pause_writing(self) -> None:
        self._writable.clear()
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._writable.set()
        self._inner.resume_writing()

    # Called by the bridge

    def begin(self, seconds: float) -> None:
        """Start a request whose head is complete; its body may take `seconds`, plus time for its size."""
        self._in_request, self._whole = True, False
        self.deadline = self._clock() + seconds

    def received(self, size: int) -> None:
        """Record that `size` bytes of the body have arrived."""
        self.deadline += size / SLOWEST

    def work(self, *, whole: bool) -> None:
        """Stop reading the request: from now on it waits for its turn, and for its answer."""
        self._whole = whole
        self._connections.work(self)

    def cork(self) -> None:
        """Hold what is written until `uncork`, or the end of the request, and send it as one piece.

        uvicorn writes the head and the body of an answer apart, and each is a system call and a packet.
        """
        self._output.cork()

    def uncork(self) -> None:
        self._output.uncork()

    def end(self) -> None:
        """Record that the answer is complete."""
        self.uncork()
        self._in_request, self._has_target, self._head = False, False, 0
        self._allow_for_unread()
        if not self.lost:
            self._connections.wait(self)
            self._connections.hold(self, 0)
            if self.ended:
                asyncio.get_running_loop().call_soon(self._close_unless_in_request)

    async def sent(self, unsent: int) -> None:
        """Wait until the client has read the sent data. `unsent` bytes are held for it until then."""
        if self._writable.is_set():
            return
        self._allow_for_unread()
        self._connections.wait(self)
        self._connections.hold(self, unsent)
        await self._writable.wait()
        self._connections.work(self)

    def expire(self) -> None:
        """Handle a deadline that has passed."""
        if self.reading is not None:
            self.interrupt()
        else:
            self.abort()

    def interrupt(self) -> None:
        """End the wait for more of the body, if any."""
        if self.reading is not None and not self.reading.expired():
            self.reading.reschedule(0)

    def abort(self) -> None:
        self._transport.abort()

    def _allow_for_unread(self) -> None:
        unread = self._transport.get_write_buffer_size()
        self.deadline = self._clock() + HEAD_SECONDS + unread / SLOWEST

    def _close_unless_in_request(self) -> None:
        if not self._in_request:
            self._transport.close()

    def _close(self) -> None:
        """Close the connection; only our side if the client may still be sending (RFC 9112 section 9.6).

        Closed with unread data, it would be reset, and the client might not receive the answer.
        """
        unread = (self._in_request and not self._whole) or self._receiving  # otherwise not HTTP
        if unread and not self.ended:
            self._linger()
        else:
            self._transport.close()

    def _linger(self) -> None:
        self._lingering = True
        self._transport.write_eof()
        self._transport.resume_reading()


class _Output:
    """`transport` with another way of closing, and of writing while it is corked."""

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._transport = transport
        self._close = close
        self._closing = False
        self._held: list[bytes | bytearray | memoryview] | None = None

    def cork(self) -> None:
        self._held = []

    def uncork(self) -> None:
        held, self._held = self._held, None
        if held:
            self.write(b"".join(held))

    def close(self) -> None:
        self.uncork()
        self._closing = True
        self._close()

    def is_closing(self) -> bool:
        return self._closing or self._transport.is_closing()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._held is not None:
            self._held.append(data)
        elif data:
            self._transport.write(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def head_too_large(has_target: bool) -> GitstoreError:
    """Return the error for a head of more than MOST_HEAD bytes; without `has_target`, its URL alone is."""
    what = "head" if has_target else "URL"
    code = HttpCode.HEAD_TOO_LARGE if has_target else HttpCode.URI_TOO_LONG
    return GitstoreError(code, f"the {what} of the request has more than {MOST_HEAD:,} bytes")


def refusal(error: GitstoreError) -> bytes:
    """Return the answer to a request that does not reach the application; the connection closes after it."""
    answer, status = errors.problem(error), errors.STATUS[error.code]
    fields = "".join(f"{name}: {value}\r\n" for name, value in answer.headers.items())
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\n{fields}Connection: close\r\n\r\n"
    return head.encode("latin-1") + answer.get_data()


class Http(HttpToolsProtocol):
    """uvicorn's protocol on llhttp, with a refusal that is problem+json, too, and with stricter rules.

    A request has one Host, and no coding but `chunked`. Trailers are dropped, as they would pass for headers;
    they are bounded, and so are the requests that a client sends before it reads the answers.
    """

    url = b""
    _in_head = True
    _hosts = 0
    _moved = False
    _unmoved = 0  # bytes in a body that were not of its content: trailers, and extensions of chunks
    _is_deaf = False

    def data_received(self, data: bytes) -> None:
        if self._is_deaf:
            return
        self._moved = False
        super().data_received(data)
        in_body = not self._moved and self.cycle is not None and self.cycle.more_body
        self._unmoved = self._unmoved + len(data) if in_body else 0
        if self._unmoved > MOST_HEAD:
            self.send_400_response("")

    # Callbacks of the parser; an exception is a bad request

    def on_message_begin(self) -> None:
        self._in_head, self._hosts, self._moved = True, 0, True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_head:
            return
        if len(name) == len(b"host") and name.lower() == b"host":
            self._hosts += 1
        elif name.lower() == b"transfer-encoding" and value.lower() != b"chunked":
            raise ValueError(value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        least = 0 if self.parser.get_http_version() == "1.0" else 1
        if not least <= self._hosts <= 1 or len(self.pipeline) >= MOST_PIPELINED:
            raise ValueError(self._hosts)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._moved = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._moved = True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - passed by uvicorn
        """Refuse what does not follow HTTP, after the answers to the requests before it."""
        self._is_deaf = True
        last = self.cycle
        if last is not None and not last.response_complete:
            if not last.more_body:
                last.keep_alive = False
                return
            answers = last.response_started or self.pipeline
            last.disconnected = True
            last.message_event.set()
            if answers:
                self.transport.close()
                return
        is_long = len(self.url) > MOST_HEAD  # longer than what the parser of URLs takes
        error = head_too_large(False) if is_long else MalformedError("the request is not valid HTTP")
        self.transport.write(refusal(error))
        self.transport.close()


def wrapped(http: Callable[..., asyncio.Protocol], connections: Connections) -> Callable[..., Connection]:
    """Return a factory of protocols like `http`, each wrapped in a Connection."""
    return lambda **arguments: Connection(http(**arguments), connections)
