"""What a draft is saved as: the bytes that came in, or an object written in the file's own format."""

from __future__ import annotations

import json
import stat
from dataclasses import dataclass
from typing import Any

from dulwich.objects import Blob, ObjectID, ShaFile, Tree

from gitstore import definition
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
    """A definition on its way in: `raw` bytes to be kept as they are, or else `value`, an object.

    `json` says which file raw bytes belong in; None means that their own look decides.
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
    """The file that `content` is saved as, beside or instead of `before`."""
    if content.raw is not None:
        return File(_name_for(content, before), content.raw)
    name = before.name if before else definition.FILE_NAMES[0]
    raw = definition.dump(content.value or {}, name, rules)
    if before is not None and definition.has_comments(before.raw, before.name):
        what = "comments of the file are gone, since it was written from an object: send text to keep them"
        return File(name, raw, (Problem("comments_dropped", what, error=False),))
    return File(name, raw)


def _name_for(content: Content, before: File | None) -> str:
    raw = content.raw or b""
    if content.json if content.json is not None else _reads_as_json(raw):
        return "workflow.json"
    return before.name if before and before.name != "workflow.json" else definition.FILE_NAMES[0]


def _reads_as_json(raw: bytes) -> bool:
    """JSON is nearly YAML, so text that reads as JSON was meant as JSON; `{a: 1}` was not."""
    if raw.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] != b"{":
        return False
    try:
        json.loads(raw, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return False
    return True


def _no_constant(name: str) -> None:
    """RFC 8259 has no NaN and no Infinity; in YAML they are plain text."""
    raise ValueError(name)


def put_file(objects: Objects, root: Tree | None, path: list[bytes], file: File) -> list[ShaFile]:
    """New objects that put `file` into the folder `path` of `root`, in place of the definition there.

    What else stands in the tree is kept. The last of the list is the new root; what is referred to
    comes before what refers to it.
    """
    folder = _folder(objects, root, path)
    for name in definition.FILE_NAMES:
        if name.encode() in folder:
            del folder[name.encode()]
    blob = Blob.from_string(file.raw)
    folder[file.name.encode()] = (stat.S_IFREG | 0o644, ObjectID(blob.id))
    return [blob, folder, *put_folder(objects, root, path, folder.id)]


def put_folder(objects: Objects, root: Tree | None, path: list[bytes], folder: bytes) -> list[ShaFile]:
    """New trees that let `path` of `root` be the tree `folder`; the last of them is the new root."""
    made: list[ShaFile] = []
    for depth in range(len(path) - 1, -1, -1):
        tree = _folder(objects, root, path[:depth])
        tree[path[depth]] = (stat.S_IFDIR, ObjectID(folder))
        made.append(tree)
        folder = tree.id
    return made


def _folder(objects: Objects, root: Tree | None, path: list[bytes]) -> Tree:
    """A copy of the tree at `path` of `root`, empty where there is none."""
    found = root
    for name in path:
        there = found is not None and name in found and stat.S_ISDIR(found[name][0])
        found = objects.tree(found[name][1]) if found is not None and there else None
    copied = Tree()
    for name, mode, oid in found.items() if found is not None else ():
        copied.add(name, mode, oid)
    return copied
