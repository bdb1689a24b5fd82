"""`gitstore project`, `member` and `token`: projects, and the users and access tokens with a role in them."""

from __future__ import annotations

import re
import sys
from datetime import UTC, date, datetime, time, timedelta
from typing import IO, Any, Final
from uuid import UUID, uuid4

import click

from gitstore import schemas
from gitstore.definition.schema import LARGEST
from gitstore.model import Rules
from gitstore.names import FILE_NAME
from gitstore.store import ANY
from service.access import Role
from service.actions import projects as actions
from service.caller import Operator
from service.cli.operator import APPLICATION, operating, operator_of, owner_transaction, with_operator
from service.cli.terminal import WHERE, as_object, as_rows, in_json, one_of, report, show, with_config
from service.config import Config
from service.projects import Projects
from service.run.bootstrap import create_project
from service.run.database import connected
from sync import catalog, projects, tokens
from sync.catalog import Project
from sync.projects import Contents
from sync.rows import column_names
from sync.tokens import Token

_NAME_LENGTH: Final = 100
_DURATION: Final = re.compile(r"([1-9]\d{0,4})([hdw])", re.ASCII)
_UNITS: Final = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def _file_name(_context: click.Context, _option: click.Parameter, value: str | None) -> str | None:
    if value is not None and not re.fullmatch(FILE_NAME, value):
        raise click.BadParameter("expected a name such as flows.json, that ends in .yaml, .yml or .json")
    return value


@click.group()
def project() -> None:
    """Projects: the tenants, each with a repository of its own."""


@project.command("create")
@click.argument("slug")
@click.option("--name", help="Display name. Default: the slug.")
@click.option("--id", "project_id", type=click.UUID, metavar="ID", help="Its id. Default: a new one.")
@click.option("--owner", type=click.UUID, metavar="USER", help="Id of the user who owns it.")
@click.option("--rules", type=one_of(Rules), default=Rules.MESHHOOK.value, help="Rules for its definitions.")
@click.option("--repository", type=click.UUID, metavar="ID", help="Id of an existing repository to adopt.")
@as_object
@with_config(*WHERE)
def project_create(
    config: Config,
    slug: str,
    name: str | None,
    project_id: UUID | None,
    owner: UUID | None,
    rules: str,
    repository: UUID | None,
    as_json: bool,
) -> None:
    """Create the project SLUG."""
    repositories = Projects(config)
    if repository and project_id:
        raise click.UsageError("--repository is the id already: leave out --id")
    with owner_transaction(config) as tx:
        known = catalog.projects(tx)
        if repository is not None and repository not in repositories.unclaimed(known):
            message = f"{repositories.path(repository)} is not a repository, or belongs to another project"
            raise click.BadParameter(message, param_hint="--repository")
        if project_id is not None and (
            project_id in {row.id for row in known} or repositories.path(project_id).exists()
        ):
            message = "a project or a repository has this id already"
            raise click.BadParameter(message, param_hint="--id")
        identity = repository or project_id or uuid4()
        made = create_project(tx, repositories, identity, slug, name or slug, Rules(rules), owner)
    line = f"created the project {made.slug}: {_address(config, made)}"
    report(line, _facts(config, made), as_json=as_json)
    click.echo(f"a token for it: gitstore token create {made.slug} --role owner --name <name>", err=True)


@project.command("set")
@click.argument("slug")
@click.option("--activate-invalid/--no-activate-invalid", default=None,
              help="Whether versions of sources with an invalid definition become current.")  # fmt: skip
@click.option("--file-name", metavar="NAME", callback=_file_name,
              help="Name of new definitions, such as flows.json; earlier ones stay known.")  # fmt: skip
@as_object
@with_config(*WHERE)
def project_set(
    config: Config, slug: str, activate_invalid: bool | None, file_name: str | None, as_json: bool
) -> None:
    """Change settings of the project SLUG."""
    if activate_invalid is None and file_name is None:
        raise click.UsageError("name a setting to change")
    row = _change(config, slug, activate_invalid=activate_invalid, file_name=file_name)
    report(f"changed the project {slug}", _facts(config, row), as_json=as_json)


