"""Sources: the repositories that a project follows or that follow it. Rows, as one of the owners.

`Database.as_user(claims)` opens the transactions that these functions take; row-level security lets the
project's owners alone read and change. What is secret (the credential, the secret of the webhook) is sealed,
and nobody reads it again but the worker. Syncing is webhooks/source_sync.py's.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal, LiteralString
from uuid import UUID, uuid4

from gitstore.errors import Code, GitstoreError
from gitstore.upstream.refs import Layout
from gitstore.upstream.remote import Credential
from sync.db import Transaction
from webhooks import signature
from webhooks.forges import Forge
from webhooks.secrets import Sealer

MOST: Final = 20
"""Sources that a project may have: each is asked every few minutes."""
POLL_SECONDS: Final = 300
SHORTEST_POLL: Final = 10
LONGEST_POLL: Final = 86_400
CHANNEL: Final = "gitstore_sources"
WAKE: Final[LiteralString] = "select pg_notify('gitstore_sources', '')"
"""Tells the workers that something is due."""


State = Literal["new", "ok", "failing", "paused", "poison"]


class Direction(StrEnum):
    """Which way versions and drafts go."""

    PULL = "pull"
    PUSH = "push"
    BOTH = "both"

    @property
    def pulls(self) -> bool:
        return self is not Direction.PUSH

    @property
    def pushes(self) -> bool:
        return self is not Direction.PULL


@dataclass(frozen=True, slots=True)
class Source:
    """`due_at` is when it is synced next, `report` what the last sync that succeeded brought."""

    id: UUID
    project_id: UUID
    url: str
    forge: str
    layout: str
    direction: str
    poll_seconds: int
    paused: bool
    has_credential: bool
    created_at: datetime
    due_at: datetime
    tried_at: datetime | None
    succeeded_at: datetime | None
    failures: int
    poisoned_at: datetime | None
    last_error: str | None
    report: dict[str, Any]

    @property
    def state(self) -> State:
        """`poison`: its syncs crashed, and it is not synced until an owner asks for that or changes it."""
        if self.paused:
            return "paused"
        if self.poisoned_at:
            return "poison"
        if self.failures:
            return "failing"
        return "ok" if self.succeeded_at else "new"


_SELECT: Final[LiteralString] = """
    select id, project_id, url, forge, layout, direction, poll_seconds, paused, has_credential, created_at,
        due_at, tried_at, succeeded_at, failures, poisoned_at, last_error, report
    from gitstore.sources where project_id = %(project)s
"""
_LIST: Final[LiteralString] = _SELECT + " order by created_at, id"
_ONE: Final[LiteralString] = _SELECT + " and id = %(id)s"
_CREATE: Final[LiteralString] = """
    insert into gitstore.sources (id, project_id, url, forge, layout, direction, poll_seconds,
        has_credential, sealed_credential, sealed_secret)
    values (%(id)s, %(project)s, %(url)s, %(forge)s, %(layout)s, %(direction)s, %(poll_seconds)s,
        %(has_credential)s, %(credential)s, %(secret)s)
"""
# What a person changes may be what was wrong: so it is tried at once, and everything is looked at again.
_CHANGE: Final[LiteralString] = """
    update gitstore.sources set forge = coalesce(%(forge)s, forge), layout = coalesce(%(layout)s, layout),
        direction = coalesce(%(direction)s, direction),
        poll_seconds = coalesce(%(poll_seconds)s, poll_seconds), paused = coalesce(%(paused)s, paused),
        due_at = now(), full_sync = true, crashes = 0, poisoned_at = null
    where project_id = %(project)s and id = %(id)s
"""
_SET_CREDENTIAL: Final[LiteralString] = """
    update gitstore.sources set has_credential = %(credential)s::text is not null,
        sealed_credential = %(credential)s
    where project_id = %(project)s and id = %(id)s
"""
_SEAL: Final[LiteralString] = """
    update gitstore.sources set sealed_secret = %(secret)s where project_id = %(project)s and id = %(id)s
