"""gunicorn's worker with threads, in which a client that is slow holds up nobody, and a busy one few.

gunicorn gives a thread to a connection from its first byte to the last of the answer: a few clients that send
a byte now and then, or read one, and nobody is served. Here a thread is cheap, and what is scarce is a slot:
so many requests are at work at once. Whoever waits for a client, to send or to read, has none meanwhile. A
client that stalls, or sends less than anybody's line allows, is not waited for any longer.

A connection that is kept alive stays with the process that accepted it. Of eight that come at once, one
process may accept all, and its clients share one core, beside others that idle: so who has more leaves the
next one to who has fewer.
"""

from __future__ import annotations

import gc
import mmap
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from gunicorn.http.unreader import SocketUnreader  # type: ignore[import-untyped]
from gunicorn.workers.gthread import _DEFER, TConn, ThreadWorker  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

HEAD_SECONDS: Final = 15
SLOWEST: Final = 1024
"""Bytes a second that a client has to send, on the average, beyond the wait for one that stalls."""
POLITE: Final = 0.002
"""Seconds for which a process leaves a new connection to one that has fewer."""
CONNECTIONS: Final = 64
"""Connections that a process serves at once: those at work, and those that wait for their clients."""

_MOST_PROCESSES: Final = 256  # with a place of its own in `Loads`
_NOBODY: Final = 0xFFFF


class Slots:
    """`most` requests at work at once, in this process, served in turn. A thread has one slot, or none."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._lock = threading.Lock()
        self._line: deque[threading.Lock] = deque()
        self._mine = threading.local()

    @contextmanager
    def working(self) -> Iterator[None]:
        self._take()
        try:
            yield
        finally:
            self._give()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Let go of this thread's slot, if it has one, until the block ends."""
        if not getattr(self._mine, "held", False):
            yield
            return
        self._give()
        try:
            yield
        finally:
            self._take()

    def _take(self) -> None:
        turn: threading.Lock | None = None
        with self._lock:
            if self._free:
                self._free -= 1
            else:
                turn = threading.Lock()
                turn.acquire()
                self._line.append(turn)
        if turn is not None:
            turn.acquire()  # by whoever gives up a slot: nobody who comes later gets it first
        self._mine.held = True

    def _give(self) -> None:
        self._mine.held = False
        with self._lock:
            if self._line:
                self._line.popleft().release()
            else:
                self._free += 1


class Loads:
    """How many connections each process has, for the others to see; made before they are forked."""

    def __init__(self) -> None:
        self._counts = memoryview(mmap.mmap(-1, 2 * _MOST_PROCESSES)).cast("H")
        for process in range(_MOST_PROCESSES):
            self.leave(process)

    def tell(self, process: int, connections: int) -> None:
        self._counts[process % _MOST_PROCESSES] = min(connections, _NOBODY - 1)

    def leave(self, process: int) -> None:
        """It has ended."""
        self._counts[process % _MOST_PROCESSES] = _NOBODY

    def fewest(self) -> int:
        """The connections of the process that has the fewest."""
        return min(self._counts)


class AtWork:
    """A WSGI application whose calls, and each step of whose answers, take a slot."""

    def __init__(self, inner: WSGIApplication, slots: Slots) -> None:
        self._inner = inner
        self._slots = slots

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        with self._slots.working():
            return _Answer(self._inner(environ, start_response), self._slots)


class _Answer:
    """What is sent between two steps takes no slot."""

    def __init__(self, body: Iterable[bytes], slots: Slots) -> None:
        self._body = body
        self._steps = iter(body)
        self._slots = slots

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        with self._slots.working():
            return next(self._steps)

    def close(self) -> None:
        close = getattr(self._body, "close", None)
        if close is not None:
            close()


class Patience(SocketUnreader):  # type: ignore[misc]
    """Reads what a client sends, without a slot. Of one that takes too long nothing more comes."""

    def __init__(self, sock: socket.socket, slots: Slots) -> None:
        super().__init__(sock)
        self._slots = slots
        self._gone = False
        self.begin()

    def begin(self) -> None:
        """A new request: what the client took for the last one is forgotten."""
        self._waited, self._got = 0.0, 0

    def chunk(self, *size: int | None) -> bytes:
        most = self.sock.gettimeout() or HEAD_SECONDS
        started = time.monotonic()
        data = b""
        with self._slots.waiting():
            try:
                data = b"" if self._gone else super().chunk(*size)
            except (TimeoutError, BlockingIOError):
                self._gone = True
        self._waited += time.monotonic() - started
        self._got += len(data)
        if self._waited > most + self._got / SLOWEST:
            self._gone = True
        return data


class Worker(ThreadWorker):  # type: ignore[misc]
    """Whoever has sent the first byte of a request gets a thread, and whoever has sent a head, a slot."""

    most_at_work = 4
    loads: Loads

    def init_process(self) -> None:
        self.slots = Slots(self.most_at_work)
        super().init_process()

    def load_wsgi(self) -> None:
        super().load_wsgi()
        # What is there now stays: the collector need not look at half a million objects again and again,
        # which takes it tens of milliseconds, in the middle of somebody's request.
        gc.collect()
        gc.freeze()
        self.wsgi: WSGIApplication = AtWork(self.wsgi, self.slots)

    def notify(self) -> None:
        """Between any two events."""
        self.loads.tell(self.age, self.nr_conns)
        super().notify()

    def accept(self, listener: socket.socket) -> None:
        if self.nr_conns > self.loads.fewest():
            time.sleep(POLITE)  # the other was woken by it, too, and has it by then, unless it is busy
        super().accept(listener)

    def handle(self, conn: TConn) -> Any:
        if not conn.initialized and not conn.wait_for_data(0):
            return _DEFER
        # Unlike a timeout of Python's, this outlives gunicorn's setblocking(True).
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", HEAD_SECONDS, 0))
        conn.init()
        if not isinstance(conn.parser.unreader, Patience):
            conn.parser.unreader = Patience(conn.sock, self.slots)
        conn.parser.unreader.begin()
        return super().handle(conn)


def worker(most_at_work: int) -> type[Worker]:
    """The class of workers with so many slots each, as gunicorn asks for a class."""
    return type("Worker", (Worker,), {"most_at_work": most_at_work, "loads": Loads()})
