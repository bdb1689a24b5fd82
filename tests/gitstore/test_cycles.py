"""Cycles: one for each strongly connected component, in order, in linear time."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitstore.definition.rules.graph_rules import cycles

SIZE = 50_000


@pytest.mark.parametrize(
    ("graph", "expected"),
    [
        ({}, []),
        ({"a": []}, []),
        ({"a": ["a"]}, []),
        ({"a": ["b"], "b": []}, []),
        ({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []}, []),
        ({"a": ["b"], "b": ["a"]}, [["a", "b"]]),
        ({"a": ["a", "b"], "b": ["b", "a"]}, [["a", "b"]]),
        ({"x": ["a"], "a": ["b"], "b": ["c"], "c": ["a", "y"], "y": []}, [["a", "b", "c"]]),
        ({"a": ["b"], "b": ["a", "c"], "c": ["d"], "d": ["c"]}, [["c", "d"], ["a", "b"]]),
    ],
)
def test_each_component_has_one_cycle(graph: dict[str, list[str]], expected: list[list[str]]) -> None:
    """The shortest one through its first node."""
    assert list(cycles(graph)) == expected


@given(st.integers(1, 8).flatmap(lambda n: st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1)))))
def test_cycles_are_found_exactly_in_cyclic_graphs(edges: list[tuple[int, int]]) -> None:
    """Every result is a cycle; without one, the nodes can be put in order."""
    graph: dict[str, list[str]] = {str(end): [] for pair in edges for end in pair}
    for source, target in edges:
        graph[str(source)].append(str(target))
    results = list(cycles(graph))
    for cycle in results:
        assert len(set(cycle)) == len(cycle) > 1
        assert all(after in graph[node] for node, after in zip(cycle, [*cycle[1:], cycle[0]], strict=True))
    if not results:
        assert can_be_put_in_order(graph)


def can_be_put_in_order(graph: dict[str, list[str]]) -> bool:
    left = {node: {after for after in graph[node] if after != node} for node in graph}
    while free := [node for node in left if not left[node] & set(left)]:
        for node in free:
            del left[node]
    return not left


@pytest.mark.parametrize(
    ("edges", "lengths"),
    [
        ([(n, n + 1) for n in range(SIZE - 1)], []),
        ([(n, (n + 1) % SIZE) for n in range(SIZE)], [SIZE]),
        ([pair for n in range(SIZE - 1) for pair in ((n, n + 1), (n + 1, n), (n + 1, 0))], [2]),
        ([pair for n in range(1, SIZE) for pair in ((0, n), (n, 0))], [2]),
        ([pair for n in range(0, SIZE - 1, 2) for pair in ((n, n + 1), (n + 1, n))], [2] * (SIZE // 2)),
    ],
    ids=["chain", "circle", "ladder", "star", "pairs"],
)
def test_time_is_linear(edges: list[tuple[int, int]], lengths: list[int]) -> None:
    """50,000 nodes take less than a second where there is no load, and no stack."""
    graph: dict[str, list[str]] = {str(n): [] for n in range(SIZE)}
    for source, target in edges:
        graph[str(source)].append(str(target))
    start = time.thread_time()
    assert [len(cycle) for cycle in cycles(graph)] == lengths
    assert time.thread_time() - start < 5
