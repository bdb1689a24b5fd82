"""Actions on projects, their members and their access tokens."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection
from contextlib import closing
from datetime import datetime
from typing import Final
from uuid import UUID, uuid4

from gitstore import budget, schemas
from gitstore.definition.quoting import clip
from gitstore.errors import Code, ConflictError, ForbiddenError, GitstoreError, MalformedError
from gitstore.model import Rules
from gitstore.names import check_slug
from gitstore.repository import Repository
from gitstore.system import now
from service import logs, lookup
from service.access import Identity, Role, digest, new_token, unknown_project
from service.caller import Backend, Caller
from service.logs import Event
from service.projects import check_writable
from sync import audit, catalog, projects, reconcile, tokens
from sync.audit import Origin
from sync.catalog import Project
from sync.db import Transaction
from sync.projects import Member
from sync.tokens import Token
from sync.unit_of_work import MirrorUnitOfWork, exclusive
from webhooks.sources import WAKE

_WORD: Final = re.compile(r"[a-z0-9]+")
_MOST_WORDS: Final = 8
_LONGEST_STEM: Final = 50
MOST_FILE_NAMES: Final = 20
"""Names of files that a project may have had: each is looked for in a commit without the ones before."""
RECHECK_SECONDS: Final = 5.0
"""Seconds in which a change of rules checks drafts at once; the worker checks the others."""


def create(
    services: Backend,
    identity: Identity,
    origin: Origin,
    name: str,
    slug: str | None = None,
    rules: Rules = Rules.MESHHOOK,
) -> Project:
    """Create a project that the user owns; without `slug`, it gets a random one.

    Raises `project_exists`, and `limit_reached` for a user who owns GITSTORE_USER_PROJECTS.
    """
    most = services.config.user_projects
    if identity.kind != "user" or not most:
        whose = (
            "only operators create projects here" if not most else "an access token belongs to one project"
        )
        raise ForbiddenError(f"{whose}: ask an operator for a new project")
    made, slug = uuid4(), check_slug(slug) if slug is not None else _unused_slug(name)
    with services.database.as_user(identity.claims) as tx:
        if not projects.create_own(tx, made, slug, name, rules, most):
            message = f"you own {most} projects, the maximum for a user: delete one first"
            raise ConflictError(Code.LIMIT_REACHED, message, limit=most)
        audit.note(tx, made, origin, "project.created", slug, {"rules": rules.value})
        row = catalog.project_by_id(tx, made)
        services.projects.init(made)
    assert row is not None  # noqa: S101 - it was just inserted
    logs.action(Event.PROJECT_CREATED, project=slug, principal=identity.name)
    return row


def _unused_slug(name: str) -> str:
    words = "-".join(_WORD.findall(name.lower())[:_MOST_WORDS])[:_LONGEST_STEM].strip("-")
    return f"{words or 'project'}-{secrets.token_hex(3)}"


def change(
    caller: Caller,
    *,
    slug: str | None = None,
    name: str | None = None,
    rules: Rules | None = None,
    archived: bool | None = None,
    activate_invalid: bool | None = None,
    owner: UUID | str | None = None,
    file_name: str | None = None,
) -> Project:
    """Change the project; None leaves a field unchanged. New `rules` apply to drafts and later versions.

    Raises `project_exists` if another project has the slug.
    """
    given: dict[str, object] = {"slug": slug, "name": name, "rules": rules, "archived": archived}
    given |= {"activate_invalid": activate_invalid, "owner": owner, "file_name": file_name}
    changes = {name: str(value) for name, value in given.items() if value is not None}
    if slug is not None:
        check_slug(slug)
    known = caller.project.file_names
    if file_name is not None and file_name not in known and len(known) >= MOST_FILE_NAMES:
        message = f"the project has had {MOST_FILE_NAMES} names of files, as many as it may"
        raise ConflictError(Code.LIMIT_REACHED, message, limit=MOST_FILE_NAMES)
    if (rules is not None or file_name is not None) and archived is not False:
        check_writable(caller.project)
    new_owner = _user_id(str(owner)) if owner is not None else None
    with caller.as_user() as tx:
        if new_owner is not None:
            projects.transfer(tx, caller.project_id, new_owner)
        changed = projects.change(
            tx,
            caller.project_id,
            slug=slug,
            name=name,
            rules=rules,
            archived=archived,
            file_name=file_name,
            activate_invalid=activate_invalid,
        )
        if changed is None:
            raise unknown_project(caller.project.slug)
        caller.audit(tx, "project.changed", changed.slug, changes)
        if archived is False:
            tx.value(WAKE)  # its sources may be due
    caller.log(Event.PROJECT_CHANGED, changed=changes)
    if rules is not None:
        _recheck(caller, changed)
    return changed


def _recheck(caller: Caller, project: Project) -> None:
    budget.lift()
    with closing(caller.services.projects.reader(project)) as repository:
        writes = MirrorUnitOfWork(caller.services.database, repository)
        reconcile.recheck_drafts(writes, seconds=RECHECK_SECONDS)


def change_schema(caller: Caller, text: bytes | None, expected: Collection[str] | None) -> str:
    """Set the project's schema to `text`, or remove it, as `schemas.change` does; return its commit."""
    with caller.writing() as store, caller.as_user() as tx:
        commit = schemas.change(store, text, caller.actors().actor, expected)
        changes = {"schema": commit if text is not None else "removed"}
        caller.audit(tx, "project.changed", caller.project.slug, changes)
    caller.log(Event.PROJECT_CHANGED, changed=changes)
    _recheck(caller, caller.project)
    return commit


