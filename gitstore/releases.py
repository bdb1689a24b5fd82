"""Releases: 1 to 200 workflows that are published or moved in one step, and rolled back in one.

The commit of a release (gitstore/release_commit.py) appears with all versions and pointers, or not at all
(gitstore/pending.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from dulwich.objects import Tag

from gitstore import changes, names, pending, pointers
from gitstore.changes import Authorship, ChangeSet
from gitstore.environments import CURRENT, Rulebook, followed, rulebook, state_of, with_pointer
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
from gitstore.model import Environment, LedgerKind, WorkflowState
from gitstore.policy import Command, Verdict
from gitstore.policy_facts import accepted
from gitstore.release_commit import Item, Pointer, Release, compose, find
from gitstore.repository import Repository
from gitstore.store import ANY, Actors, Store
from gitstore.unit_of_work import MOST_WORKFLOWS


@dataclass(frozen=True, slots=True)
class Wanted:
    """The version of the workflow `slug` that a release shall have, or its open draft.

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
    """The items of a release, and the reasons against it: pairs of a slug and an error."""

    items: list[Planned] = field(default_factory=list)
    refusals: list[tuple[str, GitstoreError]] = field(default_factory=list)


def plan(repository: Repository, wanted: Sequence[Wanted], environment: str, when: datetime) -> Plan:
    """Return what a release into `environment` does, and every gate that fails. Writes nothing."""
    rules = rulebook(repository)
    if environment != CURRENT:
        rules.find(environment)
    planned = Plan()
    for each in sorted(wanted, key=lambda each: each.slug):
        try:
            found = _planned(repository, each, environment)
            planned.items.append(found)
            reasons = _gates(repository, rules, found, environment, when)
        except GitstoreError as refusal:
            reasons = [refusal]
        planned.refusals += [(each.slug, reason) for reason in reasons]
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

    The pointers in `environment` move, and with a publication those that follow it; but `current` moves only
    by a release into it.
    The same request again returns the release that it made. Raises `release_refused` with every gate that
    fails, `release_conflict` if all that is wrong is that drafts or their bases moved, and `release_exists`.
    """
    names.check_release(name)
    slugs = _check(wanted)
    with store.unit_of_work.begin(slugs, name):
        pending.check_level(store)
        ref = names.release(name)
        if store.refs.read(ref) is not None:
            return _made(store, find(store, name), wanted, environment)
        when = store.clock()
        planned = plan(store, wanted, environment, when)
        if planned.refusals:
            raise _refusal(name, planned.refusals)
        items = tuple(each.item for each in planned.items)
        release = Release(name, "", environment, message, actors.actor, when, items)
        trees, commit = compose(release, [each.folder for each in planned.items])
        authorship = Authorship(actors.actor, when, message)
        tags, change_sets = [], []
        for each in planned.items:
            change = ChangeSet(store, each.item.slug, authorship)
            if each.verdict is not None:
                tags.append(store.version_tag(each.state, actors, message, when))
                _publish(change, each, tags[-1], release)
            elif (to := Pointer(each.item.version, each.item.before.held)) != each.item.before:
                _point(change, each.state, environment, to, name)
            change_sets.append(change)
        staged = [*tags, *trees, commit]
        made = RefUpdate(ref, None, commit.id)
        if moved := changes.decide(store, f"Release {name}", change_sets, staged=staged, also=[made]):
            raise changes.concurrent_update(moved)
        return replace(release, commit=commit.id.decode())


@dataclass(frozen=True, slots=True)
class Return:
    """The return of one pointer: the version that it left, and the one that it is on now."""

    slug: str
    left: Pointer
    now: Pointer


def roll_back(
    store: Store, name: str, actors: Actors, *, message: str = "", force: bool = False
) -> list[Return]:
    """Move every pointer of the release `name` to the version that it was on before, in one step.

    A pointer that is there already is left alone. Raises `release_conflict`, with all of them, where
    others have moved since; with `force`, these are moved, too.
    """
    release = find(store, name)
    before = {store.renamed_to(item.slug) or item.slug: item for item in release.items}
    with store.unit_of_work.begin(before, name):
        pending.check_level(store)
        authorship = Authorship(actors.actor, store.clock(), message or f"Roll back the release {name}")
        returns: list[Return] = []
        change_sets: list[ChangeSet] = []
        refusals: list[tuple[str, GitstoreError]] = []
        for slug, item in before.items():
            state = store.state(slug)
            now = Pointer.of(state_of(state, release.environment))
            if now == item.before:
                continue
            if (now.version, now.second) != (item.version, None) and not force:
                what = f"{slug} is on {now} by now, not on v{item.version} of the release"
                refusals.append((slug, ConflictError(Code.RELEASE_CONFLICT, what, current=now.version)))
                continue
            # It was there before, so only what happened to the version since counts.
            back = item.before.named(release.environment)
            versions = back.versions if back is not None else ()
            reasons = pointers.refusals(store, Rulebook(), state, CURRENT, versions, authorship.when)
            refusals += [(slug, reason) for reason in reasons]
            change = ChangeSet(store, slug, authorship)
            _point(change, state, release.environment, item.before, name, back=True)
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


def _planned(repository: Repository, wanted: Wanted, environment: str) -> Planned:
    slug = wanted.slug
    repository.check_exists(slug)
    state = repository.state(slug)
    before = Pointer.of(state_of(state, environment))
    number, draft = wanted.version, state.draft
    if number is None and draft is None:
        raise ConflictError(Code.NO_DRAFT, f"{slug} has no draft: save or push one, then release it")
    if number is None and wanted.draft not in (ANY, draft):
        raise StaleDraftError(f"the draft of {slug} moved since you read it: read it again")
    if number is None and repository.holds_latest(state):
        number = state.latest  # published already, as by `Store.publish`
    if number is None and draft is not None:
        command = Command(names.tag(slug, state.next_number), None, draft.encode())
        verdict = accepted(repository, command)
        folder = repository.locate(repository.objects.commit(verdict.commit), slug)[2]
        item = Item(slug, state.next_number, published=True, before=before)
        return Planned(item, state, verdict.commit, folder, verdict)
    tag = repository.refs.read(repository.tag(slug, number or 0))
    if tag is None or number is None:
        raise NotFoundError(Code.VERSION_NOT_FOUND, f"{slug} has no version v{number}", version=number)
    commit = repository.objects.peel(tag)[0]
    folder = repository.locate(repository.objects.commit(commit), slug)[2]
    return Planned(Item(slug, number, published=False, before=before), state, commit, folder)


def _gates(
    repository: Repository, rules: Rulebook, planned: Planned, environment: str, when: datetime
) -> list[GitstoreError]:
    """Return every reason why the pointer may not move to the version; a draft's is new everywhere."""
    number, state = planned.item.version, planned.state
    if not planned.item.published:
        return pointers.refusals(repository, rules, state, environment, [number], when)
    reasons = pointers.refusals(repository, rules, state, environment, [], when)
    hours = rules.find(environment).hours if environment != CURRENT else 0
    if hours:
        before = rules.before(environment)
        message = (
            f"the draft of {state.slug} has not been in {before} for the {hours} hours that {environment} "
            "requires"
        )
        reasons.append(ConflictError(Code.TOO_EARLY, message))
    return reasons


