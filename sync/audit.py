"""The audit log: who did what to which object, by which door, when and from where. Rows are only added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, LiteralString
from uuid import UUID

from sync.db import Transaction
from sync.rows import as_json


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an action comes from.

    `actor_id` is an access token's or a user's id, or a word for a program ("operator", "worker"); `door`
    is http, git, page, cli or worker; `remote` the address of the other side.
    """

    actor_id: str
    actor_name: str
    door: str
    remote: str | None = None
    request_id: str | None = None


WORKER: Final = Origin("worker", "gitstore", "worker")

INSERT: Final[LiteralString] = """
    insert into gitstore.audit_log
        (project_id, actor_id, actor_name, door, action, object, remote, request_id, details)
    select project_id, actor_id, actor_name, door, action, object, remote, request_id, details
    from jsonb_populate_recordset(null::gitstore.audit_log, %(noted)s)
"""


def values(
    project: UUID, origin: Origin, action: str, object_: str, details: Mapping[str, object] | None = None
) -> dict[str, object]:
    """A row, as `INSERT` takes a list of them."""
    return {
        "project_id": project,
        "actor_id": origin.actor_id,
        "actor_name": origin.actor_name,
        "door": origin.door,
        "action": action,
        "object": object_,
        "remote": origin.remote,
        "request_id": origin.request_id,
        "details": dict(details or {}),
    }


def note(
    tx: Transaction,
    project: UUID,
    origin: Origin,
    action: str,
    object_: str,
    details: Mapping[str, object] | None = None,
) -> None:
    """Add a row. `action` is a word with a dot ("token.created"), `object_` what it was done to."""
    tx.run(INSERT, noted=as_json([values(project, origin, action, object_, details)]))
