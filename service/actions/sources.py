"""Actions on sources: create, change, remove, sync; resolve the divergence of a draft."""

from __future__ import annotations

from typing import Any

from gitstore.definition.quoting import clip
from gitstore.errors import Code, ConflictError, GitstoreError, NotFoundError
from gitstore.upstream.importer import Layout
from service import logs, lookup
from service.api.source_schemas import ChangeSource, CreateSource
from service.context import Caller
from service.logs import Event
from sync import audit
from sync.db import Transaction
from webhooks import divergence_decisions, source_input, sources
from webhooks.divergence_decisions import Divergence
from webhooks.forges import Forge
from webhooks.sources import POLL_SECONDS, Direction, Source


def named(tx: Transaction, caller: Caller, shown: str) -> Source:
    """Return the source with the id `shown`. Raises `not_found`."""
    found = lookup.uuid_of(shown)
    row = sources.source(tx, caller.project_id, found) if found else None
    if row is None:
        raise _unknown(shown)
    return row


def create(caller: Caller, body: CreateSource) -> tuple[Source, str]:
    """Create a source; return it and the secret of its webhook, which cannot be read again."""
    new = source_input.check_source(
        caller.services.egress, body.url, forge=body.forge, credential=body.credential, secret=body.secret
    )
    with caller.as_user() as tx:
        made, secret = sources.create(
            tx,
            caller.services.sealer(),
            caller.project_id,
            new.url,
            forge=new.forge,
            login=new.login,
            secret=new.secret,
            layout=Layout(body.layout or Layout.REFS),
            direction=Direction(body.direction or Direction.PULL),
            poll_seconds=body.poll_seconds or POLL_SECONDS,
        )
        _note(tx, caller, "source.created", made, {"url": made.url, "direction": made.direction})
    logs.action(Event.SOURCE_CREATED, **caller.said, source=str(made.id), url=made.url)
    return made, secret


def change(caller: Caller, shown: str, body: ChangeSource) -> Source:
    with caller.as_user() as tx:
        row = named(tx, caller, shown)
        forge = Forge(body.forge or row.forge)
        changed = sources.change(
            tx,
            caller.services.sealer(),
            caller.project_id,
            row.id,
            login=source_input.read_credential(body.credential, forge) if body.credential else None,
            forget_login=body.credential == "",
            secret=source_input.check_secret(body.secret, forge) if body.secret else None,
            forge=body.forge,
            layout=body.layout,
            direction=body.direction,
            poll_seconds=body.poll_seconds,
            paused=body.paused,
        )
        if changed is None:
            raise _unknown(shown)
        _note(tx, caller, "source.changed", changed, {"changed": sorted(body.model_fields_set)})
    logs.action(Event.SOURCE_CHANGED, **caller.said, source=str(row.id))
    return changed


def delete(caller: Caller, shown: str) -> None:
    """Stop following the source. Imported versions are kept."""
    with caller.as_user() as tx:
        row = named(tx, caller, shown)
        if not sources.delete(tx, caller.project_id, row.id):
            raise _unknown(shown)
        _note(tx, caller, "source.deleted", row, {"url": row.url})
    logs.action(Event.SOURCE_DELETED, **caller.said, source=str(row.id))


def sync(caller: Caller, shown: str) -> Source:
    """Let the worker sync it now, and check known divergences again."""
    with caller.as_user() as tx:
        row = named(tx, caller, shown)
        if row.paused:
            raise ConflictError(
                Code.SOURCE_PAUSED, "the source is paused: let it go on, and it is synced at once"
            )
        sources.ask(tx, caller.project_id, row.id)
        return named(tx, caller, shown)


def resolve(caller: Caller, shown: str, divergence: str, take: str) -> Divergence:
    found = lookup.uuid_of(divergence)
    with caller.as_user() as tx:
        row = named(tx, caller, shown)
        if found is None:
            raise NotFoundError(Code.NOT_FOUND, "there is no open divergence of that id")
        decided = divergence_decisions.resolve(
            tx, caller.project_id, row.id, found, take, caller.principal.name
        )
        _note(tx, caller, "divergence.resolved", row, {"ref": decided.ref, "take": take})
    logs.action(Event.DIVERGENCE_RESOLVED, **caller.said, source=str(row.id), ref=decided.ref, take=take)
    return decided


def _unknown(shown: str) -> GitstoreError:
    return NotFoundError(Code.NOT_FOUND, f"there is no source {clip(shown)!r}")


def _note(tx: Transaction, caller: Caller, action: str, row: Source, details: dict[str, Any]) -> None:
    audit.note(tx, caller.project_id, caller.origin, action, str(row.id), details)
