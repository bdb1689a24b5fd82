"""/workflows/{id}/diff: the difference between two versions; /workflows/{id}/blame: what changed where."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final, Literal

from flask import Response, request
from pydantic import ConfigDict, Field

from gitstore.definition.quoting import clip
from gitstore.diff import values
from gitstore.diff.sequences import text_diff
from gitstore.model import Permission
from service import comparison, lookup
from service.api import http
from service.api.http import JSON, Answer, answer, answer_bytes
from service.api.openapi import ID, NUMBER, Query, WorkflowPath, declares, new_blueprint
from service.api.versions import Version
from service.comparison import compare, files, lists, sides
from service.context import enter
from sync import catalog

blueprint = new_blueprint("diff", "Differences between two versions of a workflow.")

_TEXT: Final = "text/x-diff"
_VERSION: Final[dict[str, Any]] = {"pattern": f"^({NUMBER}|{ID}|draft|current|latest)$"}
_NO_ID: Final = "null if it has none"


class DiffQuery(Query):
    """`from` and `to`: `3`, `v3`, `draft`, `current` or `latest`."""

    old: str | None = Field(
        None,
        alias="from",
        description="default: the version before `to` if `to` is a number or the current version, else the "
        "current version",
        json_schema_extra=_VERSION,
    )
    to: str | None = Field(
        None,
        description="default: the draft if one is open, else the latest version",
        json_schema_extra=_VERSION,
    )
    layout: bool = Field(False, description="whether to include positions, sizes and the editor's own fields")


class DiffChange(Answer):
    """A change of the value at `pointer`."""

    op: values.Op = Field(
        description="for `reorder`, `before` and `after` are the old indices of the elements kept"
    )
    pointer: str = Field(
        description="RFC 6901 JSON Pointer into the newer definition; for `remove`, into the older one"
    )
    before: Any = Field(description="null for `add`")
    after: Any = Field(description="null for `remove`")


class DiffNode(Answer):
    """A node that was added or removed."""

    id: str | None = Field(description=_NO_ID)
    pointer: str = Field(description="into the definition that has it")
    value: Any


class ChangedNode(Answer):
    """A node of both definitions. Pointers of `changes` are relative to it."""

    id: str | None = Field(description=_NO_ID)
    old_pointer: str
    pointer: str
    changes: list[DiffChange]


class RenamedNode(Answer):
    """A node with a new id, which replaces the old one everywhere. Its other changes are in `changed`."""

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
        description="old indices of the nodes kept, in their new order, if it has changed"
    )


class EdgeEnds(Answer):
    source: Any
    source_handle: Any
    target: Any
    target_handle: Any


class DiffEdge(EdgeEnds):
    """An edge that was added or removed."""

    pointer: str = Field(description="into the definition that has it")
    value: Any


class ChangedEdge(EdgeEnds):
    """An edge of both definitions, between the same handles of the same nodes."""

    old_pointer: str
    pointer: str
    changes: list[DiffChange]


class DiffEdges(Answer):
    added: list[DiffEdge]
    removed: list[DiffEdge]
    changed: list[ChangedEdge]
    order: list[int] | None = Field(description="as for nodes")


class Diff(Answer):
    """The changes from one version to another. In a project with the rules `any`, all are in `other`."""

    model_config = ConfigDict(json_schema_serialization_defaults_required=True, serialize_by_alias=True)

    old: Version = Field(serialization_alias="from")
    new: Version = Field(serialization_alias="to")
    layout: bool = Field(description="whether positions, sizes and the editor's own fields are included")
    empty: bool = Field(description="whether nothing has changed, of what is included")
    summary: str = Field(examples=["2 nodes added, url of call-api changed, 1 edge removed"])
    nodes: DiffNodes
    edges: DiffEdges
    other: list[DiffChange] = Field(description="other changes")


_DECLARED: Final = declares(200, Diff, "Vary", errors=(409, 410, 422))
_OK: Final = _DECLARED["responses"][200]
_OK["description"] = "JSON; or the output of `git diff` for the stored files, if Accept prefers it."
_OK["content"][_TEXT] = {"schema": {"type": "string"}}


@blueprint.get("/workflows/<id>/diff", **_DECLARED)
def read_diff(path: WorkflowPath, query: DiffQuery) -> Response:
    """Compare two versions: their nodes and edges, or their lines of text."""
    caller = enter(Permission.READ, f"reading {clip(path.id)}", project=query.project)
    with caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, path.id)
        versions = sides(tx, workflow, query.old, query.to)
    lookup.admit(caller, workflow.slug, *(version.version_number for version in versions))
    if request.accept_mimetypes.best_match([JSON, _TEXT], JSON) == _TEXT:
        with caller.opened() as repository:
            old, new = files(repository, versions)
        text = text_diff(old, new)
        return answer_bytes(text, f"{_TEXT}; charset=utf-8", vary="Accept")
    difference, sentence = compare(caller, versions, layout=query.layout)
    before, after = (Version.of(version, caller) for version in versions)
    made = Diff(
        old=before,
        new=after,
        layout=query.layout,
        empty=difference.empty and versions[0].digest == versions[1].digest,
        summary=sentence,
        **lists(difference),
    )
    return answer(made, vary="Accept")


# Blame

blame = new_blueprint("blame", "Which version last changed what.")


class BlameQuery(Query):
    version: str = Field("latest", json_schema_extra={"pattern": f"^({NUMBER}|draft|current|latest)$"})
    node: str | None = Field(None, description="only the node with this id")
    cursor: str | None = Field(None, description="`next_cursor` of the page before")


class BlamedField(http.Answer):
    pointer: str
    version: int | None


class BlamedElement(http.Answer):
    """A change of layout alone is that of the layout's fields, and not of the element."""

    kind: Literal["node", "edge", "field"]
    name: str
    pointer: str = Field(description="RFC 6901 JSON Pointer into the definition")
    version: int | None = Field(description="null: an earlier one than this page compares")
    fields: list[BlamedField]


