"""Moves of the pointers of environments, by the rules of the project; and changes of these rules."""

from __future__ import annotations

import json
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Final

from dulwich.objects import Blob, ObjectID, Tree

from gitstore import changes, ledger, names, pending, schedules
from gitstore.changes import Authorship, ChangeSet
from gitstore.definition.quoting import clip
from gitstore.environments import (
    CURRENT,
    FILE,
    EnvironmentRule,
    Rulebook,
    check_rules,
    rulebook,
    state_of,
    with_pointer,
)
from gitstore.errors import (
    Code,
    ConflictError,
    EnvironmentRefusedError,
    GitstoreError,
    MalformedError,
    NotFoundError,
)
from gitstore.git.commits import new_commit
from gitstore.git.refs import RefUpdate
from gitstore.model import Environment, LedgerEntry, LedgerKind, Person, WorkflowState
from gitstore.policy import archived_error
from gitstore.repository import Repository
from gitstore.schedules import Scheduled
from gitstore.states import yanked
from gitstore.store import ANY, Actors, Store

NONE: Final = "none"
"""The tag of a pointer that does not exist."""
MOST_ENTRIES: Final = 1000
"""Entries of a ledger that a page of a pointer's history examines."""


@dataclass(frozen=True, slots=True)
class Move:
    """A move of a pointer: what it is on since `at`; None where it was removed."""

    environment: str
    to: Environment | None
    before: Environment | None
    entry: LedgerEntry


# Pointers


def refusals(
    repository: Repository,
    rules: Rulebook,
    state: WorkflowState,
    name: str,
    versions: Sequence[int],
    when: datetime,
) -> list[GitstoreError]:
    """Return every reason why a pointer may not move to `versions` in the environment `name`."""
    rule = rules.find(name) if name != CURRENT else None
    slug = state.slug
    found: list[GitstoreError] = []
    if state.archived:
        found.append(archived_error(slug))
    for number in versions:
        if repository.refs.read(repository.tag(slug, number)) is None:
            message = f"{slug} has no version v{number}"
            found.append(NotFoundError(Code.VERSION_NOT_FOUND, message, version=number))
        elif number in state.yanked:
            found.append(yanked(repository, slug, number))
        elif rule is not None and rule.hours and (before := rules.before(name)) is not None:
            enough = timedelta(hours=rule.hours)
            elapsed = _longest(repository, slug, before, number, when, enough)
            if elapsed < enough:
                shown = f"{elapsed.total_seconds() / 3600:.1f}"
                message = (
                    f"v{number} of {slug} was in {before} for {shown} of the {rule.hours} hours that {name} "
                    "requires"
                )
                found.append(ConflictError(Code.TOO_EARLY, message, version=number))
    return found


def history(
    repository: Repository, slug: str, name: str, *, limit: int, start: str | None = None
) -> tuple[list[Move], str | None]:
    """Return moves of a pointer, the newest first, and the ledger entry from which on there may be more.

    `start` is that of the page before. A page examines at most MOST_ENTRIES entries, so it may have fewer
    moves than `limit` although another follows.
    """
    found: list[Move] = []
    for examined, (entry, older) in enumerate(_steps(repository, slug, start), 1):
        after, before = _pointer(entry, name), _pointer(older, name)
        if after != before:
            found.append(Move(name, after, before, entry))
        if older is not None and (len(found) == limit or examined == MOST_ENTRIES):
            return found, older.oid
    return found, None


def _steps(
    repository: Repository, slug: str, start: str | None = None
) -> Iterator[tuple[LedgerEntry, LedgerEntry | None]]:
    """Yield the counting entries of a ledger, the newest first, each with the one before it."""
    tip = start.encode() if start is not None else repository.refs.read(names.ledger(slug))
    counting = (entry for entry in repository.ledger_from(tip) if repository.counts(slug, entry))
    entry = next(counting, None)
    while entry is not None:
        older = next(counting, None)
        yield entry, older
        entry = older


def _pointer(entry: LedgerEntry | None, name: str) -> Environment | None:
    pointers = entry.environments if entry is not None else ()
    return next((pointer for pointer in pointers if pointer.name == name), None)


def _longest(
    repository: Repository, slug: str, name: str, number: int, now: datetime, enough: timedelta
) -> timedelta:
    """Return the longest time for which version `number` was in an environment without a break.

    The ledger is read back to a time that is `enough`, or to the publication of the version.
    """
    longest, until, end = timedelta(), None, now
    for entry, older in _steps(repository, slug):
        if longest >= enough or entry.latest < number:
            break
        after, before = _pointer(entry, name), _pointer(older, name)
        if after == before:
            continue
        if after is not None and number in after.versions:
            until = until or end
            if before is None or number not in before.versions:
                longest = max(longest, until - entry.when)
                until = None
        end = entry.when
    return longest


