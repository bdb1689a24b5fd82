"""Pages: the list of workflows, a new one, and a workflow with its draft: publish, discard."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any, Final

from flask import Response, jsonify, request

from gitstore.definition.quoting import clip
from gitstore.diff.structure import diff
from gitstore.drafts import Content
from gitstore.errors import (
    GitstoreError,
    IntegrityError,
    InvalidDefinitionError,
    MalformedError,
    NotFoundError,
    StaleDraftError,
    TooLargeError,
)
from gitstore.model import Permission, Rules
from gitstore.names import show, superseded_at, superseded_of, version_id
from gitstore.repository import Repository
from gitstore.states import yank_of
from service import activity, errors, lookup
from service.actions import drafts, versions
from service.actions import schedules as schedule_actions
from service.actions import workflows as actions
from service.actions.drafts import DiscardedDraft
from service.activity import Change
from service.caller import Caller
from service.inputs import CreateWorkflow, validated
from service.ui.conflicts import commit_in, moved
from service.ui.graph import Graph, draw_difference
from service.ui.rendering import ago, blueprint, person, url
from service.ui.versions import VersionView, change_between, view_of
from service.ui.visits import Visit, enter, field, go, later, seen_draft, upload
from sync import autosaves, catalog, environments, listing, schedules
from sync.catalog import FullVersion
from sync.listing import FILTERS

PAGE: Final = 50
_RECENT: Final = 5
_SCHEDULES: Final = 20
_ARCHIVED: Final = "archived"
_SORTS: Final[tuple[listing.Sort, ...]] = ("updated", "name", "published")


@blueprint.get("/ui/workflows")
def list_workflows() -> Response:
    visit = enter(Permission.READ, "listing workflows")
    caller, q = visit.caller, request.args.get("q", "").strip()[:200]
    only, sort = (
        _chosen(name, choices) for name, choices in (("filter", (*FILTERS, _ARCHIVED)), ("sort", _SORTS))
    )
    wanted = lookup.listed(
        caller,
        q,
        only if only in FILTERS else None,
        sort or _SORTS[0],  # type: ignore[arg-type] # one of the choices
        "only" if only == _ARCHIVED else "false",
    )
    after = lookup.place_in(request.args.get("cursor"), wanted.parse_place)
    with caller.reading() as tx:
        page, place = listing.workflows(tx, caller.project_id, wanted, after=after, limit=PAGE)
        is_only = after is None and place is None
        total = listing.count(tx, caller.project_id, wanted, page if is_only else None)
        newest = {row.id: version_id(row.id, row.draft_number or row.latest_number) for row in page}
        known = catalog.versions(tx, newest.values())
    return visit.page(
        "workflows.html",
        rows=[(row, known.get(newest[row.id])) for row in page],
        q=q,
        only=only,
        sort=wanted.sort,
        sorts=_SORTS,
        total=total,
        following=lookup.cursor_to(place) if place is not None else None,
    )


def _chosen(name: str, choices: Collection[str]) -> str | None:
    """Return a parameter of the query, or None for one that is not among `choices`."""
    given = request.args.get(name)
    return given if given in choices else None


@dataclass(frozen=True, slots=True)
class Starter:
    """A definition to start from. Its first line is a comment: its title, and what it does."""

    name: str
    title: str
    text: str
    raw: bytes


@cache
def starters() -> dict[str, Starter]:
    """Return the definitions to start from, by name."""
    known = {}
    for file in sorted((files("service") / "starters").iterdir(), key=lambda file: file.name):
        raw, name = file.read_bytes(), file.name.partition(".")[0]
        title, _, text = raw.decode().partition("\n")[0].removeprefix("# ").partition(": ")
        known[name] = Starter(name, title.removesuffix("."), text, raw)
    return known


@blueprint.get("/ui/new-workflow")
def new_workflow() -> Response:
    return _new(enter(Permission.EDIT, "creating a workflow"), {})


@blueprint.post("/ui/new-workflow")
def create_workflow() -> Response:
    """Create a workflow from a file, a starter or nothing; without a slug, with one made from the name."""
    visit = enter(Permission.EDIT, "creating a workflow")
    caller = visit.caller
    given = {name: field(name).strip() for name in ("slug", "name", "description", "starter")}
    try:
        slug = given["slug"] or (actions.free_slug(caller, given["name"]) if given["name"] else "")
        fields = {"slug": slug, **{key: given[key] for key in ("name", "description") if given[key]}}
        body = validated(CreateWorkflow, fields)
        content = _content(caller, given["starter"])
        actions.create(caller, body.slug, content, name=body.name, description=body.description or "")
    except GitstoreError as error:
        return _new(visit, given, error)
    return go("edit", slug=body.slug, notice="created")


def _content(caller: Caller, starter: str) -> Content | None:
    """Return the uploaded file, or else the starter of that name; None without either."""
    limits = caller.services.config.limits
    if raw := upload(limits.definition):
        return actions.raw_content(raw, limits)
    known = starters().get(starter)
    return actions.raw_content(known.raw, limits) if known else None


def _new(visit: Visit, given: dict[str, str], error: GitstoreError | None = None) -> Response:
    meshhook = visit.caller.rules is Rules.MESHHOOK
    return visit.page(
        "new_workflow.html", error, given=given, starters=starters().values() if meshhook else ()
    )


@blueprint.get("/ui/workflows/<slug>")
def show_workflow(slug: str) -> Response:
    return workflow_page(enter(Permission.READ, f"reading {clip(slug)}"), slug)


def workflow_page(visit: Visit, slug: str, error: GitstoreError | None = None) -> Response:
    """Show the workflow as it is; `error` is the reason why the requested action failed.

    A refused form keeps what was typed and chosen in it. If someone else saved the draft that it was about,
    the page and the button name the author of the draft that would now be published.
    """
    caller = visit.caller
    seen = commit_in(field("etag")) if isinstance(error, StaleDraftError) else ""
    with caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, slug)
        draft = catalog.full_version(tx, workflow.id, "draft")
        current = catalog.full_version(tx, workflow.id, "current")
        latest = current
        if workflow.latest_number and (current is None or current.version_number != workflow.latest_number):
            latest = catalog.full_version(tx, workflow.id, "latest")
        recent = catalog.history(tx, workflow.id, state="published", limit=_RECENT).rows
        pointers = environments.of_workflow(tx, workflow.id)
        unsaved = autosaves.own(tx, workflow.id, caller.principal.id) if visit.edits else []
        scheduled = schedules.page(tx, caller.project_id, workflow=workflow.id, limit=_SCHEDULES)
    shown = (workflow.draft_number, workflow.current_number, workflow.latest_number)
    lookup.admit(caller, workflow.slug, *set(shown))
    rules = caller.rules
    with caller.opened() as repository:
        draft_view = view_of(repository, draft, judged=True) if draft else None
        current_view = view_of(repository, current, judged=False) if current else None
        together = _drawn_together(draft_view, current, rules)
        if together is None:
            draft_view = draft_view and draft_view.drawn(rules, "d").with_text(repository)
            current_view = current_view and current_view.drawn(rules, "c").with_text(repository)
        behind = draft is not None and _is_behind(repository, workflow.slug)
        discarded = None if draft else _discarded(repository, workflow.slug, latest)
        yank = (
            yank_of(repository, workflow.slug, current.version_number) if current and current.yanked else None
        )
        since = moved(repository, workflow.slug, seen) if seen else None
    small = draft_view is not None and current_view is not None and draft_view.narrow and current_view.narrow
    if draft_view and current_view and small:
        draft_view, current_view = draft_view.beside(), current_view.beside()
    return visit.page(
        "workflow.html",
        error,
        workflow=workflow,
        recent=recent,
        pointers=pointers,
        yanked=yank,
        unsaved=unsaved,
        scheduled=scheduled,
        at=field("at"),
        change=change_between(current or latest, draft, rules),
        against=current or latest,
        small=small,
        draft=draft_view,
        current=current_view,
        together=together,
        behind=behind,
        discarded=discarded,
        moved=since,
        note=field("message"),
        activate=bool(field("activate")) or "message" not in request.form,
    )


@blueprint.get("/ui/workflows/<slug>/changes")
def show_changes(slug: str) -> Response:
    """Answer what changed since the token `since`, for the page's script; 304 for the price of one row."""
    visit = enter(Permission.READ, f"reading {clip(slug)}", by_itself=True)
    caller = visit.caller
    row = lookup.workflow(caller.reading_once(), caller, slug)
    now, seen = activity.SeenState.of(row), activity.SeenState.parse(request.args.get("since"))
    if seen == now:
        return Response(status=304, headers={"ETag": f'"{now}"', "Cache-Control": "private, no-cache"})
    found = activity.changes_since(caller, row, seen) if seen is not None else []
    you = visit.principal.name
    listed = [{"text": change.described_to(you), **_where(row, change)} for change in found]
    response = jsonify(token=str(now), changes=listed)
    response.headers.update({"ETag": f'"{now}"', "Cache-Control": "private, no-cache"})
    return response


