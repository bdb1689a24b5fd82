"""/projects: the projects of the caller, and their members; /tokens: access tokens of a project."""

from __future__ import annotations

from datetime import datetime
from http import HTTPStatus
from typing import Annotated
from uuid import UUID

from flask import Response, request
from pydantic import ConfigDict, Field, StringConstraints

from gitstore import schemas
from gitstore.definition.quoting import clip
from gitstore.definition.schema import LARGEST
from gitstore.model import Permission, Rules
from gitstore.names import FILE_NAME, SLUG_PATTERN
from service import lookup
from service.access import Principal, Role, authorize
from service.actions import projects as actions
from service.api.http import (
    Answer,
    answer,
    answer_bytes,
    answer_page,
    check_json,
    expected,
    no_content,
    not_modified,
    read_json,
    unchanged,
    url,
)
from service.api.openapi import LONGEST_PAGE, ObjectPath, Parameters, Query, declares, new_blueprint
from service.api.versions import NOT_MODIFIED
from service.caller import Caller
from service.context import enter, enter_user, origin, read_body, services
from service.inputs import Body, CreateToken, ProjectName, SetMember
from sync import catalog, projects, tokens

blueprint = new_blueprint("projects", "Tenants, each with a repository of its own, and their members.")

_USER = "the user's id, as `GET /projects` returns it: for the first issuer, the claim `sub` of the JWT"
_ACTIVATE_INVALID = "whether versions of sources with an invalid definition become current"
_SLUG = f"^{SLUG_PATTERN}$"
SCHEMA_JSON = "application/schema+json"
FileName = Annotated[str, StringConstraints(pattern=FILE_NAME)]
Slug = Annotated[str, Field(json_schema_extra={"pattern": _SLUG})]


class ProjectPath(Parameters):
    id: str = Field(description="the project's UUID, or its slug")


class MemberPath(ProjectPath):
    user: str = Field(description=_USER, json_schema_extra={"format": "uuid"})


class ListQuery(Parameters):
    limit: int = Field(LONGEST_PAGE, ge=1, le=LONGEST_PAGE)
    cursor: str | None = Field(None, description="`next_cursor` of the previous page")


class DeleteQuery(Parameters):
    confirm: str | None = Field(None, description="the project's slug, which confirms the deletion")


class Project(Answer):
    id: UUID
    slug: str
    name: str
    owner: UUID | None = Field(description="the user who owns it; further owners are members")
    rules: Rules = Field(description="of drafts and new versions")
    file_name: str | None = Field(description="of new definitions; null for workflow.yaml")
    activate_invalid: bool = Field(description=_ACTIVATE_INVALID)
    role: Role = Field(description="of the caller")
    created_at: datetime
    archived_at: datetime | None = Field(description="the time since which it is read-only")
    git_url: str

    @classmethod
    def of(cls, row: catalog.Project, role: str) -> Project:
        git_url = f"{services().config.public_url}/{row.slug}.git"
        return cls.from_row(row, rules=Rules(row.rules), role=Role(role), git_url=git_url)


class ProjectList(Answer):
    user: UUID | None = Field(description="the caller's id; null for an access token")
    projects: list[Project]
    next_cursor: str | None


class CreateProject(Body):
    """Without `slug`, it is made from the name and six random characters, so that it is free."""

    name: ProjectName
    slug: Slug | None = None
    rules: Rules | None = Field(Rules.MESHHOOK, strict=False)


class ChangeProject(Body):
    """Absent fields are unchanged. The previous owner keeps the role as a member."""

    name: ProjectName | None = None
    slug: Slug | None = Field(None, description="also changes the address for git, without a redirect")
    rules: Rules | None = Field(
        None, strict=False, description="drafts are checked again, versions stay as they are"
    )
    file_name: FileName | None = Field(
        None,
        description="of new definitions, besides `workflow.yaml`, `.yml` and `.json`; earlier names are "
        "still recognised",
        examples=["flows.json"],
    )
    activate_invalid: bool | None = Field(None, description=_ACTIVATE_INVALID)
    archived: bool | None = Field(None, description="whether it is read-only")
    owner: str | None = Field(None, description=_USER, json_schema_extra={"format": "uuid"})


