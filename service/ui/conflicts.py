"""Conflicts between people: who changed a workflow since a page was read, in words that name them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from gitstore.diff.summary import what_changes
from gitstore.errors import GitstoreError
from gitstore.model import LedgerKind, Person, WorkflowState
from gitstore.repository import Repository

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Moved:
    """The newest change since a page was read: "Ada", "saved the draft", when, and what it changed.

    `commit` is the state after it: the open draft's, or the latest version's. `change` is a summary of the
    difference from the state that the page had shown, or "".
    """

    who: str
    what: str
    at: datetime
    commit: str
    change: str = ""


def moved(repository: Repository, slug: str, seen: str, base: int | None = None) -> Moved | None:
    """Return the newest change since a page showed the draft's commit `seen`, "" if no draft was open.

    `base` is the latest version that the page showed, if it did. None: nothing has changed, or nobody knows.
    """
    state = repository.state(slug)
    if state.draft_open and state.draft and state.draft != seen:
        draft = repository.snapshot(slug, state.draft)
        what = "saved the draft" if seen else "started a draft"
        change = _change(repository, slug, seen, state.draft)
        return Moved(display_name(draft.author), what, draft.created_at, draft.commit, change)
    if state.latest and state.latest != base and (not seen or _is_published(repository, seen, state)):
        version = repository.version(slug, state.latest)
        what = f"published the draft as v{state.latest}" if seen else f"published v{state.latest}"
        change = _change(repository, slug, seen, version.snapshot.commit)
        who = display_name(version.published_by)
        return Moved(who, what, version.published_at, version.snapshot.commit, change)
    if seen and not state.draft_open:
        entry = next((one for one in repository.ledger(slug) if one.kind is LedgerKind.DISCARDED), None)
        if entry is not None:
            commit = state.latest_commit or state.draft or ""
            return Moved(display_name(entry.actor), "discarded the draft", entry.when, commit)
    return None


def commit_in(text: str) -> str:
    """Return the id of a commit that a form carries, "" if it is none."""
    return text if _COMMIT.fullmatch(text) else ""


def display_name(person: Person) -> str:
    """Return the name of a person as others know it: of an access token, without its kind."""
    return person.name.removeprefix("token:")


def _is_published(repository: Repository, seen: str, state: WorkflowState) -> bool:
    latest = state.latest_commit
    return latest is not None and repository.objects.is_ancestor(seen.encode(), latest.encode())


def _change(repository: Repository, slug: str, before: str, after: str) -> str:
    """Return what changed between two commits, "" if that cannot be told."""
    try:
        definition = repository.definition(after.encode(), slug)
    except GitstoreError:
        return ""
    return what_changes(repository, slug, before.encode() or None, definition)
