"""What may change about a workflow and its versions after publication: yank, describe, archive.

Each change is an entry of the ledger; tags, numbers and definitions stay as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gitstore import changes, names, pending
from gitstore.changes import Authorship, ChangeSet
from gitstore.definition.quoting import clip
from gitstore.errors import Code, ConflictError, MalformedError
from gitstore.model import LedgerEntry, LedgerKind, WorkflowState
from gitstore.pending import Removal
from gitstore.policy import require_active

if TYPE_CHECKING:
    from gitstore.repository import Repository
    from gitstore.store import Actors, Store

_STATES: Final = (LedgerKind.YANKED, LedgerKind.UNYANKED)


@dataclass(frozen=True, slots=True)
class VersionState:
    """The changes of a version since its publication.

    `yank` is the entry that yanked it, None if it is not yanked; `annotations` are the entries that gave it
    titles and notes, the newest first.
    """

    yank: LedgerEntry | None = None
    annotations: tuple[LedgerEntry, ...] = ()

    @property
    def title(self) -> str | None:
        return self.annotations[0].title if self.annotations else None

    @property
    def notes(self) -> str | None:
        return self.annotations[0].notes if self.annotations else None


def require_usable(repository: Repository, state: WorkflowState, number: int | None) -> None:
    """Raise `version_unusable` where nothing new may select version `number` of the workflow."""
    require_active(state.slug, archived=state.archived)
    if number is not None and number in state.yanked:
        raise yanked(repository, state.slug, number)


def yanked(repository: Repository, slug: str, number: int) -> ConflictError:
    """Return the error for a choice of version `number`, which is yanked, with the reason of the yank."""
    entry = yank_of(repository, slug, number)
    reason = f" ({clip(entry.message)})" if entry is not None and entry.message else ""
    return ConflictError(
        Code.VERSION_UNUSABLE,
        f"v{number} of {slug} was yanked{reason}: choose another version, or take back the yank",
        version=number,
    )


def yank_of(repository: Repository, slug: str, number: int | None) -> LedgerEntry | None:
    """Return the entry that yanked version `number`, with the reason; None if it is not yanked."""
    entries = (e for e in repository.ledger(slug) if e.kind in _STATES and e.version == number)
    newest = next(entries, None)
    return newest if newest is not None and newest.kind is LedgerKind.YANKED else None


def of_versions(repository: Repository, slug: str, numbers: Collection[int]) -> dict[int, VersionState]:
    """Return what has changed about the versions `numbers`; one without a change is left out.

    Reads the ledger from its newest entry back to the publication of the oldest of them.
    """
    states: dict[int, LedgerEntry] = {}
    annotations: dict[int, list[LedgerEntry]] = {}
    oldest = min(numbers, default=0)
    for entry in repository.ledger(slug) if oldest else ():
        if entry.version is None:
            continue
        if entry.kind is LedgerKind.PUBLISHED and entry.version <= oldest:
            break
        if entry.version in numbers and entry.kind in _STATES:
            states.setdefault(entry.version, entry)
        elif entry.version in numbers and entry.kind is LedgerKind.ANNOTATED:
            annotations.setdefault(entry.version, []).append(entry)
    yanks = {number: entry for number, entry in states.items() if entry.kind is LedgerKind.YANKED}
    return {
        number: VersionState(yanks.get(number), tuple(annotations.get(number, ())))
        for number in yanks.keys() | annotations.keys()
    }


def newest_usable(repository: Repository, state: WorkflowState) -> int | None:
    """Return the latest version that is not yanked."""
    numbers = (number for number in range(state.latest, 0, -1) if number not in state.yanked)
    return next((n for n in numbers if repository.refs.read(repository.tag(state.slug, n)) is not None), None)


def yank(store: Store, slug: str, number: int, actors: Actors, *, reason: str) -> list[str]:
    """Withdraw version `number`: nothing new selects it, and what reads it by number still may.

    Return the names of the pointers on it, which stay. Yanking it again writes nothing.
    """
    if not reason.strip():
        raise MalformedError("a reason is required: readers of the version see it")
    with store.unit_of_work.begin([slug]):
        state = store.changing(slug)
        store.commit_of(slug, number)
        if number not in state.yanked:
            yanked = tuple(sorted({*state.yanked, number}))
            _append(store, slug, actors, reason, LedgerKind.YANKED, version=number, yanked=yanked)
        return pointers_on(state, number)


def unyank(store: Store, slug: str, number: int, actors: Actors, *, reason: str = "") -> None:
    """Take back the yank of version `number`."""
    with store.unit_of_work.begin([slug]):
        state = store.changing(slug)
        store.commit_of(slug, number)
        if number in state.yanked:
            yanked = tuple(other for other in state.yanked if other != number)
            _append(store, slug, actors, reason, LedgerKind.UNYANKED, version=number, yanked=yanked)


def pointers_on(state: WorkflowState | LedgerEntry, number: int | None) -> list[str]:
    """Return the names of the pointers on version `number`: `current` first."""
    environments = [each.name for each in state.environments if number in each.versions]
    return [*(["current"] if state.current == number else []), *environments]


def annotate(
    store: Store, slug: str, number: int, given: Mapping[str, str | None], actors: Actors
) -> LedgerEntry | None:
    """Give version `number` a `title`, `notes` or both; None removes one. What is not given stays.

    Return the entry that holds for the version from then on, None without any.
    """
    with store.unit_of_work.begin([slug]):
        store.changing(slug)
        store.commit_of(slug, number)
        newest = next(annotations_of(store, slug, number), None)
        before = {
            "title": newest.title if newest is not None else None,
            "notes": newest.notes if newest is not None else None,
        }
        after = before | {key: value or None for key, value in given.items()}
        if after == before:
            return newest
        return _append(store, slug, actors, "", LedgerKind.ANNOTATED, version=number, **after)


def annotations_of(repository: Repository, slug: str, number: int) -> Iterator[LedgerEntry]:
    """Yield the titles and notes that version `number` has had, newest first."""
    for entry in repository.ledger(slug):
        if entry.kind is LedgerKind.ANNOTATED and entry.version == number:
            yield entry


def archive(store: Store, slug: str, actors: Actors, *, reason: str = "") -> None:
    """Archive a workflow: it keeps its slug, drafts and versions, and takes no change until unarchived.

    Archiving it again writes nothing.
    """
    with store.unit_of_work.begin([slug]):
        store.check_exists(slug)
        state = store.state(slug)
        if not state.archived:
            _append(store, slug, actors, reason, LedgerKind.ARCHIVED, archived=True)


def unarchive(store: Store, slug: str, actors: Actors, *, reason: str = "") -> None:
    """Let an archived workflow be changed again; also a deleted one, whose draft can then be restored."""
    with store.unit_of_work.begin([slug]):
        if not store.exists(slug):
            store.check_exists(slug)
        if store.state(slug).archived:
            _append(store, slug, actors, reason, LedgerKind.UNARCHIVED, archived=False)


def delete(store: Store, slug: str, actors: Actors, *, reason: str = "") -> None:
    """Delete a workflow that was never published, archived or not: its draft is discarded, its slug is free.

    Git keeps the ledger and the draft: `unarchive`, then `Store.restore_draft`, take the deletion back.
    Raises `workflow_published`.
    """
    with store.unit_of_work.begin([slug]):
        store.check_exists(slug)
        state = store.state(slug)
        if state.latest or state.floor:
            raise ConflictError(
                Code.WORKFLOW_PUBLISHED,
                f"{slug} has published versions, which stay: archive it instead (gitstore archive {slug})",
            )
        pending.check_level(store)
        change = ChangeSet(store, slug, Authorship(actors.actor, store.clock(), reason))
        gone = []
        if state.draft is not None:
            head = state.draft.encode()
            change.discard(head)
            gone.append(Removal(names.draft(slug), head))
        change.append(LedgerKind.ARCHIVED, archived=True)
        if moved := changes.decide(store, f"Delete {slug}", [change], discarded=gone):
            raise changes.concurrent_update(moved)


def _append(
    store: Store, slug: str, actors: Actors, reason: str, kind: LedgerKind, **facts: object
) -> LedgerEntry:
    change = ChangeSet(store, slug, Authorship(actors.actor, store.clock(), reason))
    entry = change.append(kind, **facts)
    changes.write_one(store, change)
    return entry