class Schema(Answer):
    """A JSON Schema (2020-12), as it was sent."""

    model_config = ConfigDict(extra="allow")


class SetSchema(Body):
    """A JSON Schema (2020-12)."""

    model_config = ConfigDict(extra="allow")


class Member(Answer):
    user: UUID
    role: Role
    created_at: datetime

    @classmethod
    def of(cls, row: projects.Member) -> Member:
        return cls.from_row(row, user=row.user_id, role=Role(row.role))


class MemberList(Answer):
    members: list[Member]


@blueprint.get("/projects", **declares(200, ProjectList, "Link"))
def list_projects(query: ListQuery) -> Response:
    """List the projects in which the caller has a role, by slug. An access token has exactly one."""
    identity = enter_user()
    role = identity.role.value if isinstance(identity, Principal) else None
    with services().database.reading(identity.claims) as tx:
        page = projects.visible(tx, after=lookup.slug_in(query.cursor), limit=query.limit)
    listed = [Project.of(row, role or row.role or Role.VIEWER) for row in page.rows]
    user = identity.id if identity.kind == "user" else None
    return answer_page(services(), ProjectList, "/projects", page.next, user=user, projects=listed)


@blueprint.post("/projects", **declares(201, Project, "Location", errors=(409, 422), body=CreateProject))
def create_project() -> Response:
    """Create a project that the caller owns, if GITSTORE_USER_PROJECTS permits it.

    For users, not for access tokens. A refusal of a taken slug does not name its project or owner.
    """
    identity = enter_user()
    body = read_json(services(), CreateProject)
    row = actions.create(services(), identity, origin(identity, "http"), **body.given())
    location = f"{services().config.public_url}/projects/{row.id}"
    return answer(Project.of(row, Role.OWNER), HTTPStatus.CREATED, location=location)


@blueprint.get("/projects/<id>", **declares(200, Project))
def read_project(path: ProjectPath) -> Response:
    """Read a project."""
    caller = _enter(path, Permission.READ, "reading")
    return answer(Project.of(caller.project, caller.principal.role))


@blueprint.patch("/projects/<id>", **declares(200, Project, errors=(409, 422), body=ChangeProject))
def change_project(path: ProjectPath) -> Response:
    """Change a project: rename, archive or transfer it, or change its rules."""
    caller = _enter(path, Permission.OWN, "changing")
    row = actions.change(caller, **read_json(caller, ChangeProject).given())
    return answer(Project.of(row, caller.principal.role))


@blueprint.delete("/projects/<id>", **declares(204, errors=(409,)))
def delete_project(path: ProjectPath, query: DeleteQuery) -> Response:
    """Delete an archived project and everything in it. The operator keeps its repository."""
    caller = _enter(path, Permission.OWN, "deleting")
    actions.delete(caller, query.confirm)
    return no_content()


@blueprint.get("/projects/<id>/members", **declares(200, MemberList))
def list_members(path: ProjectPath) -> Response:
    """List the members of a project, including its owner, oldest first. For owners."""
    caller = _enter(path, Permission.OWN, "listing the members of")
    with caller.reading() as tx:
        rows = projects.members(tx, caller.project_id)
    return answer(MemberList.model_construct(members=[Member.of(row) for row in rows]))


@blueprint.get("/projects/<id>/members/<user>", **declares(200, Member))
def read_member(path: MemberPath) -> Response:
    """Read a member's role. For owners, and for the member."""
    caller = _enter_for(path, "reading the members of")
    return answer(Member.of(actions.member(caller, path.user)))


@blueprint.put("/projects/<id>/members/<user>", **declares(200, Member, errors=(409,), body=SetMember))
def set_member(path: MemberPath) -> Response:
    """Set the role of a user. A project keeps at least one owner. For owners."""
    caller = _enter(path, Permission.OWN, "changing the members of")
    return answer(Member.of(actions.set_member(caller, path.user, read_json(caller, SetMember).role)))


@blueprint.delete("/projects/<id>/members/<user>", **declares(204, errors=(409,)))
def remove_member(path: MemberPath) -> Response:
    """Remove a member. A project keeps at least one owner. For owners; every member may leave."""
    caller = _enter_for(path, "changing the members of")
    actions.remove_member(caller, path.user)
    return no_content()


