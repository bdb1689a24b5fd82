"""Rows in a backup: which tables are backed up, and how; reading and writing them as lines of JSON.

Git holds what was published and drafted, and `correct` (sync/integrity/rebuild.py) derives rows from it.
Every table of the schema is either in `TABLES`, or in `DERIVED` with the reason; a test compares. To add a
table, add its line, after the tables that it refers to.

Columns whose name begins with `sealed` are encrypted secrets. They are left empty in the rows, and are kept
in a stream of their own, which is encrypted with a passphrase.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, LiteralString
from uuid import UUID

import psycopg
from psycopg import sql

from gitstore.errors import IntegrityError
from sync.db import Transaction

OVERLAP: Final = timedelta(days=1)
"""Time before the last backup from which rows are read again: the longest transaction that inserts any."""

_BATCH_ROWS: Final = 500
_BATCH_SIZE: Final = 4 * 2**20  # characters
_FETCHED: Final = 200  # rows at once, which may have definitions

_OF_PROJECT: Final[LiteralString] = "project_id = %(project)s"


@dataclass(frozen=True, slots=True)
class Table:
    """A table in the schema gitstore. Its rows of a project are those that meet `where`.

    `which`: the condition of the rows that are backed up. `grows_by`: rows are only ever added, with the time
    in that column; a backup has those since the one before. `empty` are columns that are left null, and
    derived again.
    """

    name: LiteralString
    where: LiteralString = _OF_PROJECT
    which: LiteralString = "true"
    grows_by: LiteralString | None = None
    empty: LiteralString = ""


TABLES: Final = (
    Table("projects", where="id = %(project)s"),
    Table("workflows", empty="current_version_id"),
    # Derived, too, but for `lost` and `discarded` ones; the other rows are needed for foreign keys alone.
    Table("workflow_versions"),
    Table("number_marks"),
    Table("git_objects", which="oid = any(%(lacking)s)"),  # which Git lacks
    Table("members"),
    Table("access_tokens"),
    Table("events", grows_by="recorded_at"),
    Table(
        "event_queue",
        where="event_id in (select id from gitstore.events where project_id = %(project)s)",
    ),
    Table("audit_log", grows_by="at"),
    Table("subscriptions"),
    Table("subscription_secrets"),
    Table("deliveries"),
    Table("delivery_attempts"),
    Table("sources"),
    Table("receipts"),
    Table("upstream_refs"),
    Table("divergences"),
    Table("autosaves"),
    Table("schedules"),
)
DERIVED: Final = {
    "migrations": "written by `gitstore migrate`",
    "environments": "derived from the ledgers",
    "version_states": "derived from the ledgers",
    "workflow_words": "written by triggers of workflows and workflow_versions",
    "checks": "what was compared elsewhere; without it, everything is compared again",
    "check_runs": "like `checks`",
    "releases": "derived from the refs of releases",
    "release_items": "derived from the refs of releases",
    "feature_level": "the newest, as no process of an older version serves the restored database",
}

# Definitions of versions that Git has are in Git.
_DEFINITIONS: Final = {"definition", "definition_text"}
_COLUMNS: Final[LiteralString] = """
    select attname from pg_attribute
    where attrelid = to_regclass('gitstore.' || %(table)s) and attnum > 0 and not attisdropped
        and attgenerated = '' order by attnum
"""
_STORED: Final[LiteralString] = "select oid from gitstore.git_objects where project_id = %(project)s"
_INSERT: Final[LiteralString] = """
    insert into {table} ({names})
    select {names} from jsonb_populate_recordset(null::{table}, %(rows)s::jsonb) where {where}
    on conflict do nothing
"""
_UPDATE: Final[LiteralString] = """
    update {table} stored set {pairs}
    from jsonb_populate_record(null::{table}, %(row)s::jsonb) given where stored.id = given.id
"""
_SEALED: Final = "sealed"


def stream(project: UUID, table: Table) -> str:
    """Return the name of the stream with a table's rows of a project."""
    return f"projects/{project}/{table.name}"


def tables(tx: Transaction) -> list[Table]:
    """Return the tables to back up that exist: those of the schema that the database has."""
    return [table for table in TABLES if _columns(tx, table)]


def stored_objects(tx: Transaction, project: UUID) -> Iterator[str]:
    """Yield the ids of the Git objects of a project that are in Postgres."""
    with tx.connection.cursor(name="stored") as cursor:
        for (oid,) in cursor.execute(_STORED, {"project": project}):
            yield oid


