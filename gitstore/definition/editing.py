"""Edit a definition in place: old text and new value -> new text, in which only the lines concerned differ.

The difference of the two values (`gitstore/diff/values.py`) decides what changes: mappings have no order,
items of lists correspond as in any other comparison, and numbers are equal as doubles. Each change is written
at its place in the text (`spans.py`), in the style of what surrounds it. All else is kept: comments, anchors,
the order of keys, quotes, indentation, line ends, the byte order mark.

Every result is parsed, and its value compared. If it is another one, the next text is tried, which writes
more of the document anew: the collections with changes, then the members of the document, then all of it. So
an edit costs four parses at most, and one as a rule.
"""

from __future__ import annotations

import codecs
import json
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product
from typing import Any, NamedTuple

from gitstore.definition import document, yaml_writer
from gitstore.definition.elements import LEFTOVERS, mappings
from gitstore.definition.quoting import quote_exactly
from gitstore.definition.spans import Node, Spans
from gitstore.diff.values import Delta, InList, InMapping, Leaf, difference
from gitstore.errors import InvalidDefinitionError
from gitstore.model import Definition, Limits, Rules


class Widen(Exception):  # noqa: N818 - not an error: more of the text is written anew
    """A change cannot be written at its place."""


class _Edit(NamedTuple):
    """Replace the text from `start` to `end`; several at one place apply in their order."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class _New:
    """A new item of a collection; `key` is that of a mapping."""

    value: Any
    key: str | None = None


_Sequence = list["int | _New"]
"""The items of a collection after a change: old ones by their index, and new ones."""


@dataclass(frozen=True, slots=True)
class Edited:
    """The definition after an edit; `rewritten` if more than the values concerned was written anew."""

    definition: Definition
    rewritten: bool = False


_WIDTHS = (0, 1, 2)
"""How much is written anew: the values concerned, the collections with changes, members of the document."""


def edit(old: Definition, new: Any, file_name: str, rules: Rules, limits: Limits) -> Edited:
    """Return the definition `old` with the value `new`, its text edited in place.

    With MeshHook's rules, editor leftovers are dropped unless the file has them already. Raises
    `definition_unparsable` if `new` exceeds the limits.
    """
    has_leftovers = rules is Rules.MESHHOOK and isinstance(new, dict)
    wanted = _without_new_leftovers(old.value, new) if has_leftovers else new
    delta = difference(old.value, wanted)
    if delta is None:
        return Edited(old)
    is_json = file_name.endswith(".json")
    # Without its line end, a block scalar that has become the last value is another text.
    endings = (b"", b"\n") if old.raw[-1:] != b"\n" and not is_json else (b"",)
    for width, ending in product(_WIDTHS, endings):
        try:
            raw = edited(old.raw, old.value, wanted, delta, is_json=is_json, width=width) + ending
            parsed = document.parse(raw, file_name, rules, limits)
        except (Widen, InvalidDefinitionError):
            continue
        if difference(parsed.value, wanted) is None:
            return Edited(parsed, rewritten=width > 0)
    raw = document.dump(wanted, file_name, Rules.ANY)
    return Edited(document.parse(raw, file_name, rules, limits), rewritten=True)


def edited(raw: bytes, old: Any, new: Any, delta: Delta, *, is_json: bool, width: int) -> bytes:
    """Return `raw`, whose value is `old`, with the changes `delta` that lead to `new`. Raises `Widen`.

    The value of the result may be another one, which the caller has to check.
    """
    mark = codecs.BOM_UTF8 if raw.startswith(codecs.BOM_UTF8) else b""
    text = raw.removeprefix(mark).decode()
    spans = Spans(text, is_json=is_json)
    written = _Editor(spans, width).edited(old, new, delta)
    if not text.endswith("\n"):
        written = written.removesuffix("\n").removesuffix("\r")
    return mark + written.encode()


def _without_new_leftovers(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return `new` without the editor leftovers that `old` lacks. `new` itself is not modified."""
    result = dict(new)
    for kind, keys in (("nodes", LEFTOVERS.node), ("edges", LEFTOVERS.edge)):
        if not isinstance(new.get(kind), list):
            continue
        before = {
            item.get("id") if _is_name(item.get("id")) else i: item for i, item in mappings(old.get(kind))
        }
        result[kind] = items = list(new[kind])
        for index, item in mappings(items):
            name = item.get("id") if _is_name(item.get("id")) else index
            known = before.get(name, {})
            items[index] = _kept(item, known, keys)
            if kind == "nodes" and isinstance(item.get("data"), dict):
                inner = known.get("data")
                items[index]["data"] = _kept(
                    item["data"], inner if isinstance(inner, dict) else {}, LEFTOVERS.data
                )
    return result


