"""What the editor autosaves: unsaved text and its message, for its author alone, on any of their devices.

It is not in Git, and has no event. For the editor's script:

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

from datetime import UTC, datetime
from typing import Any

from flask import Response, jsonify, request

from gitstore.definition.quoting import clip
from gitstore.errors import GitstoreError
from gitstore.model import Permission
from service import lookup
from service.actions import autosaves as actions
from service.caller import Caller
from service.ui.conflicts import Typed, commit_in
from service.ui.editing import refused
from service.ui.rendering import blueprint
from service.ui.visits import enter, go
from sync.autosaves import Autosave


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
    return actions.put(
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
    rows = actions.own(visit.caller, lookup.slug_of(visit.caller, slug))
    texts = [{"definition": row.definition, "message": row.message, **_start(row)} for row in rows]
    return _answer({"autosaves": texts})


@blueprint.delete("/ui/workflows/<slug>/autosave")
def discard_autosave(slug: str) -> Response:
    visit = enter(Permission.EDIT, f"editing {clip(slug)}")
    began = commit_in(request.args.get("began", ""))
    actions.delete(visit.caller, lookup.slug_of(visit.caller, slug), [began])
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
