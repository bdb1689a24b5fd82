"""Clients that cost little: raw requests made beforehand, sent over kept connections by one pinned process.

An operation is one or more requests that follow each other; a client does one operation after the other. All
clients of a job share a thread, and the process runs on the last core alone, so that they take at most that.
"""

from __future__ import annotations

import multiprocessing
import os
import selectors
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle
from typing import Final

_TIMEOUT: Final = 120.0
_CHUNK: Final = 2**18
_END: Final = b"\r\n\r\n"

Operation = Sequence[bytes]


@dataclass(frozen=True)
class Job:
    """What the `clients` of a server on loopback send: each its operations, or these in turn for `seconds`.

    The last answer of each operation must contain `expected`. With `reconnect`, each operation has a
    connection of its own, as a git command has.
    """

    port: int
    clients: Sequence[Sequence[Operation]]
    seconds: float | None = None
    expected: bytes = b""
    reconnect: bool = False


@dataclass
class Taken:
    """The seconds of each request, operation by operation, and of the whole job."""

    operations: list[tuple[float, ...]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Operations a second."""
        return len(self.operations) / self.seconds

    def last(self) -> list[float]:
        """The milliseconds of each operation's last request."""
        return [1000 * times[-1] for times in self.operations]

    def whole(self) -> list[float]:
        """The milliseconds of each operation."""
        return [1000 * sum(times) for times in self.operations]


def request(
    method: str,
    path: str,
    authorization: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: {authorization}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


class Clients:
    """The process of the clients."""

    def __init__(self) -> None:
        self._pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _pin)

    def run(self, job: Job) -> Taken:
        return self._pool.submit(_run, job).result()

    def close(self) -> None:
        self._pool.shutdown()


def _pin() -> None:
    with suppress(AttributeError, OSError):  # not Linux
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def _run(job: Job) -> Taken:
    taken = Taken()
    begun = time.perf_counter()
    deadline = begun + job.seconds if job.seconds is not None else None
    with selectors.DefaultSelector() as selector:
        clients = [_Client(job, operations, selector) for operations in job.clients]
        working = sum(client.begin() for client in clients)
        while working:
            ready = selector.select(_TIMEOUT)
            assert ready, f"no answer in {_TIMEOUT:g} s"
            for key, _ in ready:
                client: _Client = key.data
                if (times := client.receive()) is None:
                    continue
                taken.operations.append(times)
                over = deadline is not None and time.perf_counter() > deadline
                if over or not client.begin():
                    client.close()
                    working -= 1
    taken.seconds = time.perf_counter() - begun
    return taken


class _Client:
    def __init__(self, job: Job, operations: Sequence[Operation], selector: selectors.BaseSelector) -> None:
        self._job, self._selector = job, selector
        self._operations = iter(operations if job.seconds is None else cycle(operations))
        self._rest: Iterator[bytes] = iter(())
        self._socket: socket.socket | None = None
        self._buffer = bytearray()
        self._times: tuple[float, ...] = ()
        self._sent = 0.0
        self._until = 0  # where the answer ends in the buffer; 0: not known yet, -1: with its last chunk

    def begin(self) -> bool:
        """Send the first request of the next operation; return False after the last one."""
        operation = next(self._operations, None)
        if operation is None:
            return False
        self._rest, self._times = iter(operation), ()
        if self._job.reconnect:
            self.close()
        self._send(next(self._rest))
        return True

    def _send(self, content: bytes) -> None:
        self._buffer.clear()
        self._until = 0
        self._sent = time.perf_counter()
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._job.port), _TIMEOUT)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(self._socket, selectors.EVENT_READ, self)
        self._socket.sendall(content)

    def receive(self) -> tuple[float, ...] | None:
        """Read what there is; return the times of the operation if that completes it."""
        assert self._socket is not None
        received = self._socket.recv(_CHUNK)
        self._buffer += received
        assert received, f"the connection was closed: {bytes(self._buffer[:500])!r}"
        if not self._is_whole():
            return None
        self._times += (time.perf_counter() - self._sent,)
        status = int(self._buffer[9:12])
        assert status < 300 or status == 304, bytes(self._buffer[:1500])
        if (following := next(self._rest, None)) is not None:
            self._send(following)
            return None
        assert self._job.expected in self._buffer, bytes(self._buffer[:1500])
        return self._times

    def _is_whole(self) -> bool:
        if self._until == 0:
            head = self._buffer.find(_END)
            if head < 0:
                return False
            lines = bytes(self._buffer[:head]).lower().split(b"\r\n")
            fields = dict(line.partition(b": ")[::2] for line in lines[1:])
            chunked = fields.get(b"transfer-encoding") == b"chunked"
            length = int(fields.get(b"content-length", 0)) if b" 304" not in lines[0] else 0
            self._until = -1 if chunked else head + len(_END) + length
        if self._until < 0:
            return self._buffer.endswith(b"0" + _END)
        return len(self._buffer) >= self._until

    def close(self) -> None:
        if self._socket is not None:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None
