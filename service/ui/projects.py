"""Pages of a project: settings, members, access tokens and schema; and of the user's projects, to switch.

A new token is shown once.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any, Final

from flask import Response, request

from gitstore import schemas
from gitstore.definition.document import FILE_NAMES
from gitstore.definition.quoting import clip
from gitstore.definition.schema import LARGEST
from gitstore.errors import (
    Code,
    ForbiddenError,
    GitstoreError,
    IntegrityError,
    InvalidDefinitionError,
    NotFoundError,
)
from gitstore.model import Permission, Problems, Rules
from gitstore.repository import Repository
from gitstore.schemas import SchemaChange, Trial
from gitstore.system import now
from service import lookup
from service.access import Identity, Role
from service.actions import projects as actions
from service.context import origin, services
from service.inputs import CreateToken, NewProject, ProjectSettings, SetMember, validated
from service.ui import sign_in
from service.ui.rendering import blueprint
from service.ui.texts import highlighted
from service.ui.visits import Visit, enter, field, go, shown_once, upload
from sync import projects, tokens


@blueprint.get("/ui/projects")
def list_projects() -> Response:
    return _projects(enter(Permission.READ, "listing projects"))


@blueprint.post("/ui/new-project")
def create_project() -> Response:
    """Create a project that the user owns, and go on in it."""
    visit, name = enter(Permission.READ, "creating a project"), field("name").strip()
    if (user := visit.session.user) is None:
        raise ForbiddenError("an access token has one project: only users create others")
    identity = Identity.of(user)
    try:
        given = validated(NewProject, {"name": name}).name
        project = actions.create(services(), identity, origin(identity, "page"), given)
    except GitstoreError as error:
        return _projects(visit, error, name)
    return sign_in.begin(services(), replace(visit.session, project=str(project.id)), "")


def _projects(visit: Visit, error: GitstoreError | None = None, name: str = "") -> Response:
    with visit.caller.reading() as tx:
        page = projects.visible(tx, after=lookup.slug_in(request.args.get("cursor")))
    following = lookup.cursor_to(page.next) if page.next is not None else None
    creates = visit.session.user is not None and services().config.user_projects > 0
    return visit.page(
        "projects.html",
        error,
        rows=page.rows,
        own=visit.principal.project.id,
        following=following,
        creates=creates,
        name=name,
    )


@blueprint.post("/ui/projects")
def switch_project() -> Response:
    """Go on in another project of the user. A token has one project alone."""
    visit = enter(Permission.READ, "switching projects")
    user = visit.session.user
    if user is None:
        raise ForbiddenError("an access token has one project: sign in with a token of the other")
    named = field("project")
    found = services().auth.in_project(Identity.of(user), named or "-")
    return sign_in.begin(services(), replace(visit.session, project=str(found.project.id)), "")


@blueprint.get("/ui/settings")
def show_project() -> Response:
    return _project(enter(Permission.READ, "reading the project's settings"))


@blueprint.post("/ui/settings")
def change_project() -> Response:
    """Change the project's name and its rules; new rules apply to drafts and later versions."""
    visit = enter(Permission.OWN, "changing the project")
    given = {name: field(name).strip() for name in ("name", "rules")}
    try:
        body = validated(ProjectSettings, given)
        rules = body.rules if body.rules is not visit.caller.rules else None
        actions.change(visit.caller, name=body.name, rules=rules)
    except GitstoreError as error:
        return _project(visit, error, given)
    return go("show_project", notice="changed")


def _project(
    visit: Visit, error: GitstoreError | None = None, given: dict[str, str] | None = None
) -> Response:
    project = visit.principal.project
    git_url = f"{visit.caller.services.config.public_url}/{project.slug}.git"
    values = given or {"name": project.name, "rules": project.rules}
    return visit.page("project.html", error, project=project, given=values, git_url=git_url)


@blueprint.get("/ui/members")
def list_members() -> Response:
    return _members(enter(Permission.OWN, "listing members"))


