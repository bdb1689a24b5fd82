"""Receipts of deliveries from forges. A new delivery marks its source as due. Runs as the mirror role."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, LiteralString
from uuid import UUID

from sync.db import Database
from webhooks import inbound, sources
from webhooks.forges import Forge
from webhooks.inbound import Kind, Received
from webhooks.secrets import Sealer
from webhooks.signature import Headers


@dataclass(frozen=True, slots=True)
class HookTarget:
    """The fields of a source that are needed to verify a delivery to it. `project` is the slug."""

    id: UUID
    project_id: UUID
    project: str
    forge: str
    sealed_secret: str


_BELL: Final[LiteralString] = """
    select s.id, s.project_id, p.slug as project, s.forge, s.sealed_secret
    from gitstore.sources s join gitstore.projects p on p.id = s.project_id where s.id = %(id)s
"""
_REMEMBER: Final[LiteralString] = """
    insert into gitstore.receipts (source_id, project_id, delivery, event)
    values (%(source)s, %(project)s, %(delivery)s, %(event)s) on conflict do nothing
"""
# A source that is already due is left unchanged, so that ten deliveries cause one fetch.
_RING: Final[LiteralString] = """
    update gitstore.sources set due_at = now() where id = %(source)s and due_at > now() and not paused
"""


def bell(database: Database, source_id: UUID) -> HookTarget | None:
    """Return the source with this id, in any project, or None."""
    with database.as_mirror() as tx:
        return tx.row(HookTarget, _BELL, id=source_id)


def take(
    database: Database, sealer: Sealer, found: HookTarget, headers: Headers, body: bytes, now: datetime
) -> tuple[Received, bool]:
    """Verify a delivery, then record it and mark its source as due in one transaction.

    Returns the delivery and whether it is new; a repeated delivery changes nothing. Raises `bad_signature`.
    """
    secret = sealer.open(sources.secret_purpose(found.id), found.sealed_secret)
    received = inbound.receive(headers, body, secret, Forge(found.forge), now)
    with database.as_mirror() as tx:
        values = {"source": found.id, "project": found.project_id, "event": received.event}
        new = received.delivery is None or tx.run(_REMEMBER, **values, delivery=received.delivery) > 0
        if new and received.kind is Kind.CHANGED and tx.run(_RING, source=found.id):
            tx.value(sources.WAKE)
    return received, new