def _is_name(value: Any) -> bool:
    return isinstance(value, str)


def _kept(item: dict[str, Any], known: dict[str, Any], leftovers: frozenset[str]) -> dict[str, Any]:
    return {
        key: value
        for key, value in item.items()
        if key not in leftovers or (key in known and difference(known[key], value) is None)
    }


@dataclass(frozen=True, slots=True)
class _Place:
    """A value at its place: the item `index` of `parent`, or the document."""

    node: Node
    parent: Node | None = None
    index: int = 0


class _Editor:
    """Finds the edits of one text. `width` is how much is written anew."""

    def __init__(self, spans: Spans, width: int) -> None:
        self._spans = spans
        self._text = spans.text
        self._width = width
        self._newline = "\r\n" if "\r\n" in spans.text else "\n"
        self._changed: set[int] = set()  # ids of the nodes whose value changes
        self._dropped: list[tuple[int, int]] = []  # the places of what is removed or replaced
        self._expanded: list[_Edit] = []  # edits of aliases whose anchor changes, in order

    def edited(self, old: Any, new: Any, delta: Delta) -> str:
        """Return the text with the changes of `delta`."""
        place = _Place(self._spans.root)
        edits = self._value(place, old, new, delta, 0)
        if self._spans.aliases:
            self._expanded = sorted(self._expand(old))
            if self._expanded:
                edits = self._value(place, old, new, delta, 0)
        return self._apply(0, len(self._text), edits)

    def _apply(self, start: int, end: int, edits: Sequence[_Edit]) -> str:
        """Return text[start:end] with `edits`, and with those of aliases."""
        first = bisect_left(self._expanded, start, key=lambda each: each.start)
        last = bisect_right(self._expanded, end, key=lambda each: each.end)
        pieces, at = [], start
        for each in sorted([*edits, *self._expanded[first:last]], key=lambda each: each[:2]):
            if each.start < at:
                raise Widen
            pieces += [self._text[at : each.start], each.text]
            at = each.end
        return "".join([*pieces, self._text[at:end]])

    # Changes

    def _value(self, place: _Place, old: Any, new: Any, delta: Delta, depth: int) -> list[_Edit]:
        node = place.node
        self._changed.add(id(node))
        if self._width == 2 and depth == 1:
            return [self._replace(place, new)]
        if isinstance(delta, InMapping) and node.kind == "mapping" and len(node.items) == len(old):
            own = any(isinstance(inner, Leaf) for inner in delta.keys.values())
            if new and not (self._width == 1 and own):
                return self._mapping(place, old, new, delta, depth)
        if isinstance(delta, InList) and node.kind == "list" and len(node.items) == len(old):
            own = bool(delta.removed or delta.added or delta.order)
            own = own or any(isinstance(inner, Leaf) for inner in delta.changed.values())
            if new and not (self._width == 1 and own):
                return self._list(place, old, new, delta, depth)
        return [self._replace(place, new)]

    def _mapping(self, place: _Place, old: Any, new: Any, delta: InMapping, depth: int) -> list[_Edit]:
        node, indices = place.node, {key: index for index, key in enumerate(old)}
        inner = {
            indices[key]: self._value(
                _Place(node.items[indices[key]], node, indices[key]), old[key], new[key], change, depth + 1
            )
            for key, change in delta.keys.items()
            if key in old and key in new
        }
        added: dict[str | None, list[_New]] = {}
        before = None
        for key, value in new.items():
            if key in indices:
                before = key
            else:
                added.setdefault(before, []).append(_New(value, key))
        sequence: _Sequence = []
        for key, index in indices.items():
            if key in new:
                sequence += [index, *added.get(key, ())]
        return self._arrange(place, [*sequence, *added.get(None, ())], inner, new)

    def _list(self, place: _Place, old: Any, new: Any, delta: InList, depth: int) -> list[_Edit]:
        node = place.node
        inner = {
            i: self._value(_Place(node.items[i], node, i), old[i], new[j], change, depth + 1)
            for (i, j), change in delta.changed.items()
        }
        kept = iter(delta.order or [i for i in range(len(old)) if i not in delta.removed])
        sequence: _Sequence = [
            _New(delta.added[j]) if j in delta.added else next(kept) for j in range(len(new))
        ]
        return self._arrange(place, sequence, inner, new)

    def _arrange(
        self, place: _Place, sequence: _Sequence, inner: Mapping[int, list[_Edit]], new: Any
    ) -> list[_Edit]:
        """Return the edits that make the items of a collection those of `sequence`; `inner` are theirs."""
        node = place.node
        if sequence == list(range(len(node.items))):
            return [each for edits in inner.values() for each in edits]
        stay = _longest_ascending([item for item in sequence if isinstance(item, int)])
        opened = self._text[node.content : node.content + 1]
        if not stay or (node.flow and opened not in ("[", "{")):
            return [self._replace(place, new)]
        kept = frozenset(stay)
        groups: dict[int, _Sequence] = {}  # by the staying item before, -1 for those in front
        before = -1
        for item in sequence:
            if isinstance(item, int) and item in kept:
                before = item
            else:
                groups.setdefault(before, []).append(item)
        left = {item for item in sequence if isinstance(item, int)}
        self._dropped += [
            (self._spans.head(node, i), node.items[i].end) for i in range(len(node.items)) if i not in left
        ]
        arrange = self._in_flow if node.flow else self._in_block
        moved = arrange(node, stay, groups, inner)
        return [each for i in stay for each in inner.get(i, ())] + moved

    # Collections in block style: items are lines

    def _in_block(
        self, node: Node, stay: list[int], groups: Mapping[int, _Sequence], inner: Mapping[int, list[_Edit]]
    ) -> list[_Edit]:
        spans, first, kept = self._spans, stay[0], frozenset(stay)
        head = spans.head(node, 0)
        indent = " " * spans.column(head)
        is_compact = not spans.begins_line(head)
        moved = {item for items in groups.values() for item in items if isinstance(item, int)}
        starts = {i: self._line_of(node, i, with_comments=True) for i in moved}
        edits = []
        pulled_up = -1
        if is_compact and first:
            # The item that begins on the line of what contains it goes: the first that stays takes its place,
            # unless there are comments before that.
            pulled_up = spans.head(node, first)
            ends = [node.items[i].end for i in range(first)]
            if any("#" in self._text[end : spans.head(node, i + 1)] for i, end in enumerate(ends)):
                if "\n" in self._text[head : ends[0]]:
                    raise Widen
                pulled_up = -1
                edits.append(_Edit(head, ends[0], ""))
            else:
                edits.append(_Edit(head, pulled_up, ""))
        for index in range(first if pulled_up >= 0 else int(is_compact), len(node.items)):
            if index not in kept:
                start = starts[index] if index in moved else self._line_of(node, index)
                edits.append(_Edit(start, self._end_of(node, index), ""))
        for before, items in groups.items():
            texts = []
            for item in items:
                if isinstance(item, int):
                    start = starts[item] if item or not is_compact else head
                    body = self._apply(start, self._end_of(node, item), inner.get(item, []))
                    body = body if start != head or not is_compact else indent + body
                    texts.append(body if body.endswith("\n") else body + self._newline)
                else:
                    like = node.items[max(before, 0)]
                    texts.append(self._block_item(item, indent, node if item.key is not None else like))
            text = "".join(texts)
            if before >= 0:
                at = self._end_of(node, before)
                if at == len(self._text) and not self._text.endswith("\n"):
                    text = self._newline + text.removesuffix("\n").removesuffix("\r")
            elif is_compact and (pulled_up >= 0 or not first):
                at = max(pulled_up, head)
                text = text.removeprefix(indent) + indent
            else:
                at = self._line_of(node, first)
            edits.append(_Edit(at, at, text))
        return edits

    def _block_item(self, item: _New, indent: str, like: Node) -> str:
        """Return the lines of a new item."""
        if item.key is not None:
            lines = yaml_writer.block({item.key: item.value}, indent, self._style, like)
        else:
            lines = yaml_writer.hang(indent + "-", item.value, indent, self._style, like, compact=True)
        return self._newline.join(lines) + self._newline

    def _line_of(self, node: Node, index: int, *, with_comments: bool = False) -> int:
        """Return the start of an item's first line, or of the comments directly above it, or its head."""
        spans, head = self._spans, self._spans.head(node, index)
        if not spans.begins_line(head):
            return head
        start, column = spans.line_start(head), spans.column(head)
        least = node.items[index - 1].end if index else node.start
        while with_comments and start > least:
            above = spans.line_start(start - 1)
            line = self._text[above:start]
            if above < least or line[:column].strip(" ") or line[column : column + 1] != "#":
                break
            start = above
        return start

    def _end_of(self, node: Node, index: int) -> int:
        """Return the end of an item's last line, and of the comments behind it that are further indented."""
        end, column = node.items[index].end, self._spans.column(self._spans.head(node, index))
        if self._text[max(end - 1, 0) : end] != "\n" or node.items[index].start == end:
            end = self._spans.line_end(end)
        while end < len(self._text):
            after = self._spans.line_end(end)
            line = self._text[end:after]
            if not line.lstrip(" ").startswith("#") or len(line) - len(line.lstrip(" ")) <= column:
                break
            end = after
        return end

    # Collections in flow style, and JSON: items are separated by commas

    def _in_flow(
        self, node: Node, stay: list[int], groups: Mapping[int, _Sequence], inner: Mapping[int, list[_Edit]]
    ) -> list[_Edit]:
        spans, first, kept = self._spans, stay[0], frozenset(stay)
        edits = []
        gaps = [self._text[a.end : spans.head(node, i + 1)] for i, (a, _) in enumerate(pairwise(node.items))]
        plain = not any("#" in gap for gap in gaps[:first])
        if first and plain:
            edits.append(_Edit(spans.head(node, 0), spans.head(node, first), ""))
        for index in range(first if plain else 0, len(node.items)):
            if index in kept:
                continue
            if index > first and "#" not in gaps[index - 1]:
                edits.append(_Edit(node.items[index - 1].end, node.items[index].end, ""))
                continue
            end = spans.skip(node.items[index].end)
            end = end + 1 if self._text[end] == "," else node.items[index].end
            edits.append(_Edit(spans.head(node, index), end, ""))
        for before, items in groups.items():
            beside = max(before, first)
            separator = self._separator(node, beside, gaps)
            # Behind the item before, unless that has a comment.
            follows = before >= 0 and "#" not in "".join(gaps[before : before + 1])
            texts = []
            for item in items:
                if isinstance(item, int):
                    text = self._apply(spans.head(node, item), node.items[item].end, inner.get(item, []))
                else:
                    text = self._flow_item(item, spans.indentation(spans.head(node, beside)), node, beside)
                texts.append(separator + text if follows else text + separator)
            at = node.items[before].end if follows else spans.head(node, before + 1 if before >= 0 else first)
            edits.append(_Edit(at, at, "".join(texts)))
        return edits

    def _flow_item(self, item: _New, indent: str, node: Node, beside: int) -> str:
        like = node.items[beside] if item.key is None else None
        if self._spans.is_json:
            key = "" if item.key is None else json.dumps(item.key, ensure_ascii=False) + self._colon
            return key + self._json(item.value, indent, like)
        if item.key is not None:
            return yaml_writer.flow({item.key: item.value})[1:-1]
        return yaml_writer.flow(item.value, like, within=True)

    def _separator(self, node: Node, beside: int, gaps: list[str]) -> str:
        """Return what separates items: as next to the item `beside`, else as its lines suggest."""
        for gap in gaps[max(beside - 1, 0) : beside + 1][::-1]:
            if gap.strip() == ",":
                return gap
        start = self._spans.head(node, 0)
        opening = self._text[node.content + 1 : start]
        if "\n" in opening:
            return "," + self._newline + self._spans.indentation(start)
        return self._comma

    # New values

    def _replace(self, place: _Place, new: Any, *, anchor: str = "") -> _Edit:
        """Return the edit that writes `new` in place of a value, in its style as far as possible."""
        node, parent, index = place.node, place.parent, place.index
        self._dropped.append((node.content, node.end))
        if parent is None:
            return _Edit(node.content, node.end, self._document(new))
        like = node.target or node
        name = anchor or node.anchor
        prefix = f"&{name} " if name else ""
        lead = " " if node.start == node.end else ""
        if parent.flow:
            if lead and parent.keys and self._text[node.start - 1] != ":":
                lead = ": "
            indent = self._spans.indentation(self._spans.head(parent, index))
            if self._spans.is_json:
                return _Edit(node.start, node.end, self._json(new, indent, like))
            written = yaml_writer.flow(new, like, within=True)
            return _Edit(node.start, node.end, lead + prefix + written)
        after = self._spans.after(parent, index)
        newline = self._newline if node.end > node.start and self._text[node.end - 1] == "\n" else ""
        # A text of several lines would take a comment behind it for its own.
        has_comment = not newline and "#" in self._text[node.end : self._end_of(parent, index)]
        column = self._spans.column(self._spans.head(parent, index))
        if after < 0:  # "? key" alone
            head = f"{self._newline}{' ' * column}:"
            lines = yaml_writer.hang(head, new, " " * column, self._style, compact=False)
            return _Edit(node.end, node.end, self._newline.join(lines))
        if isinstance(new, str) and node.style in ("|", ">") and node.style:
            literal = self._literal(node, new, column)
            if literal:
                return _Edit(node.content, node.end, literal)
        if self._is_block(new) and not (like.flow and like.items):
            begin = self._spans.column(node.content)
            same = node.kind == ("list" if isinstance(new, list) else "mapping") and not node.flow
            if same and self._spans.begins_line(node.content):
                lines = yaml_writer.block(new, " " * begin, self._style, node)
                return _Edit(node.content, node.end, self._newline.join(lines)[begin:] + newline)
        elif not (isinstance(new, str) and yaml_writer.fits_block(new)) or has_comment:
            written = (
                quote_exactly(new) if isinstance(new, str) and "\n" in new else yaml_writer.flow(new, node)
            )
            if self._spans.line_start(after) == self._spans.line_start(node.start):
                return _Edit(node.start, node.end, lead + prefix + written + newline)
            return _Edit(after, node.end, " " + prefix + written + newline)
        elif node.style in ("'", '"') and node.style and "\n" in new:
            return _Edit(node.start, node.end, prefix + quote_exactly(new) + newline)
        compact = parent.kind == "list"
        blocks = None if like.flow else like
        properties = " " + prefix.rstrip() if prefix else ""
        if compact and prefix:
            raise Widen
        lines = yaml_writer.hang(properties, new, " " * column, self._style, blocks, compact=compact)
        return _Edit(after, node.end, self._newline.join(lines) + newline)

    def _document(self, new: Any) -> str:
        root = self._spans.root
        if self._spans.is_json:
            return self._json(new, "", root)
        if not self._is_block(new) or (root.flow and root.items):
            return yaml_writer.flow(new, root)
        return self._newline.join(yaml_writer.block(new, "", self._style, root))

    @staticmethod
    def _is_block(value: Any) -> bool:
        return isinstance(value, (dict, list)) and bool(value)

    def _literal(self, node: Node, new: str, column: int) -> str:
        """Return a block scalar with the header and the indentation of `node`; "" if it cannot hold `new`."""
        header = self._text[node.content : self._spans.line_end(node.content)].rstrip("\r\n")
        body = self._text[node.content : node.end][len(header) :].strip("\r\n")
        margin = len(body) - len(body.lstrip(" "))
        if not yaml_writer.fits_block(new + "\n") or not margin or column >= margin:
            return ""
        digit = str(margin - column) if new[0] in " \t\n" else ""
        if len(digit) > 1:
            return ""
        chomping = yaml_writer.block_header(new).lstrip("2")
        rest = header[1:].lstrip("0123456789+-")
        folded = node.style == ">" and "\n" not in new.rstrip("\n") and not digit
        lines = [(" " * margin + line if line else "") for line in new.removesuffix("\n").split("\n")]
        first = (">" if folded else "|") + digit + chomping + rest
        return self._newline.join([first, *lines]) + self._newline

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
        separator = self._newline + inner
        return opening + separator + ("," + separator).join(items) + self._newline + indent + closing

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
    def _style(self) -> yaml_writer.Style:
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
        return yaml_writer.Style(mapping, found.get("list", mapping if mapping > 0 else 2))

    # Aliases

    def _expand(self, old: Any) -> Iterator[_Edit]:
        """Yield the edits that write out the aliases of anchors whose value changes, but not their own.

        Where the anchor itself is removed, its first alias takes its place.
        """
        dropped = sorted(self._dropped)
        starts = [start for start, _ in dropped]
        furthest, ends = -1, []
        for _, end in dropped:
            furthest = max(furthest, end)
            ends.append(furthest)

        def is_dropped(node: Node) -> bool:
            at = bisect_right(starts, node.start) - 1
            return at >= 0 and node.start < ends[at]

        moved: set[int] = set()
        waiting = [(_Place(self._spans.root), old)]
        while waiting:
            place, value = waiting.pop()
            node, target = place.node, place.node.target
            inner = list(value.values()) if isinstance(value, dict) else value
            items = [(_Place(item, node, index), inner[index]) for index, item in enumerate(node.items)]
            waiting += reversed(items)
            if target is None or is_dropped(node):
                continue
            gone = is_dropped(target)
            if (gone and id(target) not in moved) or (not gone and id(target) in self._changed):
                moved.add(id(target))
                yield self._replace(place, value, anchor=(target.anchor or "") if gone else "")


def _longest_ascending(numbers: Sequence[int]) -> list[int]:
    """Return a longest ascending subsequence of different numbers."""
    ends: list[int] = []
    members: list[int] = []
    before: list[int] = []
    for index, number in enumerate(numbers):
        length = bisect_left(ends, number)
        before.append(members[length - 1] if length else -1)
        ends[length : length + 1], members[length : length + 1] = [number], [index]
    result, member = [], members[-1] if members else -1
    while member >= 0:
        result.append(numbers[member])
        member = before[member]
    return result[::-1]
