"""Sources: remote repositories that a project pulls from or pushes to, as rows, and the input of owners.

Functions take a transaction from `Database.as_user(claims)`; row-level security restricts reading and writing
to the owners of the project. The credential and the webhook secret are sealed, and only the worker reads them
again. webhooks/source_sync.py synchronizes sources.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, Final, Literal, LiteralString, TypeVar
from urllib.parse import unquote
from uuid import UUID, uuid4

from gitstore import names
from gitstore.definition.quoting import clip
from gitstore.errors import Code, ConflictError, MalformedError
from gitstore.upstream.refs import Layout
from gitstore.upstream.remote import Credential
from sync.db import Transaction
from webhooks.addresses import refused
from webhooks.egress import Egress
from webhooks.forges import Forge, detect
from webhooks.secrets import Sealer, is_secret, new_secret

MOST: Final = 20
"""Largest number of sources of a project. Each is polled every few minutes."""
EVERY_WORKFLOW: Final = ("*",)
POLL_SECONDS: Final = 300
SHORTEST_POLL: Final = 10
LONGEST_POLL: Final = 86_400
CHANGEABLE: Final = ("forge", "layout", "direction", "workflows", "drafts", "poll_seconds", "paused")
"""The fields that an owner may change, besides the credential and the secret."""
CHANNEL: Final = "gitstore_sources"
WAKE: Final[LiteralString] = "select pg_notify('gitstore_sources', '')"
"""Notifies the workers of a due source."""

T = TypeVar("T")
State = Literal["new", "ok", "failing", "paused", "poison"]


class Direction(StrEnum):
    """The direction in which versions and drafts are synchronized."""

    PULL = "pull"
    PUSH = "push"
    BOTH = "both"

    @property
    def pulls(self) -> bool:
        return self is not Direction.PUSH

    @property
    def pushes(self) -> bool:
        return self is not Direction.PULL


@dataclass(frozen=True, slots=True)
class Filter:
    """The selection of what a source syncs, in both directions.

    `workflows` are globs, of which a slug must match one. Drafts are synced only if `drafts` is true.
    """

    workflows: Sequence[str] = EVERY_WORKFLOW
    drafts: bool = False

    def includes(self, ref: bytes) -> bool:
        """Return whether a draft or a version, or a ref that only looks like one, is synced.

        A misnamed ref has no slug, and is taken for the one that it resembles: `Order_A` matches `order-*`.
        """
        if ref.startswith(names.DRAFTS) and not self.drafts:
            return False
        if "*" in self.workflows:
            return True
        target = names.parse(ref) or names.misnamed(ref)
        if target is None:
            return False
        slug = target.slug.lower().replace("_", "-")
        return any(fnmatchcase(slug, glob) for glob in self.workflows)

    def select(self, facts: Mapping[str, T]) -> dict[str, T]:
        """Return the facts, by ref, about the refs that are synced."""
        return {ref: fact for ref, fact in facts.items() if self.includes(ref.encode())}


@dataclass(frozen=True, slots=True)
class Source:
    """A source of a project.

    `due_at` is the time of the next sync. `previous_secret_until` is set while the webhook may be signed with
    the previous secret, too. `report` describes the changes of the last sync that made any.
    """

    id: UUID
    project_id: UUID
    url: str
    forge: str
    layout: str
    direction: str
    workflows: list[str]
    drafts: bool
    poll_seconds: int
    paused: bool
    has_credential: bool
    previous_secret_until: datetime | None
    created_at: datetime
    due_at: datetime
    tried_at: datetime | None
    succeeded_at: datetime | None
    failures: int
    poisoned_at: datetime | None
    last_error: str | None
    report: dict[str, Any]

    @property
    def state(self) -> State:
        """Return the state. A `poison` source crashed and waits until an owner syncs or changes it."""
        if self.paused:
            return "paused"
        if self.poisoned_at:
            return "poison"
        if self.failures:
            return "failing"
        return "ok" if self.succeeded_at else "new"


_SELECT: Final[LiteralString] = """
    select id, project_id, url, forge, layout, direction, workflows, drafts, poll_seconds, paused,
        has_credential,
        case when previous_secret_until > now() then previous_secret_until end as previous_secret_until,
        created_at, due_at, tried_at, succeeded_at, failures, poisoned_at, last_error, report
    from gitstore.sources where project_id = %(project)s
"""
_LIST: Final[LiteralString] = _SELECT + " order by created_at, id"
_ONE: Final[LiteralString] = _SELECT + " and id = %(id)s"
_CREATE: Final[LiteralString] = """
    insert into gitstore.sources (id, project_id, url, forge, layout, direction, workflows, drafts,
        poll_seconds, has_credential, sealed_credential, sealed_secret)
    values (%(id)s, %(project)s, %(url)s, %(forge)s, %(layout)s, %(direction)s, %(workflows)s, %(drafts)s,
        %(poll_seconds)s, %(has_credential)s, %(credential)s, %(secret)s)
