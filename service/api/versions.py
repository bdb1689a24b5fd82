"""/workflows/{id}/versions: the history, and reading and publishing of a version."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Final

from flask import Response, request

from gitstore.definition.quoting import clip
from gitstore.model import Permission
from service import lookup
from service.api import inputs
from service.api.answers import CHANGING, IMMUTABLE, answer, next_link, tag_of, unchanged, workflow_url
from service.api.bodies import JSON, author_of, read_json
from service.api.conditions import JSON_TAG, expected, not_modified
from service.api.openapi import Responses, new_blueprint, refusals, says, takes
from service.api.schemas import FullVersion, Version, VersionPage
from service.context import Caller, enter
from service.logs import Event
from sync import catalog, derive
from sync.catalog import Which

blueprint = new_blueprint("versions", "What was published of a workflow, which never changes.")

_YAML: Final = "application/yaml"  # RFC 9512
_NOT_MODIFIED: Final[Responses] = {304: {"description": "Not Modified"}}
_DEFINITION: Final = {
    200: {
        "description": "The stored bytes, typed by the file's name; or JSON, if Accept prefers it.",
        "content": {_YAML: {"schema": {"type": "object"}}, JSON: {"schema": {"type": "object"}}},
        "headers": {name: {"schema": {"type": "string"}} for name in ("ETag", "Cache-Control", "Vary")},
    },
    **_NOT_MODIFIED,
    **refusals(409, 410),
}


@blueprint.get("/workflows/<id>/versions", responses=says(200, VersionPage, "Link"))
def list_versions(path: inputs.WorkflowPath, query: inputs.HistoryQuery) -> Response:
    """The history: an open draft, then the newest version first. Metadata only."""
    caller = enter(Permission.READ, f"reading {clip(path.id)}", project=query.project)
    before = lookup.number_in(query.cursor)
    with caller.reading() as tx:
        workflow = lookup.workflow(tx, caller, path.id)
        page = catalog.history(tx, workflow.id, state=query.state, before=before, limit=query.limit)
    url = caller.services.config.public_url
    following = lookup.cursor_to(page.next) if page.next is not None else None
    rows = [Version.of(row, url) for row in page.rows]
    link = next_link(request, caller, f"/workflows/{workflow.slug}/versions", page.next)
    return answer(VersionPage.model_construct(versions=rows, next_cursor=following), link=link)


@blueprint.get(
    "/workflows/<id>/versions/<version>",
    responses={**says(200, FullVersion, "ETag", refuses=(409, 410)), **_NOT_MODIFIED},
)
def read_version(path: inputs.VersionPath, query: inputs.Query) -> Response:
    """One version, with its definition as JSON."""
    caller = enter(Permission.READ, f"reading {clip(path.id)}", project=query.project)
    wanted, workflow = lookup.which(path.version), lookup.id_of(caller, path.id)
    with caller.reading() as tx:
        row = catalog.full_version(tx, workflow, wanted)
        if row is None or row.project_id != caller.project_id:
            raise lookup.no_version(tx, caller, path.id, wanted)
    if row.state == "lost":
        _stored(caller, row)  # its JSON is served if its bytes exist
    made = FullVersion.of(row, caller.services.config.public_url, definition=row.definition)
    # A draft's tag is its commit alone, for If-Match, and its number may change independently.
    if made.state != "draft" and not_modified(request, tag_of(made)):
        return unchanged(tag_of(made))
    return answer(made, etag=tag_of(made))


@blueprint.get("/workflows/<id>/versions/<version>/definition", responses=_DEFINITION)
def read_definition(path: inputs.VersionPath, query: inputs.Query) -> Response:
    """The definition of a version, byte for byte as it was saved."""
    caller = enter(Permission.READ, f"reading {clip(path.id)}", project=query.project)
    wanted, workflow = lookup.which(path.version), lookup.id_of(caller, path.id)
    find = catalog.full_version if _prefers_json() else catalog.version
    with caller.reading() as tx:
        row = find(tx, workflow, wanted)
        if row is None or row.project_id != caller.project_id:
            raise lookup.no_version(tx, caller, path.id, wanted)
    stored = JSON if row.file_name.endswith(".json") else _YAML
    # A definition that does not parse is served as its bytes only.
    value = row.definition if isinstance(row, catalog.FullVersion) and stored != JSON else None
    headers = _headers(row, wanted, as_json=value is not None)
    if not_modified(request, headers["ETag"]):
        return Response(status=HTTPStatus.NOT_MODIFIED, headers=headers)
    if row.state == "lost":
        _stored(caller, row)
    if value is not None:
        return Response(json.dumps(value, ensure_ascii=False) + "\n", headers=headers, content_type=JSON)
    return Response(_stored(caller, row), headers=headers, content_type=stored)


def _stored(caller: Caller, row: catalog.Version) -> bytes:
    """Return the bytes of a definition; raises `version_lost` if no copy exists."""
    with caller.opened() as store, lookup.reading_definition(row):
        return store.objects.blob(row.blob_sha.encode())


def _prefers_json() -> bool:
    accepted = request.accept_mimetypes
    return (
        bool(accepted)
        and accepted.best_match([_YAML, "text/yaml", "application/x-yaml", JSON], _YAML) == JSON
    )


def _headers(row: catalog.Version, wanted: Which, *, as_json: bool) -> dict[str, str]:
    """Return the headers. A draft's tag is its commit, for If-Match; a version's is its blob's alone."""
    tag = row.commit_sha if row.state == "draft" else row.blob_sha
    return {
        "ETag": f'"{tag}{JSON_TAG if as_json else ""}"',
        "Cache-Control": IMMUTABLE if isinstance(wanted, int) else CHANGING,
        "Vary": "Accept",
    }


@blueprint.post(
    "/workflows/<id>/versions/publish",
    responses={
        **says(200, Version, "ETag"),
        **says(201, Version, "ETag", "Location", refuses=(409, 412, 413, 415, 422)),
    },
    openapi_extensions=takes(inputs.Publish, match=False),
)
def publish(path: inputs.WorkflowPath, query: inputs.Query) -> Response:
    """Publish the draft as the next version. 200, if the latest version holds the same already."""
    caller = enter(Permission.PUBLISH, f"publishing {clip(path.id)}", project=query.project)
    body = read_json(request, inputs.Publish, caller.services.config.limits)
    slug = lookup.slug_of(caller, path.id)
    count = caller.services.metrics.published
    with caller.writing() as store, caller.acting(Event.PUBLISHED, slug, count) as facts:
        lookup.existing(store, slug)
        lookup.admit(caller, slug, store.state(slug).latest + 1)
        published = store.publish(
            slug,
            caller.who(author_of(body)),
            message=body.message or "",
            activate=body.activate is not False,
            expected=expected(request, lookup.draft_of(store, slug)),
        )
        facts.update(version=published.number, new=published.new)
        row = derive.row_of(store, published.version)
    shown = catalog.Version.of(row, slug, is_current=published.is_current)
    made = Version.of(shown, caller.services.config.public_url)
    location = f"{workflow_url(caller, slug)}/versions/{published.number}" if published.new else None
    status = HTTPStatus.CREATED if published.new else HTTPStatus.OK
    return answer(made, status, etag=tag_of(made), location=location)
