"""Pages of the history and of one version, with a summary of the changes of each; and of the activity."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from typing import Final, cast

from flask import Response, current_app, request
from flask.blueprints import BlueprintSetupState

from gitstore.activity import Topic
from gitstore.definition.document import is_bytes_only
from gitstore.definition.quoting import clip
from gitstore.diff.summary import NOTHING, TEXT_CHANGED, summary_of, text_summary
from gitstore.errors import Code, NotFoundError, ObjectsMissingError
from gitstore.model import Permission, Problems, Rules
from gitstore.names import parse_number, version_id
from gitstore.repository import Repository
from gitstore.states import VersionState, of_versions, pointers_on
from service import activity, comparison, lookup
from service.access import who
from service.activity import ActivityPage
from service.comparison import find
from service.ui.graph import Graph, draw
from service.ui.rendering import blueprint
from service.ui.texts import Text, highlighted
from service.ui.visits import Visit, enter, go
from sync import catalog, listing
from sync.catalog import FullVersion, Version, Workflow
from sync.db import Transaction
from sync.listing import VersionsWanted

PAGE: Final = 25
_MOST_ROWS: Final = 500
_MOST_LINES: Final = 30  # of the text on the overview
_LONGEST_BEGINNING: Final = 4_000
FIRST: Final = "the first version"
_EXTENSION: Final = "gitstore.summaries"
_SECONDS: Final = 0.25
_MOST_SUMMARIES: Final = 20_000


@blueprint.get("/ui/workflows/<slug>/versions")
def show_history(slug: str) -> Response:
    """Show the history, newest first: all of it, or what is searched for.

    `rows` is how many are shown, so that going back shows as many again; `compare` a version to compare with
    another; `go` a version to open.
    """
    visit = enter(Permission.READ, f"reading {clip(slug)}")
    caller, before = visit.caller, lookup.number_in(request.args.get("cursor"))
    if given := request.args.get("go", "").strip():
        return go("show_version", slug=lookup.slug_of(caller, slug), version=given[:20])
    chosen = request.args.get("compare")
    if chosen is not None:
        lookup.which(chosen)
    wanted, filters = _wanted()
    size = min(max(parse_number(request.args.get("rows", "")) or PAGE, PAGE), _MOST_ROWS)
    with caller.opened() as repository, caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, slug)
        rows, below = listing.history(tx, workflow.id, wanted, before=before, limit=size)
        authors = listing.authors(tx, workflow.id)
        oldest = _before(tx, workflow, rows) if wanted else ()
        older = (
            oldest or catalog.history(tx, workflow.id, before=rows[-1].version_number, limit=1).rows
            if rows
            else ()
        )
        pairs = _pairs(rows, older)
        summaries = _summaries(tx, pairs, caller.rules, repository)
        changed = {row.version_number for row in rows if _has_changed(row)}
        states = of_versions(repository, workflow.slug, changed)
    first = rows[-1].version_number if rows and not older and not wanted else None
    if first is not None:
        summaries[first] = FIRST
    more = {"rows": size + PAGE, "cursor": request.args.get("cursor")}
    if size == _MOST_ROWS:
        more = {"cursor": lookup.cursor_to(below) if below is not None else None}
    return visit.page(
        "history.html",
        workflow=workflow,
        rows=[(row, summaries.get(row.version_number)) for row in rows],
        states=states,
        first=first,
        more=more if below is not None else None,
        chosen=chosen,
        filters=filters,
        searched=bool(wanted),
        authors=[(each, who(each).name) for each in authors],
    )


def _has_changed(row: Version) -> bool:
    """Return whether the ledger has a yank, a title or notes of the version that are worth a walk."""
    return row.yanked or row.title is not None or row.notes is not None


def _wanted() -> tuple[VersionsWanted, dict[str, str]]:
    """Return what the query searches for, and its fields as they were given; an invalid date is ignored."""
    given = {name: request.args.get(name, "").strip()[:200] for name in ("q", "author", "since", "until")}
    since, until = (_midnight(given[name]) for name in ("since", "until"))
    until = until + timedelta(days=1) if until is not None else None
    return VersionsWanted(lookup.text(given["q"]), lookup.text(given["author"]), since, until), given


def _midnight(day: str) -> datetime | None:
    with suppress(ValueError):
        return datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC)
    return None


def _before(tx: Transaction, workflow: Workflow, rows: Sequence[Version]) -> list[Version]:
    """Return the versions before those of a search, which are not its neighbours."""
    ids = [version_id(workflow.id, row.version_number - 1) for row in rows if row.version_number > 1]
    return list(catalog.versions(tx, ids).values())


def _pairs(rows: Sequence[Version], others: Sequence[Version]) -> list[tuple[Version, Version]]:
    """Return (version, the one before) for each of `rows` whose predecessor is among them or `others`."""
    known = sorted({row.version_number: row for row in (*others, *rows)}.items(), reverse=True)
    before = {new: row for (new, _), (_, row) in pairwise(known)}
    shown = ((row, before.get(row.version_number)) for row in rows)
    return [(row, old) for row, old in shown if old is not None]


@blueprint.get("/ui/workflows/<slug>/versions/<version>")
def show_version(slug: str, version: str) -> Response:
    visit = enter(Permission.READ, f"reading {clip(slug)}")
    caller = visit.caller
    with caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, slug)
        row = find(tx, workflow, lookup.which(version))
        neighbours = catalog.history(tx, workflow.id, state="published", before=row.version_number, limit=1)
        before = neighbours.rows[0] if neighbours.rows else None
    lookup.admit(caller, workflow.slug, row.version_number, before.version_number if before else None)
    with caller.opened() as repository, lookup.reading_definition(row):
        with caller.reading() as tx:
            summaries = _summaries(tx, [(row, before)], caller.rules, repository) if before else {}
        judged = not row.valid or row.state == "draft" or is_bytes_only(row.digest)
        view = view_of(repository, row, judged=judged).drawn(caller.rules, "n")
        file = comparison.file_of(repository, row)
        number = row.version_number
        changed = {number} if _has_changed(row) else set()
        state = of_versions(repository, workflow.slug, changed).get(number, VersionState())
        on_it = pointers_on(repository.state(workflow.slug), number) if row.yanked else []
    return visit.page(
        "version.html",
        workflow=workflow,
        version=row,
        before=before,
        change=summaries.get(number, None if before else FIRST),
        state=state,
        on_it=on_it,
        shown=view,
        text=highlighted(file.raw.decode(errors="replace"), file.name),
    )


@blueprint.get("/ui/workflows/<slug>/versions/<version>/blame")
def show_blame(slug: str, version: str) -> Response:
    """Show which version last changed each node, edge and field."""
    visit = enter(Permission.READ, f"reading {clip(slug)}")
    page = comparison.blame_of(visit.caller, slug, version, request.args.get("cursor"))
    order = {"node": 0, "edge": 1, "field": 2}
    return visit.page(
        "blame.html",
        workflow=page.workflow,
        version=page.version,
        versions=page.versions,
        elements=sorted(page.elements, key=lambda each: (-(each.version or 0), order[each.kind])),
        following=lookup.cursor_to(page.next) if page.next is not None else None,
    )


@blueprint.get("/ui/workflows/<slug>/versions/<version>/download")
def download(slug: str, version: str) -> Response:
    """Return the stored bytes."""
    visit = enter(Permission.READ, f"reading {clip(slug)}")
    caller = visit.caller
    with caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, slug)
        row = find(tx, workflow, lookup.which(version))
    with caller.opened() as repository:
        raw = comparison.file_of(repository, row).raw
    name = f"{workflow.slug}-{comparison.shown(row)}.{row.file_name.rpartition('.')[2]}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "private, no-cache"}
    return Response(raw, headers=headers, content_type="text/plain; charset=utf-8")


def find_published(tx: Transaction, workflow: Workflow, shown: str) -> FullVersion:
    """Return the published version that a URL names; raises `version_not_found` or `not_published`."""
    row = find(tx, workflow, lookup.which(shown))
    if row.state == "lost":
        raise NotFoundError(
            Code.VERSION_NOT_FOUND, f"v{row.version_number} is lost: ask an operator to run gitstore repair"
        )
    if row.state != "published":
        raise NotFoundError(Code.VERSION_NOT_FOUND, "name a published version, not the draft")
    return row


def change_between(old: FullVersion | None, new: FullVersion | None, rules: Rules) -> str | None:
    """Return a summary of the change; None if a version is missing or cannot be parsed."""
    if old is not None and new is not None and (is_bytes_only(old.digest) or is_bytes_only(new.digest)):
        return TEXT_CHANGED if old.blob_sha != new.blob_sha else NOTHING
    if old is None or old.definition is None or new is None or new.definition is None:
        return None
    return summary_of(old.definition, new.definition, rules)


# View of one version


@dataclass(frozen=True, slots=True)
class VersionView:
    """One version for display. `graph` is None if it has no graph to draw."""

    version: FullVersion
    graph: Graph | None
    problems: Problems
    beginning: Text | None = None
    """The first lines of the text, instead of a graph."""

    @property
    def narrow(self) -> bool:
        return self.graph is not None and self.graph.narrow

    def drawn(self, rules: Rules, prefix: str) -> VersionView:
        """Return the view with its graph, if it has one. Keys of its boxes begin with `prefix`."""
        value = self.version.definition
        if not isinstance(value, dict) or rules is not Rules.MESHHOOK:
            return self
        wrong = [problem.node for problem in self.problems if problem.error]
        return replace(self, graph=draw(value, prefix, wrong))

    def with_text(self, repository: Repository) -> VersionView:
        """Return the view with the beginning of its text, if it has no graph."""
        if self.graph is not None:
            return self
        raw = comparison.file_of(repository, self.version)
        text = raw.raw.decode(errors="replace")
        shown = "\n".join(text[:_LONGEST_BEGINNING].split("\n")[:_MOST_LINES])
        lines = highlighted(shown, raw.name).lines
        return replace(self, beginning=Text(lines, len(text) - len(shown)))

    def beside(self) -> VersionView:
        """Return the view for half the width of the page."""
        return replace(self, graph=self.graph.beside() if self.graph else None)


def view_of(repository: Repository, version: FullVersion, *, judged: bool) -> VersionView:
    """Return the view of `version` without its graph, with its problems if `judged`."""
    # Read from Git: with lines and columns.
    problems = repository.snapshot(version.slug, version.commit_sha).problems if judged else Problems()
    return VersionView(version, None, problems)


# Summaries


Key = tuple[Rules, str, str, str, str]


class Summaries:
    """Cache of one process's summaries. Published versions are immutable, so none becomes wrong.

    New ones are computed within a time limit: definitions may be large, and a page must not be slow.
    """

    def __init__(self) -> None:
        self._known: dict[Key, str] = {}
        self._lock = threading.Lock()

    def of(
        self,
        tx: Transaction,
        found: Sequence[tuple[Version, Version]],
        rules: Rules,
        read: Callable[[Version], bytes],
    ) -> dict[int, str]:
        """Return the summaries of (version, the one before), by number; those beyond the time limit miss.

        `read` returns the bytes of a version that JSON has no form for.
        """
        pairs = {new.version_number: (old, new) for new, old in found}
        keys = {
            number: (rules, old.blob_sha, old.file_name, new.blob_sha, new.file_name)
            for number, (old, new) in pairs.items()
        }
        lacking = [number for number, key in keys.items() if key not in self._known]
        definitions = catalog.definitions(tx, {row.id for number in lacking for row in pairs[number]})
        deadline = time.perf_counter() + _SECONDS
        for number in lacking:
            if time.perf_counter() > deadline:
                break
            old, new = (definitions.get(row.id) for row in pairs[number])
            sentence = "can't be parsed"
            if old is not None and new is not None:
                sentence = summary_of(old, new, rules)
            elif any(is_bytes_only(row.digest) for row in pairs[number]):
                sentence = text_summary(*(read(row) for row in pairs[number]))
            self._keep(keys[number], sentence)
        return {number: self._known[key] for number, key in keys.items() if key in self._known}

    def _keep(self, key: Key, sentence: str) -> None:
        with self._lock:
            while len(self._known) >= _MOST_SUMMARIES:
                del self._known[next(iter(self._known))]
            self._known[key] = sentence


@blueprint.record_once
def _prepare(state: BlueprintSetupState) -> None:
    state.app.extensions[_EXTENSION] = Summaries()


def _summaries(
    tx: Transaction, pairs: Sequence[tuple[Version, Version]], rules: Rules, repository: Repository
) -> dict[int, str]:
    def read(row: Version) -> bytes:
        with suppress(ObjectsMissingError):  # a lost version
            return repository.objects.blob(row.blob_sha.encode())
        return b""

    return cast(Summaries, current_app.extensions[_EXTENSION]).of(tx, pairs, rules, read)


# What happened: to a workflow, and in the project

_ACTIVITIES: Final = 50


@blueprint.get("/ui/workflows/<slug>/activity")
def show_activity(slug: str) -> Response:
    visit = enter(Permission.READ, f"reading {clip(slug)}")
    workflow, page = activity.of_workflow(
        visit.caller, slug, request.args.get("cursor"), _ACTIVITIES, _topic()
    )
    return _activity_page(visit, page, workflow)


@blueprint.get("/ui/activity")
def show_all_activity() -> Response:
    visit = enter(Permission.READ, "reading the activity")
    return _activity_page(
        visit, activity.of_project(visit.caller, request.args.get("cursor"), _ACTIVITIES, _topic())
    )


def _topic() -> Topic | None:
    """Return the topic that the query names; None for all, and for an unknown one."""
    chosen = request.args.get("topic")
    return Topic(chosen) if chosen in set(Topic) else None


def _activity_page(visit: Visit, page: ActivityPage, workflow: catalog.Workflow | None = None) -> Response:
    return visit.page(
        "activity.html",
        workflow=workflow,
        page=page,
        topic=_topic(),
        topics=list(Topic),
        following=lookup.cursor_to(page.next) if page.next is not None else None,
        later=request.args.get("cursor") is not None,
    )
