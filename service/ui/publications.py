"""Forms of a published version: revert the draft to it, make it current, withdraw it, describe it.

Each form shows what the action changes before it is confirmed.
"""

from __future__ import annotations

from typing import Final

from flask import Response

from gitstore import states
from gitstore.definition.quoting import clip
from gitstore.environments import CURRENT
from gitstore.errors import Code, ConflictError, GitstoreError, MalformedError, NotFoundError, StaleDraftError
from gitstore.model import Permission
from gitstore.names import parse_number
from gitstore.states import VersionState, yanked
from service import lookup
from service.actions import drafts, schedules, versions
from service.inputs import Annotate, validated
from service.ui.rendering import blueprint
from service.ui.versions import change_between, find_published
from service.ui.visits import Visit, enter, field, go, later, seen_draft
from sync import catalog
from sync.catalog import Version, Workflow

_CHOICES: Final = 12
_DRAFT_CHANGED: Final = "someone changed the draft in the meantime. Nothing was reverted: check it below"


@blueprint.get("/ui/workflows/<slug>/versions/<version>/revert")
def ask_revert(slug: str, version: str) -> Response:
    return _form(_enter_revert(slug), slug, version, reverts=True)


@blueprint.post("/ui/workflows/<slug>/versions/<version>/revert")
def revert(slug: str, version: str) -> Response:
    """Set the draft to the version's content. The current version is unchanged."""
    visit = _enter_revert(slug)
    workflow, row = _published(visit, slug, version)
    slug, number = workflow.slug, row.version_number
    try:
        drafts.revert(visit.caller, slug, number, expected=seen_draft(), message=field("message").strip())
    except StaleDraftError as error:
        return _form(visit, slug, str(number), error.reworded(_DRAFT_CHANGED), reverts=True)
    return go("show_workflow", slug=slug, notice="reverted", about={"version": number})


@blueprint.get("/ui/workflows/<slug>/roll-back")
def roll_back(slug: str) -> Response:
    """Ask whether to make the previous version current: two clicks from the first page."""
    visit = _enter_current(slug)
    with visit.caller.reading() as tx:
        workflow = lookup.workflow(tx, visit.caller, slug)
        before = workflow.current_number
        limit = 1 + len(workflow.yanked)
        rows = catalog.history(tx, workflow.id, state="published", before=before, limit=limit).rows
    usable = [row.version_number for row in rows if not row.yanked]
    if not usable:
        raise NotFoundError(Code.VERSION_NOT_FOUND, f"{workflow.slug} has no earlier version to roll back to")
    return _form(visit, slug, str(usable[0]), reverts=False)


@blueprint.get("/ui/workflows/<slug>/versions/<version>/current")
def ask_current(slug: str, version: str) -> Response:
    return _form(_enter_current(slug), slug, version, reverts=False)


@blueprint.post("/ui/workflows/<slug>/versions/<version>/current")
def make_current(slug: str, version: str) -> Response:
    """Make the version current, unless the current version has changed since the page was shown."""
    visit = _enter_current(slug)
    workflow, row = _published(visit, slug, version)
    slug, number = workflow.slug, row.version_number
    hold, seen, message = bool(field("hold")), parse_number(field("seen")), field("message").strip()
    try:
        if (at := later()) is not None:
            schedules.move(visit.caller, slug, CURRENT, [(number, 100)], at, message=message, hold=hold)
            return go("show_workflow", slug=slug, notice="scheduled")
        versions.move_current(visit.caller, slug, number, message=message, hold=hold, expected=seen)
    except (ConflictError, MalformedError) as error:
        return _form(visit, slug, str(number), error, reverts=False)
    return go("show_workflow", slug=slug, notice="held" if hold else "moved", about={"version": number})


def _enter_revert(slug: str) -> Visit:
    return enter(Permission.EDIT, f"reverting {clip(slug)}")


def _enter_current(slug: str) -> Visit:
    return enter(Permission.PUBLISH, f"changing the current version of {clip(slug)}")


def _form(
    visit: Visit, slug: str, version: str, error: GitstoreError | None = None, *, reverts: bool
) -> Response:
    """Show the form that reverts the draft to the version, or makes the version current."""
    caller = visit.caller
    with caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, slug)
        row = find_published(tx, workflow, version)
        draft = catalog.full_version(tx, workflow.id, "draft") if reverts else None
        before = draft or catalog.full_version(tx, workflow.id, "latest" if reverts else "current")
        recent = catalog.history(tx, workflow.id, state="published", limit=_CHOICES).rows
    if row.yanked and not reverts:
        with caller.opened() as repository:
            raise yanked(repository, workflow.slug, row.version_number)
    lookup.admit(caller, workflow.slug, row.version_number, before.version_number if before else None)
    seen: object = workflow.current_number
    if reverts:
        # The row may lag by a moment; the form expects the state that the user has seen.
        with caller.opened() as repository:
            seen = draft.commit_sha if draft else lookup.draft_of(repository, workflow.slug)
    return visit.page(
        "rollback.html",
        error,
        workflow=workflow,
        version=row,
        reverts=reverts,
        draft=draft,
        before=before,
        seen=seen or "",
        others=[each for each in recent if not (each.is_current or each.yanked or each.id == row.id)],
        change=change_between(before, row, caller.rules),
    )


# Withdraw a version, offer it again, describe it


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
        versions.yank(visit.caller, workflow.slug, number, reason=field("message").strip())
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
    versions.unyank(visit.caller, workflow.slug, number, reason=field("message").strip())
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
        versions.annotate(visit.caller, workflow.slug, number, body.model_dump())
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
