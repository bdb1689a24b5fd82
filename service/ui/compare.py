"""Comparison of two versions: the graph, the list of changes, and the texts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final

from flask import Response, request

from gitstore.definition.elements import mapping, string
from gitstore.definition.quoting import clip
from gitstore.diff.structure import Altered, Diff, Element
from gitstore.diff.summary import summary
from gitstore.diff.values import ABSENT, Change, Op
from gitstore.errors import InvalidDefinitionError, TooLargeError
from gitstore.model import Permission, Rules
from service import lookup
from service.comparison import Sides, compare, files, sides
from service.ui.graph import Graph, draw_difference
from service.ui.texts import side_by_side
from service.ui.visit import enter
from sync import catalog

_CHOICES: Final = 50
_MOST_ITEMS: Final = 150
_MOST_FIELDS: Final = 500  # of all items
_LONGEST_VALUE: Final = 160


@dataclass(frozen=True, slots=True)
class Field:
    """One value that was added, removed or changed. A side without the value is None."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Item:
    """One changed object; `key` is its box in the drawing, or "" if it has none.

    `more` counts the fields that are not listed.
    """

    mark: str
    what: str
    name: str
    key: str = ""
    fields: tuple[Field, ...] = ()
    more: int = 0


Listed = tuple[Item, Sequence[Change]]
"""A changed object, and the changes that become its fields if it is listed."""


def show_difference(slug: str) -> Response:
    visit = enter(Permission.READ, f"reading {clip(slug)}")
    caller, layout = visit.caller, request.args.get("layout") == "true"
    with caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, slug)
        versions = sides(tx, workflow, request.args.get("from") or None, request.args.get("to") or None)
        choices = catalog.history(tx, workflow.id, limit=_CHOICES).rows
    lookup.admit(caller, workflow.slug, *(each.version_number for each in versions))
    with caller.opened() as store:
        old, new = (file.raw.decode(errors="replace") for file in files(store, versions))
    found = _found(versions, caller.rules, layout=layout)
    items, more = _listed(found) if found else ([], 0)
    return visit.page(
        "compare.html",
        workflow=workflow,
        old=versions[0],
        new=versions[1],
        choices=_with(choices, versions),
        layout=layout,
        sentence=summary(found) if found else None,
        graph=_graph(versions, found) if found and caller.rules is Rules.MESHHOOK else None,
        items=items,
        more=more,
        rows=side_by_side(old, new),
    )


def _found(versions: Sides, rules: Rules, *, layout: bool) -> Diff | None:
    """Return the diff; None, to compare only texts, if a side does not parse or the diff is too large."""
    try:
        return compare(versions, rules, layout=layout)
    except (InvalidDefinitionError, TooLargeError):
        return None


def _graph(versions: Sides, found: Diff) -> Graph:
    old, new = (version.definition or {} for version in versions)
    return draw_difference(old, new, found)


def _with(choices: Sequence[catalog.Version], versions: Sides) -> list[catalog.Version]:
    """Return the versions to choose from: the newest versions, and those that are shown."""
    known = {row.id: row for row in (*choices, *versions)}
    return sorted(known.values(), key=lambda row: row.version_number, reverse=True)


# List of changes


def _listed(found: Diff) -> tuple[list[Item], int]:
    """Return the first _MOST_ITEMS items, with _MOST_FIELDS fields in all, and the number of others."""
    every, room = _items(found), _MOST_FIELDS
    shown = []
    for item, changes in islice(every, _MOST_ITEMS):
        fields = tuple(_field(change) for change in changes[:room])
        room -= len(fields)
        shown.append(replace(item, fields=(*item.fields, *fields), more=len(changes) - len(fields)))
    return shown, sum(1 for _ in every)


def _items(found: Diff) -> Iterator[Listed]:
    for each in found.renamed:
        field = Field("id", clip(each.before, _LONGEST_VALUE), clip(each.after, _LONGEST_VALUE))
        yield Item("changed", "node", clip(each.after, 120), _key(each.pointer, "n"), (field,)), ()
    for kind, items in (("node", found.nodes), ("edge", found.edges)):
        yield from ((_element("added", kind, element, "n"), ()) for element in items.added)
        yield from ((_element("removed", kind, element, "o"), ()) for element in items.removed)
        yield from ((_altered(kind, altered), altered.changes) for altered in items.changed)
        if items.order is not None:
            yield Item("changed", f"{kind}s", "another order"), ()
    yield from ((Item(_mark(change), "field", _path(change.pointer)), (change,)) for change in found.other)


def _element(mark: str, kind: str, element: Element, side: str) -> Item:
    key = _key(element.pointer, side) if kind == "node" else ""
    return Item(mark, kind, _name(kind, element.value), key)


def _altered(kind: str, altered: Altered) -> Item:
    key = _key(altered.pointer, "n") if kind == "node" else ""
    return Item("changed", kind, _name(kind, altered.value), key)


def _name(kind: str, value: Any) -> str:
    found = mapping(value)
    if kind == "edge":
        return f"{_end(found, 'source')} → {_end(found, 'target')}"
    label = clip(string(mapping(found.get("data")).get("label")) or "", 120)
    name = clip(string(found.get("id")) or "a node", 120)
    return clip(f"{label} ({name})" if label and label != name else name, 120)


def _end(edge: dict[str, Any], end: str) -> str:
    name = edge.get(end)
    return clip(name, 60) if isinstance(name, str) else "?"


def _key(pointer: str, side: str) -> str:
    return side + pointer.removeprefix("/nodes/")


def _field(change: Change) -> Field:
    name = _path(change.pointer)
    if change.op is Op.REORDER:
        return Field(name, "an order", "another order")
    return Field(name, *(None if side is ABSENT else _shown(side) for side in (change.before, change.after)))


def _mark(change: Change) -> str:
    return {Op.ADD: "added", Op.REMOVE: "removed"}.get(change.op, "changed")


def _path(pointer: str) -> str:
    steps = [step.replace("~1", "/").replace("~0", "~") for step in clip(pointer, 300).split("/")[1:]]
    return clip(" / ".join(steps), 120)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return clip(text, _LONGEST_VALUE)
