"""The meaningful parts of a definition: without layout and without the editor's leftovers.

docs/definition.md, "Editor leftovers and layout", lists the keys. Nothing here assumes a valid definition:
anything without the shape of nodes and edges is kept unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Keys:
    """Keys of a node, of a node's `data`, and of an edge."""

    node: frozenset[str]
    data: frozenset[str]
    edge: frozenset[str]

    def __or__(self, other: Keys) -> Keys:
        return Keys(self.node | other.node, self.data | other.data, self.edge | other.edge)


_SELECTION = frozenset({"selected", "dragging", "measured"})

LEFTOVERS = Keys(
    node=_SELECTION,
    # These hold live responses, and Git keeps them forever.
    data=frozenset({"testResult", "loopOutput", "loopInput"}),
    edge=_SELECTION,
)

LAYOUT = Keys(
    node=frozenset({"position", "width", "height", "style", "zIndex", "extent", "containerPosition"}),
    # The editor writes containerPosition here; older files have it on the node.
    data=frozenset({"style", "dimensions", "containerPosition"}),
    edge=frozenset({"id", "type", "animated", "style"}),
)


def meaning(value: dict[str, Any]) -> dict[str, Any]:
    """Return `value` without layout and leftovers: the parts that a run depends on.

    `value` itself is not modified. Absent and empty edges give the same result.
    """
    meant = _without(LAYOUT | LEFTOVERS, value)
    if meant.get("edges") == []:
        del meant["edges"]
    return meant


def without_leftovers(value: dict[str, Any]) -> dict[str, Any]:
    """Return `value` as it is written to a file. `value` itself is not modified."""
    return _without(LEFTOVERS, value)


def _without(keys: Keys, value: dict[str, Any]) -> dict[str, Any]:
    slim = dict(value)
    if isinstance(nodes := slim.get("nodes"), list):
        slim["nodes"] = [_slim_node(keys, node) for node in nodes]
    if isinstance(edges := slim.get("edges"), list):
        slim["edges"] = [_slim(edge, keys.edge) for edge in edges]
    return slim


def _slim_node(keys: Keys, node: Any) -> Any:
    slim = _slim(node, keys.node)
    if isinstance(slim, dict) and "data" in slim:
        slim["data"] = _slim(slim["data"], keys.data)
    return slim


def _slim(mapping: Any, keys: frozenset[str]) -> Any:
    if not isinstance(mapping, dict):
        return mapping
    return {key: value for key, value in mapping.items() if key not in keys}
