"""Edit a definition in place: change only the lines of the text that a new value requires.

The difference of the two values (`gitstore/diff/values.py`) decides what changes: mappings have no order,
items of lists correspond as in any other comparison, and numbers are equal as doubles. `spans.py` locates
each change in the text, and `yaml_writer.py` writes it in the style of its surroundings. Comments, anchors,
the order of keys, quotes, indentation, line ends and the byte order mark are kept.

Every result is parsed, and its value is compared with the new one. If they differ, more of the document is
rewritten: the collections with changes, then the members of the document, then all of it. An edit usually
costs one parse, and seven at most.
"""

from __future__ import annotations

import codecs
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

from gitstore.definition import document
from gitstore.definition.elements import LEFTOVERS, mappings
from gitstore.definition.spans import Node, Spans
from gitstore.definition.yaml_writer import Edit, NewItem, Place, StyledWriter, Widen
from gitstore.diff.values import Delta, InList, InMapping, Leaf, difference
from gitstore.errors import InvalidDefinitionError
from gitstore.model import Definition, Limits, Rules

_Sequence = list["int | NewItem"]
"""The items of a collection after a change: old ones by their index, and new ones."""


@dataclass(frozen=True, slots=True)
class Edited:
    """The definition after an edit; `rewritten` if more than the changed values was rewritten."""

    definition: Definition
    rewritten: bool = False


_WIDTHS = (0, 1, 2)
"""How much is rewritten: the changed values, the collections with changes, the members of the document."""


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

    The value of the result may differ from `new`: the caller checks it.
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


