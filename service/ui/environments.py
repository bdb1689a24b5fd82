"""Pages of a project's environments: the version of each workflow in them, promotion, and one pointer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from flask import Response, request

from gitstore import pointers
from gitstore.definition.quoting import clip
from gitstore.environments import CURRENT, EnvironmentRule, rulebook, state_of
from gitstore.errors import EnvironmentRefusedError, GitstoreError, MalformedError, NotFoundError
from gitstore.model import Environment, Permission
from gitstore.names import parse_number
from gitstore.unit_of_work import MOST_WORKFLOWS
from service import access, lookup
from service.access import Role
from service.actions import environments as actions
from service.actions import schedules
from service.actions.environments import Preview
from service.ui.rendering import blueprint, pointer
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
        known = environments.of_workflows(tx, caller.project_id, [row.slug for row in rows])
    found: dict[str, dict[str, ShownPointer]] = {}
    for shown in known:
        found.setdefault(shown.slug, {})[shown.name] = shown
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


# One pointer: since when and why a workflow has it, its moves, and the form that moves it

_MOVES: Final = 50
_EMPTY: Final = {"version": "", "second": "", "weight": "100", "message": ""}


@blueprint.get("/ui/workflows/<slug>/environments/<name>")
def show_pointer(slug: str, name: str) -> Response:
    """Show a pointer, its moves, and the form that moves it; `version` is the one to move it to."""
    visit = enter(Permission.READ, f"reading {clip(slug)}")
    return _pointer_page(visit, slug, name, given={**_EMPTY, "version": request.args.get("version", "")[:20]})


@blueprint.post("/ui/workflows/<slug>/environments/<name>")
def move_pointer(slug: str, name: str) -> Response:
    """Move the pointer, unless it has moved since the page was shown; or only show what that would change."""
    visit = enter(Permission.EDIT, f"moving {clip(slug)} in {clip(name)}")
    slug = lookup.slug_of(visit.caller, slug)
    given = {key: field(key).strip() for key in _EMPTY}
    hold = bool(field("hold"))
    try:
        weights = _weights(given)
        if field("check"):
            preview = actions.preview_move(visit.caller, slug, name, weights, hold=hold)
            return _pointer_page(visit, slug, name, given=given, hold=hold, preview=preview)
        seen = {field("seen") or pointers.NONE}
        actions.move(visit.caller, slug, name, weights, message=given["message"], hold=hold, expected=seen)
    except GitstoreError as error:
        return _pointer_page(visit, slug, name, error, given=given, hold=hold)
    return go("show_pointer", slug=slug, name=name, notice="pointer-moved")


@blueprint.get("/ui/workflows/<slug>/environments/<name>/remove")
def ask_remove_pointer(slug: str, name: str) -> Response:
    visit = enter(Permission.EDIT, f"moving {clip(slug)} in {clip(name)}")
    slug, known, moves = _known(visit, slug, name)
    if not moves:
        with visit.caller.opened() as repository:
            actions.authorize_move(visit.caller, rulebook(repository), name, f"removing {slug} from {name}")
    return visit.page(
        "ask.html",
        question=f"Remove {slug} from {name}?",
        about=f"It is on {pointer(known)}." if known is not None else "It has no version there.",
        text="Callers that read this environment find no version until the pointer is moved again.",
        action=("remove_pointer", {"slug": slug, "name": name}),
        to=("show_pointer", {"slug": slug, "name": name}),
        fields={"seen": pointers.tag_of(known)},
        reason="optional",
    )


@blueprint.post("/ui/workflows/<slug>/environments/<name>/remove")
def remove_pointer(slug: str, name: str) -> Response:
    visit = enter(Permission.EDIT, f"moving {clip(slug)} in {clip(name)}")
    slug, seen = lookup.slug_of(visit.caller, slug), {field("seen") or pointers.NONE}
    try:
        actions.remove(visit.caller, slug, name, message=field("message").strip(), expected=seen)
    except NotFoundError:
        raise
    except GitstoreError as error:
        return _pointer_page(visit, slug, name, error)
    return go("show_pointer", slug=slug, name=name, notice="pointer-removed")


def _weights(given: dict[str, str]) -> list[tuple[int | str, int]]:
    """Return the versions of the form with their weights: one, or two that share the callers."""
    version, second, weight = given["version"], given["second"], parse_number(given["weight"] or "100")
    if not version:
        raise MalformedError("name a version, such as v3 or latest")
    if not second:
        return [(version, 100)]
    if weight is None or not 1 <= weight <= 99:
        raise MalformedError("with two versions, the first one has 1 to 99 percent")
    return [(version, weight), (second, 100 - weight)]


def _known(visit: Visit, slug: str, name: str) -> tuple[str, Environment | None, bool]:
    """Return the slug, the pointer, and whether the visitor may move it. Raises `environment_not_found`."""
    slug = lookup.slug_of(visit.caller, slug)
    with visit.caller.opened() as repository:
        lookup.existing(repository, slug)
        role = rulebook(repository).find(name).role
        return slug, state_of(repository.state(slug), name), access.has_role(visit.principal, role)


def _pointer_page(
    visit: Visit,
    slug: str,
    name: str,
    error: GitstoreError | None = None,
    *,
    given: dict[str, str] | None = None,
    hold: bool | None = None,
    preview: Preview | None = None,
) -> Response:
    slug, known, moves = _known(visit, slug, name)
    with visit.caller.reading() as tx:
        workflow = lookup.workflow(tx, visit.caller, slug)
    with visit.caller.opened() as repository:
        history, _ = pointers.history(repository, slug, name, limit=_MOVES)
    refusals = error.refusals if isinstance(error, EnvironmentRefusedError) else []
    return visit.page(
        "pointer.html",
        error,
        workflow=workflow,
        name=name,
        known=known,
        seen=pointers.tag_of(known),
        given=given or _EMPTY,
        hold=known is not None and known.held if hold is None else hold,
        preview=preview,
        refusals=[reason.message for _, reason in (preview.refusals if preview is not None else refusals)],
        moves=moves and not workflow.archived,
        history=history,
    )
