"""/workflows/{id}/versions/draft: create, save and discard the draft, and revert to a version."""

from __future__ import annotations

from http import HTTPStatus
from itertools import islice
from typing import Final

from flask import Response, request

from gitstore.definition.quoting import clip
from gitstore.drafts import Content, Saved
from gitstore.errors import Code, MalformedError, StaleDraftError
from gitstore.model import Permission
from gitstore.repository import Repository
from gitstore.store import Store
from service import lookup
from service.api import inputs
from service.api.answers import answer, nothing, workflow_url
from service.api.bodies import author_of, read_draft, read_json
from service.api.conditions import expected
from service.api.openapi import if_match, new_blueprint, says, says_nothing, takes, takes_draft
from service.api.schemas import SavedDraft, SupersededDraft, SupersededList, problems_of
from service.context import Caller, enter
from service.logs import Event
from sync import catalog, derive

_MOST_SUPERSEDED: Final = 100

blueprint = new_blueprint("drafts", "What the next version of a workflow will be, while it is being written.")


@blueprint.post(
    "/workflows/<id>/versions",
    responses=says(201, SavedDraft, "ETag", "Location", refuses=(409, 413, 415, 422)),
    openapi_extensions=takes_draft(inputs.CreateDraft),
)
def create_draft(path: inputs.WorkflowPath, query: inputs.Query) -> Response:
    """Create a draft: of a definition, of an older version, or of the current one."""
    caller = enter(Permission.EDIT, f"creating a draft of {clip(path.id)}", project=query.project)
    content, body = read_draft(request, caller.services.config.limits, inputs.CreateDraft)
    _check_either(content is not None, body)
    slug = lookup.slug_of(caller, path.id)
    who, message = caller.who(author_of(body)), body.message or ""
    with caller.writing() as store:
        with caller.acting(Event.SAVED, slug):
            lookup.existing(store, slug)
            if body.from_version is None:
                saved = store.create_draft(slug, content, who, message)
            else:
                number = lookup.number_of(store, slug, body.from_version)
                lookup.admit(caller, slug, number)
                saved = store.create_draft_from(slug, number, who, message)
        return _answer(caller, store, slug, saved, HTTPStatus.CREATED)


@blueprint.put(
    "/workflows/<id>/versions/draft",
    responses=says(200, SavedDraft, "ETag", refuses=(409, 412, 413, 415, 422, 428)),
    openapi_extensions=takes_draft(inputs.SaveDraft, required=True, match=True),
)
def save_draft(path: inputs.WorkflowPath, query: inputs.Query) -> Response:
    """Save the draft. If-Match says which state of it was edited, so that nobody's work is overwritten."""
    caller = enter(Permission.EDIT, f"saving the draft of {clip(path.id)}", project=query.project)
    content, body = read_draft(request, caller.services.config.limits, inputs.SaveDraft)
    _check_either(content is not None, body)
    slug = lookup.slug_of(caller, path.id)
    with caller.writing() as store:
        with caller.acting(Event.SAVED, slug):
            saved = _save(store, slug, caller, content, body)
        return _answer(caller, store, slug, saved, HTTPStatus.OK)


@blueprint.delete(
    "/workflows/<id>/versions/draft",
    responses=says_nothing(409, 412, headers=("Link",)),
    openapi_extensions=if_match(needed=False),
)
def discard_draft(path: inputs.WorkflowPath, query: inputs.Query) -> Response:
    """Discard the draft. Git keeps it; the header Link names the call that restores it, and its `at`."""
    caller = enter(Permission.EDIT, f"discarding the draft of {clip(path.id)}", project=query.project)
    slug = lookup.slug_of(caller, path.id)
    with caller.writing() as store, caller.acting(Event.DISCARDED, slug):
        lookup.existing(store, slug)
        seen = expected(request, lookup.draft_of(store, slug))
        kept = store.discard_draft(slug, caller.who(None), expected=seen)
    restore, at = f"{workflow_url(caller, slug)}/versions/draft/restore", kept.at.isoformat()
    response = nothing()
    response.headers["Link"] = f'<{restore}>; rel="restore"; at="{at.replace("+00:00", "Z")}"'
    return response


