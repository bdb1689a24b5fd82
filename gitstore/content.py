"""The file content of a draft: the bytes received, or an object serialized in the file's own format."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass
from typing import Any

from dulwich.objects import Blob, ObjectID, ShaFile, Tree

from gitstore.definition import document
from gitstore.git.objects import Objects
from gitstore.model import Problem, Rules

STARTER = {
    "nodes": [
        {
            "id": "hook-1",
            "type": "webhook",
            "position": {"x": 0, "y": 0},
            "data": {"label": "Webhook", "config": {}},
        }
    ],
    "edges": [],
}


@dataclass(frozen=True, slots=True)
class Content:
    """An incoming definition: `raw` bytes stored unchanged, or else `value`, an object to serialize.

    `json` selects the file for raw bytes; with None, the format is detected from the bytes.
    """

    raw: bytes | None = None
    value: dict[str, Any] | None = None
    json: bool | None = None


@dataclass(frozen=True, slots=True)
class File:
    """A definition as a file."""

    name: str
    raw: bytes
    warnings: tuple[Problem, ...] = ()


def to_file(content: Content, before: File | None, rules: Rules) -> File:
    """Return the file to save for `content`, given the existing file `before`, if any."""
    if content.raw is not None:
        return File(_name_for(content, before), content.raw)
    name = before.name if before else document.FILE_NAMES[0]
    raw = document.dump(content.value or {}, name, rules)
    if before is not None and document.has_comments(before.raw, before.name):
        what = "comments of the file are gone, since it was written from an object: send text to keep them"
        return File(name, raw, (Problem("comments_dropped", what, error=False),))
    return File(name, raw)


def _name_for(content: Content, before: File | None) -> str:
    raw = content.raw or b""
    if content.json if content.json is not None else _reads_as_json(raw):
        return "workflow.json"
    return before.name if before and before.name != "workflow.json" else document.FILE_NAMES[0]


def _reads_as_json(raw: bytes) -> bool:
    """JSON is almost a subset of YAML, so treat text that parses as JSON as JSON; `{a: 1}` is YAML."""
    if raw.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"{":
        return False
    try:
        json.loads(raw, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _no_constant(name: str) -> None:
    """Reject NaN and Infinity, which RFC 8259 lacks; in YAML they are plain text."""
    raise ValueError(name)


def put_file(objects: Objects, root: Tree | None, path: list[bytes], file: File) -> list[ShaFile]:
    """Return new objects that put `file` into the folder `path` of `root`, replacing the definition there.

    All other tree entries are kept. Objects come before the objects that refer to them; the last one is the
    new root.
    """
    folder = _folder(objects, root, path)
    for name in document.FILE_NAMES:
        if name.encode() in folder:
            del folder[name.encode()]
    blob = Blob.from_string(file.raw)
    folder[file.name.encode()] = (stat.S_IFREG | 0o644, ObjectID(blob.id))
    return [blob, folder, *put_folder(objects, root, path, folder.id)]


def put_folder(objects: Objects, root: Tree | None, path: list[bytes], folder: bytes) -> list[ShaFile]:
    """Return new trees that set `path` of `root` to the tree `folder`; the last one is the new root."""
    made: list[ShaFile] = []
    for depth in range(len(path) - 1, -1, -1):
        tree = _folder(objects, root, path[:depth])
        tree[path[depth]] = (stat.S_IFDIR, ObjectID(folder))
        made.append(tree)
        folder = tree.id
    return made


def _folder(objects: Objects, root: Tree | None, path: list[bytes]) -> Tree:
    """Return a copy of the tree at `path` of `root`, or an empty tree if it does not exist."""
    found = root
    for name in path:
        there = found is not None and name in found and stat.S_ISDIR(found[name][0])
        found = objects.tree(found[name][1]) if found is not None and there else None
    copied = Tree()
    for name, mode, oid in found.items() if found is not None else ():
        copied.add(name, mode, oid)
    return copied
