"""What happened to a workflow, newest first: its ledger and the saves of its draft, merged by time.

Both are chains of commits, so a page costs its own length, wherever in the history it begins: the place where
it continues names the next commit of each chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final

from dulwich.objects import Commit

from gitstore.definition.quoting import clip
from gitstore.errors import GitstoreError
from gitstore.git.commits import person, text, utc
from gitstore.model import Environment, LedgerEntry, LedgerKind, Person
from gitstore.repository import LONGEST_MESSAGE, Repository

MOST_COMMITS: Final = 500
"""Commits of the draft's branch that a page examines: a branch may hold many that concern other workflows."""


class Kind(StrEnum):
    """The kind of an activity. A ledger entry that a newer gitstore wrote has a word of its own."""

    CREATED = "created"
    DESCRIBED = "described"
    SAVED = "saved"
    REVERTED = "reverted"
    PUBLISHED = "published"
    IMPORTED = "imported"
    CURRENT = "current"
    HELD = "held"
    RELEASED = "released"
    CLEARED = "cleared"
    DISCARDED = "discarded"
    RESTORED = "restored"
    DIVERGED = "diverged"
    MOVED = "moved"
    REMOVED = "removed"
    PROMOTED = "promoted"
    ROLLED_BACK = "rolled_back"
    YANKED = "yanked"
    UNYANKED = "unyanked"
    ANNOTATED = "annotated"
    RENAMED = "renamed"
    ARCHIVED = "archived"
    UNARCHIVED = "unarchived"


class Topic(StrEnum):
    """The subject of an activity. A pointer is that of an environment, or `current`."""

    DRAFTS = "drafts"
    VERSIONS = "versions"
    POINTERS = "pointers"
    WORKFLOWS = "workflows"


_KINDS: Final[dict[str, Kind]] = {
    LedgerKind.CREATED: Kind.CREATED,
    LedgerKind.DESCRIBED: Kind.DESCRIBED,
    LedgerKind.CLEARED: Kind.CLEARED,
    LedgerKind.DISCARDED: Kind.DISCARDED,
    LedgerKind.RESTORED: Kind.RESTORED,
    LedgerKind.POINTED: Kind.MOVED,
    LedgerKind.UNPOINTED: Kind.REMOVED,
    LedgerKind.YANKED: Kind.YANKED,
    LedgerKind.UNYANKED: Kind.UNYANKED,
    LedgerKind.ANNOTATED: Kind.ANNOTATED,
    LedgerKind.RENAMED: Kind.RENAMED,
    LedgerKind.ARCHIVED: Kind.ARCHIVED,
    LedgerKind.UNARCHIVED: Kind.UNARCHIVED,
}
_TOPICS: Final[dict[str, Topic]] = {
    kind: topic
    for topic, kinds in {
        Topic.DRAFTS: (Kind.CREATED, Kind.SAVED, Kind.REVERTED, Kind.DISCARDED, Kind.RESTORED),
        Topic.VERSIONS: (
            Kind.PUBLISHED, Kind.IMPORTED, Kind.YANKED, Kind.UNYANKED, Kind.ANNOTATED, Kind.DIVERGED,
        ),
        Topic.POINTERS: (
            Kind.CURRENT, Kind.HELD, Kind.RELEASED, Kind.CLEARED, Kind.MOVED, Kind.REMOVED, Kind.PROMOTED,
            Kind.ROLLED_BACK,
        ),
        Topic.WORKFLOWS: (Kind.DESCRIBED, Kind.RENAMED, Kind.ARCHIVED, Kind.UNARCHIVED),
    }.items()
    for kind in kinds
}  # fmt: skip


