"""The append-only audit log: actor, action, object, interface, time and remote address of each change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
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


# Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditRecord(AuditRow):
    """A row of gitstore.audit_log."""

    id: UUID
    at: datetime


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """A filter of audit rows; None in a field selects every row.

    `action` is a whole name or its first part ("token"), `actor` the id or the name of an actor, `object` the
    name of an object. Rows are from `since` (inclusive) to `until` (exclusive).
    """

    action: str | None = None
    actor: str | None = None
    object: str | None = None
    since: datetime | None = None
    until: datetime | None = None


_EARLIEST: Final = datetime(1, 1, 1, tzinfo=UTC)
_LATEST: Final = (datetime(9999, 12, 31, tzinfo=UTC), UUID(int=0))
_PAGE: Final[LiteralString] = (
    rows.select(AuditRecord)
    + """
    from gitstore.audit_log
    where project_id = %(project)s and (at, id) < (%(at)s, %(id)s)
        and at >= %(since)s and at < %(until)s
        and (%(action)s::text is null or action = %(action)s or starts_with(action, %(action)s || '.'))
        and (%(actor)s::text is null or actor_id = %(actor)s or actor_name = %(actor)s)
        and (%(object)s::text is null or object = %(object)s)
    order by at desc, id desc limit %(limit)s
"""
)


def page(
    tx: Transaction, project: UUID, wanted: AuditFilter, *, before: tuple[datetime, UUID] | None, limit: int
) -> list[AuditRecord]:
    """Return at most `limit` rows of a project that `wanted` selects, newest first, older than `before`."""
    at, last = before or _LATEST
    return tx.rows(
        AuditRecord,
        _PAGE,
        project=project,
        at=at,
        id=last,
        action=wanted.action,
        actor=wanted.actor,
        object=wanted.object,
        since=wanted.since or _EARLIEST,
        until=wanted.until or _LATEST[0],
        limit=limit,
    )
