"""Connections to Postgres: a pool, and transactions that each run under a role.

Only upkeep runs as the user of DATABASE_URL. A request runs as `gitstore_user` with the claims of its
principal, so that row-level security decides which rows it sees; the mirror runs as `gitstore_mirror`. The
claims have the form of PostgREST's (https://docs.postgrest.org/en/stable/references/transactions.html).

Nothing is kept in the session, so that a pooler in transaction mode may give each transaction another
backend: role, claims and settings are set for the transaction alone (`set local`), in the round trip that
begins it; locks are those of the transaction; no statement is prepared.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, LiteralString, TypeVar

import psycopg
from psycopg import ClientCursor, Connection, Cursor
from psycopg.abc import Buffer
from psycopg.adapt import Loader
from psycopg.conninfo import make_conninfo
from psycopg.pq import Format
from psycopg.rows import RowFactory, TupleRow, class_row, tuple_row
from psycopg_pool import ConnectionPool, PoolTimeout

from gitstore.budget import spending
from gitstore.errors import BusyError, Code, GitstoreError
from sync.errors import translated, unavailable
from sync.libpq import Call, checked, execute, results_of

T = TypeVar("T")

CONNECT_SECONDS: Final = 3
LOCK_SECONDS: Final = 10
STATEMENT_SECONDS: Final = 30
IDLE_SECONDS: Final = 120
"""Seconds after which Postgres ends the transaction, and the locks, of a writer that was stopped."""
_PATIENCE: Final = 3.0  # seconds that a request waits for a connection
_SLICE: Final = 0.25  # seconds between checks for failed connection attempts

# A silently lost server is detected after about 25 s, both between statements and within one.
_CONNECTION: Final[Mapping[str, Any]] = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 25_000,
}
# The search path excludes the schema gitstore: all names in the SQL of this package are qualified.
# One statement sets everything, from left to right, as each statement has its cost.
_SET: Final[LiteralString] = """
    select pg_catalog.set_config('search_path', 'pg_catalog', true),
           pg_catalog.set_config('timezone', 'UTC', true),
           pg_catalog.set_config('datestyle', 'ISO', true),
           pg_catalog.set_config('lock_timeout', %(usual_lock)s, true),
           pg_catalog.set_config('statement_timeout', %(usual_statement)s, true)
"""
_BEGIN: Final[LiteralString] = "begin isolation level read committed;" + _SET
_AS_USER: Final[LiteralString] = ", pg_catalog.set_config('role', 'gitstore_user', true)"
# Claims in both forms that functions of a host read: auth.uid() and auth.role() of Supabase, for example.
_WITH_CLAIMS: Final[LiteralString] = """
         , pg_catalog.set_config('request.jwt.claims', %(claims)s, true)
         , pg_catalog.set_config('request.jwt.claim.sub', %(claim_sub)s, true)
         , pg_catalog.set_config('request.jwt.claim.role', %(claim_role)s, true)
"""
# All reads are by key, in the order of an index. A bitmap scan loses that order, and another index needs a
# sort, yet both look cheaper to a planner without statistics: 200 ms for a page, right after an import of
# 100,000 versions.
_BEGIN_READING: Final[LiteralString] = (
    _BEGIN
    + """
         , pg_catalog.set_config('transaction_read_only', 'on', true)
         , pg_catalog.set_config('enable_bitmapscan', 'off', true)
         , pg_catalog.set_config('enable_sort', 'off', true)
"""
    + _AS_USER
    + _WITH_CLAIMS
)
_BEGIN_AS_USER: Final[LiteralString] = _BEGIN + _AS_USER + _WITH_CLAIMS
# The function is open to everyone unless an operator has revoked it.
_TIMELINE: Final[LiteralString] = """
    select case when has_function_privilege('pg_walfile_name(pg_lsn)', 'execute')
        then left(pg_walfile_name(pg_current_wal_lsn()), 8) end
