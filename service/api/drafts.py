"""/workflows/{id}/versions/draft: create, save, publish and discard the draft, restore one, revert.

A draft is sent as a file (YAML, or JSON under a media type of its own), stored unchanged, as an object, which
edits the draft's file in place, or in an envelope, a JSON object around either. Plain JSON is an envelope if
it has no other keys than those of `SaveDraft`. With MeshHook's rules, an object that mixes those keys with
others and has no `nodes` is refused as a mistyped envelope.
"""

from __future__ import annotations

import codecs
import json
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from flask import Response, request
from pydantic import BaseModel, Field

from gitstore.definition.quoting import clip
from gitstore.drafts import Content
from gitstore.errors import ConflictError, MalformedError, StaleDraftError
from gitstore.model import Permission, Rules
from gitstore.names import HIGHEST_NUMBER
from service import lookup
from service.actions import drafts as actions
from service.actions import schedules
from service.actions import versions as version_actions
from service.actions.workflows import raw_content
from service.api import http
from service.api.openapi import (
    DEFINITION_JSON,
    ENVELOPE_JSON,
    YAML,
    Query,
    WorkflowPath,
    declares,
    new_blueprint,
    responds,
)
from service.api.schedules import AT, SCHEDULED, scheduled
from service.api.versions import PublishedVersionOrNull, Version, VersionPath, etag_of
from service.api.versions import blueprint as versions
from service.caller import Caller
from service.context import enter, read_body
from service.inputs import Body, Definition, Explained, Moment, most_json, validated

M = TypeVar("M", bound=BaseModel)


blueprint = new_blueprint("drafts", "The next version of a workflow, until it is published.")


class CreateDraft(Explained):
    """Without `definition` and `from_version`: a copy of the current version."""

    definition: Definition = None
    from_version: PublishedVersionOrNull = None


class SaveDraft(CreateDraft):
    """`definition` or `from_version`."""

    base_version: Annotated[int, Field(ge=1, le=HIGHEST_NUMBER)] | None = Field(
        None, description="a version published in the meantime that the author has merged"
    )


class Publish(Explained):
    """With `definition`: save it as the draft in the same write."""

    definition: Definition = None
    activate: bool | None = Field(True, description="whether it becomes the current version")
    at: Moment = Field(None, description=AT)


class Revert(Explained):
    """The message and the author of the change."""


class RestoreDraft(Body):
    """Without `at`: the draft that was discarded last."""

    at: Moment = None


class SavedDraft(http.Judged, Version):
    """The draft as it was saved."""


class SupersededDraft(http.Answer):
    """A discarded draft that can be restored."""

    at: datetime = Field(description="when it was discarded: `at` of the call that restores it")
    commit: str
    ref: str = Field(description="the ref from which git can fetch it")
    author: http.Person
    message: str
    created_at: datetime


class SupersededList(http.Answer):
    superseded: list[SupersededDraft] = Field(description=f"newest first, {actions.MOST_DISCARDED} at most")


@blueprint.post(
    "/workflows/<id>/versions",
    **declares(
        201,
        SavedDraft,
        "ETag",
        "Location",
        errors=(409, 422),
        body=CreateDraft,
        required=False,
        with_definition=True,
    ),
)
def create_draft(path: WorkflowPath, query: Query) -> Response:
    """Create a draft from a definition, an older version, or the current one."""
    caller = enter(Permission.EDIT, f"creating a draft of {clip(path.id)}", project=query.project)
    content, body = read_draft(caller, CreateDraft)
    if content is not None and body.from_version is not None:
        raise MalformedError("send a definition or from_version, not both")
    saved = actions.create(
        caller,
        lookup.slug_of(caller, path.id),
        content,
        author=body.person,
        message=body.message or "",
        from_version=body.from_version,
    )
    return _answer(caller, saved, HTTPStatus.CREATED)


