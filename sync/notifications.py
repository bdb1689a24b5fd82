"""Notifications of Postgres, received by LISTEN or replaced by polling.

LISTEN requires a backend of its own. A pooler in transaction mode can give each transaction another backend:
a LISTEN through it receives nothing, and remains active in a backend of other clients. The listener therefore
uses DATABASE_DIRECT_URL if it is set, otherwise DATABASE_URL unless that shares backends, and polls where it
cannot listen.

No statement reliably reports the mode of a pooler. If two open connections get the same backend, the pooler
is in transaction mode (`shares_backends`); different backends prove nothing, because a busy pooler may have
others to give. A wrong guess only costs time, since the loops look for due work every ten seconds.
DATABASE_DIRECT_URL is tested: it must receive a notification (`check_direct`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, LiteralString
from uuid import uuid4

import psycopg
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from gitstore.errors import ConfigError
from sync.db import Database, connect
from sync.errors import translated

POLLING_SECONDS: Final = 1.0
"""Interval at which work is looked for where Postgres cannot notify."""

_RETRY_SECONDS: Final = 1.0
_STOP_SECONDS: Final = 0.5  # between checks of the stop event
_HEARD_SECONDS: Final = 5.0
_ATTEMPTS: Final = 3
_BACKEND: Final[LiteralString] = "select pg_backend_pid()"


def listen(
    database: Database,
    channel: LiteralString,
    stop: threading.Event,
    *,
    heard: Callable[[str], None],
    poll: Callable[[], None],
) -> None:
    """Call `heard` with the payload of each notification, or `poll` at intervals, until `stop` is set.

    `poll` is also called when listening begins, because earlier notifications may have been missed.
    """
    while not stop.is_set():
        try:
            if database.direct is None and shares_backends(database.conninfo):
                while not stop.wait(POLLING_SECONDS):
                    poll()
                return
            with connect(database.direct or database.conninfo) as connection:
                connection.execute("listen " + channel)
                poll()
                while not stop.is_set():
                    for notice in connection.notifies(timeout=_STOP_SECONDS, stop_after=1):
                        heard(notice.payload)
        except psycopg.Error:
            # Until then, the loop itself looks for work, and reports the error.
            stop.wait(_RETRY_SECONDS)


def shares_backends(conninfo: str) -> bool:
    """Return whether two open connections to `conninfo` were given the same backend.

    Leaves nothing in any session.
    """
    with connect(conninfo) as one, connect(conninfo) as other:
        for _ in range(_ATTEMPTS):
            before = _backend(one)
            with other.transaction():  # keeps its backend, so that `one` may be given another
                if _backend(other) == before or _backend(one) != before:
                    return True
    return False


def check_direct(conninfo: str, direct: str) -> None:
    """Raise `config` unless notifications that are sent at `conninfo` are received at `direct`."""
    with translated(), connect(conninfo) as sender:
        try:
            with translated(), connect(direct) as receiver:
                received = _receives(receiver, sender)
        except ConfigError as error:
            message = error.message.replace("DATABASE_URL", "DATABASE_DIRECT_URL")
            raise error.reworded(message) from error.__cause__
    if not received:
        raise ConfigError(
            "DATABASE_DIRECT_URL receives no notifications from DATABASE_URL: it must reach the same "
            "database, but not through a pooler in transaction mode. Correct it, or unset it to poll"
        )


def _receives(receiver: Connection[TupleRow], sender: Connection[TupleRow]) -> bool:
    channel = sql.Identifier(f"gitstore_{uuid4().hex}")
    receiver.execute(sql.SQL("listen {}").format(channel))
    sender.execute(sql.SQL("notify {}").format(channel))
    received = any(receiver.notifies(timeout=_HEARD_SECONDS, stop_after=1))
    receiver.execute(sql.SQL("unlisten {}").format(channel))
    return received


def _backend(connection: Connection[TupleRow]) -> int:
    (pid,) = connection.execute(_BACKEND).fetchone() or (0,)
    return int(pid)
