"""The facts that `policy.judge` needs, read from a repository, optionally through a quarantine."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gitstore import names
from gitstore.errors import Code, ConflictError, GitstoreError, ObjectsMissingError, RenamedError
from gitstore.git.quarantine import Quarantine
from gitstore.model import Definition, Permission
from gitstore.policy import Command, Verdict, WorkflowTip, judge
from gitstore.repository import Repository

Authorize = Callable[[Permission, str], None]
"""`authorize(permission, what)` raises `forbidden` unless the principal has the permission for `what`."""


class RepositoryFacts:
    """`policy.Facts` from `repository`. `authorize` checks permissions; by default all are granted."""

    def __init__(
        self, repository: Repository, authorize: Authorize = lambda _permission, _what: None
    ) -> None:
        self._repository = repository
        self.authorize = authorize

    def tip(self, slug: str) -> WorkflowTip:
        try:
            state = self._repository.state(slug)
        except RenamedError as renamed:
            draft = names.show(names.draft(renamed.slug))
            advice = f"{renamed.message}: git push origin HEAD:{draft}, and tag {renamed.slug}/v<N>"
            raise ConflictError(Code.WORKFLOW_RENAMED, advice, slug=renamed.slug) from None
        return WorkflowTip(
            draft=state.draft.encode() if state.draft else None,
            latest=state.latest,
            latest_commit=state.latest_commit.encode() if state.latest_commit else None,
            floor=state.floor,
            archived=state.archived and not state.deleted,
        )

    def holds(self, ref: bytes) -> bytes | None:
        return self._repository.refs.read(ref)

    def peel(self, oid: bytes) -> tuple[bytes, bytes | None]:
        commit, tag = self._repository.objects.peel(oid)
        return commit, tag.name if tag is not None else None

    def draft_commit(self, oid: bytes) -> None:
        self._repository.objects.commit(oid)

    def is_ancestor(self, ancestor: bytes, descendant: bytes) -> bool:
        return self._repository.objects.is_ancestor(ancestor, descendant)

    def definition(self, commit: bytes, slug: str) -> Definition:
        return self._repository.definition(commit, slug)


class PushFacts(RepositoryFacts):
    """Facts read through the quarantine; a tip with missing or damaged objects raises instead."""

    def __init__(
        self, repository: Repository, authorize: Authorize, held: Quarantine, *, shallow: bool
    ) -> None:
        super().__init__(repository, authorize)
        self.repository = repository
        self._definitions: dict[tuple[bytes, str], Definition] = {}
        self._held = held
        self._shallow = shallow
        self._broken: dict[bytes, GitstoreError] = {}
        self._surveyed: set[bytes] = set()

    def survey(self, commands: Iterable[Command]) -> None:
        """Check the objects that `commands` need, before any lock is taken."""
        for tip in {command.new: None for command in commands}:
            if tip is not None and tip not in self._surveyed:
                self._surveyed.add(tip)
                try:
                    self._held.check(tip)
                except GitstoreError as error:
                    self._broken[tip] = in_a_shallow_clone(error) if self._shallow else error

    def peel(self, oid: bytes) -> tuple[bytes, bytes | None]:
        self._check(oid)
        return super().peel(oid)

    def draft_commit(self, oid: bytes) -> None:
        self._check(oid)
        super().draft_commit(oid)

    def definition(self, commit: bytes, slug: str) -> Definition:
        """Return the parsed definition; cached, because a push of several slices is judged twice."""
        if (commit, slug) not in self._definitions:
            self._definitions[commit, slug] = super().definition(commit, slug)
        return self._definitions[commit, slug]

    def forget_definitions(self) -> None:
        """Release the parsed definitions; what follows needs others."""
        self._definitions.clear()

    def _check(self, oid: bytes) -> None:
        if oid in self._broken:
            raise self._broken[oid]


def in_a_shallow_clone(error: GitstoreError) -> GitstoreError:
    """Convert `objects_missing` to `shallow`: objects missing from a shallow clone's push are its history."""
    if not isinstance(error, ObjectsMissingError):
        return error
    return ConflictError(Code.SHALLOW, "shallow clone: git fetch --unshallow, then push")


def accepted(repository: Repository, *commands: Command) -> Verdict:
    """Judge a set of commands and raise a refusal. The caller has authorized the principal.

    Return the verdict on the last one.
    """
    verdicts = judge(commands, RepositoryFacts(repository))
    for verdict in verdicts:
        if verdict.refusal is not None:
            raise verdict.refusal
    return verdicts[-1]