@blueprint.put(
    "/workflows/<id>/versions/draft",
    **declares(
        200,
        SavedDraft,
        "ETag",
        errors=(409, 412, 422, 428),
        body=SaveDraft,
        with_definition=True,
        match=True,
    ),
)
def save_draft(path: WorkflowPath, query: Query) -> Response:
    """Save the draft. If-Match names the state that was edited, so that no other edit is overwritten.

    With `If-None-Match: *` instead, a draft is created; 412 if one is open.
    """
    caller = enter(Permission.EDIT, f"saving the draft of {clip(path.id)}", project=query.project)
    content, body = read_draft(caller, SaveDraft)
    if content is not None and body.from_version is not None:
        raise MalformedError("send a definition or from_version, not both")
    if content is None and body.from_version is None:
        raise MalformedError("nothing to save: send a definition, or from_version")
    if content is None and body.base_version is not None:
        raise MalformedError("base_version requires a definition, and cannot be used with from_version")
    slug, expected = lookup.slug_of(caller, path.id), http.expected(request)
    if request.headers.get("If-None-Match", "").strip() == "*":
        if expected is not None or body.base_version is not None:
            raise MalformedError(
                "If-None-Match creates a draft: send no If-Match and no base_version with it"
            )
        return _answer(caller, _created(caller, slug, content, body), HTTPStatus.CREATED)
    saved = actions.save(
        caller,
        slug,
        content,
        expected=expected,
        author=body.person,
        message=body.message or "",
        base_version=body.base_version,
        from_version=body.from_version or "",
    )
    return _answer(caller, saved)


@versions.post(
    "/workflows/<id>/versions/publish",
    **declares(
        201,
        Version,
        "ETag",
        "Location",
        errors=(409, 412, 422),
        also={**responds(200, Version, "ETag"), **SCHEDULED},
        body=Publish,
        required=False,
        with_definition=True,
        match=False,
    ),
)
def publish(path: WorkflowPath, query: Query) -> Response:
    """Publish the draft as the next version; 200 if the latest version already has the same content.

    With `at`, the draft as it is now is published then; 202.

    With a definition, in an envelope or as a file, it is saved as the draft in the same write. While another
    draft is open, that requires If-Match. A definition that can't be published stays the draft.
    """
    caller = enter(Permission.PUBLISH, f"publishing {clip(path.id)}", project=query.project)
    content, body = read_draft(caller, Publish, json_is_envelope=True)
    slug, expected = lookup.slug_of(caller, path.id), http.expected(request)
    if body.at is not None:
        if content is not None and not (expected is None and actions.is_published(caller, slug, content)):
            saved = actions.put(
                caller, slug, content, expected=expected, author=body.person, message=body.message or ""
            )
            expected = {saved.commit}
        row = schedules.publish(
            caller,
            slug,
            body.at,
            author=body.person,
            message=body.message or "",
            activate=body.activate is not False,
            expected=expected,
        )
        return scheduled(caller, row)
    published = version_actions.publish(
        caller,
        slug,
        content,
        author=body.person,
        message=body.message or "",
        activate=body.activate is not False,
        expected=expected,
    )
    version = published.version
    location = (
        http.url(caller, f"/workflows/{slug}/versions/{version.version_number}") if published.new else None
    )
    status = HTTPStatus.CREATED if published.new else HTTPStatus.OK
    return http.answer(Version.of(version, caller), status, etag=etag_of(version), location=location)


@blueprint.delete(
    "/workflows/<id>/versions/draft", **declares(204, None, "Link", errors=(409, 412), match=False)
)
def discard_draft(path: WorkflowPath, query: Query) -> Response:
    """Discard the draft. Git keeps it; the header Link names the call that restores it, and its `at`."""
    caller = enter(Permission.EDIT, f"discarding the draft of {clip(path.id)}", project=query.project)
    slug = lookup.slug_of(caller, path.id)
    at = actions.discard(caller, slug, expected=http.expected(request)).isoformat().replace("+00:00", "Z")
    target = http.url(caller, f"/workflows/{slug}/versions/draft/restore")
    return http.no_content(link=f'<{target}>; rel="restore"; at="{at}"')


@blueprint.get("/workflows/<id>/versions/draft/superseded", **declares(200, SupersededList))
def list_superseded(path: WorkflowPath, query: Query) -> Response:
    """List the discarded drafts that can be restored, newest first."""
    caller = enter(Permission.READ, f"reading {clip(path.id)}", project=query.project)
    slug = lookup.slug_of(caller, path.id)
    with caller.opened() as repository:
        drafts = actions.discarded(repository, slug)
    listed = [SupersededDraft.from_row(draft, author=http.Person.from_row(draft.author)) for draft in drafts]
    return http.answer(SupersededList.model_construct(superseded=listed))


