"""Two people at one draft: who changed it since a page was read, and the page that merges both changes.

A save that comes too late shows a three-way merge with the commit from which its author began. Changes of
different fields merge by themselves; for the others, the author chooses. The result is shown as text, and
saved as any other text, on top of what it was merged into. Nothing of it needs a script.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from flask import Response, request

from gitstore.definition.elements import mapping, string
from gitstore.definition.quoting import clip
from gitstore.diff.merge import Conflict, Side
from gitstore.diff.summary import what_changes
from gitstore.diff.values import ABSENT, steps
from gitstore.drafts import Content
from gitstore.errors import Code, GitstoreError, InvalidDefinitionError, NoJsonError, NotFoundError
from gitstore.model import LedgerKind, Permission, WorkflowState
from gitstore.names import parse_number
from gitstore.repository import Repository
from service import errors, lookup
from service.access import who
from service.actions import drafts, merging
from service.actions.workflows import raw_content, validate
from service.ui.rendering import blueprint
from service.ui.texts import side_by_side
from service.ui.visits import Visit, enter, field

_COMMIT: Final = re.compile(r"[0-9a-f]{40}")
_LONGEST_VALUE: Final = 2000
_MOST_BEFORE: Final = 100


@dataclass(frozen=True, slots=True)
class Moved:
    """The newest change since a page was read: "Ada", "saved the draft", when, and what it changed.

    `commit` is the state after it: the open draft's, or the latest version's. `change` is a summary of the
    difference from the state that the page had shown, or "".
    """

    who: str
    what: str
    at: datetime
    commit: str
    change: str = ""


def moved(repository: Repository, slug: str, seen: str, base: int | None = None) -> Moved | None:
    """Return the newest change since a page showed the draft's commit `seen`, "" if no draft was open.

    `base` is the latest version that the page showed, if it did. None: nothing has changed, or it is unknown.
    """
    state = repository.state(slug)
    if state.draft_open and state.draft and state.draft != seen:
        draft = repository.snapshot(slug, state.draft)
        what = "saved the draft" if seen else "started a draft"
        change = _change(repository, slug, seen, state.draft)
        return Moved(who(draft.author.name).name, what, draft.created_at, draft.commit, change)
    published = bool(seen) and _is_published(repository, seen, state)
    if seen and not state.draft_open and not published:
        entry = next((one for one in repository.ledger(slug) if one.kind is LedgerKind.DISCARDED), None)
        commit = state.latest_commit or state.draft or ""
        return Moved(who(entry.actor.name).name, "discarded the draft", entry.when, commit) if entry else None
    if state.latest and (published if base is None else state.latest != base):
        version = repository.version(slug, state.latest)
        what = f"published the draft as v{state.latest}" if published else f"published v{state.latest}"
        change = _change(repository, slug, seen, version.snapshot.commit)
        by = who(version.published_by.name).name
        return Moved(by, what, version.published_at, version.snapshot.commit, change)
    return None


def commit_in(text: str) -> str:
    """Return the id of a commit that a form carries, "" if it is none."""
    return text if _COMMIT.fullmatch(text) else ""


def _is_published(repository: Repository, seen: str, state: WorkflowState) -> bool:
    latest = state.latest_commit
    return latest is not None and repository.objects.is_ancestor(seen.encode(), latest.encode())


def _change(repository: Repository, slug: str, before: str, after: str) -> str:
    """Return what changed between two commits, "" if that is unknown."""
    try:
        definition = repository.definition(after.encode(), slug)
    except GitstoreError:
        return ""
    return what_changes(repository, slug, before.encode() or None, definition)


# The page


@dataclass(frozen=True, slots=True)
class Typed:
    """The text that an author typed after opening the commit `began`, "" if that is unknown.

    `etag` is the draft's commit that the editor showed, "" if no draft was open, and `base` the latest
    version that this draft built on.
    """

    text: str
    message: str
    began: str
    etag: str
    base: int

    @classmethod
    def of_form(cls) -> Typed:
        etag = commit_in(field("etag"))
        began = commit_in(field("began")) or etag
        return cls(field("definition"), field("message"), began, etag, parse_number(field("base")) or 0)


@dataclass(frozen=True, slots=True)
class Theirs:
    """The state to merge into: `commit`, called `name`. The form that saves on top has `etag` and `base`.

    `ancestor` is the state that both sides began from; "" if the texts are to be shown side by side.
    """

    commit: str
    name: str
    etag: str
    base: int
    ancestor: str


@dataclass(frozen=True, slots=True)
class Choice:
    """A conflict as the form shows it. `taken` is the side that was chosen."""

    path: str
    place: str
    base: str
    ours: str
    theirs: str
    taken: str


@blueprint.post("/ui/workflows/<slug>/merge")
def merge(slug: str) -> Response:
    """Show the merge of the form's text with its choices. Nothing is saved."""
    visit = enter(Permission.EDIT, f"editing {clip(slug)}")
    return conflict_page(visit, lookup.slug_of(visit.caller, slug), Typed.of_form())


