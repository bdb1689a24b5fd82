"""The difference of two definitions: its list of changes, and its summary."""

from __future__ import annotations

import copy
import time
from typing import Any

import pytest

from gitstore.definition.document import digest, parse
from gitstore.diff.structure import Diff, apply, diff
from gitstore.diff.summary import LONGEST, summary
from gitstore.diff.values import ABSENT, Op
from gitstore.model import Limits, Rules
from tests.gitstore.graphs import edge, graph, node

LIMITS = Limits()


ABC = graph(
    node("a", url="https://a"),
    node("b"),
    node("c"),
    edges=[edge("a", "b"), edge("b", "c")],
    name="Order sync",
)


def changed(**parts: Any) -> dict[str, Any]:
    """Return ABC with other parts."""
    return {**copy.deepcopy(ABC), **parts}


NODES: list[Any] = ABC["nodes"]
SENTENCES = {
    "nothing": (ABC, "no change"),
    "formatting": (dict(reversed(ABC.items())), "no change"),
    "a key": (changed(nodes=[node("a", url="https://b"), *NODES[1:]]), "url of a changed"),
    "a new key": (changed(nodes=[node("a", url="https://a", timeout=3), *NODES[1:]]), "timeout of a added"),
    "a key less": (changed(nodes=[node("a"), *NODES[1:]]), "url of a removed"),
    "two keys": (
        changed(nodes=[node("a", url="https://b", headers="{}"), *NODES[1:]]),
        "headers and url of a changed",
    ),
    "four keys": (changed(nodes=[node("a", u=1, v=2, w=3), *NODES[1:]]), "4 fields of a changed"),
    "many nodes": (changed(nodes=[node(n["id"], z=1) for n in [*NODES, node("d")]]), "1 node added, "
                   "url and z of a changed, z of b added, z of c added"),
    "nodes and edges": (
        changed(nodes=[*NODES, node("d"), node("e", z=1)], edges=[ABC["edges"][0]]),
        "2 nodes added, 1 edge removed",
    ),
    "all of it": (
        changed(nodes=[node("a", url="https://b"), *NODES[1:], node("d"), node("e", z=1)], edges=[]),
        "2 nodes added, url of a changed, 2 edges removed",
    ),
    "a node less": (changed(nodes=NODES[:2], edges=[]), "1 node removed, 2 edges removed"),
    "layout": (changed(nodes=[node("a", x=7, url="https://a"), *NODES[1:]]), "only the layout changed"),
    "leftovers": (changed(nodes=[{**NODES[0], "selected": True}, *NODES[1:]]), "only the layout changed"),
    "order": (changed(nodes=NODES[::-1]), "nodes reordered"),
    "the name": (changed(name="Orders", description=""), "description added, name changed"),
    "an edge's label": (changed(edges=[edge("a", "b", label="x"), ABC["edges"][1]]), "1 edge changed"),
    "another handle": (
        changed(edges=[edge("a", "b", sourceHandle="yes"), ABC["edges"][1]]),
        "1 edge added, 1 edge removed",
    ),
    "no edges at all": (graph(*NODES, name="Order sync") | {"edges": None}, "edges changed"),
}  # fmt: skip


@pytest.mark.parametrize("case", SENTENCES)
def test_a_difference_is_summarized_in_one_sentence(case: str) -> None:
    """It is the default message of a draft's commit."""
    other, sentence = SENTENCES[case]
    assert summary(diff(ABC, other)) == sentence


def test_layout_is_included_on_request() -> None:
    """Positions and leftovers are then changes like others, and the summary separates them."""
    other = changed(
        nodes=[node("a", x=7, url="https://a"), *NODES[1:]],
        edges=[{**ABC["edges"][0], "id": "e"}, ABC["edges"][1]],
    )
    difference = diff(ABC, other, layout=True)
    (moved,) = difference.of("node", "changed")
    assert [(change.pointer, change.before, change.after) for change in moved.changes] == [
        ("/position/x", 0, 7)
    ]
    (named,) = difference.of("edge", "changed")
    assert [change.pointer for change in named.changes] == ["/id"]
    assert summary(difference) == "only the layout changed"
    assert apply(difference, ABC) == other
    both = changed(nodes=[node("a", x=7, url="https://b"), node("b", x=9), NODES[2]])
    assert summary(diff(ABC, both, layout=True)) == "url of a changed, layout changed"


