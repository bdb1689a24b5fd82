"""Three-way merge of definitions: what changed on either side since their common base, node by node.

Two changes of different fields never conflict, wherever they are in the text. The same field with two new
values is a conflict, and so is an item that one side changed and the other removed. Nodes and edges
correspond as in a difference (`structure.py`): by their ids, also after a rename. Other lists are merged item
by item, as `pairing.py` pairs them.

A conflict about layout alone, such as two new positions of a node, is decided for `ours`: it affects no run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from gitstore import budget
from gitstore.definition.elements import LAYOUT, mapping, string
from gitstore.diff.pairing import paired
from gitstore.diff.sequences import Pair
from gitstore.diff.structure import IDENTITIES, pairs, rename, renamed
from gitstore.diff.values import ABSENT, difference, step
from gitstore.model import Rules

Path = tuple[str | int, ...]
Pairing = Callable[[Sequence[Any], Sequence[Any]], list[Pair]]
_Token = tuple[str, int]
"""An item of a merged list: its origin ("base", "ours" or "theirs"), and its index there."""

_ITEM_LAYOUT: Final = {"nodes": LAYOUT.node, "edges": LAYOUT.edge}


class Side(StrEnum):
    OURS = "ours"
    THEIRS = "theirs"


@dataclass(frozen=True, slots=True)
class Conflict:
    """A value that both sides changed, differently. A value is ABSENT where a side lacks it.

    `path` is a JSON Pointer whose steps are ids of nodes, where a pointer has indices. It does not depend on
    how other conflicts are decided. `node` is the id of the node concerned.
    """

    path: str
    node: str | None
    base: Any
    ours: Any
    theirs: Any


@dataclass(frozen=True, slots=True)
class Merge:
    """The merged definition, and the conflicts that are not decided; `value` has theirs in their places."""

    value: Any
    conflicts: tuple[Conflict, ...]


def merge(
    base: Any,
    ours: Any,
    theirs: Any,
    rules: Rules = Rules.MESHHOOK,
    decided: Mapping[str, Side] | None = None,
) -> Merge:
    """Merge `ours` into `theirs`; `decided` has the side to take for conflicts, by their paths.

    The arguments are values of parsed definitions, which are not modified.
    """
    if rules is Rules.MESHHOOK:
        base, ours, theirs = _with_the_same_ids(base, ours, theirs)
    merger = _Merger(decided or {}, rules)
    merged = merger.value((), base, ours, theirs)
    return Merge(merged, tuple(merger.conflicts))


def _with_the_same_ids(
    base: dict[str, Any], ours: dict[str, Any], theirs: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Apply the renames of each side to the other two. A node that both renamed stays as it is."""
    by_ours, by_theirs = list(renamed(base, ours)), list(renamed(base, theirs))
    twice = {item.changes[0].before for item in by_ours} & {item.changes[0].before for item in by_theirs}
    by_ours, by_theirs = (
        [item for item in items if item.changes[0].before not in twice] for items in (by_ours, by_theirs)
    )
    return rename(rename(base, by_ours), by_theirs), rename(ours, by_theirs), rename(theirs, by_ours)


