"""Divergences between a source and the project: recorded by syncs, resolved by a person.

A divergence is open until both sides agree again or a person has decided. An open row is updated by each
sync; if one of the sides moves, a new event is recorded. `known` and `record` run as the mirror role.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final, LiteralString
from uuid import UUID, uuid4, uuid5

from gitstore.errors import Code, ConflictError, GitstoreError, MalformedError, NotFoundError
from gitstore.names import DraftRef, MisnamedRef, VersionRef, parse
from sync import events
from sync.db import Transaction
from sync.events import EventType, Fact
from webhooks import sources
from webhooks.sources import Direction

DELETED: Final = "deleted_upstream"
PUSH_REFUSED: Final = "push_refused"
ACKNOWLEDGE: Final = "acknowledge"
TAKES: Final = ("theirs", "ours", ACKNOWLEDGE)
"""What a person may take to resolve a divergence."""


@dataclass(frozen=True, slots=True)
class Detected:
    """A divergence found by a sync. Ids are hex, or None if the ref does not exist on that side.

    `ref` is the name upstream, `workflow` the id of the workflow here.
    """

    target: DraftRef | VersionRef | MisnamedRef
    ref: str
    workflow: UUID
    ours: str | None
    theirs: str | None
    code: str
    reason: str

    @property
    def number(self) -> int | None:
        return self.target.number if isinstance(self.target, VersionRef) else None


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded divergence: open or, if `kept`, acknowledged, or resolved in favour of our side."""

    id: UUID
    ref: str
    ours: str | None
    theirs: str | None
    code: str
    reason: str
    decision: str | None
    decided_by: str | None
    kept: bool


_KNOWN: Final[LiteralString] = """
    select distinct on (ref) id, ref, ours, theirs, code, reason, decision, decided_by,
        resolution is not null as kept
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


def known(tx: Transaction, source_id: UUID) -> dict[str, Recorded]:
    """Return by ref the open divergence, otherwise the newest one that was resolved in favour of our side."""
    return {row.ref: row for row in tx.rows(Recorded, _KNOWN, source=source_id)}


def record(
    tx: Transaction,
    project_id: UUID,
    source_id: UUID,
    url: str,
    detected: Mapping[str, Detected],
    untouched: Collection[str],
    tried: Collection[str],
    now: datetime,
) -> list[Detected]:
    """Update the rows: open those in `detected`, keep those in `untouched`, and close all others.

    `tried` are the refs whose decision this sync tried to carry out. The decision of such a ref failed if the
    ref is in `detected` again.

    Returns the new divergences and those of which a side has moved. An event is recorded for each.
    """
    before = {ref: row for ref, row in known(tx, source_id).items() if not row.kept}
    changed = []
    for ref, new in detected.items():
        row = before.get(ref)
        values = {"ours": new.ours, "theirs": new.theirs, "code": new.code, "reason": new.reason}
        if row is not None:
            tx.run(_UPDATE, id=row.id, tried=ref in tried, **values)
        elif not tx.run(
            _INSERT, id=uuid4(), source=source_id, project=project_id, ref=ref, slug=new.target.slug,
            number=new.number, **values,
        ):  # fmt: skip
            continue
        if row is None or (row.ours, row.theirs, row.code) != (new.ours, new.theirs, new.code):
            changed.append(new)
    closed = [ref for ref in before if ref not in detected and ref not in untouched]
    tx.run(_CLOSE, source=source_id, refs=closed)
    facts = [_fact(project_id, source_id, url, new, now) for new in changed]
    if facts:
        events.insert(tx, facts)
    return changed


def _fact(project_id: UUID, source_id: UUID, url: str, new: Detected, now: datetime) -> Fact:
    key = f"{source_id} {new.ref} {new.ours} {new.theirs} {new.code} {now.isoformat()}"
    return Fact(
        id=uuid5(new.workflow, f"{EventType.DIVERGED} {key}"),
        type=EventType.DIVERGED,
        project_id=project_id,
        workflow_id=new.workflow,
        slug=new.target.slug,
        version_number=new.number,
        created_at=now,
        actor=f"source:{source_id}",
        data={
            "workflow": new.target.slug,
            "ref": new.ref,
            "version_number": new.number,
            "ours": new.ours,
            "theirs": new.theirs,
            "code": new.code,
            "reason": new.reason,
            "source_id": str(source_id),
            "source_url": url,
        },
    )


def reason(target: DraftRef | VersionRef, error: GitstoreError) -> str:
    """Return the reason for which a ref of the upstream was not imported, as text for the project's users."""
    match error.code, target:
        case Code.VERSION_IMMUTABLE, VersionRef(_, number):
            return f"v{number} is published here with other content and cannot change"
        case Code.NOT_FAST_FORWARD, _:
            return "the draft here and the draft upstream have diverged: merge them, or choose one"
    return error.message