@blueprint.post("/ui/members")
def set_member() -> Response:
    """Add a member, or change the role of one."""
    visit = enter(Permission.OWN, "changing members")
    given = {"user": field("user").strip(), "role": field("role")}
    try:
        role = validated(SetMember, {"role": given["role"]}).role
        actions.set_member(visit.caller, given["user"], role)
    except GitstoreError as error:
        return _members(visit, error, given)
    return go("list_members", notice="member-set")


@blueprint.get("/ui/members/<user>/remove")
def ask_remove_member(user: str) -> Response:
    visit = enter(Permission.OWN, "removing a member")
    member = actions.member(visit.caller, user)
    return visit.page(
        "ask.html",
        area="members",
        question="Remove the member?",
        about=f"{member.user_id} ({member.role})",
        text="They lose access to this project immediately.",
        action=("remove_member", {"user": user}),
        to=("list_members", {}),
    )


@blueprint.post("/ui/members/<user>/remove")
def remove_member(user: str) -> Response:
    visit = enter(Permission.OWN, f"removing {clip(user)}")
    try:
        actions.remove_member(visit.caller, user)
    except GitstoreError as error:
        return _members(visit, error)
    return go("list_members", notice="member-removed")


def _members(
    visit: Visit, error: GitstoreError | None = None, given: dict[str, str] | None = None
) -> Response:
    with visit.caller.reading() as tx:
        rows = projects.members(tx, visit.caller.project_id)
    return visit.page(
        "members.html",
        error,
        rows=rows,
        own=visit.principal.id,
        roles=[role.value for role in Role],
        given=given or {"user": "", "role": Role.VIEWER.value},
    )


# Access tokens


@blueprint.get("/ui/tokens")
def list_tokens() -> Response:
    return _tokens(enter(Permission.OWN, "listing tokens"), {})


@blueprint.post("/ui/tokens")
def create_token() -> Response:
    visit = enter(Permission.OWN, "creating a token")
    given: dict[str, Any] = {"name": field("name").strip(), "role": field("role")}
    last_day = field("last_day").strip()
    if last_day:
        given["expires_at"] = f"{last_day}T23:59:59Z"
    try:
        created, secret = actions.create_token(visit.caller, **validated(CreateToken, given).given())
    except GitstoreError as error:
        return _tokens(visit, {**given, "last_day": last_day}, error)
    return shown_once(
        visit,
        area="tokens",
        title="New access token",
        text=f"{created.name} ({created.role}). The token is shown only once: save it now.",
        values={"Token": secret},
        to=("list_tokens", {}),
    )


@blueprint.get("/ui/tokens/<which>/revoke")
def ask_revoke_token(which: str) -> Response:
    visit = enter(Permission.OWN, "revoking a token")
    caller, token_id = visit.caller, lookup.uuid_of(which)
    with caller.reading() as tx:
        row = next((token for token in tokens.tokens(tx, caller.project_id) if token.id == token_id), None)
    if row is None or row.revoked_at is not None:
        raise actions.no_active_token(which)
    own = row.id == caller.principal.id
    return visit.page(
        "ask.html",
        area="tokens",
        question="Revoke the token?",
        about=f"{row.name} ({row.role})",
        text="It stops working immediately." + (" You are signed in with it." if own else ""),
        action=("revoke_token", {"which": which}),
        to=("list_tokens", {}),
    )


@blueprint.post("/ui/tokens/<which>/revoke")
def revoke_token(which: str) -> Response:
    actions.revoke_token(enter(Permission.OWN, "revoking a token").caller, which)
    return go("list_tokens", notice="revoked")


def _tokens(visit: Visit, given: dict[str, Any], error: GitstoreError | None = None) -> Response:
    caller = visit.caller
    with caller.reading() as tx:
        rows = tokens.tokens(tx, caller.project_id)
    return visit.page(
        "tokens.html",
        error,
        rows=sorted(rows, key=lambda row: row.revoked_at is not None),
        own=caller.principal.id,
        roles=[role.value for role in Role],
        given=given,
        now=now(),
    )


# The JSON Schema: the one in force, its history, and a form to try, replace or remove it

_MOST_CHANGES: Final = 100
_MOST_FAILING: Final = 50
_JSON: Final = FILE_NAMES[-1]
_EXAMPLE: Final = """\
{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object"
}
"""


