"""The rules of docs/definition.md on edges and the graph; `check` also runs those on nodes (`node_rules`).

`check` accepts any mapping that parses, with any content. A rule's code is defined where it is reported; the
message describes the problem without its location, which `Problem.pointer` and `Problem.node` have.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gitstore import budget
from gitstore.definition.elements import (
    LEFTOVERS,
    Edge,
    Finding,
    Node,
    Path,
    edge_at,
    mappings,
    missing,
    node_at,
    string,
)
from gitstore.definition.quoting import quote
from gitstore.definition.rules.node_rules import check_expressions, check_node

_LONGEST_CYCLE = 20


def check(value: dict[str, Any]) -> Iterator[Finding]:
    """Yield all findings of the rules, errors and warnings, in no particular order."""
    nodes_value, edges_value = value.get("nodes"), value.get("edges")
    yield from _check_lists(nodes_value, edges_value, has_edges="edges" in value)
    nodes = [node_at(index, node) for index, node in mappings(nodes_value)]
    edges = [edge_at(index, edge) for index, edge in mappings(edges_value)]
    by_id: dict[str, Node] = {}
    for node in nodes:
        if node.id is not None:
            by_id.setdefault(node.id, node)
    for node in nodes:
        budget.check()
        yield from check_node(node, by_id)
    yield from check_expressions(nodes)
    for edge in edges:
        budget.check()
        yield from _check_edge(edge)
        if missing(nodes_value) or isinstance(nodes_value, list):  # else the set of nodes is unknown
            yield from _check_ends(edge, by_id)
    yield from _check_edges_twice(edges)
    if missing(edges_value) or isinstance(edges_value, list):  # else the set of edges is unknown
        yield from _check_graph(nodes, edges, by_id)


def _check_lists(nodes: Any, edges: Any, *, has_edges: bool) -> Iterator[Finding]:
    if missing(nodes) or nodes == []:
        yield Finding("no_nodes", "a workflow needs at least one node", ("nodes",))
    elif not isinstance(nodes, list):
        yield Finding("nodes_not_a_list", "nodes must be a list", ("nodes",))
    if edges is None and has_edges:
        yield Finding("edges_null", "edges is null: leave it out, or write []", ("edges",), error=False)
    if not missing(edges) and not isinstance(edges, list):
        yield Finding("edges_not_a_list", "edges must be a list", ("edges",))
    for key, items in (("node", nodes), ("edge", edges)):
        for index, item in enumerate(items if isinstance(items, list) else []):
            if not isinstance(item, dict):
                yield Finding(f"{key}_not_a_mapping", f"a {key} must be a mapping", (f"{key}s", index))


def _check_edge(edge: Edge) -> Iterator[Finding]:
    if not missing(edge.value.get("id")) and not isinstance(edge.value["id"], str):
        yield edge.finding("id_not_a_string", "id must be a string", "id")
    for end, name in (("source", edge.source), ("target", edge.target)):
        if missing(edge.value.get(end)):
            yield edge.finding(f"edge_{end}_missing", f"{end} is required", end)
        elif name is None:
            yield edge.finding("id_not_a_string", f"{end} must be a string", end)
    if edge.source is not None and edge.source == edge.target:
        yield edge.finding("edge_self_loop", f"{quote(edge.source)} connects to itself")
    for key in edge.value:
        if key in LEFTOVERS.edge:
            yield edge.finding("editor_leftover", f"{key} is left over from the editor", key, error=False)


def _check_ends(edge: Edge, by_id: Mapping[str, Node]) -> Iterator[Finding]:
    """Check that both ends are nodes of one container, or of none.

    A container inside another is reached from outside the outer one, and leads there, as in MeshHook.
    """
    for end, name in (("source", edge.source), ("target", edge.target)):
        if name is not None and name not in by_id:
            yield edge.finding(f"edge_{end}_unknown", f"{end}: there is no node {quote(name)}", end)
    source, target = by_id.get(edge.source or ""), by_id.get(edge.target or "")
    if source is None or target is None or source.parent == target.parent:
        return
    inside = [node for node in (source, target) if node.parent is not None]
    if len(inside) == 2 or not inside[0].is_container:
        inner = source.parent or target.parent or ""
        message = f"it crosses the border of the container {quote(inner)}"
        yield edge.finding("edge_crosses_container", message)


def _check_edges_twice(edges: list[Edge]) -> Iterator[Finding]:
    ids: dict[str, Path] = {}
    connections: dict[tuple[str, ...], Path] = {}
    for edge in edges:
        name = string(edge.value.get("id"))
        if name is not None and (first := ids.setdefault(name, edge.path)) is not edge.path:
            message = f"duplicate id {quote(name)}, also of edges[{first[1]}]"
            yield edge.finding("edge_id_duplicate", message, "id")
        if edge.source is None or edge.target is None:
            continue
        handles = (repr(edge.value.get("sourceHandle") or None), repr(edge.value.get("targetHandle") or None))
        if (
            first := connections.setdefault((edge.source, edge.target, *handles), edge.path)
        ) is not edge.path:
            message = f"edges[{first[1]}] joins the same nodes"
            yield edge.finding("duplicate_edge", message, error=False)


def _check_graph(nodes: list[Node], edges: list[Edge], by_id: Mapping[str, Node]) -> Iterator[Finding]:
    sources, targets = Counter(e.source for e in edges), Counter(e.target for e in edges)
    for node in nodes:
        apart = node.id is not None and node.id not in sources and node.id not in targets
        inside = node.is_container or node.parent is not None or not missing(node.value.get("parentId"))
        if apart and not inside and len(nodes) > 1:
            yield node.finding("node_unconnected", "no edge leads here or away from here")
    if nodes and all(node.id is not None and node.id in targets for node in nodes):
        message = "every node has an incoming edge: a run has nowhere to start"
        yield Finding("no_trigger", message, ("nodes",))
    leads_to: dict[str, list[str]] = {name: [] for name in by_id}
    for edge in edges:
        if edge.source in leads_to and edge.target in leads_to:
            leads_to[edge.source].append(edge.target)
    for cycle in cycles(leads_to):
        yield by_id[cycle[0]].finding("cycle", f"the graph has a cycle: {_show_cycle(cycle)}")


def _show_cycle(cycle: list[str]) -> str:
    names = [quote(name) for name in [*cycle, cycle[0]]]
    if len(names) > _LONGEST_CYCLE:
        left_out = len(names) - _LONGEST_CYCLE
        names[_LONGEST_CYCLE - 1 : -1] = [f"… {left_out} more …"]
    return " → ".join(names)


def cycles(graph: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    """Yield one cycle for each strongly connected component of `graph`, which maps nodes to successors.

    A cycle starts at the component's first node in the order of `graph`, is a shortest one through that node,
    and does not repeat it at the end. An edge from a node to itself is not a cycle here.
    """
    order = {node: position for position, node in enumerate(graph)}
    for component in _components(graph):
        if len(component) > 1:
            yield _cycle_through(min(component, key=order.__getitem__), graph, component)


def _components(graph: Mapping[str, Sequence[str]]) -> Iterator[set[str]]:
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
                    component: set[str] = set()
                    while node not in component:
                        component.add(waiting.pop())
                    done |= component
                    yield component


def _cycle_through(start: str, graph: Mapping[str, Sequence[str]], component: set[str]) -> list[str]:
    """Return a shortest cycle from `start`: breadth-first search within `component`."""
    came_from: dict[str, str] = {}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for successor in graph[node]:
            if successor == start and node != start:
                cycle = [node]
                while cycle[-1] != start:
                    cycle.append(came_from[cycle[-1]])
                return cycle[::-1]
            if successor in component and successor not in came_from and successor != start:
                came_from[successor] = node
                queue.append(successor)
    return [start]