_RANKS: Final[dict[str, int]] = {Kind.CREATED: 0, Kind.SAVED: 1}


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened, who did it, when, and the reason that they gave.

    `id` is the commit or the event that recorded it. `version` is the one published or made current,
    `previous` the one that was current before. `commit` is the draft's, `blob` its definition.
    `activated`: the published version became current at once. In the `environment`, the pointer is `pointer`
    since then. `release` is the release that did it, `promoted_from` the environment that had the version.
    """

    id: str
    kind: Kind | str
    at: datetime
    actor: Person
    reason: str
    version: int | None = None
    previous: int | None = None
    activated: bool = False
    commit: str | None = None
    blob: str | None = None
    environment: str | None = None
    pointer: Environment | None = None
    release: str | None = None
    promoted_from: str | None = None

    @property
    def topic(self) -> Topic | None:
        """The subject; None for a kind that a newer gitstore wrote."""
        return _TOPICS.get(self.kind)

    @property
    def order(self) -> tuple[datetime, int]:
        """Sort key. Within one second, a save came before what was done with it, and after the creation."""
        return self.at, _RANKS.get(self.kind, 2)


@dataclass(frozen=True, slots=True)
class Place:
    """The next entries of a page: of the ledger, commit of the draft, and id of another list."""

    ledger: str | None
    draft: str | None
    other: str | None = None


def beginning(repository: Repository, slug: str) -> Place:
    """Return the place of the newest page, without another list."""
    state = repository.state(slug)
    return Place(state.ledger, state.draft if state.draft_open else state.latest_commit or state.draft)


def read(
    repository: Repository,
    slug: str,
    place: Place,
    limit: int,
    others: Iterable[Happening] = (),
    topic: Topic | None = None,
) -> tuple[list[Happening], Place | None]:
    """Return what happened from `place` on, newest first, and the place of the next page.

    `others`, newest first, happened elsewhere. With a `topic`, only what is about it. A page may be shorter
    than `limit` although another follows.
    """
    draft = place.draft if topic in (None, Topic.DRAFTS) else None
    chains = [
        _Chain(_chosen(_ledger(repository, slug, place.ledger), topic)),
        _Chain(_saves(repository, slug, draft)),
        _Chain(iter(others)),
    ]
    found: list[Happening] = []
    while len(found) < limit and all(chain.continues is None for chain in chains):
        begun = [chain for chain in chains if chain.head is not None]
        if not begun:
            return found, None
        found.append(max(begun, key=_Chain.order).take())
    after = Place(*(chain.place for chain in chains))
    return found, None if after == Place(None, None) else after


class _Chain:
    """An iterator with its next item. One that ends with a text goes on there in the next page."""

    def __init__(self, items: Iterator[Happening | str]) -> None:
        self._items = items
        self._step()

    def _step(self) -> None:
        item = next(self._items, None)
        self.head = item if isinstance(item, Happening) else None
        self.continues = item if isinstance(item, str) else None

    @property
    def place(self) -> str | None:
        return self.head.id if self.head is not None else self.continues

    def order(self) -> tuple[datetime, int]:
        assert self.head is not None  # noqa: S101 - only chains with an item are compared
        return self.head.order

    def take(self) -> Happening:
        taken = self.head
        assert taken is not None  # noqa: S101 - as above
        self._step()
        return taken


def _chosen(items: Iterable[Happening], topic: Topic | None) -> Iterator[Happening | str]:
    """Yield the items about `topic`, or all. Past MOST_COMMITS others, yields where to continue."""
    others = 0
    for item in items:
        if topic is None or item.topic is topic:
            yield item
        elif others == MOST_COMMITS:
            yield item.id
            return
        else:
            others += 1


def _ledger(repository: Repository, slug: str, tip: str | None) -> Iterator[Happening]:
    counting = (
        e for e in repository.ledger_from(tip.encode() if tip else None) if repository.counts(slug, e)
    )
    entry = next(counting, None)
    while entry is not None:
        before = next(counting, None)
        yield _of_entry(entry, before)
        entry = before


def _of_entry(entry: LedgerEntry, before: LedgerEntry | None) -> Happening:
    kind: Kind | str = _KINDS.get(entry.kind, entry.kind)
    version, previous = entry.version, before.current if before else None
    if entry.kind is LedgerKind.PUBLISHED:
        kind = Kind.PUBLISHED if entry.tagged_at is None else Kind.IMPORTED
    elif entry.kind is LedgerKind.CURRENT:
        was_held = before is not None and before.held
        kind = Kind.CURRENT
        if entry.held != was_held:
            kind = Kind.HELD if entry.held else Kind.RELEASED
    elif entry.kind in (LedgerKind.DISCARDED, LedgerKind.RESTORED):
        version = entry.latest + 1
    pointer, was = (_pointer(each, entry.environment) for each in (entry, before))
    if entry.environment is not None:
        version, previous = pointer.version if pointer else None, was.version if was else None
    if entry.promoted_from is not None:
        kind = Kind.PROMOTED
    elif entry.rolled_back:
        kind = Kind.ROLLED_BACK
    return Happening(
        id=entry.oid,
        kind=kind,
        at=entry.when,
        actor=entry.actor,
        reason=clip(entry.message, LONGEST_MESSAGE),
        version=version,
        previous=previous,
        activated=entry.kind is LedgerKind.PUBLISHED and entry.current == entry.version,
        commit=entry.target if entry.kind in (LedgerKind.DISCARDED, LedgerKind.RESTORED) else None,
        environment=entry.environment,
        pointer=pointer,
        release=entry.release,
        promoted_from=entry.promoted_from,
    )


def _pointer(entry: LedgerEntry | None, name: str | None) -> Environment | None:
    """Return the pointer in the environment `name` after an entry."""
    return next((each for each in entry.environments if each.name == name), None) if entry else None


def _saves(repository: Repository, slug: str, tip: str | None) -> Iterator[Happening | str]:
    """Yield the commits from `tip` back by first parents that changed the definition, or nothing at all.

    What else a branch holds concerns other workflows. Past MOST_COMMITS, yields where to continue.
    """
    examined = 0
    commit = repository.objects.commit(tip.encode()) if tip else None
    blob = _blob(repository, commit, slug)
    while commit is not None and blob is not None:
        if examined == MOST_COMMITS:
            yield commit.id.decode()
            return
        parent = repository.objects.commit(commit.parents[0]) if commit.parents else None
        before = _blob(repository, parent, slug)
        if before != blob or (parent is not None and parent.tree == commit.tree):
            yield Happening(
                id=commit.id.decode(),
                kind=Kind.SAVED,
                at=utc(commit.commit_time),
                actor=person(commit.author, commit.encoding),
                reason=clip(text(commit.message, commit.encoding).strip(), LONGEST_MESSAGE),
                commit=commit.id.decode(),
                blob=blob,
            )
        examined += 1
        commit, blob = parent, before


def _blob(repository: Repository, commit: Commit | None, slug: str) -> str | None:
    """Return the id of the definition, or None before the workflow was in the branch."""
    if commit is None:
        return None
    try:
        return repository.locate(commit, slug)[1].decode()
    except GitstoreError:
        return None
