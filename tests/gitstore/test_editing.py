"""Edits in place: the value is the new one, and only the lines concerned differ.

Random single edits of samples in every style, and of files that others wrote (kept beside the repository, in
../shared/data, and not everywhere).
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from gitstore.definition import document
from gitstore.definition.editing import edit
from gitstore.definition.spans import Node, Spans
from gitstore.diff import json_patch
from gitstore.diff.values import difference
from gitstore.errors import InvalidDefinitionError, MalformedError
from gitstore.model import Definition, Limits, Rules

LIMITS = Limits()
DATA = Path(__file__).parents[3] / "shared" / "data"

BLOCK = """\
# Head comment
name: Order sync   # trailing
description: "Copies: paid"
nodes:
  # The trigger
  - id: hook-1
    type: webhook
    position: {x: 0, y: 0}   # layout
    data:
      label: 'Order paid'
      config: {}
    # end of hook-1
  - id: call-1
    type: default

    position: { x: 260, y: 0 }
    data:
      label: Create shipment
      config:
        url: https://warehouse.example/shipments
        body: |
          {
            "a": 1
          }
        note: >-
          folded text
          over lines
        keep: |+
          a

edges:
  - {id: e1, source: hook-1, target: call-1}
  - {id: e2, source: call-1, target: hook-1}  # back
"""
ANCHORS = """\
defaults: &d
  retries: 3
  wait: {s: 1, by: &by [1, 2]}
a:
  <<: *d
  x: 1
