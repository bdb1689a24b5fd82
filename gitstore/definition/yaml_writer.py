"""Write values as YAML in one fixed, readable form, or new values into a document in its own style.

Block style, two spaces per level, keys in the given order, one line per scalar except for multi-line texts,
which become `|` blocks. A string is plain only if common parsers, including those of YAML 1.1, read it as
that string. `yaml_reader` parses the text back to the same value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple, Protocol

from gitstore.definition.quoting import INVISIBLE, quote_exactly
from gitstore.definition.spans import Node, Spans

LONGEST_KEY = 1000
"""A key before a colon may have 1024 characters (YAML 1.2.2, section 8.2.2); longer ones start with `?`."""

_FLOW = re.compile(r"[][{},]")
# Words that YAML 1.1 or 1.2 do not read as strings, in any case. YAML 1.1 also lists `y` and `n`, but its
# parsers do not follow it there, and `y` is in every node's position.
_WORDS = frozenset({"null", "true", "false", "yes", "no", "on", "off"})


class Like(Protocol):
    """A written value whose style a new one imitates: flow collections, and the quotes of strings."""

    flow: bool
    style: str

    def like(self, step: str | int) -> Like | None: ...


@dataclass(frozen=True, slots=True)
class Style:
    """The indentation of mappings and lists in a mapping, in spaces."""

    mapping: int = 2
    list: int = 2


_STYLE = Style()


def write(value: dict[str, Any] | list[Any]) -> str:
    """Return `value`, JSON without NUL or lone surrogates, as a document ending in a newline."""
    return "\n".join(block(value, "") if value else ["{}" if isinstance(value, dict) else "[]"]) + "\n"


def block(
    collection: dict[str, Any] | list[Any], indent: str, style: Style = _STYLE, like: Like | None = None
) -> Iterator[str]:
    """Yield the lines of a non-empty collection. Recurses as deep as `collection`."""
    if isinstance(collection, list):
        for item in collection:
            yield from hang(indent + "-", item, indent, style, _step(like, 0), compact=True)
        return
    for key, value in collection.items():
        written = _inline(key)
        if len(written) > LONGEST_KEY:
            yield f"{indent}? {written}"
            written = ""
        yield from hang(f"{indent}{written}:", value, indent, style, _step(like, key), compact=False)


def hang(
    head: str, value: Any, indent: str, style: Style = _STYLE, like: Like | None = None, *, compact: bool
) -> Iterator[str]:
    """Yield the lines of `head` followed by `value`, on the same line if it fits there.

    With `compact`, a collection also begins on that line: `- id: hook-1`.
    """
    if isinstance(value, (dict, list)) and value and not (like and like.flow):
        deeper = 2 if compact else style.list if isinstance(value, list) else style.mapping
        below = indent + " " * deeper
        lines = block(value, below, style, like)
        if compact:
            yield f"{head} {next(lines)[len(below) :]}"
        else:
            yield head
        yield from lines
    elif isinstance(value, str) and fits_block(value):
        yield f"{head} |{block_header(value)}"
        below = indent + "  "
        for line in value.removesuffix("\n").split("\n"):
            yield below + line if line else ""
    else:
        yield f"{head} {flow(value, like)}"


def flow(value: Any, like: Like | None = None, *, within: bool = False) -> str:
    """Return `value` on one line, in the style of `like`; `within` a flow collection or not."""
    if isinstance(value, dict) and value:
        inner = (
            f"{_string(key, within=True)}: {flow(each, _step(like, key), within=True)}"
            for key, each in value.items()
        )
        return "{" + ", ".join(inner) + "}"
    if isinstance(value, list) and value:
        return "[" + ", ".join(flow(each, _step(like, 0), within=True) for each in value) + "]"
    if isinstance(value, str):
        return _string(value, like.style if like else "", within=within)
    return _inline(value)


def _step(like: Like | None, step: str | int) -> Like | None:
    return like.like(step) if like else None


def fits_block(text: str) -> bool:
    """Return whether `text` has several lines, all of which a block preserves exactly."""
    characters = text.replace("\n", "").replace("\t", "")
    return "\n" in text and characters.strip(" ") != "" and not INVISIBLE.search(characters)


def block_header(text: str) -> str:
    """Return the indentation indicator, if the first line needs one, and the chomping indicator."""
    indentation = "2" if text[0] in " \t\n" else ""
    if not text.endswith("\n"):
        return indentation + "-"
    return indentation + ("+" if text.endswith("\n\n") else "")


def _inline(value: Any) -> str:
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, (dict, list)):
        return "[]" if isinstance(value, list) else "{}"
    return json.dumps(value)


def _string(text: str, quotes: str = "", *, within: bool = False) -> str:
    """Return `text` with `quotes` if they can hold it, else with as few as it needs."""
    if INVISIBLE.search(text) or quotes == '"':
        return quote_exactly(text)
    if quotes != "'" and _is_plain(text) and not (within and _FLOW.search(text)):
        return text
    if quotes == "'" or '"' in text or "\\" in text:
        return "'" + text.replace("'", "''") + "'"
    return f'"{text}"'


def _is_plain(text: str) -> bool:
    """Return whether `text` needs no quotes: a letter first, so never a number, a date or an indicator."""
    return (
        (text[:1].isalpha() or text[:1] in ("_", "/"))
        and text[-1] not in " :"
        and ": " not in text
        and " #" not in text
        and text.lower() not in _WORDS
    )


# In the style of a document, YAML or JSON. `editing.py` decides what changes and applies the edits; each
# method of the writer returns an edit or a text, and leaves the document as it is.


class Widen(Exception):  # noqa: N818 - not an error: more of the text is rewritten
    """A change cannot be written at its place."""


class Edit(NamedTuple):
    """Replace the text from `start` to `end`; several at one place apply in their order."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class NewItem:
    """A new item of a collection; `key` is that of a mapping."""

    value: Any
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """A value at its place: the item `index` of `parent`, or the document."""

    node: Node
    parent: Node | None = None
    index: int = 0


