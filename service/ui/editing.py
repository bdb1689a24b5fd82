"""Editor of a draft as text. Typed text is never lost, and never overwrites a state its author has not seen.

The form carries the state that its author has seen: the draft's commit (`etag`, empty if none was open) and
the version that it builds on (`base`). If either has changed, nothing is saved: the page shows theirs, yours
and the difference, and accepts the text once more, on top of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flask import Response, jsonify, request

from gitstore.definition.quoting import clip
from gitstore.drafts import Content, File
from gitstore.errors import ConflictError, GitstoreError
from gitstore.model import Permission, Problems, WorkflowState
from gitstore.names import parse_number
from gitstore.repository import Repository
from service import errors, lookup
from service.actions import drafts
from service.actions.drafts import base_of
from service.actions.workflows import raw_content, validate
from service.ui.rendering import blueprint
from service.ui.session import Visit, enter, field, go
from service.ui.texts import side_by_side


@dataclass(frozen=True, slots=True)
class Start:
    """Initial state of an editor: `source` describes its origin for the user."""

    text: str
    etag: str
    base: int
    source: str
    lossless: bool = True


@blueprint.get("/ui/workflows/<slug>/edit")
def edit(slug: str) -> Response:
    visit = enter(Permission.EDIT, f"editing {clip(slug)}")
    slug = _slug(visit, slug)
    with visit.caller.opened() as store:
        lookup.existing(store, slug)
        state = store.state(slug)
        lookup.admit(
            visit.caller, slug, state.latest + 1 if state.draft_open else state.current or state.latest
        )
        start = _start(store, slug)
        problems = (
            validate(store, slug, Content(raw=start.text.encode())).problems if start.text else Problems()
        )
    return visit.page(
        "edit.html",
        slug=slug,
        start=start,
        text=start.text,
        message="",
        **_listed(problems),
    )


@blueprint.post("/ui/workflows/<slug>/edit")
def save(slug: str) -> Response:
    """Save the text of the form; 412 or 409 with both texts if someone else saved first."""
    visit = enter(Permission.EDIT, f"saving the draft of {clip(slug)}")
    caller = visit.caller
    slug = _slug(visit, slug)
    with caller.opened() as store:
        lookup.existing(store, slug)
        text = _with_newlines_of(store, slug, field("definition"))
    base, message = parse_number(field("base")) or 0, field("message").strip()
    try:
        content = raw_content(text.encode(), caller.services.config.limits)
        drafts.save_edited(caller, slug, content, commit=field("etag"), base=base, message=message)
    except ConflictError as error:
        with caller.opened() as store:
            return _conflict(visit, store, slug, text, error)
    except GitstoreError as error:
        if errors.STATUS[error.code] >= 500:
            raise
        return _again(visit, slug, text, error)
    return go("show_workflow", slug=slug, said="saved")


@blueprint.post("/ui/workflows/<slug>/validate")
def check(slug: str) -> Response:
    """Return the problems of a text, for the editor's script, as POST /workflows/{id}/validate does."""
    visit = enter(Permission.READ, f"checking {clip(slug)}")
    content = raw_content(request.get_data(cache=False), visit.caller.services.config.limits)
    slug = _slug(visit, slug)
    with visit.caller.opened() as store:
        found = validate(store, slug, content)
    return jsonify(valid=found.valid, digest=found.digest, **_listed(found.problems))


def _listed(problems: Problems) -> dict[str, Any]:
    return {"problems": [errors.problem_json(one) for one in problems], "problems_total": problems.total}


def _slug(visit: Visit, shown: str) -> str:
    with visit.caller.reading() as tx:
        return lookup.workflow(tx, visit.caller, shown).slug


def _start(store: Repository, slug: str) -> Start:
    """Return the open draft; without one, the current version, else the latest."""
    base, state = base_of(store, slug)
    file, source = _standing(store, state)
    text = file.raw.decode(errors="replace")
    etag = state.draft if state.draft_open and state.draft else ""
    return Start(text, etag, base, source, lossless=text.encode() == file.raw)


def _standing(store: Repository, state: WorkflowState) -> tuple[File, str]:
    """Return the file to edit, and its description."""
    if state.draft_open and state.draft:
        return _file(store, state.slug, state.draft.encode()), "the open draft"
    number = state.current or state.latest
    held = store.version(state.slug, number).snapshot.commit if number else state.draft
    words = f"v{number}, the version that runs" if state.current else f"v{number}, the latest version"
    return _file(store, state.slug, (held or "").encode()), words if number else "the draft"


def _file(store: Repository, slug: str, commit: bytes) -> File:
    name, blob, _ = store.locate(store.objects.commit(commit), slug)
    return File(name, store.objects.blob(blob))


def _with_newlines_of(store: Repository, slug: str, text: str) -> str:
    """Return `text` with the line ends of the text that it replaces: browsers send their own."""
    file, _ = _standing(store, store.state(slug))
    return text.replace("\n", "\r\n") if b"\r\n" in file.raw else text


def _conflict(visit: Visit, store: Repository, slug: str, text: str, error: GitstoreError) -> Response:
    """Show theirs, yours and the difference. The next save goes on top of theirs."""
    state = store.state(slug)
    stale_draft = state.draft_open and state.draft != field("etag")
    if stale_draft or not state.latest:
        theirs, words = _standing(store, state)
        who = store.snapshot(slug, state.draft or "").author.name if state.draft else ""
    else:
        version = store.version(slug, state.latest)
        theirs, words = _file(store, slug, version.snapshot.commit.encode()), f"v{state.latest}"
        who = version.published_by.name
    shown = theirs.raw.decode(errors="replace")
    etag = state.draft if state.draft_open and state.draft else ""
    return visit.page(
        "conflict.html",
        error,
        slug=slug,
        start=Start(shown, etag, state.latest, words),
        who=who,
        text=text,
        rows=side_by_side(shown, text),
        message=field("message"),
    )


def _again(visit: Visit, slug: str, text: str, error: GitstoreError) -> Response:
    """Show the editor with the submitted text and its errors."""
    start = Start(text, field("etag"), parse_number(field("base")) or 0, "your text, not saved yet")
    return visit.page(
        "edit.html",
        error,
        slug=slug,
        start=start,
        text=text,
        message=field("message"),
        **_listed(Problems.of(error.problems)),
    )
