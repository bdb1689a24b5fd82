"""/environments: the environments of a project, the pointers of its workflows in them, and promotion."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from flask import Response, request
from pydantic import Field

from gitstore import pointers
from gitstore.definition.quoting import clip
from gitstore.environments import LONGEST_KEY, MOST, MOST_HOURS, EnvironmentRule, choose, rulebook
from gitstore.errors import IntegrityError, MalformedError, NotFoundError, ObjectsMissingError
from gitstore.model import Environment, Permission
from gitstore.names import version_id
from gitstore.unit_of_work import MOST_WORKFLOWS
from service import lookup
from service.access import Role
from service.actions import environments as actions
from service.actions import schedules
from service.api.http import (
    Answer,
    answer,
    answer_page,
    expected,
    no_content,
    not_modified,
    read_json,
    unchanged,
)
from service.api.openapi import ENVIRONMENT, PageQuery, Query, WorkflowPath, declares, new_blueprint
from service.api.schedules import AT, SCHEDULED, SCHEDULED_SEVERAL, scheduled, scheduled_several
from service.api.versions import PublishedVersionOrNull
from service.caller import Caller
from service.context import enter
from service.inputs import Body, Moment, Text
from sync import environments
from sync.catalog import InEnvironment
from sync.environments import ShownPointer

blueprint = new_blueprint("environments", "Named pointers of workflows, such as staging and prod.")

_NAME = f"^{ENVIRONMENT}$"
Name = Annotated[str, Field(json_schema_extra={"pattern": _NAME}, max_length=40)]


# Bodies


class Rule(Body):
    """An environment of the project, and its rules."""

    name: Name
    role: Role = Field(Role.PUBLISHER, strict=False, description="the least role that may move pointers")
    follows: bool = Field(False, description="whether each publication moves the pointer")
    hours: int = Field(
        0, ge=0, le=MOST_HOURS, description="hours that a version must have been in the environment before"
    )


class ChangeEnvironments(Body):
    """All environments of the project, in the order of promotion."""

    environments: Annotated[list[Rule], Field(max_length=MOST)]


class MovePointer(Body):
    """One version, or `weights`: two versions with percentages that add up to 100."""

    version: PublishedVersionOrNull = None
    weights: dict[str, int] | None = Field(
        None, description="version -> percent", max_length=2, examples=[{"3": 90, "4": 10}]
    )
    hold: bool | None = Field(False, description="whether publications leave the pointer where it is")
    message: Text | None = None
    at: Moment = Field(None, description=AT)

    @property
    def wanted(self) -> list[tuple[int | str, int]]:
        if (self.version is None) == (self.weights is None):
            raise MalformedError("name a version, or weights of two versions")
        return [(self.version, 100)] if self.weights is None else list(self.weights.items())


class Promote(Body):
    """`from` and `to` are environments; `current` is one of them."""

    source: str = Field(alias="from", max_length=40)
    target: str = Field(alias="to", max_length=40)
    message: Text | None = None
    at: Moment = Field(None, description=AT)


class PromoteSeveral(Promote):
    """With `at`, each workflow has a schedule of its own."""

    workflows: Annotated[list[str], Field(min_length=1, max_length=MOST_WORKFLOWS)] = Field(
        description="their slugs or ids"
    )


# Answers


class ShownRule(Answer):
    name: str
    role: Role
    follows: bool
    hours: int


class Environments(Answer):
    environments: list[ShownRule]
    commit: str | None = Field(description="the commit that has them, for If-Match")


class Pointer(Answer):
    name: str
    version_number: int | None = Field(description="null: no version")
    version_id: UUID | None
    weights: dict[str, int] | None = Field(description="of two versions, in percent; null with one version")
    held: bool
    moved_at: datetime | None
    moved_by: str | None
    message: str | None
    etag: str = Field(description="for If-Match, without its quotes")

    @classmethod
    def of(cls, name: str, row: ShownPointer | None, key: str | None = None) -> Self:
        if row is None:
            empty = dict.fromkeys(
                ("version_number", "version_id", "weights", "moved_at", "moved_by", "message")
            )
            return cls.model_construct(name=name, **empty, held=False, etag=pointers.NONE)
        pointer = row.pointer
        number = choose(pointer, row.workflow_id, key) if key is not None else pointer.version
        return cls.from_row(
            row,
            version_number=number,
            version_id=version_id(row.workflow_id, number),
            weights=_weights(pointer),
            etag=pointers.tag_of(pointer),
        )


class WorkflowEnvironments(Answer):
    workflow: str
    environments: list[Pointer] = Field(description="in the order of promotion")


class Move(Answer):
    at: datetime
    by: str
    message: str
    version_number: int | None = Field(description="null: the pointer was removed")
    weights: dict[str, int] | None
    held: bool
    previous: int | None
    release: str | None


class Moves(Answer):
    moves: list[Move] = Field(description="the newest first; fewer than `limit` may be followed by others")
    next_cursor: str | None


class Promoted(Answer):
    workflow: str
    before: int | None
    version_number: int
    moves: bool = Field(description="false: the pointer was there already")
    changes: str = Field(description="what changes against `before`, in one sentence; only in a preview")


class Refused(Answer):
    workflow: str
    code: str
    message: str


class Promotions(Answer):
    promotions: list[Promoted]


class PromotionPreview(Promotions):
    refusals: list[Refused] = Field(description="what stops the promotion; it happens if this is empty")


class EnvironmentPath(WorkflowPath):
    name: str = Field(json_schema_extra={"pattern": _NAME})


class KeyQuery(Query):
    key: str | None = Field(
        None,
        description="the caller of a pointer with weights: the same key gets the same version",
        max_length=LONGEST_KEY,
    )


# The environments of a project


@blueprint.get(
    "/environments", **declares(200, Environments, "ETag", also={304: {"description": "Not Modified"}})
)
def list_environments(query: Query) -> Response:
    """List the environments of the project in the order of promotion, with their rules."""
    caller = enter(Permission.READ, "listing environments", project=query.project)
    with caller.opened() as repository:
        rules = rulebook(repository)
    etag = f'"{rules.commit or pointers.NONE}"'
    if not_modified(request, etag):
        return unchanged(etag=etag)
    return answer(_environments(rules.rules, rules.commit), etag=etag)


@blueprint.put(
    "/environments",
    **declares(200, Environments, "ETag", errors=(409, 412, 422, 428), body=ChangeEnvironments, match=False),
)
def change_environments(query: Query) -> Response:
    """Replace the environments of the project. One in which a workflow has a pointer stays. For owners.

    If there are any, If-Match is required.
    """
    caller = enter(Permission.OWN, "changing the environments", project=query.project)
    body = read_json(caller, ChangeEnvironments)
    rules = [
        EnvironmentRule(each.name, each.role.value, each.follows, each.hours) for each in body.environments
    ]
    changed = actions.change_rules(caller, rules, expected(request))
    return answer(_environments(changed.rules, changed.commit), etag=f'"{changed.commit or pointers.NONE}"')


def _environments(rules: Sequence[EnvironmentRule], commit: str | None) -> Environments:
    shown = [ShownRule.from_row(rule, role=Role(rule.role)) for rule in rules]
    return Environments.model_construct(environments=shown, commit=commit)


# The pointers of a workflow


@blueprint.get("/workflows/<id>/environments", **declares(200, WorkflowEnvironments))
def list_pointers(path: WorkflowPath, query: Query) -> Response:
    """List the pointers of a workflow, one for each environment of the project."""
    caller = enter(Permission.READ, f"reading {clip(path.id)}", project=query.project)
    slug, found = _pointers(caller, path.id)
    with caller.opened(shown=True) as repository:
        rules = rulebook(repository).rules
    listed = [Pointer.of(rule.name, found.get(rule.name)) for rule in rules]
    return answer(WorkflowEnvironments.model_construct(workflow=slug, environments=listed))


@blueprint.get(
    "/workflows/<id>/environments/<name>",
    **declares(200, Pointer, "ETag", errors=(400, 410), also={304: {"description": "Not Modified"}}),
)
def read_pointer(path: EnvironmentPath, query: KeyQuery) -> Response:
    """Read a pointer. With `key`, `version_number` is the version that this key gets, always the same."""
    caller = enter(Permission.READ, f"reading {clip(path.id)}", project=query.project)
    return _answer(caller, path, query.key)


@blueprint.put(
    "/workflows/<id>/environments/<name>",
    **declares(200, Pointer, "ETag", errors=(409, 412, 422), body=MovePointer, match=False, also=SCHEDULED),
)
def move_pointer(path: EnvironmentPath, query: Query) -> Response:
    """Move the pointer of a workflow in an environment. A move to where it is changes nothing.

    422 lists in `items` every reason against it. `If-None-Match: *` expects that there is no pointer yet.
    """
    caller = enter(Permission.EDIT, f"moving {clip(path.id)}", project=query.project)
    body = read_json(caller, MovePointer)
    seen = expected(request)
    if seen is None and request.headers.get("If-None-Match", "").strip() == "*":
        seen = {pointers.NONE}
    slug = lookup.slug_of(caller, path.id)
    if body.at is not None:
        row = schedules.move(
            caller,
            slug,
            path.name,
            body.wanted,
            body.at,
            message=body.message or "",
            hold=bool(body.hold),
            expected=seen,
        )
        return scheduled(caller, row)
    actions.move(
        caller,
        slug,
        path.name,
        body.wanted,
        message=body.message or "",
        hold=bool(body.hold),
        expected=seen,
    )
    return _answer(caller, path)


@blueprint.delete("/workflows/<id>/environments/<name>", **declares(204, errors=(409, 412), match=False))
def remove_pointer(path: EnvironmentPath, query: Query) -> Response:
    """Remove the pointer of a workflow from an environment."""
    caller = enter(Permission.EDIT, f"moving {clip(path.id)}", project=query.project)
    actions.remove(caller, lookup.slug_of(caller, path.id), path.name, expected=expected(request))
    return no_content()


@blueprint.get(
    "/workflows/<id>/environments/<name>/history", **declares(200, Moves, "Link", errors=(400, 409))
)
def read_moves(path: EnvironmentPath, query: PageQuery) -> Response:
    """List the moves of a pointer: when, by whom and why."""
    caller = enter(Permission.READ, f"reading {clip(path.id)}", project=query.project)
    slug = lookup.slug_of(caller, path.id)
    start = lookup.entry_in(query.cursor)
    with caller.opened() as repository:
        lookup.existing(repository, slug)
        rulebook(repository).find(path.name)
        try:
            found, following = pointers.history(repository, slug, path.name, limit=query.limit, start=start)
        except (IntegrityError, NotFoundError, ObjectsMissingError):
            if start is None:
                raise
            raise lookup.invalid_cursor() from None
    moves = [
        Move.model_construct(
            at=move.entry.when,
            by=move.entry.actor.name,
            message=move.entry.message,
            version_number=move.to.version if move.to else None,
            weights=_weights(move.to) if move.to else None,
            held=move.to is not None and move.to.held,
            previous=move.before.version if move.before else None,
            release=move.entry.release,
        )
        for move in found
    ]
    return answer_page(
        caller, Moves, f"/workflows/{slug}/environments/{path.name}/history", following, moves=moves
    )


def _pointers(
    caller: Caller, name: str, running: InEnvironment | None = None
) -> tuple[str, dict[str, ShownPointer]]:
    """Return the slug of a workflow and its pointers; `running` is one that chooses the version to run."""
    with caller.reading() as tx:
        row = lookup.workflow(tx, caller, name)
        if running is not None:
            lookup.check_running(row.slug, running, archived=row.archived)
        return row.slug, {each.name: each for each in environments.of_workflow(tx, row.id)}


def _answer(caller: Caller, path: EnvironmentPath, key: str | None = None) -> Response:
    running = InEnvironment(path.name, key) if request.method == "GET" else None
    _, found = _pointers(caller, path.id, running)
    if path.name not in found:
        with caller.opened(shown=True) as repository:
            rulebook(repository).find(path.name)
    pointer = Pointer.of(path.name, found.get(path.name), key)
    etag = f'"{pointer.etag}"'
    if request.method == "GET" and key is None and not_modified(request, etag):
        return unchanged(etag=etag)
    return answer(pointer, etag=etag)


def _weights(pointer: Environment) -> dict[str, int] | None:
    if pointer.second is None:
        return None
    return {str(number): weight for number, weight in pointer.weights.items()}


# Promotion


@blueprint.post(
    "/workflows/<id>/promote",
    **declares(200, Promotions, errors=(409, 422), body=Promote, also=SCHEDULED_SEVERAL),
)
def promote_workflow(path: WorkflowPath, query: Query) -> Response:
    """Move the pointer of a workflow in one environment to its version in another."""
    caller = enter(Permission.EDIT, f"promoting {clip(path.id)}", project=query.project)
    return _promote(caller, [path.id], read_json(caller, Promote))


@blueprint.post(
    "/promote", **declares(200, Promotions, errors=(409, 422), body=PromoteSeveral, also=SCHEDULED_SEVERAL)
)
def promote_workflows(query: Query) -> Response:
    """Promote several workflows in one step: all of them, or none.

    422 lists in `items` every gate that fails for any of them. With `at`, each has a schedule of its own.
    """
    caller = enter(Permission.EDIT, "promoting workflows", project=query.project)
    body = read_json(caller, PromoteSeveral)
    return _promote(caller, body.workflows, body)


@blueprint.post("/promote/preview", **declares(200, PromotionPreview, body=PromoteSeveral))
def preview_promotion(query: Query) -> Response:
    """Preview a promotion: what would change in each workflow, and every gate that fails."""
    caller = enter(Permission.READ, "previewing a promotion", project=query.project)
    body = read_json(caller, PromoteSeveral)
    found = actions.preview(caller, body.workflows, body.source, body.target, body.at)
    refusals = [
        Refused.model_construct(workflow=slug, code=error.code.value, message=error.message)
        for slug, error in found.refusals
    ]
    shown = [_promoted(each, changes) for each, changes in found.promotions]
    return answer(PromotionPreview.model_construct(promotions=shown, refusals=refusals))


def _promote(caller: Caller, names: Sequence[str], body: Promote) -> Response:
    if body.at is not None:
        rows = schedules.promote(caller, names, body.source, body.target, body.at, message=body.message or "")
        return scheduled_several(caller, rows)
    promoted = actions.promote(caller, names, body.source, body.target, message=body.message or "")
    return answer(Promotions.model_construct(promotions=[_promoted(each) for each in promoted]))


def _promoted(promotion: pointers.Promotion, changes: str = "") -> Promoted:
    return Promoted.model_construct(
        workflow=promotion.slug,
        before=promotion.before.version if promotion.before is not None else None,
        version_number=promotion.after.version,
        moves=promotion.moves,
        changes=changes,
    )
