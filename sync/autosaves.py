"""Rows of what people have typed and not saved (`gitstore.autosaves`). Only their author sees them.

They are not derived from Git, and have no events. A row that has become a commit stays for a while,
without its texts, and leads from the commit that was edited to that commit.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, LiteralString
from uuid import UUID

from sync import rows
from sync.db import Transaction

SLICE: Final = 100


@dataclass(frozen=True, slots=True)
class Autosave:
    """Text and message that someone typed after opening `base_commit`, the draft if `on_draft`.

    `base_version` was the latest version then. `conflict` is the reason why it cannot become a
    commit by itself.
    """

    project_id: UUID
    workflow_id: UUID
    actor_id: UUID
    actor_user: str | None
    base_commit: str
    on_draft: bool
    base_version: int
    definition: str
    message: str
    saved_at: datetime
    conflict: str | None


_SELECT: Final[LiteralString] = rows.select(Autosave) + " from gitstore.autosaves where committed is null"
_OWN: Final[LiteralString] = _SELECT + (
    " and workflow_id = %(workflow)s and actor_id = %(actor)s order by saved_at desc"
)
_COUNT: Final[LiteralString] = """
    select count(*) from gitstore.autosaves
    where project_id = %(project)s and actor_id = %(actor)s and committed is null
        and not (workflow_id = %(workflow)s and base_commit = %(commit)s)
"""
_PUT: Final[LiteralString] = """
    insert into gitstore.autosaves (project_id, workflow_id, actor_id, actor_user, base_commit, on_draft,
        base_version, definition, message)
    values (%(project)s, %(workflow)s, %(actor)s, %(user)s, %(commit)s, %(on_draft)s, %(version)s,
        %(definition)s, %(message)s)
    on conflict (project_id, workflow_id, actor_id, base_commit) do update
    set definition = excluded.definition, message = excluded.message, saved_at = now(), conflict = null
    where autosaves.committed is null
    returning """ + rows.columns(Autosave)  # noqa: S608 - of constants
_CURRENT: Final[LiteralString] = """
    with recursive chain (commit, depth) as (
        select %(commit)s::text collate "C", 0
        union all
        select autosaves.committed, chain.depth + 1
        from chain join gitstore.autosaves on autosaves.base_commit = chain.commit
        where autosaves.workflow_id = %(workflow)s and autosaves.actor_id = %(actor)s
            and autosaves.committed is not null and chain.depth < 100
    )
    select commit from chain order by depth desc limit 1
"""
_IDLE: Final[LiteralString] = (
    _SELECT
    + """
    and conflict is null and saved_at < now() - %(age)s::interval order by saved_at limit %(limit)s
"""
)
_COMMITTED: Final[LiteralString] = """
    update gitstore.autosaves set committed = %(committed)s, definition = '', message = ''
    where workflow_id = %(workflow)s and actor_id = %(actor)s and base_commit = %(commit)s
"""
_REBASED: Final[LiteralString] = """
    insert into gitstore.autosaves (project_id, workflow_id, actor_id, actor_user, base_commit, on_draft,
        base_version, definition, message, saved_at)
    select project_id, workflow_id, actor_id, actor_user, %(committed)s, true, base_version, definition,
        message, saved_at
    from gitstore.autosaves
    where workflow_id = %(workflow)s and actor_id = %(actor)s and base_commit = %(commit)s
        and saved_at <> %(saved_at)s
    on conflict do nothing
"""
_FAILED: Final[LiteralString] = """
    update gitstore.autosaves set conflict = %(why)s
    where workflow_id = %(workflow)s and actor_id = %(actor)s and base_commit = %(commit)s
        and saved_at = %(saved_at)s
"""
_DROP: Final[LiteralString] = """
    delete from gitstore.autosaves
    where workflow_id = %(workflow)s and actor_id = %(actor)s and base_commit = %(commit)s
        and saved_at = %(saved_at)s
"""
_PRUNE: Final[LiteralString] = "delete from gitstore.autosaves where saved_at < now() - %(age)s::interval"


def own(tx: Transaction, workflow: UUID, actor: UUID) -> list[Autosave]:
    """Return what the actor typed in a workflow, the newest first."""
    return tx.rows(Autosave, _OWN, workflow=workflow, actor=actor)


def others(tx: Transaction, project: UUID, actor: UUID, workflow: UUID, commit: str) -> int:
    """Return the number of the actor's rows in a project, but for the one of `commit`."""
    return int(tx.value(_COUNT, project=project, actor=actor, workflow=workflow, commit=commit))


def put(
    tx: Transaction,
    project: UUID,
    workflow: UUID,
    actor: UUID,
    user: str | None,
    *,
    commit: str,
    on_draft: bool,
    version: int,
    definition: str,
    message: str,
) -> Autosave | None:
    """Store what the actor typed after opening `commit`; None if the worker has committed it."""
    return tx.row(
        Autosave,
        _PUT,
        project=project,
        workflow=workflow,
        actor=actor,
        user=user,
        commit=commit,
        on_draft=on_draft,
        version=version,
        definition=definition,
        message=message,
    )


def current(tx: Transaction, workflow: UUID, actor: UUID, commit: str) -> str:
    """Return the commit that the actor's text after `commit` has become, or `commit`."""
    return str(tx.value(_CURRENT, workflow=workflow, actor=actor, commit=commit))


def delete(tx: Transaction, workflow: UUID, commits: Collection[str]) -> None:
    """Delete what the caller typed after opening one of `commits`."""
    query: LiteralString = "select gitstore.delete_autosaves(%(workflow)s, %(commits)s::text[])"
    tx.value(query, workflow=workflow, commits=list(commits))


def idle(tx: Transaction, age: timedelta) -> list[Autosave]:
    """Return the oldest SLICE rows that have not changed for `age`. Requires the tables' owner."""
    return tx.rows(Autosave, _IDLE, age=age, limit=SLICE)


def commit(tx: Transaction, row: Autosave, committed: str) -> None:
    """Record the commit that a row has become; what was typed since then continues from it."""
    tx.run(_REBASED, **_key(row), committed=committed, saved_at=row.saved_at)
    tx.run(_COMMITTED, **_key(row), committed=committed)


def fail(tx: Transaction, row: Autosave, why: str) -> None:
    """Record why a row cannot become a commit."""
    tx.run(_FAILED, **_key(row), why=why, saved_at=row.saved_at)


def drop(tx: Transaction, row: Autosave) -> None:
    """Delete a row whose text is saved already. Requires the tables' owner."""
    tx.run(_DROP, **_key(row), saved_at=row.saved_at)


def prune(tx: Transaction, age: timedelta) -> int:
    """Delete rows older than `age`; return their number."""
    return tx.run(_PRUNE, age=age)


def _key(row: Autosave) -> dict[str, object]:
    return {"workflow": row.workflow_id, "actor": row.actor_id, "commit": row.base_commit}
