"""Build a value from a flat stream of nodes, under limits, and record the position of each node.

Both readers (`yaml_reader`, `json_reader`) drive a `Builder`: open, scalar, close. It has its own stack, so
that nothing here or in the readers recurses before the depth is known, and it stops as soon as a limit is
exceeded, before the value is complete. Errors are collected in `SyntaxErrors`, so that one run reports all of
them.

A method here is called for each node, tens of thousands of times for a megabyte: it does nothing that can be
done once for the whole text, or only where an alias or an error needs it.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

from gitstore import budget
from gitstore.definition.quoting import quote
from gitstore.model import MOST_PROBLEMS, Limits, Problem

NO_ENVELOPE: Final = Limits(depth=0, nodes=0)
_BETWEEN_CHECKS: Final = 256  # nodes between two budget checks
_FORBIDDEN: Final = re.compile(r"[\x00\ud800-\udfff]")
_LINE_BREAK: Final = re.compile(r"\r\n|\r|\n")

# The state of a collection where the key of the next value would be: it is a list, a mapping before a key, or
# one behind a refused key.
_ITEM: Final = object()
_KEY: Final = object()
_REFUSED: Final = object()


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
    """The errors in the text of a document, by offset.

    With `bytes_only`, what JSON has no form for is not an error: `no_json` has the first such problem.
    """

    def __init__(self, *, bytes_only: bool = False) -> None:
        self._errors: list[tuple[int, str, str]] = []
        self._bytes_only = bytes_only
        self.no_json: tuple[int, str, str] | None = None

    def __bool__(self) -> bool:
        return bool(self._errors)

    def add(self, at: int, code: str, message: str) -> None:
        """Record an error; raise `AbortParse` at MOST_PROBLEMS of them."""
        self._errors.append((at, code, message))
        if len(self._errors) >= MOST_PROBLEMS:
            raise AbortParse

    def refuse_json(self, at: int, code: str, message: str) -> None:
        """Record what JSON has no form for: sound YAML or JSON text, and an error where a value is needed."""
        if not self._bytes_only:
            self.add(at, code, message)
        elif self.no_json is None:
            self.no_json = (at, code, message)

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


class Marks:
    """The start offset of each part of a value, by the collection around it.

    Not a table by JSON Pointer: with long keys at many levels, the pointers of a small document can take
    gigabytes. The value must outlive its marks, and stay as it was read.
    """

    def __init__(self) -> None:
        self.document: list[int] = []
        self._within: dict[int, dict[str, int] | list[int]] = {}

    @property
    def root(self) -> int:
        return self.document[0] if self.document else 0

    def add(self, container: dict[str, Any] | list[Any]) -> dict[str, int] | list[int]:
        """Return the offsets of the parts of `container`: empty, to be filled like it."""
        offsets: dict[str, int] | list[int] = {} if isinstance(container, dict) else []
        self._within[id(container)] = offsets
        return offsets

    def locate(self, value: Any, path: Sequence[str | int]) -> tuple[int, int]:
        """Return (the number of steps of `path` that exist in `value`, the offset of the last one)."""
        at: int = self.root
        for steps, step in enumerate(path):
            offsets: Any = self._within.get(id(value))
            try:
                at, value = offsets[step], value[step]
            except (KeyError, IndexError, TypeError):
                return steps, at
        return len(path), at


class Builder:
    """Collects nodes in document order; `root` and `marks` hold the result.

    In a mapping, the first node is a key, the second its value, and so on. `envelope` is what may be around
    the definition to which the limits apply. `escapes` is whether strings may have characters that UTF-8
    text can't have.
    """

    def __init__(
        self, limits: Limits, errors: SyntaxErrors, *, escapes: bool, envelope: Limits = NO_ENVELOPE
    ) -> None:
        self.marks = Marks()
        self._limits = limits
        self._most_nodes = limits.nodes + envelope.nodes
        self._most_levels = limits.depth + envelope.depth
        self._errors = errors
        self._escapes = escapes
        self._nodes = 0
        self._next_check = 0
        self._copied = 0  # characters that aliases repeat
        self._has_copies = False
        self._depth = 0
        self._document: list[Any] = []
        # The innermost open collection: itself, its offsets, and its next key.
        self._inside: Any = self._document
        self._offsets: Any = self.marks.document
        self._key: Any = _ITEM
        self._around: list[tuple[Any, Any, Any]] = []

    @property
    def root(self) -> Any:
        """The value of the first document that is not empty."""
        return next((value for value in self._document if value is not None), None)

    def scalar(self, value: Any, at: int) -> None:
        if self._nodes >= self._next_check:
            self._check(at)
        self._nodes += 1
        if self._escapes and type(value) is str and (forbidden := _FORBIDDEN.search(value)):
            name = "NUL" if forbidden[0] == "\0" else "a lone surrogate"
            self._errors.add(at, "character_not_allowed", f"a string contains {name}")
        key = self._key
        if key is _ITEM:
            self._inside.append(value)
            self._offsets.append(at)
        elif key is _KEY:
            if type(value) is str and value not in self._inside:
                self._key = value
            else:
                self._refuse_key(value, at)
        else:
            if key is not _REFUSED:
                self._inside[key] = value
                self._offsets[key] = at
            self._key = _KEY

    def open(self, container: dict[str, Any] | list[Any], at: int) -> None:
        """Start a mapping or list; `container` is empty."""
        self._check_levels(1, at)
        self.scalar(container, at)
        self._around.append((self._inside, self._offsets, self._key))
        self._inside, self._offsets = container, self.marks.add(container)
        self._key = _KEY if type(container) is dict else _ITEM
        self._depth += 1

    def close(self) -> None:
        self._inside, self._offsets, self._key = self._around.pop()
        self._depth -= 1

    def is_open(self, container: Any) -> bool:
        return any(container is around for around, _, _ in (*self._around, (self._inside, None, None)))

    def repeat(self, value: Any, at: int) -> None:
        """Add a copy of a complete node. It costs as much as if it were written out."""
        nodes, levels, characters = _cost(value)
        self._check_levels(levels, at)
        self._nodes += nodes - 1
        self._copied += characters
        self._has_copies = True
        self._next_check = 0
        if at + self._copied > self._limits.definition:
            # Only aliases can exceed this: a shared text is free here, but is written out in every JSON.
            message = f"more than {self._limits.definition:,} characters, aliases written out"
            raise self._errors.stop(at, "too_large", message)
        self._check(at)
        self.scalar(_copy(value), at)

    def too_deep(self, at: int) -> AbortParse:
        """Return the error for too deep nesting: `raise builder.too_deep(at)`."""
        return self._errors.stop(at, "too_deep", f"more than {self._limits.depth} levels deep")

    def _check_levels(self, more: int, at: int) -> None:
        if self._depth + more > self._most_levels:
            raise self.too_deep(at)

    def _check(self, at: int) -> None:
        """Check the budget and the limit of nodes before the next one; set when to check again."""
        budget.check()
        if self._nodes >= self._most_nodes:
            message = f"more than {self._limits.nodes:,} nodes" + ", aliases written out" * self._has_copies
            raise self._errors.stop(at, "too_many_nodes", message)
        self._next_check = min(self._nodes + _BETWEEN_CHECKS, self._most_nodes)

    def _refuse_key(self, key: Any, at: int) -> None:
        """Record why `key` is refused. Its value is dropped."""
        self._key = _REFUSED
        if isinstance(key, str):
            self._errors.add(at, "duplicate_key", f"duplicate key {quote(key)}")
        else:
            self._errors.add(at, "key_not_a_string", "a key must be a string: put it in quotes")


def _cost(value: Any) -> tuple[int, int, int]:
    """Return the number of nodes, levels and characters of a value. Recurses as deep as the value."""
    if isinstance(value, str):
        return 1, 0, len(value)
    if not isinstance(value, (dict, list)):
        return 1, 0, 0
    inner = [_cost(part) for part in (value.values() if isinstance(value, dict) else value)]
    nodes, levels, characters = map(list, zip(*inner, strict=True)) if inner else ([], [], [])
    if isinstance(value, dict):
        nodes.append(len(value))
        characters += map(len, value)
    return 1 + sum(nodes), 1 + max(levels, default=0), sum(characters)


def _copy(value: Any) -> Any:
    """Return a copy that shares no list or mapping. Recurses at most `Limits.depth` times."""
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_copy(inner) for inner in value]
    return value
