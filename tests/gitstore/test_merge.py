"""Merging two definitions that changed since their common base."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given

from gitstore.definition.document import digest
from gitstore.diff.merge import Conflict, Side, merge
from gitstore.diff.structure import diff
from gitstore.diff.values import ABSENT
from gitstore.model import Rules
from tests.conftest import examples
from tests.gitstore.graphs import edge, graph, node
from tests.gitstore.test_diff_applied import DEFINITIONS, JSON

NODES = (node("start"), node("call", 260, url="https://a.example/"), node("end", 520))
BASE = graph(*NODES, edges=[edge("start", "call")])


def changed(value: dict[str, Any], *path: str | int, to: Any) -> dict[str, Any]:
    """A copy of `value` with another value at `path`."""
    result = copy.deepcopy(value)
    at: Any = result
    for each in path[:-1]:
        at = at[each]
    at[path[-1]] = to
    return result


def paths(conflicts: tuple[Conflict, ...]) -> list[str]:
    return [conflict.path for conflict in conflicts]


def test_changes_of_different_fields_are_merged() -> None:
    """Of one node, of different nodes, and of fields outside of the graph."""
    ours = changed(BASE, "nodes", 1, "data", "config", "url", to="https://b.example/")
    theirs = changed(BASE, "nodes", 1, "data", "config", "method", to="GET")
    theirs = changed(theirs, "nodes", 0, "data", "label", to="Begin") | {"name": "Sync"}
    merged = merge(BASE, ours, theirs)
    assert merged.conflicts == ()
    assert merged.value == changed(theirs, "nodes", 1, "data", "config", "url", to="https://b.example/")


def test_the_same_field_with_two_values_is_a_conflict() -> None:
    """It names the node and the field; theirs is kept until the conflict is decided."""
    field = ("nodes", 1, "data", "config", "url")
    ours, theirs = (changed(BASE, *field, to=f"https://{side}.example/") for side in ("ours", "theirs"))
    merged = merge(BASE, ours, theirs)
    assert merged.conflicts == (
        Conflict(
            "/nodes/call/data/config/url", "call", "https://a.example/", "https://ours.example/",
            "https://theirs.example/",
        ),
    )  # fmt: skip
    assert merged.value == theirs
    for side, expected in ((Side.OURS, ours), (Side.THEIRS, theirs)):
        decided = merge(BASE, ours, theirs, decided={"/nodes/call/data/config/url": side})
        assert (decided.value, decided.conflicts) == (expected, ())


def test_both_sides_add_nodes_and_edges() -> None:
    """All of them are kept, once each, also where both added the same one."""
    nodes, edges = BASE["nodes"], BASE["edges"]
    ours = graph(*nodes, node("mine"), node("both"), edges=[*edges, edge("call", "mine")])
    theirs = graph(node("first"), *nodes, node("both"), edges=[edge("call", "end"), *edges])
    merged = merge(BASE, ours, theirs)
    assert merged.conflicts == ()
    assert [n["id"] for n in merged.value["nodes"]] == ["first", "start", "call", "end", "mine", "both"]
    assert [(e["source"], e["target"]) for e in merged.value["edges"]] == [
        ("call", "end"), ("start", "call"), ("call", "mine"),
    ]  # fmt: skip


def test_a_removed_node_that_the_other_side_changed_is_a_conflict() -> None:
    ours = changed(BASE, "nodes", to=BASE["nodes"][:2])
    theirs = changed(BASE, "nodes", 2, "data", "label", to="Done")
    (conflict,) = merge(BASE, ours, theirs).conflicts
    assert (conflict.path, conflict.ours, conflict.theirs) == ("/nodes/end", ABSENT, theirs["nodes"][2])
    assert merge(BASE, ours, theirs, decided={"/nodes/end": Side.OURS}).value == ours
    (conflict,) = merge(BASE, theirs, ours).conflicts
    assert (conflict.path, conflict.theirs) == ("/nodes/end", ABSENT)
    assert merge(BASE, theirs, ours, decided={"/nodes/end": Side.OURS}).value == theirs


def test_a_removed_node_that_the_other_side_left_is_removed() -> None:
    ours = changed(BASE, "nodes", to=BASE["nodes"][:2])
    theirs = changed(BASE, "nodes", 0, "data", "label", to="Begin")
    assert [n["data"]["label"] for n in merge(BASE, ours, theirs).value["nodes"]] == ["Begin", "Call"]


def test_a_renamed_node_takes_the_other_side_s_changes_along() -> None:
    """References follow, and edges that the other side added."""
    ours = graph(
        node("start"), {**node("call", 260, url="https://a.example/"), "id": "request"}, node("end", 520),
        edges=[edge("start", "request", id="start-call")],
    )  # fmt: skip
    theirs = changed(BASE, "nodes", 1, "data", "config", "method", to="GET")
    theirs["edges"].append(edge("call", "end"))
    merged = merge(BASE, ours, theirs)
    assert merged.conflicts == ()
    assert [n["id"] for n in merged.value["nodes"]] == ["start", "request", "end"]
    assert merged.value["nodes"][1]["data"]["config"]["method"] == "GET"
    assert [(e["source"], e["target"]) for e in merged.value["edges"]] == [
        ("start", "request"), ("request", "end"),
    ]  # fmt: skip


def test_two_new_positions_of_a_node_are_no_conflict() -> None:
    """Layout affects no run: ours counts."""
    ours = changed(BASE, "nodes", 0, "position", to={"x": 10, "y": 0})
    theirs = changed(BASE, "nodes", 0, "position", to={"x": 0, "y": 10})
    merged = merge(BASE, ours, theirs)
    assert (merged.conflicts, merged.value["nodes"][0]["position"]) == ((), {"x": 10, "y": 10})
    moved = changed(BASE, "nodes", 0, "position", to={"x": 11, "y": 0})
    assert merge(BASE, ours, moved).value["nodes"][0]["position"] == {"x": 10, "y": 0}


def test_one_side_s_new_order_is_kept() -> None:
    """With the other side's changes."""
    ours = changed(BASE, "nodes", to=BASE["nodes"][::-1])
    theirs = changed(BASE, "nodes", 0, "data", "label", to="Begin")
    for one, other in ((ours, theirs), (theirs, ours)):
        merged = merge(BASE, one, other)
        assert [n["data"]["label"] for n in merged.value["nodes"]] == ["End", "Call", "Begin"]