@project.command("list")
@as_rows
@with_config(*WHERE)
def project_list(config: Config, as_json: bool) -> None:
    """List every project."""
    with owner_transaction(config) as tx:
        found = catalog.projects(tx)
    heads = ("slug", "name", "rules", "created", "archived", "id")
    rows = [(row.slug, row.name, row.rules, row.created_at, row.archived_at, row.id) for row in found]
    show(heads, rows, as_json=as_json)


@project.command("show")
@click.argument("slug")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: an object.")
@with_config(*WHERE)
def project_show(config: Config, slug: str, as_json: bool) -> None:
    """Show the project SLUG: its owner, its state, and how much is in it."""
    with operating(config, slug) as operator, operator.reading() as tx:
        row, held = operator.project, projects.contents(tx, operator.project_id)
    facts = {
        "slug": row.slug,
        "name": row.name,
        "id": row.id,
        "owner": row.owner,
        "rules": row.rules,
        "created": _time(row.created_at),
        "archived": _time(row.archived_at),
        "repository": operator.services.projects.path(row.id),
        **{field: getattr(held, field) for field in column_names(Contents)},
    }
    if as_json:
        click.echo(in_json(facts))
        return
    shown = ("none" if value is None else value for value in facts.values())
    click.echo("\n".join(f"{name:10}  {value}" for name, value in zip(facts, shown, strict=True)))


@project.command("rename")
@click.argument("slug")
@click.argument("new", required=False)
@click.option("--name", help="New display name.")
@as_object
@with_config(*WHERE)
def project_rename(config: Config, slug: str, new: str | None, name: str | None, as_json: bool) -> None:
    """Give the project SLUG the slug NEW, or another display name, or both.

    Its address for git changes with its slug, without a redirect; its id does not.
    """
    if new is None and name is None:
        raise click.UsageError("give NEW, or --name")
    row = _change(config, slug, slug=new, name=name)
    line = f"{slug} is now {row.slug} ({row.name}): {_address(config, row)}"
    report(line, _facts(config, row), as_json=as_json)


@project.command("rules")
@click.argument("slug")
@click.argument("rules", type=one_of(Rules))
@as_object
@with_config(*WHERE)
def project_rules(config: Config, slug: str, rules: str, as_json: bool) -> None:
    """Change the rules of the project SLUG: drafts are checked again, versions stay as they are."""
    row = _change(config, slug, rules=Rules(rules))
    report(f"{slug} has the rules {row.rules}", _facts(config, row), as_json=as_json)


@project.group("schema")
def project_schema() -> None:
    """The JSON Schema of a project, which judges definitions under the rules `schema`."""


@project_schema.command("set")
@click.argument("slug")
@click.argument("file", type=click.File("rb"))
@as_object
@with_config(*WHERE)
def schema_set(config: Config, slug: str, file: IO[bytes], as_json: bool) -> None:
    """Set the schema of the project SLUG to the JSON in FILE (- for stdin): drafts are checked again."""
    with operating(config, slug) as operator:
        commit = actions.change_schema(operator, file.read(LARGEST + 1), {ANY, schemas.NONE})
    report(f"{slug} has the schema {commit}", {"slug": slug, "schema": commit}, as_json=as_json)
    if operator.project.rules != Rules.SCHEMA:
        click.echo(f"it is in force with: gitstore project rules {slug} schema", err=True)


@project_schema.command("show")
@click.argument("slug")
@click.option("--history", is_flag=True, help="List its changes instead: who made them, and when.")
@as_rows
@with_config(*WHERE)
def schema_show(config: Config, slug: str, history: bool, as_json: bool) -> None:
    """Print the schema of the project SLUG."""
    with operating(config, slug) as operator, operator.opened() as repository:
        if not history:
            sys.stdout.buffer.write(schemas.current(repository).text or b"")
            return
        changes = list(schemas.history(repository))
    rows = [(row.at, row.by.name, "removed" if row.removed else "set", row.commit) for row in changes]
    show(("when", "by", "what", "commit"), rows, as_json=as_json)


