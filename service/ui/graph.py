"""Drawing of a definition, or of two compared ones: boxes and lines with their positions, for the SVG.

No validity is assumed: a node that is malformed is not drawn, nor is
an edge without both of its ends; `problems` report them.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final
from unicodedata import east_asian_width
from urllib.parse import urlsplit

from gitstore.definition.elements import Edge, Node, edge_at, mapping, mappings, node_at, string
from gitstore.definition.kinds import KINDS
from gitstore.definition.quoting import clip
from gitstore.diff.structure import Diff
from service.ui.layout import HEIGHT, WIDTH, Rect, around, arrange

MOST_BOXES: Final = 1_000
"""Maximum nodes drawn of one definition, or of two that are compared."""
MOST_LINES: Final = 2_000
"""Maximum edges drawn between them."""
HEAD: Final = 40  # of a container's box, above its children
PAD: Final = 20
_MARGIN: Final = 24
_SMALLEST: Final = (1000, 220)  # minimum view, so that the boxes of a small graph are not enlarged
_BESIDE: Final = (560, 200)
_NARROW: Final = 700
_FARTHEST: Final = 100_000  # a position beyond this is ignored
_LABEL: Final = 9.2  # room in a box, in widths of the letter M of a wide font
_DETAIL: Final = 11.4
_LONGEST_KIND: Final = 40
_NARROW_LETTERS: Final = frozenset("fijlrtI1.,:;'`|!()[]{}-/\\ ")
_WIDE_LETTERS: Final = frozenset("mwMW@%&")
_ARC: Final = 72  # of an edge that would run behind boxes, above them
_TITLES: Final = {name: kind.title for name, kind in KINDS.items()}


@dataclass(frozen=True, slots=True)
class Box:
    """Box of a node. `key` is unique in the drawing; `mark` is "", "added", "removed" or "changed"."""

    key: str
    id: str
    title: str
    label: str
    kind: str
    kind_title: str
    detail: str
    container: bool
    rect: Rect
    mark: str = ""
    problems: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """Line of an edge, as the `d` of a path; `x` and `y` are its middle."""

    path: str
    source: str
    target: str
    label: str
    x: float
    y: float
    mark: str = ""


@dataclass(frozen=True)
class Graph:
    """Complete drawing. Containers precede their children. `left_out` counts the nodes beyond MOST_BOXES."""

    boxes: tuple[Box, ...]
    lines: tuple[Line, ...]
    view: Rect
    left_out: int = 0

    @property
    def view_box(self) -> str:
        return " ".join(
            f"{number:g}" for number in (self.view.x, self.view.y, self.view.width, self.view.height)
        )

    @property
    def narrow(self) -> bool:
        """Whether the drawing is readable at half the width of the page."""
        return around(box.rect for box in self.boxes).width <= _NARROW

    def beside(self) -> Graph:
        """Return the drawing for half the width of the page."""
        return replace(self, view=_view((box.rect for box in self.boxes), _BESIDE))

    def title_of(self, name: str) -> str:
        """Return the title of the node with that id, or the id itself."""
        return self._titles.get(name, name)

    @cached_property
    def _titles(self) -> dict[str, str]:
        return {box.id: box.title for box in self.boxes if box.id}

    def by_id(self, name: str | None) -> Box | None:
        """Return the box of the node with that id, or None."""
        return next((box for box in self.boxes if box.id == name), None) if name else None


@dataclass(slots=True)
class _Item:
    node: Node
    key: str
    mark: str = ""


def draw(value: Mapping[str, Any], prefix: str = "n", problems: Iterable[str | None] = ()) -> Graph:
    """Draw one definition. `prefix` begins the keys; `problems` are the ids of nodes, one per problem."""
    items = [_Item(node_at(i, node), f"{prefix}{i}") for i, node in mappings(value.get("nodes"))]
    edges = [(edge_at(i, edge), "") for i, edge in mappings(value.get("edges"))]
    counts = Counter(problems)
    drawn = _drawn(items, edges)
    boxes = (replace(box, problems=counts[box.id] if box.id else 0) for box in drawn.boxes)
    return replace(drawn, boxes=tuple(boxes))


def draw_difference(old: Mapping[str, Any], new: Mapping[str, Any], difference: Diff) -> Graph:
    """Draw both definitions in one drawing, and mark the nodes added, removed and changed.

    Keys are "n3" and, for removed nodes, "o3".
    """
    removed = {item.pointer for item in difference.items if item.effect == "removed"}
    marks = {
        item.pointer: "added" if item.effect == "added" else "changed"
        for item in difference.items
        if item.effect != "removed"
    }
    items = [
        _Item(node_at(i, node), f"n{i}", marks.get(f"/nodes/{i}", ""))
        for i, node in mappings(new.get("nodes"))
    ]
    items += [
        _Item(node_at(i, node), f"o{i}", "removed")
        for i, node in mappings(old.get("nodes"))
        if f"/nodes/{i}" in removed
    ]
    edges = [(edge_at(i, edge), marks.get(f"/edges/{i}", "")) for i, edge in mappings(new.get("edges"))]
    edges += [
        (edge_at(i, edge), "removed") for i, edge in mappings(old.get("edges")) if f"/edges/{i}" in removed
    ]
    renames = [change for item in difference.of("node", "renamed") for change in item.changes]
    return _drawn(items, edges, {change.before: change.after for change in renames})


def _drawn(
    items: list[_Item], edges: list[tuple[Edge, str]], renamed: Mapping[str, str] | None = None
) -> Graph:
    left_out = max(len(items) - MOST_BOXES, 0)
    if left_out:  # a stable sort: marked nodes come first, the others keep their order
        items = sorted(items, key=lambda item: not item.mark)[:MOST_BOXES]
    # Of several nodes with one id, the first gets the edges; a new node takes precedence over a removed one.
    keys: dict[str, str] = {}
    for item in items:
        if item.node.id is not None:
            keys.setdefault(item.node.id, item.key)
    for before, after in (renamed or {}).items():
        if after in keys:
            keys.setdefault(before, keys[after])
    ends = [
        (edge, mark, keys[edge.source], keys[edge.target])
        for edge, mark in edges
        if edge.source in keys and edge.target in keys
    ][:MOST_LINES]
    rects = _places(items, keys, [(a, b) for _, _, a, b in ends])
    ordered = sorted(items, key=lambda item: not _is_container(item.node))
    boxes = tuple(_box(item, rects[item.key]) for item in ordered)
    rows = Rows(rects[item.key] for item in items if not _is_container(item.node))
    lines = tuple(_line(edge, mark, rects[a], rects[b], rows) for edge, mark, a, b in ends)
    return Graph(boxes, lines, _view(rects.values()), left_out)


# Positions


def _places(items: list[_Item], keys: Mapping[str, str], edges: list[tuple[str, str]]) -> dict[str, Rect]:
    """Return positions by key: first within each container, then of the containers among the others."""
    by_key = {item.key: item for item in items}
    parents: dict[str, str] = {}
    for item in items:
        parent = keys.get(item.node.parent or string(item.node.value.get("parentId")) or "")
        if parent is not None and parent != item.key and _is_container(by_key[parent].node):
            parents[item.key] = parent
    # One level is drawn: a container in a container is drawn next to it.
    containers = set(parents.values())
    inside = {
        key: parent for key, parent in parents.items() if parent not in parents and key not in containers
    }
    children: dict[str, list[_Item]] = {}
    for key, parent in inside.items():
        children.setdefault(parent, []).append(by_key[key])
    inner: dict[str, list[tuple[str, str]]] = {}
    for a, b in edges:
        if a in inside and inside[a] == inside.get(b):
            inner.setdefault(inside[a], []).append((a, b))
    sizes: dict[str, tuple[float, float]] = {}
    within: dict[str, dict[str, Rect]] = {}
    for item in items:
        if item.key in inside:
            continue
        size: tuple[float, float] = (WIDTH, HEIGHT)
        if _is_container(item.node):
            within[item.key] = _in_container(children.get(item.key, []), inner.get(item.key, []))
            size = _container_size(item.node, within[item.key].values())
        sizes[item.key] = size
    given = {key: place for key in sizes if (place := _position(by_key[key].node)) is not None}
    outer = [(inside.get(a, a), inside.get(b, b)) for a, b in edges]
    rects = arrange(sizes, given, outer)
    for key, children_rects in within.items():
        rects |= {child: rect.moved(rects[key].x, rects[key].y) for child, rect in children_rects.items()}
    return rects


def _in_container(children: list[_Item], edges: list[tuple[str, str]]) -> dict[str, Rect]:
    """Return positions of a container's children, relative to its corner."""
    sizes: dict[str, tuple[float, float]] = {child.key: (WIDTH, HEIGHT) for child in children}
    given = {child.key: at for child in children if (at := _inner_position(child.node)) is not None}
    placed = arrange(sizes, given, edges)
    there = around(placed.values())
    x, y = max(PAD - there.x, 0), max(PAD + HEAD - there.y, 0)
    return {key: rect.moved(x, y) for key, rect in placed.items()}


