"""Credentials: access tokens, as rows with the SHA-256 of the secret, and users' roles in projects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, LiteralString
from uuid import UUID

from sync import rows
from sync.catalog import InEnvironment, Project, StoredVersion, Version
from sync.db import Claims, Database, Transaction
from sync.libpq import Call


@dataclass(frozen=True, slots=True)
class Token:
    """A token as visible to its project's owners."""

    id: UUID
    project_id: UUID
    name: str
    role: str
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Holder:
    """The holder of a secret: a token that is neither expired nor revoked, and the project it belongs to."""

    id: UUID
    name: str
    role: str
    project: Project
    visible: bool = True
    """Whether Postgres shows the project to the holder."""


@dataclass(frozen=True, slots=True)
class Valid:
    """A token that is neither expired nor revoked."""

    name: str
    role: str


@dataclass(frozen=True, slots=True)
class _InProject:
    """A role in a project, with the project's columns."""

    role: str
    project_id: UUID
    project_slug: str
    project_name: str
    project_owner: UUID | None
    project_rules: str
    project_created_at: datetime
    project_archived_at: datetime | None
    project_first_rules: str
    project_file_name: str | None
    project_file_names: Sequence[str]
    project_activate_invalid: bool

    @property
    def project(self) -> Project:
        return Project(**{name: getattr(self, f"project_{name}") for name in rows.column_names(Project)})


@dataclass(frozen=True, slots=True)
class _Held(_InProject):
    """A row returned by gitstore.enter."""

    id: UUID
    name: str
    visible: bool


@dataclass(frozen=True, slots=True)
class UserRole(_InProject):
    """A user's role in a project, and whether the user has `others` that would fit as well."""

    others: bool


@dataclass(frozen=True, slots=True)
class ReadVersion(StoredVersion):
    """A version, and the token of which the holder read it."""

    token_name: str
    token_role: str
    project_slug: str


@dataclass(frozen=True, slots=True)
class ListedVersion(Version):
    """A version without its definition, and the token of which the holder listed it."""

    token_name: str
    token_role: str
    project_slug: str


_CREATE: Final[LiteralString] = """
    insert into gitstore.access_tokens (project_id, name, role, sha256, expires_at)
    values (%(project)s, %(name)s, %(role)s, %(sha256)s, %(expires_at)s)
    returning """ + rows.columns(Token)  # noqa: S608 - of constants
_LIST: Final[LiteralString] = (
    rows.select(Token) + " from gitstore.access_tokens where project_id = %(project)s order by created_at, id"
)
_REVOKE: Final[LiteralString] = """
    update gitstore.access_tokens set revoked_at = now()
    where project_id = %(project)s and id = %(id)s and revoked_at is null
"""
_VALID: Final[LiteralString] = """
    select name, role from gitstore.access_tokens
    where id = %(id)s and project_id = %(project)s
        and revoked_at is null and (expires_at is null or expires_at > now())
"""
_ENTER: Final = (rows.select(_Held) + " from gitstore.enter($1, $2)").encode()
_READ_VERSION: Final = (
    rows.select(ReadVersion)
    + " from gitstore.read_version($1, $2, $3, $4, $5, $6, $7, $8, $9) where id is not null"
).encode()
_READ_HISTORY: Final = (
    rows.select(ListedVersion) + " from gitstore.read_history($1, $2, $3, $4, $5, $6)"
).encode()
_USER_ROLE: Final[LiteralString] = (
    rows.select(UserRole) + " from gitstore.project_of_user(%(named)s, %(workflow)s::uuid)"
)


def create(
    tx: Transaction, project_id: UUID, name: str, role: str, sha256: bytes, expires_at: datetime | None = None
) -> Token:
    """Insert a token. Requires an owner of the project or the tables' owner."""
    values = {"project": project_id, "name": name, "role": role, "sha256": sha256, "expires_at": expires_at}
    return tx.rows(Token, _CREATE, **values)[0]


def tokens(tx: Transaction, project_id: UUID) -> list[Token]:
    """Return all tokens of a project, oldest first; an empty list unless the caller is an owner."""
    return tx.rows(Token, _LIST, project=project_id)


def revoke(tx: Transaction, project_id: UUID, token_id: UUID) -> bool:
    """Revoke a token; return False if it does not exist or is already revoked."""
    return tx.run(_REVOKE, project=project_id, id=token_id) == 1


def valid(tx: Transaction, project_id: UUID, token_id: UUID) -> Valid | None:
    """Return a token of a project, None if it is not valid any more. Requires the tables' owner."""
    return tx.row(Valid, _VALID, id=token_id, project=project_id)


def authenticate(database: Database, sha256: bytes) -> Holder | None:
    """Return the holder of the secret with this SHA-256, or None; record the use, at most once a minute."""
    for held in database.call(Call(_Held, _ENTER, (sha256,))):
        return Holder(held.id, held.name, held.role, held.project, held.visible)
    return None


def read_version(
    sha256: bytes,
    workflow: UUID | str,
    which: int | InEnvironment | None,
    *,
    as_text: bool,
    known: str,
) -> Call[ReadVersion]:
    """Return the call for a version that the holder of the secret with this SHA-256 may read.

    It is the one with a number, or in an environment, or else the current one, of the workflow with an id
    or a slug; the call gives no row without one. Its definition is left out if `known` contains its commit
    (`as_text`) or its blob. The use is recorded, as by `authenticate`.
    """
    number = str(which) if isinstance(which, int) else None
    pointer = (which.name, which.key) if isinstance(which, InEnvironment) else (None, None)
    values = (sha256, *_named(workflow), number, *pointer, str(as_text), known)
    return Call(ReadVersion, _READ_VERSION, values)


def read_history(sha256: bytes, workflow: UUID | str, *, below: int, limit: int) -> Call[ListedVersion]:
    """Return the call for at most `limit` rows of a history, as `read_version` returns that for one.

    They are the versions and the open draft with numbers under `below`, newest first; none if they may not be
    read.
    """
    values = (sha256, *_named(workflow), str(below), str(limit))
    return Call(ListedVersion, _READ_HISTORY, values)


def _named(workflow: UUID | str) -> tuple[str | None, str | None]:
    return (str(workflow), None) if isinstance(workflow, UUID) else (None, workflow)


def user_role(
    database: Database, claims: Claims, *, named: str | None = None, workflow: UUID | None = None
) -> UserRole | None:
    """Return the role of the user of `claims` in a project, or None.

    The project is the one with the slug or id `named`, the one of `workflow`, or any of the user's.
    """
    return database.ask(UserRole, claims, _USER_ROLE, named=named, workflow=workflow)
