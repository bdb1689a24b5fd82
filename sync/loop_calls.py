"""Calls of functions of Postgres from an event loop, in which no thread waits for the answer.

A process has a few connections for them. Each carries one call at a time, and further calls wait in their
order. A call that fails in any way gives up its connection; its caller then does the work in a thread, by
`Database.call`, whose pool reconnects. libpq's functions for this do not block: those of psycopg.pq, which
are public.
"""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import suppress
from typing import Any, Final, TypeVar

import psycopg
from psycopg import Connection
from psycopg.pq import ConnStatus
from psycopg.pq.abc import PGresult

from gitstore.errors import GitstoreError
from sync.db import Database
from sync.errors import translated, unavailable
from sync.libpq import Call

T = TypeVar("T")

MOST: Final = 4
"""Connections of a process. Fewer keep two cores of Postgres busy."""
_SECONDS: Final = 5.0  # for one call
_PAUSE: Final = 1.0  # seconds without a try to connect after one that failed


class LoopCalls:
    """The connections of one process, for calls from its event loop."""

    def __init__(self, database: Database) -> None:
        """Reserve connections of the database's pool, which must not be open yet."""
        self._database = database
        self._most = database.spare(MOST)
        self._links: set[_Link] = set()
        self._free: list[_Link] = []
        self._opening = 0
        self._retry = 0.0
        self._waiting: deque[asyncio.Future[_Link]] = deque()

    async def call(self, call: Call[T]) -> list[T]:
        """Return the rows of a call. Raises the errors of `Database.call`."""
        link = self._free.pop() if self._free else await self._next()
        try:
            with translated():
                found = call.rows(await link.ask(*self._database.sent(call)))
        except BaseException:
            self._drop(link)
            raise
        self._release(link)
        return found

    def close(self) -> None:
        """Close the connections; calls in progress fail."""
        for link in [*self._links]:
            self._drop(link)

    async def _next(self) -> _Link:
        """Return a new connection, or at the limit the next one that becomes free."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._retry or not self._most:
            raise unavailable()
        if len(self._links) + self._opening < self._most:
            return await self._connect(loop)
        waiter: asyncio.Future[_Link] = loop.create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self._release(waiter.result())
            raise

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> _Link:
        self._opening += 1
        try:
            with translated():
                connection = await loop.run_in_executor(None, self._database.connection)
        except GitstoreError:
            self._retry = loop.time() + _PAUSE
            self._fail_waiting()
            raise
        finally:
            self._opening -= 1
        link = _Link(connection, loop, self._drop)
        self._links.add(link)
        return link

    def _release(self, link: _Link) -> None:
        """Give a connection to the call that has waited longest, or keep it."""
        if link not in self._links:
            return
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(link)
                return
        self._free.append(link)

    def _drop(self, link: _Link) -> None:
        """Close a connection; calls that wait for one fail, as the others have most likely broken, too."""
        if link in self._links:
            self._links.discard(link)
            with suppress(ValueError):
                self._free.remove(link)
            link.close()
            self._fail_waiting()

    def _fail_waiting(self) -> None:
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(unavailable())


class _Link:
    """One connection. If it breaks between two calls, it passes itself to `lost`."""

    def __init__(self, connection: Connection[Any], loop: asyncio.AbstractEventLoop, lost: Any) -> None:
        self._connection = connection
        self._pgconn = connection.pgconn
        self._pgconn.nonblocking = 1
        self._loop = loop
        self._lost = lost
        self._answer: asyncio.Future[PGresult] | None = None
        self._result: PGresult | None = None  # of what was asked last
        self._due = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._socket = self._pgconn.socket
        loop.add_reader(self._socket, self._receive)

    async def ask(self, *arguments: Any) -> PGresult:
        """Execute a statement; return its result. Raises the driver's errors."""
        self._result = None
        self._pgconn.send_query_params(*arguments)
        if self._pgconn.flush():  # a few KB fit into the buffer of a socket that Postgres reads
            raise psycopg.OperationalError("the server does not read")
        answer: asyncio.Future[PGresult] = self._loop.create_future()
        self._answer = answer
        self._due = self._loop.time() + _SECONDS
        if self._timer is None:
            self._timer = self._loop.call_at(self._due, self._check_due)
        try:
            return await answer
        finally:
            self._answer = None

    def _check_due(self) -> None:
        """Fail the call in progress if it is late, or check again when it is: one timer for many calls."""
        self._timer = None
        if self._answer is None:
            return
        if self._loop.time() < self._due:
            self._timer = self._loop.call_at(self._due, self._check_due)
        else:
            self._fail(psycopg.OperationalError("no answer in time"))

    def _receive(self) -> None:
        try:
            self._pgconn.consume_input()
            while not self._pgconn.is_busy():
                result = self._pgconn.get_result()
                if result is None:
                    break
                self._result = result
            else:
                return
            if self._pgconn.status == ConnStatus.BAD:
                raise psycopg.OperationalError("the connection is lost")
        except psycopg.Error as error:
            self._fail(error)
            return
        if self._answer is not None and not self._answer.done() and self._result is not None:
            self._answer.set_result(self._result)

    def _fail(self, error: psycopg.Error) -> None:
        if self._answer is None:
            self._lost(self)
        elif not self._answer.done():
            self._answer.set_exception(error)

    def close(self) -> None:
        self._fail_quietly()
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._socket)
        self._connection.close()

    def _fail_quietly(self) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(psycopg.OperationalError("closed"))
