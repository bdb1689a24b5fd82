"""/workflows/{id}/versions: history, and a version to read, publish or go back to."""

from __future__ import annotations

from http import HTTPStatus

from flask import Response, request

from gitstore.errors import GitstoreError
from gitstore.model import Permission
from service.api import inputs, lookup
from service.api.answers import (
    CHANGING,
    IMMUTABLE,
    answer,
    next_link,
    not_modified,
    tag_of,
    unchanged,
    workflow_url,
)
from service.api.bodies import JSON, JSON_TAG, author_of, expected, read_json
from service.api.drafts import saved_draft
from service.api.openapi import new_blueprint, refusals, says, takes
from service.api.schemas import FullVersion, SavedDraft, Version, VersionPage
from service.context import Caller, enter
from sync import catalog
from sync.catalog import Which

blueprint = new_blueprint("versions", "Published versions, which never change.")

_YAML = "application/yaml"  # RFC 9512


@blueprint.get("/workflows/<id>/versions", responses=says(200, VersionPage, "Link"))
def list_versions(path: inputs.WorkflowPath, query: inputs.HistoryQuery) -> Response:
    """The history: an open draft, then the newest version first. Metadata only."""
    caller = enter(Permission.READ, f"reading {path.id[:80]}", project=query.project)
    before = lookup.number_in(query.cursor)
    with caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, path.id)
        page = catalog.history(tx, workflow.id, state=query.state, before=before, limit=query.limit)
    url = caller.services.config.public_url
    following = lookup.cursor_to(page.next) if page.next is not None else None
    found = VersionPage.model_construct(
        versions=[Version.of(row, url) for row in page.rows], next_cursor=following
    )
    link = next_link(request, caller, f"/workflows/{workflow.slug}/versions", page.next)
    return answer(found, link=link)


@blueprint.get("/workflows/<id>/versions/<version>", responses=says(200, FullVersion, "ETag"))
def read_version(path: inputs.VersionPath, query: inputs.Query) -> Response:
    """One version, with its definition as JSON."""
    caller = enter(Permission.READ, f"reading {path.id[:80]}", project=query.project)
    row = _full(caller, path.id, path.version)
    made = FullVersion.of(row, caller.services.config.public_url, definition=row.definition)
    return answer(made, etag=tag_of(made))


_DEFINITION = {
    200: {
        "description": "The stored bytes, by the file's name; or as JSON, if the header Accept prefers that.",
        "content": {
            _YAML: {"schema": {"type": "string"}},
            JSON: {"schema": {"type": "object"}},
        },
        "headers": {
            name: {"schema": {"type": "string"}} for name in ("ETag", "Cache-Control", "Content-Disposition")
        },
    },
    304: {"description": "Not Modified"},
    **refusals(409),
}


@blueprint.get("/workflows/<id>/versions/<version>/definition", responses=_DEFINITION)
def read_definition(path: inputs.VersionPath, query: inputs.Query) -> Response:
    """The definition of a version, byte for byte as it was saved."""
    caller = enter(Permission.READ, f"reading {path.id[:80]}", project=query.project)
    wanted = lookup.which(path.version)
    with caller.reading() as tx:
        project = caller.project(tx)
        workflow = lookup.id_of(caller, path.id)
        row = catalog.version(tx, workflow, wanted)
        if row is None or row.project_id != caller.project_id:
            raise lookup.no_version(tx, caller, path.id, wanted)
    stored = JSON if row.file_name.endswith(".json") else _YAML
    as_json = stored != JSON and row.digest is not None and _prefers_json()
    headers = _headers(row, wanted, as_json=as_json)
    if not_modified(request, headers["ETag"]):
        return Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    if as_json:
        return _as_json(caller, row, headers)
    with caller.opened(project) as store:
        return Response(store.objects.blob(row.blob_sha.encode()), headers=headers, content_type=stored)