@blueprint.get("/projects/<id>/schema", **declares(200, Schema, "ETag", errors=(409,), also=NOT_MODIFIED))
def read_schema(path: ProjectPath) -> Response:
    """Read the JSON Schema of a project with the rules `schema`, as it was sent."""
    caller = _enter(path, Permission.READ, "reading the schema of")
    with caller.opened() as repository:
        schema = schemas.current(repository)
    etag = f'"{schema.commit}"'
    if not_modified(request, etag):
        return unchanged(etag=etag)
    return answer_bytes(schema.text or b"", SCHEMA_JSON, etag=etag)


@blueprint.put(
    "/projects/<id>/schema",
    **declares(204, None, "ETag", errors=(409, 412, 422, 428), body=SetSchema, match=False),
)
def set_schema(path: ProjectPath) -> Response:
    """Set the JSON Schema (2020-12) that judges definitions under the rules `schema`. For owners.

    Drafts are checked again, versions stay as they are. Nothing that a `$ref` names is fetched.
    """
    caller = _enter(path, Permission.OWN, "changing the schema of")
    if request.mimetype != SCHEMA_JSON:
        check_json(SCHEMA_JSON)
    seen = expected(request)
    if seen is None and request.headers.get("If-None-Match", "").strip() == "*":
        seen = {schemas.NONE}
    commit = actions.change_schema(caller, read_body(request, LARGEST), seen)
    return no_content(etag=f'"{commit}"')


@blueprint.delete("/projects/<id>/schema", **declares(204, errors=(409, 412, 428), match=True))
def remove_schema(path: ProjectPath) -> Response:
    """Remove the schema: every definition that the rules `any` accept is accepted again. For owners."""
    caller = _enter(path, Permission.OWN, "changing the schema of")
    actions.change_schema(caller, None, expected(request))
    return no_content()


def _enter(path: ProjectPath, permission: Permission, action: str) -> Caller:
    return enter(permission, f"{action} {clip(path.id)}", project=path.id)


def _enter_for(path: MemberPath, action: str) -> Caller:
    """Enter as an owner, or as the user whom the path names."""
    caller = _enter(path, Permission.READ, action)
    if caller.principal.kind != "user" or lookup.uuid_of(path.user) != caller.principal.id:
        authorize(caller.principal, Permission.OWN, f"{action} {clip(path.id)}")
    return caller


# Access tokens

access_tokens = new_blueprint("tokens", "Access tokens, each bound to the project and a role.")


class Token(Answer):
    id: UUID
    name: str
    role: Role
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None


class NewToken(Token):
    token: str = Field(description="the secret: shown only once")


class TokenList(Answer):
    tokens: list[Token]


@access_tokens.get("/tokens", **declares(200, TokenList))
def list_tokens(query: Query) -> Response:
    """List the tokens of the project, without their secrets, oldest first."""
    caller = enter(Permission.OWN, "listing tokens", project=query.project)
    with caller.reading() as tx:
        rows = tokens.tokens(tx, caller.project_id)
    listed = [Token.from_row(row, role=Role(row.role)) for row in rows]
    return answer(TokenList.model_construct(tokens=listed))


@access_tokens.post("/tokens", **declares(201, NewToken, "Location", body=CreateToken))
def create_token(query: Query) -> Response:
    """Create a token. Only this answer contains its secret."""
    caller = enter(Permission.OWN, "creating a token", project=query.project)
    row, secret = actions.create_token(caller, **read_json(caller, CreateToken).given())
    token = NewToken.from_row(row, role=Role(row.role), token=secret)
    location = url(caller, f"/tokens/{row.id}")
    return answer(token, HTTPStatus.CREATED, location=location, cache_control="no-store")


@access_tokens.delete("/tokens/<id>", **declares(204))
def revoke_token(path: ObjectPath, query: Query) -> Response:
    """Revoke a token. It stops working immediately."""
    caller = enter(Permission.OWN, "revoking a token", project=query.project)
    actions.revoke_token(caller, path.id)
    return no_content()
