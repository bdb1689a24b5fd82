"""Comparison of versions of a workflow for the API, the command line and the pages: diff and blame.

In a diff, `to` defaults to the open draft, else the latest version. `from` defaults to the version before
`to` if `to` is a number or the current version itself, else to the current version. So with neither given,
the diff shows how publishing the draft would change the current version, or the changes of the latest
version.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gitstore.definition.document import is_bytes_only
from gitstore.definition.elements import mapping, string
from gitstore.definition.quoting import clip
from gitstore.diff.blame import Blame, Blamed
from gitstore.diff.structure import Diff, Effect, Item, Kind, diff
from gitstore.diff.summary import summary, text_summary
from gitstore.diff.values import ABSENT, Change
from gitstore.drafts import File
from gitstore.errors import Code, InvalidDefinitionError, MalformedError, NotFoundError
from gitstore.repository import Repository
from service import lookup
from service.caller import Caller
from service.lookup import no_version, reading_definition, which
from sync import catalog
from sync.catalog import FullVersion, Version, Which, Workflow
from sync.db import Transaction

Sides = tuple[FullVersion, FullVersion]
"""The two versions of a comparison: from, to."""


def sides(tx: Transaction, workflow: Workflow, old: str | None, new: str | None) -> Sides:
    """Return the versions that `old` and `new` name, as "3", "v3", "current", "latest" or "draft".

    Raises `version_not_found` and `not_published`.
    """
    wanted: Which = "latest" if workflow.draft_number is None else "draft"
    if new is not None:
        wanted = which(new)
    to = find(tx, workflow, wanted)
    before = which(old) if old is not None else _before(tx, workflow, to, wanted)
    return find(tx, workflow, before), to


def compare(caller: Caller, versions: Sides, *, layout: bool) -> tuple[Diff, str]:
    """Return the difference of two versions, and its summary; raises `definition_unparsable`.

    A version that JSON has no form for is compared as text: then the difference lists nothing.
    """
    old, new = versions
    if not (is_bytes_only(old.digest) or is_bytes_only(new.digest)):
        difference = diff(_definition(old), _definition(new), caller.rules, layout=layout)
        return difference, summary(difference)
    with caller.opened() as repository:
        a, b = (file.raw for file in files(repository, versions))
    return Diff((), unseen=False, delta=None, sides=(None, None)), text_summary(a, b)


def lists(difference: Diff) -> dict[str, Any]:
    """Return the list of changes by kind and effect, as the API's JSON has it."""

    def elements(kind: Kind, *effects: Effect) -> dict[str, Any]:
        order = [change.after for item in difference.of(kind, "reordered") for change in item.changes]
        by_effect: dict[str, Any] = {
            effect: [_element(item) for item in difference.of(kind, effect)] for effect in effects
        }
        return {**by_effect, "order": order[0] if order else None}

    fields = [item for item in difference.items if item.kind == "field"]
    return {
        "nodes": elements("node", "added", "removed", "renamed", "changed"),
        "edges": elements("edge", "added", "removed", "changed"),
        "other": [_change(change) for item in fields for change in item.changes],
    }


def _element(item: Item) -> dict[str, Any]:
    if item.effect == "renamed":
        (change,) = item.changes
        names = {"before": change.before, "after": change.after}
        return {**names, "old_pointer": item.old_pointer, "pointer": item.pointer}
    value = mapping(item.value)
    if item.kind == "node":
        shown: dict[str, Any] = {"id": string(value.get("id"))}
    else:
        ends = ("source", "sourceHandle", "target", "targetHandle")
        shown = {end.replace("Handle", "_handle"): value.get(end) for end in ends}
    if item.effect == "changed":
        changes = [_change(change) for change in item.changes]
        return {**shown, "old_pointer": item.old_pointer, "pointer": item.pointer, "changes": changes}
    return {**shown, "pointer": item.pointer, "value": item.value}


def _change(change: Change) -> dict[str, Any]:
    before, after = (None if side is ABSENT else side for side in (change.before, change.after))
    return {"op": change.op, "pointer": change.pointer, "before": before, "after": after}


def files(repository: Repository, versions: Sides) -> tuple[File, File]:
    """Return the stored files of two versions."""
    old, new = versions
    return file_of(repository, old), file_of(repository, new)


def file_of(repository: Repository, version: FullVersion) -> File:
    with reading_definition(version):
        return File(version.file_name, repository.objects.blob(version.blob_sha.encode()))


def shown(version: catalog.Version) -> str:
    """Return the display name of a version: "v3", or "draft"."""
    return "draft" if version.state == "draft" else f"v{version.version_number}"


def find(tx: Transaction, workflow: Workflow, wanted: Which) -> FullVersion:
    """Return a version; raises `version_not_found` or `not_published`."""
    row = catalog.full_version(tx, workflow.id, wanted)
    if row is None:
        raise no_version(workflow.slug, wanted)
    return row


def _before(tx: Transaction, workflow: Workflow, to: FullVersion, wanted: Which) -> Which:
    current = workflow.current_number
    if current is not None and isinstance(wanted, str) and not to.is_current:
        return current
    page = catalog.history(tx, workflow.id, state="published", before=to.version_number, limit=1)
    if not page.rows:
        message = f"nothing of {workflow.slug} was published before {shown(to)}, to compare it with"
        raise NotFoundError(Code.VERSION_NOT_FOUND, message)
    return page.rows[0].version_number


def _definition(version: FullVersion) -> dict[str, Any] | list[Any]:
    if version.definition is None:
        message = f"{shown(version)} of {version.slug} can't be read as a definition: compare the texts"
        raise InvalidDefinitionError(Code.DEFINITION_UNPARSABLE, message)
    return version.definition


# Blame

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


def blame_of(
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
