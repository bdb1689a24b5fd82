"""Pages: the environments of a project, a row for each workflow; promotion, with what it changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from flask import Response, request

from gitstore.environments import CURRENT, EnvironmentRule, rulebook
from gitstore.errors import EnvironmentRefusedError, GitstoreError, MalformedError
from gitstore.model import Permission
from gitstore.unit_of_work import MOST_WORKFLOWS
from service import access, lookup
from service.access import Role
from service.actions import environments as actions
from service.actions import schedules
from service.ui.rendering import blueprint
from service.ui.visits import Visit, enter, field, go, later
from sync import environments, listing
from sync.environments import ShownPointer
from sync.listing import Wanted

PAGE: Final = 50


@blueprint.get("/ui/environments")
def list_environments() -> Response:
    """Show which version of each workflow is in which environment."""
    visit = enter(Permission.READ, "listing environments")
    caller, wanted = visit.caller, Wanted(sort="slug")
    after = lookup.place_in(request.args.get("cursor"), wanted.parse_place)
    with caller.reading() as tx:
        rows, following = listing.workflows(tx, caller.project_id, wanted, after=after, limit=PAGE)
        pointers = environments.of_workflows(tx, caller.project_id, [row.slug for row in rows])
    found: dict[str, dict[str, ShownPointer]] = {}
    for pointer in pointers:
        found.setdefault(pointer.slug, {})[pointer.name] = pointer
    rules = _rules(visit)
    return visit.page(
        "environments.html",
        rules=rules,
        movable={rule.name for rule in rules if access.has_role(caller.principal, rule.role)},
        rows=[(row, found.get(row.slug, {})) for row in rows],
        following=lookup.cursor_to(following) if following else None,
        owns=access.may(caller.principal, Permission.OWN),
    )


@blueprint.get("/ui/promote")
def ask_promotion() -> Response:
    """Show what a promotion of the chosen workflows would change, and what refuses it."""
    visit = enter(Permission.READ, "promoting")
    return _promotion(visit, request.args.getlist("workflow")[: MOST_WORKFLOWS + 1])


@blueprint.post("/ui/promote")
def promote() -> Response:
    visit = enter(Permission.EDIT, "promoting")
    slugs = request.form.getlist("workflow")[: MOST_WORKFLOWS + 1]
    try:
        _check_chosen(slugs)
        about = (slugs, field("from"), field("to"))
        if (at := later()) is not None:
            schedules.promote(visit.caller, *about, at, message=field("message").strip())
            return go("list_environments", notice="scheduled")
        actions.promote(visit.caller, *about, message=field("message").strip())
    except GitstoreError as error:
        return _promotion(visit, slugs, error)
    return go("list_environments", notice="promoted")


@blueprint.get("/ui/environment-rules")
def edit_environments() -> Response:
    visit = enter(Permission.OWN, "changing the environments")
    return _edit(visit, _rules(visit))


@blueprint.post("/ui/environment-rules")
def save_environments() -> Response:
    """Replace the environments of the project; rows without a name are left out."""
    visit = enter(Permission.OWN, "changing the environments")
    names, roles, hours = (request.form.getlist(each) for each in ("name", "role", "hours"))
    follows = set(request.form.getlist("follows"))
    rules = [
        EnvironmentRule(
            name.strip(),
            role if role in set(Role) else Role.PUBLISHER.value,
            follows=str(row) in follows,
            hours=int(wait) if wait.strip().isascii() and wait.strip().isdigit() else 0,
        )
        for row, (name, role, wait) in enumerate(zip(names, roles, hours, strict=False))
        if name.strip()
    ]
    try:
        actions.change_rules(visit.caller, rules, {field("seen") or "none"})
    except GitstoreError as error:
        return _edit(visit, rules, error)
    return go("list_environments", notice="environments-changed")


def _check_chosen(slugs: Sequence[str]) -> None:
    if not (slugs and request.values.get("from") and request.values.get("to")):
        raise MalformedError("choose two environments, and at least one workflow")


def _rules(visit: Visit) -> Sequence[EnvironmentRule]:
    with visit.caller.opened() as repository:
        return rulebook(repository).rules


def _promotion(visit: Visit, slugs: Sequence[str], error: GitstoreError | None = None) -> Response:
    source, target = (request.values.get(name, "") for name in ("from", "to"))
    preview = None
    try:
        _check_chosen(slugs)
        preview = actions.preview(visit.caller, slugs, source, target)
    except GitstoreError as refusal:
        error = error or refusal
    refusals: dict[str, list[str]] = {}
    found = error.refusals if isinstance(error, EnvironmentRefusedError) else []
    for slug, reason in preview.refusals if preview is not None else found:
        refusals.setdefault(slug, []).append(reason.message)
    return visit.page(
        "promote.html", error, source=source, target=target, preview=preview, slugs=slugs, refusals=refusals
    )


def _edit(visit: Visit, rules: Sequence[EnvironmentRule], error: GitstoreError | None = None) -> Response:
    with visit.caller.opened() as repository:
        seen = rulebook(repository).commit
    return visit.page(
        "environment_rules.html", error, rules=rules, seen=seen, roles=list(Role)[1:], current=CURRENT
    )