def move(
    store: Store,
    slug: str,
    wanted: Environment,
    actors: Actors,
    *,
    message: str = "",
    expected: Collection[str] | None = None,
    scheduled: Scheduled | None = None,
) -> bool:
    """Set the pointer of a workflow in an environment of the project to `wanted`; return whether it moved.

    `expected` is the pointer that the caller has seen, None for none, or ANY. Raises `environment_refused`
    with every reason, and `environment_moved`.
    """
    with store.unit_of_work.begin([slug]):
        if schedules.is_done(store, slug, scheduled, wanted.name):
            return False
        state, rules, when = store.changing(slug), rulebook(store), store.clock()
        rules.find(wanted.name)
        check_expected(state, wanted.name, expected)
        if state_of(state, wanted.name) == wanted:
            return False
        if reasons := refusals(store, rules, state, wanted.name, wanted.versions, when):
            raise refused([(slug, reason) for reason in reasons])
        change = ChangeSet(store, slug, Authorship(actors.actor, when, message, scheduled=scheduled))
        change.append(
            LedgerKind.POINTED,
            environment=wanted.name,
            version=wanted.version,
            environments=with_pointer(state.environments, wanted),
        )
        changes.write_one(store, change)
        return True


def remove(
    store: Store,
    slug: str,
    name: str,
    actors: Actors,
    *,
    message: str = "",
    expected: Collection[str] | None = None,
) -> bool:
    """Remove the pointer of a workflow from an environment; return whether there was one."""
    with store.unit_of_work.begin([slug]):
        state = store.changing(slug)
        rulebook(store).find(name)
        check_expected(state, name, expected)
        if state_of(state, name) is None:
            return False
        change = ChangeSet(store, slug, Authorship(actors.actor, store.clock(), message))
        left = tuple(pointer for pointer in state.environments if pointer.name != name)
        change.append(LedgerKind.UNPOINTED, environment=name, environments=left)
        changes.write_one(store, change)
        return True


def refused(reasons: Sequence[tuple[str, GitstoreError]]) -> GitstoreError:
    """Return the error for `reasons`: the only one of them itself if it is that something does not exist."""
    if len(reasons) == 1 and isinstance(reasons[0][1], NotFoundError):
        return reasons[0][1]
    shown = "; ".join(error.message for _, error in reasons[:3])
    more = f" and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    return EnvironmentRefusedError(f"nothing was moved: {shown}{more}", reasons)


def tag_of(pointer: Environment | None) -> str:
    """Return the entity tag of a pointer; NONE for one that does not exist."""
    if pointer is None:
        return NONE
    return f"{ledger.show_pointer(pointer)}{',held' if pointer.held else ''}"


def check_expected(state: WorkflowState, name: str, expected: Collection[str] | None) -> None:
    """Raise `environment_moved` unless the pointer is one of `expected`, whose tags the caller has seen."""
    known = state_of(state, name)
    if expected is not None and ANY not in expected and tag_of(known) not in expected:
        shown = (
            "it has no version there now" if known is None else f"it is on {ledger.show_pointer(known)} now"
        )
        message = (
            f"the pointer of {state.slug} in {name} has moved: {shown}. Nothing was changed; check again"
        )
        raise ConflictError(Code.ENVIRONMENT_MOVED, message)


# Promotion


@dataclass(frozen=True, slots=True)
class Promotion:
    """The way of one workflow's pointer to the version of another environment; `moves` unless it is there."""

    slug: str
    before: Environment | None
    after: Environment
    state: WorkflowState

    @property
    def moves(self) -> bool:
        return self.before != self.after


@dataclass(slots=True)
class PromotionPlan:
    """The moves of a promotion, and the reasons against it: pairs of a slug and an error."""

    promotions: list[Promotion] = field(default_factory=list)
    refusals: list[tuple[str, GitstoreError]] = field(default_factory=list)


def plan(
    repository: Repository, slugs: Sequence[str], source: str, target: str, when: datetime
) -> PromotionPlan:
    """Return what a promotion from `source` to `target` does, and every gate that fails. Writes nothing."""
    rules = rulebook(repository)
    for name in (source, target):
        if name != CURRENT:
            rules.find(name)
    if source == target:
        raise MalformedError(
            f"a promotion from {clip(source)} to itself moves nothing: name two environments"
        )
    planned = PromotionPlan()
    for slug in sorted(set(slugs)):
        try:
            repository.check_exists(slug)
            state = repository.state(slug)
            found = state_of(state, source)
            if found is None:
                message = f"{slug} has no version in {source}: move one there first"
                raise NotFoundError(Code.NOT_PUBLISHED, message)
            if found.second is not None:
                message = (
                    f"{slug} is on {ledger.show_pointer(found)} in {source}: leave one version there first"
                )
                raise ConflictError(Code.VERSION_UNUSABLE, message)
        except GitstoreError as error:
            planned.refusals.append((slug, error))
            continue
        before = state_of(state, target)
        after = Environment(target, found.version, held=before.held if before is not None else False)
        if before != after:
            reasons = refusals(repository, rules, state, target, after.versions, when)
            planned.refusals += [(slug, reason) for reason in reasons]
        planned.promotions.append(Promotion(slug, before, after, state))
    return planned


