"""Apply a JSON Patch (RFC 6902) to a value.

The cost is bounded: all values that are added, copied and moved count, and a value is never deeper than a
definition may be.
"""

from __future__ import annotations

import marshal
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from gitstore import budget
from gitstore.definition.quoting import quote
from gitstore.diff.values import steps
from gitstore.errors import MalformedError
from gitstore.model import Limits

_POINTER: Final = re.compile(r"(?:/(?:[^~/]|~[01])*+)*+")
_INDEX: Final = re.compile(r"0|[1-9][0-9]{0,8}")
_MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {
    "add": ("path", "value"),
    "remove": ("path",),
    "replace": ("path", "value"),
    "move": ("from", "path"),
    "copy": ("from", "path"),
    "test": ("path", "value"),
}


def apply(patch: Sequence[Any], value: Any, limits: Limits) -> Any:
    """Return `value` with the operations of `patch` applied. `value` itself is not modified.

    Raises `malformed`, with the place of the operation that cannot be applied; then none is.
    """
    patched = _Patched(_copy(value), limits)
    for number, operation in enumerate(patch):
        budget.check()
        try:
            patched.apply(operation)
        except _CannotApplyError as error:
            raise MalformedError(f"operation {number} of the patch: {error}") from None
    return patched.value


class _CannotApplyError(Exception):
    """Why an operation cannot be applied."""


class _Patched:
    """A value while it is patched, which may take twice as many nodes as a definition may have."""

    def __init__(self, value: Any, limits: Limits) -> None:
        self.value = value
        self._limits = limits
        self._nodes = 2 * limits.nodes

    def apply(self, operation: Any) -> None:
        kind = operation.get("op") if isinstance(operation, dict) else None
        if not isinstance(kind, str) or kind not in _MEMBERS:
            raise _CannotApplyError(f"op must be one of {', '.join(_MEMBERS)}")
        for member in _MEMBERS[kind]:
            if member not in operation:
                raise _CannotApplyError(f"{member} is missing")
        path = self._steps(operation["path"])
        if kind == "test":
            if not _equal(self._at(path), operation["value"]):
                raise _CannotApplyError("the value is another one")
        elif kind == "add":
            self._add(path, operation["value"])
        elif kind == "remove":
            self._remove(path)
        elif kind == "replace":
            self._at(path)
            self._add(path, operation["value"], instead=True)
        else:
            source = self._steps(operation["from"])
            if kind == "copy":
                self._add(path, self._at(source))
            elif source != path:
                if path[: len(source)] == source:
                    raise _CannotApplyError("a value cannot be moved into itself")
                moved = self._at(source)
                self._remove(source)
                self._add(path, moved)

    @staticmethod
    def _steps(pointer: Any) -> list[str]:
        if not isinstance(pointer, str) or not _POINTER.fullmatch(pointer):
            raise _CannotApplyError("path and from must be JSON Pointers (RFC 6901)")
        return steps(pointer)

    def _at(self, path: Sequence[str]) -> Any:
        value = self.value
        for name in path:
            if isinstance(value, dict) and name in value:
                value = value[name]
            elif isinstance(value, list):
                value = value[self._index(name, len(value) - 1)]
            else:
                raise _CannotApplyError(f"there is no {quote(name)}")
        return value

    def _add(self, path: Sequence[str], value: Any, *, instead: bool = False) -> None:
        """Add a copy of `value`, so that no two places share it; `instead` of the item at an index."""
        for levels in _levels(value):
            self._nodes -= 1
            if self._nodes < 0:
                raise _CannotApplyError("the values moved and added are too large: send the whole definition")
            if len(path) + levels > self._limits.depth:
                raise _CannotApplyError(f"more than {self._limits.depth} levels deep")
        value = _copy(value)
        if not path:
            self.value = value
            return
        container, name = self._at(path[:-1]), path[-1]
        if isinstance(container, dict):
            container[name] = value
        elif isinstance(container, list):
            at = len(container) if name == "-" else self._index(name, len(container))
            container[at : at + instead] = [value]
        else:
            raise _CannotApplyError(f"there is no {quote(name)}")

    def _remove(self, path: Sequence[str]) -> None:
        if not path:
            raise _CannotApplyError("the document cannot be removed")
        self._at(path)
        container, name = self._at(path[:-1]), path[-1]
        del container[name if isinstance(container, dict) else int(name)]

    @staticmethod
    def _index(name: str, most: int) -> int:
        if not _INDEX.fullmatch(name) or int(name) > most:
            raise _CannotApplyError(f"there is no item {quote(name)}")
        return int(name)


def _copy(value: Any) -> Any:
    return marshal.loads(marshal.dumps(value, 2))  # noqa: S302 - of our own bytes; version 2 shares nothing


def _equal(a: Any, b: Any) -> bool:
    """Return whether two JSON values are equal (RFC 6902, section 4.6), at the cost of the smaller one."""
    if isinstance(a, dict) and isinstance(b, dict):
        return len(a) == len(b) and all(key in a and _equal(a[key], value) for key, value in b.items())
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b) and isinstance(a, bool) == isinstance(b, bool)


def _levels(value: Any) -> Iterator[int]:
    """Yield, for each node of `value`, how many levels it is below, lists and mappings included."""
    waiting = [(value, 0)]
    while waiting:
        node, level = waiting.pop()
        yield level + isinstance(node, (dict, list))
        inner = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
        waiting += [(each, level + 1) for each in inner]
