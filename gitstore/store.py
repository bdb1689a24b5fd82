"""Store: draft, save, publish, revert, for one project; the operations of `git push` for callers without git.

Every writing method begins a unit of work, asks `policy.judge` as a push does, and records the change.
The caller has authenticated and authorized the principal. `expected` is the draft's commit that the caller
has seen (If-Match): a hex id, ANY for any state, or None if the caller gave none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final
from uuid import UUID

from dulwich.objects import Tag
from dulwich.repo import Repo

from gitstore import changes, ledger, names, pending, schedules, states
from gitstore.changes import Authorship, ChangeSet
from gitstore.drafts import STARTER, Content, DraftWriter, Saved, is_latest
from gitstore.environments import CURRENT
from gitstore.errors import (
    BaseMovedError,
    Code,
    ConflictError,
    GitstoreError,
    NotFoundError,
    StaleDraftError,
)
from gitstore.git.cleanup import UNFINISHED
from gitstore.git.commits import new_tag
from gitstore.git.files import fsync_folder, fsync_tree
from gitstore.git.refs import RefUpdate
from gitstore.model import (
    FormerName,
    LedgerKind,
    Person,
    Problems,
    Snapshot,
    Superseded,
    Version,
    WorkflowState,
)
from gitstore.names import check_slug
from gitstore.pending import Removal
from gitstore.policy import Command, require_active
from gitstore.policy_facts import accepted
from gitstore.repository import WritableRepository
from gitstore.schedules import Scheduled
from gitstore.system import now
from gitstore.unit_of_work import MakeUnitOfWork

ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Actors:
    """The authenticated principal (`actor`) and the author of the content (`author`)."""

    actor: Person
    author: Person


@dataclass(frozen=True, slots=True)
class Published:
    """The version with the content, and whether it is current; `new` is False if it already existed."""

    version: Version
    is_current: bool
    new: bool

    @property
    def number(self) -> int:
        return self.version.number


class Store(WritableRepository):
    """One project's repository, written in units of work."""

    def __init__(
        self,
        path: Path,
        project: UUID,
        unit_of_work: MakeUnitOfWork,
        *,
        clock: Callable[[], datetime] = now,
        **options: Any,
    ) -> None:
        super().__init__(path, project, **options)
        self.unit_of_work = unit_of_work(self)
        self.clock = clock

    @staticmethod
    def init(path: Path) -> None:
        """Create the bare repository at `path` unless it exists; one whose creation was killed does not."""
        if (path / "HEAD").exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=UNFINISHED, dir=path.parent) as folder:
            created = Path(folder, path.name)
            created.mkdir()
            Repo.init_bare(str(created)).close()
            fsync_tree(created)
            created.rename(path)
        fsync_folder(path.parent)

    # Drafts

    def create_workflow(
        self,
        slug: str,
        content: Content | None,
        actors: Actors,
        *,
        name: str | None = None,
        description: str = "",
    ) -> Saved:
        """Create a workflow with its first draft (a one-node starter without `content`)."""
        check_slug(slug)
        with self.unit_of_work.begin([slug]):
            if not self.was_deleted(slug):
                self._check_free(slug)
            starter = {**({"name": name} if name else {}), **STARTER}
            change = self._change(slug, actors)
            # Also after a kill left a lone "created" entry: the name of this request is the one that counts.
            change.append(LedgerKind.CREATED, name=name, description=description, archived=False)
            draft = DraftWriter(self, change, None, actors.author)
            return draft.save(content or Content(value=starter), "Create the draft")

    def create_draft(self, slug: str, content: Content | None, actors: Actors, message: str = "") -> Saved:
        """Open a draft on top of the latest version; without `content`, copy the current version's."""
        with self.unit_of_work.begin([slug]):
            state = self._without_draft(slug)
            draft = self._draft_writer(state, actors, message)
            if content is not None:
                return draft.save(content, "Begin a draft")
            if state.current is None:
                raise NotFoundError(
                    Code.NOT_PUBLISHED, f"{slug} has no current version to copy: send a definition"
                )
            return draft.restore(self.commit_of(slug, state.current), f"Copy v{state.current}")

    def create_draft_from(self, slug: str, number: int, actors: Actors, message: str = "") -> Saved:
        """Open a draft with the content of version `number`."""
        with self.unit_of_work.begin([slug]):
            draft = self._draft_writer(self._without_draft(slug), actors, message)
            return draft.restore(self.commit_of(slug, number), f"Copy v{number}")

    def save_draft(
        self,
        slug: str,
        content: Content,
        actors: Actors,
        *,
        expected: str,
        message: str = "",
        base_version: int | None = None,
        merged: str | None = None,
    ) -> Saved:
        """Save the open draft. What the author has merged becomes a second parent.

        That is the version `base_version`, or the commit `merged`, whose history the repository has.
        """
        with self.unit_of_work.begin([slug]):
            state = self._with_draft(slug, expected)
            parent = merged.encode() if merged is not None else None
            if base_version is not None:
                parent = self.commit_of(slug, base_version)
            return self._draft_writer(state, actors, message).save(content, "Save the draft", parent)

    def discard_draft(
        self, slug: str, actors: Actors, *, expected: str | None = None, message: str = ""
    ) -> Superseded:
        """Discard the open draft; return its superseded ref, for `restore_draft`."""
        with self.unit_of_work.begin([slug]):
            state = self._with_draft(slug, expected or ANY)
            ref, head = names.draft(slug), (state.draft or "").encode()
            accepted(self, Command(ref, head, None))
            authorship = Authorship(actors.actor, self.clock(), message)
            kept = changes.discard(self, names.DraftRef(slug), head, authorship)
            if kept is None:
                raise changes.concurrent_update([ref])
            return Superseded(names.superseded_at(kept) or authorship.when, head.decode(), kept)

    def restore_draft(self, slug: str, actors: Actors, *, at: datetime | None = None) -> Saved:
        """Reopen the draft discarded at `at` (UTC), or the most recently discarded one.

        The draft gets the same commit, unless a version has since been published from or over it: then its
        content is committed on top of the latest version. Raises `draft_exists` if a draft is open, and
        `version_not_found` if no such draft was discarded.
        """
        with self.unit_of_work.begin([slug]):
            state = self._without_draft(slug)
            discarded = next((draft for draft in self.discarded(slug) if at in (None, draft.at)), None)
            if discarded is None:
                when = f" at {at.isoformat()}" if at is not None else ""
                raise NotFoundError(Code.VERSION_NOT_FOUND, f"no draft of {slug} was discarded{when}")
            head = discarded.commit.encode()
            latest = state.latest_commit.encode() if state.latest_commit else None
            if state.draft is None and not (latest and self.objects.is_ancestor(head, latest)):
                verdict = accepted(self, Command(names.draft(slug), None, head))
                authorship = Authorship(actors.actor, self.clock())
                changes.write_one(self, changes.record(self, [verdict], authorship))
                problems = verdict.definition.problems if verdict.definition else Problems()
                return Saved(discarded.commit, state.next_number, problems)
            draft = self._draft_writer(state, actors)
            draft.change.restore(head)
            return draft.restore(head, f"Restore the draft discarded at {discarded.at.isoformat()}")

    def revert(
        self, slug: str, number: int, actors: Actors, *, expected: str | None = None, message: str = ""
    ) -> Saved:
        """Set the draft to the content of version `number`, by a new commit on top."""
        with self.unit_of_work.begin([slug]):
            state = self.changing(slug)
            if state.draft_open and expected is None:
                raise StaleDraftError(
                    "a draft is open: give the draft that you have seen (If-Match) to replace its content",
                    Code.EXPECTED_REQUIRED,
                    draft=self._draft_of(state),
                )
            if expected is not None:
                self._check_expected(state, expected)
            draft = self._draft_writer(state, actors, message)
            return draft.restore(self.commit_of(slug, number), f"Revert to v{number}")

    # Versions

    def publish(
        self,
        slug: str,
        actors: Actors,
        content: Content | None = None,
        *,
        message: str = "",
        activate: bool = True,
        expected: str | None = None,
        scheduled: Scheduled | None = None,
    ) -> Published:
        """Publish the draft as the next version, by an annotated tag. Idempotent.

        `content` is saved as the draft in the same write: as a new draft, or as the one that is `expected`.
        If it can't be published, it stays the draft. With `scheduled`, a draft whose content is published
        already is a conflict, unless that schedule did it.
        """
        with self.unit_of_work.begin([slug]):
            if (done := schedules.is_done(self, slug, scheduled)) and done.version:
                current = self.state(slug).current
                return Published(self.version(slug, done.version), current == done.version, new=False)
            state = self.changing(slug)
            authorship = Authorship(actors.actor, self.clock(), message, activate, scheduled=scheduled)
            draft = DraftWriter(self, ChangeSet(self, slug, authorship), state, actors.author, message)
            if content is not None and not (expected is None and is_latest(self, state, content)):
                state = self._without_draft(slug) if expected is None else self._with_draft(slug, expected)
                saved = draft.compose(content, "Save the draft" if state.draft_open else "Begin a draft")
                state = replace(state, draft=saved.commit, draft_open=True)
            elif expected is not None and state.draft is not None:
                self._check_expected(state, expected)
            if state.draft is None:
                raise ConflictError(Code.NO_DRAFT, f"{slug} has no draft: save or push one, then publish")
            if self.holds_latest(state):
                draft.write(state.draft)
                states.require_usable(self, state, state.latest)
                if scheduled is not None:
                    raise already_published(state)
                return Published(self.version(slug, state.latest), state.current == state.latest, new=False)
            ref, save = names.tag(slug, state.next_number), draft.command(state.draft)
            try:
                # Judged as a lightweight tag, so that a refusal leaves no tag object behind.
                verdict = accepted(self, save, Command(ref, None, save.new))
            except GitstoreError as refusal:
                draft.write(state.draft)
                if not isinstance(refusal, BaseMovedError):
                    raise
                advice = f"{refusal.message}; or save the draft with base_version {state.latest}"
                raise BaseMovedError(advice, latest=refusal.latest, draft=self._draft_of(state)) from refusal
            draft.move(save)
            tag = self.version_tag(state, actors, message, authorship.when)
            draft.change.add([tag])
            published = replace(verdict, command=Command(ref, None, tag.id))
            draft.change.publish(published, saved=save.new != save.old)
            changes.write_one(self, draft.change)
            version = self.version(slug, state.next_number)
            return Published(version, activate and not state.held, new=True)

    def move_current(
        self,
        slug: str,
        number: int,
        actors: Actors,
        *,
        message: str = "",
        hold: bool = False,
        scheduled: Scheduled | None = None,
    ) -> None:
        """Make version `number` current; with `hold`, publishing does not move the current version."""
        with self.unit_of_work.begin([slug]):
            if schedules.is_done(self, slug, scheduled, CURRENT):
                return
            state = self.changing(slug)
            self.commit_of(slug, number)
            if (state.current, state.held) != (number, hold):
                states.require_usable(self, state, number)
                authorship = Authorship(actors.actor, self.clock(), message, scheduled=scheduled)
                change = ChangeSet(self, slug, authorship)
                change.append(LedgerKind.CURRENT, version=number, current=number, held=hold)
                changes.write_one(self, change)

    def clear_current(self, slug: str, actors: Actors, *, message: str = "") -> None:
        """Unset the current version, until a version is published or made current."""
        with self.unit_of_work.begin([slug]):
            state = self.changing(slug)
            if state.current is not None or state.held:
                change = self._change(slug, actors, message)
                change.append(LedgerKind.CLEARED, current=None, held=False)
                changes.write_one(self, change)

    def describe(self, slug: str, given: Mapping[str, str | None], actors: Actors) -> None:
        """Give the workflow a `name`, a `description` or both; None returns to the definition's own."""
        with self.unit_of_work.begin([slug]):
            self.changing(slug)
            naming = (LedgerKind.CREATED, LedgerKind.DESCRIBED)
            newest = next((entry for entry in self.ledger(slug) if entry.kind in naming), None)
            before = {
                "name": newest.name or None if newest else None,
                "description": newest.description or None if newest else None,
            }
            after = before | {key: value or None for key, value in given.items()}
            if after != before:
                change = self._change(slug, actors)
                change.append(LedgerKind.DESCRIBED, **after)
                changes.write_one(self, change)

    def rename(self, slug: str, new: str, actors: Actors, *, message: str = "") -> None:
        """Give the workflow `slug` the slug `new`; its id, its versions and their tags stay as they are.

        Draft and ledger continue under the new name. Names are not used again. Raises `workflow_exists`.
        """
        check_slug(new)
        with self.unit_of_work.begin([slug, new]):
            pending.check_level(self)
            state = self.changing(slug)
            self._check_free(new)
            change = self._change(slug, actors, message)
            known = FormerName(slug, state.latest)
            change.append(LedgerKind.RENAMED, renamed=new, former=(*state.former, known))
            before, tip = self.refs.read(names.ledger(slug)), change.commits[-1].id
            left = self.refs.read(names.ledger(new))  # perhaps a lone "created", which a kill left
            moves = [RefUpdate(names.ledger(new), left, tip), RefUpdate(names.renamed(slug), None, tip)]
            gone = [Removal(names.ledger(slug), before)] if before is not None else []
            if state.draft is not None:
                draft = state.draft.encode()
                moves.append(RefUpdate(names.draft(new), None, draft))
                gone.append(Removal(names.draft(slug), draft))
            what = f"Rename {slug} to {new}"
            staged = [*([ledger.EMPTY_TREE] if before is None else []), *change.commits]
            if moved := pending.decide(self, what, moves, gone, staged):
                raise changes.concurrent_update(moved)

    # Helpers

    def _check_free(self, slug: str) -> None:
        if self.exists(slug) or self.refs.read(names.renamed(slug)) is not None:
            raise ConflictError(Code.WORKFLOW_EXISTS, f"the workflow {slug} exists already", slug=slug)

    def changing(self, slug: str) -> WorkflowState:
        """Return the state of a workflow for a change. Raises `workflow_not_found`, `workflow_archived`."""
        self.check_exists(slug)
        state = self.state(slug)
        require_active(slug, archived=state.archived)
        return state

    def _without_draft(self, slug: str) -> WorkflowState:
        state = self.changing(slug)
        if state.draft_open:
            raise ConflictError(
                Code.DRAFT_EXISTS, "a draft is open: save or discard it", draft=self._draft_of(state)
            )
        return state

    def _with_draft(self, slug: str, expected: str) -> WorkflowState:
        state = self.changing(slug)
        if not state.draft_open:
            raise NotFoundError(Code.VERSION_NOT_FOUND, f"{slug} has no open draft: create one, then save it")
        self._check_expected(state, expected)
        return state

    def _check_expected(self, state: WorkflowState, expected: str) -> None:
        if expected not in (ANY, state.draft):
            raise StaleDraftError(
                "the draft moved since you read it: read it again, then save on top",
                draft=self._draft_of(state),
            )

    def _draft_of(self, state: WorkflowState) -> Snapshot | None:
        """Return the draft in its current state, as a conflict reports it."""
        return self.snapshot(state.slug, state.draft) if state.draft is not None else None

    def _change(self, slug: str, actors: Actors, message: str = "") -> ChangeSet:
        return ChangeSet(self, slug, Authorship(actors.actor, self.clock(), message))

    def _draft_writer(self, state: WorkflowState, actors: Actors, message: str = "") -> DraftWriter:
        return DraftWriter(self, self._change(state.slug, actors, message), state, actors.author, message)

    def commit_of(self, slug: str, number: int) -> bytes:
        """Return the commit of a version; raises `version_not_found`."""
        tag = self.refs.read(self.tag(slug, number))
        if tag is None:
            raise NotFoundError(Code.VERSION_NOT_FOUND, f"{slug} has no version v{number}", version=number)
        return self.objects.peel(tag)[0]

    def version_tag(self, state: WorkflowState, actors: Actors, message: str, when: datetime) -> Tag:
        """Return the tag object, not yet written, that publishes the draft of `state`."""
        slug, number = state.slug, state.next_number
        name = names.short(names.VersionRef(slug, number))
        text = message.replace("\0", "").strip() or f"Publish {slug} v{number}"
        return new_tag(name, (state.draft or "").encode(), actors.author, when, text)


def already_published(state: WorkflowState) -> ConflictError:
    """Return the error for a schedule to publish a draft whose content the latest version has."""
    return ConflictError(
        Code.NO_DRAFT, f"the draft of {state.slug} was published already, as v{state.latest}"
    )
