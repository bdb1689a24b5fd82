"""A whole definition checked: findings, their positions and order, for strange and large input, too."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore.definition import document
from gitstore.definition.kinds import KINDS
from gitstore.definition.rules.graph_rules import check
from gitstore.model import Limits, Problem, Rules
from tests.gitstore.rule_samples import chain, edge, graph, judge, node


def codes(value: dict[str, Any]) -> list[str]:
    return [problem.code for problem in judge(value).problems]


def only(value: dict[str, Any]) -> Problem:
    problems = judge(value).problems
    assert len(problems) == 1, problems
    return problems[0]


# Findings and positions


def test_a_problem_has_its_position_and_node() -> None:
    raw = b"""\
nodes:
  - {id: start, type: webhook, position: {x: 0, y: 0}, data: {label: Start}}
  - id: call-api
    type: httpCall
    position: {x: 260, y: 0}
    data:
      label: Call
      config: {method: GET}
  - id: wait
    type: delay
    position: {x: 520, y: 0}
    data:
      label: Wait
      config:
        duration: 0
edges:
  - {source: start, target: call-api}
  - {source: call-api, target: waits}
"""
    definition = document.parse(raw, "workflow.yaml", Rules.MESHHOOK, Limits())
    problems = definition.problems
    assert (
        [(document.describe(problem), problem.line, problem.column) for problem in problems]
        == [(document.describe(problem), problem.line, problem.column) for problem in definition.problems]
        == [
            ('nodes[1] "call-api": url is required for an HTTP call', 8, 15),
            ('nodes[2] "wait": no edge leads here or away from here', 9, 5),
            ('nodes[2] "wait": duration must be a number greater than 0', 15, 19),
            ('edges[1]: target: there is no node "waits"', 18, 32),
        ]
    )
    assert [problem.node for problem in definition.problems] == ["call-api", "wait", "wait", None]
    assert not definition.valid


def test_problems_are_in_document_order() -> None:
    """Also where edges come first, and in JSON."""
    raw = b'{"edges": [{"source": "a", "target": "x"}], "nodes": [{"id": "a", "type": "robot"}]}'
    for file_name in ("workflow.json", "workflow.yaml"):
        problems = document.parse(raw, file_name, Rules.MESHHOOK, Limits()).problems
        assert [problem.code for problem in problems] == [
            "edge_target_unknown",
            "position_missing",
            "label_missing",
            "node_kind_unknown",
        ]


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ("ab ba", 'the graph has a cycle: "a" → "b" → "a"'),
        ("cb ba ac", 'the graph has a cycle: "a" → "c" → "b" → "a"'),
        ("ab bc cd db ca", 'the graph has a cycle: "a" → "b" → "c" → "a"'),
    ],
)
def test_a_cycle_names_its_nodes_in_order(edges: str, message: str) -> None:
    """One for each strongly connected component, from its first node."""
    nodes = sorted(set(edges) - {" "})
    value = graph(*map(node, nodes), edges=tuple(edge(pair[0], pair[1]) for pair in edges.split()))
    assert [problem.message for problem in judge(value).problems if problem.code == "cycle"] == [message]


def test_a_long_cycle_is_shortened() -> None:
    names = [str(n) for n in range(1000)]
    edges = tuple(edge(one, other) for one, other in zip(names, [*names[1:], names[0]], strict=True))
    cycles = [p for p in judge(graph(*map(node, names), edges=edges)).problems if p.code == "cycle"]
    assert len(cycles) == 1
    assert cycles[0].message.endswith('"18" → … 981 more … → "0"')


def test_the_engine_s_kinds_are_those_of_the_editor() -> None:
    assert len(KINDS) == 10
    for kind in {*KINDS, "loopContainer", "http_call"}:
        assert codes(graph(node("a", kind))) == []
    assert only(graph(node("a", "robot"))).message == 'unknown kind "robot"'
    assert only(graph(node("a", "HTTP_Loop"))).message == 'unknown kind "HTTP_Loop"'
    assert only(graph(node("a", "Terminate"))).message == 'unknown kind "Terminate" (did you mean terminate?)'


def test_a_huge_id_is_truncated() -> None:
    """Thousands of problems about a node with an id of a megabyte stay small."""
    name = "x" * 400_000
    value = graph(node(name, "loop", isContainer=True, childNodes=[str(n) for n in range(10_000)]))
    problems = judge(value).problems
    assert problems.total == 10_001
    assert sum(len(p.message) + len(p.node or "") for p in problems) < 5_000_000


# What no rule expects

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.sampled_from(["", "a", "b", "loop", "{{x}}", "webhook"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=6,
)
IDS = st.sampled_from(["a", "b", "c", "d"])


def sometimes(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Mostly one of `values`, now and then anything."""
    return st.one_of(values, values, values, JSON)


