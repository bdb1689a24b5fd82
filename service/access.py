"""Who may do what: the roles, and where a principal's say ends. The one home of authorization.

    viewer < editor < publisher < owner         each may what the ones before it may

Postgres' row-level security says the same again, from the claims alone, for what is read.
"""

from __future__ import annotations

from typing import Final

from gitstore.definition.quoting import clip
from gitstore.errors import Code, GitstoreError
from gitstore.model import Permission
from service.auth import Principal, Role

NEEDED: Final = {
    Permission.READ: Role.VIEWER,
    Permission.EDIT: Role.EDITOR,
    Permission.PUBLISH: Role.PUBLISHER,
    Permission.OWN: Role.OWNER,
}
_RANK: Final = {role: rank for rank, role in enumerate(Role)}


def may(principal: Principal, permission: Permission) -> bool:
    """Whether the principal has `permission` in its project."""
    return _RANK[principal.role] >= _RANK[NEEDED[permission]]


def authorize(principal: Principal, permission: Permission, what: str) -> None:
    """Raise `forbidden` unless the principal may; `what`, as "publishing order-sync", is for people."""
    if not may(principal, permission):
        needed = NEEDED[permission]
        raise GitstoreError(
            Code.FORBIDDEN,
            f"{what} needs the role {needed}; {principal.name!r} is {principal.role}",
            needed=needed.value,
            role=principal.role.value,
        )


def check_project(principal: Principal, named: str | None) -> None:
    """Raise `project_not_found` where `named`, a slug or an id, is not the principal's own project.

    Another tenant's project and one that does not exist are the same to it.
    """
    if named is None or named in (principal.project.slug, str(principal.project.id)):
        return
    raise GitstoreError(Code.PROJECT_NOT_FOUND, f"there is no project {clip(named)!r}")
