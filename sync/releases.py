"""Rows of releases, derived from the commits at refs/releases/<name>: written, read, compared and corrected.

The rows of a release are written in the transaction that carries the rows of all its workflows. Its event and
its audit row come with them, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, LiteralString
from uuid import UUID, uuid5

from gitstore import names, release_commit
from gitstore.errors import GitstoreError
from gitstore.git.refs import RefUpdate
from gitstore.model import Actor
from gitstore.names import version_id
from gitstore.release_commit import Release
from gitstore.repository import FOLDER, Repository, WritableRepository
from sync import audit, events, git_objects, rows
from sync.audit import WORKER, Origin
from sync.db import Transaction
from sync.events import EventRow, EventType


@dataclass(frozen=True, slots=True)
class ReleaseRow:
    """A row of gitstore.releases."""

    id: UUID
    project_id: UUID
    name: str
    commit_sha: str
    environment: str
    message: str
    released_by: str
    released_at: datetime


@dataclass(frozen=True, slots=True)
class ItemRow:
    """A row of gitstore.release_items: a version, and the version that its pointer was on before."""

    release_id: UUID
    workflow_id: UUID
    project_id: UUID
    version_number: int
    published: bool
    before_number: int | None
    before_held: bool


@dataclass(frozen=True, slots=True)
class ShownItem(ItemRow):
    """An item with the present slug and name of its workflow, and the version on which its pointer is now."""

    slug: str
    workflow_name: str
    now_number: int | None


@dataclass(frozen=True, slots=True)
class ShownRelease(ReleaseRow):
    """A release, with its number of workflows and how many of them are still on its version."""

    workflows: int
    standing: int


_INSERT: Final[LiteralString] = (
    rows.insert("releases", ReleaseRow, "releases") + " on conflict (id) do nothing returning stored.id"
)
_INSERT_ITEMS: Final[LiteralString] = (
    rows.insert("release_items", ItemRow, "items") + " on conflict (release_id, workflow_id) do nothing"
)
_DELETE_ITEMS: Final[LiteralString] = "delete from gitstore.release_items where release_id = any(%(ids)s)"
_DELETE_RELEASES: Final[LiteralString] = "delete from gitstore.releases where id = any(%(ids)s)"
_ROWS: Final[LiteralString] = (
    rows.select(ReleaseRow) + " from gitstore.releases where project_id = %(project)s order by name"
)
_ITEMS: Final[LiteralString] = (
    rows.select(ItemRow) + " from gitstore.release_items where project_id = %(project)s order by workflow_id"
)
_NOW: Final[LiteralString] = (
    "case r.environment when 'current' then v.version_number else e.version_number end"
)
_FROM: Final[LiteralString] = """
    from gitstore.releases r
    join gitstore.release_items i on i.release_id = r.id
    join gitstore.workflows w on w.id = i.workflow_id
    left join gitstore.workflow_versions v on v.id = w.current_version_id
    left join gitstore.environments e on e.workflow_id = w.id and e.name = r.environment
