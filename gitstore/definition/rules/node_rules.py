"""The rules about one node: its id and kind, the config that its kind requires, and containers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gitstore import budget
from gitstore.definition.elements import LEFTOVERS, Finding, Node, mapping, missing
from gitstore.definition.kinds import EXPRESSIONS, KINDS
from gitstore.definition.quoting import quote
from gitstore.definition.rules.expressions import explain_jmespath, is_http_url

MOST_EXPRESSIONS = 131_072
"""Characters of all expressions of a definition in total."""
_NEAR = {kind.lower(): kind for kind in KINDS}
_TOO_MUCH = f"the expressions of a definition have more than {MOST_EXPRESSIONS:,} characters in all"


def check_node(node: Node, by_id: Mapping[str, Node]) -> Iterator[Finding]:
    """Yield the findings about `node`; `by_id` has the first node of each id."""
    yield from _check_identity(node, by_id)
    yield from _check_kind(node)
    yield from _check_looks(node)
    yield from _check_leftovers(node)
    yield from _check_config(node)
    yield from _check_container(node, by_id)
    yield from _check_parent(node, by_id)


def _check_identity(node: Node, by_id: Mapping[str, Node]) -> Iterator[Finding]:
    id_value = node.value.get("id")
    if missing(id_value):
        yield node.finding("node_id_missing", "id is required", "id")
    elif node.id is None:
        yield node.finding("id_not_a_string", "id must be a string", "id")
    elif by_id[node.id] is not node:
        first = by_id[node.id].path[1]
        yield node.finding("node_id_duplicate", f"duplicate id, also of nodes[{first}]", "id")


def _check_kind(node: Node) -> Iterator[Finding]:
    type_value = node.value.get("type")
    if missing(type_value):
        yield node.finding("node_type_missing", "type is required", "type")
    elif not isinstance(type_value, str):
        yield node.finding("node_type_missing", "type must be a string", "type")
    if node.kind is not None and node.kind not in KINDS:
        near = _NEAR.get(node.kind.lower().replace("_", ""))
        message = f"unknown kind {quote(node.kind)}{f' (did you mean {near}?)' if near else ''}"
        yield node.finding("node_kind_unknown", message, "type", error=False)


def _check_looks(node: Node) -> Iterator[Finding]:
    """Check what only the editor needs: without a position it can't draw the node."""
    if node.value.get("position") is None:
        yield node.finding("position_missing", "node has no position", "position", error=False)
    if missing(node.data.get("label")):
        yield node.finding("label_missing", "node has no label", "data", "label", error=False)


def _check_leftovers(node: Node) -> Iterator[Finding]:
    leftovers = [(key,) for key in node.value if key in LEFTOVERS.node]
    for path in [*leftovers, *(("data", key) for key in node.data if key in LEFTOVERS.data)]:
        message = f"{'.'.join(path)} is left over from the editor"
        yield node.finding("editor_leftover", message, *path, error=False)


def _check_config(node: Node) -> Iterator[Finding]:
    """Check the config that the kind of a node requires."""
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
            if missing(node.config.get("condition")):
                message = "condition is required for a conditional"
                yield node.config_finding("condition_missing", message, "condition")
        case "loop":
            if missing(node.config.get("items")):
                yield node.config_finding("loop_items_missing", "items is required for a loop", "items")


def _check_http_call(node: Node, config: dict[str, Any]) -> Iterator[Finding]:
    url = config.get("url")
    if missing(url):
        yield node.config_finding("http_url_missing", "url is required for an HTTP call", "url")
    elif not isinstance(url, str) or not is_http_url(url):
        yield node.config_finding("http_url_invalid", "url must be an http or https URL", "url")
    if not config.get("method"):
        yield node.config_finding("http_method_missing", "method is required for an HTTP call", "method")


def _check_transform(node: Node, config: dict[str, Any]) -> Iterator[Finding]:
    if missing(config.get("expression")) and missing(config.get("template")):
        message = "an expression or a template is required for a transform"
        yield node.finding("transform_empty", message, "data", "config")


def _check_delay(node: Node, config: dict[str, Any]) -> Iterator[Finding]:
    duration = config.get("duration")
    if isinstance(duration, bool) or not isinstance(duration, (int, float)) or duration <= 0:
        message = "duration must be a number greater than 0"
        yield node.config_finding("delay_duration_invalid", message, "duration")


def check_expressions(nodes: Iterable[Node]) -> Iterator[Finding]:
    """Check that expressions are JMESPath. Parsing takes 3 µs per character: MOST_EXPRESSIONS bound it."""
    left = MOST_EXPRESSIONS
    for node in nodes:
        name = EXPRESSIONS.get(node.kind or "")
        expression = node.config.get(name) if node.config and name else None
        if name is None or missing(expression):
            continue
        if not isinstance(expression, str):
            why: str | None = "it is not a string"
        else:
            left -= len(expression)
            why = explain_jmespath(expression) if left >= 0 else _TOO_MUCH
        budget.check()
        if why is not None:
            yield node.config_finding("expression_invalid", f"{name} is not JMESPath: {why}", name)


def _check_container(node: Node, by_id: Mapping[str, Node]) -> Iterator[Finding]:
    if not node.is_container:
        return
    dimensions, listed = mapping(node.data.get("dimensions")), node.data.get("childNodes")
    if node.kind == "loop" and not (dimensions.get("width") and dimensions.get("height")):
        message = "a container needs dimensions with a width and a height, neither of them 0"
        yield node.finding("container_dimensions_missing", message, "data", "dimensions")
    if isinstance(listed, list):
        for index, child in enumerate(listed):
            yield from _check_child(node, index, child, by_id)
    elif node.kind == "loop":
        message = "a container needs childNodes, a list of ids"
        yield node.finding("container_children_missing", message, "data", "childNodes")


def _check_child(node: Node, index: int, child: Any, by_id: Mapping[str, Node]) -> Iterator[Finding]:
    where = ("data", "childNodes", index)
    if not isinstance(child, str):
        yield node.finding("id_not_a_string", "the id of a child must be a string", *where)
    elif child not in by_id:
        yield node.finding("container_child_unknown", f"its child {quote(child)} does not exist", *where)
    elif by_id[child].parent != node.id:
        message = f"its child {quote(child)} does not name it as parentContainer"
        yield node.finding("container_child_mismatch", message, *where)


def _check_parent(node: Node, by_id: Mapping[str, Node]) -> Iterator[Finding]:
    value = node.data.get("parentContainer")
    if missing(value):
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
