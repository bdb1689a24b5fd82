"""Actions on environments: move a pointer, promote, and change the environments of a project."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from gitstore import pointers
from gitstore.environments import CURRENT, EnvironmentRule, Rulebook, rulebook, state_of, weighted
from gitstore.errors import Code, ConflictError, GitstoreError
from gitstore.model import Environment, Permission
from gitstore.names import version_id
from gitstore.pointers import Promotion
from gitstore.repository import Repository
from gitstore.schedules import Scheduled
from gitstore.system import now
from service import lookup
from service.access import authorize, authorize_role
from service.actions.releases import summary
from service.caller import Caller
from service.logs import Event
from sync import catalog


@dataclass(frozen=True, slots=True)
class Preview:
    """The moves of a promotion, each with a summary of what changes, and the reasons against it."""

    promotions: Sequence[tuple[Promotion, str]]
    refusals: Sequence[tuple[str, GitstoreError]]


def move(
    caller: Caller,
    slug: str,
    name: str,
    weights: Iterable[tuple[int | str, int]],
    *,
    message: str = "",
    hold: bool = False,
    expected: Collection[str] | None = None,
    scheduled: Scheduled | None = None,
) -> bool:
    """Set the pointer of a workflow to one version, or to two with their weights; return whether it moved."""
    with caller.acting(Event.ENVIRONMENT_MOVED, slug, caller.services.count_move, environment=name) as (
        store,
        facts,
    ):
        lookup.existing(store, slug)
        authorize_move(caller, rulebook(store), name, f"moving {slug} in {name}")
        wanted = _wanted(store, slug, name, weights, hold=hold)
        moved = pointers.move(
            store, slug, wanted, caller.actors(), message=message, expected=expected, scheduled=scheduled
        )
        facts.update(version=wanted.version, held=hold, new=moved)
    return moved


def preview_move(
    caller: Caller, slug: str, name: str, weights: Iterable[tuple[int | str, int]], *, hold: bool = False
) -> Preview:
    """Return what `move` would change, and every gate that fails. Nothing is changed."""
    with caller.opened() as repository:
        lookup.existing(repository, slug)
        rules, state = rulebook(repository), repository.state(slug)
        rules.find(name)
        wanted = _wanted(repository, slug, name, weights, hold=hold)
        reasons = pointers.refusals(repository, rules, state, name, wanted.versions, now())
        promotion = Promotion(slug, state_of(state, name), wanted, state)
        return _previewed(caller, repository, [promotion], [(slug, reason) for reason in reasons])


def remove(
    caller: Caller, slug: str, name: str, *, message: str = "", expected: Collection[str] | None = None
) -> bool:
    """Remove the pointer of a workflow from an environment; return whether there was one."""
    with caller.acting(Event.ENVIRONMENT_REMOVED, slug, environment=name) as (store, _):
        lookup.existing(store, slug)
        authorize_move(caller, rulebook(store), name, f"removing {slug} from {name}")
        return pointers.remove(store, slug, name, caller.actors(), message=message, expected=expected)


def promote(
    caller: Caller,
    names: Sequence[str],
    source: str,
    target: str,
    *,
    message: str = "",
    scheduled: Scheduled | None = None,
    version: int | None = None,
) -> Sequence[Promotion]:
    """Move the pointers of workflows (slugs or ids) in `target` to their versions in `source`, or none.

    A scheduled promotion is that of one workflow, to its `version` of then.
    """
    count = partial(caller.services.count_move, outcome="promoted")
    slugs = [lookup.slug_of(caller, name) for name in names]
    about = {"source": source, "target": target}
    with caller.acting(Event.PROMOTED, slugs[0] if len(slugs) == 1 else None, count, **about) as (
        store,
        facts,
    ):
        authorize_move(caller, rulebook(store), target, f"promoting to {target}")
        promoted = pointers.promote(
            store,
            slugs,
            source,
            target,
            caller.actors(),
            message=message,
            scheduled=scheduled,
            version=version,
        )
        facts.update(workflows=sum(each.moves for each in promoted))
    return promoted


def preview(
    caller: Caller, names: Sequence[str], source: str, target: str, at: datetime | None = None
) -> Preview:
    """Return what a promotion, now or later, would change, and every gate that fails. Nothing is changed."""
    slugs = [lookup.slug_of(caller, name) for name in names]
    with caller.opened() as repository:
        planned = pointers.plan(repository, slugs, source, target, at or now())
        refusals = list(planned.refusals)
        try:
            authorize_move(caller, rulebook(repository), target, f"promoting to {target}")
        except GitstoreError as error:
            refusals = [(slug, error) for slug in sorted(set(slugs))] + refusals
        return _previewed(caller, repository, planned.promotions, refusals)


def change_rules(
    caller: Caller, rules: Sequence[EnvironmentRule], expected: Collection[str] | None
) -> Rulebook:
    """Replace the environments of the project. For owners. Raises `precondition_required`."""
    authorize(caller.principal, Permission.OWN, "changing the environments")
    with caller.acting(Event.ENVIRONMENTS_CHANGED, None) as (store, facts):
        known = rulebook(store)
        if expected is None and known.commit is not None:
            message = "the project has environments: give the commit that you have seen (If-Match)"
            raise ConflictError(Code.EXPECTED_REQUIRED, message)
        changed = pointers.change_rulebook(
            store, rules, caller.actors().actor, {pointers.NONE} if expected is None else expected
        )
        facts.update(environments=[rule.name for rule in changed.rules])
    if changed != known:
        with caller.as_user() as tx:
            details = {"environments": [rule.name for rule in changed.rules], "commit": changed.commit}
            caller.audit(tx, "environments.changed", caller.project.slug, details)
    return changed


def authorize_move(caller: Caller, rules: Rulebook, name: str, what: str) -> None:
    """Raise `forbidden` unless the caller may move pointers in the environment `name`."""
    if name == CURRENT:
        authorize(caller.principal, Permission.PUBLISH, what)
    else:
        authorize_role(caller.principal, rules.find(name).role, what)


def _wanted(
    repository: Repository, slug: str, name: str, weights: Iterable[tuple[int | str, int]], *, hold: bool
) -> Environment:
    numbers = {lookup.number_of(repository, slug, version): weight for version, weight in weights}
    return weighted(name, numbers, held=hold)


def _previewed(
    caller: Caller,
    repository: Repository,
    promotions: Sequence[Promotion],
    refusals: Sequence[tuple[str, GitstoreError]],
) -> Preview:
    """Compare the versions before and after each move, after waiting for the turn of a large request."""
    ids = [
        version_id(repository.identity(each.slug), number)
        for each in promotions
        if each.moves
        for number in (each.after.version, *(each.before.versions if each.before else ()))
    ]
    with caller.reading() as tx:
        sizes = catalog.definition_sizes(tx, ids)
    caller.admit(sum(sizes.values()))
    return Preview([(each, _summary(repository, each)) for each in promotions], refusals)


def _summary(repository: Repository, promotion: Promotion) -> str:
    held = repository.refs.read(repository.tag(promotion.slug, promotion.after.version))
    if held is None or not promotion.moves:
        return ""
    before = promotion.before.version if promotion.before is not None else None
    return summary(repository, promotion.slug, before, repository.objects.peel(held)[0])
