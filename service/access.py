"""Access: tokens, the roles and their permissions, and the boundary of a principal's project.

    viewer < editor < publisher < owner         each role includes the permissions of the roles before it

This is the only place that authorizes. Postgres' row-level security repeats the rules for reads, from the
claims alone.

An access token is `gst_` and 43 characters of base64url (RFC 4648 section 5), 32 random bytes. Postgres
stores its SHA-256, which suffices for a secret with this much entropy.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal
from uuid import UUID

from gitstore.definition.quoting import clip
from gitstore.errors import Code, ForbiddenError, NotFoundError
from gitstore.model import Actor, Permission, Person
from service.issuers import User
from sync.catalog import Project
from sync.db import Claims, token_claims

_PREFIX: Final = "gst_"
_TOKEN: Final = re.compile(_PREFIX + r"[A-Za-z0-9_-]{43}")


class Role(StrEnum):
    """Roles of a token or a member in a project, in ascending order of permissions."""

    VIEWER = "viewer"
    EDITOR = "editor"
    PUBLISHER = "publisher"
    OWNER = "owner"


@dataclass(frozen=True, slots=True)
class Identity:
    """Authenticated actor, before a project is chosen. `user` is None for all but users."""

    id: UUID
    name: str
    kind: Literal["token", "user", "operator"]
    user: User | None = field(default=None, kw_only=True)

    @classmethod
    def of(cls, user: User) -> Identity:
        return Identity(user.id, user.person.name or str(user.id), "user", user=user)

    @property
    def claims(self) -> Claims:
        """Claims that row-level security evaluates."""
        return self.user.claims if self.user else token_claims(self.id)

    @property
    def person(self) -> Person:
        """The actor as the ledger and commits record it."""
        if self.user:
            email = self.user.person.email or f"{self.id}@users.gitstore"
            return Actor(self.name, email, self.user.issuer, self.user.subject)
        return Person(f"{self.kind}:{self.name}", f"{self.id}@tokens.gitstore")


@dataclass(frozen=True, slots=True)
class Principal(Identity):
    """Authenticated actor with a role in one project: its own, or the one that its request names."""

    project: Project
    role: Role
    visible: UUID | None = None
    """The id of the project, if row-level security showed it to the actor at authentication."""


@dataclass(frozen=True, slots=True)
class Who:
    """An actor, as Git records it: the display name, and the kind of actor that has it."""

    name: str
    kind: Literal["token", "user", "operator", "source"]


def who(recorded: str) -> Who:
    """Return the display name for a name in Git, without the kind that `Identity.person` adds."""
    prefix, _, name = recorded.partition(":")
    match prefix:
        case "token" | "source" | "operator" if name:
            return Who(name, prefix)
    return Who(recorded, "user")


NEEDED: Final = {
    Permission.READ: Role.VIEWER,
    Permission.EDIT: Role.EDITOR,
    Permission.PUBLISH: Role.PUBLISHER,
    Permission.OWN: Role.OWNER,
}
_RANK: Final = {role: rank for rank, role in enumerate(Role)}


def may(principal: Principal, permission: Permission) -> bool:
    """Return whether the principal has `permission` in its project."""
    return includes(principal.role, permission)


def includes(role: Role, permission: Permission) -> bool:
    """Return whether holders of `role` have `permission`."""
    return _RANK[role] >= _RANK[NEEDED[permission]]


def authorize(principal: Principal, permission: Permission, what: str) -> None:
    """Raise `forbidden` unless the principal has the permission.

    `what`, such as "publishing order-sync", appears in the message.
    """
    authorize_role(principal, NEEDED[permission], what)


def has_role(principal: Principal, needed: str) -> bool:
    """Return whether the principal has at least the role `needed`, by its name."""
    return _RANK[principal.role] >= _RANK[Role(needed)]


def authorize_role(principal: Principal, needed: str, what: str) -> None:
    """Raise `forbidden` unless the principal has at least the role `needed`, by its name."""
    if not has_role(principal, needed):
        raise ForbiddenError(
            f"{what} requires the role {needed}; {principal.name!r} has the role {principal.role}",
            needed=needed,
            role=principal.role.value,
        )


def check_acting(principal: Principal) -> None:
    """Raise `forbidden` unless the principal is a program that may act for users."""
    if principal.kind != "token":
        raise ForbiddenError(f"acting for a user requires an access token; {principal.name!r} is a user")
    authorize(principal, Permission.PUBLISH, "acting for a user")


def check_project(principal: Principal, named: str | None) -> None:
    """Raise `project_not_found` unless `named`, a slug or an id, is the principal's own project, or None.

    Another tenant's project and one that does not exist give the same error.
    """
    if named is None or named in (principal.project.slug, str(principal.project.id)):
        return
    raise unknown_project(named)


def unknown_project(named: str) -> NotFoundError:
    return NotFoundError(Code.PROJECT_NOT_FOUND, f"there is no project {clip(named)!r}")


def new_token(random: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """Return a new token. The caller shows it once and stores its digest."""
    return _PREFIX + base64.urlsafe_b64encode(random(32)).rstrip(b"=").decode()


def is_token(text: str) -> bool:
    """Return whether `text` has the form of a token; text without it needs no lookup."""
    return _TOKEN.fullmatch(text) is not None


def digest(token: str) -> bytes:
    """Return the SHA-256 (32 bytes) under which Postgres stores the token."""
    return hashlib.sha256(token.encode()).digest()
