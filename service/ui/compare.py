"""Comparison of two versions: the graph, the list of changes, and the texts."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from flask import Response, request

from gitstore.definition.elements import mapping, string
from gitstore.definition.quoting import clip
from gitstore.diff.structure import Diff, Effect, Item
from gitstore.diff.values import ABSENT, Change, Op, steps
from gitstore.errors import InvalidDefinitionError, TooLargeError
from gitstore.model import Permission, Rules
from service import lookup
from service.comparison import compare, files, sides
from service.ui.graph import draw_difference
from service.ui.rendering import blueprint
from service.ui.texts import side_by_side
from service.ui.visits import enter
from sync import catalog

_CHOICES: Final = 50
_MOST_ROWS: Final = 150
_MOST_FIELDS: Final = 500  # of all rows
_LONGEST_VALUE: Final = 160


@dataclass(frozen=True, slots=True)
class Field:
    """One value that was added, removed or changed. A side without the value is None."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Row:
    """One item of the list of changes; `key` is its box in the drawing, or "" if it has none.

    `more` counts the fields that are not listed.
    """

    effect: Effect
    kind: str
    name: str
    key: str = ""
    fields: tuple[Field, ...] = ()
    more: int = 0


@blueprint.get("/ui/workflows/<slug>/compare")
def show_difference(slug: str) -> Response:
    visit = enter(Permission.READ, f"reading {clip(slug)}")
    caller, layout = visit.caller, request.args.get("layout") == "true"
    whole, unified = request.args.get("lines") == "all", request.args.get("view") == "unified"
    with caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, slug)
        versions = sides(tx, workflow, request.args.get("from") or None, request.args.get("to") or None)
        newest = catalog.history(tx, workflow.id, limit=_CHOICES).rows
    choices = {row.id: row for row in (*newest, *versions)}
    lookup.admit(caller, workflow.slug, *(each.version_number for each in versions))
    difference, sentence = None, ""
    with caller.opened() as repository:
        old, new = (file.raw.decode(errors="replace") for file in files(repository, versions))
    with suppress(InvalidDefinitionError, TooLargeError):  # then only the texts are compared
        difference, sentence = compare(caller, versions, layout=layout)
    items, more = _listed(difference) if difference else ([], 0)
    graph = None
    if difference and difference.items and caller.rules is Rules.MESHHOOK:
        before, after = (mapping(version.definition) for version in versions)
        graph = draw_difference(before, after, difference)
    return visit.page(
        "compare.html",
        workflow=workflow,
        old=versions[0],
        new=versions[1],
        choices=sorted(choices.values(), key=lambda row: row.version_number, reverse=True),
        layout=layout,
        sentence=sentence,
        graph=graph,
        items=items,
        more=more,
        rows=side_by_side(old, new, whole=whole),
        whole=whole,
        unified=unified,
        here={
            "from": request.args.get("from") or None,
            "to": request.args.get("to") or None,
            "layout": "true" if layout else None,
        },
    )


# List of changes


def _listed(difference: Diff) -> tuple[list[Row], int]:
    """Return the first _MOST_ROWS items, with _MOST_FIELDS fields in all, and the number of others."""
    rows, room = [], _MOST_FIELDS
    for item in difference.items[:_MOST_ROWS]:
        fields = tuple(_field(change) for change in item.changes[:room])
        room -= len(fields)
        rows.append(_row(item, fields, len(item.changes) - len(fields)))
    return rows, len(difference.items) - len(rows)


def _row(item: Item, fields: tuple[Field, ...], more: int) -> Row:
    if item.kind == "field":
        return Row(item.effect, "field", _path(item.pointer), "", fields, more)
    if item.effect == "reordered":
        return Row("reordered", f"{item.kind}s", "")
    key = ""
    if item.kind == "node":
        key = ("o" if item.effect == "removed" else "n") + item.pointer.removeprefix("/nodes/")
    return Row(item.effect, item.kind, _name(item), key, fields, more)


def _name(item: Item) -> str:
    value = mapping(item.value)
    if item.kind == "edge":
        ends = (string(value.get(end)) for end in ("source", "target"))
        return " → ".join(clip(end or "?", 60) for end in ends)
    label = clip(string(mapping(value.get("data")).get("label")) or "", 120)
    name = clip(string(value.get("id")) or "a node", 120)
    return clip(f"{label} ({name})" if label and label != name else name, 120)


def _field(change: Change) -> Field:
    name = _path(change.pointer)
    if change.op is Op.REORDER:
        return Field(name, "the old order", "a new order")
    return Field(name, *(None if side is ABSENT else _shown(side) for side in (change.before, change.after)))


def _path(pointer: str) -> str:
    return clip(" / ".join(steps(clip(pointer, 300))), 120) or "the whole definition"


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return clip(text, _LONGEST_VALUE)
