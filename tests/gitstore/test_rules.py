"""Every rule of docs/definition.md, broken and kept."""

from __future__ import annotations

from typing import Any

import pytest

from gitstore.definition.kinds import KINDS
from tests.gitstore.rule_samples import chain, edge, graph, judge, node

WARNINGS = {
    "node_kind_unknown",
    "position_missing",
    "label_missing",
    "edges_null",
    "duplicate_edge",
    "editor_leftover",
}
PROBE = "probe"


def configured(kind: str, **config: Any) -> dict[str, Any]:
    """One node of `kind` with this config."""
    return graph(node(PROBE, kind, config=config))


def contained(
    *, lists: Any = ("in-1", "in-2"), parents: Any = ("box", "box"), edges: Any = ()
) -> dict[str, Any]:
    """A container with two nodes that name it as their parent, and a node outside."""
    box = node("box", "loop", isContainer=True, dimensions={"width": 1, "height": 1}, childNodes=list(lists))
    inner = [node(f"in-{n}", parentContainer="box") for n in (1, 2)]
    return graph(node("out"), box, *inner, edges=(edge("out", "box"), *edges))


def loop(**data: Any) -> dict[str, Any]:
    whole = {"isContainer": True, "dimensions": {"width": 1, "height": 1}, "childNodes": []}
    return graph(node("box", "loop", **(whole | data)))


def two_containers(crossing: dict[str, Any]) -> dict[str, Any]:
    """Two containers with a node each, joined by an edge, and an edge more."""
    size = {"width": 1, "height": 1}
    boxes = [
        node(f"box-{n}", "loop", isContainer=True, dimensions=size, childNodes=[f"in-{n}"]) for n in (1, 2)
    ]
    inner = [node(f"in-{n}", parentContainer=f"box-{n}") for n in (1, 2)]
    return graph(*boxes, *inner, edges=(edge("box-1", "box-2"), crossing))


def nested_containers() -> dict[str, Any]:
    """A container inside another, entered from outside of both, and left to there."""
    size = {"width": 1, "height": 1}
    outer = node("outer", "loop", isContainer=True, dimensions=size, childNodes=["inner"])
    inner = node("inner", "loop", isContainer=True, dimensions=size, childNodes=[], parentContainer="outer")
    return graph(node("a"), outer, inner, node("b"), edges=(edge("a", "inner"), edge("inner", "b")))


AN_HTTP_CALL = {"url": "https://a.example/x", "method": "GET"}
FINE = chain(node("a"), node("b", "httpCall", config=AN_HTTP_CALL), node("c", "terminate"))

