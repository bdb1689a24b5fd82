"""Store: draft, save, publish, revert, for one project; the operations of `git push` for callers without git.

Every writing method begins a unit of work, asks `policy.judge` as a push does, and records the change.
The caller has authenticated and authorized the principal. `expected` is the draft's commit that the caller
has seen (If-Match): a hex id, ANY for any state, or None if the caller gave none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final
from uuid import UUID

from dulwich.objects import Commit, ObjectID, Tag
from dulwich.repo import Repo

from gitstore import changes, names
from gitstore.definition.document import DefinitionCache
from gitstore.definition.quoting import clip
from gitstore.drafts import STARTER, Content, DraftWriter, Saved
from gitstore.errors import BaseMovedError, Code, ConflictError, NotFoundError, StaleDraftError
from gitstore.git.objects import ident
from gitstore.model import (
    LedgerKind,
    Limits,
    Person,
    Problems,
    Rules,
    Snapshot,
    Superseded,
    Version,
    WorkflowState,
)
from gitstore.names import check_slug
from gitstore.policy import Command, Verdict
from gitstore.policy_facts import accepted
from gitstore.repository import WritableRepository
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
        rules: Rules = Rules.MESHHOOK,
        limits: Limits | None = None,
        parsed: DefinitionCache | None = None,
        clock: Callable[[], datetime] = now,
    ) -> None:
        super().__init__(path, project, rules=rules, limits=limits, parsed=parsed)
        self.unit_of_work = unit_of_work(self)
        self.clock = clock

    @staticmethod
    def init(path: Path) -> None:
        """Create the bare repository at `path` unless it exists."""
        if (path / "HEAD").exists():
            return
        path.mkdir(parents=True, exist_ok=True)
        Repo.init_bare(str(path)).close()

    # Drafts

    def create_workflow(
        self,
        slug: str,
        content: Content | None,
        who: Actors,
        *,
        name: str | None = None,
        description: str = "",
    ) -> Saved:
        """Create a workflow with its first draft (a one-node starter without `content`)."""
        check_slug(slug)
        with self.unit_of_work.begin([slug]):
            if self.exists(slug):
                raise ConflictError(Code.WORKFLOW_EXISTS, f"the workflow {slug} exists already", slug=slug)
            starter = {**({"name": name} if name else {}), **STARTER}
            recorder = self._recorder(slug, who, "")
            # Also after a kill left a lone "created" entry: the name of this request is the one that counts.
            recorder.append(LedgerKind.CREATED, name=name, description=description)
            drafting = DraftWriter(self, recorder, None, who.author)
            return drafting.save(content or Content(value=starter), "Create the draft")

    def create_draft(self, slug: str, content: Content | None, who: Actors, message: str = "") -> Saved:
        """Open a draft on top of the latest version; without `content`, copy the current version's."""
        with self.unit_of_work.begin([slug]):
            state = self._without_draft(slug)
            if content is not None:
                return self._drafting(state, who, message).save(content, "Begin a draft")
            if state.current is None:
                raise NotFoundError(
                    Code.NOT_PUBLISHED, f"{slug} has no current version to copy: send a definition"
                )
            version = self._commit_of(slug, state.current)
            return self._drafting(state, who, message).restore(version, f"Copy v{state.current}")

    def create_draft_from(self, slug: str, number: int, who: Actors, message: str = "") -> Saved:
        """Open a draft with the content of version `number`."""
        with self.unit_of_work.begin([slug]):
            drafting = self._drafting(self._without_draft(slug), who, message)
            return drafting.restore(self._commit_of(slug, number), f"Copy v{number}")

    def save_draft(
        self,
        slug: str,
        content: Content,
        who: Actors,
        *,
        expected: str,
        message: str = "",
        base_version: int | None = None,
    ) -> Saved:
        """Save the open draft. `base_version`, which the author has merged, becomes a second parent."""
        with self.unit_of_work.begin([slug]):
            state = self._existing(slug)
            self._check_open(state)
            self._check_expected(state, expected)
            merged = self._commit_of(slug, base_version) if base_version is not None else None
            return self._drafting(state, who, message).save(content, "Save the draft", merged)

    def discard_draft(
        self, slug: str, who: Actors, *, expected: str | None = None, message: str = ""
    ) -> Superseded:
        """Discard the open draft; return its superseded ref, for `restore_draft`."""
        with self.unit_of_work.begin([slug]):
            state = self._existing(slug)
            self._check_open(state)
            self._check_expected(state, expected or ANY)
            head = (state.draft or "").encode()
            verdict = accepted(self, Command(names.draft(slug), head, None))
            occasion = changes.Authorship(who.actor, self.clock(), message)
            kept = changes.discard(self, names.DraftRef(slug), verdict.command.old or head, occasion)
            if kept is None:
                raise changes.concurrent_update([names.draft(slug)])
            return Superseded(names.superseded_at(kept) or occasion.when, head.decode(), kept)

    def restore_draft(self, slug: str, who: Actors, *, at: datetime | None = None) -> Saved:
        """Reopen the draft discarded at `at` (UTC), or the most recently discarded one.

        The draft gets the same commit, unless a version has since been published from or over it: then its
        content is committed on top of the latest version. Raises `draft_exists` if a draft is open, and
        `version_not_found` if no such draft was discarded.
        """
        with self.unit_of_work.begin([slug]):
            state = self._without_draft(slug)
            found = next((one for one in self.discarded(slug) if at in (None, one.at)), None)
            if found is None:
                when = f" at {at.isoformat()}" if at is not None else ""
                raise NotFoundError(Code.VERSION_NOT_FOUND, f"no draft of {slug} was discarded{when}")
            name, head = names.draft(slug), found.commit.encode()
            latest = state.latest_commit.encode() if state.latest_commit else None
            if state.draft is None and not (latest and self.objects.is_ancestor(head, latest)):
                verdict = accepted(self, Command(name, None, head))
                occasion = changes.Authorship(who.actor, self.clock())
                changes.write_one(self, changes.record(self, [verdict], occasion))
                problems = verdict.definition.problems if verdict.definition else Problems()
                return Saved(found.commit, state.next_number, problems)
            drafting = self._drafting(state, who, "")
            drafting.recorder.restore(head)
            return drafting.restore(head, f"Restore the draft discarded at {found.at.isoformat()}")

    def revert(
        self, slug: str, number: int, who: Actors, *, expected: str | None = None, message: str = ""
    ) -> Saved:
        """Set the draft to the content of version `number`, by a new commit on top."""
        with self.unit_of_work.begin([slug]):
            state = self._existing(slug)
            if state.draft_open and expected is None:
                raise StaleDraftError(
                    "a draft is open: name the draft that you have seen, to put a new state on top of it",
                    Code.EXPECTED_REQUIRED,
                    draft=self._draft_of(state),
                )
            if expected is not None:
                self._check_expected(state, expected)
            version = self._commit_of(slug, number)
            return self._drafting(state, who, message).restore(version, f"Revert to v{number}")

    # Versions

    def publish(
        self,
        slug: str,
        who: Actors,
        *,
        message: str = "",
        activate: bool = True,
        expected: str | None = None,
    ) -> Published:
        """Publish the draft as the next version, by an annotated tag. Idempotent."""
        with self.unit_of_work.begin([slug]):
            state = self._existing(slug)
            if state.draft is None:
                raise ConflictError(Code.NO_DRAFT, f"{slug} has no draft: save or push one, then publish")
            if expected is not None:
                self._check_expected(state, expected)
            if self._same_as_latest(state):
                return Published(self.version(slug, state.latest), state.current == state.latest, new=False)
            ref, when = names.tag(slug, state.next_number), self.clock()
            # Judged as a lightweight tag, so that a refusal leaves no tag object behind.
            verdict = self._judge_publishing(state, Command(ref, None, state.draft.encode()))
            tag = self._tag(slug, state, who, message, when)
            self.objects.write([tag])
            occasion = changes.Authorship(who.actor, when, message, activate)
            published = replace(verdict, command=Command(ref, None, tag.id))
            changes.write_one(self, changes.record(self, [published], occasion))
            made = self.version(slug, state.next_number)
            return Published(made, activate and not state.held, new=True)

    def move_current(
        self, slug: str, number: int, who: Actors, *, message: str = "", hold: bool = False
    ) -> None:
        """Make version `number` current; with `hold`, publishing does not move the current version."""
        with self.unit_of_work.begin([slug]):
            state = self._existing(slug)
            self._commit_of(slug, number)
            if (state.current, state.held) != (number, hold):
                recorder = self._recorder(slug, who, message)
                recorder.append(LedgerKind.CURRENT, version=number, current=number, held=hold)
                changes.write_one(self, recorder)

    def clear_current(self, slug: str, who: Actors, *, message: str = "") -> None:
        """Unset the current version, until a version is published or made current."""
        with self.unit_of_work.begin([slug]):
            state = self._existing(slug)
            if state.current is not None or state.held:
                recorder = self._recorder(slug, who, message)
                recorder.append(LedgerKind.CLEARED, current=None, held=False)
                changes.write_one(self, recorder)

    # Helpers

    def _existing(self, slug: str) -> WorkflowState:
        if not self.exists(slug):
            raise NotFoundError(Code.WORKFLOW_NOT_FOUND, f"there is no workflow {clip(slug)!r}")
        return self.state(slug)

    def _without_draft(self, slug: str) -> WorkflowState:
        state = self._existing(slug)
        if state.draft_open:
            raise ConflictError(
                Code.DRAFT_EXISTS,
                "a draft is open: save a change of it, or discard it",
                draft=self._draft_of(state),
            )
        return state

    def _recorder(self, slug: str, who: Actors, message: str) -> changes.ChangeSet:
        return changes.ChangeSet(self, slug, changes.Authorship(who.actor, self.clock(), message))

    def _drafting(self, state: WorkflowState, who: Actors, message: str) -> DraftWriter:
        return DraftWriter(self, self._recorder(state.slug, who, message), state, who.author, message)

    def _check_open(self, state: WorkflowState) -> None:
        if not state.draft_open:
            raise NotFoundError(
                Code.VERSION_NOT_FOUND, f"{state.slug} has no open draft: create one, then save it"
            )

    def _check_expected(self, state: WorkflowState, expected: str) -> None:
        if expected not in (ANY, state.draft):
            raise StaleDraftError(
                "the draft moved since you read it: read it again, then save on top",
                draft=self._draft_of(state),
            )

    def _draft_of(self, state: WorkflowState) -> Snapshot | None:
        """Return the draft in its current state, as a conflict reports it."""
        return self.snapshot(state.slug, state.draft) if state.draft is not None else None

    def _commit_of(self, slug: str, number: int) -> bytes:
        held = self.refs.read(names.tag(slug, number))
        if held is None:
            raise NotFoundError(Code.VERSION_NOT_FOUND, f"{slug} has no version v{number}", version=number)
        return self.objects.peel(held)[0]

    def _same_as_latest(self, state: WorkflowState) -> bool:
        if state.latest_commit is None or state.draft is None:
            return False
        commits = (self.objects.commit(tip.encode()) for tip in (state.draft, state.latest_commit))
        ours, latest = (self.locate(commit, state.slug)[2] for commit in commits)
        return ours == latest

    def _tag(self, slug: str, state: WorkflowState, who: Actors, message: str, when: datetime) -> Tag:
        tag = Tag()
        tag.name = f"{slug}/v{state.next_number}".encode()
        tag.object = (Commit, ObjectID((state.draft or "").encode()))
        tag.tagger = ident(who.author)
        tag.tag_time, tag.tag_timezone = int(when.timestamp()), 0
        tag.message = (
            message.replace("\0", "").strip() or f"Publish {slug} v{state.next_number}"
        ).encode() + b"\n"
        return tag

    def _judge_publishing(self, state: WorkflowState, command: Command) -> Verdict:
        """Judge as `accepted` does; if the base moved, add the current state and the remedy without git."""
        try:
            return accepted(self, command)
        except BaseMovedError as moved:
            otherwise = f"{moved.message}; or save the draft with base_version {state.latest}"
            raise BaseMovedError(otherwise, latest=moved.latest, draft=self._draft_of(state)) from moved
