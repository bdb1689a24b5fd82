"""Build a value from a flat stream of nodes, under limits, and record the position of each node.

Both readers (`yaml_reader`, `json_reader`) drive a `Builder`: open, scalar, close. It has its own stack, so
that nothing here or in the readers recurses, and it stops as soon as a limit is exceeded, before the value is
complete. Errors are collected in `SyntaxErrors`, so that one run reports all of them.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from gitstore import budget
from gitstore.definition.quoting import quote
from gitstore.model import MOST_PROBLEMS, Limits, Problem

_BETWEEN_CHECKS = 0xFF  # nodes between two budget checks, as a mask
_FORBIDDEN = re.compile(r"[\x00\ud800-\udfff]")
_LINE_BREAK = re.compile(r"\r\n|\r|\n")
_REFUSED_KEY = object()


class AbortParse(Exception):  # noqa: N818 - not an error but the end of reading; the errors are in `SyntaxErrors`
    """Reading cannot continue."""


class Source:
    """A document's text, which maps an offset to line and column (from 1, in characters)."""

    def __init__(self, text: str) -> None:
        self.text = text

    @cached_property
    def _line_starts(self) -> list[int]:
        return [0, *(line_break.end() for line_break in _LINE_BREAK.finditer(self.text))]

    def place(self, offset: int) -> tuple[int, int]:
        line = bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1


class SyntaxErrors:
    """The errors in the text of a document, by offset."""

    def __init__(self) -> None:
        self._errors: list[tuple[int, str, str]] = []

    def __bool__(self) -> bool:
        return bool(self._errors)

    def add(self, at: int, code: str, message: str) -> None:
        """Record an error; raise `AbortParse` at MOST_PROBLEMS of them."""
        self._errors.append((at, code, message))
        if len(self._errors) >= MOST_PROBLEMS:
            raise AbortParse

    def stop(self, at: int, code: str, message: str) -> AbortParse:
        """Record an error after which reading cannot continue: `raise errors.stop(…)`."""
        self._errors.append((at, code, message))
        return AbortParse()

    def problems(self, source: Source) -> list[Problem]:
        """Return all errors as problems, in document order."""
        problems = []
        for at, code, message in sorted(self._errors, key=lambda error: error[0]):
            line, column = source.place(at)
            problems.append(Problem(code, message, line=line, column=column))
        return problems


@dataclass(slots=True)
class Mark:
    """The start offset of a node, and the marks of its children.

    A tree parallel to the value, rather than a table by JSON Pointer: with long keys at many levels, the
    pointers of a small document can take gigabytes.
    """

    at: int
    within: dict[str | int, Mark] = field(default_factory=dict)


@dataclass(slots=True)
class NodeCost:
    """A complete node, and the cost of a copy of it: nodes, levels, and characters of text."""

    value: Any
    nodes: int = 0
    levels: int = 0
    characters: int = 0


@dataclass(slots=True)
class _Open:
    """A mapping or list being filled. `key` is the key whose value comes next, None before a key."""

    container: dict[str, Any] | list[Any]
    mark: Mark
    nodes_before: int
    characters_before: int
    levels: int = 1
    key: object = None


class Builder:
    """Collects nodes in document order; `root` and `marks` hold the result.

    In a mapping, the first node is a key, the second its value, and so on.
    """

    def __init__(self, limits: Limits, errors: SyntaxErrors) -> None:
        self.root: Any = None
        self.marks = Mark(0)
        self._limits = limits
        self._errors = errors
        self._stack: list[_Open] = []
        self._nodes = 0
        self._characters = 0

    def scalar(self, value: Any, at: int) -> NodeCost:
        characters = len(value) if isinstance(value, str) else 0
        self._spend(1, characters, at)
        if characters and (forbidden := _FORBIDDEN.search(value)):
            name = "NUL" if forbidden[0] == "\0" else "a lone surrogate"
            self._errors.add(at, "character_not_allowed", f"a string contains {name}")
        self._put(value, Mark(at))
        return NodeCost(value, 1, 0, characters)

    def open(self, container: dict[str, Any] | list[Any], at: int) -> None:
        """Start a mapping or list; `container` is empty."""
        self._check_levels(1, at)
        mark = Mark(at)
        opened = _Open(container, mark, self._nodes, self._characters)
        self._spend(1, 0, at)
        self._put(container, mark)
        self._stack.append(opened)

    def close(self) -> NodeCost:
        closed = self._stack.pop()
        if self._stack:
            self._stack[-1].levels = max(self._stack[-1].levels, closed.levels + 1)
        nodes, characters = self._nodes - closed.nodes_before, self._characters - closed.characters_before
        return NodeCost(closed.container, nodes, closed.levels, characters)

    def repeat(self, built: NodeCost, at: int) -> None:
        """Add a copy of a complete node. It costs as much as if it were written out."""
        self._check_levels(built.levels, at)
        self._spend(built.nodes, built.characters, at)
        if self._stack:
            self._stack[-1].levels = max(self._stack[-1].levels, built.levels + 1)
        self._put(_copy(built.value), Mark(at))

    def too_deep(self, at: int) -> AbortParse:
        """Return the error for too deep nesting: `raise builder.too_deep(at)`."""
        return self._errors.stop(at, "too_deep", f"more than {self._limits.depth} levels deep")

    def _check_levels(self, more: int, at: int) -> None:
        if len(self._stack) + more > self._limits.depth:
            raise self.too_deep(at)

    def _spend(self, nodes: int, characters: int, at: int) -> None:
        if not self._nodes & _BETWEEN_CHECKS:
            budget.check()
        self._nodes += nodes
        self._characters += characters
        if self._nodes > self._limits.nodes:
            message = f"more than {self._limits.nodes} nodes, aliases written out"
            raise self._errors.stop(at, "too_many_nodes", message)
        if self._characters > self._limits.definition:
            # Only aliases can exceed this: a shared text is free here, but is written out in every JSON.
            message = f"more than {self._limits.definition} characters, aliases written out"
            raise self._errors.stop(at, "too_large", message)

    def _put(self, value: Any, mark: Mark) -> None:
        if not self._stack:
            self.root, self.marks = value, mark
            return
        inside = self._stack[-1]
        if isinstance(inside.container, list):
            inside.mark.within[len(inside.container)] = mark
            inside.container.append(value)
        elif inside.key is None:
            inside.key = self._key(inside.container, value, mark.at)
        else:
            if isinstance(inside.key, str):
                inside.container[inside.key] = value
                inside.mark.within[inside.key] = mark
            inside.key = None

    def _key(self, mapping: dict[str, Any], key: Any, at: int) -> object:
        """Return `key`, or a placeholder that makes `_put` drop the value of a refused key."""
        if not isinstance(key, str):
            self._errors.add(at, "key_not_a_string", "a key must be a string: put it in quotes")
        elif key in mapping:
            self._errors.add(at, "duplicate_key", f"duplicate key {quote(key)}")
        else:
            return key
        return _REFUSED_KEY


def _copy(value: Any) -> Any:
    """Return a copy that shares no list or mapping. Recurses at most `Limits.depth` times."""
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_copy(inner) for inner in value]
    return value
