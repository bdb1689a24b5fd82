"""The facts that `policy.judge` asks for, read from a repository (a quarantine in front of it included)."""

from __future__ import annotations

from collections.abc import Callable

from gitstore.model import Definition, Permission
from gitstore.policy import Command, Standing, Verdict, judge
from gitstore.reading import Reading


class StoreFacts:
    """`policy.Facts` from `reading`. `may` tells what the pusher is allowed; by default everything."""

    def __init__(self, reading: Reading, may: Callable[[Permission], bool] = lambda _: True) -> None:
        self._reading = reading
        self.may = may

    def standing(self, slug: str) -> Standing:
        state = self._reading.state(slug)
        return Standing(
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


def accepted(reading: Reading, command: Command) -> Verdict:
    """What policy says of one command; raises its refusal. The principal was authorized by the caller."""
    (verdict,) = judge([command], StoreFacts(reading))
    if verdict.refusal is not None:
        raise verdict.refusal
    return verdict
