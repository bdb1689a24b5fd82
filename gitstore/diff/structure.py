"""The difference of two definitions in terms of nodes and edges.

Nodes are identified by `id`, edges by (source, sourceHandle, target, targetHandle); the n-th of several with
one identity corresponds to the n-th of them on the other side. A node with a new id and unchanged content was
renamed, and the references to it (edges, containers, children) follow. Items without an identity (not a
mapping, or without an id) are matched by content and position. A project with the rules `any` has no graph:
there everything is a change of keys (`values.py`).

Layout and editor leftovers (`elements.py`) are left out unless requested. The order of nodes and edges does
not matter to a run, but it changes the digest and is therefore part of the difference: `apply(diff(a, b), a)`
has the meaning and the digest of `b`, and equals `b` if layout was requested.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gitstore.definition.elements import mapping, mappings, meaning, string
from gitstore.diff import values
from gitstore.diff.alignment import Pair
from gitstore.diff.values import (
    ABSENT,
    Change,
    Delta,
    Flattener,
    InList,
    difference,
    fingerprint,
    in_list,
    in_mapping,
    in_order,
    step,
)
from gitstore.model import Rules

_ENDS = ("source", "target")


@dataclass(frozen=True, slots=True)
class Element:
    """A node or edge that was added or removed. `pointer` refers to the definition that contains it."""

    pointer: str
    value: Any


@dataclass(frozen=True, slots=True)
class Altered:
    """A changed node or edge. `value` is the newer one; pointers of `changes` are relative to it."""

    old_pointer: str
    pointer: str
    value: Any
    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Items:
    """The changes of the nodes, or of the edges.

    `order` has the old indices of the kept items, in the new order; None if the order is unchanged.
    """

    added: tuple[Element, ...] = ()
    removed: tuple[Element, ...] = ()
    changed: tuple[Altered, ...] = ()
    order: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Renamed:
    """A node with a new id. `old_pointer` and `pointer` refer to the node."""

    before: str
    after: str
    old_pointer: str
    pointer: str


@dataclass(frozen=True, slots=True)
class Diff:
    """The difference between two definitions.

    `other` are changes outside of nodes and edges; with the rules `any`, all changes. `unseen` is True if
    only the parts that are left out (layout, leftovers) differ.
    """

    renamed: tuple[Renamed, ...]
    nodes: Items
    edges: Items
    other: tuple[Change, ...]
    unseen: bool
    delta: Delta | None = field(repr=False)

    @property
    def empty(self) -> bool:
        return self.delta is None and not self.renamed


def diff(
    a: dict[str, Any], b: dict[str, Any], rules: Rules = Rules.MESHHOOK, *, layout: bool = False
) -> Diff:
    """Return the difference from `a` to `b`, values of parsed definitions, which are not modified.

    Raises `too_large` if the pointers of the differences are too long in total.
    """
    flattener = Flattener()
    if rules is Rules.ANY:
        found = difference(a, b)
        other_changes = tuple(flattener.changes(found))
        return Diff((), Items(), Items(), other_changes, unseen=False, delta=found)
    old, new = meaning(a), meaning(b)
    renamed = tuple(_renamed(old, new))
    if layout:
        old, new = a, b
    old = _rename(old, renamed)
    items: dict[str, Items] = {}
    other: dict[str, Delta | None] = {}
    every: dict[str, Delta | None] = {}
    for key in {**old, **new}:
        before, after = old.get(key, ABSENT), new.get(key, ABSENT)
        ours, theirs = ([] if side is ABSENT else side for side in (before, after))
        between = None
        if key in _IDENTITIES and isinstance(ours, list) and isinstance(theirs, list):
            between = in_list(ours, theirs, _pairs(ours, theirs, _IDENTITIES[key]))
            items[key] = _items(between, ours, theirs, "/" + key, flattener)
        every[key] = between if between and after is not ABSENT else difference(before, after)
        other[key] = None if between else every[key]
    all_of_it = in_mapping(every)
    return Diff(
        renamed=renamed,
        nodes=items.get("nodes", Items()),
        edges=items.get("edges", Items()),
        other=tuple(flattener.changes(in_mapping(other))),
        unseen=not (layout or all_of_it or renamed) and difference(a, b) is not None,
        delta=all_of_it,
    )


def apply(found: Diff, a: dict[str, Any]) -> dict[str, Any]:
    """Apply `found`, the result of `diff(a, b)`, to `a`: return a definition with the meaning of `b`."""
    made: dict[str, Any] = values.apply(found.delta, _rename(a, found.renamed))
    return made


# Identity of nodes and edges


def _node_identity(node: Any) -> Hashable:
    return string(mapping(node).get("id"))


def _edge_identity(edge: Any) -> Hashable:
    """Return the identity of an edge; None if it lacks an end."""
    ends = [string(mapping(edge).get(end)) for end in _ENDS]
    if None in ends:
        return None
    return (*ends, *(fingerprint(edge.get(end + "Handle")) for end in _ENDS))


_IDENTITIES: Final[Mapping[str, Callable[[Any], Hashable]]] = {
    "nodes": _node_identity,
    "edges": _edge_identity,
}


def _pairs(a: list[Any], b: list[Any], identity: Callable[[Any], Hashable]) -> list[Pair]:
    """Match the items by identity, and those without one by content and position."""
    (known_a, rest_a), (known_b, rest_b) = (_by_identity(items, identity) for items in (a, b))
    pairs = [(i, known_b[name]) for name, i in known_a.items() if name in known_b]
    matched = in_order([a[i] for i in rest_a], [b[j] for j in rest_b])
    return pairs + [(rest_a[i], rest_b[j]) for i, j in matched]


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


def _items(between: InList | None, a: list[Any], b: list[Any], pointer: str, flattener: Flattener) -> Items:
    if between is None:
        return Items()
    return Items(
        added=tuple(Element(pointer + step(j), b[j]) for j in between.added),
        removed=tuple(Element(pointer + step(i), a[i]) for i in between.removed),
        changed=tuple(
            Altered(pointer + step(i), pointer + step(j), b[j], tuple(flattener.changes(inner)))
            for (i, j), inner in sorted(between.changed.items(), key=lambda item: item[0][1])
        ),
        order=between.order,
    )


# Renames


def _renamed(a: dict[str, Any], b: dict[str, Any]) -> Iterator[Renamed]:
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
            yield Renamed(before, name, f"/nodes/{ids_a[before][0]}", f"/nodes/{index}")


def _unique_ids(value: dict[str, Any]) -> dict[str, tuple[int, dict[str, Any]]]:
    """Return (index, node) by id, without ids that several nodes share."""
    found: dict[str, tuple[int, dict[str, Any]]] = {}
    times: Counter[str] = Counter()
    for index, node in mappings(value.get("nodes")):
        if name := string(node.get("id")):
            times[name] += 1
            found[name] = (index, node)
    return {name: place for name, place in found.items() if times[name] == 1}


def _content(node: dict[str, Any]) -> Hashable:
    return fingerprint({key: value for key, value in node.items() if key != "id"})


def _rename(value: dict[str, Any], renamed: Sequence[Renamed]) -> dict[str, Any]:
    """Return `value` with the new ids in every reference to a node. `value` itself is not modified."""
    if not renamed:
        return value
    names = {each.before: each.after for each in renamed}

    def new(name: Any) -> Any:
        return names.get(name, name) if isinstance(name, str) else name

    def named(item: Any, *keys: str) -> Any:
        if not isinstance(item, dict):
            return item
        return {key: new(inner) if key in keys else inner for key, inner in item.items()}

    def node(item: Any) -> Any:
        made = named(item, "id", "parentId")
        if isinstance(made, dict) and isinstance(made.get("data"), dict):
            data = made["data"] = named(made["data"], "parentContainer")
            if isinstance(data.get("childNodes"), list):
                data["childNodes"] = [new(child) for child in data["childNodes"]]
        return made

    made = dict(value)
    if isinstance(made.get("nodes"), list):
        made["nodes"] = [node(item) for item in made["nodes"]]
    if isinstance(made.get("edges"), list):
        made["edges"] = [named(item, *_ENDS) for item in made["edges"]]
    return made
