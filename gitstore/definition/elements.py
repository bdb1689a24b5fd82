"""The nodes and edges of a definition: read leniently, and reduced to the parts that a run depends on.

Nothing here assumes a valid definition. docs/definition.md, "Editor leftovers and layout", lists the keys
that have no meaning.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from gitstore.definition.kinds import ALIASES, KINDS
from gitstore.definition.quoting import clip

_LONGEST_ID = 200

Path = tuple[str | int, ...]
"""A path in the definition: ("nodes", 3, "data"). A missing element has a path, too."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A `Problem` before the position of its path in the text is known."""

    code: str
    message: str
    path: Path
    node: str | None = None
    error: bool = True


@dataclass(frozen=True, slots=True)
class Node:
    """A node that is a mapping, read leniently: `id` and `kind` are None and `data` is {} if absent.

    `config` is None if absent; a config that is not a mapping counts as an empty one. `children` are the ids
    in `data.childNodes`.
    """

    path: Path
    value: dict[str, Any]
    id: str | None
    kind: str | None
    data: dict[str, Any]
    config: dict[str, Any] | None
    children: frozenset[str]

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
        """The id of the container that the node names as its parent."""
        return string(self.data.get("parentContainer"))


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge that is a mapping; `source` and `target` are None unless they are ids."""

    path: Path
    value: dict[str, Any]
    source: str | None
    target: str | None

    def finding(self, code: str, message: str, *below: str, error: bool = True) -> Finding:
        return Finding(code, message, (*self.path, *below), None, error)


def missing(value: Any) -> bool:
    """Return whether a value is absent, null or an empty string."""
    return value is None or value == ""


def string(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def mappings(items: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    if isinstance(items, list):
        yield from ((index, item) for index, item in enumerate(items) if isinstance(item, dict))


def node_at(index: int, value: dict[str, Any]) -> Node:
    data = mapping(value.get("data"))
    config, listed = data.get("config"), data.get("childNodes")
    children = listed if isinstance(listed, list) else []
    return Node(
        path=("nodes", index),
        value=value,
        id=string(value.get("id")),
        kind=_kind(value, data),
        data=data,
        config=None if missing(config) else mapping(config),
        children=frozenset(child for child in children if isinstance(child, str)),
    )


def _kind(value: dict[str, Any], data: dict[str, Any]) -> str | None:
    """Return the kind of a node: `type` if it is a known kind, else `data.type`."""
    names = [string(value.get("type")), string(data.get("type"))]
    for name in names:
        if name is not None and ALIASES.get(name, name) in KINDS:
            return ALIASES.get(name, name)
    return names[1] or names[0]


def edge_at(index: int, value: dict[str, Any]) -> Edge:
    return Edge(("edges", index), value, string(value.get("source")), string(value.get("target")))


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
_WITHOUT_MEANING = LAYOUT | LEFTOVERS


def meaning(value: dict[str, Any]) -> dict[str, Any]:
    """Return `value` without layout and leftovers: the parts that a run depends on.

    `value` itself is not modified. Absent and empty edges give the same result.
    """
    reduced = _without(_WITHOUT_MEANING, value)
    if reduced.get("edges") == []:
        del reduced["edges"]
    return reduced


def without_leftovers(value: dict[str, Any]) -> dict[str, Any]:
    """Return `value` as it is written to a file. `value` itself is not modified."""
    return _without(LEFTOVERS, value)


def _without(keys: Keys, value: dict[str, Any]) -> dict[str, Any]:
    reduced = dict(value)
    if isinstance(nodes := value.get("nodes"), list):
        reduced["nodes"] = [_omit(node, keys.node) for node in nodes]
        for _, node in mappings(reduced["nodes"]):
            if "data" in node:
                node["data"] = _omit(node["data"], keys.data)
    if isinstance(edges := value.get("edges"), list):
        reduced["edges"] = [_omit(edge, keys.edge) for edge in edges]
    return reduced


def _omit(item: Any, keys: frozenset[str]) -> Any:
    if not isinstance(item, dict):
        return item
    return {key: value for key, value in item.items() if key not in keys}
