"""Three-way merge of a definition into the draft: what changed on either side since their common base.

"Ours" is what the caller sends; "theirs" is the open draft, else the latest version. The merged text is an
edit of theirs in place: its comments, order and quotes stay. Nothing is saved while a conflict is left.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

from gitstore.definition.quoting import clip
from gitstore.diff import merge
from gitstore.diff.merge import Conflict, Side
from gitstore.diff.summary import count
from gitstore.diff.values import ABSENT
from gitstore.drafts import Content, File, to_file
from gitstore.errors import (
    Code,
    ConflictError,
    InvalidDefinitionError,
    NoJsonError,
    NotFoundError,
    StaleDraftError,
)
from gitstore.model import Definition, Person
from gitstore.repository import Repository
from gitstore.store import ANY
from service import lookup
from service.actions.drafts import MOST_DISCARDED, SavedDraft, as_saved, expected_required, file_in
from service.caller import Caller
from service.logs import Event

COMMIT: Final = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Merged:
    """A definition merged into the commit `theirs`, in which conflicts that are not decided have their value.

    `ours` is the commit that was merged, if it was one.
    """

    definition: Definition
    file_name: str
    conflicts: tuple[Conflict, ...]
    theirs: str
    ours: str | None = None


def merged(
    caller: Caller,
    slug: str,
    *,
    base: str,
    ours: Content | str,
    decided: Mapping[str, Side],
    theirs: str | None = None,
) -> Merged:
    """Merge `ours`, content or a commit, which began from `base`, a commit or a version.

    `theirs` is the commit to merge into, by default the open draft's, else the latest version's. Raises
    `definition_unparsable`, which names the side, and `version_not_found`.
    """
    with caller.opened() as repository:
        lookup.existing(repository, slug)
        into = theirs or _tip(repository, slug)
        if isinstance(ours, str):
            _check_reachable(repository, slug, ours)
        begun = file_in(repository, slug, _commit_of(repository, slug, base))
        current = file_in(repository, slug, into)
        mine, value = None, None
        if isinstance(ours, str):
            mine = file_in(repository, slug, ours)
        elif (value := ours.value) is None:
            mine = to_file(ours, None, repository.rules, repository.limits, repository.file_names)
        caller.admit(sum(len(file.raw) for file in (begun, current, mine) if file is not None))
        if mine is not None:
            value = _parsed(repository, mine, "yours").value
        old, began = _parsed(repository, current, "theirs"), _parsed(repository, begun, "their common base")
        result = merge.merge(began.value, value, old.value, repository.rules, decided)
        edited = repository.edit(old, result.value, current.name).definition
    commit = ours if isinstance(ours, str) else None
    return Merged(edited, current.name, result.conflicts, into, commit)


def save(
    caller: Caller,
    slug: str,
    merged: Merged,
    *,
    expected: Collection[str] | None,
    author: Person | None = None,
    message: str = "",
) -> SavedDraft:
    """Save the merged definition in the open draft, with both parents if a commit was merged.

    Raises `merge_conflict` while a conflict is not decided, `expected_required` and `stale_draft`.
    """
    if expected is None:
        raise expected_required()
    if merged.conflicts:
        paths = ", ".join(clip(conflict.path) for conflict in merged.conflicts[:3])
        raise ConflictError(
            Code.MERGE_CONFLICT,
            f"{count(len(merged.conflicts), 'conflict')} to decide, for ours or for theirs: {paths}",
            conflicts=[described(conflict) for conflict in merged.conflicts],
        )
    with caller.acting(Event.SAVED, slug) as (store, _):
        lookup.existing(store, slug)
        if not {ANY, merged.theirs} & set(expected):
            raise StaleDraftError("the draft moved since you read it: read it again, then merge once more")
        content = Content(raw=merged.definition.raw, json=merged.file_name.endswith(".json"))
        actors = caller.actors(author)
        saved = store.save_draft(
            slug, content, actors, expected=merged.theirs, message=message, merged=merged.ours
        )
        return as_saved(store, slug, saved)


def described(conflict: Conflict) -> dict[str, Any]:
    """Return a conflict as JSON: `absent` lists the sides that lack the value."""
    sides = {"base": conflict.base, "ours": conflict.ours, "theirs": conflict.theirs}
    return {
        "path": conflict.path,
        "node": conflict.node,
        **{side: None if value is ABSENT else value for side, value in sides.items()},
        "absent": [side for side, value in sides.items() if value is ABSENT],
    }


def _tip(repository: Repository, slug: str) -> str:
    state = repository.state(slug)
    tip = state.draft if state.draft_open else state.latest_commit
    if tip is None:
        raise lookup.no_draft(slug)
    return tip


def _commit_of(repository: Repository, slug: str, base: str) -> str:
    if COMMIT.fullmatch(base):
        return base
    return repository.version(slug, lookup.number_of(repository, slug, base)).snapshot.commit


def _check_reachable(repository: Repository, slug: str, commit: str) -> None:
    """Raise `version_not_found` unless a ref of the workflow reaches the commit: git keeps its history."""
    state = repository.state(slug)
    tips = [tip for tip in (state.draft, state.latest_commit) if tip]
    tips += [draft.commit for draft in islice(repository.discarded(slug), MOST_DISCARDED)]
    if commit.encode() in repository.objects and any(
        repository.objects.is_ancestor(commit.encode(), tip.encode()) for tip in tips
    ):
        return
    message = f"the commit {commit} is in no draft, version or discarded draft of {slug}"
    raise NotFoundError(Code.VERSION_NOT_FOUND, message)


def _parsed(repository: Repository, file: File, whose: str) -> Definition:
    try:
        parsed = repository.parse(file.raw, file.name)
    except InvalidDefinitionError as error:
        message = f"texts that can't be read can't be merged: {whose} has an error: {error.message}"
        raise error.reworded(message) from error
    if parsed.value is None:
        message = f"JSON has no form for {whose}, so it can't be merged: compare the texts"
        raise NoJsonError(message, problems=parsed.problems)
    return parsed
