"""Replicas of the database: the position of a write in Postgres' log, and how far a replica has come.

A position is `<timeline>:<LSN>`, both in hexadecimal digits as Postgres writes them. A replica that has
replayed the log to a position shows all that was committed before that.

The lag of a replica is the age of the last transaction that it has replayed. So that it does not grow while
nothing is written, the worker commits an empty transaction every `BEAT_SECONDS` where a replica follows. The
clocks of the two machines are compared, which should be synchronized.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, LiteralString, Self

from gitstore.errors import GitstoreError, MalformedError
from sync.db import Database

BEAT_SECONDS: Final = 2.0
HEADER: Final = "Gitstore-Position"
"""Header with a position: of answers to writes, of deliveries, and of the reads that follow."""

_POSITION: Final = re.compile(r"([0-9A-F]{8}):([0-9A-F]{1,8})/([0-9A-F]{1,8})")
# It may not run on a replica.
_OF_WRITES: Final[LiteralString] = "select gitstore.position() as position"
_PROGRESS: Final[LiteralString] = """
    select pg_is_in_recovery() as is_replica,
        case when pg_is_in_recovery() then coalesce(
            extract(epoch from clock_timestamp() - pg_last_xact_replay_timestamp()), 'infinity')
        else 0 end::float8 as lag,
        greatest(checkpoint.timeline_id, recovery.min_recovery_end_timeline) as timeline,
        (coalesce(
            case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end, '0/0'
        ) - '0/0'::pg_lsn)::bigint as lsn
    from pg_control_checkpoint() as checkpoint, pg_control_recovery() as recovery
"""
# It has a commit record, which is written in the background: the transaction waits for no disk.
_BEAT: Final[LiteralString] = "select pg_current_xact_id() where exists (select from pg_stat_replication)"


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A position in the log; the order of positions is that of the writes before them."""

    timeline: int
    lsn: int

    @classmethod
    def parse(cls, text: str) -> Self:
        match = _POSITION.fullmatch(text.strip())
        if match is None:
            raise MalformedError("a position has the form 00000001:0/16B3748, as a write returned it")
        timeline, high, low = (int(part, 16) for part in match.groups())
        return cls(timeline, high << 32 | low)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a server has come; `lag` is in seconds."""

    is_replica: bool
    lag: float
    timeline: int
    lsn: int

    def has(self, position: Position) -> bool:
        """Return whether all writes before `position` are visible here.

        A promotion begins a timeline: the server that writes has all that was not lost.
        """
        return not self.is_replica or (self.timeline >= position.timeline and self.lsn >= position.lsn)


@dataclass(frozen=True, slots=True)
class _Written:
    position: str


def position(database: Database) -> str | None:
    """Return the position after all writes that are committed, or None if the server withholds it."""
    if (known := database.committed()) is not None:
        return known
    with suppress(GitstoreError):
        return database.read(_Written, {}, _OF_WRITES)[0].position  # in one round trip
    return None


def progress(database: Database) -> Progress:
    """Return how far the server has come. Raises `unavailable`."""
    with database.as_owner() as tx:
        return tx.rows(Progress, _PROGRESS)[0]


def beat(database: Database) -> None:
    """Commit a transaction that changes nothing, if a replica follows."""
    with suppress(GitstoreError), database.as_owner() as tx:
        tx.value(_BEAT)