b: *d
c: &s text
e: [*s, &q 1, *q, *by]
f: &list
- 1
- &m {k: v}
g: *list
h: *m
"""
VALUE = {
    "nodes": [{"id": "a", "p": {"x": 1, "y": 2}, "l": [1, 2]}, {"id": "b", "e": [], "o": {}}, {"id": "c"}],
    "edges": [{"id": "e1", "s": "a", "t": "b"}],
    "text": "x\ny",
    "wide": "é",
    "large": 1e21,
}
SAMPLES = {
    "indented.yaml": BLOCK,
    "flush.yaml": BLOCK.replace("\n  - ", "\n- ").replace("\n    ", "\n  ").replace("\n  # The", "\n# The"),
    "crlf.yaml": BLOCK.replace("\n", "\r\n"),
    "no-line-end.yaml": BLOCK.rstrip("\n"),
    "mark.yaml": "\ufeff" + BLOCK,
    "four.yaml": "a:\n    b:\n        c: 1\n        d:\n            - 1\n            - two\n    e: ~\n"
    "f:\n    - - 1\n      - 2\n    - - 3\n    -\n      x: 1\n      y: 2\n    -   z: 1\n        zz: 2\n",
    "anchors.yaml": ANCHORS,
    "flow.yaml": "{a: 1, 'b': [1, two, {c: d}], \"e\": {}, f: [], g: ~}\n",
    "lines.yaml": "nodes: [\n  {id: a, x: 1},   # first\n  {id: b,\n   x: 2},\n  {id: c}  # last\n]\n"
    "z: {\n  a: 1,\n  b: 2,\n}\npairs: [a: 1, b: 2]\n",
    "document.yaml": "%YAML 1.2\n---\n# c\na: 1\n? b\n: 2\n? c\nd:\n\ne: |-2\n   lead\n  x\nf: plain\n"
    "  more\n  lines\ng: 'it''s\n\n  two'\n...\n",
    "tags.yaml": 'a: !!str 1\nb: !!float 2\nc: &x !!map\n  k: v\n"quoted key": 1\nd: !!seq\n- 1\n- 2\n'
    "n: 0x1F\n",
    "two.json": json.dumps(VALUE, indent=2) + "\n",
    "tab.json": json.dumps(VALUE, indent="\t", ensure_ascii=False),
    "compact.json": json.dumps(VALUE, separators=(",", ":")),
    "line.json": json.dumps(VALUE) + "\n",
    "crlf.json": json.dumps(VALUE, indent=4).replace("\n", "\r\n") + "\r\n",
    "mixed.json": '{\n  "nodes": [\n    { "id": "a", "x": 1 },\n    { "id": "b", "x": 2 }\n  ],\n'
    '  "e": {}\n}\n',
}
NEW: list[Any] = [
    *(1, 2.5, True, None, "plain", "with: colon", "two\nlines\n", "yes", "", [1, 2], [], {}, "# no comment"),
    *({"a": 1, "b": {"c": [1, {"d": 2}]}}, ["x: y", {"k": "v"}], {"id": "new", "position": {"x": 1}}),
]


def parsed(raw: bytes, name: str) -> Definition:
    return document.parse(raw, "workflow" + Path(name).suffix, Rules.ANY, LIMITS)


def edited(raw: bytes, new: Any, name: str = "workflow.yaml") -> bytes:
    """Return `raw` with the value `new`, which it has to have."""
    result = edit(parsed(raw, name), new, "workflow" + Path(name).suffix, Rules.ANY, LIMITS).definition
    assert difference(parsed(result.raw, name).value, new) is None
    return result.raw


# Random edits


@dataclass(frozen=True)
class Change:
    """One edit of a definition: `path` is that of the value, or of the collection of an insertion or move."""

    kind: str
    path: tuple[str | int, ...]
    new: Any
    at: Any = None


def values(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    yield path, value
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, each in inner:
        yield from values(each, (*path, step))


def random_change(rng: random.Random, old: Any) -> Change:
    while True:
        new = copy.deepcopy(old)
        everything = list(values(new))
        kind, (path, value) = rng.choice(["change", "insert", "remove", "move"]), rng.choice(everything)
        container = new
        for step in path[:-1]:
            container = container[step]
        other = copy.deepcopy(rng.choice(NEW))
        if kind == "insert" and isinstance(value, dict):
            items = list(value.items())
            items.insert(rng.randint(0, len(items)), (key := f"added{rng.randrange(99)}", other))
            value.clear()
            value.update(items)
            return Change(kind, path, new, key)
        if kind == "insert" and isinstance(value, list):
            value.insert(at := rng.randint(0, len(value)), other)
            return Change(kind, path, new, at)
        if kind == "move" and isinstance(value, list) and len(value) > 1:
            i, j = rng.sample(range(len(value)), 2)
            value.insert(j, value.pop(i))
            return Change(kind, path, new, (i, j))
        if kind == "remove" and path:
            del container[path[-1]]
            return Change(kind, path, new)
        if kind == "change" and path:
            if isinstance(value, str) and rng.random() < 0.5:
                other = value + " more"
            container[path[-1]] = other
            return Change(kind, path, new)


class Concerned:
    """The lines of a text that an edit concerns, as offsets of their starts."""

    def __init__(self, spans: Spans) -> None:
        self._spans = spans
        self._ranges: list[tuple[int, int]] = []

    def item(self, node: Node | None, index: int, value: Node) -> None:
        """Add an item's lines, and those of comments within it."""
        spans = self._spans
        head = spans.head(node, index) if node is not None else value.start
        end = spans.line_end(max(value.end - 1, head))
        while spans.text[end : spans.line_end(end)].lstrip(" ").startswith("#"):
            if spans.column(end + spans.text[end:].index("#")) <= spans.column(head):
                break
            end = spans.line_end(end)
        self._ranges.append((spans.line_start(head), max(end - 1, 0)))

    def items(self, node: Node, *indices: int) -> None:
        for index in indices:
            if 0 <= index < len(node.items):
                self.item(node, index, node.items[index])

    def line(self, at: int) -> None:
        self._ranges.append((self._spans.line_start(at),) * 2)

    def untouched(self) -> list[str]:
        lines, at = [], 0
        for line in self._spans.text.splitlines(keepends=True):
            if not any(first <= at <= last for first, last in self._ranges):
                lines.append(line.rstrip("\n"))
            at += len(line)
        return lines