class BlamedVersion(http.Answer):
    version_number: int
    state: Literal["draft", "published", "lost"]
    message: str
    author: http.Person
    published_by: str | None
    created_at: datetime
    published_at: datetime | None

    @classmethod
    def of(cls, row: catalog.Version) -> BlamedVersion:
        author: Any = http.Person.model_construct(name=row.author_name, email=row.author_email)
        return cls.from_row(row, author=author)


class BlamePage(http.Answer):
    """A page compares at most 200 versions. If two pages differ on an element, the first one is right."""

    version: int = Field(description="the version whose elements these are")
    elements: list[BlamedElement]
    versions: list[BlamedVersion] = Field(description="those that are named, newest first")
    next_cursor: str | None


@blame.get("/workflows/<id>/blame", **declares(200, BlamePage, "Link", errors=(422,)))
def blame_version(path: WorkflowPath, query: BlameQuery) -> Response:
    """Return which version last changed each node, edge and field of a version."""
    caller = enter(Permission.READ, f"reading {clip(path.id)}", project=query.project)
    page = comparison.blame_of(caller, path.id, query.version, query.cursor, query.node)
    elements = [
        BlamedElement.model_construct(
            kind=each.kind,
            name=each.name,
            pointer=each.pointer,
            version=each.version,
            fields=[
                BlamedField.model_construct(pointer=pointer, version=version)
                for pointer, version in each.fields.items()
            ],
        )
        for each in page.elements
    ]
    versions = [BlamedVersion.of(row) for _, row in sorted(page.versions.items(), reverse=True)]
    return http.answer_page(
        caller,
        BlamePage,
        f"/workflows/{page.workflow.slug}/blame",
        page.next,
        version=page.version.version_number,
        elements=elements,
        versions=versions,
    )
