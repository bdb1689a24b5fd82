"""Releases: 1 to 200 workflows that are published or moved in one step, and rolled back in one.

The commit of a release (gitstore/release_commit.py) appears with all versions and pointers, or not at all
(gitstore/pending.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from dulwich.objects import Tag

from gitstore import changes, names, pending
from gitstore.changes import Authorship, ChangeSet
from gitstore.definition.quoting import clip
from gitstore.errors import (
    BaseMovedError,
    Code,
    ConflictError,
    GitstoreError,
    MalformedError,
    NotFoundError,
    ReleaseRefusedError,
    StaleDraftError,
)
from gitstore.git.refs import RefUpdate
from gitstore.model import LedgerKind, WorkflowState
from gitstore.policy import Command, Verdict
from gitstore.policy_facts import accepted
from gitstore.release_commit import Item, Pointer, Release, compose, find
from gitstore.repository import Repository
from gitstore.store import ANY, Actors, Store
from gitstore.unit_of_work import MOST_WORKFLOWS

CURRENT: Final = "current"
"""The environment that every project has: its pointer is the current version."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a release shall have of the workflow `slug`: a version, or the open draft.

    `draft` is the draft's commit that the caller has seen, or ANY.
    """

    slug: str
    version: int | None = None
    draft: str | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """An item as it would be released: with its commit and folder, and the verdict on a draft."""

    item: Item
    state: WorkflowState
    commit: bytes
    folder: bytes
    verdict: Verdict | None = None


@dataclass(slots=True)
class Plan:
    """What a release would do, and what refuses it: slug -> error."""

    items: list[Planned] = field(default_factory=list)
    refusals: dict[str, GitstoreError] = field(default_factory=dict)


def plan(repository: Repository, wanted: Sequence[Wanted]) -> Plan:
    """Return what a release of `wanted` does, and every gate that fails. Writes nothing."""
    planned = Plan()
    for each in sorted(wanted, key=lambda each: each.slug):
        try:
            planned.items.append(_planned(repository, each))
        except GitstoreError as refusal:
            planned.refusals[each.slug] = refusal
    return planned


def create(
    store: Store,
    name: str,
    wanted: Sequence[Wanted],
    actors: Actors,
    *,
    message: str = "",
    environment: str = CURRENT,
) -> Release:
    """Publish the drafts of `wanted`, move the pointers, and record it as the release `name`: all or nothing.

    The same request again returns the release that it made. Raises `release_refused` with every gate that
    fails, `release_conflict` if all that is wrong is that drafts or their bases moved, and `release_exists`.
    """
    names.check_release(name)
    slugs = _check(wanted)
    if environment != CURRENT:
        raise MalformedError(f"there is no environment {clip(environment)!r}: a release moves {CURRENT!r}")
    with store.unit_of_work.begin(slugs, name):
        pending.check_level(store)
        ref = names.release(name)
        if store.refs.read(ref) is not None:
            return _made(store, find(store, name), wanted, environment)
        planned = plan(store, wanted)
        if planned.refusals:
            raise _refusal(name, planned.refusals)
        when = store.clock()
        items = tuple(each.item for each in planned.items)
        release = Release(name, "", environment, message, actors.actor, when, items)
        trees, commit = compose(release, [each.folder for each in planned.items])
        authorship = Authorship(actors.actor, when, message)
        tags, change_sets = [], []
        for each in planned.items:
            change = ChangeSet(store, each.item.slug, authorship)
            if each.verdict is not None:
                tags.append(store.version_tag(each.state, actors, message, when))
                _publish(change, each, tags[-1], name)
            elif each.item.before.version != each.item.version:
                number = each.item.version
                change.append(LedgerKind.CURRENT, version=number, current=number, release=name)
            change_sets.append(change)
        staged = [*tags, *trees, commit]
        made = RefUpdate(ref, None, commit.id)
        if moved := changes.decide(store, f"Release {name}", change_sets, staged=staged, also=[made]):
            raise changes.concurrent_update(moved)
        return replace(release, commit=commit.id.decode())


@dataclass(frozen=True, slots=True)
class Return:
    """The way of one pointer back: from what it stood on to what it stands on now."""

    slug: str
    left: Pointer
    now: Pointer


def roll_back(
    store: Store, name: str, actors: Actors, *, message: str = "", force: bool = False
) -> list[Return]:
    """Move every pointer of the release `name` to what it stood on before, in one step.

    A pointer that stands there already is left alone. Raises `release_conflict`, with all of them, where
    others have moved since; with `force`, these are moved, too.
    """
    release = find(store, name)
    before = {item.slug: item for item in release.items}
    with store.unit_of_work.begin(before, name):
        pending.check_level(store)
        authorship = Authorship(actors.actor, store.clock(), message or f"Roll back the release {name}")
        returns: list[Return] = []
        change_sets: list[ChangeSet] = []
        refusals: dict[str, GitstoreError] = {}
        for slug, item in before.items():
            state = store.state(slug)
            now = Pointer(state.current, state.held)
            if now == item.before:
                continue
            if now.version != item.version and not force:
                shown = "none" if now.version is None else f"v{now.version}"
                what = f"{slug} is on {shown} by now, not on v{item.version} of the release"
                refusals[slug] = ConflictError(Code.RELEASE_CONFLICT, what, current=now.version)
                continue
            try:
                _check_usable(state, item.before.version)
            except GitstoreError as refusal:
                refusals[slug] = refusal
                continue
            number, held = item.before.version, item.before.held
            change = ChangeSet(store, slug, authorship)
            kind = LedgerKind.CLEARED if number is None else LedgerKind.CURRENT
            change.append(kind, version=number, current=number, held=held, release=name)
            change_sets.append(change)
            returns.append(Return(slug, now, item.before))
        if refusals:
            raise _refusal(name, refusals)
        if change_sets and (moved := changes.decide(store, f"Roll back {name}", change_sets)):
            raise changes.concurrent_update(moved)
        return returns


def _check(wanted: Sequence[Wanted]) -> list[str]:
    """Return the slugs of `wanted`. Raises `malformed` for none, too many, or one that is named twice."""
    slugs = sorted({names.check_slug(each.slug) for each in wanted})
    if not 0 < len(wanted) <= MOST_WORKFLOWS:
        raise MalformedError(f"a release has 1 to {MOST_WORKFLOWS} workflows, not {len(wanted)}")
    if len(slugs) < len(wanted):
        raise MalformedError("a workflow is named twice")
    if any((each.version is None) == (each.draft is None) for each in wanted):
        raise MalformedError("name a version or the draft of each workflow")
    return slugs


def _planned(repository: Repository, wanted: Wanted) -> Planned:
    slug = wanted.slug
    if not repository.exists(slug):
        raise NotFoundError(Code.WORKFLOW_NOT_FOUND, f"there is no workflow {clip(slug)!r}")
    state = repository.state(slug)
    before = Pointer(state.current, state.held)
    number, draft = wanted.version, state.draft
    if number is None and draft is None:
        raise ConflictError(Code.NO_DRAFT, f"{slug} has no draft: save or push one, then release it")
    if number is None and wanted.draft not in (ANY, draft):
        raise StaleDraftError(f"the draft of {slug} moved since you read it: read it again")
    if number is None and repository.holds_latest(state):
        number = state.latest  # published already, as by `Store.publish`
    _check_usable(state, number)
    if number is None and draft is not None:
        command = Command(names.tag(slug, state.next_number), None, draft.encode())
        verdict = accepted(repository, command)
        folder = repository.locate(repository.objects.commit(verdict.commit), slug)[2]
        item = Item(slug, state.next_number, published=True, before=before)
        return Planned(item, state, verdict.commit, folder, verdict)
    tag = repository.refs.read(names.tag(slug, number or 0))
    if tag is None or number is None:
        raise NotFoundError(Code.VERSION_NOT_FOUND, f"{slug} has no version v{number}", version=number)
    commit = repository.objects.peel(tag)[0]
    folder = repository.locate(repository.objects.commit(commit), slug)[2]
    return Planned(Item(slug, number, published=False, before=before), state, commit, folder)


def _check_usable(state: WorkflowState, number: int | None) -> None:
    """Raise where nothing new may select version `number` of the workflow."""
    if state.archived:
        raise ConflictError(Code.VERSION_UNUSABLE, f"{state.slug} is archived: restore it first")
    if number in state.yanked:
        raise ConflictError(
            Code.VERSION_UNUSABLE,
            f"v{number} of {state.slug} was yanked: choose another version",
            version=number,
        )


def _publish(change: ChangeSet, planned: Planned, tag: Tag, name: str) -> None:
    """Record the publication of a draft by the release `name`; it becomes current also where that is held."""
    assert planned.verdict is not None  # noqa: S101
    change.repository.objects.keep([tag])
    command = Command(planned.verdict.command.ref, None, tag.id)
    change.create_unless_there()
    change.publish(replace(planned.verdict, command=command), current=planned.item.version, release=name)


def _made(repository: Repository, release: Release, wanted: Sequence[Wanted], environment: str) -> Release:
    """Return `release` if `wanted` is the request that made it. Raises `release_exists`."""
    asked = {each.slug: each for each in wanted}
    same = release.environment == environment and asked.keys() == {item.slug for item in release.items}
    if same and all(_is_same(repository, item, asked[item.slug]) for item in release.items):
        return replace(release, new=False)
    raise ConflictError(
        Code.RELEASE_EXISTS, f"the release {release.name} exists already, and releases do not change"
    )


def _is_same(repository: Repository, item: Item, wanted: Wanted) -> bool:
    if wanted.version is not None:
        return item.version == wanted.version
    tag = repository.refs.read(names.tag(item.slug, item.version))
    held = (
        repository.refs.read(names.draft(item.slug)) if wanted.draft == ANY else (wanted.draft or "").encode()
    )
    return tag is not None and repository.objects.peel(tag)[0] == held


def _refusal(name: str, refusals: dict[str, GitstoreError]) -> ReleaseRefusedError:
    moved = (BaseMovedError, StaleDraftError)
    only_moved = all(isinstance(e, moved) or e.code is Code.RELEASE_CONFLICT for e in refusals.values())
    listing = "; ".join(error.message for error in list(refusals.values())[:3])
    more = f" and {len(refusals) - 3} more" if len(refusals) > 3 else ""
    return ReleaseRefusedError(
        Code.RELEASE_CONFLICT if only_moved else Code.RELEASE_REFUSED,
        f"{name}: nothing was changed: {listing}{more}",
        refusals,
    )