def concerned(spans: Spans, old: Any, change: Change) -> Concerned:
    lines, node = Concerned(spans), spans.root
    chain: list[tuple[Any, Any, Node]] = [(None, 0, node)]
    for step in change.path:
        if not node.items:
            break  # below an alias
        index = list(old).index(step) if isinstance(old, dict) else int(step)
        chain.append((node, index, node.items[index]))
        node, old = node.items[index], old[step]
    parent, index, node = chain[-1]
    if change.kind in ("change", "remove"):
        lines.item(parent, index, node)
        if change.kind == "remove" and parent is not None and parent.items:
            if parent.flow:
                lines.items(parent, index - 1)
            elif index == 0 and len(parent.items) > 1 and not spans.begins_line(spans.head(parent, 0)):
                lines.line(spans.head(parent, 1))
            if index == 0 and len(parent.items) > 1 and parent.flow:
                lines.line(spans.head(parent, 1))
            if len(parent.items) == 1:
                lines.item(*chain[-2])
        return lines
    if not node.items:
        lines.item(parent, index, node)
    elif node.flow:
        i, j = change.at if change.kind == "move" else (change.at, change.at)
        every = not isinstance(i, int)
        near = range(len(node.items)) if every else {*range(i - 1, i + 2), *range(j - 1, j + 2)}
        lines.items(node, *near)
        for at in (node.start, node.end - 1):
            lines.line(at)
    else:
        lines.line(spans.head(node, 0))
        if change.kind == "move":
            lines.items(node, *(change.at if abs(change.at[0] - change.at[1]) == 1 else change.at[:1]))
    return lines


@dataclass
class Tally:
    edits: int = 0
    rewritten: int = 0
    strayed: list[str] = field(default_factory=list)
    slowest: float = 0


def random_edits(raw: bytes, name: str, count: int, seed: int, tally: Tally) -> None:
    """Make random edits, each of the value as it was; count those that changed more than that."""
    old, file_name = parsed(raw, name), "workflow" + Path(name).suffix
    assert edit(old, copy.deepcopy(old.value), file_name, Rules.ANY, LIMITS).definition.raw == raw
    spans = Spans(raw.decode().removeprefix("\ufeff"), is_json=name.endswith(".json"))
    rng = random.Random(seed)  # noqa: S311 - no secret
    for _ in range(count):
        change = random_change(rng, old.value)
        start = perf_counter()
        result = edit(old, change.new, file_name, Rules.ANY, LIMITS)
        tally.slowest = max(tally.slowest, perf_counter() - start)
        tally.edits += 1
        tally.rewritten += result.rewritten
        assert difference(parsed(result.definition.raw, name).value, change.new) is None
        written = result.definition.raw.decode().removeprefix("\ufeff").splitlines(keepends=True)
        lines = iter(line.rstrip("\n") for line in written)
        if not all(line in lines for line in concerned(spans, old.value, change).untouched()):
            tally.strayed.append(f"{name}: {change.kind} {change.path} {change.at}")


@pytest.mark.parametrize("name", SAMPLES)
def test_only_the_lines_concerned_differ(name: str) -> None:
    """A change, an insertion, a removal or a move, at any place of a text in any style."""
    tally = Tally()
    random_edits(SAMPLES[name].encode(), name, 20, 1, tally)
    assert tally.rewritten == 0
    # A changed anchor concerns its aliases, too; they keep their value.
    assert not [edit for edit in tally.strayed if name != "anchors.yaml"]


