"""Cycles of a directed graph, found without recursion and in linear time."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

Graph = Mapping[str, Sequence[str]]
"""node -> the successors of the node. Every node is a key."""


def cycles(graph: Graph) -> Iterator[list[str]]:
    """Yield one cycle for each strongly connected component, without repeating its first node.

    It starts at the component's first node in the order of `graph`, and is a shortest cycle through that
    node. An edge from a node to itself is not a cycle here.
    """
    order = {node: position for position, node in enumerate(graph)}
    for knot in _components(graph):
        if len(knot) > 1:
            yield _cycle_through(min(knot, key=order.__getitem__), graph, knot)


def _components(graph: Graph) -> Iterator[set[str]]:
    """Yield the strongly connected components by Tarjan's algorithm, with an explicit stack."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    waiting: list[str] = []
    done: set[str] = set()
    for root in graph:
        if root in index:
            continue
        path = [(root, iter(graph[root]))]
        index[root] = low[root] = len(index)
        waiting.append(root)
        while path:
            node, successors = path[-1]
            for successor in successors:
                if successor not in index:
                    index[successor] = low[successor] = len(index)
                    waiting.append(successor)
                    path.append((successor, iter(graph[successor])))
                    break
                if successor not in done:
                    low[node] = min(low[node], index[successor])
            else:
                path.pop()
                if path:
                    low[path[-1][0]] = min(low[path[-1][0]], low[node])
                if low[node] == index[node]:
                    component = _unwind(waiting, node)
                    done |= component
                    yield component


def _unwind(waiting: list[str], node: str) -> set[str]:
    component = set()
    while node not in component:
        component.add(waiting.pop())
    return component


def _cycle_through(start: str, graph: Graph, knot: set[str]) -> list[str]:
    """Return a shortest cycle from `start`: breadth-first search inside of `knot`."""
    came_from: dict[str, str] = {}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for successor in graph[node]:
            if successor == start and node != start:
                return _way_back(came_from, start, node)
            if successor in knot and successor not in came_from and successor != start:
                came_from[successor] = node
                queue.append(successor)
    return [start]


def _way_back(came_from: dict[str, str], start: str, node: str) -> list[str]:
    way = [node]
    while way[-1] != start:
        way.append(came_from[way[-1]])
    return way[::-1]
