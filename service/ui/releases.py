"""Pages: releases of several workflows: list them, show one, make one from open drafts, roll one back."""

from __future__ import annotations

from typing import Any, Final

from flask import Response, request

from gitstore.definition.quoting import clip
from gitstore.environments import CURRENT, rulebook
from gitstore.errors import GitstoreError, MalformedError, ReleaseRefusedError
from gitstore.model import Permission
from gitstore.names import release, show, version_id
from gitstore.system import now
from gitstore.unit_of_work import MOST_WORKFLOWS
from service import lookup
from service.actions import releases as actions
from service.actions.releases import Choice
from service.ui.rendering import blueprint
from service.ui.visits import Visit, enter, field, go
from sync import catalog, listing, releases
from sync.listing import Wanted

PAGE: Final = 50


@blueprint.get("/ui/releases")
def list_releases() -> Response:
    visit = enter(Permission.READ, "listing releases")
    before = lookup.moment_in(request.args.get("cursor"))
    with visit.caller.reading() as tx:
        rows = releases.page(tx, visit.caller.project_id, before=before, limit=PAGE + 1)
    last = rows[PAGE - 1] if len(rows) > PAGE else None
    following = lookup.cursor_to(f"{last.released_at.isoformat()} {last.id}") if last else None
    return visit.page("releases.html", rows=rows[:PAGE], following=following)


@blueprint.get("/ui/new-release")
def new_release() -> Response:
    given = {"name": f"{now():%Y-%m-%d}", "message": "", "environment": CURRENT}
    return _new(enter(Permission.PUBLISH, "making a release"), given, chosen=None)


@blueprint.post("/ui/new-release")
def create_release() -> Response:
    """Release the drafts that the form chose, as they were shown; or only preview that."""
    visit = enter(Permission.PUBLISH, "making a release")
    given = {name: field(name).strip() for name in ("name", "message", "environment")}
    environment = given["environment"] or CURRENT
    choices, chosen = _choices()
    try:
        if not choices:
            raise MalformedError("choose at least one workflow")
        if field("check"):
            return _new(
                visit, given, chosen=chosen, preview=actions.preview(visit.caller, choices, environment)
            )
        made = actions.create(
            visit.caller, given["name"], choices, message=given["message"], environment=environment
        )
    except GitstoreError as error:
        return _new(visit, given, error, chosen=chosen)
    return go("show_release", name=made.name, notice="release-made")


def _choices() -> tuple[list[Choice], set[str]]:
    """Return the drafts that the form chose, each as "<slug> <commit>", and their slugs."""
    parts = [each.partition(" ") for each in request.form.getlist("item")[: MOST_WORKFLOWS + 1]]
    return [Choice(slug, draft=commit or "-") for slug, _, commit in parts], {slug for slug, _, _ in parts}


def _new(
    visit: Visit,
    given: dict[str, str],
    error: GitstoreError | None = None,
    *,
    chosen: set[str] | None,
    preview: actions.Preview | None = None,
) -> Response:
    """Show the workflows with open drafts to choose from; without `chosen`, the valid ones are chosen."""
    caller = visit.caller
    with caller.reading() as tx:
        wanted = Wanted(only="draft", sort="name")
        rows, more = listing.workflows(tx, caller.project_id, wanted, after=None, limit=MOST_WORKFLOWS)
        ids = {row.id: version_id(row.id, row.draft_number or 0) for row in rows}
        drafts = catalog.versions(tx, ids.values())
    with caller.opened(shown=True) as repository:
        rules = rulebook(repository).rules
    refusals: dict[str, Any] = dict(preview.refusals) if preview is not None else {}
    if isinstance(error, ReleaseRefusedError):
        refusals = dict(error.refusals)
    return visit.page(
        "new_release.html",
        error,
        given=given,
        rows=[(row, drafts[ids[row.id]]) for row in rows if ids[row.id] in drafts],
        chosen=chosen,
        changes={item.slug: changes for item, changes in preview.items} if preview is not None else None,
        refusals=refusals,
        environments=[CURRENT, *(rule.name for rule in rules)],
        more=more is not None,
    )


@blueprint.get("/ui/releases/<name>")
def show_release(name: str) -> Response:
    visit = enter(Permission.READ, f"reading the release {clip(name)}")
    row, items = lookup.release(visit.caller, name)
    return visit.page("release.html", row=row, items=items, ref=show(release(row.name)))


@blueprint.get("/ui/releases/<name>/roll-back")
def ask_roll_back_release(name: str) -> Response:
    return _ask(enter(Permission.PUBLISH, f"rolling back {clip(name)}"), name)


@blueprint.post("/ui/releases/<name>/roll-back")
def roll_back_release(name: str) -> Response:
    """Return the workflows to what was current before; those that have moved since only if that is ticked."""
    visit = enter(Permission.PUBLISH, f"rolling back {clip(name)}")
    try:
        actions.roll_back(visit.caller, name, message=field("message").strip(), force=bool(field("force")))
    except ReleaseRefusedError as error:
        return _ask(visit, name, error)
    return go("show_release", name=name, notice="release-returned")


def _ask(visit: Visit, name: str, error: GitstoreError | None = None) -> Response:
    row, items = lookup.release(visit.caller, name)
    moved = [item for item in items if item.now_number not in (item.version_number, item.before_number)]
    return visit.page("release_rollback.html", error, row=row, items=items, moved=moved)