def test_a_change_has_its_pointer_and_both_values() -> None:
    """Pointers are escaped (RFC 6901), begin at the node, and lead into the newer definition."""
    old, new = (
        {"id": "a", "data": {"a/b~c": {"d": [1, inner]}}} for inner in ({"e": None}, {"e": True, "f": []})
    )
    difference = diff(graph(old), graph(node("z", q=1), new))
    (altered,) = difference.of("node", "changed")
    assert (altered.old_pointer, altered.pointer, altered.value["id"]) == ("/nodes/0", "/nodes/1", "a")
    at = "/data/a~1b~0c/d/1"
    assert [(c.op, c.pointer, c.before, c.after) for c in altered.changes] == [
        (Op.REPLACE, f"{at}/e", None, True),
        (Op.ADD, f"{at}/f", ABSENT, []),
    ]
    (added,) = difference.of("node", "added")
    assert (added.pointer, added.value["id"]) == ("/nodes/0", "z")


def test_true_differs_from_1_and_1_equals_1_0() -> None:
    """As in the digest (RFC 8785), unlike in Python."""
    assert diff({"n": 1}, {"n": 1.0}).empty
    assert not diff({"n": 1}, {"n": True}).empty
    assert not diff({"n": {"m": [0]}}, {"n": {"m": [False]}}).empty


def test_a_renamed_node_is_one_change() -> None:
    """References to it in edges, children and containers follow, and are no changes."""

    def container(name: str, child: str) -> dict[str, Any]:
        data = {"type": "loop", "isContainer": True, "childNodes": [child, "other"], "label": "Each"}
        return {"id": name, "data": data}

    def child(name: str, parent: str) -> dict[str, Any]:
        return {"id": name, "type": "delay", "parentId": parent, "data": {"parentContainer": parent}}

    old = graph(container("l", "x"), child("x", "l"), node("a"), edges=[edge("a", "l"), edge("l", "a")])
    new = graph(
        container("loop", "x"), child("x", "loop"), node("a"), edges=[edge("a", "loop"), edge("loop", "a")]
    )
    difference = diff(old, new)
    (renamed,) = difference.items
    (change,) = renamed.changes
    assert (renamed.effect, renamed.pointer) == ("renamed", "/nodes/0")
    assert (change.before, change.after) == ("l", "loop")
    assert summary(difference) == "l renamed to loop"
    assert digest(apply(difference, old), Rules.MESHHOOK) == digest(new, Rules.MESHHOOK)
    inner = graph(container("l", "y"), child("y", "l"), node("a"), edges=old["edges"])
    assert summary(diff(old, inner)) == "x renamed to y"


def test_a_node_with_a_new_id_and_new_content_is_a_new_node() -> None:
    """And so are its edges. An id that several nodes share identifies none of them."""
    new = graph(
        node("z", url="https://z"), *NODES[1:], edges=[edge("z", "b"), edge("b", "c")], name="Order sync"
    )
    assert summary(diff(ABC, new)) == "1 node added, 1 node removed, 1 edge added, 1 edge removed"
    twins = graph(node("a"), node("a"))
    assert diff(twins, graph(node("b"), node("b"))).of("node", "renamed") == []


