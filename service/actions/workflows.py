"""Actions on workflows: create, describe, rename, archive and delete one, and validate a definition."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from gitstore import states
from gitstore.drafts import Content, Saved, check_size, to_file
from gitstore.errors import InvalidDefinitionError
from gitstore.model import Limits, Person, Problems
from gitstore.names import check_slug, is_slug
from gitstore.repository import Repository
from service import lookup
from service.actions import drafts, versions
from service.caller import Caller
from service.logs import Event

_NOT_IN_SLUG: Final = re.compile(r"[^a-z0-9]++")


@dataclass(frozen=True, slots=True)
class Validation:
    """Problems of a definition. `digest` is None if it does not parse."""

    valid: bool
    digest: str | None
    problems: Problems

    @classmethod
    def failed(cls, error: InvalidDefinitionError) -> Self:
        return cls(valid=False, digest=None, problems=Problems.of(error.problems))


def raw_content(raw: bytes, limits: Limits, *, json: bool | None = None) -> Content:
    """Return the content of the bytes of a definition; raises `too_large`. `json` as in `Content`."""
    return Content(raw=check_size(raw, limits), json=json)


def create(
    caller: Caller,
    slug: str,
    content: Content | None = None,
    *,
    author: Person | None = None,
    name: str | None = None,
    description: str = "",
) -> Saved:
    """Create a workflow with its first draft: `content`, or a starter of one node."""
    check_slug(slug)
    with caller.acting(Event.CREATED, slug) as (store, _):
        return store.create_workflow(slug, content, caller.actors(author), name=name, description=description)


def describe(caller: Caller, slug: str, given: Mapping[str, str | None]) -> None:
    """Give the workflow a `name`, a `description` or both; None returns to the definition's own."""
    with caller.acting(Event.DESCRIBED, slug) as (store, _):
        lookup.existing(store, slug)
        store.describe(slug, given, caller.actors())


def rename(caller: Caller, slug: str, new: str, *, message: str = "") -> None:
    """Give the workflow another slug; its id, its versions and their tags stay as they are."""
    with caller.acting(Event.RENAMED, slug) as (store, facts):
        lookup.existing(store, slug)
        store.rename(slug, new, caller.actors(), message=message)
        facts.update(renamed=new)


def archive(caller: Caller, slug: str, *, reason: str = "") -> None:
    """Archive a workflow: it keeps its slug, draft and versions, runs nothing, and takes no change."""
    with caller.acting(Event.ARCHIVED, slug) as (store, _):
        states.archive(store, slug, caller.actors(), reason=reason)


def unarchive(caller: Caller, slug: str, *, reason: str = "") -> None:
    """Let an archived workflow run and be changed again; also a deleted one, whose draft is restored next."""
    with caller.acting(Event.UNARCHIVED, slug) as (store, _):
        states.unarchive(store, slug, caller.actors(), reason=reason)


def delete(caller: Caller, slug: str, *, reason: str = "") -> None:
    """Delete a workflow that was never published. Git keeps its draft: `unarchive`, then restore it."""
    with caller.acting(Event.DELETED, slug) as (store, _):
        states.delete(store, slug, caller.actors(), reason=reason)


def set_aside(caller: Caller, slug: str) -> None:
    """Discard the draft, and run no version, as MeshHook archives a workflow; a save opens it again."""
    with caller.opened() as repository:
        lookup.existing(repository, slug)
        state = repository.state(slug)
    if state.draft_open and state.draft is not None:
        drafts.discard(caller, slug, expected={state.draft})
    if state.current is not None:
        versions.clear_current(caller, slug)


def free_slug(caller: Caller, name: str) -> str:
    """Return the slug that MeshHook would make from a name, or the first of slug-2, slug-3 … that is free."""
    made = _NOT_IN_SLUG.sub("-", name.lower()).strip("-")[:63].strip("-")
    slug = made if is_slug(made) else "workflow"
    stem, number = slug[:58].strip("-"), 1
    with caller.opened() as repository:
        while repository.exists(slug):
            number += 1
            slug = f"{stem}-{number}"
    return slug


def validate(repository: Repository, slug: str, content: Content | None = None) -> Validation:
    """Validate `content` as it would be saved; without it, the open draft."""
    try:
        if content is None:
            parsed = repository.definition(lookup.open_draft(repository, slug).encode(), slug)
            return Validation(parsed.valid, parsed.digest, parsed.problems)
        file = to_file(content, None, repository.rules, repository.limits, repository.file_names)
        parsed = repository.parse(file.raw, file.name)
        return Validation(parsed.valid, parsed.digest, parsed.problems.after(file.warnings))
    except InvalidDefinitionError as error:
        return Validation.failed(error)