class _Editor:
    """Finds the edits of one text. `width` is how much is rewritten."""

    def __init__(self, spans: Spans, width: int) -> None:
        self._spans = spans
        self._text = spans.text
        self._width = width
        self._writer = StyledWriter(spans)
        self._newline = self._writer.newline
        self._changed: set[int] = set()  # ids of the nodes whose value changes
        self._dropped: list[tuple[int, int]] = []  # the places of what is removed or replaced
        self._expanded: list[Edit] = []  # edits of aliases whose anchor changes, in order

    def edited(self, old: Any, new: Any, delta: Delta) -> str:
        """Return the text with the changes of `delta`."""
        place = Place(self._spans.root)
        edits = self._value(place, old, new, delta, 0)
        if self._spans.aliases:
            self._expanded = sorted(self._expand(old))
            if self._expanded:
                edits = self._value(place, old, new, delta, 0)
        return self._apply(0, len(self._text), edits)

    def _apply(self, start: int, end: int, edits: Sequence[Edit]) -> str:
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

    def _value(self, place: Place, old: Any, new: Any, delta: Delta, depth: int) -> list[Edit]:
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

    def _mapping(self, place: Place, old: Any, new: Any, delta: InMapping, depth: int) -> list[Edit]:
        node, indices = place.node, {key: index for index, key in enumerate(old)}
        inner = {
            indices[key]: self._value(
                Place(node.items[indices[key]], node, indices[key]), old[key], new[key], change, depth + 1
            )
            for key, change in delta.keys.items()
            if key in old and key in new
        }
        added: dict[str | None, list[NewItem]] = {}
        before = None
        for key, value in new.items():
            if key in indices:
                before = key
            else:
                added.setdefault(before, []).append(NewItem(value, key))
        sequence: _Sequence = []
        for key, index in indices.items():
            if key in new:
                sequence += [index, *added.get(key, ())]
        return self._arrange(place, [*sequence, *added.get(None, ())], inner, new)

    def _list(self, place: Place, old: Any, new: Any, delta: InList, depth: int) -> list[Edit]:
        node = place.node
        inner = {
            i: self._value(Place(node.items[i], node, i), old[i], new[j], change, depth + 1)
            for (i, j), change in delta.changed.items()
        }
        kept = iter(delta.order or [i for i in range(len(old)) if i not in delta.removed])
        sequence: _Sequence = [
            NewItem(delta.added[j]) if j in delta.added else next(kept) for j in range(len(new))
        ]
        return self._arrange(place, sequence, inner, new)

    def _arrange(
        self, place: Place, sequence: _Sequence, inner: Mapping[int, list[Edit]], new: Any
    ) -> list[Edit]:
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
        self, node: Node, stay: list[int], groups: Mapping[int, _Sequence], inner: Mapping[int, list[Edit]]
    ) -> list[Edit]:
        spans, first, kept = self._spans, stay[0], frozenset(stay)
        head = spans.head(node, 0)
        indent = " " * spans.column(head)
        is_compact = not spans.begins_line(head)
        moved = {item for items in groups.values() for item in items if isinstance(item, int)}
        starts = {i: self._spans.item_start(node, i, with_comments=True) for i in moved}
        edits = []
        pulled_up = -1
        if is_compact and first:
            # The item that shares a line with its container is removed: the first item that stays moves up
            # to that line, unless comments precede it.
            pulled_up = spans.head(node, first)
            ends = [node.items[i].end for i in range(first)]
            if any("#" in self._text[end : spans.head(node, i + 1)] for i, end in enumerate(ends)):
                if "\n" in self._text[head : ends[0]]:
                    raise Widen
                pulled_up = -1
                edits.append(Edit(head, ends[0], ""))
            else:
                edits.append(Edit(head, pulled_up, ""))
        for index in range(first if pulled_up >= 0 else int(is_compact), len(node.items)):
            if index not in kept:
                start = starts[index] if index in moved else self._spans.item_start(node, index)
                edits.append(Edit(start, self._spans.item_end(node, index), ""))
        for before, items in groups.items():
            texts = []
            for item in items:
                if isinstance(item, int):
                    start = starts[item] if item or not is_compact else head
                    body = self._apply(start, self._spans.item_end(node, item), inner.get(item, []))
                    body = body if start != head or not is_compact else indent + body
                    texts.append(body if body.endswith("\n") else body + self._newline)
                else:
                    like = node.items[max(before, 0)]
                    texts.append(
                        self._writer.block_item(item, indent, node if item.key is not None else like)
                    )
            text = "".join(texts)
            if before >= 0:
                at = self._spans.item_end(node, before)
                if at == len(self._text) and not self._text.endswith("\n"):
                    text = self._newline + text.removesuffix("\n").removesuffix("\r")
            elif is_compact and (pulled_up >= 0 or not first):
                at = max(pulled_up, head)
                text = text.removeprefix(indent) + indent
            else:
                at = self._spans.item_start(node, first)
            edits.append(Edit(at, at, text))
        return edits

    # Collections in flow style, and JSON: items are separated by commas

    def _in_flow(
        self, node: Node, stay: list[int], groups: Mapping[int, _Sequence], inner: Mapping[int, list[Edit]]
    ) -> list[Edit]:
        spans, first, kept = self._spans, stay[0], frozenset(stay)
        edits = []
        gaps = [self._text[a.end : spans.head(node, i + 1)] for i, (a, _) in enumerate(pairwise(node.items))]
        plain = not any("#" in gap for gap in gaps[:first])
        if first and plain:
            edits.append(Edit(spans.head(node, 0), spans.head(node, first), ""))
        for index in range(first if plain else 0, len(node.items)):
            if index in kept:
                continue
            if index > first and "#" not in gaps[index - 1]:
                edits.append(Edit(node.items[index - 1].end, node.items[index].end, ""))
                continue
            end = spans.skip(node.items[index].end)
            end = end + 1 if self._text[end] == "," else node.items[index].end
            edits.append(Edit(spans.head(node, index), end, ""))
        for before, items in groups.items():
            beside = max(before, first)
            separator = self._writer.separator(node, beside, gaps)
            # Behind the item before, unless that has a comment.
            follows = before >= 0 and "#" not in "".join(gaps[before : before + 1])
            texts = []
            for item in items:
                if isinstance(item, int):
                    text = self._apply(spans.head(node, item), node.items[item].end, inner.get(item, []))
                else:
                    text = self._writer.flow_item(
                        item, spans.indentation(spans.head(node, beside)), node, beside
                    )
                texts.append(separator + text if follows else text + separator)
            at = node.items[before].end if follows else spans.head(node, before + 1 if before >= 0 else first)
            edits.append(Edit(at, at, "".join(texts)))
        return edits

    def _replace(self, place: Place, new: Any, *, anchor: str = "") -> Edit:
        self._dropped.append((place.node.content, place.node.end))
        return self._writer.replace(place, new, anchor=anchor)

    # Aliases

    def _expand(self, old: Any) -> Iterator[Edit]:
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
        waiting = [(Place(self._spans.root), old)]
        while waiting:
            place, value = waiting.pop()
            node, target = place.node, place.node.target
            inner = list(value.values()) if isinstance(value, dict) else value
            items = [(Place(item, node, index), inner[index]) for index, item in enumerate(node.items)]
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