@blueprint.post(
    "/workflows/<id>/versions/draft/restore",
    **declares(201, SavedDraft, "ETag", "Location", errors=(409, 422), body=RestoreDraft, required=False),
)
def restore_draft(path: WorkflowPath, query: Query) -> Response:
    """Reopen a discarded draft: the one discarded `at` that time, or the last one."""
    caller = enter(Permission.EDIT, f"restoring the draft of {clip(path.id)}", project=query.project)
    at = http.read_json(caller, RestoreDraft).at
    saved = actions.restore(caller, lookup.slug_of(caller, path.id), at=at)
    return _answer(caller, saved, HTTPStatus.CREATED)


@blueprint.post(
    "/workflows/<id>/versions/<version>/revert",
    **declares(
        201,
        SavedDraft,
        "ETag",
        "Location",
        errors=(409, 412, 422, 428),
        body=Revert,
        required=False,
        match=False,
    ),
)
def revert(path: VersionPath, query: Query) -> Response:
    """Set the draft to the content of a version, by a new commit. An open draft requires If-Match."""
    caller = enter(Permission.EDIT, f"reverting {clip(path.id)}", project=query.project)
    lookup.which(path.version)
    body = http.read_json(caller, Revert)
    saved = actions.revert(
        caller,
        lookup.slug_of(caller, path.id),
        path.version,
        expected=http.expected(request),
        author=body.person,
        message=body.message or "",
    )
    return _answer(caller, saved, HTTPStatus.CREATED)


def _created(caller: Caller, slug: str, content: Content | None, body: SaveDraft) -> actions.SavedDraft:
    """Create a draft; raises `stale_draft` if one is open."""
    try:
        return actions.create(
            caller,
            slug,
            content,
            author=body.person,
            message=body.message or "",
            from_version=body.from_version,
        )
    except ConflictError as error:
        if error.draft is None:
            raise
        raise StaleDraftError(error.message, draft=error.draft) from error


def _answer(caller: Caller, saved: actions.SavedDraft, status: HTTPStatus = HTTPStatus.OK) -> Response:
    row, location = saved.version, None
    if status is HTTPStatus.CREATED:
        location = http.url(caller, f"/workflows/{row.slug}/versions/draft")
    draft = SavedDraft.of(row, caller, **http.problems_of(saved.problems))
    return http.answer(draft, status, etag=f'"{row.commit_sha}"', location=location)


# Bodies with a definition


def read_draft(caller: Caller, model: type[M], *, json_is_envelope: bool = False) -> tuple[Content | None, M]:
    """Return a draft's content, if the body has one, and the envelope as a `model`, empty without one.

    With `json_is_envelope`, plain JSON is never a definition itself: a mistyped key must not publish one.
    Raises as `read_json` does, but `definition_unparsable` for a body that cannot be read.
    """
    limits = caller.limits
    is_file = request.mimetype in (*YAML, DEFINITION_JSON)
    raw = read_body(request, limits.definition if is_file else most_json(limits))
    if is_file:
        return raw_content(raw, limits, json=request.mimetype == DEFINITION_JSON), validated(model, {})
    if not raw:
        return None, validated(model, {})
    if request.mimetype != ENVELOPE_JSON:
        http.check_json(ENVELOPE_JSON, DEFINITION_JSON, *YAML)
        if not json_is_envelope and _is_definition(raw, caller.rules):
            content = raw_content(raw, limits, json=True)
            return replace(content, is_object=True), validated(model, {})
    envelope = validated(model, http.definition_in_json(raw, limits))
    return content_of(caller, getattr(envelope, "definition", None)), envelope


def content_of(caller: Caller, definition: Any) -> Content | None:
    """Return the content in the `definition` of an envelope; text is kept unchanged."""
    if isinstance(definition, str):
        return raw_content(definition.encode(), caller.limits)
    return None if definition is None else Content(value=definition)


def _is_definition(raw: bytes, rules: Rules) -> bool:
    """Return whether a JSON body is a definition itself, or else an envelope.

    The standard library's parser decides that in a twentieth of the time of ours, which reads it afterwards.
    What it cannot read is a definition that cannot be read.
    """
    try:
        value = json.loads(raw.removeprefix(codecs.BOM_UTF8))
    except (ValueError, RecursionError):
        return True
    known = SaveDraft.model_fields.keys()
    if isinstance(value, list):
        return rules is not Rules.MESHHOOK
    if not isinstance(value, dict) or value.keys() <= known:
        return False
    return rules is not Rules.MESHHOOK or "nodes" in value or known.isdisjoint(value)