"""
# A change may fix the cause of earlier failures, so the source is due at once for a full sync.
_CHANGE: Final[LiteralString] = """
    update gitstore.sources set forge = coalesce(%(forge)s, forge), layout = coalesce(%(layout)s, layout),
        direction = coalesce(%(direction)s, direction),
        workflows = coalesce(%(workflows)s, workflows), drafts = coalesce(%(drafts)s, drafts),
        poll_seconds = coalesce(%(poll_seconds)s, poll_seconds), paused = coalesce(%(paused)s, paused),
        due_at = now(), full_sync = true, crashes = 0, poisoned_at = null
    where project_id = %(project)s and id = %(id)s
"""
_SET_CREDENTIAL: Final[LiteralString] = """
    update gitstore.sources set has_credential = %(credential)s::text is not null,
        sealed_credential = %(credential)s
    where project_id = %(project)s and id = %(id)s
"""
# A request has no right to read a secret, nor to delete; the functions check that the caller is an owner.
_REPLACE: Final[LiteralString] = (
    "select gitstore.replace_source_secret(%(project)s, %(id)s, %(secret)s, %(overlap)s)"
)
_DELETE: Final[LiteralString] = "select gitstore.delete_source(%(project)s, %(id)s)"
_REQUEST_SYNC: Final[LiteralString] = """
    update gitstore.sources set due_at = now(), full_sync = true, crashes = 0, poisoned_at = null
    where project_id = %(project)s and id = %(id)s
"""


# Rows


def sources(tx: Transaction, project_id: UUID) -> list[Source]:
    """Return the sources of a project, oldest first."""
    return tx.rows(Source, _LIST, project=project_id)


def source(tx: Transaction, project_id: UUID, source_id: UUID) -> Source | None:
    return tx.row(Source, _ONE, project=project_id, id=source_id)


def create(
    tx: Transaction,
    sealer: Sealer,
    project_id: UUID,
    url: str,
    *,
    forge: Forge,
    login: Credential | None = None,
    secret: str | None = None,
    layout: Layout = Layout.REFS,
    direction: Direction = Direction.PULL,
    workflows: Sequence[str] = EVERY_WORKFLOW,
    drafts: bool = False,
    poll_seconds: int = POLL_SECONDS,
) -> tuple[Source, str]:
    """Create a source that is due at once. Return it and the secret of its webhook.

    The caller has checked `url` and removed any credential from it. Raises `limit_reached`, `source_exists`.
    """
    existing = sources(tx, project_id)
    if len(existing) >= MOST:
        raise ConflictError(Code.LIMIT_REACHED, f"a project has at most {MOST} sources", limit=MOST)
    if any(row.url == url for row in existing):
        raise ConflictError(Code.SOURCE_EXISTS, "the project has a source with this URL already")
    source_id, secret = uuid4(), secret or new_secret()
    tx.run(
        _CREATE,
        id=source_id,
        project=project_id,
        url=url,
        forge=forge.value,
        layout=layout.value,
        direction=direction.value,
        workflows=list(workflows),
        drafts=drafts,
        poll_seconds=poll_seconds,
        has_credential=login is not None,
        credential=_sealed_credential(sealer, source_id, login),
        secret=sealer.seal(secret_purpose(source_id), secret),
    )
    tx.value(WAKE)
    (created,) = tx.rows(Source, _ONE, project=project_id, id=source_id)
    return created, secret


def change(
    tx: Transaction,
    sealer: Sealer,
    project_id: UUID,
    source_id: UUID,
    *,
    login: Credential | None = None,
    forget_login: bool = False,
    secret: str | None = None,
    **changes: object,
) -> Source | None:
    """Change the given fields and return the source, or None if it does not exist.

    `changes` may hold the fields in CHANGEABLE.
    """
    key = {"project": project_id, "id": source_id}
    tx.run(_CHANGE, **key, **{**dict.fromkeys(CHANGEABLE), **changes})
    if login is not None or forget_login:
        tx.run(_SET_CREDENTIAL, **key, credential=_sealed_credential(sealer, source_id, login))
    if secret is not None:
        replace_secret(tx, sealer, project_id, source_id, secret)
    tx.value(WAKE)
    return source(tx, project_id, source_id)


def replace_secret(
    tx: Transaction,
    sealer: Sealer,
    project_id: UUID,
    source_id: UUID,
    secret: str,
    overlap: timedelta = timedelta(),
) -> None:
    """Replace the secret of the webhook. Deliveries with the previous one are accepted for `overlap`.

    At most two secrets are accepted: a rotation during another one ends the overlap of the first.
    """
    sealed = sealer.seal(secret_purpose(source_id), secret)
    tx.value(_REPLACE, project=project_id, id=source_id, secret=sealed, overlap=overlap)


def delete(tx: Transaction, project_id: UUID, source_id: UUID) -> bool:
    """Delete a source and return whether it existed. Imported versions and drafts are kept."""
    return bool(tx.value(_DELETE, project=project_id, id=source_id))


def request_sync(tx: Transaction, project_id: UUID, source_id: UUID) -> bool:
    """Request an immediate full sync. Return whether the source exists."""
    exists = tx.run(_REQUEST_SYNC, project=project_id, id=source_id) > 0
    tx.value(WAKE)
    return exists


# Secrets


def secret_purpose(source_id: UUID) -> str:
    """Return the purpose for which the source's webhook secret is sealed."""
    return f"source {source_id} webhook"


