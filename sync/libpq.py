"""Statements by libpq alone, through psycopg.pq: a cursor takes three to five times as long."""

from __future__ import annotations

import select
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, TypeVar
from uuid import UUID

import psycopg
from psycopg import Connection
from psycopg.pq import DiagnosticField, ExecStatus
from psycopg.pq.abc import PGresult
from psycopg.rows import TupleRow

from gitstore.budget import spending

T = TypeVar("T")

_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
# By the ids of their types, which are fixed: https://www.postgresql.org/docs/current/catalog-pg-type.html
_LOADED: Final[Mapping[int, Callable[[bytes], object]]] = {
    16: lambda data: data == b"\1",
    17: bytes,
    23: lambda data: int.from_bytes(data, signed=True),
    25: bytes.decode,
    1009: lambda data: [*_texts(data)],
    1184: lambda data: _EPOCH + timedelta(microseconds=int.from_bytes(data, signed=True)),
    2950: lambda data: UUID(bytes=data),
}


def _texts(data: bytes) -> Iterator[str]:
    """Yield the elements of a text[] without nulls, of at most one dimension."""
    at = 20  # behind number of dimensions, flags, type, length and lower bound
    while at < len(data):
        end = at + 4 + int.from_bytes(data[at : at + 4])
        yield data[at + 4 : end].decode()
        at = end


def _decoded(result: PGresult) -> Iterator[list[Any]]:
    """Yield the rows of a result in the binary format."""
    loaders = [_LOADED[result.ftype(column)] for column in range(result.nfields)]
    for index in range(result.ntuples):
        row: list[Any] = [result.get_value(index, column) for column in range(result.nfields)]
        yield [data if data is None else load(data) for load, data in zip(loaders, row, strict=True)]


def execute(connection: Connection[TupleRow], statement: bytes) -> PGresult:
    """Execute a statement without values by libpq alone; a cursor takes five times as long."""
    with spending("database"):
        return checked(connection.pgconn.exec_(statement))


def results_of(connection: Connection[TupleRow], statements: bytes) -> list[PGresult]:
    """Execute statements as `execute` does; return the results of the first ones, up to an error."""
    pgconn, results = connection.pgconn, list[PGresult]()
    with spending("database"):
        pgconn.send_query(statements)
        poll = select.poll()
        poll.register(pgconn.socket, select.POLLIN)
        try:
            while True:
                while pgconn.is_busy():
                    poll.poll()
                    pgconn.consume_input()
                if (result := pgconn.get_result()) is None:
                    return results
                results.append(result)
        except psycopg.OperationalError:  # the connection broke
            if not results:
                raise
            return results


def checked(result: PGresult) -> PGresult:
    """Return `result` unless it is an error, which is raised as the driver raises it."""
    if result.status not in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
        message = result.error_message.decode("utf-8", "replace")
        state = result.error_field(DiagnosticField.SQLSTATE)
        raise psycopg.errors.lookup(state.decode())(message) if state else psycopg.OperationalError(message)
    return result


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """A query of a function that sets its own role and claims.

    Its columns are the fields of `row`, in their order; the function's last parameter, which is added to
    `values`, is the timeout for locks.
    """

    row: type[T]
    query: bytes
    values: tuple[str | bytes | None, ...]

    def rows(self, result: PGresult) -> list[T]:
        """Return the rows of a result in the binary format. Raises the driver's errors."""
        return [self.row(*decoded) for decoded in _decoded(checked(result))]