# code, a definition that breaks this rule alone, the pointer of the problem
BROKEN: list[tuple[str, dict[str, Any], str]] = [
    ("nodes_not_a_list", {"nodes": {}}, "/nodes"),
    ("nodes_not_a_list", {"nodes": "x"}, "/nodes"),
    ("nodes_not_a_list", {"nodes": {"a": {}, "b": {}}, "edges": [edge("a", "b")]}, "/nodes"),
    ("edges_not_a_list", graph(node("a"), edges={"x": 1}), "/edges"),
    ("edges_not_a_list", graph(node("a"), edges=0), "/edges"),
    ("edges_not_a_list", graph(node("a"), node("b"), edges="a -> b"), "/edges"),
    ("node_not_a_mapping", graph(node("a"), "x"), "/nodes/1"),
    ("node_not_a_mapping", graph(None, node("a")), "/nodes/0"),
    ("edge_not_a_mapping", graph(node("a"), edges=(["x"],)), "/edges/0"),
    ("id_not_a_string", graph(node("a") | {"id": 1}), "/nodes/0/id"),
    ("id_not_a_string", graph(node("a") | {"id": {"x": []}}), "/nodes/0/id"),
    ("id_not_a_string", chain(node("a"), node("b")) | {"edges": [edge("a", "b", id=3)]}, "/edges/0/id"),
    ("id_not_a_string", loop(childNodes=[1]), "/nodes/0/data/childNodes/0"),
    ("id_not_a_string", graph(node("a", parentContainer=[])), "/nodes/0/data/parentContainer"),
    ("no_nodes", {}, ""),
    ("no_nodes", {"nodes": []}, "/nodes"),
    ("no_nodes", {"nodes": None, "edges": []}, "/nodes"),
    ("node_id_missing", graph({"type": "webhook", "position": {}, "data": {"label": "x"}}), "/nodes/0"),
    ("node_id_missing", graph(node("a") | {"id": ""}), "/nodes/0/id"),
    ("node_id_duplicate", graph(node("a"), node("b"), node("a"), edges=(edge("a", "b"),)), "/nodes/2/id"),
    ("node_type_missing", graph({"id": "a", "position": {}, "data": {"label": "x"}}), "/nodes/0"),
    ("node_type_missing", graph({"id": "a", "position": {}, "data": {"label": "x", "type": "delay"}}),
     "/nodes/0"),
    ("node_type_missing", graph(node("a") | {"type": None}), "/nodes/0/type"),
    ("node_type_missing", graph(node("a") | {"type": 5}), "/nodes/0/type"),
    ("http_url_missing", configured("httpCall", method="GET"), "/nodes/0/data/config"),
    ("http_url_missing", configured("http_call", url="", method="GET"), "/nodes/0/data/config/url"),
    ("http_url_invalid", configured("httpCall", url="ftp://a", method="GET"), "/nodes/0/data/config/url"),
    ("http_url_invalid", configured("httpCall", url=5, method="GET"), "/nodes/0/data/config/url"),
    ("http_method_missing", configured("httpCall", url="http://a.example"), "/nodes/0/data/config"),
    ("http_method_missing", configured("httpCall", url="{{a}}", method=None), "/nodes/0/data/config/method"),
    ("http_method_missing", configured("httpCall", url="{{a}}", method=0), "/nodes/0/data/config/method"),
    ("transform_empty", configured("transform"), "/nodes/0/data/config"),
    ("transform_empty", configured("transform", expression="", template=None), "/nodes/0/data/config"),
    ("transform_empty", graph(node("a", "transform", config=[1])), "/nodes/0/data/config"),
    ("expression_invalid", configured("transform", expression="a."), "/nodes/0/data/config/expression"),
    ("expression_invalid", configured("transform", expression=["a"]), "/nodes/0/data/config/expression"),
    ("expression_invalid", configured("loop", items="[*"), "/nodes/0/data/config/items"),
    ("expression_invalid", configured("conditional", condition="a === b"), "/nodes/0/data/config/condition"),
    ("delay_duration_invalid", configured("delay"), "/nodes/0/data/config"),
    ("delay_duration_invalid", configured("delay", duration=0), "/nodes/0/data/config/duration"),
    ("delay_duration_invalid", configured("delay", duration=-1.5), "/nodes/0/data/config/duration"),
    ("delay_duration_invalid", configured("delay", duration="5"), "/nodes/0/data/config/duration"),
    ("delay_duration_invalid", configured("delay", duration=True), "/nodes/0/data/config/duration"),
    ("condition_missing", configured("conditional"), "/nodes/0/data/config"),
    ("condition_missing", configured("conditional", condition=""), "/nodes/0/data/config/condition"),
    ("loop_items_missing", configured("loop"), "/nodes/0/data/config"),
    ("loop_items_missing", configured("loopContainer", items=None), "/nodes/0/data/config/items"),
    ("container_dimensions_missing", loop(dimensions=None), "/nodes/0/data/dimensions"),
    ("container_dimensions_missing", loop(dimensions={"width": 1}), "/nodes/0/data/dimensions"),
    ("container_dimensions_missing", loop(dimensions={"width": "", "height": 1}), "/nodes/0/data/dimensions"),
    ("container_dimensions_missing", loop(dimensions={"width": 0, "height": 0}), "/nodes/0/data/dimensions"),
    ("container_dimensions_missing", loop(dimensions={"width": 5, "height": 0.0}),
     "/nodes/0/data/dimensions"),
    ("container_children_missing", loop(childNodes=None), "/nodes/0/data/childNodes"),
    ("container_children_missing", loop(childNodes={}), "/nodes/0/data/childNodes"),
    ("edge_source_missing", chain(node("a")) | {"edges": [{"target": "a"}, edge("a", "")]}, "/edges/0"),
    ("edge_target_missing", graph(node("a"), edges=(edge("a", ""),)), "/edges/0/target"),
    ("edge_source_unknown", graph(node("a"), node("b"), edges=(edge("x", "a"), edge("b", "a"))),
     "/edges/0/source"),
    ("edge_target_unknown", graph(node("a"), edges=(edge("a", "x"),)), "/edges/0/target"),
    ("edge_self_loop", graph(node("a"), node("b"), edges=(edge("a", "b"), edge("b", "b"))), "/edges/1"),
    ("edge_id_duplicate", chain(node("a"), node("b"), node("c"))
     | {"edges": [edge("a", "b", id="e"), edge("b", "c", id="e")]}, "/edges/1/id"),
    ("cycle", graph(node("a"), node("b"), node("c"), edges=(edge("a", "b"), edge("b", "c"), edge("c", "b"))),
     "/nodes/1"),
    ("node_unconnected", graph(node("a"), node("b"), node("c"), edges=(edge("a", "b"),)), "/nodes/2"),
    ("no_trigger", graph(node("a"), edges=(edge("a", "a"),)), "/nodes"),
    ("container_child_unknown", contained(lists=("in-1", "in-2", "gone")), "/nodes/1/data/childNodes/2"),
    ("container_child_mismatch", contained(lists=("in-1", "in-2", "out")), "/nodes/1/data/childNodes/2"),
    ("parent_unknown", graph(node("a", parentContainer="gone")), "/nodes/0/data/parentContainer"),
    ("parent_unknown", chain(node("a"), node("b")) | {"nodes": [node("a"), node("b", parentContainer="a")]},
     "/nodes/1/data/parentContainer"),
    ("parent_mismatch", contained(lists=("in-1",)), "/nodes/3/data/parentContainer"),
    ("edge_crosses_container", contained(edges=(edge("out", "in-1"),)), "/edges/1"),
    ("edge_crosses_container", contained(edges=(edge("in-1", "out"),)), "/edges/1"),
    ("edge_crosses_container", contained(edges=(edge("in-1", "box"),)), "/edges/1"),
    ("edge_crosses_container", two_containers(edge("in-1", "box-2")), "/edges/1"),
    ("edge_crosses_container", two_containers(edge("in-1", "in-2")), "/edges/1"),
    ("node_kind_unknown", graph(node("a", "robot")), "/nodes/0/type"),
    ("node_kind_unknown", graph(node("a", "default", type="robot")), "/nodes/0/type"),
    ("node_kind_unknown", graph(node("a", "default")), "/nodes/0/type"),
    ("label_missing", graph({"id": "a", "type": "webhook", "position": {}}), "/nodes/0"),
    ("label_missing", graph({"id": "a", "type": "webhook", "position": {}, "data": [1]}), "/nodes/0/data"),
    ("label_missing", graph(node("a", label="")), "/nodes/0/data/label"),
    ("position_missing", graph(node("a") | {"position": None}), "/nodes/0/position"),
    ("position_missing", graph({"id": "a", "type": "webhook", "data": {"label": "a"}}), "/nodes/0"),
    ("edges_null", graph(node("a"), edges=None), "/edges"),
    ("duplicate_edge", graph(node("a"), node("b"), edges=(edge("a", "b"), edge("a", "b"))), "/edges/1"),
    ("duplicate_edge", graph(node("a"), node("b"), edges=(edge("a", "b", sourceHandle=None), edge("a", "b"))),
     "/edges/1"),
    ("editor_leftover", graph(node("a", testResult={"x": 1})), "/nodes/0/data/testResult"),
    ("editor_leftover", graph(node("a", loopInput=None)), "/nodes/0/data/loopInput"),
    ("editor_leftover", graph(node("a", loopOutput=[])), "/nodes/0/data/loopOutput"),
    ("editor_leftover", graph(node("a") | {"selected": False}), "/nodes/0/selected"),
    ("editor_leftover", graph(node("a") | {"dragging": True}), "/nodes/0/dragging"),
    ("editor_leftover", graph(node("a") | {"measured": {}}), "/nodes/0/measured"),
    ("editor_leftover", graph(node("a"), node("b"), edges=(edge("a", "b", selected=True),)),
     "/edges/0/selected"),
]  # fmt: skip