@project_schema.command("remove")
@click.argument("slug")
@as_object
@with_config(*WHERE)
def schema_remove(config: Config, slug: str, as_json: bool) -> None:
    """Remove the schema of the project SLUG. Its history stays."""
    with operating(config, slug) as operator:
        actions.change_schema(operator, None, {ANY})
    report(f"{slug} has no schema", {"slug": slug, "schema": None}, as_json=as_json)


@project.command("transfer")
@click.argument("slug")
@click.argument("user", type=click.UUID)
@as_object
@with_config(*WHERE)
def project_transfer(config: Config, slug: str, user: UUID, as_json: bool) -> None:
    """Make USER the owner of the project SLUG. The owner before stays a member with the role owner."""
    row = _change(config, slug, owner=user)
    report(f"{slug} belongs to {row.owner}", _facts(config, row), as_json=as_json)


@project.command("archive")
@click.argument("slug")
@as_object
@with_config(*WHERE)
def project_archive(config: Config, slug: str, as_json: bool) -> None:
    """Archive the project SLUG: it can be read and fetched, and not be written to."""
    row = _change(config, slug, archived=True)
    report(f"{slug} is archived", _facts(config, row), as_json=as_json)


@project.command("unarchive")
@click.argument("slug")
@as_object
@with_config(*WHERE)
def project_unarchive(config: Config, slug: str, as_json: bool) -> None:
    """Let the archived project SLUG be written to again."""
    row = _change(config, slug, archived=False)
    report(f"{slug} is not archived", _facts(config, row), as_json=as_json)


@project.command("delete")
@click.argument("slug")
@click.option("--project-name", metavar="SLUG", help="The slug again, to confirm.")
@as_object
@with_config(*WHERE)
def project_delete(config: Config, slug: str, project_name: str | None, as_json: bool) -> None:
    """Delete the archived project SLUG: its rows, tokens and members. Asks for the slug to confirm.

    Its repository is moved to the folder trash of the data folder, and stays there.
    """
    if project_name is None and sys.stdin.isatty():
        project_name = click.prompt("Type the project's slug to confirm", default="", show_default=False)
    with operating(config, slug) as operator:
        actions.delete(operator, project_name)
    trash = config.data / "trash"
    line = f"deleted the project {slug}; its repository is kept in {trash}"
    report(line, {"slug": slug, "trash": trash}, as_json=as_json)


def _address(config: Config, row: Project) -> str:
    return f"{config.public_url}/{row.slug}.git"


def _facts(config: Config, row: Project) -> dict[str, object]:
    """Return a project for the JSON of a command."""
    names = ("id", "slug", "name", "rules", "owner", "archived_at", "file_name", "activate_invalid")
    return {**{name: getattr(row, name) for name in names}, "url": _address(config, row)}


def _change(config: Config, project: str, **changes: Any) -> Project:
    with operating(config, project) as operator:
        return actions.change(operator, **changes)


@click.group()
def member() -> None:
    """Users with a role in a project."""


@member.command("add")
@click.argument("project")
@click.argument("user", type=click.UUID)
@click.option("--role", type=one_of(Role), required=True, help="What the user may do.")
@as_object
@with_operator
def member_add(operator: Operator, user: UUID, role: str, as_json: bool) -> None:
    """Give USER, by the id in the claim `sub`, a role in PROJECT, or another one."""
    row = actions.set_member(operator, str(user), Role(role))
    facts = {"project": operator.project.slug, "user": row.user_id, "role": row.role}
    report(f"{row.user_id} is {row.role} of {operator.project.slug}", facts, as_json=as_json)


@member.command("list")
@click.argument("project")
@as_rows
@with_operator
def member_list(operator: Operator, as_json: bool) -> None:
    """List the members of PROJECT, oldest first."""
    with operator.reading() as tx:
        found = projects.members(tx, operator.project_id)
    heads = ("user", "role", "since")
    show(heads, [(row.user_id, row.role, row.created_at) for row in found], as_json=as_json)


