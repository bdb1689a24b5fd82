"""Rollback: revert the draft to a version, or make a version current. Both ask first, and name versions."""

from __future__ import annotations

from flask import Response, request

from gitstore.definition.quoting import clip
from gitstore.diff.summary import summary_of
from gitstore.errors import Code, GitstoreError, NotFoundError, StaleDraftError
from gitstore.model import Permission, Rules
from gitstore.names import parse_number
from service import lookup
from service.actions import drafts, versions
from service.ui.rendering import blueprint
from service.ui.session import Visit, enter, field, go
from service.ui.versions import find_published
from sync import catalog
from sync.catalog import FullVersion, Workflow
from sync.db import Transaction

_CHOICES = 12


@blueprint.get("/ui/workflows/<slug>/versions/<version>/revert")
def ask_revert(slug: str, version: str) -> Response:
    return _ask_revert(enter(Permission.EDIT, f"reverting {clip(slug)}"), slug, version)


@blueprint.post("/ui/workflows/<slug>/versions/<version>/revert")
def revert(slug: str, version: str) -> Response:
    """Set the draft to the version's content. The live workflow is unchanged."""
    visit = enter(Permission.EDIT, f"reverting {clip(slug)}")
    caller = visit.caller
    with caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, slug)
        number = find_published(tx, workflow, version).version_number
    try:
        seen = {commit} if (commit := field("etag")) else None
        drafts.revert(caller, workflow.slug, number, expected=seen, message=field("message").strip())
    except StaleDraftError as error:
        return _ask_revert(visit, slug, str(number), error)
    return go("show_workflow", slug=workflow.slug, said="reverted")


def _ask_revert(visit: Visit, slug: str, version: str, error: GitstoreError | None = None) -> Response:
    caller = visit.caller
    with caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, slug)
        row = find_published(tx, workflow, version)
        draft = catalog.full_version(tx, workflow.id, "draft")
        base = draft or catalog.full_version(tx, workflow.id, "latest")
    lookup.admit(caller, workflow.slug, row.version_number, base.version_number if base else None)
    with caller.opened() as store:
        head = lookup.draft_of(store, workflow.slug)
    return visit.page(
        "revert.html",
        error,
        workflow=workflow,
        version=row,
        draft=draft,
        # The row may lag by a moment; the form expects the state that the user has seen.
        etag=draft.commit_sha if draft else head,
        change=_change(base, row, caller.rules),
    )


@blueprint.get("/ui/workflows/<slug>/roll-back")
def roll_back(slug: str) -> Response:
    """Confirmation page for rolling back to the previous version: two clicks from the first page."""
    visit = enter(Permission.PUBLISH, f"moving current of {clip(slug)}")
    with visit.caller.reading() as tx:
        workflow = lookup.workflow(tx, visit.caller, slug)
        before = workflow.current_number if workflow.current_number is not None else None
        rows = catalog.history(tx, workflow.id, state="published", before=before, limit=1).rows
    if not rows:
        raise NotFoundError(Code.VERSION_NOT_FOUND, f"{workflow.slug} has no earlier version to go back to")
    return _ask_current(visit, slug, str(rows[0].version_number))


@blueprint.get("/ui/workflows/<slug>/versions/<version>/current")
def ask_current(slug: str, version: str) -> Response:
    return _ask_current(enter(Permission.PUBLISH, f"moving current of {clip(slug)}"), slug, version)


@blueprint.post("/ui/workflows/<slug>/versions/<version>/current")
def make_current(slug: str, version: str) -> Response:
    """Make the version current, unless the current version has changed since the page was shown."""
    visit = enter(Permission.PUBLISH, f"moving current of {clip(slug)}")
    caller = visit.caller
    with caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, slug)
        number = find_published(tx, workflow, version).version_number
    hold, seen = bool(field("hold")), parse_number(field("seen"))
    try:
        versions.move_current(
            caller, workflow.slug, number, message=field("message").strip(), hold=hold, expected=seen
        )
    except StaleDraftError as error:
        return _ask_current(visit, slug, str(number), error)
    return go("show_workflow", slug=workflow.slug, said="held" if hold else "moved")


def _ask_current(visit: Visit, slug: str, version: str, error: GitstoreError | None = None) -> Response:
    caller = visit.caller
    with caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, slug)
        row = find_published(tx, workflow, version)
        current = catalog.full_version(tx, workflow.id, "current")
        others = _others(tx, workflow, row)
    lookup.admit(caller, workflow.slug, row.version_number, workflow.current_number)
    return visit.page(
        "make_current.html",
        error,
        workflow=workflow,
        version=row,
        current=current,
        others=others,
        change=_change(current, row, caller.rules),
        back=request.args.get("back"),
    )


def _others(tx: Transaction, workflow: Workflow, row: FullVersion) -> list[catalog.Version]:
    """Return the newest versions as alternatives."""
    found = catalog.history(tx, workflow.id, state="published", limit=_CHOICES).rows
    return [each for each in found if not each.is_current and each.id != row.id]


def _change(old: FullVersion | None, new: FullVersion, rules: str) -> str | None:
    if old is None or old.definition is None or new.definition is None:
        return None
    return summary_of(old.definition, new.definition, Rules(rules))