# Rules that can't be broken without breaking another.
ALONG = {
    "edge_source_missing": {"edge_target_missing", "no_trigger"},
    "parent_unknown": {"edge_crosses_container"},
    "no_trigger": {"edge_self_loop"},
    "edge_crosses_container": {"cycle"},
}


@pytest.mark.parametrize(("code", "value", "pointer"), BROKEN, ids=[f"{code}-{p}" for code, _, p in BROKEN])
def test_a_broken_rule_is_reported(code: str, value: dict[str, Any], pointer: str) -> None:
    """With its code and pointer, as an error or a warning, and without other problems."""
    problems = judge(value).problems
    assert (code, pointer) in [(problem.code, problem.pointer) for problem in problems]
    assert {problem.code for problem in problems} <= {code} | ALONG.get(code, set())
    assert all(problem.error == (problem.code not in WARNINGS) for problem in problems)


KEPT: dict[str, dict[str, Any]] = {
    "the example": FINE,
    "no edges": {"nodes": [node("a")]},
    "unknown keys": graph(node("a") | {"x": 1}) | {"y": [2]},
    "without a config nothing is asked of it": chain(*(node(kind, kind) for kind in sorted(KINDS))),
    "config: null": graph(node("a", "httpCall", config=None)),
    "config of another kind": configured("webhook", url=5, duration=-1, items="["),
    "the kind in data.type": graph(node("a", "default", type="httpCall", config=AN_HTTP_CALL)),
    "type wins over data.type": graph(node("a", "webhook", type="httpCall", config={})),
    "a template": configured("transform", template="{{a}}"),
    "an expression": configured("transform", expression="a[?b > `1`].c | [0]"),
    "a quoted literal": configured("conditional", condition='status == `"success"`'),
    "MeshHook's placeholder": configured("conditional", condition="status == `success`"),
    "a fraction of a second": configured("delay", duration=0.5),
    "a loop's items": configured("loop", items="data.items[*]"),
    "a loop that is no container": configured("loop", items="a"),
    "a container": contained(),
    "an edge inside of a container": contained(edges=(edge("in-1", "in-2"),)),
    "edges to and from a container inside another": nested_containers(),
    "an edge out of a container": chain(
        loop()["nodes"][0] | {"id": "x"}, loop()["nodes"][0] | {"id": "y"}, node("z")
    ),
    "a node with a parentId": graph(
        node("a"), node("b"), node("c") | {"parentId": "a"}, edges=(edge("a", "b"),)
    ),
    "two edges with other handles": graph(
        node("a"),
        node("b"),
        edges=(edge("a", "b", sourceHandle="yes", id="1"), edge("a", "b", sourceHandle="no", id="2")),
    ),
    "edges without ids": chain(node("a"), node("b"), node("c")),
    "a diamond": graph(
        *(node(name) for name in "abcd"),
        edges=(edge("a", "b"), edge("a", "c"), edge("b", "d"), edge("c", "d")),
    ),
}


@pytest.mark.parametrize("name", KEPT)
def test_a_definition_that_keeps_the_rules_has_no_problem(name: str) -> None:
    """Not even a warning."""
    assert judge(KEPT[name]).problems == ()
