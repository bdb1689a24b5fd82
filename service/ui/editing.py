"""Editor of a draft as text. Typed text is never lost, and never overwrites a state its author has not seen.

The form carries the state that its author has seen: the draft's commit (`etag`, empty if none was open) and
the version that it builds on (`base`). If either has changed, nothing is saved: the page shows theirs, yours
and the difference, and accepts the text once more, on top of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass

from flask import Response, request

from gitstore.definition.quoting import clip
from gitstore.drafts import Content, File, Saved
from gitstore.errors import BaseMovedError, ConflictError, GitstoreError, StaleDraftError, too_large
from gitstore.model import Permission, Problems, WorkflowState
from gitstore.names import parse_number
from gitstore.repository import Repository
from gitstore.store import Store
from service import errors, lookup
from service.api.answers import answer
from service.api.workflows import validation
from service.logs import Event
from service.ui.texts import side_by_side
from service.ui.visit import Visit, enter, field, go
from service.ui.workflows import base_of


@dataclass(frozen=True, slots=True)
class Start:
    """Initial state of an editor: `source` describes its origin for the user."""

    text: str
    etag: str
    base: int
    source: str
    lossless: bool = True


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
        found = validation(store, slug, Content(raw=start.text.encode())) if start.text else None
    return visit.page(
        "edit.html",
        slug=slug,
        start=start,
        text=start.text,
        message="",
        problems=found.problems if found else [],
        problems_total=found.problems_total if found else 0,
        error=None,
        said=request.args.get("said"),
    )


def save(slug: str) -> Response:
    """Save the text of the form; 412 or 409 with both texts if someone else saved first."""
    visit = enter(Permission.EDIT, f"saving the draft of {clip(slug)}")
    caller = visit.caller
    slug = _slug(visit, slug)
    limits = caller.services.config.limits
    with caller.writing() as store:
        lookup.existing(store, slug)
        text = _with_newlines_of(store, slug, field("definition"))
        try:
            if len(text.encode()) > limits.definition:
                raise too_large("the definition has", len(text.encode()), limits.definition)
            with caller.acting(Event.SAVED, slug):
                _save(store, visit, slug, Content(raw=text.encode()))
        except ConflictError as error:
            return _conflict(visit, store, slug, text, error)
        except GitstoreError as error:
            if errors.STATUS[error.code] >= 500:
                raise
            return _again(visit, slug, text, error)
    return go("show_workflow", slug=slug, said="saved")


def check(slug: str) -> Response:
    """Return the problems of a text, for the editor's script, as POST /workflows/{id}/validate does."""
    visit = enter(Permission.READ, f"checking {clip(slug)}")
    limits = visit.caller.services.config.limits
    raw = request.get_data(cache=False)
    if len(raw) > limits.definition:
        raise too_large("the definition has", len(raw), limits.definition)
    slug = _slug(visit, slug)
    with visit.caller.opened() as store:
        return answer(validation(store, slug, Content(raw=raw)))


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


def _save(store: Store, visit: Visit, slug: str, content: Content) -> Saved:
    """Save on top of the state that the author has seen.

    Raises `stale_draft`, `draft_exists` or `base_moved`.
    """
    etag, seen = field("etag"), parse_number(field("base")) or 0
    base, state = base_of(store, slug)
    who, message = visit.caller.who(None), field("message").strip()
    if etag and not state.draft_open:
        raise StaleDraftError(f"the draft that you edited was published as v{state.latest}, or discarded")
    if etag and etag != state.draft:
        raise StaleDraftError("the draft was saved by somebody since you opened it")
    if state.latest != seen:
        raise BaseMovedError(f"v{state.latest} was published after this draft began", latest=state.latest)
    if not etag:
        return store.create_draft(slug, content, who, message)
    merged = state.latest if base != state.latest else None
    return store.save_draft(slug, content, who, expected=etag, message=message, base_version=merged or None)


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
        int(errors.STATUS[error.code]),
        slug=slug,
        start=Start(shown, etag, state.latest, words),
        who=who,
        text=text,
        rows=side_by_side(shown, text),
        message=field("message"),
        error=error,
    )


def _again(visit: Visit, slug: str, text: str, error: GitstoreError) -> Response:
    """Show the editor with the submitted text and its errors."""
    problems = Problems.of(error.problems)
    start = Start(text, field("etag"), parse_number(field("base")) or 0, "your text, not saved yet")
    return visit.page(
        "edit.html",
        int(errors.STATUS[error.code]),
        slug=slug,
        start=start,
        text=text,
        message=field("message"),
        problems=[errors.problem_json(problem) for problem in problems],
        problems_total=problems.total,
        error=error,
        said=None,
    )
