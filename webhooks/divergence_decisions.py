"""Divergences of a source for the owners of a project, and their resolution by a person."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final, LiteralString
from uuid import UUID

from gitstore.errors import Code, ConflictError, MalformedError, NotFoundError
from sync.db import Transaction
from webhooks import sources
from webhooks.sources import Direction


@dataclass(frozen=True, slots=True)
class Divergence:
    """A ref that differs between the project and the source. `version_number` is None for a draft."""

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


_DIVERGENCES: Final[LiteralString] = """
    select id, source_id, ref, slug, version_number, ours, theirs, code, reason, first_seen_at, last_seen_at,
        decision, decided_by, resolved_at, resolution
    from gitstore.divergences where project_id = %(project)s and source_id = %(source)s
"""
_OPEN: Final[LiteralString] = (
    _DIVERGENCES + " and resolved_at is null order by slug, version_number limit %(limit)s"
)
_DIVERGENCE: Final[LiteralString] = _DIVERGENCES + " and id = %(id)s"
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
    """Return the unresolved divergences, ordered by workflow and version, drafts last."""
    return tx.rows(Divergence, _OPEN, project=project_id, source=source_id, limit=limit)


def resolve(
    tx: Transaction, project_id: UUID, source_id: UUID, divergence_id: UUID, take: str, by: str
) -> Divergence:
    """Resolve a diverged draft: take "theirs", which the next sync does, or keep "ours".

    After "ours" the draft is not reported again until the upstream's draft moves. Raises `not_found`,
    `version_immutable` for a published version, and `malformed` if there is no upstream draft to take or the
    source is push-only.
    """
    values = {"project": project_id, "source": source_id, "id": divergence_id}
    found = tx.row(Divergence, _DIVERGENCE, **values)
    if found is None or found.resolved_at is not None:
        raise NotFoundError(Code.NOT_FOUND, "there is no open divergence of that id")
    if found.version_number is not None:
        raise ConflictError(
            Code.VERSION_IMMUTABLE,
            f"{found.ref}: a version can't be resolved by overwriting either side: publish the next number",
            version=found.version_number,
        )
    if take == "theirs" and found.theirs is None:
        raise MalformedError("the upstream has no such draft: there is nothing to take")
    followed = sources.source(tx, project_id, source_id)
    if take == "theirs" and followed is not None and not Direction(followed.direction).pulls:
        raise MalformedError("nothing is taken from this source: it is pushed to, and no more")
    tx.run(_TAKE_THEIRS if take == "theirs" else _KEEP_OURS, id=divergence_id, by=by)
    if take == "theirs":
        sources.ask(tx, project_id, source_id)
    (decided,) = tx.rows(Divergence, _DIVERGENCE, **values)
    return decided