def opened_credential(sealer: Sealer, source_id: UUID, sealed: str | None) -> Credential | None:
    if sealed is None:
        return None
    user, password = json.loads(sealer.open(credential_purpose(source_id), sealed))
    return Credential(user, password)


def _sealed_credential(sealer: Sealer, source_id: UUID, login: Credential | None) -> str | None:
    if login is None:
        return None
    return sealer.seal(credential_purpose(source_id), json.dumps([login.username, login.password]))


def credential_purpose(source_id: UUID) -> str:
    """Return the purpose for which the source's credential is sealed."""
    return f"source {source_id} credential"


# Input of owners

MOST_GLOBS: Final = 50
"""Largest number of globs of a source. Each is compared with each ref of the upstream."""
LONGEST_GLOB: Final = 63

_URL: Final = re.compile(r"(https?)://(?:([^/@?#\\]*+)@)?([^@?#\\]++)", re.IGNORECASE)
_SECRET: Final = re.compile(r"[!-~]{12,256}")
_VISIBLE: Final = re.compile(r"[!-~]{1,1000}")
_GLOB: Final = re.compile(rf"[a-z0-9*?-]{{1,{LONGEST_GLOB}}}")


@dataclass(frozen=True, slots=True)
class SourceInput:
    """The checked input for a new source. `secret` is None where one has to be generated."""

    url: str
    forge: Forge
    login: Credential | None
    secret: str | None


def check_source(
    egress: Egress, url: str, *, forge: str | None, credential: str | None, secret: str | None
) -> SourceInput:
    """Check and complete the input. Raises `address_refused` or `malformed`."""
    bare, url_credential = split_url(url, egress)
    sender = Forge(forge) if forge else detect(bare)
    if credential and url_credential:
        raise MalformedError("the credential is given twice: remove it from the URL")
    login = credential or url_credential
    return SourceInput(
        bare,
        sender,
        read_credential(login, sender) if login else None,
        check_secret(secret, sender) if secret else None,
    )


def split_url(url: str, egress: Egress) -> tuple[str, str | None]:
    """Return the URL without its credential, and the credential. Raises `address_refused`.

    URLs are shown and logged; a credential in one is therefore removed and stored encrypted.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise refused("a source is an http:// or https:// URL of a repository, without ? and #")
    scheme, user, rest = match.groups()
    target = egress.check(f"{scheme}://{rest}")
    return str(target).rstrip("/"), unquote(user) if user else None


def read_credential(text: str, forge: Forge) -> Credential:
    """Return the credential in `user:password`, or in an access token alone. Raises `malformed`."""
    if not _VISIBLE.fullmatch(text):
        raise MalformedError("a credential is user:password or an access token, in visible ASCII characters")
    user, colon, password = text.partition(":")
    return Credential(user, password) if colon else Credential(forge.profile.token_user, text)


def check_secret(secret: str, forge: Forge) -> str:
    """Return `secret`, or raise `malformed` if it cannot be a webhook secret of `forge`."""
    if not _SECRET.fullmatch(secret):
        raise MalformedError("a webhook secret has 12 to 256 visible ASCII characters")
    if forge is Forge.ANY and not is_secret(secret):
        raise MalformedError("a secret of Standard Webhooks has the form whsec_<base64>")
    return secret


def check_globs(globs: Sequence[str]) -> list[str]:
    """Return `globs` without repetitions, or raise `malformed` if they cannot select workflows."""
    unique = list(dict.fromkeys(globs))
    if not 1 <= len(unique) <= MOST_GLOBS:
        raise MalformedError(f"name 1 to {MOST_GLOBS} globs of workflows; * selects all workflows")
    for glob in unique:
        if not _GLOB.fullmatch(glob):
            raise MalformedError(
                f"{clip(glob)!r} is not a glob of workflows: use 1 to {LONGEST_GLOB} of a-z, 0-9, '-', "
                "'?' (one character) and '*' (any number of characters)"
            )
    return unique