# Decisions of owners


@dataclass(frozen=True, slots=True)
class Divergence:
    """A ref that differs between the project and the source. Only a version has a `version_number`."""

    id: UUID
    source_id: UUID
    ref: str
    slug: str
    version_number: int | None
    ours: str | None
    theirs: str | None
    code: str
    reason: str
    first_seen_at: datetime
    last_seen_at: datetime
    decision: str | None
    decided_by: str | None
    resolved_at: datetime | None
    resolution: str | None

    @property
    def choices(self) -> tuple[str, ...]:
        """The decisions that a person may make: only that of a draft may change something."""
        if not isinstance(parse(self.ref.encode()), DraftRef):
            return (ACKNOWLEDGE,)
        return ("ours",) if self.theirs is None else ("ours", "theirs")


_ALL: Final[LiteralString] = """
    select id, source_id, ref, slug, version_number, ours, theirs, code, reason, first_seen_at, last_seen_at,
        decision, decided_by, resolved_at, resolution
    from gitstore.divergences where project_id = %(project)s and source_id = %(source)s
"""
_OPEN: Final[LiteralString] = (
    _ALL
    + " and resolved_at is null order by code = 'invalid_name', slug, version_number, ref limit %(limit)s"
)
_ONE: Final[LiteralString] = _ALL + " and id = %(id)s"
_KEEP_OURS: Final[LiteralString] = """
    update gitstore.divergences set resolved_at = now(), resolution = 'ours', decided_by = %(by)s
    where id = %(id)s and resolved_at is null
"""
_TAKE_THEIRS: Final[LiteralString] = """
    update gitstore.divergences set decision = 'theirs', decided_by = %(by)s
    where id = %(id)s and resolved_at is null
"""


def open_divergences(
    tx: Transaction, project_id: UUID, source_id: UUID, limit: int = 1000
) -> list[Divergence]:
    """Return the unresolved divergences by workflow and version, drafts last; then the misnamed refs."""
    return tx.rows(Divergence, _OPEN, project=project_id, source=source_id, limit=limit)


def resolve(
    tx: Transaction, project_id: UUID, source_id: UUID, divergence_id: UUID, take: str, by: str
) -> Divergence:
    """Resolve a draft: take "theirs", which the next sync does, or keep "ours". "acknowledge" any other ref.

    After "ours" the draft is not reported again until the upstream's draft moves; an acknowledged ref, until
    either side moves. Raises `not_found`, `version_immutable` if a version was to be overwritten, and
    `malformed` if there is no upstream draft to take, the source is push-only, or `take` is not a choice.
    """
    values = {"project": project_id, "source": source_id, "id": divergence_id}
    divergence = tx.row(Divergence, _ONE, **values)
    if divergence is None or divergence.resolved_at is not None:
        raise NotFoundError(Code.NOT_FOUND, "no open divergence with this id")
    if take != ACKNOWLEDGE and divergence.version_number is not None:
        raise ConflictError(
            Code.VERSION_IMMUTABLE,
            f"{divergence.ref}: a published version cannot be overwritten on either side: publish the next "
            "version, or acknowledge the difference",
            version=divergence.version_number,
        )
    if take == "theirs" and divergence.choices == ("ours",):
        raise MalformedError("the upstream has no such draft")
    if take not in divergence.choices:
        raise MalformedError(f"{divergence.ref}: choose {' or '.join(divergence.choices)}")
    if take == "theirs":
        source = sources.source(tx, project_id, source_id)
        if source is not None and not Direction(source.direction).pulls:
            raise MalformedError("this source is push-only")
        tx.run(_TAKE_THEIRS, id=divergence_id, by=by)
        sources.request_sync(tx, project_id, source_id)
    else:
        tx.run(_KEEP_OURS, id=divergence_id, by=by)
    (decided,) = tx.rows(Divergence, _ONE, **values)
    return decided
