"""/workflows/{id}/versions: the history; read and publish a version."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Annotated, Any, Final, Literal, Self
from uuid import UUID

from flask import Response, request
from pydantic import AfterValidator, Field, WithJsonSchema
from pydantic_core import to_json

from gitstore.definition.document import describe, is_bytes_only
from gitstore.definition.quoting import clip
from gitstore.environments import LONGEST_KEY
from gitstore.errors import Code, GitstoreError, InvalidDefinitionError, NoJsonError
from gitstore.git.commits import object_of
from gitstore.model import Permission, Problems
from gitstore.names import HIGHEST_NUMBER
from service import lookup
from service.api import http
from service.api.openapi import (
    ENVIRONMENT,
    ID,
    NUMBER,
    YAML,
    PageQuery,
    Query,
    Responses,
    WorkflowPath,
    declares,
    new_blueprint,
    problems,
)
from service.caller import Backend, Caller
from service.context import enter
from sync import catalog
from sync.catalog import InEnvironment

blueprint = new_blueprint("versions", "Published versions of a workflow, which never change.")

NOT_MODIFIED: Final[Responses] = {304: {"description": "Not Modified"}}
_DEFINITION: Final[Responses] = {
    200: {
        "description": "The stored bytes, with the media type of the file; or JSON, if Accept prefers it.",
        "content": {YAML[0]: {"schema": {"type": "object"}}, http.JSON: {"schema": {"type": "object"}}},
        "headers": {
            name: {"schema": {"type": "string"}} for name in ("ETag", "Cache-Control", "Vary", "Deprecation")
        },
    },
    **NOT_MODIFIED,
    **problems(406, 409, 410, 422),
}


def _check_version(value: Any) -> Any:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | str)):
        raise ValueError("must be a number, such as 3, or a string, such as v3 or current")
    return value


_VERSION: Final = (
    {"type": "integer", "minimum": 1, "maximum": HIGHEST_NUMBER},
    {"type": "string", "pattern": f"^({NUMBER}|{ID}|{ENVIRONMENT})$"},
)
_FORMS: Final = "`3`, `v3`, an id, `current`, `latest` or an environment"
PublishedVersion = Annotated[
    Any, AfterValidator(_check_version), WithJsonSchema({"anyOf": [*_VERSION], "description": _FORMS})
]
PublishedVersionOrNull = Annotated[
    Any,
    AfterValidator(_check_version),
    WithJsonSchema({"anyOf": [*_VERSION, {"type": "null"}], "description": _FORMS}),
]


class VersionPath(WorkflowPath):
    version: str = Field(
        description="`3`, `v3`, an id, `draft`, `current`, `latest` or an environment, such as `prod`",
        json_schema_extra={"pattern": f"^({NUMBER}|{ID}|{ENVIRONMENT})$"},
    )


class ReadQuery(Query):
    key: str | None = Field(
        None,
        description="the caller of an environment in which two versions have weights",
        max_length=LONGEST_KEY,
    )


class HistoryQuery(PageQuery):
    state: Literal["draft", "published", "lost"] | None = None


class Version(http.Answer):
    """A published version, or the open draft, which has the number of the next version."""

    id: UUID
    workflow_id: UUID
    workflow: str = Field(description="the workflow's slug")
    version_number: int
    state: Literal["draft", "published", "lost"] = Field(
        description="`lost`: published, but missing from the repository; its number is not used again"
    )
    is_current: bool = Field(description="whether it is the version to run")
    yanked: bool = Field(description="whether it was withdrawn: what pins it still reads it")
    title: str | None = Field(description="given to it after its publication, as are the notes")
    notes: str | None
    valid: bool
    node_count: int | None = Field(description="null if the definition has no list of nodes")
    edge_count: int | None = Field(description="null if the definition has no list of edges")
    commit: str
    digest: str | None = Field(
        description="`sha256:` of its meaning, or `sha256-bytes:` of its bytes if JSON has no form for it; "
        "null if it does not parse"
    )
    message: str
    author: http.Person
    published_by: str | None
    external_id: UUID | None = Field(description="its id in the system that it was imported from")
    created_at: datetime
    published_at: datetime | None
    url: str

    @classmethod
    def of(cls, row: catalog.Version, caller: Caller | Backend, **values: Any) -> Self:
        author = http.Person.model_construct(name=row.author_name, email=row.author_email)
        return cls.model_construct(**cls.fields_of(row, **cls.names(row, caller), author=author, **values))

    @classmethod
    def fields(cls, row: catalog.Version, caller: Caller | Backend, **values: Any) -> dict[str, Any]:
        """Return the fields of `of`, which take less time than a model."""
        author = {"name": row.author_name, "email": row.author_email}
        return cls.fields_of(row, **cls.names(row, caller), author=author, **values)

    @staticmethod
    def names(row: catalog.Version, caller: Caller | Backend) -> dict[str, Any]:
        """Return the fields that have another name, or another form, than the columns of `row`."""
        shown = "draft" if row.state == "draft" else row.version_number
        return {
            "workflow": row.slug,
            "commit": row.commit_sha,
            "url": http.url(caller, f"/ui/workflows/{row.slug}/versions/{shown}"),
        }


class JudgedVersion(http.Judged, Version):
    """A version and, if it is invalid or has no JSON, its problems."""


class FullVersion(JudgedVersion):
    """A version with its definition and, if it is invalid or has no JSON, its problems."""

    definition: dict[str, Any] | list[Any] | None = Field(description="null if JSON has no form for it")


class VersionPage(http.Answer):
    versions: list[Version]
    next_cursor: str | None


@blueprint.get("/workflows/<id>/versions", **declares(200, VersionPage, "Link"))
def list_versions(path: WorkflowPath, query: HistoryQuery) -> Response:
    """List the open draft, then the versions, newest first, without their definitions."""
    caller = enter(Permission.READ, f"reading {clip(path.id)}", project=query.project)
    before = lookup.number_in(query.cursor)
    wanted: Any = {"state": query.state, "before": before, "limit": query.limit}
    page = catalog.history(caller.reading_once(), lookup.id_of(caller, path.id), **wanted)
    if not page.rows or page.rows[0].project_id != caller.project_id:
        # The page is empty, the workflow does not exist, or the path names it by the id of a version.
        with caller.reading() as tx:
            page = catalog.history(tx, lookup.workflow(tx, caller, path.id).id, **wanted)
    if page.rows:
        lookup.check_name(path.id, page.rows[0].slug)
    body, link = page_of(caller, page.rows, page.next, request.args.to_dict())
    return http.answer_bytes(body, http.JSON, link=link)


def page_of(
    caller: Caller | Backend,
    rows: Sequence[catalog.Version],
    place: str | int | None,
    query: Mapping[str, str],
) -> tuple[bytes, str | None]:
    """Return a page of a history as JSON, and its Link header; `query` is that of the request."""
    path = f"/workflows/{rows[0].slug}/versions" if rows else ""  # an empty page has no next
    listed = [Version.fields(row, caller) for row in rows]
    return http.page_of(caller, VersionPage, path, place, query, versions=listed)


@blueprint.get(
    "/workflows/<id>/versions/<version>",
    **declares(200, FullVersion, "ETag", "Deprecation", errors=(409, 410, 422), also=NOT_MODIFIED),
)
def read_version(path: VersionPath, query: ReadQuery) -> Response:
    """Read a version, with its definition as JSON. An imported one that does not parse has no JSON: 422."""
    caller = enter(Permission.READ, f"reading {clip(path.id)}", project=query.project)
    row = _find(caller, path, query, as_text=True)
    if row.state == "lost":
        _stored(caller, row)  # its JSON is served if its bytes exist
    elif row.text is None and not is_bytes_only(row.digest):
        raise _no_json(caller, row)
    headers: dict[str, Any] = {"etag": etag_of(row), **deprecation(row)}
    # A draft's tag is its commit alone, for If-Match, and its number may change independently.
    if row.state != "draft" and http.not_modified(request, headers["etag"]):
        return http.unchanged(**headers)
    unjudged = row.state == "lost" or (row.valid and not is_bytes_only(row.digest))
    problems = Problems() if unjudged else _problems(caller, row)
    return http.answer_bytes(json_of(row, caller, problems), http.JSON, **headers)


@blueprint.get("/workflows/<id>/versions/<version>/definition", responses=_DEFINITION)
def read_definition(path: VersionPath, query: ReadQuery) -> Response:
    """Read the definition of a version, byte for byte as it was saved; JSON without a byte order mark.

    If Accept prefers JSON, YAML that JSON has no form for is answered with 406, and an imported definition
    that does not parse with 422.
    """
    caller = enter(Permission.READ, f"reading {clip(path.id)}", project=query.project)
    as_text = _prefers_json()
    row = _find(caller, path, query, as_text=as_text)
    stored = http.JSON if row.file_name.endswith(".json") else YAML[0]
    is_text = is_bytes_only(row.digest) and stored == http.JSON  # JSON text, whose integers are too large
    if as_text and row.text is None and row.state != "lost" and not is_text:
        raise _no_json(caller, row)
    text = row.text if stored != http.JSON else None
    # A draft's tag is its commit, for If-Match; a version's is its blob's alone.
    tag = row.commit_sha if row.state == "draft" else row.blob_sha
    headers: dict[str, Any] = {
        "etag": f'"{tag}{http.JSON_TAG if text is not None else ""}"',
        "cache_control": http.IMMUTABLE if isinstance(lookup.which(path.version), int) else http.CHANGING,
        "vary": "Accept",
        **deprecation(row),
    }
    if http.not_modified(request, headers["etag"]):
        return http.unchanged(**headers)
    raw = _stored(caller, row) if text is None or row.state == "lost" else b""
    if text is None:
        if stored == http.JSON:
            raw = raw.removeprefix(codecs.BOM_UTF8)  # RFC 8259, section 8.1
        return http.answer_bytes(raw, stored, **headers)
    return http.answer_bytes(text + "\n", http.JSON, **headers)


def json_of(row: catalog.StoredVersion, caller: Caller | Backend, problems: Problems) -> bytes:
    """Return a FullVersion as JSON, without a parse of its definition."""
    judged = to_json(JudgedVersion.fields(row, caller, **http.problems_of(problems)))
    return b'%b,"definition":%b}\n' % (judged[:-1], (row.text or "null").encode())


def deprecation(row: catalog.Version) -> dict[str, str]:
    """Return the header of a version that is yanked: since when (RFC 9745)."""
    return {"deprecation": f"@{int(row.yanked_at.timestamp())}"} if row.yanked_at is not None else {}


def _find(caller: Caller, path: VersionPath, query: ReadQuery, *, as_text: bool) -> catalog.StoredVersion:
    wanted, workflow = lookup.which(path.version, query.key), lookup.id_of(caller, path.id)
    row = catalog.stored_version(caller.reading_once(), workflow, wanted, as_text=as_text)
    if row is None or row.project_id != caller.project_id:
        # Either there is no such version, or the path names the workflow by the id of a version.
        with caller.reading() as tx:
            named = lookup.workflow(tx, caller, path.id)
            lookup.check_running(named.slug, wanted, archived=named.archived)
            other = named.id != workflow
            row = catalog.stored_version(tx, named.id, wanted, as_text=as_text) if other else None
        if row is None and isinstance(wanted, InEnvironment):
            raise lookup.not_in_environment(caller, named, wanted)
        if row is None:
            raise lookup.no_version(named.slug, wanted)
    lookup.check_name(path.id, row.slug)
    lookup.check_running(row.slug, wanted, archived=row.archived)
    return row


def _stored(caller: Caller, row: catalog.StoredVersion) -> bytes:
    """Return the bytes of a definition; raises `version_lost` if no copy exists.

    Postgres has those of versions; Git alone has those of drafts and of very large files.
    """
    if row.stored is not None:
        kept = object_of(row.blob_sha, "blob", row.stored)  # None if the stored bytes are damaged
    else:
        kept = caller.stored_object(row.blob_sha.encode()) if row.state != "draft" else None
    if kept is not None:
        return kept.as_raw_string()
    with caller.opened(shown=True) as repository, lookup.reading_definition(row):
        return repository.objects.blob(row.blob_sha.encode())


def _no_json(caller: Caller, row: catalog.Version) -> GitstoreError:
    """Return the error for a version without a form in JSON; it has the version's facts."""
    problems, facts = _problems(caller, row), Version.of(row, caller).model_dump(mode="json")
    if not is_bytes_only(row.digest):
        message = (
            f"v{row.version_number} of {row.slug} does not parse and has no JSON: "
            "its bytes are at …/definition"
        )
        return InvalidDefinitionError(Code.DEFINITION_UNPARSABLE, message, problems=problems, version=facts)
    reason = f" ({describe(problems[0])})" if problems else ""
    message = f"v{row.version_number} of {row.slug} has no form in JSON{reason}: ask for its bytes, as YAML"
    return NoJsonError(message, problems=problems)


def _problems(caller: Caller, row: catalog.Version) -> Problems:
    """Return the problems of a definition, with lines and columns, which are read from Git."""
    lookup.admit(caller, row.slug, row.version_number)
    with caller.opened() as repository:
        return repository.snapshot(row.slug, row.commit_sha).problems


def _prefers_json() -> bool:
    accepted = request.accept_mimetypes
    return bool(accepted) and accepted.best_match([*YAML[:3], http.JSON], YAML[0]) == http.JSON


def etag_of(row: catalog.Version) -> str:
    """Return the entity tag of a version's JSON: for a draft its commit, which If-Match accepts.

    Otherwise the number is included: a commit may be published twice, and `latest` and `current` may name
    either; and what may change after publication.
    """
    if row.state == "draft":
        return f'"{row.commit_sha}"'
    changing = (row.slug, row.state, row.valid, row.digest, row.message, row.published_by, row.external_id)
    state = sha256(repr((*changing, row.yanked_at, row.title, row.notes)).encode()).hexdigest()[:16]
    return f'"{row.commit_sha}-{state}-v{row.version_number}{"-current" if row.is_current else ""}"'