def test_rules_any_compare_keys() -> None:
    """Items of lists are matched by unique id or name, else by content, similarity and position."""

    def changes_of(a: Any, b: Any) -> list[tuple[str, str, Any, Any]]:
        difference = diff({"x": a}, {"x": b}, Rules.ANY)
        assert apply(difference, {"x": a}) == {"x": b}
        return [(c.op.value, c.pointer, c.before, c.after) for item in difference.items for c in item.changes]

    one, two = {"name": "one", "n": 1}, {"name": "two", "n": 2}
    assert changes_of([one, two], [{**two, "n": 3}, one]) == [
        ("replace", "/x/0/n", 2, 3), ("reorder", "/x", [0, 1], [1, 0]),
    ]  # fmt: skip
    assert changes_of([one, two], [two]) == [("remove", "/x/0", one, ABSENT)]
    assert changes_of([{"id": 1}, {"id": 1, "a": 1}], [{"id": 1}]) == [
        ("remove", "/x/1", {"id": 1, "a": 1}, ABSENT)
    ]
    assert changes_of([1, 2, 3, 4], [1, 9, 3, 4, 5]) == [
        ("replace", "/x/1", 2, 9),
        ("add", "/x/4", ABSENT, 5),
    ]
    assert changes_of([2, 3, 4], [1, 2, 3, 4]) == [("add", "/x/0", ABSENT, 1)]
    assert summary(diff({"steps": [{"u": 1}]}, {"steps": [{"u": 2}]}, Rules.ANY)) == "steps.0.u changed"
    # There is no layout with these rules.
    assert not diff({"nodes": [{"position": 1}]}, {"nodes": [{"position": 2}]}, Rules.ANY).empty