def _publish(change: ChangeSet, planned: Planned, tag: Tag, release: Release) -> None:
    """Record the publication of a draft by `release`, which moves the pointer also where that is held."""
    assert planned.verdict is not None  # noqa: S101
    change.repository.objects.keep([tag])
    verdict = replace(planned.verdict, command=Command(planned.verdict.command.ref, None, tag.id))
    change.create_unless_there()
    number, state, environment = planned.item.version, planned.state, release.environment
    if environment == CURRENT:
        change.publish(verdict, current=number, release=release.name)
        return
    moved = with_pointer(
        followed(change.repository, state.environments, number),
        Environment(environment, number, held=planned.item.before.held),
    )
    change.publish(verdict, current=state.current, environments=moved, release=release.name)


def _point(
    change: ChangeSet,
    state: WorkflowState,
    environment: str,
    to: Pointer,
    release: str,
    *,
    back: bool = False,
) -> None:
    """Record the move of a pointer by `release`, or `back` by its rollback."""
    number, pointer = to.version, to.named(environment)
    facts: dict[str, object] = {"release": release, "rolled_back": back}
    if environment == CURRENT:
        kind = LedgerKind.CLEARED if number is None else LedgerKind.CURRENT
        change.append(kind, version=number, current=number, held=to.held, **facts)
    elif pointer is None:
        left = tuple(each for each in state.environments if each.name != environment)
        change.append(LedgerKind.UNPOINTED, environment=environment, environments=left, **facts)
    else:
        moved = with_pointer(state.environments, pointer)
        change.append(
            LedgerKind.POINTED, environment=environment, version=number, environments=moved, **facts
        )


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
    tag = repository.refs.read(repository.tag(item.slug, item.version))
    held = (
        repository.refs.read(names.draft(item.slug)) if wanted.draft == ANY else (wanted.draft or "").encode()
    )
    return tag is not None and repository.objects.peel(tag)[0] == held


def _refusal(name: str, refusals: Sequence[tuple[str, GitstoreError]]) -> ReleaseRefusedError:
    moved = (BaseMovedError, StaleDraftError)
    only_moved = all(isinstance(e, moved) or e.code is Code.RELEASE_CONFLICT for _, e in refusals)
    listing = "; ".join(error.message for _, error in refusals[:3])
    more = f" and {len(refusals) - 3} more" if len(refusals) > 3 else ""
    return ReleaseRefusedError(
        Code.RELEASE_CONFLICT if only_moved else Code.RELEASE_REFUSED,
        f"{name}: nothing was changed: {listing}{more}",
        refusals,
    )