def _container_size(node: Node, children: Iterable[Rect]) -> tuple[float, float]:
    given = mapping(node.data.get("dimensions"))
    wide, high = (_number(given.get(side)) or 0.0 for side in ("width", "height"))
    inner = list(children)
    return (
        max([wide, WIDTH + 2 * PAD, *(rect.right + PAD for rect in inner)]),
        max([high, HEIGHT + 2 * PAD + HEAD, *(rect.bottom + PAD for rect in inner)]),
    )


def _position(node: Node) -> tuple[float, float] | None:
    return _point(node.value.get("position"))


def _inner_position(node: Node) -> tuple[float, float] | None:
    """Return the position in the container: the editor's own field, or `position`, as Svelte Flow has it."""
    for position in (node.data.get("containerPosition"), node.value.get("containerPosition")):
        if (place := _point(position)) is not None:
            return place
    return _position(node) if node.value.get("parentId") else None


def _point(value: Any) -> tuple[float, float] | None:
    at = mapping(value)
    x, y = _number(at.get("x")), _number(at.get("y"))
    return (x, y) if x is not None and y is not None else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return float(value) if math.isfinite(value) and abs(value) <= _FARTHEST else None


def _view(rects: Iterable[Rect], smallest: tuple[int, int] = _SMALLEST) -> Rect:
    area = around(rects)
    wide, high = max(area.width + 2 * _MARGIN, smallest[0]), max(area.height + 2 * _MARGIN, smallest[1])
    return Rect(area.x - (wide - area.width) / 2, area.y - (high - area.height) / 2, wide, high)