def test_steps_without_ids_are_merged_by_their_content() -> None:
    """In a project with the rules `any`, as for GitHub Actions."""
    base = {"jobs": {"test": {"steps": [{"uses": "checkout@v2"}, {"run": "make"}, {"run": "make test"}]}}}
    steps = ("jobs", "test", "steps")
    ours = changed(base, *steps, 0, "uses", to="checkout@v3")
    inserted = [{"uses": "checkout@v2"}, {"run": "make"}, {"run": "lint"}, {"run": "make test"}]
    theirs = changed(base, *steps, to=inserted)
    merged = merge(base, ours, theirs, Rules.ANY)
    assert merged.conflicts == ()
    assert merged.value["jobs"]["test"]["steps"] == [
        {"uses": "checkout@v3"}, {"run": "make"}, {"run": "lint"}, {"run": "make test"},
    ]  # fmt: skip


def test_a_value_that_changed_its_type_is_one_conflict() -> None:
    ours = changed(BASE, "nodes", 1, "data", "config", to="{{shared}}")
    theirs = changed(BASE, "nodes", 1, "data", "config", "method", to="GET")
    assert paths(merge(BASE, ours, theirs).conflicts) == ["/nodes/call/data/config"]


@pytest.mark.parametrize("rules", [Rules.MESHHOOK, Rules.ANY])
@examples(60)
@given(base=DEFINITIONS, ours=DEFINITIONS, theirs=DEFINITIONS)
def test_properties_of_a_merge(rules: Rules, base: Any, ours: Any, theirs: Any) -> None:
    """A side that changed nothing yields to the other; equal changes agree; each conflict can be decided."""
    kept = copy.deepcopy((base, ours, theirs))
    for merged, expected in (
        (merge(base, ours, base, rules), ours),
        (merge(base, base, theirs, rules), theirs),
        (merge(base, ours, ours, rules), ours),
    ):
        assert merged.conflicts == ()
        assert digest(merged.value, rules) == digest(expected, rules)
    merged = merge(base, ours, theirs, rules)
    for side in Side:
        decided = merge(base, ours, theirs, rules, dict.fromkeys(paths(merged.conflicts), side))
        assert decided.conflicts == ()
    assert (base, ours, theirs) == kept


@examples(60)
@given(base=DEFINITIONS, first=JSON, second=JSON)
def test_a_change_of_one_side_reaches_the_merge(base: Any, first: Any, second: Any) -> None:
    """Both changes, whatever they are, where each side changed a key of its own."""
    ours, theirs = {**base, "ours": first}, {**base, "theirs": second}
    merged = merge(base, ours, theirs)
    assert merged.conflicts == ()
    assert diff(merged.value, {**base, "ours": first, "theirs": second}).empty
