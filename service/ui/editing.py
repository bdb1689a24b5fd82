"""Editor of a draft as text. Typed text is never lost, and never overwrites a state its author has not seen.

The form carries the state that its author has seen: the draft's commit (`etag`, empty if none was open) and
the version that it builds on (`base`). If either has changed, nothing is saved: the page merges both changes
(`conflicts.py`), with the commit from which the author began (`began`).

The editor autosaves unsaved text and its message, for its author alone, on any of their devices. It is not in
Git, and has no event. For the editor's script:

    PUT /ui/workflows/<slug>/autosave         store; the fields are those of the editor's form, url-encoded
        csrf (or the header X-CSRF-Token), definition, message, began, etag, base
    -> 200 {"saved_at": "2026-01-31T12:00:00.000Z", "began", "etag", "base", "conflict": null}
    -> 401, 403, 404, 413 (the text or the message is too large), 409 limit_reached: problem pages

    GET /ui/workflows/<slug>/autosave         the newest first; [] without any
    -> 200 {"autosaves": [{"definition", "message", "began", "etag", "base", "saved_at", "conflict"}]}

    DELETE /ui/workflows/<slug>/autosave?began=<commit>     discard; with the header X-CSRF-Token
    -> 204

    POST /ui/workflows/<slug>/keep            store, for the form of a browser without scripts
    -> 303 to the editor

`began` is the commit whose text the editor showed first, `etag` the draft's commit, or "" if no draft was
open, and `base` the latest version; all three are hidden fields of the form. Each `began` has a row.

Saving deletes the row: the form of the editor sends `began`. After ten idle minutes the worker saves the row
as a commit. The next PUT then answers with that commit as `began` and `etag`; the editor keeps both in its
form. `conflict` gives the reason why it did not: the draft or the latest version has changed since `began`,
for example. The row stays, and saving shows the conflict. Rows are deleted after 30 days.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from flask import Response, jsonify, request

from gitstore.definition import document, kinds
from gitstore.definition.quoting import clip
from gitstore.drafts import Content
from gitstore.errors import ConflictError, GitstoreError, MalformedError
from gitstore.model import Permission, Problems, WorkflowState
from gitstore.repository import Repository
from service import assets, errors, lookup
from service.actions import autosaves, drafts
from service.actions.workflows import raw_content, validate
from service.caller import Caller
from service.context import request_id
from service.ui.conflicts import Typed, commit_in, conflict_page
from service.ui.rendering import blueprint
from service.ui.visits import Visit, enter, field, go
from sync.autosaves import Autosave


@dataclass(frozen=True, slots=True)
class Start:
    """Initial state of an editor: `source` describes the commit `began`, whose text it is, for the user."""

    text: str
    etag: str
    base: int
    source: str
    lossless: bool = True
    began: str = ""


@blueprint.get("/ui/workflows/<slug>/edit")
def edit(slug: str) -> Response:
    visit = enter(Permission.EDIT, f"editing {clip(slug)}")
    caller, slug = visit.caller, lookup.slug_of(visit.caller, slug)
    with caller.opened() as repository:
        lookup.existing(repository, slug)
        base, state = drafts.base_of(repository, slug)
        lookup.admit(caller, slug, state.latest + 1 if state.draft_open else state.current or state.latest)
        began, source = _commit_to_edit(repository, state)
        file = drafts.file_in(repository, slug, began)
        text = file.raw.decode(errors="replace")
        etag = state.draft if state.draft_open and state.draft else ""
        start = Start(text, etag, base, source, lossless=text.encode() == file.raw, began=began)
        unsaved = [row for row in autosaves.own(caller, slug) if row.definition != text or row.message]
        resumed = next((row for row in unsaved if row.base_commit == request.args.get("unsaved")), None)
        if resumed is not None:
            etag = resumed.base_commit if resumed.on_draft else ""
            start = Start(
                resumed.definition,
                etag,
                resumed.base_version,
                "your unsaved changes",
                began=resumed.base_commit,
            )
            unsaved = []
        content = Content(raw=start.text.encode())
        problems = validate(repository, slug, content).problems if start.text else Problems()
    message = resumed.message if resumed else ""
    return _editor(
        visit, slug, start, problems, unsaved=unsaved, resumed=resumed is not None, message=message
    )


@blueprint.post("/ui/workflows/<slug>/unsaved")
def discard_unsaved(slug: str) -> Response:
    """Discard what the visitor typed after opening the commit of the form."""
    visit = enter(Permission.EDIT, f"editing {clip(slug)}")
    slug = lookup.slug_of(visit.caller, slug)
    autosaves.delete(visit.caller, slug, [commit_in(field("began"))])
    return go("edit", slug=slug)


@blueprint.post("/ui/workflows/<slug>/edit")
def save(slug: str) -> Response:
    """Save the text of the form; 412 or 409 with both texts if someone else saved first."""
    visit = enter(Permission.EDIT, f"saving the draft of {clip(slug)}")
    caller, slug = visit.caller, lookup.slug_of(visit.caller, slug)
    typed = _continued(caller, slug, Typed.of_form())
    text, etag, base = typed.text, typed.etag or field("etag"), typed.base
    with caller.opened() as repository:
        lookup.existing(repository, slug)
        began, _ = _commit_to_edit(repository, repository.state(slug))
        file = drafts.file_in(repository, slug, began)
    text = drafts.with_line_ends(text, file.raw)
    try:
        content = raw_content(text.encode(), caller.limits)
        message = field("message").strip()
        saved = drafts.save_edited(caller, slug, content, commit=etag, base=base, message=message)
    except ConflictError as error:
        if _for_script():
            return errors.problem(error, request_id())
        return conflict_page(visit, slug, replace(typed, text=text), error)
    except GitstoreError as error:
        if errors.STATUS[error.code] < 500 and _for_script():
            return errors.problem(error, request_id())
        return refused(visit, slug, replace(typed, text=text, etag=etag), error)
    autosaves.delete(caller, slug, {typed.began, commit_in(field("began")), commit_in(field("first"))})
    done = go("show_workflow", slug=slug, notice="saved")
    if _for_script():  # which follows itself, with the cookie of the notice
        done.status_code, done.mimetype = 200, "application/json"
        done.set_data(json.dumps({"location": done.location, "commit": saved.commit}))
    return done


def refused(visit: Visit, slug: str, typed: Typed, error: GitstoreError) -> Response:
    """Show the editor again with what was typed, and why it was refused. Raises an `error` of the server."""
    if errors.STATUS[error.code] >= 500:
        raise error
    start = Start(typed.text, typed.etag, typed.base, "your unsaved text", began=typed.began)
    return _editor(visit, slug, start, Problems.of(error.problems), error, message=typed.message)


def _continued(caller: Caller, slug: str, typed: Typed) -> Typed:
    """Return the form on top of the commit that the worker made of its text, if it has made one."""
    current = autosaves.current(caller, slug, typed.began) if typed.began else ""
    return typed if current == typed.began else replace(typed, began=current, etag=current)


@blueprint.post("/ui/workflows/<slug>/validate")
def check(slug: str) -> Response:
    """Return the problems of a text, for the editor's script, as POST /workflows/{id}/validate does."""
    visit = enter(Permission.READ, f"checking {clip(slug)}")
    content = raw_content(request.get_data(cache=False), visit.caller.limits)
    slug = lookup.slug_of(visit.caller, slug)
    with visit.caller.opened() as repository:
        lookup.existing(repository, slug)
        result = validate(repository, slug, content)
    return jsonify(valid=result.valid, digest=result.digest, **_listed(result.problems))