def try_schema(caller: Caller, text: bytes) -> schemas.Trial:
    """Return which drafts a schema would fail, as far as that is known in time; raises `schema_invalid`."""
    budget.lift()
    with caller.opened() as repository:
        return schemas.attempt(repository, text, RECHECK_SECONDS)


def delete(caller: Caller, named: str | None) -> None:
    """Delete the archived project with all of its rows; its repository moves to the trash.

    `named` must be its slug. Raises `project_not_archived`.
    """
    project, services = caller.project, caller.services
    if named != project.slug:
        raise MalformedError(
            f"confirm the deletion with the project's slug: {project.slug}", project=project.slug
        )
    with caller.as_user() as tx:  # the tables' owner, who deletes the rows, bypasses policies
        if projects.change(tx, project.id) is None:
            raise unknown_project(project.slug)
    repository, kept = Repository(services.projects.path(project.id), project.id), None
    try:
        with (
            closing(repository),
            exclusive(services.database.upkeep, [repository], services.database.lock_seconds) as tx,
        ):
            projects.delete(tx, project.id)
            kept = services.projects.discard(project.id)
    except BaseException:
        if kept is not None:
            services.projects.put_back(project.id, kept)
        raise
    caller.log(Event.PROJECT_DELETED, id=str(project.id), kept=kept and kept.name)


# Members


def member(caller: Caller, user: str) -> Member:
    """Return a member of the project; raises `not_found`."""
    with caller.reading() as tx:
        return lookup.find("member", user, lambda known: projects.member(tx, caller.project_id, known))


def set_member(caller: Caller, user: str, role: Role) -> Member:
    """Set the role of a user in the project. Raises `last_owner`."""
    known = _user_id(user)
    with caller.as_user() as tx:
        projects.set_member(tx, caller.project_id, known, role.value)
        caller.audit(tx, "member.changed", known, {"role": role.value})
        row = projects.member(tx, caller.project_id, known)
    assert row is not None  # noqa: S101 - it was written, and owners see it
    caller.log(Event.MEMBER_CHANGED, member=str(known), role=role.value)
    return row


def remove_member(caller: Caller, user: str) -> None:
    """Remove a member from the project. Raises `last_owner` and `not_found`."""
    with caller.as_user() as tx:
        row = lookup.find("member", user, lambda known: projects.member(tx, caller.project_id, known))
        # Recorded first: a user who leaves the project may not write to its audit log afterwards.
        caller.audit(tx, "member.removed", row.user_id, {"role": row.role})
        projects.remove_member(tx, caller.project_id, row.user_id)
    caller.log(Event.MEMBER_REMOVED, member=str(row.user_id))


def _user_id(text: str) -> UUID:
    known = lookup.uuid_of(text)
    if known is None:
        raise MalformedError(f"{clip(text)!r} is not the id of a user: a UUID is expected")
    return known


# Access tokens


def create_token(
    caller: Caller, name: str, role: str, expires_at: datetime | None = None
) -> tuple[Token, str]:
    """Create a token; return it and its secret, which is not stored."""
    if expires_at is not None and expires_at <= now():
        raise MalformedError("expires_at is in the past")
    with caller.as_user() as tx:
        token, secret = insert_token(tx, caller.project_id, caller.origin, name, role, expires_at)
    caller.log(Event.TOKEN_CREATED, created=str(token.id), role=token.role)
    return token, secret


def insert_token(
    tx: Transaction,
    project_id: UUID,
    origin: Origin,
    name: str,
    role: str,
    expires_at: datetime | None = None,
) -> tuple[Token, str]:
    """Create a token within a transaction, as `create_token` does."""
    secret = new_token()
    token = tokens.create(tx, project_id, name, str(role), digest(secret), expires_at)
    audit.note(tx, project_id, origin, "token.created", str(token.id), {"name": name, "role": token.role})
    return token, secret


def revoke_token(caller: Caller, token_id: str) -> None:
    """Revoke the token: it stops working immediately. Raises `not_found` if it is not active."""
    known = lookup.uuid_of(token_id)
    with caller.as_user() as tx:
        # Recorded first: the last action of a token may be to revoke itself.
        caller.audit(tx, "token.revoked", known, {})
        if known is None or not tokens.revoke(tx, caller.project_id, known):
            raise no_active_token(token_id)
    caller.log(Event.TOKEN_REVOKED, revoked=str(known))


def no_active_token(token_id: str) -> GitstoreError:
    """Return the error for a token that is revoked or does not exist."""
    return lookup.not_found("active token", token_id)
