"""Two versions beside each other: the graph, the list of changes, and the texts. Secrets are masked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from flask import Response, request

from gitstore.diff import Altered, Diff, Element
from gitstore.difference.delta import ABSENT, Change, Op
from gitstore.difference.masked_text import masked_text
from gitstore.difference.masking import Masks, masked
from gitstore.difference.summarizing import summary
from gitstore.errors import Code, GitstoreError
from gitstore.format.quoting import clip
from gitstore.model import Permission, Rules
from gitstore.rules.elements import mapping, string
from service.api import lookup
from service.comparison import Sides, compare, files, sides
from service.ui.entering import enter
from service.ui.graph import Graph, draw_difference
from service.ui.texts import side_by_side
from sync import catalog

_CHOICES: Final = 50
_MOST_ITEMS: Final = 150
_LONGEST_VALUE: Final = 160


@dataclass(frozen=True, slots=True)
class Field:
    """One value that came, went or changed. A side is None where it has none."""

    name: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that changed; `key` is the box of the drawing that shows it, "" where none does."""

    mark: str
    what: str
    name: str
    key: str = ""
    fields: tuple[Field, ...] = ()


def show_difference(slug: str) -> Response:
    visit = enter(Permission.READ, f"reading {slug[:80]}")
    caller, layout = visit.caller, request.args.get("layout") == "true"
    limits = caller.services.config.limits
    with caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, slug)
        versions = sides(tx, workflow, request.args.get("from") or None, request.args.get("to") or None)
        choices = catalog.history(tx, workflow.id, limit=_CHOICES).rows
    with caller.opened() as store:
        masks = Masks()
        old, new = (masked_text(file, masks, limits) for file in files(store, versions))
    found = _found(versions, caller.rules, layout=layout)
    items = list(_items(found)) if found else []
    return visit.page(
        "compare.html",
        workflow=workflow,
        old=versions[0],
        new=versions[1],
        choices=_with(choices, versions),
        layout=layout,
        sentence=summary(found) if found else None,
        graph=_graph(versions, found) if found and caller.rules is Rules.MESHHOOK else None,
        items=items[:_MOST_ITEMS],
        more=max(len(items) - _MOST_ITEMS, 0),
        rows=side_by_side(old, new),
    )


def _found(versions: Sides, rules: Rules, *, layout: bool) -> Diff | None:
    """None where a side does not parse: then the texts are all there is to compare."""
    try:
        return compare(versions, rules, layout=layout)
    except GitstoreError as error:
        if error.code is not Code.DEFINITION_UNPARSABLE:
            raise
        return None


def _graph(versions: Sides, found: Diff) -> Graph:
    old, new = masked(*(version.definition for version in versions))
    return draw_difference(old, new, found)


def _with(choices: Sequence[catalog.Version], versions: Sides) -> list[catalog.Version]:
    """What can be chosen: the newest versions, and those that are shown."""
    known = {row.id: row for row in (*choices, *versions)}
    return sorted(known.values(), key=lambda row: row.version_number, reverse=True)


# The list of changes


def _items(found: Diff) -> Iterator[Item]:
    for each in found.renamed:
        field = Field("id", each.before, each.after)
        yield Item("changed", "node", each.after, _key(each.pointer, "n"), (field,))
    for kind, items in (("node", found.nodes), ("edge", found.edges)):
        yield from (_element("added", kind, element, "n") for element in items.added)
        yield from (_element("removed", kind, element, "o") for element in items.removed)
        yield from (_altered(kind, altered) for altered in items.changed)
        if items.order is not None:
            yield Item("changed", f"{kind}s", "another order")
    yield from (
        Item(_mark(change), "field", _path(change.pointer), "", (_field(change),)) for change in found.other
    )


def _element(mark: str, kind: str, element: Element, side: str) -> Item:
    key = _key(element.pointer, side) if kind == "node" else ""
    return Item(mark, kind, _name(kind, element.value), key)


def _altered(kind: str, altered: Altered) -> Item:
    fields = tuple(_field(change) for change in altered.changes)
    key = _key(altered.pointer, "n") if kind == "node" else ""
    return Item("changed", kind, _name(kind, altered.value), key, fields)


def _name(kind: str, value: Any) -> str:
    found = mapping(value)
    if kind == "edge":
        return f"{clip(str(found.get('source')), 60)} → {clip(str(found.get('target')), 60)}"
    label, name = string(mapping(found.get("data")).get("label")), string(found.get("id")) or "a node"
    return clip(f"{label} ({name})" if label and label != name else name, 120)


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
    steps = [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]
    return clip(" / ".join(steps), 120)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return clip(text, _LONGEST_VALUE)