@member.command("remove")
@click.argument("project")
@click.argument("user", type=click.UUID)
@as_object
@with_operator
def member_remove(operator: Operator, user: UUID, as_json: bool) -> None:
    """Take away the role of USER in PROJECT. The last owner stays."""
    actions.remove_member(operator, str(user))
    facts = {"project": operator.project.slug, "user": user, "role": None}
    report(f"{user} has no role in {operator.project.slug}", facts, as_json=as_json)


@click.group()
def token() -> None:
    """Access tokens, each with a role in one project."""


@token.command("create")
@click.argument("project")
@click.option("--role", type=one_of(Role), required=True, help="What the token may do.")
@click.option("--name", required=True, help="Name under which its actions are recorded.")
@click.option("--expires", metavar="WHEN", help="12h, 30d, 8w, or a date such as 2027-01-31.")
@as_object
@with_config(*WHERE)
def token_create(
    config: Config, project: str, role: str, name: str, expires: str | None, as_json: bool
) -> None:
    """Create a token for PROJECT and print it, once: only its SHA-256 is stored."""
    until = _expiry(expires, datetime.now(UTC))
    if not name.strip() or len(name) > _NAME_LENGTH or not name.isprintable():
        raise click.BadParameter(f"1 to {_NAME_LENGTH} printable characters", param_hint="--name")
    with operating(config, project) as operator:
        made, secret = actions.create_token(operator, name.strip(), role, until)
    facts = {"id": made.id, "token": secret, "project": project, "role": role, "expires": until}
    report(secret, facts, as_json=as_json)
    click.echo(f"{made.id}: {role} of {project}{f', until {_time(until)}' if until else ''}", err=True)


@token.command("list")
@click.argument("project")
@as_rows
@with_operator
def token_list(operator: Operator, as_json: bool) -> None:
    """List the tokens of PROJECT, without their secrets."""
    with operator.reading() as tx:
        rows = tokens.tokens(tx, operator.project_id)
    heads = ("id", "role", "name", "state", "created", "last used", "expires")
    show(heads, [_token_row(row, datetime.now(UTC)) for row in rows], as_json=as_json)


@token.command("revoke")
@click.argument("token_id", metavar="ID", type=click.UUID)
@as_object
@with_config(*WHERE)
def token_revoke(config: Config, token_id: UUID, as_json: bool) -> None:
    """Revoke the token ID. It stops working immediately."""
    with connected(config, APPLICATION) as database:
        with database.as_owner() as tx:
            known = ((row, token) for row in catalog.projects(tx) for token in tokens.tokens(tx, row.id))
            owner = next((row for row, token in known if token.id == token_id), None)
        if owner is None:
            raise actions.no_active_token(str(token_id))
        actions.revoke_token(operator_of(config, database, owner), str(token_id))
    facts = {"id": token_id, "project": owner.slug}
    report(f"revoked {token_id} of {owner.slug}", facts, as_json=as_json)


def _expiry(text: str | None, now: datetime) -> datetime | None:
    """Return the expiry of a token. A date includes that whole day, in UTC."""
    if text is None:
        return None
    if duration := _DURATION.fullmatch(text):
        return now + int(duration[1]) * _UNITS[duration[2]]
    try:
        when = _moment(text)
    except (ValueError, OverflowError):
        raise click.BadParameter("expected 12h, 30d, 8w or 2027-01-31", param_hint="--expires") from None
    if when <= now:
        raise click.BadParameter("must be in the future", param_hint="--expires")
    return when


def _moment(text: str) -> datetime:
    """Parse ISO 8601; raises ValueError or, at the end of the calendar, OverflowError."""
    try:
        day = date.fromisoformat(text)
    except ValueError:
        when = datetime.fromisoformat(text)
        return when if when.tzinfo else when.replace(tzinfo=UTC)
    return datetime.combine(day, time(tzinfo=UTC)) + timedelta(days=1)


def _token_row(row: Token, now: datetime) -> tuple[object, ...]:
    if row.revoked_at is not None:
        state = "revoked"
    else:
        state = "expired" if row.expires_at is not None and row.expires_at <= now else "active"
    return row.id, row.role, row.name, state, row.created_at, row.last_used_at, row.expires_at


def _time(when: datetime | None) -> str | None:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if when else None