"""
_BEGIN_AS_MIRROR: Final[LiteralString] = _BEGIN + "; set local role gitstore_mirror"
_WHILE_ACTIVE: Final[LiteralString] = f"; set local idle_in_transaction_session_timeout = '{IDLE_SECONDS}s'"
# Keys are locked in the order of each list, which is the same for every writer, to avoid deadlocks.
_LOCKED: Final[LiteralString] = """;
    select pg_advisory_xact_lock_shared(key) from unnest(%(shared)s::bigint[]) key;
    select pg_advisory_xact_lock(key) from unnest(%(exclusive)s::bigint[]) key
"""
# As above, with a lock_timeout of their own for the advisory locks; later locks have the usual one.
_LOCKED_SOON: Final[LiteralString] = (
    "; set local lock_timeout = %(patience)s" + _LOCKED + "; set local lock_timeout = %(usual_lock)s"
)
_BEGIN_AS_OWNER: Final[LiteralString] = _BEGIN + "; set local statement_timeout = 0"
# It sees the rows as they are at its first statement, for as long as it takes.
_BEGIN_SNAPSHOT: Final[LiteralString] = (
    "begin isolation level repeatable read read only;"
    + _SET
    + "; set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0"
)
_BEGIN_UPKEEP: Final[LiteralString] = _BEGIN_AS_OWNER + "; set local gitstore.upkeep = 'on'"

# With the position of the log after it, in the same round trip.
_COMMIT_WRITE: Final = b"commit; select gitstore.position()"
_position: ContextVar[str | None] = ContextVar("gitstore_position", default=None)

Claims = Mapping[str, object]


def _ms(seconds: float) -> str:
    return f"{int(seconds * 1000)}ms"


_PASSED_CLAIMS: Final = ("sub", "role", "iss", "gitstore_token")


def user_claims(user: object, **others: str) -> Claims:
    """Return the claims of a user; `others` are `role` and `iss`."""
    return {"sub": str(user), **others}


def token_claims(token: object) -> Claims:
    """Return the claims of an access token, by its id."""
    return {"gitstore_token": str(token)}


def _claim_values(claims: Claims) -> dict[str, str]:
    """Return the values of the statement that sets claims: of an allow-list, whatever `claims` holds."""
    passed = {name: claims[name] for name in _PASSED_CLAIMS if name in claims}
    return {
        "claims": json.dumps(passed),
        "claim_sub": str(passed.get("sub") or ""),
        "claim_role": str(passed.get("role") or ""),
    }


@dataclass(frozen=True, slots=True)
class Locks:
    """Keys of the advisory locks that a transaction acquires, in this order, and holds until it ends.

    `patience` is the timeout for each lock in seconds; None means the database's `lock_seconds`.
    """

    shared: list[int]
    exclusive: list[int]
    patience: float | None = None


def connect(conninfo: str, application: str = "gitstore") -> Connection[TupleRow]:
    """Open a single connection, in autocommit mode; a server that goes away is noticed as in the pool."""
    conninfo = _conninfo(conninfo, application)
    return psycopg.connect(conninfo, autocommit=True, prepare_threshold=None)


def _conninfo(conninfo: str, application: str) -> str:
    return make_conninfo(conninfo, **{**_CONNECTION, "application_name": application})


class _Connection(Connection[TupleRow]):
    """A connection of the pool; the time that a request waits for Postgres is counted."""

    @spending("database")
    def wait(self, *arguments: Any, **options: Any) -> Any:
        return super().wait(*arguments, **options)


class _UtcLoader(Loader):
    """Loads times in UTC; the driver's own uses the session's time zone, to which a commit returns."""

    def load(self, data: Buffer) -> datetime:
        return datetime.fromisoformat(bytes(data).decode()).astimezone(UTC)


class Transaction:
    """An open transaction that runs literal SQL and returns typed rows."""

    def __init__(self, connection: Connection[TupleRow], begun: Cursor[Any] | None = None) -> None:
        self.connection = connection
        self._begun = begun

    def begun(self, result: int, row: RowFactory[T]) -> list[T]:
        """Return the rows of a statement of those that began the transaction: -1 for the last one."""
        if self._begun is None:
            return []
        self._begun.row_factory = row
        self._begun.set_result(result)
        return self._begun.fetchall()

    def check(self) -> None:
        """Raise unless the transaction lives, and with it its locks."""
        execute(self.connection, b"select 1")

    def rows(self, row: type[T], query: LiteralString, **values: object) -> list[T]:
        """Return all rows, each as `row(**columns)`."""
        with self.connection.cursor(row_factory=class_row(row)) as cursor:
            return cursor.execute(query, values).fetchall()

    def row(self, row: type[T], query: LiteralString, **values: object) -> T | None:
        """Return the first row as `row(**columns)`, or None."""
        with self.connection.cursor(row_factory=class_row(row)) as cursor:
            return cursor.execute(query, values).fetchone()

    def tuples(self, query: LiteralString, **values: object) -> list[tuple[Any, ...]]:
        return self.connection.execute(query, values).fetchall()

    def value(self, query: LiteralString, **values: object) -> Any:
        """Return the first column of the first row, or None."""
        row = self.connection.execute(query, values).fetchone()
        return row[0] if row else None

    def run(self, query: LiteralString, **values: object) -> int:
        """Execute a statement and return the number of affected rows."""
        return self.connection.execute(query, values).rowcount


class SingleReading:
    """Reads rows like a `Transaction`, in a transaction and a round trip for each query."""

    def __init__(self, database: Database, claims: Claims) -> None:
        self._database = database
        self._claims = claims

    def row(self, row: type[T], query: LiteralString, **values: object) -> T | None:
        """Return the first row as `row(**columns)`, or None."""
        return next(iter(self.rows(row, query, **values)), None)

    def rows(self, row: type[T], query: LiteralString, **values: object) -> list[T]:
        """Return all rows, each as `row(**columns)`."""
        return self._database.read(row, self._claims, query, **values)


class Database:
    """Postgres at `conninfo` (a URL or key=value pairs). Safe to share between threads.

    `direct` is another address of the same database, without a pooler in transaction mode, for LISTEN.

    The pool opens at first use, so a process may be forked before that; after a fork, the child opens its
    own. Every method raises `unavailable` if Postgres does not answer, `busy` if a lock or a statement timed
    out.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        direct: str | None = None,
        max_connections: int = 16,
        lock_seconds: float = LOCK_SECONDS,
        statement_seconds: float = STATEMENT_SECONDS,
        application: str = "gitstore",
    ) -> None:
        self.conninfo = _conninfo(conninfo, application)
        self.direct = direct
        self.lock_seconds = lock_seconds
        self._max = max_connections
        self._usual = {"usual_lock": _ms(lock_seconds), "usual_statement": _ms(statement_seconds)}
        self._lock = threading.Lock()
        self._pool: ConnectionPool[Connection[TupleRow]] | None = None
        self._process = 0
        self._inherited: list[object] = []
        self._failures = 0
        self._turns = threading.BoundedSemaphore()

    # Transactions

    def reading(self, claims: Claims) -> AbstractContextManager[Transaction]:
        """Open a read-only transaction with the rights of the principal with `claims`."""
        return self._transaction(_BEGIN_READING, **_claim_values(claims))

    def as_user(self, claims: Claims) -> AbstractContextManager[Transaction]:
        """Open a read-write transaction with the rights of the principal with `claims`."""
        return self._transaction(_BEGIN_AS_USER, _COMMIT_WRITE, **_claim_values(claims))

    def as_mirror(
        self, locks: Locks | None = None, *queries: LiteralString, **values: object
    ) -> AbstractContextManager[Transaction]:
        """Open a transaction that writes rows derived from Git; it holds `locks` from its beginning.

        `queries` run in the same round trip, under the locks; `Transaction.begun` returns their rows.
        """
        return self._locked(_BEGIN_AS_MIRROR, locks, *queries, **values)

    def as_owner(self, locks: Locks | None = None) -> AbstractContextManager[Transaction]:
        """Open a transaction of the tables' owner, without a statement timeout."""
        return self._locked(_BEGIN_AS_OWNER, locks)

    def snapshot(self) -> AbstractContextManager[Transaction]:
        """Open a transaction of the tables' owner that sees the rows as they are now until it ends."""
        return self._locked(_BEGIN_SNAPSHOT, None)

    def upkeep(self, locks: Locks | None = None) -> AbstractContextManager[Transaction]:
        """Open a transaction of the tables' owner that may change immutable rows."""
        return self._locked(_BEGIN_UPKEEP, locks)

    def ask(self, row: type[T], claims: Claims, query: LiteralString, **values: object) -> T | None:
        """Run one statement as `as_user` does, in a single round trip; return its first row, or None."""
        found = self._asked(_BEGIN_AS_USER, row, query, {**values, **_claim_values(claims)})
        _position.set(None)
        return found[0] if found else None

    def read(self, row: type[T], claims: Claims, query: LiteralString, **values: object) -> list[T]:
        """Run one query as `reading` does, in a single round trip; return its rows."""
        return self._asked(_BEGIN_READING, row, query, {**values, **_claim_values(claims)})

    def call(self, call: Call[T]) -> list[T]:
        """Return the rows of a call, in one round trip.

        libpq is called directly, since a cursor takes three times as long. The function may run twice, as a
        pooled connection that has broken since its last use is replaced once.
        """
        with translated(), spending("database"):
            pool = self._open()
            for last in (False, True):
                connection = self._connection(pool)
                try:
                    return call.rows(connection.pgconn.exec_params(*self.sent(call)))
                except psycopg.OperationalError:
                    if last or not connection.broken:
                        raise
                finally:
                    pool.putconn(connection)
                pool.check()
        raise AssertionError("the last try returns or raises")

    def sent(self, call: Call[Any]) -> tuple[bytes, list[bytes | None], None, list[int], Format]:
        """Return the arguments of libpq for a call."""
        values = (*call.values, self._usual["usual_lock"])
        return (
            call.query,
            [value.encode() if isinstance(value, str) else value for value in values],
            None,
            [isinstance(value, bytes) for value in values],
            Format.BINARY,
        )

    def spare(self, most: int) -> int:
        """Take at most `most` connections out of those that the pool may open, and leave it three quarters.

        To be called before the pool opens. Return how many were taken.
        """
        taken = min(most, self._max // 4)
        self._max -= taken
        return taken

    def connection(self) -> Connection[TupleRow]:
        """Open a connection that is not one of the pool. Raises the driver's errors."""
        return psycopg.connect(self.conninfo, autocommit=True, prepare_threshold=None)

    def timeline(self) -> str | None:
        """Return the timeline of the server's log, or None; it changes when a replica is promoted."""
        with self.as_owner() as transaction:
            timeline: str | None = transaction.value(_TIMELINE)
        return timeline

    @staticmethod
    def committed() -> str | None:
        """Return the position of the log after the last write of this context, and forget it.

        None if it is not known: the write was none of `as_user` or `as_mirror`, or the server withholds it.
        """
        position = _position.get()
        _position.set(None)
        return position

    def ping(self) -> None:
        """Raise `unavailable` unless Postgres answers."""
        with self.as_owner() as transaction:
            transaction.value("select 1")

    def close(self) -> None:
        with self._lock:
            if self._pool is not None and self._process == os.getpid():
                self._pool.close()
            self._pool = None

    # Begin and end of transactions

    def _locked(
        self, opening: LiteralString, locks: Locks | None, *queries: LiteralString, **values: object
    ) -> AbstractContextManager[Transaction]:
        commit = _COMMIT_WRITE if opening is _BEGIN_AS_MIRROR else b"commit"
        if locks is None:
            return self._transaction("; ".join([opening, *queries]), commit, **values)
        values |= {"shared": locks.shared, "exclusive": locks.exclusive}
        if locks.patience is None:
            opening += (_WHILE_ACTIVE if opening is _BEGIN_AS_MIRROR else "") + _LOCKED
        else:
            opening += _LOCKED_SOON
            values["patience"] = _ms(locks.patience)
        return self._in_turn(self._transaction("; ".join([opening, *queries]), commit, **values))

    @contextmanager
    def _in_turn(self, writing: AbstractContextManager[Transaction]) -> Iterator[Transaction]:
        """Leave half of the connections to others: a writer holds one while it waits for locks and fsyncs."""
        with translated():
            self._open()
        turns = self._turns
        if not turns.acquire(timeout=self.lock_seconds):
            raise BusyError("timed out waiting for other writers: try again", retry_after=1)
        try:
            with writing as transaction:
                yield transaction
        finally:
            turns.release()

    def _asked(
        self, opening: LiteralString, row: type[T], query: LiteralString, values: Mapping[str, object]
    ) -> list[T]:
        with translated():
            pool, connection, cursor = self._begun(f"{opening}; {query}; commit", values, class_row(row))
            try:
                cursor.set_result(-2)  # that of the query, before the commit's
                return cursor.fetchall()
            finally:
                pool.putconn(connection)

    @contextmanager
    def _transaction(
        self, opening: LiteralString, commit: bytes = b"commit", /, **values: object
    ) -> Iterator[Transaction]:
        with translated():
            pool, connection, begun = self._begun(opening, values, tuple_row)
            try:
                try:
                    yield Transaction(connection, begun)
                except BaseException:
                    with suppress(psycopg.Error):
                        connection.execute("rollback")
                    raise
                self._commit(connection, commit)
            finally:
                pool.putconn(connection)

    @staticmethod
    def _commit(connection: Connection[TupleRow], statements: bytes) -> None:
        """Commit. What follows in `statements` gives the position, which is not known if it fails."""
        committed, *others = results_of(connection, statements)
        if checked(committed).command_status != b"COMMIT":
            # After a statement error that the caller ignored, Postgres answers ROLLBACK without an error.
            raise GitstoreError(Code.INTERNAL, "the transaction had failed and was rolled back")
        shown = others[0].get_value(0, 0) if others and others[0].ntuples else None
        _position.set(shown.decode() if shown is not None else None)

    def _begun(
        self, statements: LiteralString, values: Mapping[str, object], row: RowFactory[T]
    ) -> tuple[ConnectionPool[Connection[TupleRow]], Connection[TupleRow], Cursor[T]]:
        """Execute `statements`, which begin a transaction; return pool, connection and results.

        A pooled connection that has broken since its last use is replaced once; nothing was executed on it.
        """
        pool = self._open()
        for last in (False, True):
            with spending("database"):
                connection = self._connection(pool)
            try:
                # A client-side cursor: several statements with values in one round trip.
                cursor = ClientCursor(connection, row_factory=row).execute(
                    statements, {**self._usual, **values}
                )
            except BaseException as error:
                with suppress(psycopg.Error):
                    connection.execute("rollback")
                pool.putconn(connection)
                if last or not connection.broken or not isinstance(error, psycopg.OperationalError):
                    raise
                pool.check()  # the other pooled connections have most likely broken, too
            else:
                break
        return pool, connection, cursor

    def _connection(self, pool: ConnectionPool[Connection[TupleRow]]) -> Connection[TupleRow]:
        """Return a pooled connection; raise `unavailable` on a timeout, or at once if connecting fails."""
        failures = self._failures
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return pool.getconn(timeout=_SLICE)
            except PoolTimeout as error:
                if self._failures != failures or time.monotonic() > deadline:
                    raise unavailable() from error

    def _open(self) -> ConnectionPool[Connection[TupleRow]]:
        if self._pool is not None and self._process == os.getpid():
            return self._pool
        with self._lock:
            if self._pool is None or self._process != os.getpid():
                # Keep a reference to the parent's pool: collecting it would send Terminate on its sockets.
                self._inherited.append(self._pool)
                self._turns = threading.BoundedSemaphore(max(self._max // 2, 1))
                self._pool = ConnectionPool(
                    self.conninfo,
                    connection_class=_Connection,
                    kwargs={"autocommit": True, "prepare_threshold": None},
                    configure=lambda connection: connection.adapters.register_loader(
                        "timestamptz", _UtcLoader
                    ),
                    min_size=1,
                    max_size=self._max,
                    reconnect_timeout=0,  # the next request reconnects, not a timer
                    reconnect_failed=self._note_failure,
                    open=True,
                    name="gitstore",
                )
                self._process = os.getpid()
            return self._pool

    def _note_failure(self, _pool: object) -> None:
        self._failures += 1
