"""Record the workflows of another system: its versions as commits and tags, its draft as the draft.

A version keeps the number, author, times and id that it has in that system. Invalid versions are recorded as
well, because they run there; the rules on numbers and on objects are those of any import. Each workflow is
written in batches, so that an interrupted import resumes where it stopped, and a repeated one has nothing to
do. The result lists what could not be recorded.

People may change the workflow here after an import. A later import then adds new versions, which become
current as any publication does, but it changes neither their draft nor the current version that they chose.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final
from uuid import UUID

from dulwich.objects import Blob, Commit, Tree

from gitstore import changes, names
from gitstore.changes import Authorship, ChangeSet
from gitstore.definition import document
from gitstore.errors import GitstoreError, InvalidDefinitionError, NotMirroredError
from gitstore.git.commits import new_commit, new_tag
from gitstore.model import Actor, LedgerKind, Limits, Person, Problems, Rules
from gitstore.names import VersionRef, next_number
from gitstore.policy import Command, judge, require_active
from gitstore.policy_facts import RepositoryFacts
from gitstore.repository import Repository
from gitstore.store import Store

_BATCH: Final = 100  # versions in one unit of work
_BATCH_SIZE: Final = 16 * 2**20  # bytes of definitions
_DECISIONS: Final = (LedgerKind.PUBLISHED, LedgerKind.CURRENT, LedgerKind.CLEARED)
"""Kinds of ledger entries whose actor decided which version is current."""


@dataclass(frozen=True, slots=True)
class RecordedVersion:
    """A version, or the draft, in the other system.

    `key` identifies its content there. The draft has the number that it would be published as, and no
    `published_at`. Only an `active` version may be current. `user` is the author's id in that system.
    """

    key: object
    number: int
    size: int
    author: Person
    created_at: datetime
    message: str = ""
    published_at: datetime | None = None
    active: bool = True
    external_id: UUID | None = None
    file_name: str = "workflow.json"
    user: str | None = None


@dataclass(frozen=True, slots=True)
class RecordedWorkflow:
    """A workflow in the other system, with its versions in ascending order.

    `other_ids` are ids of the workflow that belong to none of its versions.
    """

    slug: str
    versions: Sequence[RecordedVersion]
    draft: RecordedVersion | None = None
    name: str | None = None
    description: str = ""
    other_ids: tuple[UUID, ...] = ()


Load = Callable[[Sequence[RecordedVersion]], Sequence[bytes]]
"""Return the files of versions, in their order."""


@dataclass(slots=True)
class Result:
    """The outcome of an import: `invalid` has the errors of versions, `refused` and `kept` have lines."""

    published: list[int] = field(default_factory=list)
    invalid: dict[int, str] = field(default_factory=dict)
    draft: bool = False
    refused: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)


@dataclass(slots=True)
class RecordedImport:
    """One import into `store` by `actor`.

    With `as_it_runs`, the other system's current version becomes current here, valid or not.
    """

    store: Store
    actor: Person
    load: Load
    as_it_runs: bool

    def record(self, workflow: RecordedWorkflow) -> Result:
        """Record the versions and the draft that the store lacks. Raises errors about the whole workflow."""
        result = Result()
        workflow = _as_called_here(self.store, workflow)
        limits = self.store.limits
        batches = list(_batches(accepted_sizes(workflow.versions, limits, result))) or [[]]
        drafts = list(accepted_sizes([workflow.draft] if workflow.draft else [], limits, result))
        for batch in batches:
            contents = self.load(batch)
            last = batch is batches[-1]
            drafted = self.load(drafts) if last else ()
            # After `published_not_mirrored`, the version is on disk, and the rows follow.
            with suppress(NotMirroredError), self.store.unit_of_work.begin([workflow.slug]):
                writing = _Batch(self, workflow, result)
                writing.publish(list(zip(batch, contents, strict=True)))
                for draft, raw in zip(drafts if last else (), drafted, strict=True):
                    writing.save_draft(draft, raw)
                if last and self.as_it_runs:
                    writing.move_current()
                writing.write()
        return result


def compare(repository: Repository | None, workflow: RecordedWorkflow, load: Load, rules: Rules) -> Result:
    """Return what `RecordedImport.record` would do, as far as reading can predict it; write nothing."""
    result = Result()
    if repository is not None:
        workflow = _as_called_here(repository, workflow)
    limits = repository.limits if repository is not None else Limits()
    state = repository.state(workflow.slug) if repository is not None else None
    latest, floor = (state.latest, state.floor) if state is not None else (0, 0)
    schema = repository.schema() if repository is not None else None
    for batch in _batches(accepted_sizes(workflow.versions, limits, result)):
        for version, raw in zip(batch, load(batch), strict=True):
            if repository is not None and _is_published(repository, workflow.slug, version, raw, result):
                continue
            if version.number < next_number(latest, floor):
                result.refused.append(_too_low(version))
                continue
            result.published.append(version.number)
            try:
                problems = document.parse(raw, version.file_name, rules, limits, schema).problems
            except InvalidDefinitionError as error:
                problems = Problems.of(error.problems)
            if problems.errors:
                result.invalid[version.number] = document.summarize(problems)
    result.draft = workflow.draft is not None and (
        repository is None or repository.refs.read(names.draft(workflow.slug)) is None
    )
    return result


def _as_called_here(repository: Repository, workflow: RecordedWorkflow) -> RecordedWorkflow:
    """Return the workflow by the slug that it has here, where it may have been renamed."""
    return replace(workflow, slug=repository.renamed_to(workflow.slug) or workflow.slug)


def _is_published(
    repository: Repository, slug: str, version: RecordedVersion, raw: bytes, result: Result
) -> bool:
    """Return whether the store has this number; note it in `result` if its content differs from `raw`."""
    held = repository.refs.read(repository.tag(slug, version.number))
    if held is None:
        return False
    if _blob(repository, slug, repository.objects.peel(held)[0]) != Blob.from_string(raw).id:
        message = "published here with other content, which cannot change"
        result.refused.append(f"v{version.number}: {message}")
    return True


def _blob(repository: Repository, slug: str, commit: bytes) -> bytes | None:
    """Return the id of the definition in `commit`, or None without one."""
    try:
        return repository.locate(repository.objects.commit(commit), slug)[1]
    except GitstoreError:
        return None


def _too_low(version: RecordedVersion) -> str:
    return f"v{version.number}: a higher number was published here, and gaps are never filled"


def accepted_sizes(
    versions: Sequence[RecordedVersion], limits: Limits, result: Result
) -> Iterator[RecordedVersion]:
    """Yield the versions that may be objects in Git; note the others in `result`."""
    for version in versions:
        if version.size <= limits.object:
            yield version
        else:
            result.refused.append(
                f"v{version.number}: {version.size:,} bytes; the limit of an object is {limits.object:,}"
            )


def _batches(versions: Iterator[RecordedVersion]) -> Iterator[list[RecordedVersion]]:
    batch: list[RecordedVersion] = []
    for version in versions:
        full = len(batch) == _BATCH or sum(one.size for one in batch) + version.size > _BATCH_SIZE
        if batch and full:
            yield batch
            batch = []
        batch.append(version)
    if batch:
        yield batch


class _Batch:
    """The changes of one unit of work, in one change set."""

    def __init__(self, importing: RecordedImport, workflow: RecordedWorkflow, result: Result) -> None:
        self._importing = importing
        self._store = store = importing.store
        self._workflow = workflow
        self._result = result
        slug = workflow.slug
        authorship = Authorship(
            importing.actor, store.clock(), imported=True, activate_invalid=importing.as_it_runs
        )
        self._change = ChangeSet(store, slug, authorship)
        decision = next((entry for entry in store.ledger(slug) if entry.kind in _DECISIONS), None)
        self._decided_here = decision is not None and decision.actor.email != importing.actor.email
        state = store.state(slug)
        require_active(slug, archived=state.archived and not state.deleted)
        self._commit = state.latest_commit.encode() if state.latest_commit else None
        self._open_draft = state.draft.encode() if state.draft_open and state.draft else None
        self._floor = state.floor
        self._imported = next((e for e in store.ledger(slug) if e.kind is LedgerKind.IMPORTED), None)

    @property
    def _imported_draft(self) -> bytes | None:
        """The open draft if it is as an earlier import left it."""
        target = self._imported.target if self._imported else None
        return self._open_draft if self._open_draft and self._open_draft.decode() == target else None

    def publish(self, versions: Sequence[tuple[RecordedVersion, bytes]]) -> None:
        """Publish the versions that are missing here."""
        slug, store = self._workflow.slug, self._store
        commands: dict[bytes, tuple[Command, RecordedVersion]] = {}
        objects = []
        latest = self._change.newest.latest if self._change.newest else 0
        for version, raw in versions:
            name = names.tag(slug, version.number)
            if _is_published(store, slug, version, raw, self._result):
                continue
            if version.number < next_number(latest, self._floor):
                self._result.refused.append(_too_low(version))
                continue
            new = self._objects(version, raw, [self._commit, self._published_draft(version)])
            tag = new_tag(
                names.short(VersionRef(slug, version.number)),
                new[-1].id,
                version.author,
                version.published_at or version.created_at,
                version.message or f"Import {slug} v{version.number}",
            )
            objects += [*new, tag]
            latest, self._commit = version.number, new[-1].id
            commands[name] = (Command(name, None, tag.id), version)
        if objects:
            store.objects.write_pack(list({item.id: item for item in objects}.values()))
        verdicts = judge([command for command, _ in commands.values()], RepositoryFacts(store), imported=True)
        for verdict in verdicts:
            version = commands[verdict.command.ref][1]
            if verdict.refusal is not None:
                self._result.refused.append(f"v{version.number}: {verdict.refusal.message}")
                continue
            self._create()
            entry = self._change.publish(
                verdict,
                active=version.active,
                actor=self._actor_for(version),
                external_ids=(version.external_id,) if version.external_id else (),
                published_at=version.published_at,
                created_at=version.created_at,
            )
            self._result.published.append(version.number)
            if entry.invalid is not None:
                self._result.invalid[version.number] = entry.invalid

    def _actor_for(self, version: RecordedVersion) -> Person:
        """Return the importer, who acts for the author of `version`."""
        actor = self._importing.actor
        return Actor(actor.name, actor.email, on_behalf_of=version.user) if version.user else actor

    def _published_draft(self, version: RecordedVersion) -> bytes | None:
        """Return the open draft if it was imported and then published as `version`; it is then closed."""
        draft, imported = self._imported_draft, self._imported
        if draft is None or imported is None or version.external_id not in imported.external_ids:
            return None
        self._open_draft = None
        return draft

    def _objects(
        self, version: RecordedVersion, raw: bytes, parents: Sequence[bytes | None]
    ) -> tuple[Blob, Tree, Commit]:
        """Return the objects of a version on top of `parents`."""
        blob, tree = Blob.from_string(raw), Tree()
        tree.add(version.file_name.encode(), stat.S_IFREG | 0o644, blob.id)
        commit = new_commit(
            tree=tree.id,
            parents=[parent for parent in parents if parent is not None],
            author=version.author,
            committer=version.author,
            when=version.created_at,
            message=version.message or f"Import {self._workflow.slug} v{version.number}",
        )
        return blob, tree, commit

    def _create(self) -> None:
        workflow = self._workflow
        recorded = [*workflow.versions, *([workflow.draft] if workflow.draft is not None else [])]
        first = min(version.created_at for version in recorded)
        self._change.create_unless_there(workflow.name, workflow.description, created_at=first)

    def save_draft(self, draft: RecordedVersion, raw: bytes) -> None:
        """Save the other system's draft as the draft, unless people have changed the one here."""
        store, slug = self._store, self._workflow.slug
        blob, before = Blob.from_string(raw).id, self._open_draft
        is_same = before is not None and _blob(store, slug, before) == blob
        if before is not None and self._imported_draft is None:
            if not is_same:
                self._result.kept.append(
                    "the draft was changed here and is kept; the other draft was not imported"
                )
            return
        if before is None and self._was_imported(draft, blob):
            return  # it was published or discarded here
        # A version imported just now becomes a parent of the draft, which would otherwise be behind it.
        base = self._commit if before is None or self._result.published else None
        if is_same and base is None:
            return
        new = self._objects(draft, raw, [before, base])
        store.objects.write_pack(list(new))
        name = names.draft(slug)
        held = store.refs.read(name)
        (verdict,) = judge([Command(name, held, new[-1].id)], RepositoryFacts(store), imported=True)
        if verdict.refusal is not None:
            self._result.refused.append(f"the draft: {verdict.refusal.message}")
            return
        self._create()
        ids = ((draft.external_id,) if draft.external_id else ()) + self._workflow.other_ids
        self._change.append(
            LedgerKind.IMPORTED,
            actor=self._actor_for(draft),
            target=new[-1].id.decode(),
            external_ids=ids,
            message=draft.message,
        )
        self._change.move(name, held, new[-1].id)
        self._result.draft = True

    def _was_imported(self, draft: RecordedVersion, blob: bytes) -> bool:
        last = self._imported
        if last is None or last.target is None or draft.external_id not in last.external_ids:
            return False
        return _blob(self._store, self._workflow.slug, last.target.encode()) == blob

    def move_current(self) -> None:
        """Make the other system's current version current, unless people have changed it here since."""
        newest = self._change.newest
        if newest is None or newest.held:
            return
        active = [version.number for version in self._workflow.versions if version.active]
        refs, slug = self._store.refs, self._workflow.slug
        here = (
            number
            for number in active
            if number in self._result.published or refs.read(self._store.tag(slug, number)) is not None
        )
        wanted = max(here, default=None)
        if wanted == newest.current:
            return
        if self._decided_here:
            shown = f"v{newest.current}" if newest.current else "no version"
            self._result.kept.append(f"{shown} stays current: the workflow was changed here")
            return
        kind = LedgerKind.CLEARED if wanted is None else LedgerKind.CURRENT
        self._change.append(kind, version=wanted, current=wanted, held=False)

    def write(self) -> None:
        if self._change.commits:
            changes.write_one(self._store, self._change)
