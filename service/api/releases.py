"""/releases: publish or move several workflows in one step, and roll that back."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Self
from uuid import UUID

from flask import Response
from pydantic import AfterValidator, Field, WithJsonSchema

from gitstore.definition.quoting import clip
from gitstore.environments import CURRENT
from gitstore.model import Permission, Problems
from gitstore.names import RELEASE_PATTERN, SLUG_PATTERN, version_id
from gitstore.unit_of_work import MOST_WORKFLOWS
from service import lookup
from service.actions import releases as actions
from service.actions.releases import Choice, draft_choice
from service.api.http import Answer, DefinitionProblem, answer, answer_page, problems_of, read_json, url
from service.api.openapi import PageQuery, Parameters, Query, declares, new_blueprint
from service.api.versions import PublishedVersionOrNull
from service.caller import Caller
from service.context import enter
from service.inputs import Body, Text
from sync import releases
from sync.releases import ShownItem, ShownRelease

blueprint = new_blueprint("releases", "Several workflows that are published or moved in one step.")

_COMMIT = {"type": "string", "pattern": "^[0-9a-f]{40}$"}


def _check_draft(value: Any) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str) and len(value) == 40 and set(value) <= set("0123456789abcdef"):
        return value
    raise ValueError("must be true, or the draft's commit that you have seen (its ETag)")


DraftChoice = Annotated[
    Any,
    AfterValidator(_check_draft),
    WithJsonSchema(
        {
            "anyOf": [{"type": "boolean"}, _COMMIT, {"type": "null"}],
            "description": "the draft: its commit that you have seen, or true for any",
        }
    ),
]


class WantedItem(Body):
    """A version of a workflow, or its open draft, which is published."""

    workflow: str = Field(description="its slug or id", max_length=63)
    version: PublishedVersionOrNull = None
    draft: DraftChoice = None


class PreviewRelease(Body):
    items: Annotated[list[WantedItem], Field(min_length=1, max_length=MOST_WORKFLOWS)]
    environment: str | None = Field(
        CURRENT, description="whose pointers move: `current`, or an environment of the project"
    )

    @property
    def choices(self) -> list[Choice]:
        return [Choice(each.workflow, each.version, draft_choice(each.draft)) for each in self.items]


class CreateRelease(PreviewRelease):
    """All of it happens, or nothing."""

    name: str = Field(json_schema_extra={"pattern": f"^{RELEASE_PATTERN}$"})
    message: Text | None = None


class RollBack(Body):
    message: Text | None = None
    force: bool | None = Field(False, description="whether workflows that have moved since are moved, too")


class Release(Answer):
    id: UUID
    name: str
    commit: str = Field(description="a commit with `workflows/<slug>/` of each workflow")
    environment: str
    message: str
    released_by: str
    released_at: datetime
    workflows: int = Field(description="number of workflows in it")
    standing: int = Field(description="how many of them are on its version now")
    url: str

    @classmethod
    def of(cls, row: ShownRelease, caller: Caller, **values: Any) -> Self:
        shown = url(caller, f"/ui/releases/{row.name}")
        return cls.from_row(row, commit=row.commit_sha, url=shown, **values)


class ReleaseItem(Answer):
    workflow: str = Field(description="its slug", json_schema_extra={"pattern": f"^{SLUG_PATTERN}$"})
    workflow_id: UUID
    name: str
    version_number: int
    version_id: UUID
    published: bool = Field(description="whether this release published it")
    before: int | None = Field(description="the version that the pointer was on before")
    before_held: bool
    now: int | None = Field(description="the version that the pointer is on now")


class FullRelease(Release):
    items: list[ReleaseItem]


class ReleasePage(Answer):
    releases: list[Release]
    next_cursor: str | None


class PreviewItem(Answer):
    workflow: str
    version_number: int
    published: bool = Field(description="whether the release would publish it")
    before: int | None
    changes: str = Field(description="what changes against `before`, in one sentence; empty without one")


class Refusal(Answer):
    """A gate that fails."""

    workflow: str
    code: str
    message: str
    problems: list[DefinitionProblem]


class ReleasePreview(Answer):
    items: list[PreviewItem]
    refusals: list[Refusal] = Field(description="what stops the release; it can be made if this is empty")


class Returned(Answer):
    workflow: str
    left: int | None = Field(description="the version that the pointer was on")
    now: int | None = Field(description="the version that it is on now")
    held: bool


class RolledBack(Answer):
    returned: list[Returned] = Field(description="empty if every pointer was there already")


class ReleasePath(Parameters):
    name: str = Field(json_schema_extra={"pattern": f"^{RELEASE_PATTERN}$"})


@blueprint.get("/releases", **declares(200, ReleasePage, "Link"))
def list_releases(query: PageQuery) -> Response:
    """List the releases of the project, newest first."""
    caller = enter(Permission.READ, "listing releases", project=query.project)
    before = lookup.moment_in(query.cursor)
    with caller.reading() as tx:
        rows = releases.page(tx, caller.project_id, before=before, limit=query.limit + 1)
    shown, last = rows[: query.limit], rows[query.limit - 1] if len(rows) > query.limit else None
    place = f"{last.released_at.isoformat()} {last.id}" if last is not None else None
    listed = [Release.of(row, caller) for row in shown]
    return answer_page(caller, ReleasePage, "/releases", place, releases=listed)


@blueprint.post(
    "/releases",
    **declares(
        201, FullRelease, "Location", errors=(409, 422), body=CreateRelease,
        also={200: {"description": "the same request has made it already"}},
    ),
)  # fmt: skip
def create_release(query: Query) -> Response:
    """Publish drafts and make versions current, 1 to 200 workflows in one step: all of it, or nothing.

    422 lists in `items` every gate that fails. If all that is wrong is that drafts or their bases moved, it
    is 409. The same request again returns the release that it made, with 200.
    """
    caller = enter(Permission.PUBLISH, "making a release", project=query.project)
    body = read_json(caller, CreateRelease)
    made = actions.create(
        caller,
        body.name,
        body.choices,
        message=body.message or "",
        environment=body.environment or CURRENT,
    )
    status = HTTPStatus.CREATED if made.new else HTTPStatus.OK
    return _answer(caller, made.name, status, location=url(caller, f"/releases/{made.name}"))


@blueprint.post("/releases/preview", **declares(200, ReleasePreview, body=PreviewRelease))
def preview_release(query: Query) -> Response:
    """Preview a release: what it would change, and every gate that fails. Nothing is changed."""
    caller = enter(Permission.READ, "previewing a release", project=query.project)
    body = read_json(caller, PreviewRelease)
    found = actions.preview(caller, body.choices, body.environment or CURRENT)
    items = [
        PreviewItem.model_construct(
            workflow=item.slug,
            version_number=item.version,
            published=item.published,
            before=item.before.version,
            changes=changes,
        )
        for item, changes in found.items
    ]
    refusals = [
        Refusal.model_construct(
            workflow=slug,
            code=error.code.value,
            message=error.message,
            problems=problems_of(Problems.of(error.problems))["problems"],
        )
        for slug, error in found.refusals
    ]
    return answer(ReleasePreview.model_construct(items=items, refusals=refusals))


@blueprint.get("/releases/<name>", **declares(200, FullRelease))
def read_release(path: ReleasePath, query: Query) -> Response:
    """Read a release, with its workflows and what is current of each now."""
    caller = enter(Permission.READ, f"reading the release {clip(path.name)}", project=query.project)
    return _answer(caller, path.name)


@blueprint.post(
    "/releases/<name>/rollback",
    **declares(200, RolledBack, errors=(409, 422), body=RollBack, required=False),
)
def roll_back_release(path: ReleasePath, query: Query) -> Response:
    """Return every workflow of a release to the version that was current before, in one step.

    409 lists in `items` those that have moved since; with `force`, they are moved, too.
    """
    caller = enter(Permission.PUBLISH, f"rolling back {clip(path.name)}", project=query.project)
    body = read_json(caller, RollBack)
    returns = actions.roll_back(caller, path.name, message=body.message or "", force=bool(body.force))
    returned = [
        Returned.model_construct(
            workflow=each.slug, left=each.left.version, now=each.now.version, held=each.now.held
        )
        for each in returns
    ]
    return answer(RolledBack.model_construct(returned=returned))


def _answer(caller: Caller, name: str, status: int = HTTPStatus.OK, **headers: str) -> Response:
    row, items = lookup.release(caller, name)
    return answer(FullRelease.of(row, caller, items=_items(items)), status, **headers)


def _items(rows: Sequence[ShownItem]) -> list[ReleaseItem]:
    return [
        ReleaseItem.from_row(
            row,
            workflow=row.slug,
            name=row.workflow_name,
            version_id=version_id(row.workflow_id, row.version_number),
            before=row.before_number,
            now=row.now_number,
        )
        for row in rows
    ]
