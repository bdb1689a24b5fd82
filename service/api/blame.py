"""/workflows/{id}/blame: which version last changed each node, edge and field."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from flask import Response
from pydantic import Field

from gitstore.definition.quoting import clip
from gitstore.model import Permission
from service import blame
from service.api import http
from service.api.openapi import NUMBER, Query, WorkflowPath, declares, new_blueprint
from service.context import enter
from sync import catalog

blueprint = new_blueprint("blame", "Which version last changed what.")


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
    """A page compares at most 200 versions. Of what two pages tell about an element, the first is right."""

    version: int = Field(description="the version whose elements these are")
    elements: list[BlamedElement]
    versions: list[BlamedVersion] = Field(description="those that are named, newest first")
    next_cursor: str | None


@blueprint.get("/workflows/<id>/blame", **declares(200, BlamePage, "Link", errors=(422,)))
def blame_version(path: WorkflowPath, query: BlameQuery) -> Response:
    """Tell which version last changed each node, edge and field of a version."""
    caller = enter(Permission.READ, f"reading {clip(path.id)}", project=query.project)
    page = blame.of_version(caller, path.id, query.version, query.cursor, query.node)
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
