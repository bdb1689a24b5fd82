"""Definitions that tests publish, the file of an object, and the wait for a condition."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE = 60.0
"""Seconds for what an idle machine does at once."""

_YAML = """\
# The warehouse wants it so.
name: Order sync
nodes:
  - id: hook
    type: webhook
    position: {x: 0, y: 0}
    data: {label: Hook, config: {}}
  - id: call
    type: httpCall
    position: {x: 260, y: 0}
    data: {label: Call, config: {url: "%s", method: POST}}
edges:
  - {id: e, source: hook, target: call}
"""


def yaml(url: str = "https://a.example/") -> bytes:
    """A definition without problems, as a file with a comment."""
    return (_YAML % url).encode()


def definition(url: str = "https://a.example/", **top: Any) -> dict[str, Any]:
    """A definition without problems, as a mapping."""
    kinds = [("hook", "webhook", {}), ("call", "httpCall", {"url": url, "method": "POST"})]
    nodes = [
        {
            "id": name,
            "type": kind,
            "position": {"x": 260 * index, "y": 0},
            "data": {"label": name.title(), "config": config},
        }
        for index, (name, kind, config) in enumerate(kinds)
    ]
    return {**top, "nodes": nodes, "edges": [{"id": "e", "source": "hook", "target": "call"}]}


def object_file(repository: Path, oid: str) -> Path:
    """The file that holds an object: all packs are unpacked for it, so that it can be damaged alone."""
    for pack in (repository / "objects" / "pack").glob("*.pack"):
        content = pack.read_bytes()
        for path in (pack.with_suffix(".idx"), pack):
            path.unlink()
        unpack = ["git", "--git-dir", str(repository), "unpack-objects", "-q"]
        subprocess.run(unpack, input=content, check=True)
    return repository / "objects" / oid[:2] / oid[2:]


def until(
    condition: Callable[..., Any],
    message: str | Callable[[], str] = "it took too long",
    *,
    seconds: float = PATIENCE,
) -> Any:
    """Wait until `condition` is true; its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, message if isinstance(message, str) else message()
        time.sleep(0.02)
    return value
