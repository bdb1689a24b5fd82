"""Actions on projects and their members: change, archive, delete; give a role, take it away."""

from __future__ import annotations

from contextlib import closing
from typing import Final
from uuid import UUID

from gitstore import budget
from gitstore.definition.quoting import clip
from gitstore.errors import Code, MalformedError, NotFoundError
from gitstore.model import Rules
from gitstore.names import check_slug
from gitstore.repository import Repository
from service import lookup
from service.access import Role
from service.caller import Caller
from service.logs import Event
from service.projects import check_writable
from sync import projects, reconcile
from sync.catalog import Project
from sync.projects import Member
from sync.unit_of_work import MirrorUnitOfWork, exclusive

RECHECK_SECONDS: Final = 5.0
"""Seconds in which a change of rules checks drafts at once; the worker checks the others."""


def change(
    caller: Caller,
    *,
    slug: str | None = None,
    name: str | None = None,
    rules: Rules | None = None,
    archived: bool | None = None,
    owner: UUID | None = None,
) -> Project:
    """Change the project; what is None is unchanged. New `rules` hold for drafts and later versions.

    Raises `project_exists` if another project has the slug.
    """
    given = {"slug": slug, "name": name, "rules": rules, "archived": archived, "owner": owner}
    changes = {name: str(value) for name, value in given.items() if value is not None}
    if slug is not None:
        check_slug(slug)
    if rules is not None and archived is not False:
        check_writable(caller.project)
    with caller.as_user() as tx:
        if owner is not None:
            projects.transfer(tx, caller.project_id, owner)
        changed = projects.change(tx, caller.project_id, slug=slug, name=name, rules=rules, archived=archived)
        if changed is None:
            raise NotFoundError(Code.PROJECT_NOT_FOUND, f"there is no project {caller.project.slug!r}")
        caller.audit(tx, "project.changed", changed.slug, changes)
    caller.log(Event.PROJECT_CHANGED, changed=changes)
    if rules is not None:
        _recheck(caller, changed)
    return changed


def _recheck(caller: Caller, project: Project) -> None:
    budget.lift()
    with closing(caller.services.projects.reader(project)) as repository:
        writes = MirrorUnitOfWork(caller.services.database, repository)
        reconcile.recheck_drafts(writes, seconds=RECHECK_SECONDS)


def delete(caller: Caller, named: str | None) -> None:
    """Delete the archived project with all of its rows; its repository moves to the trash.

    `named` must be its slug. Raises `project_not_archived`.
    """
    project, services = caller.project, caller.services
    if named != project.slug:
        raise MalformedError(f"name the project to delete it: {project.slug}", project=project.slug)
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
    """Give a user a role in the project, or another one. Raises `last_owner`."""
    known = lookup.uuid_of(user)
    if known is None:
        raise MalformedError(f"{clip(user)!r} is not the id of a user: a UUID is expected")
    with caller.as_user() as tx:
        projects.set_member(tx, caller.project_id, known, role.value)
        caller.audit(tx, "member.changed", known, {"role": role.value})
        row = projects.member(tx, caller.project_id, known)
    assert row is not None  # noqa: S101 - it was written, and owners see it
    caller.log(Event.MEMBER_CHANGED, member=str(known), role=role.value)
    return row


def remove_member(caller: Caller, user: str) -> None:
    """Take a user's role in the project away. Raises `last_owner`, and `not_found`."""
    with caller.as_user() as tx:
        row = lookup.find("member", user, lambda known: projects.member(tx, caller.project_id, known))
        # Recorded first: one's last action in a project may be to leave it.
        caller.audit(tx, "member.removed", row.user_id, {"role": row.role})
        projects.remove_member(tx, caller.project_id, row.user_id)
    caller.log(Event.MEMBER_REMOVED, member=str(row.user_id))
