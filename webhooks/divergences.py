"""Record divergences between a source and the project: a row and one event each. Runs as the mirror role.

A divergence is open until both sides agree again or a person has decided. An open row is updated by each
sync; if one of the sides moves, a new event is recorded.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, LiteralString
from uuid import UUID, uuid4, uuid5

from gitstore.definition.document import describe
from gitstore.errors import Code, GitstoreError
from gitstore.model import Problems
from gitstore.names import DraftRef, VersionRef, full, show, workflow_id
from sync import events
from sync.db import Transaction
from sync.events import EventType, Fact

DELETED: Final = "deleted_upstream"
PUSH_REFUSED: Final = "push_refused"
_MOST_PROBLEMS: Final = 3  # listed in a reason


@dataclass(frozen=True, slots=True)
class Found:
    """A divergence found by a sync. Ids are hex, or None if the ref does not exist on that side."""

    target: DraftRef | VersionRef
    ours: str | None
    theirs: str | None
    code: str
    reason: str

    @property
    def ref(self) -> str:
        return show(full(self.target))

    @property
    def number(self) -> int | None:
        return self.target.number if isinstance(self.target, VersionRef) else None


@dataclass(frozen=True, slots=True)
class Known:
    """A recorded divergence: open or, if `kept`, resolved by a person in favour of our side."""

    id: UUID
    ref: str
    ours: str | None
    theirs: str | None
    code: str
    decision: str | None
    decided_by: str | None
    kept: bool


_KNOWN: Final[LiteralString] = """
    select distinct on (ref) id, ref, ours, theirs, code, decision, decided_by, resolution is not null as kept
    from gitstore.divergences
    where source_id = %(source)s and (resolved_at is null or resolution = 'ours')
    order by ref, resolved_at desc nulls first
"""
_INSERT: Final[LiteralString] = """
    insert into gitstore.divergences
        (id, source_id, project_id, ref, slug, version_number, ours, theirs, code, reason)
    values (%(id)s, %(source)s, %(project)s, %(ref)s, %(slug)s, %(number)s, %(ours)s, %(theirs)s, %(code)s,
        %(reason)s)
    on conflict (source_id, ref) where resolved_at is null do nothing
"""
# A decision applies to the ids of both sides at its time. If one side has moved, or the decision could not be
# carried out, it is cleared and a person has to decide again.
_UPDATE: Final[LiteralString] = """
    update gitstore.divergences set last_seen_at = now(), ours = %(ours)s, theirs = %(theirs)s,
        code = %(code)s, reason = %(reason)s,
        decision = case when (ours, theirs) is not distinct from (%(ours)s, %(theirs)s) and not %(tried)s
            then decision end
    where id = %(id)s
"""
_CLOSE: Final[LiteralString] = """
    update gitstore.divergences set resolved_at = now(), resolution = coalesce(decision, 'gone')
    where source_id = %(source)s and resolved_at is null and ref = any(%(refs)s)
"""


def known(tx: Transaction, source_id: UUID) -> dict[str, Known]:
    """Return by ref the open divergence, otherwise the newest one that was resolved in favour of our side."""
    return {row.ref: row for row in tx.rows(Known, _KNOWN, source=source_id)}


def record(
    tx: Transaction,
    project_id: UUID,
    source_id: UUID,
    url: str,
    found: Mapping[str, Found],
    untouched: Collection[str],
    tried: Collection[str],
    now: datetime,
) -> list[Found]:
    """Update the rows: open those in `found`, keep those in `untouched`, and close all others.

    `tried` are the refs whose decision this sync tried to carry out. The decision of such a ref failed if the
    ref is in `found` again.

    Returns the new divergences and those of which a side has moved. An event is recorded for each.
    """
    before = {ref: row for ref, row in known(tx, source_id).items() if not row.kept}
    news = []
    for ref, one in found.items():
        row = before.get(ref)
        values = {"ours": one.ours, "theirs": one.theirs, "code": one.code, "reason": one.reason}
        if row is not None:
            tx.run(_UPDATE, id=row.id, tried=ref in tried, **values)
        elif not tx.run(
            _INSERT, id=uuid4(), source=source_id, project=project_id, ref=ref, slug=one.target.slug,
            number=one.number, **values,
        ):  # fmt: skip
            continue
        if row is None or (row.ours, row.theirs, row.code) != (one.ours, one.theirs, one.code):
            news.append(one)
    over = [ref for ref in before if ref not in found and ref not in untouched]
    tx.run(_CLOSE, source=source_id, refs=over)
    facts = [_fact(project_id, source_id, url, one, now) for one in news]
    if facts:
        events.insert(tx, facts)
    return news


def _fact(project_id: UUID, source_id: UUID, url: str, one: Found, now: datetime) -> Fact:
    workflow = workflow_id(project_id, one.target.slug)
    what = f"{source_id} {one.ref} {one.ours} {one.theirs} {one.code} {now.isoformat()}"
    return Fact(
        id=uuid5(workflow, f"{EventType.DIVERGED} {what}"),
        type=EventType.DIVERGED,
        project_id=project_id,
        workflow_id=workflow,
        slug=one.target.slug,
        version_number=one.number,
        created_at=now,
        actor=f"source:{source_id}",
        data={
            "workflow": one.target.slug,
            "ref": one.ref,
            "version_number": one.number,
            "ours": one.ours,
            "theirs": one.theirs,
            "code": one.code,
            "reason": one.reason,
            "source_id": str(source_id),
            "source_url": url,
        },
    )


def reason(target: DraftRef | VersionRef, error: GitstoreError) -> str:
    """Return the reason for which a ref of the upstream was not imported, as text for the project's users."""
    match error.code, target:
        case Code.VERSION_IMMUTABLE, VersionRef(_, number):
            return f"v{number} is published here with another content, and can't change"
        case Code.NOT_FAST_FORWARD, _:
            return (
                "the draft here and the one upstream have gone different ways: merge them, or decide for one"
            )
    problems = Problems.of(error.problems)
    errors = [problem for problem in problems if problem.error][:_MOST_PROBLEMS]
    shown = "; ".join(describe(problem) for problem in errors)
    more = f" and {problems.errors - len(errors)} more" if problems.errors > len(errors) else ""
    return error.message + (f": {shown}{more}" if shown else "")
