"""The append-only audit log: actor, action, object, interface, time and remote address of each change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, LiteralString
from uuid import UUID

from sync.db import Transaction
from sync.rows import as_json


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of an action.

    `actor_id` is the id of an access token or a user, or a word for a program ("operator", "worker"); `door`
    is the interface: http, git, page, cli or worker; `remote` is the address of the peer.
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
    """Return the columns of a row; `INSERT` takes a list of these."""
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
    """Insert a row. `action` is a dotted name ("token.created"), `object_` the object of the action."""
    tx.run(INSERT, noted=as_json([values(project, origin, action, object_, details)]))
