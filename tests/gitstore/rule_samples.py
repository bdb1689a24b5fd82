"""Small graphs that break or keep a rule, and their findings."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from gitstore.definition import document
from gitstore.model import Definition, Limits, Rules


def judge(value: dict[str, Any]) -> Definition:
    """`value` written as YAML and parsed, so that positions are those of a real file."""
    return document.parse(document.dump(value, "w.yaml", Rules.ANY), "w.yaml", Rules.MESHHOOK, Limits())


def node(name: str, kind: str = "webhook", **data: Any) -> dict[str, Any]:
    return {"id": name, "type": kind, "position": {"x": 0, "y": 0}, "data": {"label": name, **data}}


def edge(source: str, target: str, **more: Any) -> dict[str, Any]:
    return {"source": source, "target": target, **more}


def graph(*nodes: Any, edges: Any = ()) -> dict[str, Any]:
    return {"nodes": list(nodes), "edges": list(edges) if isinstance(edges, tuple) else edges}


def chain(*nodes: dict[str, Any]) -> dict[str, Any]:
    """The nodes in a chain, so that none is unconnected."""
    return graph(*nodes, edges=tuple(edge(one["id"], other["id"]) for one, other in pairwise(nodes)))