def conflict_page(visit: Visit, slug: str, typed: Typed, error: GitstoreError | None = None) -> Response:
    """Show what was typed, merged with what the workflow holds now; `error` refused to save it."""
    caller = visit.caller
    with caller.opened() as repository:
        lookup.existing(repository, slug)
        theirs = _theirs(repository, slug, typed)
        since = moved(repository, slug, typed.etag, typed.base)
        file = drafts.file_in(repository, slug, theirs.commit)
        their_change = _change(repository, slug, theirs.ancestor, theirs.commit)
    chosen = _chosen() if field("theirs") == theirs.commit else {}
    content, unmerged = raw_content(typed.text.encode(), caller.limits), ""
    result, choices = typed.text, list[Choice]()
    if theirs.ancestor:
        try:
            result, choices = _merged(visit, slug, content, theirs, chosen)
        except (InvalidDefinitionError, NoJsonError, NotFoundError) as refused:
            unmerged = refused.message
    with caller.opened() as repository:
        problems = validate(repository, slug, Content(raw=result.encode())).problems
    current = file.raw.decode(errors="replace")
    return visit.page(
        "conflict.html",
        error,
        slug=slug,
        typed=typed,
        theirs=theirs,
        moved=since,
        again=bool(field("theirs")) and field("theirs") != theirs.commit,
        first=commit_in(field("first")) or typed.began,
        their_change=their_change,
        choices=choices,
        undecided=sum(not choice.taken for choice in choices) if choices else 0,
        asked=bool(field("theirs")),
        unmerged=unmerged,
        result=result,
        problems=[errors.problem_json(one) for one in problems],
        problems_total=problems.total,
        rows=side_by_side(current, typed.text),
    )


def _theirs(repository: Repository, slug: str, typed: Typed) -> Theirs:
    builds_on, state = drafts.base_of(repository, slug)
    if state.draft_open and state.draft and (state.draft != typed.etag or not state.latest):
        return Theirs(state.draft, "the draft", state.draft, builds_on, typed.began)
    etag = state.draft if state.draft_open and state.draft else ""
    commit = state.latest_commit or state.draft or ""
    began = typed.began
    if etag:  # the draft, which is as it was, does not build on the latest version
        began = _common_version(repository, slug, state, etag)
    elif typed.etag and not _is_published(repository, typed.etag, state):
        began = ""  # the draft was discarded: what was typed is all that there is
    return Theirs(commit, f"v{state.latest}", etag, state.latest, began)


def _common_version(repository: Repository, slug: str, state: WorkflowState, draft: str) -> str:
    """Return the commit of the newest version that the draft builds on, "" if none of the last does."""
    number = state.latest
    for _ in range(_MOST_BEFORE):
        number = repository.predecessor(slug, number)
        if not number:
            break
        commit = repository.version(slug, number).snapshot.commit
        if repository.objects.is_ancestor(commit.encode(), draft.encode()):
            return commit
    return ""


def _chosen() -> dict[str, Side]:
    """Return the choices of the form: the side for each path, which begins with a slash."""
    given = {name.replace("\r\n", "\n"): side for name, side in request.form.items() if name.startswith("/")}
    return {path: Side(side) for path, side in given.items() if side in set(Side)}


def _merged(
    visit: Visit, slug: str, content: Content, theirs: Theirs, chosen: dict[str, Side]
) -> tuple[str, list[Choice]]:
    """Return the merged text, and every conflict with the side that was chosen for it."""

    def merged_with(decided: dict[str, Side]) -> merging.Merged:
        return merging.merged(
            visit.caller, slug, base=theirs.ancestor, ours=content, decided=decided, theirs=theirs.commit
        )

    every = merged_with({})
    if any(not conflict.path for conflict in every.conflicts):
        message = "one is a mapping, and the other a list"
        raise InvalidDefinitionError(Code.DEFINITION_UNPARSABLE, message)
    merged = merged_with(chosen) if chosen else every
    choices = [
        Choice(
            one.path,
            _place(one),
            _shown(one.base),
            _shown(one.ours),
            _shown(one.theirs),
            taken=chosen.get(one.path, ""),
        )
        for one in every.conflicts
    ]
    return merged.definition.raw.decode(), choices


def _place(conflict: Conflict) -> str:
    """Return where a conflict is: "Call the warehouse: config / url"."""
    kind, *rest = steps(conflict.path)
    if kind not in ("nodes", "edges") or not rest:
        return " / ".join((kind, *rest))
    name, *inner = rest
    sides = (conflict.theirs, conflict.ours, conflict.base)
    labels = (string(mapping(mapping(side).get("data")).get("label")) for side in sides)
    shown = next((f"{label} ({name})" for label in labels if label), name) if not inner else name
    if inner[:1] == ["data"] and len(inner) > 1:
        inner = inner[1:]
    noun = "Node" if kind == "nodes" else "Edge"
    return f"{noun} {shown}" + (f": {' / '.join(inner)}" if inner else "")


def _shown(value: Any) -> str:
    if value is ABSENT:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2)
    return clip(text, _LONGEST_VALUE)
