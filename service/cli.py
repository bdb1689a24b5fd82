"""The `gitstore` command. Every command works beside a running `gitstore serve`, and without one.

Results go to stdout; progress, and what is wrong, to stderr. The exit status is 0; 1 where something is
wrong, or differs; 2 where the command line is not understood.
"""

from __future__ import annotations

import json
import re
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final, cast
from uuid import UUID, uuid4

import click

from gitstore.errors import Code, GitstoreError
from gitstore.model import Rules
from service.auth import Role
from service.cli_diff import diff
from service.cli_sources import source
from service.config import Config
from service.database import connected, connection_string
from service.lifeline import end_with
from service.projects import Projects
from service.serve import serve as serve_until_stopped
from service.setup import create_project, create_token, revoke_token
from service.terminal import Commands, Progress, table, with_config
from service.worker import Worker
from sync import catalog, tokens
from sync import migrate as migrations
from sync import rebuild as rebuilding
from sync import verify as verifying
from sync.catalog import Project
from sync.db import Database, Transaction
from sync.tokens import Token

WHERE: Final = ("DATABASE_URL", "GITSTORE_DATA")
LOGGING: Final = ("GITSTORE_LOG_FORMAT", "GITSTORE_LOG_LEVEL")
_DURATION: Final = re.compile(r"(\d{1,5})([hdw])")
_UNITS: Final = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


def _one_of(kinds: type[StrEnum]) -> click.Choice[str]:
    return click.Choice([kind.value for kind in kinds])  # of an enum itself, click takes the names


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gitstore")
def commands() -> None:
    """A Git-backed version store for MeshHook workflows.

    Settings are environment variables; an option overrides one.
    """


@commands.command()
@with_config()
def serve(config: Config) -> None:
    """Serve, with everything that takes: Postgres (unless one is given), HTTP and git, the worker."""
    sys.exit(serve_until_stopped(config, sys.stdout))


@commands.command()
@click.option("--parent", type=int, hidden=True, help="End with this process, our parent.")
@with_config(*WHERE, *LOGGING, "GITSTORE_RECONCILE_SECONDS")
def worker(config: Config, parent: int | None) -> None:
    """Do what is due in the background. `gitstore serve` runs one; more of them do no harm."""
    if parent is not None:
        end_with(parent)
    stop = threading.Event()

    def ask(*_: object) -> None:
        # Not here: the main thread may be inside of stop.wait, and hold its lock.
        threading.Thread(target=stop.set).start()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    with (
        connection_string(config) as conninfo,
        closing(Database(conninfo, max_connections=4, application="gitstore worker")) as database,
    ):
        Worker(config, database, stop).run()


@commands.command()
@with_config(*WHERE)
def migrate(config: Config) -> None:
    """Bring the database up to date. `gitstore serve` does so by itself."""
    with connection_string(config, make=True) as conninfo:
        applied = migrations.migrate(conninfo)
    for name in applied:
        click.echo(f"applied {name}")
    if not applied:
        click.echo("the database is up to date")


@commands.group()
def project() -> None:
    """Projects: the tenants, each with a repository of its own."""


@project.command("create")
@click.argument("slug")
@click.option("--name", help="What people call it; without it, the slug.")
@click.option(
    "--rules", type=_one_of(Rules), default=Rules.MESHHOOK.value, help="What its definitions must obey."
)
@with_config(*WHERE)
def project_create(config: Config, slug: str, name: str | None, rules: str) -> None:
    """Make the project SLUG."""
    with _owning(config) as transaction:
        made = create_project(transaction, Projects(config), uuid4(), slug, name or slug, Rules(rules))
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


@commands.group()
def token() -> None:
    """Access tokens: who may do what in a project."""


@token.command("create")
@click.argument("project")
@click.option("--role", type=_one_of(Role), required=True, help="What it may do.")
@click.option("--name", required=True, help="Whose it is: the name under which its deeds are recorded.")
@click.option("--expires", metavar="WHEN", help="12h, 30d, 8w, or a date such as 2027-01-31.")
@with_config(*WHERE)
def token_create(config: Config, project: str, role: str, name: str, expires: str | None) -> None:
    """Make a token for PROJECT and print it: once, as only its SHA-256 is kept."""
    until = _expiry(expires, datetime.now(UTC))
    if not name.strip() or len(name) > _NAME_LENGTH or not name.isprintable():
        raise click.BadParameter(f"1 to {_NAME_LENGTH} printable characters", param_hint="--name")
    with _owning(config) as transaction:
        secret, made = create_token(transaction, _named(transaction, project), name.strip(), role, until)
    click.echo(secret)
    click.echo(f"{made.id}: {role} of {project}{f', until {_time(until)}' if until else ''}", err=True)