@dataclass
class _Merger:
    decided: Mapping[str, Side]
    rules: Rules
    conflicts: list[Conflict] = field(default_factory=list)

    def value(self, path: Path, base: Any, ours: Any, theirs: Any) -> Any:
        """Return the merged value, or ABSENT."""
        budget.check()
        if _same(ours, theirs) or _same(base, ours):
            return theirs
        if _same(base, theirs):
            return ours
        if isinstance(ours, dict) and isinstance(theirs, dict) and isinstance(base, (dict, type(ABSENT))):
            return self._mapping(path, base, ours, theirs)
        if isinstance(ours, list) and isinstance(theirs, list) and isinstance(base, (list, type(ABSENT))):
            return self._list(path, [] if base is ABSENT else base, ours, theirs)
        return self._conflict(path, base, ours, theirs)

    def _mapping(self, path: Path, base: Any, ours: dict[str, Any], theirs: dict[str, Any]) -> Any:
        before = mapping(base)
        merged = {
            key: self.value((*path, key), *(side.get(key, ABSENT) for side in (before, ours, theirs)))
            for key in {**theirs, **ours}
        }
        return {key: value for key, value in merged.items() if value is not ABSENT}

    def _list(self, path: Path, base: list[Any], ours: list[Any], theirs: list[Any]) -> list[Any]:
        pairing = self._pairing(path)
        in_ours, in_theirs = dict(pairing(base, ours)), dict(pairing(base, theirs))
        our_tokens = _tokens("ours", in_ours, len(ours))
        their_tokens = _tokens("theirs", in_theirs, len(theirs))
        new_ours = [j for j, token in enumerate(our_tokens) if token[0] == "ours"]
        new_theirs = [k for k, token in enumerate(their_tokens) if token[0] == "theirs"]
        added_by_both = {}
        for j, k in pairing([ours[j] for j in new_ours], [theirs[k] for k in new_theirs]):
            our_tokens[new_ours[j]] = their_tokens[new_theirs[k]]
            added_by_both[new_theirs[k]] = new_ours[j]
        items: list[Any] = []
        for token in _ordered(our_tokens, their_tokens):
            origin, index = token
            if origin == "base":
                sides = (base[index], _at(ours, in_ours.get(index)), _at(theirs, in_theirs.get(index)))
            elif origin == "ours":
                sides = (ABSENT, ours[index], ABSENT)
            else:
                sides = (ABSENT, _at(ours, added_by_both.get(index)), theirs[index])
            items.append(self.value((*path, _name(path, token, sides)), *sides))
        return [item for item in items if item is not ABSENT]

    def _pairing(self, path: Path) -> Pairing:
        identity = IDENTITIES.get(str(path[0])) if len(path) == 1 and self.rules is Rules.MESHHOOK else None
        return paired if identity is None else lambda a, b: pairs(list(a), list(b), identity)

    def _conflict(self, path: Path, base: Any, ours: Any, theirs: Any) -> Any:
        if self.rules is Rules.MESHHOOK and _is_layout(path):
            return ours
        shown = "".join(step(each) for each in path)
        if (side := self.decided.get(shown)) is None:
            node = str(path[1]) if len(path) > 1 and path[0] == "nodes" else None
            self.conflicts.append(Conflict(shown, node, base, ours, theirs))
        return ours if side is Side.OURS else theirs


def _same(a: Any, b: Any) -> bool:
    return a is b or (a == b and difference(a, b) is None)


def _is_layout(path: Path) -> bool:
    if len(path) < 3 or path[0] not in _ITEM_LAYOUT:
        return False
    within_data = path[0] == "nodes" and len(path) > 3 and path[2] == "data" and path[3] in LAYOUT.data
    return path[2] in _ITEM_LAYOUT[str(path[0])] or within_data


# Lists


def _tokens(origin: str, in_side: Mapping[int, int], length: int) -> list[_Token]:
    """Return a token for each item of a side; items of the base have the base's."""
    of_base = {there: here for here, there in in_side.items()}
    return [("base", of_base[at]) if at in of_base else (origin, at) for at in range(length)]


def _ordered(ours: Sequence[_Token], theirs: Sequence[_Token]) -> list[_Token]:
    """Return all tokens in the order of theirs, unless only ours changed the order of the base.

    An item of one side alone follows the item that it follows there, after the other side's new items.
    """
    main, other = (ours, theirs) if _ascends(theirs) and not _ascends(ours) else (theirs, ours)
    known, shared = set(main), set(main) & set(other)
    followers: dict[_Token | None, list[_Token]] = {}
    anchor: _Token | None = None
    for token in other:
        if token in known:
            anchor = token
        else:
            followers.setdefault(anchor, []).append(token)
    merged: list[_Token] = []
    waiting = followers.get(None, [])
    for token in main:
        if token in shared:
            merged += [*waiting, token]
            waiting = followers.get(token, [])
        else:
            merged.append(token)
    return [*merged, *waiting]


def _ascends(tokens: Iterable[_Token]) -> bool:
    order = [index for origin, index in tokens if origin == "base"]
    return order == sorted(order)


def _at(items: Sequence[Any], index: int | None) -> Any:
    return ABSENT if index is None else items[index]


def _name(path: Path, token: _Token, sides: Iterable[Any]) -> str | int:
    """Return the step of an item in the path of a conflict: a node's id, an edge's ends, or its index.

    The index is that in the base; of an item that both sides added, that in theirs, after a "+".
    """
    item = mapping(next(side for side in sides if side is not ABSENT))
    if path == ("nodes",) and (name := string(item.get("id"))):
        return name
    source, target = string(item.get("source")), string(item.get("target"))
    if path == ("edges",) and source and target:
        handles = [f":{item[key]}" if item.get(key) else "" for key in ("sourceHandle", "targetHandle")]
        return f"{source}{handles[0]} → {target}{handles[1]}"
    return token[1] if token[0] == "base" else f"+{token[1]}"
