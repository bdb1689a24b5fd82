"""API schemas of a difference, as pydantic models: `Diff.of` builds one from `gitstore.diff`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ConfigDict, Field

from gitstore.definition.elements import mapping, string
from gitstore.diff import structure, values
from gitstore.diff.summary import summary
from service.api.schemas import Answer, Version
from service.comparison import Sides

_ABSENT = "null where it has none"


class DiffChange(Answer):
    """Something else stands at `pointer`. Values that look like secrets are masked as `[secret 1]`."""

    op: values.Op = Field(
        description="of `reorder`, `before` and `after` have the old indices of what was kept"
    )
    pointer: str = Field(
        description="RFC 6901 JSON Pointer into the newer one, of what was removed into the older one"
    )
    before: Any = Field(description="null for `add`")
    after: Any = Field(description="null for `remove`")


class DiffNode(Answer):
    """A node that was added or removed."""

    id: str | None = Field(description=_ABSENT)
    pointer: str = Field(description="into the definition that has it")
    value: Any


class ChangedNode(Answer):
    """A node of both definitions. Pointers of `changes` begin at it."""

    id: str | None = Field(description=_ABSENT)
    old_pointer: str
    pointer: str
    changes: list[DiffChange]


class RenamedNode(Answer):
    """A node with another id, which is named so everywhere. What else changed of it is in `changed`."""

    before: str
    after: str
    old_pointer: str
    pointer: str


class DiffNodes(Answer):
    added: list[DiffNode]
    removed: list[DiffNode]
    renamed: list[RenamedNode]
    changed: list[ChangedNode]
    order: list[int] | None = Field(
        description="old indices of the nodes kept, in the new order, where it is new"
    )


class DiffEdge(Answer):
    """An edge that was added or removed."""

    source: Any
    source_handle: Any
    target: Any
    target_handle: Any
    pointer: str = Field(description="into the definition that has it")
    value: Any


class ChangedEdge(Answer):
    """An edge of both definitions, between the same handles of the same nodes."""

    source: Any
    source_handle: Any
    target: Any
    target_handle: Any
    old_pointer: str
    pointer: str
    changes: list[DiffChange]


class DiffEdges(Answer):
    added: list[DiffEdge]
    removed: list[DiffEdge]
    changed: list[ChangedEdge]
    order: list[int] | None = Field(description="as that of the nodes")


class Diff(Answer):
    """What makes one version of another. In a project with the rules `any`, all of it is in `other`."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True, serialize_by_alias=True)

    old: Version = Field(serialization_alias="from")
    new: Version = Field(serialization_alias="to")
    layout: bool = Field(description="whether layout and the editor's leftovers are in it")
    empty: bool = Field(description="whether nothing differs, of what is in it")
    summary: str = Field(examples=["2 nodes added, url of call-api changed, 1 edge removed"])
    nodes: DiffNodes
    edges: DiffEdges
    other: list[DiffChange] = Field(description="what else changed")

    @classmethod
    def of(cls, found: structure.Diff, versions: Sides, public_url: str, *, layout: bool) -> Diff:
        old, new = (Version.of(version, public_url) for version in versions)
        return cls.model_construct(
            old=old,
            new=new,
            layout=layout,
            empty=found.empty,
            summary=summary(found),
            nodes=_nodes(found),
            edges=_edges(found.edges),
            other=_changes(found.other),
        )


def _nodes(found: structure.Diff) -> DiffNodes:
    nodes = found.nodes
    added, removed = (
        [
            DiffNode.model_construct(id=_id(each.value), pointer=each.pointer, value=each.value)
            for each in some
        ]
        for some in (nodes.added, nodes.removed)
    )
    renamed = [
        RenamedNode.model_construct(
            before=each.before, after=each.after, old_pointer=each.old_pointer, pointer=each.pointer
        )
        for each in found.renamed
    ]
    changed = [ChangedNode.model_construct(id=_id(each.value), **_altered(each)) for each in nodes.changed]
    return DiffNodes.model_construct(
        added=added, removed=removed, renamed=renamed, changed=changed, order=_order(nodes)
    )


def _edges(edges: structure.Items) -> DiffEdges:
    added, removed = (
        [
            DiffEdge.model_construct(**_ends(each.value), pointer=each.pointer, value=each.value)
            for each in some
        ]
        for some in (edges.added, edges.removed)
    )
    changed = [ChangedEdge.model_construct(**_ends(each.value), **_altered(each)) for each in edges.changed]
    return DiffEdges.model_construct(added=added, removed=removed, changed=changed, order=_order(edges))


def _altered(each: structure.Altered) -> dict[str, Any]:
    return {"old_pointer": each.old_pointer, "pointer": each.pointer, "changes": _changes(each.changes)}


def _changes(changes: Iterable[values.Change]) -> list[DiffChange]:
    return [
        DiffChange.model_construct(
            op=each.op, pointer=each.pointer, before=_value(each.before), after=_value(each.after)
        )
        for each in changes
    ]


def _value(value: Any) -> Any:
    return None if value is values.ABSENT else value


def _id(node: Any) -> str | None:
    return string(mapping(node).get("id"))


def _ends(edge: Any) -> dict[str, Any]:
    found = mapping(edge)
    keys = ("source", "source_handle", "target", "target_handle")
    return {key: found.get(key.replace("_handle", "Handle")) for key in keys}


def _order(items: structure.Items) -> list[int] | None:
    return None if items.order is None else list(items.order)
