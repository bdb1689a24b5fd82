"""Feature levels, and the plan of an upgrade: expand while older processes serve, contract at the end.

A migration only adds. What a process of an older release could not understand (a kind of ledger entry, a ref,
a form of claims) has a level, and is written only where every process understands it. `gitstore migrate
--finish` raises the level that Postgres records, once no older process runs. A database without a project, in
which no older process has anything to do, gets the newest level at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, LiteralString

from psycopg import Connection
from psycopg.rows import TupleRow

from gitstore.errors import ConfigError
from sync.db import Transaction


class Level(IntEnum):
    """The feature levels. Each permits one thing more than the level before."""

    FIRST = 0
    """The forms of 0.1.0."""
    TOKEN_CLAIMS = 1
    """A token is named by a claim of its own alone; a token's id in `sub` means nothing any more."""
    RELEASES = 2
    """Ledger entries have environments, yanked versions and an archived state (`gitstore.ledger.LEVELS`)."""


NEWEST: Final = max(Level)

_LEVEL: Final[LiteralString] = "select level from gitstore.feature_level"
_RAISE: Final[LiteralString] = """
    update gitstore.feature_level set level = %(level)s, raised_at = now() where level < %(level)s
"""
_RAISE_UNUSED: Final[LiteralString] = _RAISE + " and not exists (select from gitstore.projects)"
_EXISTS: Final[LiteralString] = "select to_regclass('gitstore.feature_level') is not null"
_ESTIMATE: Final[LiteralString] = """
    select relname, greatest(reltuples, 0)::bigint from pg_class
    where relnamespace = to_regnamespace('gitstore') and relkind = 'r'
"""


def level(tx: Transaction) -> int:
    """Return the feature level of this gitstore."""
    return int(tx.value(_LEVEL))


def raise_level(tx: Transaction, wanted: int = NEWEST) -> bool:
    """Raise the level to `wanted` for good; return whether it was lower. Requires the tables' owner."""
    if wanted > NEWEST:
        raise ConfigError(f"the feature level {wanted} is that of a newer gitstore: run that version")
    return tx.run(_RAISE, level=wanted) > 0


def raise_unused(connection: Connection[TupleRow]) -> None:
    """Raise the level of a database without a project to the newest one."""
    if connection.execute(_EXISTS).fetchone() == (True,):
        connection.execute(_RAISE_UNUSED, {"level": NEWEST})


# The plan


@dataclass(frozen=True, slots=True)
class Locking:
    """The effect of a migration on an existing table: `kind` is a key of `EFFECTS`; `rows` is an estimate."""

    table: str
    kind: str
    rows: int

    def __str__(self) -> str:
        return f"{self.table} ({self.rows:,} rows): {EFFECTS[self.kind]}"


EFFECTS: Final = {
    "rewrite": "is rewritten; reads and writes wait until that is done",
    "scan": "is read once; reads and writes wait until that is done",
    "index": "gets an index; writes wait until that is done",
    "brief": "is locked for a moment",
}
"""The effect of each kind of statement on others, the worst first."""

_NAME: Final = r"gitstore\.([a-z_]+|%I)"
_STATEMENTS: Final = (
    ("rewrite", re.compile(rf"\balter table {_NAME}[^;$]*\bgenerated always as\b[^;$]*\bstored\b")),
    ("scan", re.compile(rf"\balter table {_NAME}[^;$]*\b(?:add constraint|set not null|check \()")),
    ("scan", re.compile(rf"\b(?:update|delete from) {_NAME} (?:set|where)\b")),
    ("index", re.compile(rf"\bcreate (?:unique )?index \w+ on {_NAME}")),
    ("brief", re.compile(rf"\balter table {_NAME}")),
    ("brief", re.compile(rf"\b(?:create|alter|drop) policy [\w%]+ on {_NAME}")),
    ("brief", re.compile(rf"\b(?:create|drop) trigger [\w%]+ (?:[a-z ]+ )?on {_NAME}")),
)
_FUNCTION: Final = re.compile(r"\blanguage (?:plpgsql|sql)\b.*?\$\$.*?\$\$", re.DOTALL)
_COMMENT: Final = re.compile(r"--[^\n]*")
_CREATED: Final = re.compile(r"\bcreate table gitstore\.([a-z_]+)")


def locks_of(text: str, sizes: dict[str, int]) -> list[Locking]:
    """Return what the text of a migration does to each of the tables that exist, the worst effect of each.

    `sizes` has the estimated number of rows of each table. A statement that a block composes for several
    tables counts for each table that the block names.
    """
    plain = _FUNCTION.sub(" ", _COMMENT.sub(" ", text))
    found: dict[str, str] = {}
    for kind, pattern in _STATEMENTS:
        for match in pattern.finditer(plain):
            named = _named_in_block(plain, match.start()) if match[1] == "%I" else [match[1]]
            for table in named:
                if table in sizes:
                    found.setdefault(table, kind)
    return [Locking(table, kind, sizes[table]) for table, kind in sorted(found.items())]


def _named_in_block(text: str, at: int) -> Sequence[str]:
    start = max(text.rfind("do $$", 0, at), 0)
    return re.findall(r"'([a-z_]+)'", text[start:at])


def plan(connection: Connection[TupleRow], pending: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Yield lines about the pending migrations, (name, text): what each locks, and the consequence."""
    sizes: dict[str, int] = dict(connection.execute(_ESTIMATE).fetchall())
    waits = False
    for name, text in pending:
        locks = locks_of(text, sizes)
        waits = waits or any(lock.kind != "brief" and lock.rows for lock in locks)
        yield name
        yield from (f"  {lock}" for lock in locks)
        if not locks:
            yield "  locks no table that exists"
        sizes.update(dict.fromkeys(_CREATED.findall(text), 0))
    if not pending:
        yield "no migration is pending"
        return
    yield "Processes of the running version can go on serving: migrations only add."
    if waits:
        yield "Requests wait while the tables above are rewritten, read or indexed."
    yield "A migration whose locks others hold for a minute ends without a change: run it again."
