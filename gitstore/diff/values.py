"""The difference of two JSON values, as a tree that can be applied, and as a flat list of changes.

`pairing.py` decides which items of two lists correspond, and `structure.py` which nodes and edges of a graph.

Values are compared in the form of RFC 8785: 1 and 1.0 are equal, 1 and true are not. Recursion is as deep as
the values, whose depth the parser has limited.
"""

from __future__ import annotations

import marshal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, Final

from gitstore import budget
from gitstore.diff.pairing import paired
from gitstore.diff.sequences import Pair
from gitstore.errors import TooLargeError


class Absent(Enum):
    """The value of a mapping under a key that it lacks."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT


MOST_CHARACTERS: Final = 8 * 2**20
"""Characters of all pointers of one comparison, into the older and the newer definition."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """A replaced value. Either side may be ABSENT, not both."""

    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class InMapping:
    """The differences under each key."""

    keys: Mapping[str, Delta]


@dataclass(frozen=True, slots=True)
class InList:
    """The differences of a list.

    `removed` is by index in the older list, `added` by index in the newer one, `changed` by both. `order` has
    the older indices of the kept items, in their new order; None if the order is unchanged.
    """

    removed: Mapping[int, Any]
    added: Mapping[int, Any]
    changed: Mapping[Pair, Delta]
    order: tuple[int, ...] | None = None


Delta = Leaf | InMapping | InList


class Op(StrEnum):
    ADD = "add"
    REMOVE = "remove"
    REPLACE = "replace"
    REORDER = "reorder"


@dataclass(frozen=True, slots=True)
class Change:
    """One difference. `pointer` (RFC 6901) refers to the newer value; for a removal, to the older one.

    `before` is ABSENT for an addition, `after` for a removal. For a reordered list, `before` has the old
    indices of the kept items in the old order, and `after` the same indices in the new order.
    """

    op: Op
    pointer: str
    before: Any
    after: Any


def difference(a: Any, b: Any) -> Delta | None:
    """Return the difference from `a` to `b`; None if they mean the same."""
    budget.check()
    if isinstance(a, (dict, list)) and a == b and marshal.dumps(a, 2) == marshal.dumps(b, 2):
        return None  # The usual case, and fast. == alone treats 1 as true.
    if isinstance(a, dict) and isinstance(b, dict):
        return in_mapping({key: difference(a.get(key, ABSENT), b.get(key, ABSENT)) for key in {**a, **b}})
    if isinstance(a, list) and isinstance(b, list):
        return in_list(a, b, paired(a, b))
    return None if a == b and isinstance(a, bool) == isinstance(b, bool) else Leaf(a, b)


def in_mapping(keys: Mapping[str, Delta | None]) -> InMapping | None:
    """Return the keys that differ, or None. Sorted: Postgres returns them in another order than Git."""
    deltas = {key: delta for key in sorted(keys) if (delta := keys[key]) is not None}
    return InMapping(deltas) if deltas else None


def in_list(a: Sequence[Any], b: Sequence[Any], pairs: Sequence[Pair]) -> InList | None:
    """Return the difference of two lists, or None. `pairs` are the indices of corresponding items."""
    kept = [i for i, _ in sorted(pairs, key=lambda pair: pair[1])]
    left, right = set(kept), {j for _, j in pairs}
    removed = {i: item for i, item in enumerate(a) if i not in left}
    added = {j: item for j, item in enumerate(b) if j not in right}
    compared = {(i, j): difference(a[i], b[j]) for i, j in pairs}
    changed = {pair: delta for pair, delta in compared.items() if delta is not None}
    order = tuple(kept) if kept != sorted(kept) else None
    return InList(removed, added, changed, order) if removed or added or changed or order else None


def apply(delta: Delta | None, a: Any) -> Any:
    """Return `a` with `delta` applied, which was computed from `a` (or from `a` without its layout)."""
    match delta:
        case None:
            return a
        case Leaf(_, after):
            return after
        case InMapping(keys):
            changed = {key: apply(inner, a.get(key, ABSENT)) for key, inner in keys.items()}
            return {key: value for key, value in {**a, **changed}.items() if value is not ABSENT}
        case InList(removed, added, changed, order):
            items = [] if a is ABSENT else a
            kept = order if order is not None else [i for i in range(len(items)) if i not in removed]
            inner = {i: delta for (i, _), delta in changed.items()}
            result = [apply(inner.get(i), items[i]) for i in kept]
            for j in sorted(added):
                result.insert(j, added[j])
            return result


class Flattener:
    """Flattens deltas to changes of leaves, each with its pointer, for one comparison.

    A long key above many changes is part of the pointer of each, so the pointers of a small definition can
    take gigabytes: raises `too_large` beyond MOST_CHARACTERS in total.
    """

    def __init__(self) -> None:
        self._characters = 0

    def changes(self, delta: Delta | None) -> list[Change]:
        """Return the changes in `delta`, with pointers relative to its values."""
        changes: list[Change] = []
        if delta is not None:
            self._collect(delta, "", "", changes)
        return changes

    def _collect(self, delta: Delta, old: str, new: str, changes: list[Change]) -> None:
        self._spend(len(old) + len(new))
        if isinstance(delta, Leaf):
            changes.append(_change(old if delta.after is ABSENT else new, delta.before, delta.after))
        elif isinstance(delta, InMapping):
            for key, inner in delta.keys.items():
                self._collect(inner, old + step(key), new + step(key), changes)
        else:
            self._spend(len(old) * len(delta.removed) + len(new) * len(delta.added))
            changes += [_change(old + step(i), item, ABSENT) for i, item in delta.removed.items()]
            for (i, j), inner in sorted(delta.changed.items(), key=lambda item: item[0][1]):
                self._collect(inner, old + step(i), new + step(j), changes)
            changes += [_change(new + step(j), ABSENT, item) for j, item in delta.added.items()]
            if delta.order is not None:
                changes.append(reordered(new, delta.order))

    def _spend(self, characters: int) -> None:
        self._characters += characters
        if self._characters > MOST_CHARACTERS:
            raise TooLargeError(
                f"the JSON Pointers of what differs have more than {MOST_CHARACTERS:,} characters: "
                "compare the texts",
                limit=MOST_CHARACTERS,
            )


def step(key: str | int) -> str:
    """Return one step of a JSON Pointer."""
    return "/" + str(key).replace("~", "~0").replace("/", "~1")


def steps(pointer: str) -> list[str]:
    """Return the steps of a JSON Pointer, unescaped."""
    return [each.replace("~1", "/").replace("~0", "~") for each in pointer.split("/")[1:]]


def reordered(pointer: str, order: Sequence[int]) -> Change:
    return Change(Op.REORDER, pointer, sorted(order), list(order))


def _change(pointer: str, before: Any, after: Any) -> Change:
    op = Op.ADD if before is ABSENT else Op.REMOVE if after is ABSENT else Op.REPLACE
    return Change(op, pointer, before, after)
