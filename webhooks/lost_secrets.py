"""Find and reset sealed secrets that cannot be decrypted with the configured keys.

A key is lost with its file or replaced by a wrong setting. Secrets sealed with it stay in the rows and can be
decrypted again once the key is restored. `reset` is for a key that is lost for good.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, LiteralString
from uuid import UUID

from gitstore.errors import GitstoreError
from sync import audit
from sync.audit import Origin
from sync.db import Transaction
from webhooks import signature, sources, subscriptions
from webhooks.secrets import Sealer

Kind = Literal["signing secret", "webhook secret", "credential"]


@dataclass(frozen=True, slots=True)
class Lost:
    """A secret that cannot be decrypted.

    `owner` is the id of its subscription (for a signing secret) or source, `row` the id of the row that
    stores it, and `project` the project's slug.
    """

    kind: Kind
    owner: UUID
    row: UUID
    project_id: UUID
    project: str

    @property
    def noun(self) -> str:
        return "subscription" if self.kind == "signing secret" else "source"


_SIGNING: Final[LiteralString] = """
    select k.subscription_id, k.id, k.project_id, p.slug, k.sealed
    from gitstore.subscription_secrets k join gitstore.projects p on p.id = k.project_id
    where k.retires_at is null or k.retires_at > now()
    order by p.slug, k.subscription_id, k.created_at
"""
_SOURCES: Final[LiteralString] = """
    select s.id, s.project_id, p.slug, s.sealed_secret, s.sealed_credential
    from gitstore.sources s join gitstore.projects p on p.id = s.project_id
    order by p.slug, s.created_at, s.id
"""
_DROP: Final[LiteralString] = "delete from gitstore.subscription_secrets where id = %(row)s"
_SIGNS: Final[LiteralString] = """
    select count(*) from gitstore.subscription_secrets
    where subscription_id = %(owner)s and (retires_at is null or retires_at > now()) and id <> all(%(gone)s)
"""
_EXPLAIN: Final[LiteralString] = """
    update gitstore.subscriptions set reason = %(why)s where id = %(owner)s and state = 'paused'
"""
_DROP_CREDENTIAL: Final[LiteralString] = """
    update gitstore.sources set sealed_credential = null, has_credential = false, paused = true,
        last_error = %(why)s
    where id = %(owner)s
"""
_ROTATE: Final = "its secret was lost with the key that sealed it: rotate it, then make it active"
_ENTER: Final = "its credential was lost with the key that sealed it: enter it again, then resume it"


def lost(tx: Transaction, sealer: Sealer | None) -> list[Lost]:
    """Return each secret in use that `sealer` cannot decrypt. Without a sealer, return all of them."""
    return list(_lost(tx, sealer))


def _lost(tx: Transaction, sealer: Sealer | None) -> Iterator[Lost]:
    for owner, row, project_id, slug, sealed in tx.tuples(_SIGNING):
        if not _opens(sealer, subscriptions.purpose(owner), sealed):
            yield Lost("signing secret", owner, row, project_id, slug)
    for owner, project_id, slug, secret, credential in tx.tuples(_SOURCES):
        if not _opens(sealer, sources.secret_purpose(owner), secret):
            yield Lost("webhook secret", owner, owner, project_id, slug)
        if credential is not None and not _opens(sealer, sources.credential_purpose(owner), credential):
            yield Lost("credential", owner, owner, project_id, slug)


def _opens(sealer: Sealer | None, purpose: str, sealed: str) -> bool:
    try:
        return sealer is not None and bool(sealer.open(purpose, sealed))
    except GitstoreError:
        return False


def reset(tx: Transaction, sealer: Sealer, found: Sequence[Lost], origin: Origin) -> Iterator[str]:
    """Discard the secrets `found`, with an audit row for each. Yield one line of instructions per secret.

    A subscription that has no other secret gets a random one and is paused, so that its deliveries are held
    until its owner has rotated the secret. A source that loses its credential is paused.
    """
    gone = [one.row for one in found]
    for one in found:
        yield f"{one.project}: {one.noun} {one.owner}: {_reset(tx, sealer, one, gone)}"
        audit.note(
            tx, one.project_id, origin, f"{one.noun}.secret_lost", str(one.owner), {"secret": one.kind}
        )


def _reset(tx: Transaction, sealer: Sealer, one: Lost, gone: list[UUID]) -> str:
    match one.kind:
        case "signing secret":
            tx.run(_DROP, row=one.row)
            if tx.value(_SIGNS, owner=one.owner, gone=gone):
                return "one of its secrets was lost and is removed; another one signs"
            subscriptions.sign_with(tx, sealer, one.owner, one.project_id)
            current = subscriptions.subscription(tx, one.project_id, one.owner)
            if current is not None and current.state == "active":
                subscriptions.change(tx, one.project_id, one.owner, state="paused")
            tx.run(_EXPLAIN, owner=one.owner, why=_ROTATE)
            return _ROTATE
        case "webhook secret":
            sources.change(tx, sealer, one.project_id, one.owner, secret=signature.new_secret())
            return "its webhook secret was lost: set a new one here and in the forge (it is polled meanwhile)"
        case "credential":
            tx.run(_DROP_CREDENTIAL, owner=one.owner, why=_ENTER)
            return _ENTER
