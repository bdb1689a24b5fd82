"""Layout, drawings and displayed texts."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore.diff.structure import diff
from service.ui.compare import _listed
from service.ui.graph import MOST_BOXES, draw, draw_difference
from service.ui.layout import Rect, arrange
from service.ui.texts import MOST_ROWS, highlighted, side_by_side

SIZE = (208.0, 56.0)


def overlapping(a: Rect, b: Rect) -> bool:
    return a.x < b.right and b.x < a.right and a.y < b.bottom and b.y < a.bottom


def node(name: str, kind: str = "httpCall", **more: Any) -> dict[str, Any]:
    return {"id": name, "type": kind, "data": {"label": name.title(), "config": {}}, **more}


names = st.integers(0, 12)


@given(st.sets(names, min_size=1), st.lists(st.tuples(names, names), max_size=30))
def test_layers_never_overlap_and_follow_the_edges(keys: set[int], edges: list[tuple[int, int]]) -> None:
    """Cycles, loops and edges to nowhere included."""
    rects = arrange(dict.fromkeys(keys, SIZE), {}, edges)
    assert set(rects) == keys
    assert not any(overlapping(a, b) for a, b in combinations(rects.values(), 2))
    forward = [(a, b) for a, b in edges if a < b and a in keys and b in keys]
    placed = arrange(dict.fromkeys(keys, SIZE), {}, forward)
    assert all(placed[a].right < placed[b].x for a, b in forward)


@given(st.dictionaries(names, st.tuples(st.integers(-2000, 2000), st.integers(-2000, 2000)), min_size=1))
def test_positions_keep_their_order(places: dict[int, tuple[int, int]]) -> None:
    """Also if the graph is stretched; boxes without a position overlap none."""
    rects = arrange(
        dict.fromkeys([*places, 99], SIZE), {k: (float(x), float(y)) for k, (x, y) in places.items()}, []
    )
    for a, b in combinations(places, 2):
        assert (rects[a].x < rects[b].x) == (places[a][0] < places[b][0])
        assert (rects[a].y < rects[b].y) == (places[a][1] < places[b][1])
    assert not any(overlapping(rects[99], rects[key]) for key in places)


def test_a_node_is_drawn_at_its_position() -> None:
    drawn = draw({"nodes": [node("a", position={"x": 0, "y": 0}), node("b", position={"x": 300, "y": 80})]})
    assert [(box.rect.x, box.rect.y) for box in drawn.boxes] == [(0, 0), (300, 80)]


def test_an_edge_goes_above_the_boxes_between_its_ends() -> None:
    """Also if they are a little higher or lower; in a row without boxes between, it is as ever."""
    places = {"a": (0, 0), "b": (280, 10), "c": (560, 0), "d": (280, 84), "e": (0, 84)}
    nodes = [node(name, position={"x": x, "y": y}) for name, (x, y) in places.items()]
    ends = [("a", "b"), ("a", "c"), ("e", "d")]
    drawn = draw({"nodes": nodes, "edges": [{"source": a, "target": b} for a, b in ends]})
    assert [line.y < 28 for line in drawn.lines] == [False, True, False]
    assert drawn.lines[1].y < 0


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("Create shipment 1", "Create shipment 1"),
        ("illicit little filler", "illicit little filler"),
        ("WWWWWWWWWWWWWWWW", "WWWWWWWWW…"),
        ("データベースに注文を書き込む", "データベースに注文…"),
        ("Send the summary of the week to everybody", "Send the summar…"),
    ],
)
def test_a_label_is_cut_where_its_box_ends(label: str, shown: str) -> None:
    """By the widths of its letters, not by their number."""
    drawn = draw({"nodes": [{"id": "a", "type": "delay", "data": {"label": label}}]})
    assert drawn.boxes[0].label == shown


def test_a_container_is_a_box_around_its_children() -> None:
    container = node("loop", "loopContainer", position={"x": 100, "y": 50})
    container["data"] |= {
        "isContainer": True,
        "dimensions": {"width": 400, "height": 200},
        "childNodes": ["in"],
    }
    child = node("in", parentId="loop", position={"x": 30, "y": 60})
    child["data"]["parentContainer"] = "loop"
    drawn = draw({"nodes": [child, container]})
    outer, inner = drawn.boxes
    assert (outer.id, outer.container, outer.rect) == ("loop", True, Rect(100, 50, 400, 200))
    assert (inner.rect.x, inner.rect.y) == (130, 110)


def test_malformed_nodes_and_edges_are_skipped() -> None:
    """Imported definitions may hold anything."""
    place = {"x": "a", "y": None}
    crossed = {"isContainer": 1, "parentContainer": "d", "dimensions": {"width": "a"}}
    odd: list[Any] = [None, 7, "a", [], {}, {"id": 1}, {"id": "x", "data": 3, "position": place},
                      {"id": "x", "position": {"x": 1e300, "y": True}}, {"id": "p", "parentId": "p"},
                      {"id": "c", "data": crossed},
                      {"id": "d", "data": {"isContainer": 1, "parentContainer": "c"}}]  # fmt: skip
    edges: list[Any] = [None, {}, {"source": "x"}, {"source": "x", "target": "x"},
                        {"source": "nope", "target": "x"}, {"source": "c", "target": "d"}]  # fmt: skip
    drawn = draw({"nodes": odd, "edges": edges})
    assert len(drawn.boxes) == 7
    assert len(drawn.lines) == 2
    assert draw({"nodes": 7, "edges": "x"}).boxes == ()
    assert draw({}).view.width > 0


def test_differences_are_marked() -> None:
    """A renamed node is marked as changed, and keeps its edges."""
    nodes = [node("a", "webhook"), node("b"), node("gone", "delay"), node("same", "branch")]
    edges = [{"source": "a", "target": "b"}, {"source": "b", "target": "gone"}]
    old = {
        "nodes": [*nodes, node("was", "transform")],
        "edges": [*edges, {"source": "a", "target": "was"}],
    }
    changed = node("b")
    changed["data"]["config"] = {"url": "https://x.example/"}
    renamed = {**node("was", "transform"), "id": "is"}
    new = {
        "nodes": [node("a", "webhook"), changed, node("same", "branch"), node("new", "terminate"), renamed],
        "edges": [
            {"source": "a", "target": "b"},
            {"source": "b", "target": "new"},
            {"source": "a", "target": "is"},
        ],
    }
    drawn = draw_difference(old, new, diff(old, new))
    marks = {box.id: box.mark for box in drawn.boxes}
    assert marks == {"a": "", "b": "changed", "same": "", "new": "added", "gone": "removed", "is": "changed"}
    assert {(line.source, line.target): line.mark for line in drawn.lines} == {
        ("a", "b"): "", ("b", "new"): "added", ("b", "gone"): "removed", ("a", "is"): "",
    }  # fmt: skip
    assert len({box.key for box in drawn.boxes}) == len(drawn.boxes)


@given(st.text(max_size=200))
def test_highlighting_escapes_the_text(text: str) -> None:
    for name in ("workflow.yaml", "workflow.json"):
        lines = highlighted(text, name).lines
        shown = "\n".join(line.striptags() if "<i" not in line else line.unescape() for line in lines)
        assert "<script" not in shown or "&lt;script" in "".join(lines)


lines = st.lists(
    st.sampled_from(["a: 1", "b: two words", "b: two others", "", "  c: [1, 2]", "d"]), max_size=40
)


@given(lines, lines, st.booleans())
def test_side_by_side_shows_every_changed_line_once(old: list[str], new: list[str], whole: bool) -> None:
    """And, if wanted, all others."""
    a, b = ("".join(line + "\n" for line in side) for side in (old, new))
    rows = side_by_side(a, b, whole=whole)
    skipped = sum(row.count for row in rows if row.kind == "skip")
    assert not (whole and skipped)
    for side, count in ((0, len(old)), (1, len(new))):
        shown = [each for row in rows if (each := (row.old, row.new)[side]) is not None]
        assert len(shown) + skipped == count
        assert ["".join(word for word, _ in each.words) for each in shown] == [
            (old, new)[side][each.number - 1] for each in shown
        ]
    for row in rows:
        if row.kind == "same":
            assert row.old is not None
            assert row.new is not None
            assert row.old.words == row.new.words


def test_words_that_differ_are_marked() -> None:
    (row,) = side_by_side("url: https://a.example/x", "url: https://b.example/x")
    assert row.old is not None
    assert [word for word, differs in row.old.words if differs] == ["a"]


# Limits


def test_a_large_graph_is_truncated() -> None:
    """To its first nodes; of a comparison, changed nodes are drawn first."""
    old = {"nodes": [node(f"n{n}") for n in range(MOST_BOXES + 500)]}
    drawn = draw(old)
    assert (len(drawn.boxes), drawn.left_out) == (MOST_BOXES, 500)
    new = {"nodes": [*old["nodes"][:-1], node(f"n{MOST_BOXES + 499}", "delay"), node("new")]}
    both = draw_difference(old, new, diff(old, new))
    assert both.left_out == 501
    assert {box.id: box.mark for box in both.boxes if box.mark} == {
        f"n{MOST_BOXES + 499}": "changed",
        "new": "added",
    }


def test_a_list_of_changes_has_a_limit() -> None:
    """On its items and on all their fields; the rest is counted."""
    old, new = ({"nodes": [node("a", x=[side] * 20_000)]} for side in (0, 1))
    (item,), more = _listed(diff(old, new))
    assert (len(item.fields) + item.more, more) == (20_000, 0)
    assert len(item.fields) <= 500
    many = {"nodes": [node(f"n{n}") for n in range(5_000)]}
    items, more = _listed(diff({"nodes": []}, many))
    assert len(items) + more == 5_000
    assert len(items) < 200


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a\n" * 50_000, "b\n" * 50_000),
        ("".join(f"{n}\n" for n in range(50_000)), "".join(f"{n + 1}\n" for n in range(50_000))),
        ("x" * 1_000_000, "y" * 1_000_000),
        ("", "\n" * 1_000_000),
        ("a b " * 140 + "\n" + "c d\n" * 9_000, "a c " * 140 + "\n" + "d e\n" * 9_000),
    ],
)
def test_texts_side_by_side_are_truncated(old: str, new: str) -> None:
    """By rows and by characters; the last row counts the omitted lines."""
    rows = side_by_side(old, new)
    words = [word for row in rows for side in (row.old, row.new) if side for word, _ in side.words]
    assert len(rows) <= MOST_ROWS + 1
    assert sum(map(len, words)) < 60_000
    lines = max(len(old.splitlines()), len(new.splitlines()))
    assert sum(row.count or 1 for row in rows) >= lines
    assert len(highlighted(new, "workflow.yaml").lines) <= 4_001