CONFIGS = st.fixed_dictionaries(
    {},
    optional={
        **{
            key: sometimes(st.sampled_from(["a", "http://a", "[", "{{a}}"]))
            for key in ("url", "expression", "items")
        },
        "condition": sometimes(st.just("a == `b`")),
        "duration": sometimes(st.integers(-1, 1)),
        "method": JSON,
        "template": JSON,
    },
)
DATA = st.fixed_dictionaries(
    {},
    optional={
        "type": sometimes(st.sampled_from(sorted(KINDS))),
        "label": JSON,
        "config": sometimes(CONFIGS),
        "isContainer": sometimes(st.just(value=True)),
        "childNodes": sometimes(st.lists(sometimes(IDS), max_size=3)),
        "parentContainer": sometimes(IDS),
        "dimensions": sometimes(st.just({"width": 1, "height": 1})),
        "testResult": JSON,
    },
)
NODES = st.fixed_dictionaries(
    {},
    optional={
        "id": sometimes(IDS),
        "type": sometimes(st.sampled_from(["default", *sorted(KINDS)])),
        "data": sometimes(DATA),
        "parentId": JSON,
        "selected": JSON,
    },
)
EDGES = st.fixed_dictionaries(
    {},
    optional={
        "id": sometimes(IDS),
        "source": sometimes(IDS),
        "target": sometimes(IDS),
        "sourceHandle": JSON,
        "targetHandle": JSON,
        "style": JSON,
    },
)
DEFINITIONS = st.fixed_dictionaries(
    {},
    optional={
        "nodes": sometimes(st.lists(sometimes(NODES), max_size=6)),
        "edges": sometimes(st.lists(sometimes(EDGES), max_size=8)),
    },
)


def resolve(value: Any, pointer: str) -> Any:
    for step in pointer.split("/")[1:]:
        value = value[int(step)] if isinstance(value, list) else value[step]
    return value


@given(DEFINITIONS)
def test_the_rules_accept_any_value(value: dict[str, Any]) -> None:
    """For any content, problems are in order, each with a pointer that resolves."""
    definition = judge(value)
    places = [(problem.line or 0, problem.column or 0) for problem in definition.problems]
    assert places == sorted(places)
    for problem in definition.problems:
        assert problem.pointer is not None
        resolve(definition.value, problem.pointer)
        assert "\n" not in document.describe(problem)
    written = document.parse(document.dump(value, "w.json"), "w.json", Rules.MESHHOOK, Limits())
    assert "editor_leftover" not in {problem.code for problem in written.problems}
    assert written.digest == definition.digest


# Cost


def a_star(count: int) -> dict[str, Any]:
    inner = [node(f"n{n}", parentContainer="box") for n in range(count)]
    box = node("box", "loop", isContainer=True, dimensions={"width": 1, "height": 1})
    box["data"]["childNodes"] = [f"n{n}" for n in range(count)]
    return graph(box, *inner, edges=tuple(edge("n0", f"n{n}") for n in range(1, count)))


def copies(count: int) -> dict[str, Any]:
    return graph(*(node("a") for _ in range(count)), edges=tuple(edge("a", "b") for _ in range(count)))


@pytest.mark.parametrize(
    "make",
    [
        lambda count: chain(*(node(f"n{n}") for n in range(count))),
        lambda count: graph(*(node(f"n{n}") for n in range(count))),
        a_star,
        copies,
    ],
    ids=["chain", "apart", "star", "copies"],
)
def test_a_huge_graph_is_judged_in_seconds(make: Callable[[int], dict[str, Any]]) -> None:
    """50,000 nodes: every rule is linear in the size of the definition."""
    value = make(50_000)
    for _ in check(value):
        pass