@blueprint.post("/ui/workflows/<slug>/edit/patch")
def patch(slug: str) -> Response:
    """Apply a JSON Patch of the canvas to its text, as POST …/versions/draft/edit does; nothing is saved."""
    visit = enter(Permission.EDIT, f"editing {clip(slug)}")
    slug = lookup.slug_of(visit.caller, slug)
    with visit.caller.opened() as repository:
        lookup.existing(repository, slug)
    try:
        body = document.parse_json(request.get_data(cache=False), visit.caller.services.config.limits)
        text, steps = (body.get("text"), body.get("patch")) if isinstance(body, dict) else (None, None)
        if not isinstance(text, str) or not isinstance(steps, list):
            raise MalformedError("send a JSON object with a text and a patch")
        edited = drafts.edited(visit.caller, slug, steps, text=text)
    except GitstoreError as error:
        if errors.STATUS[error.code] >= 500:
            raise
        return errors.problem(error, request_id())
    return jsonify(text=edited.raw.decode(), **_listed(edited.problems))


def _for_script() -> bool:
    """Return whether the editor's script asks, which shows a refusal without leaving the page."""
    return request.accept_mimetypes.best == "application/json"


def _editor(
    visit: Visit,
    slug: str,
    start: Start,
    problems: Problems,
    error: GitstoreError | None = None,
    *,
    message: str = "",
    unsaved: Sequence[Autosave] = (),
    resumed: bool = False,
) -> Response:
    """Show the editor; with `error`, with the submitted text and its problems.

    `unsaved` is what the visitor typed before, and may resume; `resumed`, whether `start` is such a text.
    """
    with visit.caller.reading() as tx:
        workflow = lookup.workflow(tx, visit.caller, slug)
    return visit.page(
        "edit.html",
        error,
        workflow=workflow,
        slug=slug,
        start=start,
        message=message,
        unsaved=unsaved,
        resumed=resumed,
        editor=assets.built("editor"),
        kinds=kinds.as_json(),
        nonce=secrets.token_urlsafe(16),
        **_listed(problems),
    )


