"""Access tokens: rows about secrets that only their holders know. The secret itself never comes here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, LiteralString
from uuid import UUID

from sync.catalog import Project
from sync.db import Database, Transaction


@dataclass(frozen=True, slots=True)
class Token:
    """A token as its project's owner sees it."""

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
    """Whose secret it is: a token that is neither expired nor revoked, and the project where it counts."""

    id: UUID
    name: str
    role: str
    project: Project


@dataclass(frozen=True, slots=True)
class _Held:
    """A row of gitstore.authenticate."""

    id: UUID
    name: str
    role: str
    project_id: UUID
    project_slug: str
    project_name: str
    project_owner: UUID | None
    project_rules: str
    project_created_at: datetime


_CREATE: Final[LiteralString] = """
    insert into gitstore.access_tokens (project_id, name, role, sha256, expires_at)
    values (%(project)s, %(name)s, %(role)s, %(sha256)s, %(expires_at)s)
    returning id, project_id, name, role, created_at, last_used_at, expires_at, revoked_at
"""
_LIST: Final[LiteralString] = """
    select id, project_id, name, role, created_at, last_used_at, expires_at, revoked_at
    from gitstore.access_tokens where project_id = %(project)s order by created_at, id
"""
_REVOKE: Final[LiteralString] = """
    update gitstore.access_tokens set revoked_at = now()
    where project_id = %(project)s and id = %(id)s and revoked_at is null
"""
_AUTHENTICATE: Final[LiteralString] = """
    select id, name, role, project_id, project_slug, project_name, project_owner, project_rules,
        project_created_at
    from gitstore.authenticate(%(sha256)s)
"""


def create(
    tx: Transaction, project_id: UUID, name: str, role: str, sha256: bytes, expires_at: datetime | None = None
) -> Token:
    """As one of the project's owners, or the tables' owner."""
    values = {"project": project_id, "name": name, "role": role, "sha256": sha256, "expires_at": expires_at}
    (made,) = tx.rows(Token, _CREATE, **values)
    return made


def tokens(tx: Transaction, project_id: UUID) -> list[Token]:
    """All of a project's tokens, the oldest first, to its owners; to others none."""
    return tx.rows(Token, _LIST, project=project_id)


def revoke(tx: Transaction, project_id: UUID, token_id: UUID) -> bool:
    """Whether there was such a token, still in force."""
    return tx.run(_REVOKE, project=project_id, id=token_id) == 1


def authenticate(database: Database, sha256: bytes) -> Holder | None:
    """Who holds the secret with this SHA-256; notes the use, at most once a minute."""
    held = database.ask(_Held, {}, _AUTHENTICATE, sha256=sha256)
    if held is None:
        return None
    project = Project(
        id=held.project_id,
        slug=held.project_slug,
        name=held.project_name,
        owner=held.project_owner,
        rules=held.project_rules,
        created_at=held.project_created_at,
    )
    return Holder(held.id, held.name, held.role, project)
