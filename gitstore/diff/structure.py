"""The difference of two definitions in terms of nodes and edges.

Nodes are identified by `id`, edges by (source, sourceHandle, target, targetHandle); the n-th of several with
one identity corresponds to the n-th of them on the other side. A node with a new id and unchanged content was
renamed, and the references to it (edges, containers, children) follow. Items without an identity (not a
mapping, or without an id) are matched by similarity (`pairing.py`). A project with the rules `any` has no
graph, and neither has a list: there everything is a change of keys and items (`values.py`).

Layout and editor leftovers (`elements.py`) are left out unless requested. The order of nodes and edges does
not matter to a run, but it changes the digest and is therefore part of the difference: `apply(diff(a, b), a)`
has the meaning and the digest of `b`, and equals `b` if layout was requested.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from gitstore.definition.elements import mapping, mappings, meaning, string
from gitstore.diff import values
from gitstore.diff.pairing import fingerprint, paired
from gitstore.diff.sequences import Pair
from gitstore.diff.values import (
    ABSENT,
    Change,
    Delta,
    Flattener,
    InList,
    Op,
    difference,
    in_list,
    in_mapping,
    step,
)
from gitstore.model import Rules

Kind = Literal["node", "edge", "field"]
Effect = Literal["added", "removed", "changed", "renamed", "reordered"]

EFFECTS: Final[Mapping[Op, Effect]] = {
    Op.ADD: "added", Op.REMOVE: "removed", Op.REPLACE: "changed", Op.REORDER: "reordered",
}  # fmt: skip
_ENDS = ("source", "target")


@dataclass(frozen=True, slots=True)
class Item:
    """One item of the list of changes: a node, an edge, or a field outside of both.

    `pointer` refers to the newer definition, `old_pointer` to the older one; an item that was removed has
    only `pointer`, into the older one. `value` is the newest state of the node or edge. Pointers of `changes`
    are relative to a node or edge; those of a field, to the definition. The only change of a renamed node is
    that of its id, and of reordered nodes or edges, that of their order.
    """

    kind: Kind
    effect: Effect
    pointer: str
    value: Any = None
    changes: tuple[Change, ...] = ()
    old_pointer: str = ""


@dataclass(frozen=True, slots=True)
class Diff:
    """The difference between two definitions, as a list of changes, and as a delta that can be applied.

    `sides` are the older and the newer definition. `unseen` is True if only the parts that are left out
    (layout, leftovers) differ.
    """

    items: tuple[Item, ...]
    unseen: bool
    delta: Delta | None = field(repr=False)
    sides: tuple[Any, Any] = field(repr=False)

    @property
    def empty(self) -> bool:
        return not self.items

    def of(self, kind: Kind, effect: Effect) -> list[Item]:
        return [item for item in self.items if (item.kind, item.effect) == (kind, effect)]


def diff(a: Any, b: Any, rules: Rules = Rules.MESHHOOK, *, layout: bool = False) -> Diff:
    """Return the difference from `a` to `b`, values of parsed definitions, which are not modified.

    Raises `too_large` if the pointers of the differences are too long in total.
    """
    flattener = Flattener()
    if rules is not Rules.MESHHOOK or not (isinstance(a, dict) and isinstance(b, dict)):
        whole = difference(a, b)
        return Diff(tuple(_fields(whole, flattener)), unseen=False, delta=whole, sides=(a, b))
    old, new = meaning(a), meaning(b)
    items = list(renamed(old, new))
    if layout:
        old, new = a, b
    old = rename(old, items)
    deltas: dict[str, Delta | None] = {}
    lists: dict[str, tuple[InList, list[Any], list[Any]]] = {}
    for key in {**old, **new}:
        before, after = old.get(key, ABSENT), new.get(key, ABSENT)
        ours, theirs = ([] if side is ABSENT else side for side in (before, after))
        between = None
        if key in IDENTITIES and isinstance(ours, list) and isinstance(theirs, list):
            between = in_list(ours, theirs, pairs(ours, theirs, IDENTITIES[key]))
        if between:
            lists[key] = (between, ours, theirs)
        deltas[key] = between if between and after is not ABSENT else difference(before, after)
    kinds: tuple[tuple[str, Kind], ...] = (("nodes", "node"), ("edges", "edge"))
    for key, kind in kinds:
        if key in lists:
            items += _elements(kind, "/" + key, *lists[key], flattener)
    others = in_mapping({key: delta for key, delta in deltas.items() if key not in lists})
    items += _fields(others, flattener)
    return Diff(
        tuple(items),
        unseen=not (layout or items) and difference(a, b) is not None,
        delta=in_mapping(deltas),
        sides=(a, b),
    )


def apply(changes: Diff, a: Any) -> Any:
    """Apply `changes`, the result of `diff(a, b)`, to `a`: return a definition with the meaning of `b`."""
    return values.apply(changes.delta, rename(a, changes.of("node", "renamed")))


# Identity of nodes and edges


def _node_identity(node: Any) -> Hashable:
    return string(mapping(node).get("id"))


def _edge_identity(edge: Any) -> Hashable:
    """Return the identity of an edge; None if it lacks an end."""
    ends = [string(mapping(edge).get(end)) for end in _ENDS]
    if None in ends:
        return None
    return (*ends, *(fingerprint(edge.get(end + "Handle")) for end in _ENDS))


IDENTITIES: Final[Mapping[str, Callable[[Any], Hashable]]] = {
    "nodes": _node_identity,
    "edges": _edge_identity,
}


def pairs(a: list[Any], b: list[Any], identity: Callable[[Any], Hashable]) -> list[Pair]:
    """Match the items by identity, and those without one by similarity."""
    (known_a, rest_a), (known_b, rest_b) = (_by_identity(items, identity) for items in (a, b))
    same = [(i, known_b[name]) for name, i in known_a.items() if name in known_b]
    matched = paired([a[i] for i in rest_a], [b[j] for j in rest_b])
    return same + [(rest_a[i], rest_b[j]) for i, j in matched]


def _by_identity(
    items: list[Any], identity: Callable[[Any], Hashable]
) -> tuple[dict[Hashable, int], list[int]]:
    """Return (index by identity and count of equal ones before, indices of items without identity)."""
    seen: Counter[Hashable] = Counter()
    known: dict[Hashable, int] = {}
    rest: list[int] = []
    for index, item in enumerate(items):
        name = identity(item)
        if name is None:
            rest.append(index)
            continue
        known[name, seen[name]] = index
        seen[name] += 1
    return known, rest


def _elements(
    kind: Kind, pointer: str, between: InList, a: list[Any], b: list[Any], flattener: Flattener
) -> Iterator[Item]:
    for j in between.added:
        yield Item(kind, "added", pointer + step(j), b[j])
    for i in between.removed:
        yield Item(kind, "removed", pointer + step(i), a[i])
    for (i, j), inner in sorted(between.changed.items(), key=lambda pair: pair[0][1]):
        changes = tuple(flattener.changes(inner))
        yield Item(kind, "changed", pointer + step(j), b[j], changes, pointer + step(i))
    if between.order is not None:
        yield Item(kind, "reordered", pointer, changes=(values.reordered("", between.order),))


def _fields(delta: Delta | None, flattener: Flattener) -> Iterator[Item]:
    for change in flattener.changes(delta):
        yield Item("field", EFFECTS[change.op], change.pointer, changes=(change,))


# Renames


def renamed(a: dict[str, Any], b: dict[str, Any]) -> Iterator[Item]:
    """Yield the nodes of `b` with a unique new id and the content of a node whose id is gone."""
    ids_a, ids_b = _unique_ids(a), _unique_ids(b)
    taken = {_node_identity(node) for _, node in mappings(a.get("nodes"))}
    left = {_node_identity(node) for _, node in mappings(b.get("nodes"))}
    gone: dict[Hashable, deque[str]] = {}
    for name, (_, node) in ids_a.items():
        if name not in left:
            gone.setdefault(_content(node), deque()).append(name)
    for name, (index, node) in ids_b.items():
        if name not in taken and (candidates := gone.get(_content(node))):
            before = candidates.popleft()
            change = Change(Op.REPLACE, "/id", before, name)
            yield Item("node", "renamed", f"/nodes/{index}", node, (change,), f"/nodes/{ids_a[before][0]}")


def _unique_ids(value: dict[str, Any]) -> dict[str, tuple[int, dict[str, Any]]]:
    """Return (index, node) by id, without ids that several nodes share."""
    by_id: dict[str, tuple[int, dict[str, Any]]] = {}
    times: Counter[str] = Counter()
    for index, node in mappings(value.get("nodes")):
        if name := string(node.get("id")):
            times[name] += 1
            by_id[name] = (index, node)
    return {name: place for name, place in by_id.items() if times[name] == 1}


def _content(node: dict[str, Any]) -> Hashable:
    return fingerprint({key: value for key, value in node.items() if key != "id"})


def rename(value: Any, items: Sequence[Item]) -> Any:
    """Return `value` with the new ids in every reference to a node. `value` itself is not modified."""
    if not items:
        return value
    names = {change.before: change.after for item in items for change in item.changes}

    def new(name: Any) -> Any:
        return names.get(name, name) if isinstance(name, str) else name

    def named(item: Any, *keys: str) -> Any:
        if not isinstance(item, dict):
            return item
        return {key: new(inner) if key in keys else inner for key, inner in item.items()}

    def node(item: Any) -> Any:
        renamed_item = named(item, "id", "parentId")
        if isinstance(renamed_item, dict) and isinstance(renamed_item.get("data"), dict):
            data = renamed_item["data"] = named(renamed_item["data"], "parentContainer")
            if isinstance(data.get("childNodes"), list):
                data["childNodes"] = [new(child) for child in data["childNodes"]]
        return renamed_item

    result = dict(value)
    if isinstance(result.get("nodes"), list):
        result["nodes"] = [node(item) for item in result["nodes"]]
    if isinstance(result.get("edges"), list):
        result["edges"] = [named(item, *_ENDS) for item in result["edges"]]
    return result