def _listed(problems: Problems) -> dict[str, Any]:
    return {"problems": [errors.problem_json(one) for one in problems], "problems_total": problems.total}


def _commit_to_edit(repository: Repository, state: WorkflowState) -> tuple[str, str]:
    """Return the commit of the open draft, else of the current version, else of the latest; and its name."""
    if state.draft_open and state.draft:
        return state.draft, "the open draft"
    number = state.current or state.latest
    if not number:
        return state.draft or "", "the draft"
    which = "current" if state.current else "latest"
    return repository.version(state.slug, number).snapshot.commit, f"v{number}, the {which} version"


# Autosaves


@blueprint.put("/ui/workflows/<slug>/autosave")
def autosave(slug: str) -> Response:
    """Keep what the form holds."""
    visit = enter(Permission.EDIT, f"editing {clip(slug)}")
    return _answer(_start(_put(visit.caller, lookup.slug_of(visit.caller, slug), Typed.of_form())))


@blueprint.post("/ui/workflows/<slug>/keep")
def keep(slug: str) -> Response:
    """Keep what the form holds, for a browser without scripts; the editor goes on from it."""
    visit = enter(Permission.EDIT, f"editing {clip(slug)}")
    slug, typed = lookup.slug_of(visit.caller, slug), Typed.of_form()
    try:
        row = _put(visit.caller, slug, typed)
    except GitstoreError as error:
        return refused(visit, slug, typed, error)
    return go("edit", slug=slug, unsaved=row.base_commit, notice="kept-text")


def _put(caller: Caller, slug: str, typed: Typed) -> Autosave:
    return autosaves.put(
        caller,
        slug,
        began=typed.began,
        etag=typed.etag,
        base=typed.base,
        definition=typed.text,
        message=typed.message,
    )


@blueprint.get("/ui/workflows/<slug>/autosave")
def show_autosaves(slug: str) -> Response:
    """List what the visitor typed and did not save, the newest first."""
    visit = enter(Permission.EDIT, f"editing {clip(slug)}")
    rows = autosaves.own(visit.caller, lookup.slug_of(visit.caller, slug))
    texts = [{"definition": row.definition, "message": row.message, **_start(row)} for row in rows]
    return _answer({"autosaves": texts})


@blueprint.delete("/ui/workflows/<slug>/autosave")
def discard_autosave(slug: str) -> Response:
    visit = enter(Permission.EDIT, f"editing {clip(slug)}")
    began = commit_in(request.args.get("began", ""))
    autosaves.delete(visit.caller, lookup.slug_of(visit.caller, slug), [began])
    return Response(status=204)


def _start(row: Autosave) -> dict[str, Any]:
    return {
        "began": row.base_commit,
        "etag": row.base_commit if row.on_draft else "",
        "base": row.base_version,
        "saved_at": _time(row.saved_at),
        "conflict": row.conflict,
    }


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _answer(body: dict[str, Any]) -> Response:
    response = jsonify(body)
    response.headers["Cache-Control"] = "no-store"
    return response