def corpus() -> list[tuple[str, bytes]]:
    """The files that can be parsed, and MeshHook's definitions in both formats."""
    files = [(path.name, path.read_bytes()) for path in sorted(DATA.glob("corpus-argo*/data/**/*.y*ml"))]
    cases = DATA / "meshhook-validator" / "data" / "cases.jsonl"
    for number, line in enumerate(cases.read_text().splitlines() if cases.exists() else ()):
        value = json.loads(line)["definition"]
        if isinstance(value, dict) and number % 10 == 0:
            for suffix in (".yaml", ".json"):
                raw = document.dump(value, "workflow" + suffix, Rules.ANY)
                files.append((f"meshhook-{number}{suffix}", raw))
    return [(name, raw) for name, raw in files if is_readable(raw, name)]


def is_readable(raw: bytes, name: str) -> bool:
    try:
        return parsed(raw, name).value is not None
    except InvalidDefinitionError:
        return False


@pytest.mark.parametrize(
    ("share", "count"), [(12, 5), pytest.param(1, 20, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])]
)
def test_edits_of_files_of_others(share: int, count: int) -> None:
    """At least 99 of 100 edits change only the lines concerned, and no edit takes long."""
    tally = Tally()
    for number, (name, raw) in enumerate(corpus()):
        if number % share == 0:
            random_edits(raw, name, count, number, tally)
    if not tally.edits:
        pytest.skip("../shared/data is not here")
    assert len(tally.strayed) + tally.rewritten <= tally.edits / 100, tally
    assert tally.slowest < 2


@pytest.mark.parametrize("name", SAMPLES)
def test_several_edits_at_once(name: str) -> None:
    """Any change of a value leads to a text with that value."""
    rng, raw = random.Random(2), SAMPLES[name].encode()  # noqa: S311 - no secret
    for _ in range(10):
        new = parsed(raw, name).value
        for _ in range(rng.randint(2, 6)):
            new = random_change(rng, new).new
        raw = edited(raw, new, name)


# Single edits


@pytest.mark.parametrize(
    ("text", "new", "expected"),
    [
        ("a: 1   # one\n", {"a": "two"}, "a: two   # one\n"),
        ("a: 'x'\nb: \"y\"\n", {"a": "it's", "b": "z"}, "a: 'it''s'\nb: \"z\"\n"),
        ("a: 1.0\nb: 1e3\n", {"a": 1, "b": 1000}, "a: 1.0\nb: 1e3\n"),
        ("b: 2\na: 1\n", {"a": 1, "c": 3, "b": 2}, "b: 2\na: 1\nc: 3\n"),
        ("x: &x {a: 1}\ny: *x\nz: *x\n", {"x": {"a": 1}, "y": {"a": 2}, "z": {"a": 1}},
         "x: &x {a: 1}\ny: {a: 2}\nz: *x\n"),
        ("l:\n- a\n# c\n- b\n- d\n", {"l": ["b", "a", "d"]}, "l:\n# c\n- b\n- a\n- d\n"),
        ("s: |\n    one\n    two\nt: 1\n", {"s": "one\n2\n", "t": 1}, "s: |\n    one\n    2\nt: 1\n"),
        ("a: 1\n", {"a": 1e21}, "a: 1e+21\n"),
    ],
)  # fmt: skip
def test_the_style_is_kept(text: str, new: Any, expected: str) -> None:
    assert edited(text.encode(), new).decode() == expected


def test_a_number_that_a_browser_has_rounded_is_unchanged() -> None:
    """What cannot be told apart as a double is the same number."""
    raw = b'{"a": 9007199254740993.0, "b": 1}'
    assert edited(raw, {"a": 9007199254740992.0, "b": 2}, "x.json") == b'{"a": 9007199254740993.0, "b": 2}'


def test_leftovers_are_dropped_unless_the_file_has_them() -> None:
    raw = b"nodes:\n- {id: a, type: delay, selected: true}\n"
    old = document.parse(raw, "workflow.yaml", Rules.MESHHOOK, LIMITS)
    node = {"id": "a", "type": "delay", "selected": True}
    for leftover in ({"dragging": True}, {"data": {"testResult": 1}}, {}):
        new = {"nodes": [node | leftover]}
        result = edit(old, new, "workflow.yaml", Rules.MESHHOOK, LIMITS).definition
        assert result.raw == (raw if "data" not in leftover else raw.replace(b"}", b", data: {}}"))
    moved = edit(old, {"nodes": [node | {"selected": False}]}, "workflow.yaml", Rules.MESHHOOK, LIMITS)
    assert moved.definition.raw == b"nodes:\n- {id: a, type: delay}\n"


