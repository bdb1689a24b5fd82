"""Pages of one pointer: which version of a workflow an environment has, since when and why, and its moves."""

from __future__ import annotations

from typing import Final

from flask import Response, request

from gitstore import pointers
from gitstore.definition.quoting import clip
from gitstore.environments import rulebook, state_of
from gitstore.errors import EnvironmentRefusedError, GitstoreError, MalformedError, NotFoundError
from gitstore.model import Environment, Permission
from gitstore.names import parse_number
from service import lookup
from service.access import has_role
from service.actions import environments as actions
from service.actions.environments import Preview
from service.ui.rendering import blueprint, pointer
from service.ui.visits import Visit, enter, field, go

_MOVES: Final = 50
_EMPTY: Final = {"version": "", "second": "", "weight": "100", "message": ""}


@blueprint.get("/ui/workflows/<slug>/environments/<name>")
def show_pointer(slug: str, name: str) -> Response:
    """Show a pointer, its moves, and the form that moves it; `version` is the one to move it to."""
    visit = enter(Permission.READ, f"reading {clip(slug)}")
    return _page(visit, slug, name, given={**_EMPTY, "version": request.args.get("version", "")[:20]})


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
            return _page(visit, slug, name, given=given, hold=hold, preview=preview)
        seen = {field("seen") or pointers.NONE}
        actions.move(visit.caller, slug, name, weights, message=given["message"], hold=hold, expected=seen)
    except GitstoreError as error:
        return _page(visit, slug, name, error, given=given, hold=hold)
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
        return _page(visit, slug, name, error)
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
        return slug, state_of(repository.state(slug), name), has_role(visit.principal, role)


def _page(
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
