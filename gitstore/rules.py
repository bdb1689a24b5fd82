"""The rules of DEFINITION.md: what blocks publishing a workflow, and what is worth a warning.

`check` takes any mapping that parses, whatever is in it. A rule's code stands where it is reported; the message
says what is wrong without saying where, since `Problem.pointer` and `Problem.node` do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gitstore import meaning
from gitstore.expressions import explain_jmespath, is_http_url
from gitstore.graph import cycles
from gitstore.quoting import clip, quote

KINDS = frozenset(
    {
        "webhook",
        "schedule",
        "httpCall",
        "transform",
        "xmlJsonTransform",
        "delay",
        "conditional",
        "branch",
        "loop",
        "terminate",
    }
)
"""The kinds of node that MeshHook's editor offers."""

_OTHER_NAMES = {"loopContainer": "loop", "http_call": "httpCall"}
_LONGEST_ID = 200
_LONGEST_CYCLE = 20

Path = tuple[str | int, ...]
"""Where in the definition: ("nodes", 3, "data"). What is missing has a path too."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A `Problem` before it is known where its path stands in the text."""

    code: str
    message: str
    path: Path
    node: str | None = None
    error: bool = True


@dataclass(frozen=True, slots=True)
class Node:
    """A node that is a mapping, read leniently: `id` and `kind` are None and `data` is {} where it has none.

    `config` is None where there is none; a config that is not a mapping is one without any field.
    """

    path: Path
    value: dict[str, Any]
    id: str | None
    kind: str | None
    data: dict[str, Any]
    config: dict[str, Any] | None

    def finding(self, code: str, message: str, *below: str | int, error: bool = True) -> Finding:
        node = None if self.id is None else clip(self.id, _LONGEST_ID)
        return Finding(code, message, (*self.path, *below), node, error)

    def config_finding(self, code: str, message: str, name: str) -> Finding:
        return self.finding(code, message, "data", "config", name)

    @property
    def is_container(self) -> bool:
        return bool(self.data.get("isContainer"))

    @property
    def parent(self) -> str | None:
        """The id of the container that the node says it is in."""
        return _string(self.data.get("parentContainer"))

    @property
    def children(self) -> list[Any]:
        listed = self.data.get("childNodes")
        return listed if isinstance(listed, list) else []


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge that is a mapping; `source` and `target` are None unless they are ids."""

    path: Path
    value: dict[str, Any]
    source: str | None
    target: str | None

    def finding(self, code: str, message: str, *below: str, error: bool = True) -> Finding:
        return Finding(code, message, (*self.path, *below), None, error)


def check(value: dict[str, Any]) -> Iterator[Finding]:
    """Everything that the rules find, errors and warnings, in no particular order."""
    nodes_value, edges_value = value.get("nodes"), value.get("edges")
    yield from _check_lists(nodes_value, edges_value)
    nodes = [_node(index, node) for index, node in _mappings(nodes_value)]
    edges = [_edge(index, edge) for index, edge in _mappings(edges_value)]
    by_id: dict[str, Node] = {}
    for node in nodes:
        if node.id is not None:
            by_id.setdefault(node.id, node)
    for node in nodes:
        yield from _check_node(node, by_id)
        yield from _check_config(node)
        yield from _check_container(node, by_id)
        yield from _check_parent(node, by_id)
    for edge in edges:
        yield from _check_edge(edge, by_id)
    yield from _check_edges_twice(edges)
    yield from _check_graph(nodes, edges, by_id)


# Reading what may be anything


def _missing(value: Any) -> bool:
    """Absent, null or an empty string."""
    return value is None or value == ""


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _mappings(items: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    if isinstance(items, list):
        yield from ((index, item) for index, item in enumerate(items) if isinstance(item, dict))


def _node(index: int, value: dict[str, Any]) -> Node:
    data = _mapping(value.get("data"))
    config = data.get("config")
    return Node(
        path=("nodes", index),
        value=value,
        id=_string(value.get("id")),
        kind=_kind(value, data),
        data=data,
        config=None if _missing(config) else _mapping(config),
    )


def _kind(value: dict[str, Any], data: dict[str, Any]) -> str | None:
    """The kind of a node: `type` if it names a kind, else `data.type`."""
    names = [_string(value.get("type")), _string(data.get("type"))]
    for name in names:
        if name is not None and _OTHER_NAMES.get(name, name) in KINDS:
            return _OTHER_NAMES.get(name, name)
    return names[1] or names[0]


def _edge(index: int, value: dict[str, Any]) -> Edge:
    return Edge(("edges", index), value, _string(value.get("source")), _string(value.get("target")))


# Nodes


def _check_lists(nodes: Any, edges: Any) -> Iterator[Finding]:
    if _missing(nodes) or nodes == []:
        yield Finding("no_nodes", "there is no node", ("nodes",))
    elif not isinstance(nodes, list):
        yield Finding("nodes_not_a_list", "nodes must be a list", ("nodes",))
    if not _missing(edges) and not isinstance(edges, list):
        yield Finding("edges_not_a_list", "edges must be a list", ("edges",))
    for key, items in (("node", nodes), ("edge", edges)):
        for index, item in enumerate(items if isinstance(items, list) else []):
            if not isinstance(item, dict):
                yield Finding(f"{key}_not_a_mapping", f"a {key} must be a mapping", (f"{key}s", index))


def _check_node(node: Node, by_id: dict[str, Node]) -> Iterator[Finding]:
    id_value, type_value = node.value.get("id"), node.value.get("type")
    if _missing(id_value):
        yield node.finding("node_id_missing", "id is required", "id")
    elif node.id is None:
        yield node.finding("id_not_a_string", "id must be a string", "id")
    elif by_id[node.id] is not node:
        first = by_id[node.id].path[1]
        yield node.finding("node_id_duplicate", f"nodes[{first}] has the same id", "id")
    if _missing(type_value):
        yield node.finding("node_type_missing", "type is required", "type")
    elif not isinstance(type_value, str):
        yield node.finding("node_type_missing", "type must be a string", "type")
    if node.kind is not None and node.kind not in KINDS:
        message = f"{quote(node.kind)} is not a kind of node that the editor offers"
        yield node.finding("node_kind_unknown", message, "type", error=False)
    if _missing(node.data.get("label")):
        yield node.finding("label_missing", "a label would help", "data", "label", error=False)
    yield from _check_leftovers(node)


def _check_leftovers(node: Node) -> Iterator[Finding]:
    there = [(key,) for key in node.value if key in meaning.LEFTOVERS.node]
    for path in [*there, *(("data", key) for key in node.data if key in meaning.LEFTOVERS.data)]:
        message = f"{'.'.join(path)} is left over from the editor"
        yield node.finding("editor_leftover", message, *path, error=False)


def _check_config(node: Node) -> Iterator[Finding]:
    """What the kind of a node asks of its config."""
    if node.config is None:
        return
    match node.kind:
        case "httpCall":
            yield from _check_http_call(node, node.config)
        case "transform":
            yield from _check_transform(node, node.config)
        case "delay":
            yield from _check_delay(node, node.config)
        case "conditional":
            if _missing(node.config.get("condition")):
                message = "condition is required for a conditional"
                yield node.config_finding("condition_missing", message, "condition")
            yield from _check_expression(node, node.config, "condition")
        case "loop":
            if _missing(node.config.get("items")):
                yield node.config_finding("loop_items_missing", "items is required for a loop", "items")
            yield from _check_expression(node, node.config, "items")


def _check_http_call(node: Node, config: dict[str, Any]) -> Iterator[Finding]:
    url = config.get("url")
    if _missing(url):
        yield node.config_finding("http_url_missing", "url is required for an HTTP call", "url")
    elif not isinstance(url, str) or not is_http_url(url):
        yield node.config_finding("http_url_invalid", "url must be an http or https URL", "url")
    if _missing(config.get("method")):
        yield node.config_finding("http_method_missing", "method is required for an HTTP call", "method")


def _check_transform(node: Node, config: dict[str, Any]) -> Iterator[Finding]:
    if _missing(config.get("expression")) and _missing(config.get("template")):
        message = "an expression or a template is required for a transform"
        yield node.finding("transform_empty", message, "data", "config")
    yield from _check_expression(node, config, "expression")


def _check_delay(node: Node, config: dict[str, Any]) -> Iterator[Finding]:
    duration = config.get("duration")
    if isinstance(duration, bool) or not isinstance(duration, (int, float)) or duration <= 0:
        message = "duration must be a number greater than 0"
        yield node.config_finding("delay_duration_invalid", message, "duration")


def _check_expression(node: Node, config: dict[str, Any], name: str) -> Iterator[Finding]:
    expression = config.get(name)
    if _missing(expression):
        return
    why = explain_jmespath(expression) if isinstance(expression, str) else "it is not a string"
    if why is not None:
        yield node.config_finding("expression_invalid", f"{name} is not JMESPath: {why}", name)


# Containers


def _check_container(node: Node, by_id: dict[str, Node]) -> Iterator[Finding]:
    if not node.is_container:
        return
    if node.kind == "loop":
        dimensions = _mapping(node.data.get("dimensions"))
        if _missing(dimensions.get("width")) or _missing(dimensions.get("height")):
            message = "a container needs dimensions with width and height"
            yield node.finding("container_dimensions_missing", message, "data", "dimensions")
        if not isinstance(node.data.get("childNodes"), list):
            message = "a container needs childNodes, a list of ids"
            yield node.finding("container_children_missing", message, "data", "childNodes")
    for index, child in enumerate(node.children):
        yield from _check_child(node, index, child, by_id)


def _check_child(node: Node, index: int, child: Any, by_id: dict[str, Node]) -> Iterator[Finding]:
    where = ("data", "childNodes", index)
    if not isinstance(child, str):
        yield node.finding("id_not_a_string", "the id of a child must be a string", *where)
    elif child not in by_id:
        yield node.finding("container_child_unknown", f"its child {quote(child)} is not there", *where)
    elif by_id[child].parent != node.id:
        message = f"its child {quote(child)} does not name it as parentContainer"
        yield node.finding("container_child_mismatch", message, *where)


def _check_parent(node: Node, by_id: dict[str, Node]) -> Iterator[Finding]:
    value = node.data.get("parentContainer")
    if _missing(value):
        return
    where = ("data", "parentContainer")
    if node.parent is None:
        yield node.finding("id_not_a_string", "parentContainer must be a string", *where)
        return
    container = by_id.get(node.parent)
    if container is None or not container.is_container:
        yield node.finding("parent_unknown", f"{quote(node.parent)} is not a container", *where)
    elif node.id not in container.children:
        message = f"the container {quote(node.parent)} does not list it in childNodes"
        yield node.finding("parent_mismatch", message, *where)


# Edges


def _check_edge(edge: Edge, by_id: dict[str, Node]) -> Iterator[Finding]:
    if not _missing(edge.value.get("id")) and not isinstance(edge.value["id"], str):
        yield edge.finding("id_not_a_string", "id must be a string", "id")
    for end, name in (("source", edge.source), ("target", edge.target)):
        if _missing(edge.value.get(end)):
            yield edge.finding(f"edge_{end}_missing", f"{end} is required", end)
        elif name is None:
            yield edge.finding("id_not_a_string", f"{end} must be a string", end)
        elif name not in by_id:
            yield edge.finding(f"edge_{end}_unknown", f"{end} {quote(name)} names no node", end)
    if edge.source is not None and edge.source == edge.target:
        yield edge.finding("edge_self_loop", f"{quote(edge.source)} leads to itself")
    for key in edge.value:
        if key in meaning.LEFTOVERS.edge:
            yield edge.finding("editor_leftover", f"{key} is left over from the editor", key, error=False)
    yield from _check_crossing(edge, by_id)


def _check_crossing(edge: Edge, by_id: dict[str, Node]) -> Iterator[Finding]:
    """Both ends must be in the same container, or both in none."""
    source, target = by_id.get(edge.source or ""), by_id.get(edge.target or "")
    if source is not None and target is not None and source.parent != target.parent:
        inner = source.parent or target.parent or ""
        message = f"it crosses the border of the container {quote(inner)}"
        yield edge.finding("edge_crosses_container", message)


def _check_edges_twice(edges: list[Edge]) -> Iterator[Finding]:
    ids: dict[str, Path] = {}
    ways: dict[tuple[str, ...], Path] = {}
    for edge in edges:
        name = _string(edge.value.get("id"))
        if name is not None and (first := ids.setdefault(name, edge.path)) is not edge.path:
            message = f"edges[{first[1]}] has the same id {quote(name)}"
            yield edge.finding("edge_id_duplicate", message, "id")
        if edge.source is None or edge.target is None:
            continue
        handles = (repr(edge.value.get("sourceHandle") or None), repr(edge.value.get("targetHandle") or None))
        if (first := ways.setdefault((edge.source, edge.target, *handles), edge.path)) is not edge.path:
            message = f"edges[{first[1]}] joins the same nodes"
            yield edge.finding("duplicate_edge", message, error=False)


# The graph as a whole


def _check_graph(nodes: list[Node], edges: list[Edge], by_id: dict[str, Node]) -> Iterator[Finding]:
    sources, targets = Counter(e.source for e in edges), Counter(e.target for e in edges)
    for node in nodes:
        apart = node.id is not None and node.id not in sources and node.id not in targets
        inside = node.is_container or node.parent is not None or not _missing(node.value.get("parentId"))
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
