"""`gitstore project` and `gitstore token`: projects and their access tokens."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from uuid import UUID, uuid4

import click

from gitstore.model import Rules
from service.access import Role
from service.actions import tokens as actions
from service.cli.operator import APPLICATION, operating, operator_of, owner_transaction
from service.cli.terminal import WHERE, one_of, table, with_config
from service.config import Config
from service.projects import Projects
from service.run.bootstrap import create_project
from service.run.database import connected
from sync import catalog, tokens
from sync.tokens import Token

_NAME_LENGTH: Final = 100
_DURATION: Final = re.compile(r"([1-9]\d{0,4})([hdw])", re.ASCII)
_UNITS: Final = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


@click.group()
def project() -> None:
    """Projects: the tenants, each with a repository of its own."""


@project.command("create")
@click.argument("slug")
@click.option("--name", help="Display name. Default: the slug.")
@click.option("--rules", type=one_of(Rules), default=Rules.MESHHOOK.value, help="Rules for its definitions.")
@click.option("--repository", type=click.UUID, metavar="ID", help="Id of an existing repository to adopt.")
@with_config(*WHERE)
def project_create(config: Config, slug: str, name: str | None, rules: str, repository: UUID | None) -> None:
    """Create the project SLUG."""
    projects = Projects(config)
    with owner_transaction(config) as tx:
        if repository is not None and repository not in projects.unclaimed(catalog.projects(tx)):
            message = f"{projects.path(repository)} is not a repository, or belongs to another project"
            raise click.BadParameter(message, param_hint="--repository")
        made = create_project(tx, projects, repository or uuid4(), slug, name or slug, Rules(rules))
    click.echo(f"created the project {made.slug}: {config.public_url}/{made.slug}.git")
    click.echo(f"a token for it: gitstore token create {made.slug} --role owner --name <name>", err=True)


@project.command("list")
@with_config(*WHERE)
def project_list(config: Config) -> None:
    """List every project."""
    with owner_transaction(config) as tx:
        rows = catalog.projects(tx)
    heads = ("slug", "name", "rules", "created", "id")
    click.echo(table(heads, [(row.slug, row.name, row.rules, _day(row.created_at), row.id) for row in rows]))


@click.group()
def token() -> None:
    """Access tokens, each with a role in one project."""


@token.command("create")
@click.argument("project")
@click.option("--role", type=one_of(Role), required=True, help="What the token may do.")
@click.option("--name", required=True, help="Name under which its actions are recorded.")
@click.option("--expires", metavar="WHEN", help="12h, 30d, 8w, or a date such as 2027-01-31.")
@with_config(*WHERE)
def token_create(config: Config, project: str, role: str, name: str, expires: str | None) -> None:
    """Create a token for PROJECT and print it, once: only its SHA-256 is stored."""
    until = _expiry(expires, datetime.now(UTC))
    if not name.strip() or len(name) > _NAME_LENGTH or not name.isprintable():
        raise click.BadParameter(f"1 to {_NAME_LENGTH} printable characters", param_hint="--name")
    with operating(config, project) as operator:
        made, secret = actions.create(operator, name.strip(), role, until)
    click.echo(secret)
    click.echo(f"{made.id}: {role} of {project}{f', until {_time(until)}' if until else ''}", err=True)


@token.command("list")
@click.argument("project")
@with_config(*WHERE)
def token_list(config: Config, project: str) -> None:
    """List the tokens of PROJECT, without their secrets."""
    with operating(config, project) as operator, operator.reading() as tx:
        rows = tokens.tokens(tx, operator.project_id)
    heads = ("id", "role", "name", "state", "created", "last used", "expires")
    click.echo(table(heads, [_token_row(row, datetime.now(UTC)) for row in rows]))


@token.command("revoke")
@click.argument("token_id", metavar="ID", type=click.UUID)
@with_config(*WHERE)
def token_revoke(config: Config, token_id: UUID) -> None:
    """Revoke the token ID. It stops working immediately."""
    with connected(config, APPLICATION) as database:
        with database.as_owner() as tx:
            known = ((row, token) for row in catalog.projects(tx) for token in tokens.tokens(tx, row.id))
            owner = next((row for row, token in known if token.id == token_id), None)
        if owner is None:
            raise actions.not_active(str(token_id))
        actions.revoke(operator_of(config, database, owner), str(token_id))
    click.echo(f"revoked {token_id} of {owner.slug}")


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
    times = _day(row.created_at), _time(row.last_used_at), _time(row.expires_at)
    return row.id, row.role, row.name, state, *times


def _day(when: datetime) -> str:
    return when.astimezone(UTC).date().isoformat()


def _time(when: datetime | None) -> str | None:
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if when else None