@blueprint.get("/ui/schema")
def show_schema() -> Response:
    """Show the schema in force, or the earlier one that the query names by its commit."""
    return _schema_page(enter(Permission.READ, "reading the schema"), at=request.args.get("at", ""))


@blueprint.post("/ui/schema")
def set_schema() -> Response:
    """Try the schema of the form on the drafts, or set it if it is the one that the form replaces."""
    visit = enter(Permission.OWN, "changing the schema")
    text = upload(LARGEST) or field("schema").encode(errors="replace")
    trial = None
    try:
        if field("do") != "save":
            trial = actions.try_schema(visit.caller, text)
        else:
            actions.change_schema(visit.caller, text, {field("seen")})
    except GitstoreError as error:
        return _schema_page(visit, error, typed=text)
    return (
        go("show_schema", notice="schema-set")
        if trial is None
        else _schema_page(visit, typed=text, trial=trial)
    )


@blueprint.get("/ui/schema/remove")
def ask_remove_schema() -> Response:
    visit = enter(Permission.OWN, "removing the schema")
    with visit.caller.opened() as repository:
        last = next(schemas.history(repository), None)
    if last is None or last.removed:
        raise NotFoundError(Code.NOT_FOUND, "the project has no schema")
    return visit.page(
        "ask.html",
        area="project",
        question="Remove the schema?",
        about=f"{visit.principal.project.slug}, schema {last.commit[:12]}",
        text="Drafts and later versions are then checked as under the rules any. Its history stays.",
        action=("remove_schema", {}),
        to=("show_schema", {}),
        fields={"seen": last.commit},
    )


@blueprint.post("/ui/schema/remove")
def remove_schema() -> Response:
    visit = enter(Permission.OWN, "removing the schema")
    try:
        actions.change_schema(visit.caller, None, {field("seen")})
    except GitstoreError as error:
        return _schema_page(visit, error)
    return go("show_schema", notice="schema-removed")


def _schema_page(
    visit: Visit,
    error: GitstoreError | None = None,
    *,
    at: str = "",
    typed: bytes | None = None,
    trial: Trial | None = None,
) -> Response:
    """Show the page; a refused form keeps what was `typed`, and a damaged schema is reported."""
    with visit.caller.opened() as repository:
        rows = _history(repository)
        current, damage = _current(repository)
        chosen = next((row for row in rows if row.commit == at and not row.removed), None)
        raw = _text(repository, chosen) if chosen is not None else current
    in_force = rows[0].commit if rows and not rows[0].removed else ""
    shown = typed if typed is not None else raw
    text = (shown if shown is not None else _EXAMPLE.encode()).decode("utf-8-sig", errors="replace")
    return visit.page(
        "schema.html",
        error,
        problems=Problems.of(error.problems) if isinstance(error, InvalidDefinitionError) else None,
        rules=visit.caller.rules,
        applied=visit.caller.rules is Rules.SCHEMA,
        rows=rows[:_MOST_CHANGES],
        more=len(rows) > _MOST_CHANGES,
        in_force=in_force,
        damage=damage,
        chosen=chosen if chosen is not None and chosen.commit != in_force else None,
        text=text,
        lines=highlighted(text, _JSON) if raw is not None and not visit.owns else None,
        trial=trial,
        failing=list(trial.failing.items())[:_MOST_FAILING] if trial else [],
    )


def _history(repository: Repository) -> list[SchemaChange]:
    """Return the newest changes, as far as Git has them undamaged."""
    rows: list[SchemaChange] = []
    with suppress(GitstoreError):
        rows.extend(islice(schemas.history(repository), _MOST_CHANGES + 1))
    return rows


def _current(repository: Repository) -> tuple[bytes | None, IntegrityError | None]:
    try:
        return schemas.current(repository).text, None
    except NotFoundError:
        return None, None
    except IntegrityError as error:
        return None, error


def _text(repository: Repository, row: SchemaChange) -> bytes | None:
    schema = repository.schema_at(row.commit)
    return schema.text if schema is not None else None