class StyledWriter:
    """Writes values in the style of one document. `newline` is its line end."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans
        self._text = spans.text
        self.newline = "\r\n" if "\r\n" in spans.text else "\n"

    def replace(self, place: Place, new: Any, *, anchor: str = "") -> Edit:
        """Return the edit that writes `new` in place of a value, in its style as far as possible."""
        node, parent, index = place.node, place.parent, place.index
        if parent is None:
            return Edit(node.content, node.end, self._document(new))
        like = node.target or node
        name = anchor or node.anchor
        prefix = f"&{name} " if name else ""
        lead = " " if node.start == node.end else ""
        if parent.flow:
            if lead and parent.keys and self._text[node.start - 1] != ":":
                lead = ": "
            indent = self._spans.indentation(self._spans.head(parent, index))
            if self._spans.is_json:
                return Edit(node.start, node.end, self._json(new, indent, like))
            written = flow(new, like, within=True)
            return Edit(node.start, node.end, lead + prefix + written)
        after = self._spans.after(parent, index)
        newline = self.newline if node.end > node.start and self._text[node.end - 1] == "\n" else ""
        # A comment behind a text of several lines would become part of the text.
        has_comment = not newline and "#" in self._text[node.end : self._spans.item_end(parent, index)]
        column = self._spans.column(self._spans.head(parent, index))
        if after < 0:  # "? key" alone
            head = f"{self.newline}{' ' * column}:"
            lines = hang(head, new, " " * column, self._style, compact=False)
            return Edit(node.end, node.end, self.newline.join(lines))
        if isinstance(new, str) and node.style in ("|", ">") and node.style:
            literal = self._literal(node, new, column)
            if literal:
                return Edit(node.content, node.end, literal)
        if self._is_block(new) and not (like.flow and like.items):
            begin = self._spans.column(node.content)
            same = node.kind == ("list" if isinstance(new, list) else "mapping") and not node.flow
            if same and self._spans.begins_line(node.content):
                lines = block(new, " " * begin, self._style, node)
                return Edit(node.content, node.end, self.newline.join(lines)[begin:] + newline)
        elif not (isinstance(new, str) and fits_block(new)) or has_comment:
            written = quote_exactly(new) if isinstance(new, str) and "\n" in new else flow(new, node)
            if self._spans.line_start(after) == self._spans.line_start(node.start):
                return Edit(node.start, node.end, lead + prefix + written + newline)
            return Edit(after, node.end, " " + prefix + written + newline)
        elif node.style in ("'", '"') and node.style and "\n" in new:
            return Edit(node.start, node.end, prefix + quote_exactly(new) + newline)
        compact = parent.kind == "list"
        blocks = None if like.flow else like
        properties = " " + prefix.rstrip() if prefix else ""
        if compact and prefix:
            raise Widen
        lines = hang(properties, new, " " * column, self._style, blocks, compact=compact)
        return Edit(after, node.end, self.newline.join(lines) + newline)

    def block_item(self, item: NewItem, indent: str, like: Node) -> str:
        """Return the lines of a new item."""
        if item.key is not None:
            lines = block({item.key: item.value}, indent, self._style, like)
        else:
            lines = hang(indent + "-", item.value, indent, self._style, like, compact=True)
        return self.newline.join(lines) + self.newline

    def flow_item(self, item: NewItem, indent: str, node: Node, beside: int) -> str:
        like = node.items[beside] if item.key is None else None
        if self._spans.is_json:
            key = "" if item.key is None else json.dumps(item.key, ensure_ascii=False) + self._colon
            return key + self._json(item.value, indent, like)
        if item.key is not None:
            return flow({item.key: item.value})[1:-1]
        return flow(item.value, like, within=True)

    def separator(self, node: Node, beside: int, gaps: list[str]) -> str:
        """Return what separates items: as next to the item `beside`, else as its lines suggest."""
        for gap in gaps[max(beside - 1, 0) : beside + 1][::-1]:
            if gap.strip() == ",":
                return gap
        start = self._spans.head(node, 0)
        opening = self._text[node.content + 1 : start]
        if "\n" in opening:
            return "," + self.newline + self._spans.indentation(start)
        return self._comma

    def _document(self, new: Any) -> str:
        root = self._spans.root
        if self._spans.is_json:
            return self._json(new, "", root)
        if not self._is_block(new) or (root.flow and root.items):
            return flow(new, root)
        return self.newline.join(block(new, "", self._style, root))

    @staticmethod
    def _is_block(value: Any) -> bool:
        return isinstance(value, (dict, list)) and bool(value)

    def _literal(self, node: Node, new: str, column: int) -> str:
        """Return a block scalar with the header and the indentation of `node`; "" if it cannot hold `new`."""
        header = self._text[node.content : self._spans.line_end(node.content)].rstrip("\r\n")
        body = self._text[node.content : node.end][len(header) :].strip("\r\n")
        margin = len(body) - len(body.lstrip(" "))
        if not fits_block(new + "\n") or not margin or column >= margin:
            return ""
        digit = str(margin - column) if new[0] in " \t\n" else ""
        if len(digit) > 1:
            return ""
        chomping = block_header(new).lstrip("2")
        rest = header[1:].lstrip("0123456789+-")
        folded = node.style == ">" and "\n" not in new.rstrip("\n") and not digit
        lines = [(" " * margin + line if line else "") for line in new.removesuffix("\n").split("\n")]
        first = (">" if folded else "|") + digit + chomping + rest
        return self.newline.join([first, *lines]) + self.newline

    def _json(self, value: Any, indent: str, like: Node | None) -> str:
        """Return `value` as JSON at the indentation `indent`, on as many lines as `like` suggests."""
        if not self._is_block(value):
            return json.dumps(value, ensure_ascii=False)
        spans = self._spans
        several = spans.root if like is None or not like.items else like
        on_lines = spans.line_start(several.start) != spans.line_start(several.end)
        inner = indent + self._step if on_lines else indent
        if isinstance(value, dict):
            items = [
                json.dumps(key, ensure_ascii=False)
                + self._colon
                + self._json(each, inner, like.like(key) if like else None)
                for key, each in value.items()
            ]
        else:
            items = [self._json(each, inner, like.like(0) if like else None) for each in value]
        opening, closing = "{}" if isinstance(value, dict) else "[]"
        if not on_lines:
            return opening + self._comma.join(items) + closing
        separator = self.newline + inner
        return opening + separator + ("," + separator).join(items) + self.newline + indent + closing

    @cached_property
    def _colon(self) -> str:
        root = self._spans.root
        if not root.keys:
            return ": "
        colon = self._text[root.keys[0][2] : root.items[0].start]
        return colon if colon.strip(" ") == ":" else ": "

    @cached_property
    def _comma(self) -> str:
        return "," if self._spans.is_json and not self._colon.endswith(" ") else ", "

    @cached_property
    def _step(self) -> str:
        """The white space that a level of JSON adds."""
        root = self._spans.root
        return self._spans.indentation(self._spans.head(root, 0)) if root.items else "  "

    @cached_property
    def _style(self) -> Style:
        """The indentation that the first mapping and the first list in a mapping have."""
        found: dict[str, int] = {}
        waiting = [self._spans.root]
        while waiting and len(found) < 2:
            node = waiting.pop()
            for item in node.items:
                if item.flow or item.kind not in ("mapping", "list"):
                    continue
                waiting.append(item)
                if node.kind == "mapping" and self._spans.begins_line(item.content):
                    column = self._spans.column(self._spans.head(node, 0))
                    found.setdefault(item.kind, self._spans.column(item.content) - column)
        mapping = found.get("mapping", 2)
        return Style(mapping, found.get("list", mapping if mapping > 0 else 2))