STEPS: list[dict[str, Any]] = [
    {"uses": "actions/checkout@v2"},
    {"name": "Set up", "uses": "actions/setup-node@v3", "with": {"node": 16}},
    {"run": "npm ci\nnpm audit\nnpm ls", "shell": "bash"},
    {"run": "npm test"},
    {"name": "Lint", "run": "npm run lint"},
]
NEW = {"run": "echo hi"}
LISTS: dict[str, tuple[list[Any], list[str], str]] = {
    "a step between": ([*STEPS[:2], NEW, *STEPS[2:]], ["add 2"], "jobs.build.steps.2 added"),
    "a named step between": (
        [*STEPS[:2], {"name": "New", **NEW}, *STEPS[2:]], ["add 2"], "New added to jobs.build.steps",
    ),
    "a step before a changed one": (
        [*STEPS[:2], NEW, {"run": "npm ci\nnpm audit\nnpm ls -a", "shell": "bash"}, *STEPS[3:]],
        ["replace 3/run", "add 2"], "jobs.build.steps.3.run changed, jobs.build.steps.2 added",
    ),
    "a name less": (
        [STEPS[0], {"uses": "actions/setup-node@v3", "with": {"node": 16}}, *STEPS[2:]],
        ["remove 1/name"], 'name of "Set up" in build removed',
    ),
    "a name more, behind a new step": (
        [NEW, *STEPS[:3], {"name": "Test", "run": "npm test"}, STEPS[4]],
        ["add 4/name", "add 0"], "name of Test in build added, jobs.build.steps.0 added",
    ),
    "another name": (
        [*STEPS[:4], {"name": "Style", "run": "npm run lint"}], ["replace 4/name"],
        "Lint renamed to Style in build",
    ),
    "a named step replaced": (
        [*STEPS[:4], {"name": "Deploy", "run": "./deploy"}], ["remove 4", "add 4"],
        "Lint removed from jobs.build.steps, Deploy added to jobs.build.steps",
    ),
    "a named step moved": ([STEPS[4], *STEPS[:4]], ["reorder"], "jobs.build.steps reordered"),
    "a version": (
        [{"uses": "actions/checkout@v3"}, *STEPS[1:]], ["replace 0/uses"], "checkout@v2 → v3 in build",
    ),
    "a field": (
        [STEPS[0], {**STEPS[1], "with": {"node": 18}}, *STEPS[2:]],
        ["replace 1/with/node"], 'with.node of "Set up" in build changed',
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LISTS)
def test_items_of_a_list_are_matched_by_similarity(case: str) -> None:
    """With the rules `any`, whether or not all have a name. The summary names the item and the field."""
    new, expected, sentence = LISTS[case]
    a, b = ({"jobs": {"build": {"steps": steps}}} for steps in (STEPS, new))
    difference = diff(a, b, Rules.ANY)
    changes = [change for item in difference.items for change in item.changes]
    at = len("/jobs/build/steps/")
    assert [f"{change.op} {change.pointer[at:]}".rstrip() for change in changes] == expected
    assert summary(difference) == sentence
    assert apply(difference, a) == b


def test_a_renamed_key_is_one_phrase() -> None:
    """If its value is a mapping or a list, and has not changed."""
    a = {"jobs": {"build": {"steps": STEPS}, "x": 1}}
    assert (
        summary(diff(a, {"jobs": {"compile": {"steps": STEPS}, "x": 1}}, Rules.ANY))
        == "build renamed to compile"
    )
    assert (
        summary(diff(a, {"jobs": {"build": {"steps": STEPS}, "y": 1}}, Rules.ANY))
        == "jobs.x removed, jobs.y added"
    )


def test_a_phrase_is_written_once() -> None:
    nodes: list[Any] = [{"id": 1, "a": 1}, {"id": 2, "a": 1}]
    other = [{**node, "a": 2} for node in nodes]
    assert summary(diff(graph(*nodes), graph(*other))) == "a of a node changed (2 times)"


def test_many_fields_are_named_in_part() -> None:
    a, b = ({f"k{n}": value for n in range(9)} for value in (1, 2))
    assert summary(diff(a, b, Rules.ANY)) == "k0 changed, k1 changed, k2 changed, 6 other fields changed"


def test_a_summary_shows_no_values_but_versions() -> None:
    """A reference whose version is no plain number is not shown."""
    for old, new in (
        ("tool@s3cret", "tool@s3cret2"),
        ("tool@v1", "other@v1"),
        ("https://u:p@v1", "https://u:q@v2"),
    ):
        a, b = ({"steps": [{"name": "x", "uses": value}]} for value in (old, new))
        assert summary(diff(a, b, Rules.ANY)) == "uses of x changed"


def test_large_lists_are_matched_in_bounded_time() -> None:
    """Of items without anything in common."""
    a, b = ([{"x": [{f"k{n}": f"{side}{n}"} for n in range(20)]} for _ in range(1_000)] for side in "ab")
    start = time.thread_time()
    difference = diff({"x": a}, {"x": b}, Rules.ANY)
    assert time.thread_time() - start < 4
    assert apply(difference, {"x": a}) == {"x": b}


def test_reordered_nodes_are_one_change() -> None:
    """It holds the old indices in the new order."""
    difference = diff(ABC, changed(nodes=[NODES[2], node("n"), NODES[0], NODES[1]]))
    (reordered,) = difference.of("node", "reordered")
    assert [change.after for change in reordered.changes] == [[2, 0, 1]]
    assert [each.pointer for each in difference.of("node", "added")] == ["/nodes/1"]


@pytest.mark.parametrize(
    "nodes", [None, 7, {"a": 1}, [None, 7, [], {}, {"id": 3}, {"id": ""}, {"id": "a", "data": 4}]]
)
def test_nodes_that_are_no_list_of_nodes_are_compared_by_keys(nodes: Any) -> None:
    """A draft may hold any value that parses."""
    other = {"nodes": nodes, "edges": nodes}
    for a, b in ((ABC, other), (other, ABC), (other, {}), ({}, other)):
        difference = diff(a, b)
        assert not difference.empty
        assert digest(apply(difference, a), Rules.MESHHOOK) == digest(b, Rules.MESHHOOK)
        assert len(summary(difference)) <= LONGEST


def test_summaries_are_short_and_printable_for_any_names() -> None:
    """Names that are too long are replaced by counts."""
    wild = "\x1b[31m\n" + "x" * 500
    difference = diff(graph(node(wild)), graph(node(wild, **{wild: 1}), node("b")), layout=True)
    assert summary(difference).startswith("1 node added, ")
    assert summary(difference).isprintable()
    many = graph(*(node(f"{n}" + "y" * 60) for n in range(3)))
    longer = graph(*(node(f"{n}" + "y" * 60, **{"k" * 60 + k: 1 for k in "abc"}) for n in range(3)))
    assert summary(diff(many, longer)) == "3 nodes changed"


def test_parsed_definitions_are_compared() -> None:

    def value(text: str) -> Any:
        return parse(text.encode(), "workflow.yaml", Rules.MESHHOOK, LIMITS).value

    difference: Diff = diff(
        value("nodes: [{id: a, type: webhook}]"), value("nodes: [{id: a, type: schedule}]")
    )
    assert summary(difference) == "type of a changed"