@token.command("list")
@click.argument("project")
@with_config(*WHERE)
def token_list(config: Config, project: str) -> None:
    """List the tokens of PROJECT, without their secrets."""
    with _owning(config) as transaction:
        rows = tokens.tokens(transaction, _named(transaction, project).id)
    heads = ("id", "role", "name", "state", "created", "last used", "expires")
    click.echo(table(heads, [_token_row(row, datetime.now(UTC)) for row in rows]))


@token.command("revoke")
@click.argument("token_id", metavar="ID", type=click.UUID)
@with_config(*WHERE)
def token_revoke(config: Config, token_id: UUID) -> None:
    """Revoke the token ID: from now on, it opens nothing."""
    with _owning(config) as transaction:
        found = revoke_token(transaction, token_id)
    if found is None:
        raise GitstoreError(Code.NOT_FOUND, f"there is no token {token_id} in force: gitstore token list")
    click.echo(f"revoked {token_id} of {found.slug}")


@commands.command()
@click.argument("project", required=False)
@with_config(*WHERE)
def verify(config: Config, project: str | None) -> None:
    """Compare rows with tags and ledger, and tags with their objects; exit status 1 on any difference."""
    projects, count = Projects(config), 0
    with connected(config, _NAME) as database:
        wanted = _wanted(database, project)
        for one in wanted:
            for line in _differences(database, projects, one):
                count += 1
                click.echo(f"{one.slug}: {line}")
    click.echo(f"{_count(count, 'difference')} in {_count(len(wanted), 'project')}", err=True)
    sys.exit(1 if count else 0)


@commands.command()
@click.argument("project", required=False)
@click.option("--accept-git", is_flag=True, help="Where rows bear witness of something else, believe Git.")
@with_config(*WHERE)
def rebuild(config: Config, project: str | None, accept_git: bool) -> None:
    """Make the rows of workflows and versions again, from Git alone: of PROJECT, or of all."""
    projects = Projects(config)
    with ExitStack() as stack:
        database = stack.enter_context(connected(config, _NAME))
        wanted = _wanted(database, project)
        stores = [stack.enter_context(closing(projects.open(one))) for one in wanted]
        made = rebuilding.rebuild(database, stores, accept_git=accept_git, progress=Progress("rebuilding"))
    click.echo(f"{_count(made, 'version')} in {_count(len(wanted), 'project')}")


@commands.command()
@with_config(*WHERE)
def openapi(config: Config) -> None:
    """Print the OpenAPI document of the HTTP API."""
    # Here, as no other command needs Flask, which takes a moment to load.
    from flask_openapi3.openapi import OpenAPI

    from service.api.openapi import document
    from service.app import create_app

    app = create_app(config, database=Database("", application=_NAME))  # which is never connected to
    click.echo(json.dumps(document(cast(OpenAPI, app)), indent=2))


commands.add_command(diff)
commands.add_command(source)

# What they have in common

_NAME: Final = "gitstore cli"
_NAME_LENGTH: Final = 100


@contextmanager
def _owning(config: Config) -> Iterator[Transaction]:
    """A transaction of the tables' owner: whoever runs this may do everything anyway."""
    with connected(config, _NAME) as database, database.as_owner() as transaction:
        yield transaction


def _named(transaction: Transaction, slug: str) -> Project:
    found = catalog.project(transaction, slug)
    if found is None:
        message = f"there is no project {slug!r}: see gitstore project list"
        raise GitstoreError(Code.PROJECT_NOT_FOUND, message, project=slug)
    return found


def _wanted(database: Database, slug: str | None) -> list[Project]:
    """The project that was named, or all."""
    with database.as_owner() as transaction:
        return catalog.projects(transaction) if slug is None else [_named(transaction, slug)]


def _differences(database: Database, projects: Projects, project: Project) -> Iterator[str]:
    try:
        with closing(projects.open(project)) as store:
            progress = Progress(f"verifying {project.slug}")
            yield from map(str, verifying.verify(database, store, progress))
    except GitstoreError as error:
        if error.code is not Code.INTEGRITY:
            raise
        yield error.message


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"


def _expiry(text: str | None, now: datetime) -> datetime | None:
    """When a token ends; a date ends with its last second, UTC."""
    if text is None:
        return None
    if found := _DURATION.fullmatch(text):
        return now + int(found[1]) * _UNITS[found[2]]
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter("not like 12h, 30d, 8w or 2027-01-31", param_hint="--expires") from None
    if len(text) == len("2027-01-31"):
        when += timedelta(days=1)
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    if when <= now:
        raise click.BadParameter("that is past", param_hint="--expires")
    return when


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
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if when else None


def main() -> None:
    """The entry point."""
    commands(prog_name="gitstore")


if __name__ == "__main__":
    main()