def rows_of(
    tx: Transaction, table: Table, project: UUID, lacking: Collection[str], since: datetime | None
) -> Iterator[str]:
    """Yield the rows of a project as JSON, without secrets; of a table that grows, those added `since`."""
    listed = sql.SQL(", ").join(_selected(table, column) for column in _columns(tx, table))
    where: LiteralString = table.where + " and " + table.which
    if table.grows_by is not None and since is not None:
        where += " and " + table.grows_by + " >= %(since)s"
    query = sql.SQL("select to_jsonb(r)::text from (select {} from {} where {}) r").format(
        listed, _named(table), sql.SQL(where)
    )
    values = {"project": project, "lacking": list(lacking), "since": since and since - OVERLAP}
    with tx.connection.cursor(name="rows") as cursor:
        cursor.itersize = _FETCHED
        for (row,) in cursor.execute(query, values):
            yield row


def load(tx: Transaction, table: Table, project: UUID, lines: Iterable[str]) -> None:
    """Insert rows as `rows_of` yields them. Those of other projects are passed over.

    Requires the tables' owner. Raises `integrity` for rows that do not fit the table.
    """
    names = [sql.Identifier(column) for column in _columns(tx, table)]
    statement = sql.SQL(_INSERT).format(
        table=_named(table), names=sql.SQL(", ").join(names), where=sql.SQL(table.where)
    )
    try:
        for batch in _batches(lines):
            rows = f"[{','.join(batch)}]"
            tx.connection.execute(statement, {"project": project, "rows": rows})
    except (psycopg.DataError, psycopg.IntegrityError) as error:
        raise IntegrityError(f"the rows of {table.name} in the backup can't be loaded") from error


def secrets_of(tx: Transaction, project: UUID) -> Iterator[str]:
    """Yield the secrets of a project, as JSON for `load_secret`."""
    for table in tables(tx):
        sealed = [column for column in _columns(tx, table) if column.startswith(_SEALED)]
        if sealed:
            listed = sql.SQL(", ").join(map(sql.Identifier, ["id", *sealed]))
            query = sql.SQL("select to_jsonb(r) from (select {} from {} where {}) r").format(
                listed, _named(table), sql.SQL(table.where)
            )
            for (row,) in tx.connection.execute(query, {"project": project}).fetchall():
                yield json.dumps({"table": table.name, "row": row})


def load_secret(tx: Transaction, line: str) -> None:
    """Put a secret into its row, which was loaded before."""
    given: dict[str, Any] = json.loads(line)
    table = next(table for table in TABLES if table.name == given["table"])
    sealed = [column for column in _columns(tx, table) if column.startswith(_SEALED)]
    pairs = sql.SQL(", ").join(
        sql.SQL("{name} = given.{name}").format(name=sql.Identifier(column)) for column in sealed
    )
    statement = sql.SQL(_UPDATE).format(table=_named(table), pairs=pairs)
    tx.connection.execute(statement, {"row": json.dumps(given["row"])})


def switch_triggers(tx: Transaction, *, on: bool) -> None:
    """Switch the triggers of all tables on or off, except those of foreign keys."""
    how: LiteralString = "enable" if on else "disable"
    for table in tables(tx):
        statement: LiteralString = "alter table {} " + how + " trigger user"
        tx.connection.execute(sql.SQL(statement).format(_named(table)))


def _columns(tx: Transaction, table: Table) -> list[str]:
    return [name for (name,) in tx.tuples(_COLUMNS, table=table.name)]


def _selected(table: Table, column: str) -> sql.Composed:
    """Return the expression of a column: empty for a secret, null where it is derived again."""
    name = sql.Identifier(column)
    if column.startswith(_SEALED):
        return sql.SQL("left({name}, 0) as {name}").format(name=name)
    if column in table.empty.split():
        return sql.SQL("null as {}").format(name)
    if table.name == "workflow_versions" and column in _DEFINITIONS:
        return sql.SQL("case when state in ('lost', 'discarded') then {name} end as {name}").format(name=name)
    return sql.Composed([name])


def _named(table: Table) -> sql.Identifier:
    return sql.Identifier("gitstore", table.name)


def _batches(lines: Iterable[str]) -> Iterator[list[str]]:
    batch: list[str] = []
    size = 0
    for line in lines:
        batch.append(line)
        size += len(line)
        if len(batch) == _BATCH_ROWS or size > _BATCH_SIZE:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
