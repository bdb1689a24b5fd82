"""Actions on the draft of a workflow: create, save, discard, restore, revert.

`expected` holds the commits of the draft that the caller has seen, one of which it must still be; ANY in it
matches every commit. None means that the caller gave no condition.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final

from gitstore import names
from gitstore.diff import json_patch
from gitstore.drafts import Content, File, Saved, is_latest, to_file
from gitstore.errors import (
    BaseMovedError,
    Code,
    GitstoreError,
    MalformedError,
    NoJsonError,
    NotFoundError,
    StaleDraftError,
)
from gitstore.model import Definition, Person, Problems, Rules, WorkflowState
from gitstore.repository import Repository
from gitstore.store import ANY
from service import lookup
from service.caller import Caller
from service.logs import Event
from sync import catalog, derive

MOST_DISCARDED: Final = 100
_NO_COMMIT: Final = "another"


@dataclass(frozen=True, slots=True)
class SavedDraft:
    """The draft as an action saved it, even if it was saved, published or discarded since then."""

    version: catalog.Version
    problems: Problems

    @property
    def commit(self) -> str:
        return self.version.commit_sha


@dataclass(frozen=True, slots=True)
class DiscardedDraft:
    """A draft that was discarded at the time `at` and can be restored. `ref` holds its commit."""

    at: datetime
    commit: str
    ref: str
    author: Person
    message: str
    created_at: datetime


def create(
    caller: Caller,
    slug: str,
    content: Content | None = None,
    *,
    author: Person | None = None,
    message: str = "",
    from_version: int | str | None = None,
) -> SavedDraft:
    """Create a draft with `content` or the content of `from_version`; by default, of the current version."""
    actors = caller.actors(author)
    with caller.acting(Event.SAVED, slug) as (store, _):
        lookup.existing(store, slug)
        if from_version is None:
            saved = store.create_draft(slug, content, actors, message)
        else:
            number = _admitted(caller, store, slug, from_version)
            saved = store.create_draft_from(slug, number, actors, message)
        return as_saved(store, slug, saved)


def save(
    caller: Caller,
    slug: str,
    content: Content | None = None,
    *,
    expected: Collection[str] | None,
    author: Person | None = None,
    message: str = "",
    base_version: int | None = None,
    from_version: int | str = "",
) -> SavedDraft:
    """Save `content`, or the content of `from_version`, in the open draft.

    `base_version` is the version that the author has merged. Raises `expected_required` and `stale_draft`.
    """
    actors = caller.actors(author)
    with caller.acting(Event.SAVED, slug) as (store, _):
        lookup.existing(store, slug)
        seen = seen_commit(store, slug, expected)
        if seen is None:
            raise expected_required()
        if content is not None:
            saved = store.save_draft(
                slug, content, actors, expected=seen, message=message, base_version=base_version
            )
        else:
            lookup.open_draft(store, slug)
            number = _admitted(caller, store, slug, from_version)
            saved = store.revert(slug, number, actors, expected=seen, message=message)
        return as_saved(store, slug, saved)


def put(
    caller: Caller,
    slug: str,
    content: Content,
    *,
    expected: Collection[str] | None,
    author: Person | None = None,
    message: str = "",
) -> SavedDraft:
    """Save `content` in the open draft that is `expected`; without a condition, in a new draft."""
    if expected is None:
        return create(caller, slug, content, author=author, message=message)
    return save(caller, slug, content, expected=expected, author=author, message=message)


def is_published(caller: Caller, slug: str, content: Content) -> bool:
    """Return whether no draft is open, and `content` is that of the latest version."""
    with caller.opened() as repository:
        lookup.existing(repository, slug)
        caller.admit(len(content.raw or b""))
        return is_latest(repository, repository.state(slug), content)


def edited(
    caller: Caller, slug: str, patch: Sequence[Any], *, text: str | None = None, commit: str | None = None
) -> Definition:
    """Return the definition that a JSON Patch makes of `text`, or of that in `commit` or the open draft.

    Nothing is saved.
    """
    with caller.opened() as repository:
        lookup.existing(repository, slug)
        if text is not None:
            file = to_file(
                Content(raw=text.encode()), None, repository.rules, repository.limits, repository.file_names
            )
            name, old = file.name, repository.parse(file.raw, file.name)
        else:
            file = file_in(repository, slug, commit or lookup.open_draft(repository, slug))
            caller.admit(len(file.raw))
            name, old = file.name, repository.parse(file.raw, file.name)
        if old.value is None:
            raise NoJsonError("JSON has no form for this definition: edit its text", problems=old.problems)
        new = json_patch.apply(patch, old.value, repository.limits)
        if not isinstance(new, dict if repository.rules is Rules.MESHHOOK else (dict, list)):
            raise MalformedError("the patch must leave a mapping, or under other rules than meshhook a list")
        return repository.edit(old, new, name).definition


def file_in(repository: Repository, slug: str, commit: str) -> File:
    """Return the definition in a commit, which a caller names; raises `version_not_found`."""
    try:
        name, blob, _ = repository.locate(repository.objects.commit(commit.encode()), slug)
        return File(name, repository.objects.blob(blob))
    except GitstoreError as error:
        if error.code not in (Code.OBJECTS_MISSING, Code.DEFINITION_MISSING, Code.REF_NOT_ACCEPTED):
            raise
        message = f"there is no definition of {slug} in the commit {commit}"
        raise NotFoundError(Code.VERSION_NOT_FOUND, message) from error


def with_line_ends(text: str, like: bytes) -> str:
    """Return text of a browser, whose line ends are LF, with CRLF if the file `like` has them."""
    return text.replace("\n", "\r\n") if b"\r\n" in like else text


def save_edited(
    caller: Caller, slug: str, content: Content, *, commit: str, base: int, message: str = ""
) -> SavedDraft:
    """Save `content` in the draft, or create it, on top of the state in which its author began to edit.

    That state is the draft's `commit` ("" if no draft was open) and the latest version, `base`. If the draft
    does not build on the latest version, the author has seen that, and merged it. Raises `stale_draft`,
    `draft_exists` or `base_moved` if the state has changed.
    """
    actors = caller.actors()
    with caller.acting(Event.SAVED, slug) as (store, _):
        lookup.existing(store, slug)
        builds_on, state = base_of(store, slug)
        if commit and not state.draft_open:
            raise StaleDraftError(f"the draft that you edited was published as v{state.latest}, or discarded")
        if commit and commit != state.draft:
            raise StaleDraftError("someone else saved the draft since you opened it")
        if state.latest != base:
            published = f"v{state.latest} was published after you began to edit"
            raise BaseMovedError(published, latest=state.latest)
        if commit:
            merged = state.latest if builds_on != state.latest else None
            saved = store.save_draft(
                slug, content, actors, expected=commit, message=message, base_version=merged or None
            )
        else:
            saved = store.create_draft(slug, content, actors, message)
        return as_saved(store, slug, saved)


def discard(caller: Caller, slug: str, *, expected: Collection[str] | None = None) -> datetime:
    """Discard the draft; return the time at which `restore` finds it."""
    with caller.acting(Event.DISCARDED, slug) as (store, _):
        lookup.existing(store, slug)
        seen = seen_commit(store, slug, expected)
        return store.discard_draft(slug, caller.actors(), expected=seen).at


def discarded(repository: Repository, slug: str, limit: int = MOST_DISCARDED) -> list[DiscardedDraft]:
    """Return the discarded drafts that can be restored, the newest first."""
    lookup.existing(repository, slug)
    drafts = []
    for kept in islice(repository.discarded(slug), limit):
        draft = repository.snapshot(slug, kept.commit)
        shown = names.show(kept.ref)
        drafts.append(
            DiscardedDraft(kept.at, kept.commit, shown, draft.author, draft.message, draft.created_at)
        )
    return drafts


def restore(caller: Caller, slug: str, *, at: datetime | None = None) -> SavedDraft:
    """Reopen the draft that was discarded at the time `at`, or the last one."""
    with caller.acting(Event.RESTORED, slug) as (store, _):
        lookup.existing(store, slug)
        return as_saved(store, slug, store.restore_draft(slug, caller.actors(), at=at))


def revert(
    caller: Caller,
    slug: str,
    version: int | str,
    *,
    expected: Collection[str] | None = None,
    author: Person | None = None,
    message: str = "",
) -> SavedDraft:
    """Set the draft to the content of a version, by a new commit. An open draft requires `expected`."""
    with caller.acting(Event.REVERTED, slug) as (store, facts):
        lookup.existing(store, slug)
        facts["version"] = number = _admitted(caller, store, slug, version)
        seen = seen_commit(store, slug, expected)
        saved = store.revert(slug, number, caller.actors(author), expected=seen, message=message)
        return as_saved(store, slug, saved)


def base_of(repository: Repository, slug: str) -> tuple[int, WorkflowState]:
    """Return the latest version, or 0 if the open draft does not build on it, and the workflow's state.

    Without an open draft, a save goes on top of the latest version.
    """
    state = repository.state(slug)
    if not state.draft_open or state.latest_commit is None or state.draft is None:
        return state.latest, state
    builds = repository.objects.is_ancestor(state.latest_commit.encode(), state.draft.encode())
    return (state.latest if builds else 0), state


def seen_commit(repository: Repository, slug: str, expected: Collection[str] | None) -> str | None:
    """Return the condition for the Store: the draft's commit if it is expected, ANY, or one that fails."""
    if expected is None or ANY in expected:
        return ANY if expected else None
    draft = lookup.draft_of(repository, slug)
    return draft if draft is not None and draft in expected else _NO_COMMIT


def expected_required() -> StaleDraftError:
    return StaleDraftError(
        "If-Match is required: the ETag of the draft that was edited, or * for any draft",
        Code.EXPECTED_REQUIRED,
    )


def _admitted(caller: Caller, repository: Repository, slug: str, version: int | str) -> int:
    """Return the number of a published version, after waiting for the turn of work on its definition."""
    number = lookup.number_of(repository, slug, version)
    lookup.admit(caller, slug, number)
    return number


def as_saved(repository: Repository, slug: str, saved: Saved) -> SavedDraft:
    """Return the draft that a Store saved, as a row."""
    row = derive.draft_of(repository, slug, saved.commit, saved.number)
    return SavedDraft(catalog.Version.of(row, slug, is_current=False), saved.problems)