def _where(row: catalog.Workflow, change: Change) -> dict[str, str]:
    """Return the link to a change: its label and its URL."""
    if change.kind == "draft_saved" and row.latest_number:
        return {"link": "View the change", "url": url("show_difference", slug=row.slug, to="draft")}
    if change.kind == "published" and change.version:
        return {
            "link": f"View v{change.version}",
            "url": url("show_version", slug=row.slug, version=change.version),
        }
    return {"link": "View", "url": url("show_workflow", slug=row.slug)}


@blueprint.post("/ui/workflows/<slug>/publish")
def publish(slug: str) -> Response:
    visit = enter(Permission.PUBLISH, f"publishing {clip(slug)}")
    slug = lookup.slug_of(visit.caller, slug)
    given: dict[str, Any] = {"message": field("message").strip(), "activate": bool(field("activate"))}
    try:
        if (at := later()) is not None:
            schedule_actions.publish(visit.caller, slug, at, **given, expected=seen_draft())
            return go("show_workflow", slug=slug, notice="scheduled")
        published = versions.publish(visit.caller, slug, **given, expected=seen_draft())
    except GitstoreError as error:
        return _refused(visit, slug, error)
    about = {"version": published.number, "current": published.version.is_current}
    return go("show_workflow", slug=slug, notice="published" if published.new else "same", about=about)