# Patches (RFC 6902)


@pytest.mark.parametrize(
    ("value", "operation", "expected"),
    [
        ({"a": 1}, {"op": "add", "path": "/b", "value": [2]}, {"a": 1, "b": [2]}),
        ({"l": [1, 3]}, {"op": "add", "path": "/l/1", "value": 2}, {"l": [1, 2, 3]}),
        ({"l": [1]}, {"op": "add", "path": "/l/-", "value": None}, {"l": [1, None]}),
        ({"a": 1, "b": 2}, {"op": "remove", "path": "/a"}, {"b": 2}),
        ({"l": [1, 2]}, {"op": "replace", "path": "/l/0", "value": 9}, {"l": [9, 2]}),
        ({"a": {"x": 1}, "b": {}}, {"op": "move", "from": "/a/x", "path": "/b/y"}, {"a": {}, "b": {"y": 1}}),
        ({"l": [1, 2, 3]}, {"op": "move", "from": "/l/0", "path": "/l/2"}, {"l": [2, 3, 1]}),
        ({"a": {"x": 1}}, {"op": "copy", "from": "/a", "path": "/a/x"}, {"a": {"x": {"x": 1}}}),
        ({"a/b": {"~": 1}}, {"op": "test", "path": "/a~1b/~0", "value": 1.0}, {"a/b": {"~": 1}}),
        ({"": 1}, {"op": "replace", "path": "/", "value": 2}, {"": 2}),
        ({"a": 1}, {"op": "replace", "path": "", "value": {}}, {}),
    ],
)
def test_a_patch_is_applied(value: Any, operation: Any, expected: Any) -> None:
    before = copy.deepcopy(value)
    assert json_patch.apply([operation], value, LIMITS) == expected
    assert value == before


@pytest.mark.parametrize(
    "operation",
    [
        *(None, {}, {"op": "x", "path": ""}, {"op": [], "path": ""}, {"op": "add", "path": "/a"}),
        *(
            {"op": "remove", "path": path}
            for path in ("", "/b", "a", "/l/2", "/l/-", "/l/01", "/a/x", "/~2", 5)
        ),
        *({"op": "add", "path": path, "value": 1} for path in ("/l/3", "/l/x", "/a/b", "/b/c")),
        *({"op": "test", "path": "/a", "value": value} for value in (True, "1", None, [1])),
        {"op": "move", "from": "/l", "path": "/l/0"},
        {"op": "copy", "from": "/b", "path": "/c"},
    ],
)
def test_an_operation_that_cannot_be_applied_is_refused(operation: Any) -> None:
    with pytest.raises(MalformedError, match="operation 0"):
        json_patch.apply([operation], {"a": 1, "l": [1, 2]}, LIMITS)


def test_copies_of_copies_are_limited() -> None:
    """In size, and in depth."""
    deeper = [{"op": "copy", "from": "/a", "path": "/a" * depth} for depth in range(2, 80)]
    with pytest.raises(MalformedError, match="levels deep"):
        json_patch.apply(deeper, {"a": {}}, LIMITS)
    doubling = [{"op": "copy", "from": "/l", "path": "/l/-"}] * 40
    with pytest.raises(MalformedError, match="too large"):
        json_patch.apply(doubling, {"l": [1]}, LIMITS)
    wide = [{"op": "copy", "from": "/l", "path": "/m/-"}] * 1000
    with pytest.raises(MalformedError, match="too large"):
        json_patch.apply(wide, {"l": [1] * 1000, "m": []}, LIMITS)
