"""Projects and their members: changes by owners, archiving and deletion.

Members are users with a role. `projects.owner` is the owner in the project's row; further owners are members
with the role `owner`. Functions of Postgres (migration 0016) change members, keep at least one owner and
check that the caller may do so; the tables' owner may do everything.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, LiteralString
from uuid import UUID

from gitstore.errors import Code, ConflictError, ForbiddenError, NotFoundError
from gitstore.model import Rules
from sync import rows
from sync.catalog import Page, Project
from sync.db import Transaction


@dataclass(frozen=True, slots=True)
class Member:
    user_id: UUID
    role: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Visible(Project):
    """A project that the caller sees, and the user's role; None if the caller is a token."""

    role: str | None


@dataclass(frozen=True, slots=True)
class Contents:
    """Numbers of what a project contains. `tokens` counts those that are neither revoked nor expired."""

    workflows: int
    versions: int
    members: int
    tokens: int
    sources: int


# Projects

_VISIBLE: Final[LiteralString] = (
    rows.select(Project, "p.")
    + """, case when p.owner = me.id then 'owner' else m.role end as role
    from gitstore.projects p
    cross join (select gitstore.subject() as id) me
    left join gitstore.members m on m.project_id = p.id and m.user_id = me.id
    where p.slug > %(after)s order by p.slug limit %(limit)s
"""
)
_CREATE: Final[LiteralString] = """
    select gitstore.create_project(%(id)s, %(slug)s, %(name)s, %(rules)s, %(most)s)
"""
_CHANGE: Final[LiteralString] = """
    update gitstore.projects set slug = coalesce(%(slug)s, slug), name = coalesce(%(name)s, name),
        rules = coalesce(%(rules)s, rules), file_name = coalesce(%(file_name)s, file_name),
        file_names = case when %(file_name)s::text is null or %(file_name)s::text = any (file_names)
            then file_names else file_names || %(file_name)s::text end,
        activate_invalid = coalesce(%(activate_invalid)s, activate_invalid),
        archived_at = case when %(archived)s then coalesce(archived_at, now())
            when %(archived)s is null then archived_at end
    where id = %(id)s returning """ + rows.columns(Project)  # noqa: S608 - of constants
_TRANSFER: Final[LiteralString] = "select gitstore.transfer_project(%(project)s, %(user)s)"
_CONTENTS: Final[LiteralString] = """
    select (select count(*) from gitstore.workflows where project_id = %(id)s) as workflows,
        (select count(*) from gitstore.workflow_versions
         where project_id = %(id)s and state in ('published', 'lost')) as versions,
        (select count(*) from gitstore.members where project_id = %(id)s) as members,
        (select count(*) from gitstore.access_tokens where project_id = %(id)s and revoked_at is null
            and (expires_at is null or expires_at > now())) as tokens,
        (select count(*) from gitstore.sources where project_id = %(id)s) as sources
"""


def visible(tx: Transaction, *, after: str = "", limit: int = 100) -> Page[Visible]:
    """Return the projects that the caller sees, in the order of slugs, after `after`."""
    page = tx.rows(Visible, _VISIBLE, after=after, limit=limit + 1)
    return Page(page[:limit], page[limit - 1].slug if len(page) > limit else None)


def create_own(tx: Transaction, project_id: UUID, slug: str, name: str, rules: Rules, most: int) -> bool:
    """Insert a project of the user of the claims; return False if they own `most` projects.

    Raises `project_exists` when the transaction ends.
    """
    values = {"id": project_id, "slug": slug, "name": name, "rules": rules.value, "most": most}
    return bool(tx.value(_CREATE, **values))


def change(
    tx: Transaction,
    project_id: UUID,
    *,
    slug: str | None = None,
    name: str | None = None,
    rules: Rules | None = None,
    archived: bool | None = None,
    file_name: str | None = None,
    activate_invalid: bool | None = None,
) -> Project | None:
    """Change a project; None leaves a field unchanged. Return None unless the caller is an owner."""
    values = {"slug": slug, "name": name, "rules": rules and rules.value, "archived": archived}
    values |= {"file_name": file_name, "activate_invalid": activate_invalid}
    return tx.row(Project, _CHANGE, id=project_id, **values)


def transfer(tx: Transaction, project_id: UUID, user: UUID) -> None:
    """Make a user the owner in the project's row; the previous owner stays one as a member."""
    _done(tx.value(_TRANSFER, project=project_id, user=user))


def contents(tx: Transaction, project_id: UUID) -> Contents:
    found = tx.row(Contents, _CONTENTS, id=project_id)
    assert found is not None  # noqa: S101 - an aggregate has a row
    return found


# Members