# Boxes and lines


def _is_container(node: Node) -> bool:
    return node.is_container or node.value.get("type") == "loopContainer"


def _box(item: _Item, rect: Rect) -> Box:
    node = item.node
    label = string(node.data.get("label")) or node.id or "(no id)"
    kind = node.kind or "?"
    return Box(
        key=item.key,
        id=clip(node.id or ""),
        title=clip(label),
        label=_fitting(label, _LABEL),
        kind=kind if kind in KINDS else "other",
        kind_title=_TITLES.get(kind, clip(kind, _LONGEST_KIND)),
        detail=_fitting(_detail(node) or _TITLES.get(kind, kind), _DETAIL),
        container=_is_container(node),
        rect=rect,
        mark=item.mark,
    )


def _fitting(text: str, room: float) -> str:
    """Return as much of `text` as fits, by the usual widths of letters."""
    used = 0.0
    for index, letter in enumerate(text):
        if letter in _NARROW_LETTERS:
            used += 0.36
        elif letter in _WIDE_LETTERS or east_asian_width(letter) in "WF":
            used += 1
        else:
            used += 0.72 if letter.isupper() or letter.isdigit() else 0.6
        if used > room:
            return text[:index].rstrip() + "…"
    return text


def _detail(node: Node) -> str:
    """Return a short detail that distinguishes similar nodes."""
    config = node.config or {}
    if node.kind == "httpCall":
        url = clip(string(config.get("url")) or "")
        try:
            host = urlsplit(url).netloc.rpartition("@")[2]
        except ValueError:
            host = ""
        return " ".join(part for part in (string(config.get("method")), host) if part)
    if node.kind == "schedule":
        return string(config.get("cron")) or ""
    return ""


class Rows:
    """Boxes by the row in which they are, to find those between two others without a look at all."""

    def __init__(self, rects: Iterable[Rect]) -> None:
        self._rows: dict[int, list[float]] = {}
        for rect in rects:
            self._rows.setdefault(self._row(rect), []).append(rect.x)
        for places in self._rows.values():
            places.sort()

    def between(self, a: Rect, b: Rect) -> bool:
        """Return whether a box is in the row of `a` and `b`, between them."""
        row = self._row(a)
        if b.x <= a.right or abs(a.y - b.y) > HEIGHT / 2:
            return False
        places = (self._rows.get(each, []) for each in (row - 1, row, row + 1))
        return any(bisect_left(row, b.x) > bisect_right(row, a.x) for row in places)

    @staticmethod
    def _row(rect: Rect) -> int:
        return round(rect.y / HEIGHT * 2)


def _line(edge: Edge, mark: str, a: Rect, b: Rect, rows: Rows) -> Line:
    (x1, y1), (c1, d1), (c2, d2), (x2, y2) = _arc(a, b) if rows.between(a, b) else _curve(a, b)
    path = f"M{x1:.0f} {y1:.0f}C{c1:.0f} {d1:.0f} {c2:.0f} {d2:.0f} {x2:.0f} {y2:.0f}"
    label = string(edge.value.get("label")) or string(edge.value.get("sourceHandle")) or ""
    x, y = (x1 + 3 * c1 + 3 * c2 + x2) / 8, (y1 + 3 * d1 + 3 * d2 + y2) / 8
    ends = clip(edge.source or ""), clip(edge.target or "")
    return Line(path, *ends, clip(label, 12), round(x), round(y), mark)


Point = tuple[float, float]


def _arc(a: Rect, b: Rect) -> tuple[Point, Point, Point, Point]:
    """Return a curve from the right side of `a` to the left side of `b`, above the boxes between them."""
    start, _, _, end = _curve(a, b)
    return start, (start[0] + 24, start[1] - _ARC), (end[0] - 24, end[1] - _ARC), end


def _curve(a: Rect, b: Rect) -> tuple[Point, Point, Point, Point]:
    """Return a curve from the side of `a` that faces `b`.

    To the right if `b` is there, else down, else around.
    """
    tip = 7  # of the arrow
    if b.x >= a.right - 8 or b.y < a.bottom - 8:
        start, end = (a.right, a.y + min(a.height / 2, 28)), (b.x - tip, b.y + min(b.height / 2, 28))
        bend = max(abs(end[0] - start[0]) / 2, 36)
        return start, (start[0] + bend, start[1]), (end[0] - bend, end[1]), end
    start, end = (a.x + a.width / 2, a.bottom), (b.x + b.width / 2, b.y - tip)
    bend = max((end[1] - start[1]) / 2, 24)
    return start, (start[0], start[1] + bend), (end[0], end[1] - bend), end