"""
_SHOWN: Final[LiteralString] = (
    rows.select(ReleaseRow, "r.")
    + """,
        count(*) as workflows,
        count(*) filter (where """
    + _NOW
    + " = i.version_number) as standing"
    + _FROM
    + " where r.project_id = %(project)s"
)
_PAGE: Final[LiteralString] = (
    _SHOWN
    + """
        and (%(at)s::timestamptz is null or (r.released_at, r.id) < (%(at)s, %(id)s))
    group by r.id order by r.released_at desc, r.id desc limit %(limit)s
"""
)
_FIND: Final[LiteralString] = _SHOWN + " and r.name = %(name)s group by r.id"
_ITEMS_OF: Final[LiteralString] = (
    rows.select(ItemRow, "i.")
    + ", w.slug, w.name as workflow_name, "
    + _NOW
    + " as now_number"
    + _FROM
    + " where i.release_id = %(release)s order by w.slug"
)


# Deriving and writing


def release_id(project: UUID, name: str) -> UUID:
    return uuid5(project, f"release {name}")  # no slug has a space


def derive(repository: Repository, release: Release) -> tuple[ReleaseRow, list[ItemRow]]:
    """Return the row of a release, and those of its items by workflow."""
    project = repository.project
    row = ReleaseRow(
        id=release_id(project, release.name),
        project_id=project,
        name=release.name,
        commit_sha=release.commit,
        environment=release.environment,
        message=release.message,
        released_by=release.actor.name,
        released_at=release.when,
    )
    items = [
        ItemRow(
            release_id=row.id,
            workflow_id=repository.identity(item.slug),
            project_id=project,
            version_number=item.version,
            published=item.published,
            before_number=item.before.version,
            before_held=item.before.held,
        )
        for item in release.items
    ]
    return row, sorted(items, key=lambda item: item.workflow_id)


def mirror(
    tx: Transaction, repository: Repository, made: Iterable[RefUpdate], origin: Origin = WORKER
) -> None:
    """Write the rows of the releases `made`, with their events, unless they exist.

    The rows of their workflows are there already.
    """
    for update in made:
        name = names.release_of(update.name)
        if name is None or repository.refs.read(update.name) != update.new:
            continue  # another ref, or one that was moved past gitstore
        release = release_commit.find(repository, name)
        row, items = derive(repository, release)
        if tx.value(_INSERT, releases=rows.as_json([row])) is None:
            continue
        tx.run(_INSERT_ITEMS, items=rows.as_json(items))
        event = _event(repository, release)
        events.insert(tx, [event])
        by = Origin("worker", release.actor.name, "worker") if origin is WORKER else origin
        audit.note(tx, repository.project, by, event.type, name, {"event": str(event.id)})
        git_objects.keep(tx, repository.project, _objects(repository, update.new))


def _objects(repository: Repository, commit: bytes) -> Iterator[git_objects.Item]:
    """Yield the objects that a release adds to those of its versions."""
    objects = repository.objects
    content = objects.commit(commit)
    root = objects.tree(content.tree)
    yield from (content, root, objects.tree(root[FOLDER][1]))


def _event(repository: Repository, release: Release) -> EventRow:
    project, actor = repository.project, release.actor
    data: dict[str, Any] = {
        "release": release.name,
        "commit": release.commit,
        "environment": release.environment,
        "message": release.message,
        "by": actor.name,
        **({"on_behalf_of": actor.on_behalf_of} if isinstance(actor, Actor) and actor.on_behalf_of else {}),
        "items": [
            {
                "workflow": item.slug,
                "version_number": item.version,
                "version_id": str(version_id(repository.identity(item.slug), item.version)),
                "published": item.published,
                "previous": item.before.version,
            }
            for item in release.items
        ],
    }
    kind = EventType.RELEASED
    source = uuid5(release_id(project, release.name), f"{kind} {release.commit}")
    return EventRow(source, project, None, kind, release.when, data)


def mirror_missing(tx: Transaction, repository: Repository) -> None:
    """Write the rows of releases that have none: those of before the database was restored."""
    known = {row.name for row in tx.rows(ReleaseRow, _ROWS, project=repository.project)}
    refs = repository.refs.below(names.RELEASES)
    mirror(
        tx,
        repository,
        [RefUpdate(ref, None, oid) for ref, oid in refs.items() if names.release_of(ref) not in known],
    )


# Comparing and correcting


def differences(tx: Transaction, repository: Repository) -> Iterator[tuple[str, str, bool]]:
    """Yield (release, problem, whether Git lacks what the database records) for each difference."""
    derived, stored = _derived(repository), _stored(tx, repository.project)
    for name in sorted({*derived, *stored}):
        found, row = derived.get(name), stored.get(name)
        if isinstance(found, GitstoreError):
            yield name, found.message, True
        elif found is None:
            yield name, "has rows, but its ref is missing", True
        elif row is None:
            yield name, "has no row", False
        elif row[0].commit_sha != found[0].commit_sha:
            shown = f"the database records it as {row[0].commit_sha}, but its ref holds {found[0].commit_sha}"
            yield name, shown, True
        elif row != found:
            yield name, "its rows differ from its commit", False


def correct(tx: Transaction, repository: Repository) -> None:
    """Write the rows of releases that differ, and delete those without a ref. During upkeep."""
    derived, stored = _derived(repository), _stored(tx, repository.project)
    wrong = [row[0].id for name, row in stored.items() if derived.get(name) != row]
    if wrong:
        tx.run(_DELETE_ITEMS, ids=wrong)
        tx.run(_DELETE_RELEASES, ids=wrong)
    for name, found in derived.items():
        if isinstance(found, tuple) and found != stored.get(name):
            row, items = found
            tx.run(_INSERT, releases=rows.as_json([row]))
            tx.run(_INSERT_ITEMS, items=rows.as_json(items))
            git_objects.keep(tx, repository.project, _objects(repository, row.commit_sha.encode()))


def restore(tx: Transaction, repository: WritableRepository) -> Iterator[str]:
    """Restore the refs of releases that Git has lost; yield a line for each."""
    for name, (row, _) in _stored(tx, repository.project).items():
        ref = names.release(name)
        try:
            held = repository.refs.read(ref)
        except GitstoreError:
            held = b""
        if held:
            continue
        try:
            missing = git_objects.missing_below(tx, repository, row.commit_sha.encode())
            repository.objects.write(missing)
        except GitstoreError as error:
            yield f"{names.show(ref)}: not restored: {error.message}"
            continue
        repository.refs.restore(ref, row.commit_sha.encode())
        yield f"{names.show(ref)}: restored to {row.commit_sha}"


_Rows = tuple[ReleaseRow, list[ItemRow]]


def _derived(repository: Repository) -> Mapping[str, _Rows | GitstoreError]:
    found: dict[str, _Rows | GitstoreError] = {}
    refs, damaged = repository.refs.survey(names.RELEASES)
    for ref in (*refs, *damaged):
        name = names.release_of(ref) or names.show(ref)
        try:
            found[name] = derive(repository, release_commit.find(repository, name))
        except GitstoreError as error:
            found[name] = error
    return found


def _stored(tx: Transaction, project: UUID) -> Mapping[str, _Rows]:
    items: dict[UUID, list[ItemRow]] = {}
    for item in tx.rows(ItemRow, _ITEMS, project=project):
        items.setdefault(item.release_id, []).append(item)
    return {row.name: (row, items.get(row.id, [])) for row in tx.rows(ReleaseRow, _ROWS, project=project)}


# Reading


def page(
    tx: Transaction, project: UUID, *, before: tuple[datetime, UUID] | None = None, limit: int
) -> Sequence[ShownRelease]:
    """Return the releases of a project, newest first, older than `before`."""
    at, last = before or (None, None)
    return tx.rows(ShownRelease, _PAGE, project=project, at=at, id=last, limit=limit)


def find(tx: Transaction, project: UUID, name: str) -> tuple[ShownRelease, Sequence[ShownItem]] | None:
    row = tx.row(ShownRelease, _FIND, project=project, name=name)
    return (row, tx.rows(ShownItem, _ITEMS_OF, release=row.id)) if row is not None else None
