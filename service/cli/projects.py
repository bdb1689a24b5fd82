"""`gitstore project` and `gitstore token`: the tenants, and their access tokens."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from uuid import UUID, uuid4

import click

from gitstore.errors import Code, NotFoundError
from gitstore.model import Rules
from gitstore.system import now, rfc3339
from service.auth import Role
from service.cli.terminal import WHERE, one_of, table, with_config
from service.config import Config
from service.projects import Projects
from service.run.bootstrap import create_project, create_token, named_project, revoke_token
from service.run.database import connected
from sync import catalog, tokens
from sync.db import Transaction
from sync.tokens import Token

_NAME_LENGTH: Final = 100
_DURATION: Final = re.compile(r"([1-9]\d{0,4})([hdw])", re.ASCII)
_UNITS: Final = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


@click.group()
def project() -> None:
    """Projects: the tenants, each with a repository of its own."""


@project.command("create")
@click.argument("slug")
@click.option("--name", help="What people call it; without it, the slug.")
@click.option(
    "--rules", type=one_of(Rules), default=Rules.MESHHOOK.value, help="What its definitions must obey."
)
@click.option(
    "--repository", type=click.UUID, metavar="ID", help="The id of a repository that is there already."
)
@with_config(*WHERE)
def project_create(config: Config, slug: str, name: str | None, rules: str, repository: UUID | None) -> None:
    """Make the project SLUG."""
    projects = Projects(config)
    with _owning(config) as transaction:
        if repository is not None and repository not in projects.unclaimed(catalog.projects(transaction)):
            message = f"{projects.path(repository)} is no repository, or belongs to another project"
            raise click.BadParameter(message, param_hint="--repository")
        made = create_project(transaction, projects, repository or uuid4(), slug, name or slug, Rules(rules))
    click.echo(f"created the project {made.slug}: {config.public_url}/{made.slug}.git")
    click.echo(f"a token for it: gitstore token create {made.slug} --role owner --name <name>", err=True)


@project.command("list")
@with_config(*WHERE)
def project_list(config: Config) -> None:
    """List every project."""
    with _owning(config) as transaction:
        rows = catalog.projects(transaction)
    heads = ("slug", "name", "rules", "created", "id")
    click.echo(table(heads, [(row.slug, row.name, row.rules, _day(row.created_at), row.id) for row in rows]))


@click.group()
def token() -> None:
    """Access tokens: who may do what in a project."""


@token.command("create")
@click.argument("project")
@click.option("--role", type=one_of(Role), required=True, help="What it may do.")
@click.option("--name", required=True, help="Whose it is: the name under which its deeds are recorded.")
@click.option("--expires", metavar="WHEN", help="12h, 30d, 8w, or a date such as 2027-01-31.")
@with_config(*WHERE)
def token_create(config: Config, project: str, role: str, name: str, expires: str | None) -> None:
    """Make a token for PROJECT and print it: once, as only its SHA-256 is kept."""
    until = _expiry(expires, now())
    if not name.strip() or len(name) > _NAME_LENGTH or not name.isprintable():
        raise click.BadParameter(f"1 to {_NAME_LENGTH} printable characters", param_hint="--name")
    with _owning(config) as transaction:
        secret, made = create_token(
            transaction, named_project(transaction, project), name.strip(), role, until
        )
    click.echo(secret)
    click.echo(f"{made.id}: {role} of {project}{f', until {_time(until)}' if until else ''}", err=True)


@token.command("list")
@click.argument("project")
@with_config(*WHERE)
def token_list(config: Config, project: str) -> None:
    """List the tokens of PROJECT, without their secrets."""
    with _owning(config) as transaction:
        rows = tokens.tokens(transaction, named_project(transaction, project).id)
    heads = ("id", "role", "name", "state", "created", "last used", "expires")
    click.echo(table(heads, [_token_row(row, now()) for row in rows]))


@token.command("revoke")
@click.argument("token_id", metavar="ID", type=click.UUID)
@with_config(*WHERE)
def token_revoke(config: Config, token_id: UUID) -> None:
    """Revoke the token ID: from now on, it opens nothing."""
    with _owning(config) as transaction:
        found = revoke_token(transaction, token_id)
    if found is None:
        raise NotFoundError(Code.NOT_FOUND, f"there is no token {token_id} in force: gitstore token list")
    click.echo(f"revoked {token_id} of {found.slug}")


# Helpers


@contextmanager
def _owning(config: Config) -> Iterator[Transaction]:
    """Return a transaction of the tables' owner: an operator of this command has full access anyway."""
    with connected(config, "gitstore cli") as database, database.as_owner() as transaction:
        yield transaction


def _expiry(text: str | None, now: datetime) -> datetime | None:
    """Return the expiry of a token. A date includes that whole day, in UTC."""
    if text is None:
        return None
    if found := _DURATION.fullmatch(text):
        return now + int(found[1]) * _UNITS[found[2]]
    try:
        when = _moment(text)
    except (ValueError, OverflowError):
        raise click.BadParameter("not like 12h, 30d, 8w or 2027-01-31", param_hint="--expires") from None
    if when <= now:
        raise click.BadParameter("that is past", param_hint="--expires")
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
        state = "expired" if row.expires_at is not None and row.expires_at <= now else "in force"
    times = _day(row.created_at), _time(row.last_used_at), _time(row.expires_at)
    return row.id, row.role, row.name, state, *times


def _day(when: datetime) -> str:
    return when.astimezone(UTC).date().isoformat()


def _time(when: datetime | None) -> str | None:
    return rfc3339(when, "seconds") if when else None
