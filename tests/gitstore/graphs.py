"""Nodes, edges and graphs as the editor writes them."""

from __future__ import annotations

from typing import Any


def node(name: str, x: int = 0, **config: Any) -> dict[str, Any]:
    data = {"label": name.title(), "type": "httpCall", "config": {"method": "POST", **config}}
    return {"id": name, "type": "default", "position": {"x": x, "y": 0}, "data": data}


def edge(source: str, target: str, **more: Any) -> dict[str, Any]:
    return {"id": f"{source}-{target}", "source": source, "target": target, **more}


def graph(*nodes: Any, edges: Any = (), **more: Any) -> dict[str, Any]:
    return {**more, "nodes": list(nodes), "edges": list(edges)}
