"""Lists of workflows and of versions, searched, filtered and sorted, with the place where each continues."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, LiteralString, get_args
from uuid import UUID

from gitstore.names import HIGHEST_NUMBER, is_slug
from sync.catalog import VERSION, WORKFLOW_COLUMNS, WORKFLOW_FROM, Version, Workflow
from sync.db import Transaction

Sort = Literal["slug", "name", "updated", "published"]
Filter = Literal["running", "held", "draft", "problems", "idle", "mine"]
FILTERS: Final[tuple[Filter, ...]] = get_args(Filter)
Archived = Literal["false", "true", "only"]
ARCHIVED: Final[tuple[Archived, ...]] = get_args(Archived)

# Workflows

_NEVER: Final[LiteralString] = "coalesce(latest.published_at, '-infinity')"
_FROM: Final[LiteralString] = (
    WORKFLOW_FROM
    + """
    left join gitstore.workflow_versions latest
        on latest.workflow_id = w.id and latest.version_number = w.latest_number
"""
)
_OF_PROJECT: Final[LiteralString] = " where w.project_id = %(project)s"
_MOST_MATCHES: Final = 1000
# Those of a search that finds few, by an index; their page is then sorted, which is off for readers.
_MATCHES: Final[LiteralString] = """
    select gitstore.matching_workflows(%(project)s, %(q)s, %(most)s), set_config('enable_sort', 'on', true)
"""
_AMONG: Final[LiteralString] = " and w.id = any(%(among)s)"
# One that finds many reads workflows in their order, until the page is full.
_MATCHING: Final[LiteralString] = """
    and (w.words || coalesce(draft.labels, current.labels, latest.labels, ''::tsvector))
        @@ gitstore.searched(%(q)s)
