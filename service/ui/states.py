"""Pages of what may change about a published version: withdraw it, take that back, describe it."""

from __future__ import annotations

from flask import Response

from gitstore import states
from gitstore.definition.quoting import clip
from gitstore.errors import GitstoreError, MalformedError, NotFoundError
from gitstore.model import Permission
from gitstore.states import VersionState
from service import lookup
from service.actions import versions as actions
from service.inputs import Annotate, validated
from service.ui.rendering import blueprint
from service.ui.versions import find_published
from service.ui.visits import Visit, enter, field, go
from sync.catalog import Version, Workflow


@blueprint.get("/ui/workflows/<slug>/versions/<version>/withdraw")
def ask_withdraw(slug: str, version: str) -> Response:
    return _ask_withdraw(enter(Permission.PUBLISH, f"withdrawing a version of {clip(slug)}"), slug, version)


@blueprint.post("/ui/workflows/<slug>/versions/<version>/withdraw")
def withdraw(slug: str, version: str) -> Response:
    """Yank the version, for a reason. Pinned runs still read it."""
    visit = enter(Permission.PUBLISH, f"withdrawing a version of {clip(slug)}")
    workflow, row = _published(visit, slug, version)
    number = str(row.version_number)
    try:
        actions.yank(visit.caller, workflow.slug, number, reason=field("message").strip())
    except MalformedError as error:
        return _ask_withdraw(visit, slug, version, error)
    return go("show_version", slug=workflow.slug, version=number, notice="withdrawn")


@blueprint.get("/ui/workflows/<slug>/versions/<version>/take-back")
def ask_take_back(slug: str, version: str) -> Response:
    visit = enter(Permission.PUBLISH, f"withdrawing a version of {clip(slug)}")
    workflow, row = _published(visit, slug, version)
    state = _state(visit, workflow.slug, row.version_number)[0]
    reason = f" It was withdrawn because: {state.yank.message}" if state.yank is not None else ""
    return visit.page(
        "ask.html",
        question=f"Offer v{row.version_number} again?",
        about=f"{workflow.name} ({workflow.slug})",
        text=f"It can become current, be promoted and be released again.{reason}",
        action=("take_back", {"slug": workflow.slug, "version": version}),
        to=("show_version", {"slug": workflow.slug, "version": version}),
        reason="optional",
    )


@blueprint.post("/ui/workflows/<slug>/versions/<version>/take-back")
def take_back(slug: str, version: str) -> Response:
    visit = enter(Permission.PUBLISH, f"withdrawing a version of {clip(slug)}")
    workflow, row = _published(visit, slug, version)
    number = str(row.version_number)
    actions.unyank(visit.caller, workflow.slug, number, reason=field("message").strip())
    return go("show_version", slug=workflow.slug, version=number, notice="offered")


@blueprint.get("/ui/workflows/<slug>/versions/<version>/describe")
def edit_description(slug: str, version: str) -> Response:
    return _describe(enter(Permission.EDIT, f"describing a version of {clip(slug)}"), slug, version)


@blueprint.post("/ui/workflows/<slug>/versions/<version>/describe")
def describe_version(slug: str, version: str) -> Response:
    """Give the version a title and notes. Its definition and its message never change."""
    visit = enter(Permission.EDIT, f"describing a version of {clip(slug)}")
    workflow, row = _published(visit, slug, version)
    number = str(row.version_number)
    given = {name: field(name).strip() for name in ("title", "notes")}
    try:
        body = validated(Annotate, {name: text or None for name, text in given.items()})
        actions.annotate(visit.caller, workflow.slug, number, body.model_dump())
    except NotFoundError:
        raise
    except GitstoreError as error:
        return _describe(visit, slug, version, error, given)
    return go("show_version", slug=workflow.slug, version=number, notice="described")


def _published(visit: Visit, slug: str, version: str) -> tuple[Workflow, Version]:
    with visit.caller.reading() as tx:
        workflow = lookup.workflow(tx, visit.caller, slug)
        return workflow, find_published(tx, workflow, version)


def _state(visit: Visit, slug: str, number: int) -> tuple[VersionState, list[str]]:
    """Return what has changed about a version, and the pointers on it."""
    with visit.caller.opened() as repository:
        found = states.of_versions(repository, slug, {number}).get(number, VersionState())
        return found, states.pointers_on(repository.state(slug), number)


def _ask_withdraw(visit: Visit, slug: str, version: str, error: GitstoreError | None = None) -> Response:
    workflow, row = _published(visit, slug, version)
    on_it = _state(visit, workflow.slug, row.version_number)[1]
    stay = f" These pointers are on it, and stay until they are moved: {', '.join(on_it)}." if on_it else ""
    return visit.page(
        "ask.html",
        error,
        question=f"Withdraw v{row.version_number}?",
        about=f"{workflow.name} ({workflow.slug})",
        text="Runs that name it by its number still read it. Nothing new selects it: it cannot become "
        f"current, be promoted or be released.{stay}",
        action=("withdraw", {"slug": workflow.slug, "version": version}),
        to=("show_version", {"slug": workflow.slug, "version": version}),
        reason="required",
    )


def _describe(
    visit: Visit,
    slug: str,
    version: str,
    error: GitstoreError | None = None,
    given: dict[str, str] | None = None,
) -> Response:
    workflow, row = _published(visit, slug, version)
    state = _state(visit, workflow.slug, row.version_number)[0]
    return visit.page(
        "describe.html",
        error,
        workflow=workflow,
        version=row,
        given=given or {"title": state.title or "", "notes": state.notes or ""},
    )
