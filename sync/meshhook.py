"""Read the workflows in the database of a MeshHook, in one snapshot, for an import.

A row of `workflow_definitions` becomes a version with the row's number. Archived rows become versions that
are never current, and the newest draft row becomes the draft. The file of a version is the definition as
JSON, without editor leftovers, and with numbers as Postgres prints them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, Final, LiteralString
from uuid import UUID

import psycopg
from psycopg import Connection, errors
from psycopg.rows import class_row

from gitstore.definition.elements import without_leftovers
from gitstore.definition.quoting import quote
from gitstore.errors import ConfigError, UnavailableError
from gitstore.model import Person
from gitstore.names import parse_number, slug_from
from gitstore.upstream.recorded import RecordedVersion, RecordedWorkflow, Result
from sync.db import CONNECT_SECONDS

# With row_security off, Postgres raises an error where it would otherwise hide rows. The transaction is idle
# while gitstore writes what was read.
_BEGIN: Final[LiteralString] = """
    begin isolation level repeatable read read only;
    set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0;
    set local row_security = off; set local timezone = 'UTC'; set local search_path = pg_catalog
"""
_PROJECTS: Final[LiteralString] = "select id, owner, name from public.projects order by id"
_ROWS: Final[LiteralString] = """
    select id, project_id, slug, name, description, version, status, user_id,
        case when created_at between '1970-01-01' and '9999-01-01' then created_at end as created_at,
        case when updated_at between '1970-01-01' and '9999-01-01' then updated_at end as updated_at,
        octet_length(definition::text) as size
    from public.workflow_definitions where project_id = %(project)s order by slug collate "C", version
"""
_DEFINITIONS: Final[LiteralString] = """
    select id, definition::text from public.workflow_definitions where id = any(%(ids)s)
"""
_USERS_READABLE: Final[LiteralString] = """
    select has_schema_privilege(n.oid, 'usage') and has_table_privilege(c.oid, 'select')
        and not row_security_active(c.oid)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'auth' and c.relname = 'users'
"""
_USERS: Final[LiteralString] = """
    select id, email, coalesce(raw_user_meta_data ->> 'full_name', raw_user_meta_data ->> 'name') as name
    from auth.users where id = any(%(ids)s)
"""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NUMBER_MARK: Final = "\0"  # jsonb holds no NUL, so that no string of a definition is taken for a number
_MARKED: Final = re.compile(r'"\\u0000([^"]*)"')
_STATUSES: Final = ("draft", "published", "archived")


@dataclass(frozen=True, slots=True)
class MeshHookProject:
    id: UUID
    owner: UUID | None
    name: str


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of workflow_definitions, without its definition, which has `size` bytes as text."""

    id: UUID
    project_id: UUID
    slug: str
    name: str | None
    description: str | None
    version: int
    status: str
    user_id: UUID | None
    created_at: datetime | None
    updated_at: datetime | None
    size: int

    @property
    def shown(self) -> str:
        return f"{quote(self.slug)} version {self.version} ({self.status}, {self.id})"


@dataclass(slots=True)
class MeshHook:
    """The snapshot. `stripped` are the ids of rows whose editor leftovers `load` has left out.

    A file that would have more than `most` bytes is printed without indentation.
    """

    connection: Connection[Any]
    keep_leftovers: bool
    most: int
    stripped: set[UUID] = field(default_factory=set)

    def projects(self) -> list[MeshHookProject]:
        with self.connection.cursor(row_factory=class_row(MeshHookProject)) as cursor:
            return cursor.execute(_PROJECTS).fetchall()

    def workflows(self, project: UUID, notes: Result) -> list[RecordedWorkflow]:
        """Return the workflows of a project; add lines to `notes` about rows that are renamed or left out."""
        with self.connection.cursor(row_factory=class_row(_Row)) as cursor:
            rows = cursor.execute(_ROWS, {"project": project}).fetchall()
        people = self._people({row.user_id for row in rows if row.user_id is not None})
        workflows: dict[str, RecordedWorkflow] = {}
        for name, group in groupby(rows, key=lambda row: row.slug):
            slug, members = slug_from(name), list(group)
            if slug in workflows:
                notes.refused.append(f"{quote(name)}: its slug {slug} is taken")
                continue
            if slug != name:
                notes.kept.append(f"the slug {quote(name)} becomes {slug}")
            workflow = _workflow(slug, members, people, notes)
            if workflow is not None:
                workflows[slug] = workflow
        return list(workflows.values())

    def load(self, versions: Sequence[RecordedVersion]) -> list[bytes]:
        """Return the files of versions."""
        ids = [version.key for version in versions]
        if not ids:
            return []
        texts = dict(self.connection.execute(_DEFINITIONS, {"ids": ids}).fetchall())
        return [self._file(version, texts[version.key]) for version in versions]

    def _file(self, version: RecordedVersion, text: str | None) -> bytes:
        raw, leftovers = file_of(text or "null", keep_leftovers=self.keep_leftovers, most=self.most)
        if leftovers and version.external_id is not None:
            self.stripped.add(version.external_id)
        return raw

    def _people(self, ids: set[UUID]) -> Mapping[UUID, Person]:
        """Return the users by id. Without access to auth.users, a user's name is the id."""
        people = {identity: Person(str(identity), f"{identity}@users.meshhook") for identity in ids}
        readable = self.connection.execute(_USERS_READABLE).fetchone()
        if ids and readable is not None and readable[0]:
            for identity, email, name in self.connection.execute(_USERS, {"ids": list(ids)}):
                if email:
                    people[identity] = Person(name or email.partition("@")[0], email)
        return people