@blueprint.post("/ui/workflows/<slug>/cancel-schedule")
def cancel_schedule(slug: str) -> Response:
    visit = enter(Permission.EDIT, f"cancelling a schedule of {clip(slug)}")
    slug = lookup.slug_of(visit.caller, slug)
    try:
        schedule_actions.cancel(visit.caller, field("schedule"))
    except GitstoreError as error:
        return _refused(visit, slug, error)
    return go("show_workflow", slug=slug, notice="schedule-cancelled")


@blueprint.get("/ui/workflows/<slug>/discard")
def ask_discard(slug: str) -> Response:
    visit = enter(Permission.EDIT, f"discarding the draft of {clip(slug)}")
    with visit.caller.reading() as tx:
        workflow = lookup.workflow(tx, visit.caller, slug)
        draft = catalog.version(tx, workflow.id, "draft")
    if draft is None:
        raise lookup.no_draft(workflow.slug)
    author, saved = person(draft.published_by or draft.author_name), ago(draft.created_at)
    current = f"v{workflow.current_number} stays current. " if workflow.current_number else ""
    return visit.page(
        "ask.html",
        question="Discard the draft?",
        text=f"{current}Git keeps it under {show(superseded_of(workflow.slug))}, and it can be restored.",
        about=f"{workflow.slug}: draft of {author}, saved {saved}",
        action=("discard", {"slug": workflow.slug}),
        to=("show_workflow", {"slug": workflow.slug}),
        fields={"etag": draft.commit_sha},
    )


@blueprint.post("/ui/workflows/<slug>/discard")
def discard(slug: str) -> Response:
    visit = enter(Permission.EDIT, f"discarding the draft of {clip(slug)}")
    slug = lookup.slug_of(visit.caller, slug)
    try:
        drafts.discard(visit.caller, slug, expected=seen_draft())
    except GitstoreError as error:
        return _refused(visit, slug, error)
    if _exists(visit, slug):
        return go("show_workflow", slug=slug, notice="discarded")
    return go("list_workflows", notice="discarded")


@blueprint.post("/ui/workflows/<slug>/restore")
def restore(slug: str) -> Response:
    """Reopen the discarded draft that the page showed."""
    visit = enter(Permission.EDIT, f"restoring the draft of {clip(slug)}")
    slug = lookup.slug_of(visit.caller, slug)
    try:
        drafts.restore(visit.caller, slug, at=_discarded_at())
    except GitstoreError as error:
        return _refused(visit, slug, error)
    return go("show_workflow", slug=slug, notice="restored")


def _discarded_at() -> datetime:
    """Return the time at which the form's draft was discarded."""
    at = superseded_at(field("ref").encode())
    if at is None:
        raise MalformedError("the form does not name a discarded draft: reload the page")
    return at


def _discarded(repository: Repository, slug: str, latest: FullVersion | None) -> DiscardedDraft | None:
    """Return the last discarded draft, unless a version was published from it or since then."""
    discarded = next(iter(drafts.discarded(repository, slug, 1)), None)
    if discarded is None:
        return None
    if latest is not None and (
        repository.objects.is_ancestor(discarded.commit.encode(), latest.commit_sha.encode())
        or (latest.published_at is not None and latest.published_at > discarded.at)
    ):
        return None
    return discarded


def _drawn_together(draft: VersionView | None, current: FullVersion | None, rules: Rules) -> Graph | None:
    """Return the draft against the current version in one drawing.

    None if one of them is missing or not a graph, or if the draft has errors, which its own graph marks.
    """
    if draft is None or current is None or rules is not Rules.MESHHOOK or draft.problems.errors:
        return None
    before, after = current.definition, draft.version.definition
    if not isinstance(before, dict) or not isinstance(after, dict):
        return None
    with suppress(InvalidDefinitionError, TooLargeError):
        return draw_difference(before, after, diff(before, after, rules))
    return None


def _exists(visit: Visit, slug: str) -> bool:
    """Return whether the workflow exists: discarding its draft removes one that was never published."""
    try:
        with visit.caller.reading() as tx:
            lookup.workflow(tx, visit.caller, slug)
    except GitstoreError:
        return False
    return True


def _refused(visit: Visit, slug: str, error: GitstoreError) -> Response:
    """Show the workflow as it is now, with the error; if it does not exist, raise the error alone."""
    if isinstance(error, NotFoundError | IntegrityError) or errors.STATUS[error.code] >= 500:
        raise error
    return workflow_page(visit, slug, error)


def _is_behind(repository: Repository, slug: str) -> bool:
    """Return whether a version was published that the open draft does not build on."""
    return drafts.base_of(repository, slug)[0] != repository.state(slug).latest
