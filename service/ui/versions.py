"""Pages of the history and of one version."""

from __future__ import annotations

from typing import Final, cast

from flask import Response, current_app, request

from gitstore.definition.quoting import clip
from gitstore.errors import Code, NotFoundError
from gitstore.model import Permission
from service import lookup
from service.ui.summaries import FIRST, Summaries
from service.ui.version_view import file_of, seen, text_of
from service.ui.visit import enter
from sync import catalog
from sync.catalog import FullVersion, Workflow
from sync.db import Transaction

PAGE: Final = 25
EXTENSION: Final = "gitstore.summaries"


def show_history(slug: str) -> Response:
    """Show the history, newest first. `compare` is a version selected for comparison with another one."""
    visit = enter(Permission.READ, f"reading {clip(slug)}")
    caller, before = visit.caller, lookup.number_in(request.args.get("cursor"))
    chosen = request.args.get("compare")
    if chosen is not None:
        lookup.which(chosen)
    with caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, slug)
        page = catalog.history(tx, workflow.id, before=before, limit=PAGE)
        rows = list(page.rows)
        older = catalog.history(tx, workflow.id, before=rows[-1].version_number, limit=1).rows if rows else []
        summaries = cast(Summaries, current_app.extensions[EXTENSION])
        said = summaries.of(tx, [*rows, *older], caller.rules)
    if rows and not older:
        said[rows[-1].version_number] = FIRST
    following = lookup.cursor_to(page.next) if page.next is not None else None
    return visit.page(
        "history.html",
        workflow=workflow,
        rows=[(row, said.get(row.version_number)) for row in rows],
        first=rows[-1].version_number if rows and not older else None,
        following=following,
        chosen=chosen,
    )


def show_version(slug: str, version: str) -> Response:
    visit = enter(Permission.READ, f"reading {clip(slug)}")
    caller = visit.caller
    with caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, slug)
        row = find(tx, workflow, version)
        neighbours = catalog.history(tx, workflow.id, state="published", before=row.version_number, limit=1)
        before = neighbours.rows[0] if neighbours.rows else None
    lookup.admit(caller, workflow.slug, row.version_number, before.version_number if before else None)
    with caller.reading() as tx:
        summaries = cast(Summaries, current_app.extensions[EXTENSION])
        change = summaries.of(tx, [row, before], caller.rules) if before else {}
    with caller.opened() as store, lookup.reading_definition(row):
        shown = seen(store, row, caller.rules, "n", judged=not row.valid or row.state == "draft")
        text = text_of(store, row)
    return visit.page(
        "version.html",
        workflow=workflow,
        version=row,
        before=before,
        change=change.get(row.version_number, None if before else FIRST),
        shown=shown,
        text=text,
    )


def download(slug: str, version: str) -> Response:
    """Return the stored bytes, secrets included: a reader may read them over the API, too."""
    visit = enter(Permission.READ, f"reading {clip(slug)}")
    caller = visit.caller
    with caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, slug)
        row = find(tx, workflow, version)
    with caller.opened() as store, lookup.reading_definition(row):
        raw = file_of(store, row).raw
    shown = "draft" if row.state == "draft" else f"v{row.version_number}"
    name = f"{workflow.slug}-{shown}.{row.file_name.rpartition('.')[2]}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "private, no-cache"}
    return Response(raw, headers=headers, content_type="text/plain; charset=utf-8")


def find(tx: Transaction, workflow: Workflow, shown: str) -> FullVersion:
    """Return the version that a URL names; raises `version_not_found` or `not_published`."""
    wanted = lookup.which(shown)
    row = catalog.full_version(tx, workflow.id, wanted)
    if row is None:
        raise lookup.no_version(workflow.slug, wanted)
    return row


def find_published(tx: Transaction, workflow: Workflow, shown: str) -> FullVersion:
    """As `find`, but not the draft."""
    row = find(tx, workflow, shown)
    if row.state == "lost":
        raise NotFoundError(
            Code.VERSION_NOT_FOUND, f"v{row.version_number} is lost: ask an operator for gitstore repair"
        )
    if row.state != "published":
        raise NotFoundError(Code.VERSION_NOT_FOUND, "a published version is needed here, not the draft")
    return row
