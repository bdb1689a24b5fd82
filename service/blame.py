"""Which version last changed each node, edge and field of a version, for the API and the page."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from gitstore.definition.quoting import clip
from gitstore.diff.blame import Blame, Blamed
from gitstore.errors import Code, InvalidDefinitionError, MalformedError
from service import lookup
from service.caller import Caller
from service.comparison import find, shown
from sync import catalog
from sync.catalog import Version, Workflow

MOST_VERSIONS: Final = 200
"""Versions that one call compares."""
_SECONDS: Final = 1.0
_BATCH: Final = 20


@dataclass(frozen=True, slots=True)
class BlamePage:
    """`elements` without those whose version an earlier page named. `versions` are those that are named.

    `next` is the version that the next page begins with, or None if all is known.
    """

    workflow: Workflow
    version: Version
    elements: Sequence[Blamed]
    versions: dict[int, Version]
    next: int | None


def of_version(
    caller: Caller, name: str, version: str, cursor: str | None, node: str | None = None
) -> BlamePage:
    """Return which versions last changed the elements of a version; only those of `node`, if given."""
    begins = lookup.number_in(cursor)
    with caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, name)
        target = find(tx, workflow, lookup.which(version))
        # A later page begins with the version at which the one before ended.
        again = begins is not None
        top = begins + 1 if begins is not None else target.version_number
        limit = MOST_VERSIONS + again
        older = catalog.history(tx, workflow.id, state="published", before=top, limit=limit)
    rows = list(older.rows)
    if begins is not None and (
        not rows or rows[0].version_number != begins or begins >= target.version_number
    ):
        raise MalformedError("invalid cursor: start from the first page, without one")
    if not isinstance(target.definition, dict):
        message = f"{shown(target)} of {workflow.slug} is not an object with nodes or fields"
        raise InvalidDefinitionError(Code.DEFINITION_UNPARSABLE, message)
    lookup.admit(caller, workflow.slug, target.version_number, *(row.version_number for row in rows))
    blame = Blame(target.definition)
    if node is not None:
        blame.elements = {
            key: each for key, each in blame.elements.items() if each.kind == "node" and each.name == node
        }
        if not blame.elements:
            raise lookup.not_found("node", clip(node), f" in {shown(target)}")
    newer: Version = target
    end = time.perf_counter() + _SECONDS
    for row, definition in _with_definitions(caller, rows):
        if isinstance(definition, dict) and row.blob_sha != newer.blob_sha:
            blame.compare(newer.version_number, definition)
        if begins is not None and row.version_number == begins:
            blame.forget(target.version_number)
        newer = row
        if not blame.pending or time.perf_counter() > end:
            break
    is_last = older.next is None and (not rows or newer.version_number == rows[-1].version_number)
    if is_last:
        blame.ascribe_rest(newer.version_number)
    elements = list(blame.elements.values())
    named = {number for each in elements for number in (each.version, *each.fields.values()) if number}
    known = {row.version_number: row for row in (target, *rows) if row.version_number in named}
    return BlamePage(workflow, target, elements, known, newer.version_number if blame.pending else None)


def _with_definitions(caller: Caller, rows: Sequence[Version]) -> Iterator[tuple[Version, object]]:
    """Yield each version with its definition, or None for one that does not parse."""
    for start in range(0, len(rows), _BATCH):
        batch = rows[start : start + _BATCH]
        with caller.reading() as tx:
            definitions = catalog.definitions(tx, [row.id for row in batch])
        for row in batch:
            yield row, definitions.get(row.id)
