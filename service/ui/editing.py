"""Editor of a draft as text. Typed text is never lost, and never overwrites a state its author has not seen.

The form carries the state that its author has seen: the draft's commit (`etag`, empty if none was open) and
the version that it builds on (`base`). If either has changed, nothing is saved: the page shows their version,
yours and the difference, and accepts your text once more, on top of theirs.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any

from flask import Response, jsonify, request

from gitstore.definition import document, kinds
from gitstore.definition.quoting import clip
from gitstore.drafts import Content, File
from gitstore.errors import ConflictError, GitstoreError, MalformedError
from gitstore.model import Permission, Problems, WorkflowState
from gitstore.names import parse_number
from gitstore.repository import Repository
from service import assets, errors, lookup
from service.actions import drafts
from service.actions.workflows import raw_content, validate
from service.context import request_id
from service.ui.rendering import blueprint
from service.ui.session import Visit, enter, field, go
from service.ui.texts import side_by_side


@dataclass(frozen=True, slots=True)
class Start:
    """Initial state of an editor: `source` describes the origin of `text` for the user."""

    text: str
    etag: str
    base: int
    source: str
    lossless: bool = True


@blueprint.get("/ui/workflows/<slug>/edit")
def edit(slug: str) -> Response:
    visit = enter(Permission.EDIT, f"editing {clip(slug)}")
    caller, slug = visit.caller, lookup.slug_of(visit.caller, slug)
    with caller.opened() as repository:
        lookup.existing(repository, slug)
        base, state = drafts.base_of(repository, slug)
        lookup.admit(caller, slug, state.latest + 1 if state.draft_open else state.current or state.latest)
        file, source = _file_to_edit(repository, state)
        text = file.raw.decode(errors="replace")
        start = Start(text, _etag(state), base, source, lossless=text.encode() == file.raw)
        content = Content(raw=text.encode())
        problems = validate(repository, slug, content).problems if text else Problems()
    return _editor(visit, slug, start, problems)


@blueprint.post("/ui/workflows/<slug>/edit")
def save(slug: str) -> Response:
    """Save the text of the form; 412 or 409 with both texts if someone else saved first."""
    visit = enter(Permission.EDIT, f"saving the draft of {clip(slug)}")
    caller, slug = visit.caller, lookup.slug_of(visit.caller, slug)
    text, etag, base = field("definition"), field("etag"), parse_number(field("base")) or 0
    with caller.opened() as repository:
        lookup.existing(repository, slug)
        file, _ = _file_to_edit(repository, repository.state(slug))
    if b"\r\n" in file.raw:  # browsers send line ends of their own
        text = text.replace("\n", "\r\n")
    try:
        content = raw_content(text.encode(), caller.limits)
        drafts.save_edited(caller, slug, content, commit=etag, base=base, message=field("message").strip())
    except ConflictError as error:
        if _for_script():
            return errors.problem(error, request_id())
        with caller.opened() as repository:
            return _conflict(visit, repository, slug, text, error)
    except GitstoreError as error:
        if errors.STATUS[error.code] >= 500:
            raise
        if _for_script():
            return errors.problem(error, request_id())
        start = Start(text, etag, base, "your unsaved text")
        return _editor(visit, slug, start, Problems.of(error.problems), error)
    done = go("show_workflow", slug=slug, notice="saved")
    if _for_script():  # which follows itself, with the cookie of the notice
        done.status_code, done.mimetype = 200, "application/json"
        done.set_data(json.dumps({"location": done.location}))
    return done


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
    visit: Visit, slug: str, start: Start, problems: Problems, error: GitstoreError | None = None
) -> Response:
    """Show the editor; with `error`, with the submitted text and its problems."""
    return visit.page(
        "edit.html",
        error,
        slug=slug,
        start=start,
        message=field("message"),
        editor=assets.built("editor"),
        kinds=kinds.as_json(),
        nonce=secrets.token_urlsafe(16),
        **_listed(problems),
    )


def _conflict(visit: Visit, repository: Repository, slug: str, text: str, error: GitstoreError) -> Response:
    """Show both texts and the difference. The next save goes on top of theirs."""
    state = repository.state(slug)
    if (state.draft_open and state.draft != field("etag")) or not state.latest:
        file, source = _file_to_edit(repository, state)
        author = repository.snapshot(slug, state.draft or "").author.name if state.draft else ""
    else:
        version = repository.version(slug, state.latest)
        file, source = _file(repository, slug, version.snapshot.commit), f"v{state.latest}"
        author = version.published_by.name
    theirs = file.raw.decode(errors="replace")
    return visit.page(
        "conflict.html",
        error,
        slug=slug,
        start=Start(theirs, _etag(state), state.latest, source),
        author=author,
        text=text,
        rows=side_by_side(theirs, text),
        message=field("message"),
    )


def _listed(problems: Problems) -> dict[str, Any]:
    return {"problems": [errors.problem_json(one) for one in problems], "problems_total": problems.total}


def _etag(state: WorkflowState) -> str:
    return state.draft if state.draft_open and state.draft else ""


def _file_to_edit(repository: Repository, state: WorkflowState) -> tuple[File, str]:
    """Return the file of the open draft, else of the current version, else of the latest; and its source."""
    if state.draft_open and state.draft:
        return _file(repository, state.slug, state.draft), "the open draft"
    number = state.current or state.latest
    if not number:
        return _file(repository, state.slug, state.draft or ""), "the draft"
    commit = repository.version(state.slug, number).snapshot.commit
    which = "current" if state.current else "latest"
    return _file(repository, state.slug, commit), f"v{number}, the {which} version"


def _file(repository: Repository, slug: str, commit: str) -> File:
    name, blob, _ = repository.locate(repository.objects.commit(commit.encode()), slug)
    return File(name, repository.objects.blob(blob))