"""
_DELETE: Final[LiteralString] = "delete from gitstore.sources where project_id = %(project)s and id = %(id)s"
_ASK: Final[LiteralString] = """
    update gitstore.sources set due_at = now(), full_sync = true, crashes = 0, poisoned_at = null
    where project_id = %(project)s and id = %(id)s
"""


# Rows


def sources(tx: Transaction, project_id: UUID) -> list[Source]:
    """All of a project's, the oldest first."""
    return tx.rows(Source, _LIST, project=project_id)


def source(tx: Transaction, project_id: UUID, source_id: UUID) -> Source | None:
    return tx.row(Source, _ONE, project=project_id, id=source_id)


def create(
    tx: Transaction,
    sealer: Sealer,
    project_id: UUID,
    url: str,
    *,
    forge: Forge,
    login: Credential | None = None,
    secret: str | None = None,
    layout: Layout = Layout.REFS,
    direction: Direction = Direction.PULL,
    poll_seconds: int = POLL_SECONDS,
) -> tuple[Source, str]:
    """A new one, due at once, and the secret of its webhook. `url` is one that `address` has made.

    Raises `limit_reached`, `source_exists`.
    """
    there = sources(tx, project_id)
    if len(there) >= MOST:
        raise GitstoreError(Code.LIMIT_REACHED, f"a project has {MOST} sources at most", limit=MOST)
    if any(found.url == url for found in there):
        raise GitstoreError(Code.SOURCE_EXISTS, "the project has a source with this URL already")
    source_id, secret = uuid4(), secret or signature.new_secret()
    tx.run(
        _CREATE,
        id=source_id,
        project=project_id,
        url=url,
        forge=forge.value,
        layout=layout.value,
        direction=direction.value,
        poll_seconds=poll_seconds,
        has_credential=login is not None,
        credential=_sealed_credential(sealer, source_id, login),
        secret=sealer.seal(secret_purpose(source_id), secret),
    )
    tx.value(WAKE)
    (made,) = tx.rows(Source, _ONE, project=project_id, id=source_id)
    return made, secret


def change(
    tx: Transaction,
    sealer: Sealer,
    project_id: UUID,
    source_id: UUID,
    *,
    login: Credential | None = None,
    forget_login: bool = False,
    secret: str | None = None,
    **given: object,
) -> Source | None:
    """Change what is given: forge, layout, direction, poll_seconds, paused. None where there is no such."""
    what = {"project": project_id, "id": source_id}
    kept: dict[str, object] = dict.fromkeys(("forge", "layout", "direction", "poll_seconds", "paused"))
    tx.run(_CHANGE, **what, **{**kept, **given})
    if login is not None or forget_login:
        tx.run(_SET_CREDENTIAL, **what, credential=_sealed_credential(sealer, source_id, login))
    if secret is not None:
        tx.run(_SEAL, **what, secret=sealer.seal(secret_purpose(source_id), secret))
    tx.value(WAKE)
    return source(tx, project_id, source_id)


def delete(tx: Transaction, project_id: UUID, source_id: UUID) -> bool:
    """Whether there was one. What it brought stays."""
    return tx.run(_DELETE, project=project_id, id=source_id) > 0


def ask(tx: Transaction, project_id: UUID, source_id: UUID) -> bool:
    """Let it be synced now, and everything be looked at again; whether there is such a source."""
    asked = tx.run(_ASK, project=project_id, id=source_id) > 0
    tx.value(WAKE)
    return asked


# Secrets


def secret_purpose(source_id: UUID) -> str:
    """What the secret of its webhook is sealed for."""
    return f"source {source_id} webhook"


def opened_credential(sealer: Sealer, source_id: UUID, sealed: str | None) -> Credential | None:
    if sealed is None:
        return None
    user, password = json.loads(sealer.open(credential_purpose(source_id), sealed))
    return Credential(user, password)


def _sealed_credential(sealer: Sealer, source_id: UUID, login: Credential | None) -> str | None:
    if login is None:
        return None
    return sealer.seal(credential_purpose(source_id), json.dumps([login.username, login.password]))


def credential_purpose(source_id: UUID) -> str:
    """What its credential is sealed for."""
    return f"source {source_id} credential"
