"""Page of a workflow's settings: name, slug, what runs, discarded drafts; archive it, or delete it."""

from __future__ import annotations

from flask import Response

from gitstore.definition.quoting import clip
from gitstore.errors import ConflictError, GitstoreError, MalformedError, RenamedError, StaleDraftError
from gitstore.model import Permission
from gitstore.names import parse_number
from service import lookup
from service.actions import drafts, versions
from service.actions import workflows as actions
from service.inputs import UpdateWorkflow, validated
from service.ui.rendering import blueprint
from service.ui.visits import Visit, enter, field, go

_MOST_DISCARDED = 20


@blueprint.get("/ui/workflows/<slug>/settings")
def show_settings(slug: str) -> Response:
    return _page(enter(Permission.EDIT, f"changing {clip(slug)}"), slug)


@blueprint.post("/ui/workflows/<slug>/settings")
def describe_workflow(slug: str) -> Response:
    """Change the name and the description; an empty one is that of the definition again."""
    visit = enter(Permission.EDIT, f"describing {clip(slug)}")
    with visit.caller.reading() as tx:
        workflow = lookup.workflow(tx, visit.caller, slug)
    given = {name: field(name).strip() for name in ("name", "description")}
    changed = {name: text or None for name, text in given.items() if text != getattr(workflow, name)}
    try:
        body = validated(UpdateWorkflow, changed)
        if changed:
            actions.describe(visit.caller, workflow.slug, body.model_dump(include=body.model_fields_set))
    except GitstoreError as error:
        return _page(visit, workflow.slug, error, given)
    return go("show_settings", slug=workflow.slug, notice="changed")


@blueprint.post("/ui/workflows/<slug>/rename")
def rename_workflow(slug: str) -> Response:
    """Give the workflow another slug; links with the former one lead to the new one."""
    visit = enter(Permission.PUBLISH, f"renaming {clip(slug)}")
    slug, new = lookup.slug_of(visit.caller, slug), field("new").strip()
    try:
        actions.rename(visit.caller, slug, new, message=field("message").strip())
    except RenamedError:
        raise
    except GitstoreError as error:
        return _page(visit, slug, error)
    return go("show_settings", slug=new, notice="renamed")


@blueprint.post("/ui/workflows/<slug>/hold")
def hold(slug: str) -> Response:
    """Hold the current version, or release it, unless it has changed since the page was shown."""
    visit = enter(Permission.PUBLISH, f"holding {clip(slug)}")
    slug, seen, held = lookup.slug_of(visit.caller, slug), parse_number(field("seen")), field("hold") == "yes"
    if seen is None:
        raise MalformedError("the form does not name the current version: reload the page")
    try:
        versions.move_current(
            visit.caller, slug, seen, hold=held, message=field("message").strip(), expected=seen
        )
    except StaleDraftError as error:
        return _page(visit, slug, error)
    return go("show_settings", slug=slug, notice="held" if held else "released", about={"version": seen})


@blueprint.get("/ui/workflows/<slug>/stop")
def ask_stop(slug: str) -> Response:
    visit = enter(Permission.PUBLISH, f"stopping {clip(slug)}")
    return _ask(visit, slug, "Stop", "stop", "No version is current until one is published or made current.")


@blueprint.post("/ui/workflows/<slug>/stop")
def stop(slug: str) -> Response:
    visit = enter(Permission.PUBLISH, f"stopping {clip(slug)}")
    slug = lookup.slug_of(visit.caller, slug)
    versions.clear_current(visit.caller, slug)
    return go("show_workflow", slug=slug, notice="stopped")


@blueprint.get("/ui/workflows/<slug>/archive")
def ask_archive(slug: str) -> Response:
    visit = enter(Permission.PUBLISH, f"archiving {clip(slug)}")
    text = (
        "Nothing of it runs, and it cannot be changed. Lists leave it out. Its draft, its versions and its "
        "slug are kept, and it can be taken out of the archive."
    )
    return _ask(visit, slug, "Archive", "archive", text, reason="optional")


@blueprint.post("/ui/workflows/<slug>/archive")
def archive(slug: str) -> Response:
    visit = enter(Permission.PUBLISH, f"archiving {clip(slug)}")
    slug = lookup.slug_of(visit.caller, slug)
    try:
        actions.archive(visit.caller, slug, reason=field("message").strip())
    except ConflictError as error:
        return _page(visit, slug, error)
    return go("show_workflow", slug=slug, notice="archived")


@blueprint.post("/ui/workflows/<slug>/unarchive")
def unarchive(slug: str) -> Response:
    visit = enter(Permission.PUBLISH, f"archiving {clip(slug)}")
    slug = lookup.slug_of(visit.caller, slug)
    actions.unarchive(visit.caller, slug)
    return go("show_workflow", slug=slug, notice="unarchived")


@blueprint.get("/ui/workflows/<slug>/delete")
def ask_delete(slug: str) -> Response:
    return _ask_delete(enter(Permission.PUBLISH, f"deleting {clip(slug)}"), slug)


@blueprint.post("/ui/workflows/<slug>/delete")
def delete_workflow(slug: str) -> Response:
    """Delete a workflow that was never published, if its slug was typed."""
    visit = enter(Permission.PUBLISH, f"deleting {clip(slug)}")
    slug = lookup.slug_of(visit.caller, slug)
    if field("typed").strip() != slug:
        return _ask_delete(visit, slug, MalformedError(f"type {slug} to confirm that it is deleted"))
    actions.delete(visit.caller, slug, reason=field("message").strip())
    return go("list_workflows", notice="workflow-deleted")


def _ask_delete(visit: Visit, slug: str, error: GitstoreError | None = None) -> Response:
    text = "It was never published. Lists leave it out, and its slug is free again. Git keeps its last draft."
    return _ask(visit, slug, "Delete", "delete_workflow", text, error, reason="optional", confirm=True)


def _ask(
    visit: Visit,
    slug: str,
    verb: str,
    action: str,
    text: str,
    error: GitstoreError | None = None,
    *,
    reason: str = "",
    confirm: bool = False,
) -> Response:
    """Ask before an action on the workflow; with `confirm`, its slug must be typed."""
    with visit.caller.reading() as tx:
        workflow = lookup.workflow(tx, visit.caller, slug)
    current = f", v{workflow.current_number} is current" if workflow.current_number else ""
    return visit.page(
        "ask.html",
        error,
        question=f"{verb} the workflow?",
        about=f"{workflow.name} ({workflow.slug}){current}",
        text=text,
        action=(action, {"slug": workflow.slug}),
        to=("show_settings", {"slug": workflow.slug}),
        reason=reason,
        typed=workflow.slug if confirm else "",
    )


def _page(
    visit: Visit, slug: str, error: GitstoreError | None = None, given: dict[str, str] | None = None
) -> Response:
    with visit.caller.reading() as tx:
        workflow = lookup.workflow(tx, visit.caller, slug)
    with visit.caller.opened(shown=True) as repository:
        discarded = drafts.discarded(repository, workflow.slug, _MOST_DISCARDED)
    values = given or {"name": workflow.name, "description": workflow.description}
    return visit.page("settings.html", error, workflow=workflow, given=values, discarded=discarded)
