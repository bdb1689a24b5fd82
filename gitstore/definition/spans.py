"""The places of a document's parts in its text, for edits: a tree of spans, in YAML and in JSON.

The tree is built from the tokens of a document that has been read before, so that it has no errors and its
depth is limited. It has the structure of the value: the n-th item of a mapping is the n-th key of the value.
Between the spans there are only white space, comments and indicators.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import yaml

from gitstore.definition import yaml_reader

_SPACE = re.compile(r"(?:[ \t\r\n\ufeff]++|#[^\r\n]*+)*+")
_PROPERTIES = re.compile(r"(?:(?:&[0-9A-Za-z_-]++|!\S*+)(?:[ \t\r\n]++|#[^\r\n]*+)*+)*+")
_TOKEN = re.compile(r'[][{},:]|"(?:[^"\\]++|\\.)*+"|[^][{},:"\s]++', re.DOTALL)  # of correct JSON
_NONE: Any = ()  # of a scalar; a collection has lists
_INDENTATION = re.compile(r"[ \t]*+")
_LINE = re.compile(r"\r\n|\r|\n")


@dataclass(slots=True, eq=False)
class Node:
    """A value between `start` and `end`. `content` is where it begins behind its anchor and tag.

    `kind` is "scalar", "mapping", "list" or "alias". `style` is that of a scalar: one of its first character
    or "" for a plain one. An item of a mapping has its key at `keys`: (name, start, end).
    """

    kind: str
    start: int
    content: int
    end: int
    style: str = ""
    flow: bool = False
    items: list[Node] = _NONE
    keys: list[tuple[str, int, int]] = _NONE
    anchor: str | None = None
    target: Node | None = None

    @classmethod
    def collection(cls, kind: str, start: int, *, flow: bool) -> Node:
        """Return an open mapping or list."""
        return cls(kind, start, start, -1, "", flow, [], [])

    def like(self, step: str | int) -> Node | None:
        """Return the item whose style a new item at `step` should have."""
        if self.kind == "list":
            return self.items[0] if self.items else None
        names = [name for name, _, _ in self.keys[:100]]
        return self.items[names.index(str(step))] if step in names else None


class Spans:
    """The tree `root` of a text, and the lines of the text."""

    def __init__(self, text: str, *, is_json: bool) -> None:
        self.text = text
        self.is_json = is_json
        self.aliases: list[Node] = []
        self.root = self._json() if is_json else self._yaml()

    @cached_property
    def _lines(self) -> list[int]:
        return [0, *(line.end() for line in _LINE.finditer(self.text))]

    def line_start(self, at: int) -> int:
        return self._lines[bisect_right(self._lines, at) - 1]

    def line_end(self, at: int) -> int:
        """Return the start of the line after that of `at`, or the end of the text."""
        number = bisect_right(self._lines, at)
        return self._lines[number] if number < len(self._lines) else len(self.text)

    def indentation(self, at: int) -> str:
        """Return the white space that begins the line of `at`, up to `at`."""
        match = _INDENTATION.match(self.text, self.line_start(at), at)
        return match[0] if match else ""

    def column(self, at: int) -> int:
        return at - self.line_start(at)

    def begins_line(self, at: int) -> bool:
        return len(self.indentation(at)) == self.column(at)

    def skip(self, at: int) -> int:
        """Return the offset behind white space and comments."""
        match = _SPACE.match(self.text, at)
        return match.end() if match else at

    def head(self, node: Node, index: int) -> int:
        """Return where an item of a collection begins: at its key or `?`, its dash, or itself."""
        begin = node.keys[index][1] if node.keys else node.items[index].start
        if node.flow and not node.keys:
            return begin
        before = self.skip(node.items[index - 1].end if index else node.content)
        if node.flow:
            while self.text[before : before + 1] in ("{", ","):
                before = self.skip(before + 1)
        return before if before < begin else begin

    def after(self, node: Node, index: int) -> int:
        """Return the offset behind the colon or the dash of an item of a block collection; -1 without one."""
        at = self.skip(node.keys[index][2]) if node.keys else self.head(node, index)
        return at + 1 if self.text[at : at + 1] in (":", "-") else -1

    def item_start(self, node: Node, index: int, *, with_comments: bool = False) -> int:
        """Return the start of an item's first line, or of the comments directly above it, or its head."""
        head = self.head(node, index)
        if not self.begins_line(head):
            return head
        start, column = self.line_start(head), self.column(head)
        least = node.items[index - 1].end if index else node.start
        while with_comments and start > least:
            above = self.line_start(start - 1)
            line = self.text[above:start]
            if above < least or line[:column].strip(" ") or line[column : column + 1] != "#":
                break
            start = above
        return start

    def item_end(self, node: Node, index: int) -> int:
        """Return the end of an item's last line, and of the comments behind it that are further indented."""
        end, column = node.items[index].end, self.column(self.head(node, index))
        if self.text[max(end - 1, 0) : end] != "\n" or node.items[index].start == end:
            end = self.line_end(end)
        while end < len(self.text):
            after = self.line_end(end)
            line = self.text[end:after]
            if not line.lstrip(" ").startswith("#") or len(line) - len(line.lstrip(" ")) <= column:
                break
            end = after
        return end

    def _yaml(self) -> Node:
        text, length = self.text, len(self.text)
        anchors: dict[str, Node] = {}
        stack: list[Node] = []
        key: Node | None = None  # that of the value that comes next
        waiting: list[Node | None] = []  # the keys of the collections around
        inside = root = None
        events: Iterator[Any] = yaml_reader.events(text)
        for event in events:
            kind = type(event)
            if kind is yaml.ScalarEvent:
                end = event.end_mark.index
                node = self._scalar(event.start_mark.index, end if end < length else length, event.style)
            elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
                name = "mapping" if kind is yaml.MappingStartEvent else "list"
                node = Node.collection(name, event.start_mark.index, flow=bool(event.flow_style))
            elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
                node = stack.pop()
                node.end = event.end_mark.index if node.flow else node.items[-1].end
                inside, key = stack[-1] if stack else None, waiting.pop()
                continue
            elif kind is yaml.AliasEvent:
                start = event.start_mark.index
                node = Node("alias", start, start, event.end_mark.index, target=anchors.get(event.anchor))
                self.aliases.append(node)
            else:
                continue
            if kind is not yaml.AliasEvent and (event.anchor is not None or event.tag is not None):
                properties = _PROPERTIES.match(text, node.start)
                if properties:
                    node.content = min(properties.end(), length if node.end < 0 else node.end)
                if event.anchor is not None:
                    node.anchor = event.anchor
                    anchors[event.anchor] = node
            if inside is None:
                root = node
            elif inside.kind == "list":
                inside.items.append(node)
            elif key is None:
                key = node
                inside.keys.append((getattr(event, "value", ""), node.start, node.end))
            else:
                if node.start == node.end and text[node.start - 1 : node.start] != ":":
                    node.start = node.content = node.end = key.end
                inside.items.append(node)
                key = None
            if node.end < 0:
                stack.append(node)
                waiting.append(key)
                inside, key = node, None
        return root or Node("scalar", 0, 0, 0)

    def _scalar(self, start: int, end: int, style: str | None) -> Node:
        if style == "|" or style == ">":
            header = self.line_end(start)
            if "+" not in self.text[start:header].partition("#")[0]:
                # The blank lines that follow are not part of the text.
                kept = self.text[start:end].rstrip(" \t\r\n")
                end = min(max(self.line_end(start + len(kept)), header), len(self.text))
        return Node("scalar", start, start, end, style or "")

    def _json(self) -> Node:
        stack: list[Node] = []
        key: tuple[str, int, int] | None = None
        root: Node | None = None
        for token in _TOKEN.finditer(self.text):
            mark = self.text[token.start()]
            if mark in ",:":
                continue
            if mark in "]}":
                stack.pop().end = token.end()
                continue
            inside = stack[-1] if stack else None
            if inside and inside.kind == "mapping" and len(inside.keys) == len(inside.items):
                key = (token[0][1:-1], token.start(), token.end())
                inside.keys.append(key)
                continue
            opens = mark in "[{"
            kind = ("list" if mark == "[" else "mapping") if opens else "scalar"
            if opens:
                node = Node.collection(kind, token.start(), flow=True)
            else:
                style = '"' if mark == '"' else ""
                node = Node(kind, token.start(), token.start(), token.end(), style)
            if inside:
                inside.items.append(node)
            else:
                root = node
            if opens:
                stack.append(node)
        return root or Node("scalar", 0, 0, 0)
