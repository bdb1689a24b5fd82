"""Blame: which version last changed each node, edge and field of a definition.

A definition is compared with its predecessors, newest first. What is equal in one was changed earlier; all
else was last changed by the version after it. So what was changed and changed back has its last change when
it was changed back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from gitstore.definition.elements import mapping, meaning, string
from gitstore.diff.values import ABSENT, step

Kind = Literal["node", "edge", "field"]
Key = tuple[str, Hashable]

_KINDS: Final[dict[str, Kind]] = {"nodes": "node", "edges": "edge"}
_ENDS: Final = ("source", "sourceHandle", "target", "targetHandle")


@dataclass(slots=True)
class Blamed:
    """An element, and the version that last changed it; None if that is not known yet.

    A change of layout alone does not count, except for the fields of the layout. `fields` are those of the
    element, by their pointers.
    """

    kind: Kind
    name: str
    label: str
    pointer: str
    value: Any
    version: int | None = None
    fields: dict[str, int | None] = field(default_factory=dict)

    @property
    def is_known(self) -> bool:
        return self.version is not None and None not in self.fields.values()


class Blame:
    """The elements of `definition`, as far as `compare` has found out which version changed them."""

    def __init__(self, definition: dict[str, Any]) -> None:
        self.elements = _elements(definition)
        self._meanings = _elements(meaning(definition))
        for element in self.elements.values():
            element.fields = dict.fromkeys(_leaves(element.value, element.pointer))

    @property
    def pending(self) -> bool:
        return not all(element.is_known for element in self.elements.values())

    def compare(self, version: int, before: dict[str, Any]) -> None:
        """Ascribe to `version` what is not the same in the definition `before` it."""
        known, meanings = _elements(before), _elements(meaning(before))
        for key, element in self.elements.items():
            if element.is_known:
                continue
            old = known.get(key)
            if old is None:
                self._ascribe(element, version)
            elif old.value != element.value:
                mine, theirs = self._meanings.get(key), meanings.get(key)
                differs = (mine and mine.value) != (theirs and theirs.value)
                if element.version is None and differs:
                    element.version = version
                leaves, now = _leaves(old.value, element.pointer), _leaves(element.value, element.pointer)
                for pointer, changed in element.fields.items():
                    if changed is None and leaves.get(pointer, ABSENT) != now[pointer]:
                        element.fields[pointer] = version

    def ascribe_rest(self, version: int) -> None:
        """Ascribe all else to `version`, the first one."""
        for element in self.elements.values():
            self._ascribe(element, version)

    def forget(self, version: int) -> None:
        """Leave out what was ascribed to `version`."""
        for key, element in list(self.elements.items()):
            element.fields = {pointer: by for pointer, by in element.fields.items() if by != version}
            if element.version == version and not element.fields:
                del self.elements[key]

    @staticmethod
    def _ascribe(element: Blamed, version: int) -> None:
        element.version = element.version or version
        element.fields = {pointer: by or version for pointer, by in element.fields.items()}


def _elements(definition: dict[str, Any]) -> dict[Key, Blamed]:
    """Return the nodes, the edges, and all other fields of the top level, by their identity."""
    found: dict[Key, Blamed] = {}
    seen: Counter[Key] = Counter()
    for name, value in definition.items():
        pointer = step(name)
        if name not in _KINDS or not isinstance(value, list):
            found["field", name] = Blamed("field", name, "", pointer, value)
            continue
        for index, item in enumerate(value):
            identity, shown = _identity(_KINDS[name], item)
            key = (name, identity)
            seen[key] += 1
            label = string(mapping(mapping(item).get("data")).get("label")) or ""
            found[name, (identity, seen[key])] = Blamed(
                _KINDS[name], shown, label, f"{pointer}/{index}", item
            )
    return found


def _identity(kind: Kind, item: Any) -> tuple[Hashable, str]:
    value = mapping(item)
    if kind == "node":
        name = string(value.get("id"))
        return name, name or "?"
    ends = tuple(string(value.get(end)) for end in _ENDS)
    return ends, f"{ends[0] or '?'} → {ends[2] or '?'}"


def _leaves(value: Any, pointer: str) -> dict[str, Any]:
    return dict(_walk(value, pointer))


def _walk(value: Any, pointer: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from _walk(item, pointer + step(key))
    else:
        yield pointer, value
