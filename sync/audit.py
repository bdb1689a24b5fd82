"""The append-only audit log: actor, action, object, interface, time and remote address of each change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, LiteralString
from uuid import UUID

from sync import rows
from sync.db import Transaction


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


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRow(Origin):
    """The columns of gitstore.audit_log that a write sets; `action` is a dotted name ("token.created")."""

    project_id: UUID
    action: str
    object: str
    details: Mapping[str, Any]


INSERT: Final[LiteralString] = rows.insert("audit_log", AuditRow, "audit")


def row(
    project: UUID, origin: Origin, action: str, object_: str, details: Mapping[str, object] | None = None
) -> AuditRow:
    return AuditRow(
        **rows.values(origin, Origin),
        project_id=project,
        action=action,
        object=object_,
        details=details or {},
    )


def note(
    tx: Transaction,
    project: UUID,
    origin: Origin,
    action: str,
    object_: str,
    details: Mapping[str, object] | None = None,
) -> None:
    """Insert a row about an `action` of `origin` on `object_`."""
    tx.run(INSERT, audit=rows.as_json([row(project, origin, action, object_, details)]))