@blueprint.get("/workflows/<id>/versions/draft/superseded", responses=says(200, SupersededList))
def list_superseded(path: inputs.WorkflowPath, query: inputs.Query) -> Response:
    """The discarded drafts that can be restored, the newest first."""
    caller = enter(Permission.READ, f"reading {clip(path.id)}", project=query.project)
    slug = lookup.slug_of(caller, path.id)
    with caller.opened() as store:
        lookup.existing(store, slug)
        newest = islice(store.discarded(slug), _MOST_SUPERSEDED)
        found = [SupersededDraft.of(kept, store.snapshot(slug, kept.commit)) for kept in newest]
    return answer(SupersededList(superseded=found))


@blueprint.post(
    "/workflows/<id>/versions/draft/restore",
    responses=says(201, SavedDraft, "ETag", "Location", refuses=(409, 413, 415, 422)),
    openapi_extensions=takes(inputs.RestoreDraft),
)
def restore_draft(path: inputs.WorkflowPath, query: inputs.Query) -> Response:
    """Open a discarded draft again: the one that was discarded `at` that time, or the last one."""
    caller = enter(Permission.EDIT, f"restoring the draft of {clip(path.id)}", project=query.project)
    body = read_json(request, inputs.RestoreDraft, caller.services.config.limits)
    slug = lookup.slug_of(caller, path.id)
    with caller.writing() as store:
        with caller.acting(Event.RESTORED, slug):
            lookup.existing(store, slug)
            saved = store.restore_draft(slug, caller.who(None), at=body.at)
        return _answer(caller, store, slug, saved, HTTPStatus.CREATED)


@blueprint.post(
    "/workflows/<id>/versions/<version>/revert",
    responses=says(201, SavedDraft, "ETag", "Location", refuses=(409, 412, 413, 415, 422, 428)),
    openapi_extensions=takes(inputs.Revert, match=False),
)
def revert(path: inputs.VersionPath, query: inputs.Query) -> Response:
    """Let the draft hold what a version holds, by a new commit. An open draft needs If-Match."""
    caller = enter(Permission.EDIT, f"reverting {clip(path.id)}", project=query.project)
    lookup.which(path.version)
    body = read_json(request, inputs.Revert, caller.services.config.limits)
    slug = lookup.slug_of(caller, path.id)
    with caller.writing() as store:
        with caller.acting(Event.REVERTED, slug) as facts:
            lookup.existing(store, slug)
            facts["version"] = number = lookup.number_of(store, slug, path.version)
            lookup.admit(caller, slug, number)
            saved = store.revert(
                slug,
                number,
                caller.who(author_of(body)),
                expected=expected(request, lookup.draft_of(store, slug)),
                message=body.message or "",
            )
        return _answer(caller, store, slug, saved, HTTPStatus.CREATED)


def _check_either(has_content: bool, body: inputs.CreateDraft) -> None:
    """Raise `malformed` for a body that gives two sources of content, or for a save without content."""
    taken = body.from_version is not None
    if has_content and taken:
        raise MalformedError("send a definition or from_version, not both")
    if isinstance(body, inputs.SaveDraft):
        if not has_content and not taken:
            raise MalformedError("nothing to save: send a definition, or from_version")
        if taken and body.base_version is not None:
            raise MalformedError("base_version goes with a definition, not with from_version")


def _save(store: Store, slug: str, caller: Caller, content: Content | None, body: inputs.SaveDraft) -> Saved:
    lookup.existing(store, slug)
    seen = expected(request, lookup.draft_of(store, slug))
    if seen is None:
        raise StaleDraftError(
            "If-Match is needed: the ETag of the draft that was edited, or * for any draft",
            Code.EXPECTED_REQUIRED,
        )
    who, message = caller.who(author_of(body)), body.message or ""
    if content is not None:
        return store.save_draft(
            slug, content, who, expected=seen, message=message, base_version=body.base_version
        )
    lookup.open_draft(store, slug)
    number = lookup.number_of(store, slug, body.from_version)
    lookup.admit(caller, slug, number)
    return store.revert(slug, number, who, expected=seen, message=message)


def _answer(caller: Caller, store: Repository, slug: str, saved: Saved, status: HTTPStatus) -> Response:
    """Return the draft as this call saved it, even if it was saved, published or discarded since then."""
    row = derive.draft_of(store, slug, saved.commit, saved.number)
    draft = catalog.Version.of(row, slug, is_current=False)
    made = SavedDraft.of(draft, caller.services.config.public_url, **problems_of(saved.problems))
    location = f"{workflow_url(caller, slug)}/versions/draft"
    headers = {"location": location} if status is HTTPStatus.CREATED else {}
    return answer(made, status, etag=f'"{saved.commit}"', **headers)