def promote(
    store: Store,
    slugs: Sequence[str],
    source: str,
    target: str,
    actors: Actors,
    *,
    message: str = "",
    scheduled: Scheduled | None = None,
    version: int | None = None,
) -> list[Promotion]:
    """Move the pointers of workflows in `target` to their versions in `source`: all of them, or none.

    A pointer that is there already is left alone. A scheduled promotion is that of one workflow, whose
    `version` in `source` is the one of then. Raises `environment_refused` with every gate that fails, and
    `environment_moved`.
    """
    with store.unit_of_work.begin(slugs):
        when = store.clock()
        if scheduled is not None and schedules.is_done(store, slugs[0], scheduled, target):
            return []
        planned = plan(store, slugs, source, target, when)
        if planned.refusals:
            raise refused(planned.refusals)
        for promotion in planned.promotions if version is not None else ():
            if promotion.after.version != version:
                now = f"v{promotion.after.version}, not on v{version} any more"
                message = f"{promotion.slug} is on {now}, in {source}: check, and schedule it again"
                raise ConflictError(Code.ENVIRONMENT_MOVED, message)
        authorship = Authorship(actors.actor, when, message, scheduled=scheduled)
        change_sets = []
        for promotion in planned.promotions:
            if not promotion.moves:
                continue
            change = ChangeSet(store, promotion.slug, authorship)
            number = promotion.after.version
            if target == CURRENT:
                change.append(LedgerKind.CURRENT, version=number, current=number, promoted_from=source)
            else:
                moved = with_pointer(promotion.state.environments, promotion.after)
                change.append(
                    LedgerKind.POINTED,
                    environment=target,
                    version=number,
                    environments=moved,
                    promoted_from=source,
                )
            change_sets.append(change)
        if len(change_sets) == 1:
            changes.write_one(store, change_sets[0])
        elif change_sets:
            pending.check_level(store)
            if stale := changes.decide(store, f"Promote {source} to {target}", change_sets):
                raise changes.concurrent_update(stale)
        return planned.promotions


# The rules of a project


def change_rulebook(
    store: Store, rules: Sequence[EnvironmentRule], actor: Person, expected: Collection[str]
) -> Rulebook:
    """Replace the environments of the project.

    `expected` are the commits that the caller has seen, ANY, or NONE without environments. An environment
    in which a workflow has a pointer cannot be removed. Raises `environment_invalid` with everything that is
    wrong, `environment_used` and `environment_moved`.
    """
    check_rules(rules)
    known = rulebook(store)
    removed = {rule.name for rule in known.rules} - {rule.name for rule in rules}
    # While one is removed, no pointer may move.
    with store.unit_of_work.maintenance() if removed else store.unit_of_work.begin([]):
        ledger.check_level(LedgerKind.POINTED, store.level)
        if ANY not in expected and (known.commit or NONE) not in expected:
            message = "the environments have changed since you read them: read them again, then change them"
            raise ConflictError(Code.ENVIRONMENT_MOVED, message)
        if tuple(rules) == known.rules:
            return known
        if removed:
            _check_unused(store, removed)
        content = json.dumps({"environments": [asdict(rule) for rule in rules]}, indent=2) + "\n"
        blob, tree = Blob.from_string(content.encode()), Tree()
        tree.add(FILE, stat.S_IFREG | 0o644, ObjectID(blob.id))
        before = known.commit.encode() if known.commit else None
        commit = new_commit(
            tree=tree.id,
            parents=[before] if before else [],
            author=actor,
            committer=ledger.COMMITTER,
            when=store.clock(),
            message="Change the environments",
        )
        store.objects.write_together([blob, tree, commit])
        if moved := store.refs.update([RefUpdate(names.ENVIRONMENTS, before, commit.id)]):
            raise changes.concurrent_update(moved)
        return Rulebook(tuple(rules), commit.id.decode())


def _check_unused(repository: Repository, removed: set[str]) -> None:
    used: dict[str, list[str]] = {}
    for slug in filter(names.is_slug, repository.slugs()):
        entry = repository.newest_counting(slug)
        for pointer in entry.environments if entry else ():
            if pointer.name in removed:
                used.setdefault(pointer.name, []).append(slug)
    if used:
        name, slugs = min(used.items())
        more = f" and {len(slugs) - 3} more" if len(slugs) > 3 else ""
        raise ConflictError(
            Code.ENVIRONMENT_USED,
            f"{name} has a pointer of {', '.join(slugs[:3])}{more}: remove these first",
            workflows=slugs,
        )