"""
_FILTERED: Final[dict[Filter | None, LiteralString]] = {
    None: "",
    "running": " and w.current_version_id is not null",
    "held": " and w.held",
    "draft": " and draft.id is not null",
    "problems": " and not draft.valid",
    "idle": " and w.current_version_id is null and draft.id is null",
    "mine": """ and exists (select from gitstore.workflow_versions v where v.workflow_id = w.id
        and (v.author_email = %(email)s or v.published_by = %(person)s))""",
}
_EXISTING: Final[LiteralString] = " and not (w.archived and w.latest_number = 0 and w.draft_commit is null)"
_ARCHIVED: Final[dict[Archived, LiteralString]] = {
    "false": " and not w.archived",
    "true": _EXISTING,
    "only": " and w.archived" + _EXISTING,
}
_AFTER: Final[dict[Sort, LiteralString]] = {
    "slug": " and w.slug > %(slug)s",
    "name": " and (lower(w.name), w.slug) > (lower(%(key)s), %(slug)s)",
    "updated": " and (w.updated_at, w.slug) < (%(key)s, %(slug)s)",
    "published": " and (" + _NEVER + ", w.slug) < (%(key)s, %(slug)s)",
}
_ORDER: Final[dict[Sort, LiteralString]] = {
    "slug": " order by w.slug",
    "name": " order by lower(w.name), w.slug",
    "updated": " order by w.updated_at desc, w.slug desc",
    "published": " order by " + _NEVER + " desc, w.slug desc",
}
_LISTED: Final[LiteralString] = WORKFLOW_COLUMNS + ", latest.published_at" + _FROM


@dataclass(frozen=True, slots=True)
class ListedWorkflow(Workflow):
    """A workflow with the time at which its latest version was published."""

    published_at: datetime | None


@dataclass(frozen=True, slots=True)
class Wanted:
    """The selection and the order of a list of workflows.

    `person` and `email` are those of the reader, for the filter `mine`. `archived` workflows are left out,
    included, or shown alone.
    """

    q: str = ""
    only: Filter | None = None
    sort: Sort = "slug"
    person: str = ""
    email: str = ""
    archived: Archived = "false"

    def place(self, row: ListedWorkflow) -> str:
        """Return the place after `row`."""
        key = {"name": row.name, "updated": row.updated_at, "published": row.published_at}.get(self.sort)
        return f"{row.slug} {key.isoformat() if isinstance(key, datetime) else key or ''}"

    def parse_place(self, text: str) -> tuple[str, Any] | None:
        """Return the slug and the key in a place, or None if it is not one of this order."""
        slug, _, key = text.partition(" ")
        if not is_slug(slug) or "\0" in key:
            return None
        if self.sort in ("slug", "name"):
            return slug, key
        at = datetime.fromisoformat(key) if key else datetime.min.replace(tzinfo=UTC)
        return (slug, at if key else "-infinity") if at.tzinfo else None


def workflows(
    tx: Transaction, project: UUID, wanted: Wanted, *, after: tuple[str, Any] | None = None, limit: int
) -> tuple[Sequence[ListedWorkflow], str | None]:
    """Return a page of the workflows of a project, and the place of the next."""
    found = _found(tx, project, wanted)
    if found is None:
        return [], None
    conditions, values = found
    slug, key = after or ("", None)
    query = _LISTED + conditions + (_AFTER[wanted.sort] if after else "") + _ORDER[wanted.sort]
    rows = tx.rows(ListedWorkflow, query + " limit %(limit)s", **values, slug=slug, key=key, limit=limit + 1)
    return rows[:limit], wanted.place(rows[limit - 1]) if len(rows) > limit else None


def count(tx: Transaction, project: UUID, wanted: Wanted, only: Sequence[object] | None = None) -> int:
    """Return the number of workflows on all pages; `only` is the page if there is no other."""
    if only is not None:
        return len(only)
    found = _found(tx, project, wanted)
    if found is None:
        return 0
    conditions, values = found
    return int(tx.value("select count(*)" + _FROM + conditions, **values))


def _found(tx: Transaction, project: UUID, wanted: Wanted) -> tuple[LiteralString, dict[str, Any]] | None:
    """Return the condition on wanted workflows and its parameters; None if a search finds none."""
    values = {"project": project, "q": wanted.q, "email": wanted.email, "person": wanted.person}
    only = _FILTERED[wanted.only] + _ARCHIVED[wanted.archived]
    if not wanted.q:
        return _OF_PROJECT + only, values
    among = tx.value(_MATCHES, project=project, q=wanted.q, most=_MOST_MATCHES)
    if among == []:
        return None
    matching = _MATCHING if among is None else _AMONG
    return _OF_PROJECT + matching + only, {**values, "among": among}


# Versions


@dataclass(frozen=True, slots=True)
class VersionsWanted:
    """The selection of a history: words of the message, an author or publisher, and a time span."""

    q: str = ""
    author: str = ""
    since: datetime | None = None
    until: datetime | None = None

    def __bool__(self) -> bool:
        return bool(self.q or self.author or self.since or self.until)


_AT: Final[LiteralString] = "coalesce(v.published_at, v.created_at)"
_HISTORY: Final[LiteralString] = VERSION + " and v.state <> 'discarded' and v.version_number < %(before)s"
_TOLD: Final[LiteralString] = " and gitstore.words(v.message) @@ gitstore.searched(%(q)s)"
_BY: Final[LiteralString] = " and %(author)s in (v.author_name, v.published_by)"
_SINCE: Final[LiteralString] = " and " + _AT + " >= %(since)s"
_UNTIL: Final[LiteralString] = " and " + _AT + " < %(until)s"
_AUTHORS: Final[LiteralString] = """
    select coalesce(published_by, author_name) as who, count(*) from gitstore.workflow_versions
    where workflow_id = %(workflow)s and state <> 'discarded'
    group by who order by count(*) desc, who limit 50
"""


def history(
    tx: Transaction, workflow: UUID, wanted: VersionsWanted, *, before: int | None = None, limit: int
) -> tuple[Sequence[Version], int | None]:
    """Return the draft and the versions, newest first, and the number below which the next page begins."""
    query = _HISTORY + (_TOLD if wanted.q else "") + (_BY if wanted.author else "")
    query += (_SINCE if wanted.since else "") + (_UNTIL if wanted.until else "")
    rows = tx.rows(
        Version,
        query + " order by v.version_number desc limit %(limit)s",
        workflow=workflow, before=before or HIGHEST_NUMBER + 1, limit=limit + 1,
        q=wanted.q, author=wanted.author, since=wanted.since, until=wanted.until,
    )  # fmt: skip
    return rows[:limit], rows[limit - 1].version_number if len(rows) > limit else None


def authors(tx: Transaction, workflow: UUID) -> list[str]:
    """Return who published versions, or saved the draft, of a workflow: the most frequent first."""
    return [who for who, _ in tx.tuples(_AUTHORS, workflow=workflow)]
