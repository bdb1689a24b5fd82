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
from webhooks import sources, subscriptions
from webhooks.secrets import Sealer, new_secret

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
    where subscription_id = %(owner)s and (retires_at is null or retires_at > now()) and id <> all(%(rows)s)
"""
_EXPLAIN: Final[LiteralString] = """
    update gitstore.subscriptions set reason = %(why)s where id = %(owner)s and state = 'paused'
"""
_DROP_CREDENTIAL: Final[LiteralString] = """
    update gitstore.sources set sealed_credential = null, has_credential = false, paused = true,
        last_error = %(why)s
    where id = %(owner)s
"""
_ROTATE: Final = "its secret was lost with the key that sealed it: rotate it, then activate it"
_ENTER: Final = "its credential was lost with the key that sealed it: enter it again, then resume it"


def lost(tx: Transaction, sealer: Sealer | None) -> list[Lost]:
    """Return each secret in use that `sealer` cannot decrypt. Without a sealer, return all of them."""
    secrets = []
    for owner, row, project_id, slug, sealed in tx.tuples(_SIGNING):
        if not _opens(sealer, subscriptions.purpose(owner), sealed):
            secrets.append(Lost("signing secret", owner, row, project_id, slug))
    for owner, project_id, slug, secret, credential in tx.tuples(_SOURCES):
        if not _opens(sealer, sources.secret_purpose(owner), secret):
            secrets.append(Lost("webhook secret", owner, owner, project_id, slug))
        if credential is not None and not _opens(sealer, sources.credential_purpose(owner), credential):
            secrets.append(Lost("credential", owner, owner, project_id, slug))
    return secrets


def _opens(sealer: Sealer | None, purpose: str, sealed: str) -> bool:
    try:
        return sealer is not None and bool(sealer.open(purpose, sealed))
    except GitstoreError:
        return False


def reset(tx: Transaction, sealer: Sealer, lost_secrets: Sequence[Lost], origin: Origin) -> Iterator[str]:
    """Discard `lost_secrets`, with an audit row for each. Yield one line of instructions per secret.

    A subscription that has no other secret gets a random one and is paused, so that its deliveries are held
    until its owner has rotated the secret. A source that loses its credential is paused.
    """
    rows = [secret.row for secret in lost_secrets]
    for secret in lost_secrets:
        yield f"{secret.project}: {secret.noun} {secret.owner}: {_reset(tx, sealer, secret, rows)}"
        audit.note(
            tx,
            secret.project_id,
            origin,
            f"{secret.noun}.secret_lost",
            str(secret.owner),
            {"secret": secret.kind},
        )


def _reset(tx: Transaction, sealer: Sealer, secret: Lost, rows: list[UUID]) -> str:
    match secret.kind:
        case "signing secret":
            tx.run(_DROP, row=secret.row)
            if tx.value(_SIGNS, owner=secret.owner, rows=rows):
                return "one of its secrets was lost and is removed; another one signs"
            subscriptions.add_secret(tx, sealer, secret.owner, secret.project_id)
            current = subscriptions.subscription(tx, secret.project_id, secret.owner)
            if current is not None and current.state == "active":
                subscriptions.change(tx, secret.project_id, secret.owner, state="paused")
            tx.run(_EXPLAIN, owner=secret.owner, why=_ROTATE)
            return _ROTATE
        case "webhook secret":
            sources.change(tx, sealer, secret.project_id, secret.owner, secret=new_secret())
            return "its webhook secret was lost: set a new one here and in the forge (polling goes on)"
        case "credential":
            tx.run(_DROP_CREDENTIAL, owner=secret.owner, why=_ENTER)
            return _ENTER
