"""Actions on releases: make one of several workflows, look at it before, and roll it back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from gitstore import release_commit, releases
from gitstore.diff.summary import NOTHING, what_changes
from gitstore.environments import CURRENT, rulebook
from gitstore.errors import GitstoreError
from gitstore.names import is_slug, version_id, workflow_id
from gitstore.release_commit import Item, Release
from gitstore.releases import Return, Wanted
from gitstore.repository import Repository
from gitstore.store import ANY
from gitstore.system import now
from service import lookup
from service.access import authorize_role
from service.caller import Caller
from service.logs import Event
from sync import catalog


@dataclass(frozen=True, slots=True)
class Choice:
    """The version of the workflow `name` (a slug or an id) that a caller wants, or the draft it has seen."""

    name: str
    version: int | str | None = None
    draft: str | None = None


@dataclass(frozen=True, slots=True)
class Preview:
    """The items of a release, each with a summary of what changes, and the reasons against it by workflow."""

    items: Sequence[tuple[Item, str]]
    refusals: Sequence[tuple[str, GitstoreError]]


def create(
    caller: Caller, name: str, choices: Sequence[Choice], *, message: str = "", environment: str = CURRENT
) -> Release:
    """Publish and move all of `choices` as the release `name`, or nothing."""
    count = caller.services.count_release
    with caller.acting(Event.RELEASED, None, count, release=name) as (store, facts):
        _authorize(caller, store, environment)
        wanted = _wanted(caller, store, choices)
        release = releases.create(
            store, name, wanted, caller.actors(), message=message, environment=environment
        )
        facts.update(workflows=len(release.items), new=release.new)
    if release.new:
        for item in release.items:
            if item.published:
                caller.services.count_publish(door=caller.origin.door)
    return release


def preview(caller: Caller, choices: Sequence[Choice], environment: str = CURRENT) -> Preview:
    """Return what a release of `choices` would change, and every gate that fails. Nothing is changed."""
    with caller.opened() as repository:
        planned = releases.plan(repository, _wanted(caller, repository, choices), environment, now())
        items = [
            (each.item, summary(repository, each.item.slug, each.item.before.version, each.commit))
            for each in planned.items
        ]
    return Preview(items, planned.refusals)


def roll_back(caller: Caller, name: str, *, message: str = "", force: bool = False) -> Sequence[Return]:
    """Return every pointer of the release `name` to the version that it was on before."""
    count = partial(caller.services.count_release, outcome="rolled_back")
    with caller.acting(Event.RELEASE_ROLLED_BACK, None, count, release=name) as (store, facts):
        _authorize(caller, store, release_commit.find(store, name).environment)
        returns = releases.roll_back(store, name, caller.actors(), message=message, force=force)
        facts.update(workflows=len(returns))
    if returns:
        with caller.as_user() as tx:
            details = {"workflows": [each.slug for each in returns], "message": message, "force": force}
            caller.audit(tx, "release.rolled_back", name, details)
    return returns


def _authorize(caller: Caller, repository: Repository, environment: str) -> None:
    """Raise `forbidden` unless the caller has the role that the project requires for `environment`."""
    if environment != CURRENT:
        rule = rulebook(repository).find(environment)
        authorize_role(caller.principal, rule.role, f"moving pointers in {environment}")


def _wanted(caller: Caller, repository: Repository, choices: Sequence[Choice]) -> list[Wanted]:
    """Resolve ids and words, and wait for the turn of a request that parses these definitions."""
    wanted, ids = [], []
    for choice in choices:
        slug = choice.name if is_slug(choice.name) else lookup.slug_of(caller, choice.name)
        version = choice.version
        if isinstance(version, str):
            version = lookup.number_of(repository, slug, version) if repository.exists(slug) else 1
        wanted.append(Wanted(slug, version, choice.draft))
        number = version
        if number is None and repository.exists(slug):
            number = repository.state(slug).next_number
        if number is not None:
            ids.append(version_id(workflow_id(caller.project_id, slug), number))
    with caller.reading() as tx:
        sizes = catalog.definition_sizes(tx, ids)
    caller.admit(sum(sizes.values()))
    return wanted


def summary(repository: Repository, slug: str, before: int | None, wanted: bytes) -> str:
    """Return what the commit `wanted` changes against version `before`: "" without one."""
    held = repository.refs.read(repository.tag(slug, before)) if before is not None else None
    if held is None:
        return ""
    commit = repository.objects.peel(held)[0]
    if commit == wanted:
        return NOTHING
    try:
        definition = repository.definition(wanted, slug)
        return what_changes(repository, slug, commit, definition)
    except GitstoreError:
        return ""  # an imported version that does not parse


def draft_choice(commit: str | bool | None) -> str | None:
    """Return the draft that a caller names: the commit that it has seen, True for any, None for no draft."""
    return ANY if commit is True else commit or None
