"""The facts that `policy.judge` needs, read from a repository, optionally through a quarantine."""

from __future__ import annotations

from collections.abc import Callable

from gitstore.errors import Code, GitstoreError
from gitstore.git.quarantine import Quarantine
from gitstore.model import Definition, Permission
from gitstore.policy import Command, Verdict, WorkflowTip, judge
from gitstore.repository import Repository


class RepositoryFacts:
    """`policy.Facts` from `reading`. `may` checks the pusher's permissions; by default all are granted."""

    def __init__(self, reading: Repository, may: Callable[[Permission], bool] = lambda _: True) -> None:
        self._reading = reading
        self.may = may

    def standing(self, slug: str) -> WorkflowTip:
        state = self._reading.state(slug)
        return WorkflowTip(
            draft=state.draft.encode() if state.draft else None,
            latest=state.latest,
            latest_commit=state.latest_commit.encode() if state.latest_commit else None,
            floor=state.floor,
        )

    def holds(self, ref: bytes) -> bytes | None:
        return self._reading.refs.read(ref)

    def peel(self, oid: bytes) -> bytes:
        return self._reading.objects.peel(oid)[0]

    def draft_commit(self, oid: bytes) -> None:
        self._reading.objects.commit(oid)

    def is_ancestor(self, ancestor: bytes, descendant: bytes) -> bool:
        return self._reading.objects.is_ancestor(ancestor, descendant)

    def definition(self, commit: bytes, slug: str) -> Definition:
        return self._reading.definition(commit, slug)


class PushFacts(RepositoryFacts):
    """Facts read through the quarantine; a tip with missing or damaged objects raises instead."""

    def __init__(
        self, reading: Repository, may: Callable[[Permission], bool], held: Quarantine, *, shallow: bool
    ) -> None:
        super().__init__(reading, may)
        self.reading = reading
        self._definitions: dict[tuple[bytes, str], Definition] = {}
        self._held = held
        self._shallow = shallow
        self._broken: dict[bytes, GitstoreError] = {}
        self._surveyed: set[bytes] = set()

    def survey(self, tip: bytes | None) -> None:
        """Check the objects that `tip` needs, before any lock is taken."""
        if tip is None or tip in self._surveyed:
            return
        self._surveyed.add(tip)
        try:
            self._held.check(tip)
        except GitstoreError as error:
            self._broken[tip] = in_a_shallow_clone(error) if self._shallow else error

    def peel(self, oid: bytes) -> bytes:
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

    def _check(self, oid: bytes) -> None:
        if oid in self._broken:
            raise self._broken[oid]


def in_a_shallow_clone(error: GitstoreError) -> GitstoreError:
    """Convert `objects_missing` to `shallow`: objects missing from a shallow clone's push are its history."""
    if error.code is not Code.OBJECTS_MISSING:
        return error
    return GitstoreError(Code.SHALLOW, "shallow clone: git fetch --unshallow, then push")


def accepted(reading: Repository, command: Command) -> Verdict:
    """Judge one command and raise its refusal. The caller has authorized the principal."""
    (verdict,) = judge([command], RepositoryFacts(reading))
    if verdict.refusal is not None:
        raise verdict.refusal
    return verdict
