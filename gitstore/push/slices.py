"""Divide a push into slices, each of which is one unit of work under the locks of its own workflows.

A non-atomic push need not lock all of its workflows at once: it locks them in the order of their slugs, a
slice at a time, and other writers wait no longer than one slice takes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Final

from gitstore import names
from gitstore.errors import GitstoreError, IntegrityError
from gitstore.names import VersionRef
from gitstore.policy import Command

MOST_WORKFLOWS: Final = 64
MOST_COMMANDS: Final = 256
"""Limit of one slice: some 100 ms of work, which bounds the wait for a workflow's lock."""


@dataclass(frozen=True, slots=True)
class Slice:
    """Commands of a push, and the workflows that they affect, sorted."""

    slugs: tuple[str, ...]
    commands: tuple[Command, ...]

    def without_contradiction(self, fault: GitstoreError) -> Slice | None:
        """Return the rest if rows and Git contradict each other on one of several workflows, else None."""
        slug = fault.workflow if isinstance(fault, IntegrityError) else None
        if slug not in self.slugs or len(self.slugs) == 1:
            return None
        rest = [c for c in self.commands if (ref := names.parse(c.ref)) is None or ref.slug != slug]
        return Slice(tuple(other for other in self.slugs if other != slug), tuple(rest))


def divide(commands: Iterable[Command]) -> list[Slice]:
    """Return the slices of `commands` ordered by (slug, number), without commands that name no workflow.

    The versions of one workflow may take several slices. The command on its draft is in each of them, because
    it decides whether publishing moves the draft.
    """
    slices: list[Slice] = []
    slugs: list[str] = []
    taken: list[Command] = []
    for slug, part in _parts(commands):
        if taken and (len(slugs) == MOST_WORKFLOWS or len(taken) + len(part) > MOST_COMMANDS):
            slices.append(Slice(tuple(slugs), tuple(taken)))
            slugs, taken = [], []
        slugs.append(slug)
        taken += part
    return [*slices, Slice(tuple(slugs), tuple(taken))] if taken else slices


def _parts(commands: Iterable[Command]) -> Iterator[tuple[str, list[Command]]]:
    """Yield (slug, commands), each small enough for a slice."""
    keyed = [
        (target.slug, target.number if isinstance(target, VersionRef) else 0, command)
        for command in commands
        if (target := names.parse(command.ref)) is not None
    ]
    keyed.sort(key=lambda item: item[:2])
    for slug, group in groupby(keyed, key=lambda item: item[0]):
        drafts: list[Command] = []
        tags: list[Command] = []
        for _, number, command in group:
            (tags if number else drafts).append(command)
        size = MOST_COMMANDS - len(drafts)
        for start in range(0, max(len(tags), 1), size):
            yield slug, [*drafts, *tags[start : start + size]]
