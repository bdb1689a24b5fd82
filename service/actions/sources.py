"""Actions on sources: create, change, rotate the secret, delete, sync; resolve divergences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from gitstore.errors import Code, ConflictError
from gitstore.upstream.refs import Layout
from service import lookup
from service.caller import Caller
from service.logs import Event
from sync.db import Transaction
from webhooks import divergences, sources
from webhooks.divergences import Divergence
from webhooks.forges import Forge
from webhooks.secrets import new_secret
from webhooks.sources import EVERY_WORKFLOW, POLL_SECONDS, Direction, Source
from webhooks.subscriptions import OVERLAP


@dataclass(frozen=True, slots=True)
class Webhook:
    """Values to enter in the settings of the repository at its forge. The secret cannot be read again."""

    url: str
    secret: str
    secret_as: str | None
    content_type: str
    events: list[str]


def hook_url(caller: Caller, source: Source) -> str:
    """Return the URL to which the source's forge sends its webhooks."""
    return f"{caller.services.config.public_url}/hooks/{source.id}"


def find(tx: Transaction, caller: Caller, source_id: str) -> Source:
    return lookup.find("source", source_id, partial(sources.source, tx, caller.project_id))


def create(
    caller: Caller,
    url: str,
    *,
    forge: str | None = None,
    credential: str | None = None,
    secret: str | None = None,
    layout: str = Layout.REFS,
    direction: str = Direction.PULL,
    workflows: Sequence[str] = EVERY_WORKFLOW,
    drafts: bool = False,
    poll_seconds: int = POLL_SECONDS,
) -> tuple[Source, Webhook]:
    """Create a source; return it and its webhook. `secret` is generated if it is None."""
    checked = sources.check_source(
        caller.services.egress, url, forge=forge, credential=credential, secret=secret
    )
    globs = sources.check_globs(workflows)
    sealer = caller.services.sealer()
    with caller.as_user() as tx:
        source, secret = sources.create(
            tx,
            sealer,
            caller.project_id,
            checked.url,
            forge=checked.forge,
            login=checked.login,
            secret=checked.secret,
            layout=Layout(layout),
            direction=Direction(direction),
            workflows=globs,
            drafts=drafts,
            poll_seconds=poll_seconds,
        )
        caller.audit(tx, "source.created", source.id, {"url": source.url, "direction": source.direction})
    caller.log(Event.SOURCE_CREATED, source=str(source.id), url=source.url)
    return source, _webhook(caller, source, secret)


def _webhook(caller: Caller, source: Source, secret: str) -> Webhook:
    profile = Forge(source.forge).profile
    url = hook_url(caller, source)
    return Webhook(url, secret, profile.enter_as, "application/json", list(profile.events))


def change(
    caller: Caller,
    source_id: str,
    *,
    credential: str | None = None,
    secret: str | None = None,
    **changes: Any,
) -> Source:
    """Change the source. An empty `credential` removes the credential.

    `changes` may hold the fields in `sources.CHANGEABLE`; what is not given is unchanged.
    """
    if "workflows" in changes:
        changes["workflows"] = sources.check_globs(changes["workflows"])
    given = {"credential": credential, "secret": secret, **changes}
    changed = sorted(name for name, value in given.items() if value is not None)
    with caller.as_user() as tx:
        row = find(tx, caller, source_id)
        forge = Forge(changes.get("forge", row.forge))
        source = sources.change(
            tx,
            caller.services.sealer(),
            caller.project_id,
            row.id,
            login=sources.read_credential(credential, forge) if credential else None,
            forget_login=credential == "",
            secret=sources.check_secret(secret, forge) if secret else None,
            **changes,
        )
        if source is None:
            raise lookup.not_found("source", source_id)
        caller.audit(tx, "source.changed", row.id, {"changed": changed})
    caller.log(Event.SOURCE_CHANGED, source=str(row.id))
    return source


def rotate(
    caller: Caller, source_id: str, overlap: timedelta = OVERLAP, secret: str | None = None
) -> tuple[Source, Webhook]:
    """Replace the webhook's secret by `secret` or a new one. The previous one is accepted for `overlap`."""
    with caller.as_user() as tx:
        row = find(tx, caller, source_id)
        new = sources.check_secret(secret, Forge(row.forge)) if secret else new_secret()
        sources.replace_secret(tx, caller.services.sealer(), caller.project_id, row.id, new, overlap)
        details = {"overlap_hours": overlap.total_seconds() / 3600}
        caller.audit(tx, "source.rotated", row.id, details)
    caller.log(Event.SOURCE_ROTATED, source=str(row.id))
    return row, _webhook(caller, row, new)


def delete(caller: Caller, source_id: str) -> None:
    """Stop following the source. Imported versions are kept."""
    with caller.as_user() as tx:
        row = find(tx, caller, source_id)
        if not sources.delete(tx, caller.project_id, row.id):
            raise lookup.not_found("source", source_id)
        caller.audit(tx, "source.deleted", row.id, {"url": row.url})
    caller.log(Event.SOURCE_DELETED, source=str(row.id))


def sync(caller: Caller, source_id: str) -> Source:
    """Let the worker sync the source now, and check known divergences again."""
    with caller.as_user() as tx:
        row = find(tx, caller, source_id)
        if row.paused:
            raise ConflictError(Code.SOURCE_PAUSED, "the source is paused: resume it to sync it")
        sources.request_sync(tx, caller.project_id, row.id)
        return find(tx, caller, source_id)


def resolve(caller: Caller, source_id: str, divergence_id: str, take: str) -> Divergence:
    """Resolve a divergence: the next sync takes theirs, ours is kept, or the difference is acknowledged."""
    known = lookup.uuid_of(divergence_id)
    with caller.as_user() as tx:
        row = find(tx, caller, source_id)
        if known is None:
            raise lookup.not_found("open divergence", divergence_id)
        divergence = divergences.resolve(tx, caller.project_id, row.id, known, take, caller.principal.name)
        caller.audit(tx, "divergence.resolved", row.id, {"ref": divergence.ref, "take": take})
    caller.log(Event.DIVERGENCE_RESOLVED, source=str(row.id), ref=divergence.ref, take=take)
    return divergence