@contextmanager
def opened(conninfo: str, *, keep_leftovers: bool, most: int) -> Iterator[MeshHook]:
    """Open the database of a MeshHook for reading, in one snapshot.

    Raises `config` if it is not a MeshHook's or its rows cannot be read, and `unavailable`.
    """
    with (
        _explained(),
        closing(
            psycopg.connect(
                conninfo,
                autocommit=True,
                prepare_threshold=None,
                connect_timeout=CONNECT_SECONDS,
                application_name="gitstore import",
            )
        ) as connection,
    ):
        connection.execute(_BEGIN)
        yield MeshHook(connection, keep_leftovers, most)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except (errors.UndefinedTable, errors.UndefinedColumn) as error:
        message = f"this is not the database of a MeshHook: {error.diag.message_primary}"
        raise ConfigError(message) from error
    except errors.InsufficientPrivilege as error:
        message = (
            f"{error.diag.message_primary}: connect as the owner of MeshHook's tables, or as a role that may "
            "read them and has BYPASSRLS, so that no row is hidden"
        )
        raise ConfigError(message) from error
    except psycopg.OperationalError as error:
        raise UnavailableError("MeshHook's database does not answer, or the connection was lost") from error
    except psycopg.Error as error:
        raise UnavailableError("MeshHook's database could not be read: run the same import again") from error


def file_of(text: str, *, keep_leftovers: bool, most: int) -> tuple[bytes, bool]:
    """Return the file for a definition in jsonb's text, and whether editor leftovers were left out."""
    try:
        value = json.loads(text, parse_int=_mark, parse_float=_mark)
        kept = value if keep_leftovers or not isinstance(value, dict) else without_leftovers(value)
        raw = _printed(kept, indent=2)
        return (raw if len(raw) <= most else _printed(kept)), kept != value
    except RecursionError:  # deeper than any valid definition: kept unchanged
        return text.encode(), False


def _printed(value: Any, indent: int | None = None) -> bytes:
    printed = json.dumps(value, ensure_ascii=False, indent=indent)
    return (_MARKED.sub(r"\1", printed) + "\n").encode()


def _mark(number: str) -> str:
    """Keep the text of a number, which Python's range or precision could change."""
    return _NUMBER_MARK + number


def _workflow(
    slug: str, rows: Sequence[_Row], people: Mapping[UUID, Person], notes: Result
) -> RecordedWorkflow | None:
    """Return the workflow of `rows`, which are in the order of versions; None if no row is usable."""
    usable = []
    for row in rows:
        if row.status not in _STATUSES:
            notes.refused.append(f"{row.shown}: unknown status")
        elif parse_number(str(row.version)) is None:
            notes.refused.append(f"{row.shown}: versions are numbered from 1")
        else:
            usable.append(row)
    if not usable:
        return None
    drafts = [row for row in usable if row.status == "draft"]
    versions = [row for row in usable if row.status != "draft"]
    notes.kept += [f"left out: {row.shown}: there is a newer draft" for row in drafts[:-1]]
    newest = next((row for row in reversed(versions) if row.status == "published"), usable[-1])
    return RecordedWorkflow(
        slug=slug,
        versions=[_version(row, people) for row in versions],
        draft=_version(drafts[-1], people) if drafts else None,
        name=newest.name,
        description=newest.description or "",
        other_ids=tuple(row.id for row in drafts[:-1]),
    )


def _version(row: _Row, people: Mapping[UUID, Person]) -> RecordedVersion:
    """Return a row as a version. An archived row was last updated when it was archived, not published."""
    created = row.created_at or row.updated_at or _EPOCH
    updated = row.updated_at or created
    published = {"draft": None, "archived": created, "published": updated}[row.status]
    return RecordedVersion(
        key=row.id,
        number=row.version,
        size=row.size,
        author=people.get(row.user_id, Person("unknown", "")) if row.user_id else Person("unknown", ""),
        created_at=updated if row.status == "draft" else created,
        message=row.description or "",
        published_at=published,
        active=row.status == "published",
        external_id=row.id,
        user=str(row.user_id) if row.user_id else None,
    )