_MEMBERS: Final[LiteralString] = """
    select user_id, role, created_at from gitstore.members m
    where project_id = %(project)s
        and not exists (select from gitstore.projects where id = m.project_id and owner = m.user_id)
    union all
    select owner, 'owner', created_at from gitstore.projects where id = %(project)s and owner is not null
"""
_LISTED: Final[LiteralString] = _MEMBERS + " order by created_at, user_id"
_MEMBER: Final[LiteralString] = (
    "select user_id, role, created_at from (" + _MEMBERS + ") listed where user_id = %(user)s"  # noqa: S608
)
_SET: Final[LiteralString] = "select gitstore.set_member(%(project)s, %(user)s, %(role)s)"
_REMOVE: Final[LiteralString] = "select gitstore.remove_member(%(project)s, %(user)s)"


def members(tx: Transaction, project_id: UUID) -> list[Member]:
    """Return the members of a project with its owner, oldest first; only oneself unless one is an owner."""
    return tx.rows(Member, _LISTED, project=project_id)


def member(tx: Transaction, project_id: UUID, user: UUID) -> Member | None:
    return tx.row(Member, _MEMBER, project=project_id, user=user)


def set_member(tx: Transaction, project_id: UUID, user: UUID, role: str) -> None:
    """Give a user a role in a project. Raises `last_owner` if no owner would be left."""
    _done(tx.value(_SET, project=project_id, user=user, role=role))


def remove_member(tx: Transaction, project_id: UUID, user: UUID) -> None:
    """Take a user's role away; users may do so for themselves. Raises `last_owner` as `set_member` does."""
    _done(tx.value(_REMOVE, project=project_id, user=user))


def _done(answer: bool | None) -> None:
    if answer is None:
        raise ForbiddenError("changing the members of a project requires the role owner")
    if not answer:
        message = "this is the last owner of the project: make another user an owner first"
        raise ConflictError(Code.LAST_OWNER, message)


# Deletion

# Each table before those that its rows refer to. Deferred constraints are checked before the caller moves
# the repository.
_DELETE: Final[tuple[LiteralString, ...]] = (
    "delete from gitstore.event_queue where event_id in "
    "(select id from gitstore.events where project_id = %(project)s)",
    "delete from gitstore.delivery_attempts where project_id = %(project)s",
    "delete from gitstore.deliveries where project_id = %(project)s",
    "delete from gitstore.subscription_secrets where project_id = %(project)s",
    "delete from gitstore.subscriptions where project_id = %(project)s",
    "delete from gitstore.divergences where project_id = %(project)s",
    "delete from gitstore.upstream_refs where project_id = %(project)s",
    "delete from gitstore.receipts where project_id = %(project)s",
    "delete from gitstore.sources where project_id = %(project)s",
    "delete from gitstore.events where project_id = %(project)s",
    "delete from gitstore.audit_log where project_id = %(project)s",
    "delete from gitstore.git_objects where project_id = %(project)s",
    "delete from gitstore.environments where project_id = %(project)s",
    "delete from gitstore.version_states where project_id = %(project)s",
    "delete from gitstore.release_items where project_id = %(project)s",
    "delete from gitstore.releases where project_id = %(project)s",
    "delete from gitstore.checks where project_id = %(project)s",
    "delete from gitstore.check_runs where project_id = %(project)s",
    "delete from gitstore.number_marks where project_id = %(project)s",
    "delete from gitstore.schedules where project_id = %(project)s",
    "delete from gitstore.autosaves where project_id = %(project)s",
    "delete from gitstore.workflow_words where project_id = %(project)s",
    "delete from gitstore.workflow_versions where project_id = %(project)s",
    "delete from gitstore.workflows where project_id = %(project)s",
    "delete from gitstore.access_tokens where project_id = %(project)s",
    "delete from gitstore.members where project_id = %(project)s",
    "delete from gitstore.projects where id = %(project)s",
    "set constraints all immediate",
)
_ARCHIVED: Final[LiteralString] = """
    select archived_at is not null from gitstore.projects where id = %(project)s for update
"""


def delete(tx: Transaction, project_id: UUID) -> None:
    """Delete an archived project with all of its rows. Requires a transaction of `Database.upkeep`.

    Raises `project_not_found`, `project_not_archived`, and `integrity` if rows of other tables refer to it.
    """
    archived = tx.value(_ARCHIVED, project=project_id)
    if archived is None:
        raise NotFoundError(Code.PROJECT_NOT_FOUND, "the project no longer exists")
    if not archived:
        message = "the project is not archived: archive it first, then delete it"
        raise ConflictError(Code.PROJECT_NOT_ARCHIVED, message)
    for statement in _DELETE:
        tx.run(statement, project=project_id)
