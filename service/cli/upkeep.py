"""`gitstore migrate`, `supabase`, `verify`, `repair`, `rebuild`, `gc` and `openapi`."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterator
from contextlib import ExitStack, closing
from typing import Final, cast
from uuid import UUID

import click

from gitstore.errors import ConfigError, IntegrityError
from gitstore.git.maintenance import collect
from gitstore.repository import Repository
from service.cli.operator import APPLICATION, owner_transaction
from service.cli.terminal import (
    WHERE,
    CliError,
    Progress,
    as_object,
    as_rows,
    in_json,
    print_line,
    report,
    show,
    with_config,
)
from service.config import Config
from service.projects import Projects
from service.run.bootstrap import OPERATOR, named_project
from service.run.database import connected, connection_string
from sync import audit, catalog, hosts, levels
from sync import migrate as migrations
from sync.catalog import Project
from sync.db import Database, Transaction
from sync.integrity import rebuild as rebuilding
from sync.integrity import repair as repairing
from sync.integrity import verify as verifying
from sync.unit_of_work import MirrorUnitOfWork

_MOST_NOTES: Final = 20
_UNKNOWN_NUMBERS: Final = (
    "If both the database and the repository were restored from backups, version numbers assigned since then "
    "are unknown: fetch the tags from clones or upstreams, or, before publishing anything, run "
    "gitstore repair PROJECT --start-above WORKFLOW NUMBER"
)


@click.command()
@click.option("--plan", is_flag=True, help="List the pending migrations and what each locks; change nothing.")
@click.option(
    "--finish",
    is_flag=True,
    help="End the upgrade, once no process of an older version runs: new forms are written from now on.",
)
@as_object
@with_config(*WHERE)
def migrate(config: Config, plan: bool, finish: bool, as_json: bool) -> None:
    """Migrate the database to this version. `gitstore serve` does so itself."""
    if plan and finish:
        raise click.UsageError("give --plan or --finish, one of them")
    if plan or finish:
        with connected(config, APPLICATION) as database, database.as_owner() as transaction:
            pending = migrations.pending(database.conninfo)
            if finish:
                line = _finish(transaction, [migration.name for migration in pending])
                report(line, {"level": levels.level(transaction)}, as_json=as_json)
                return
            texts = [(migration.name, migration.text) for migration in pending]
            lines = list(levels.plan(transaction.connection, texts))
        facts = {"pending": [migration.name for migration in pending], "plan": lines}
        report("\n".join(lines), facts, as_json=as_json)
        return
    with connection_string(config, make=True) as conninfo:
        applied = migrations.migrate(conninfo)
    lines = [f"applied {name}" for name in applied] or ["the database is up to date"]
    report("\n".join(lines), {"applied": applied}, as_json=as_json)


def _finish(transaction: Transaction, pending: Collection[str]) -> str:
    if pending:
        raise ConfigError(f"{', '.join(pending)} must be applied first: run gitstore migrate")
    is_now = "is now" if levels.raise_level(transaction) else "was already"
    return f"the upgrade is finished: the feature level {is_now} {levels.level(transaction)}"


@click.group()
def supabase() -> None:
    """The roles of a Supabase project in whose database gitstore is."""


@supabase.command("grant")
@as_object
@with_config(*WHERE)
def supabase_grant(config: Config, as_json: bool) -> None:
    """Let Supabase's roles read the tables: authenticated as each user may, service_role everything.

    Prints each statement that it runs. Run it again after an upgrade: it grants what is missing.
    """
    with owner_transaction(config) as transaction:
        lines = list(hosts.grant(transaction))
    report("\n".join(lines), {"statements": lines}, as_json=as_json)


@click.command()
@click.argument("project", required=False)
@click.option(
    "--full",
    is_flag=True,
    help="Compare all workflows, and check the bytes of every object in Git and in the database. Run again "
    "after it was killed, it continues.",
)
@as_rows
@with_config(*WHERE)
def verify(config: Config, project: str | None, full: bool, as_json: bool) -> None:
    """Compare the database with Git.

    Compares rows with tags and ledgers, and tags with their objects, in PROJECT or in all projects: of the
    workflows that have changed since they were last found in order. Lists each difference with the command
    that resolves it.
    """
    projects, found = Projects(config), list[tuple[str, str]]()
    with connected(config, APPLICATION) as database:
        wanted = _wanted(database, project)
        for one in wanted:
            notes = verifying.Notes()
            for line in differences(database, projects, one, full=full, notes=notes):
                found.append((one.slug, line))
                if not as_json:
                    print_line(f"{one.slug}: {line}")
            _note(one, notes)
    if as_json:
        show(("project", "difference"), found, as_json=True)
    click.echo(f"{_count(len(found), 'difference')} in {_count(len(wanted), 'project')}", err=True)
    sys.exit(1 if found else 0)


@click.command()
@click.argument("project", required=False)
@click.option(
    "--accept-git",
    is_flag=True,
    help="Where rows contradict Git, accept Git's state: what it lacks is lost. Asks for the project's name "
    "to confirm.",
)
@click.option(
    "--project-name", multiple=True, metavar="NAME", help="Confirm --accept-git for the project NAME."
)
@as_object
@with_config(*WHERE)
def rebuild(
    config: Config, project: str | None, accept_git: bool, project_name: tuple[str, ...], as_json: bool
) -> None:
    """Rebuild rows from Git.

    Those of workflows and versions, of PROJECT or of all projects. Rows that differ are written; none is
    deleted.
    """
    projects = Projects(config)
    with ExitStack() as stack:
        database = stack.enter_context(connected(config, APPLICATION))
        wanted = _wanted(database, project)
        stores = [stack.enter_context(closing(projects.reader(one))) for one in wanted]
        lost: dict[UUID, list[str]] = {}
        if accept_git:
            for one, store in zip(wanted, stores, strict=True):
                lost[one.id] = _confirmed_losses(database, one, store, project_name)
        made = rebuilding.rebuild(database, stores, accept_git=accept_git, progress=Progress("rebuilding"))
        with database.as_owner() as transaction:
            for one in wanted:
                if lines := lost.get(one.id):
                    facts = {"count": len(lines), "lost": lines[:_MOST_NOTES]}
                    audit.note(transaction, one.id, OPERATOR, "project.losses_accepted", one.slug, facts)
    facts = {
        "projects": [one.slug for one in wanted],
        "versions": made,
        "lost": {one.slug: lost[one.id] for one in wanted if lost.get(one.id)},
    }
    report(f"{_count(made, 'version')} in {_count(len(wanted), 'project')}", facts, as_json=as_json)


def _confirmed_losses(
    database: Database, project: Project, repository: Repository, named: Collection[str]
) -> list[str]:
    """List the losses of accepting Git's state, and ask for the project's name, unless it was `named`."""
    with database.as_owner() as transaction:
        lost = rebuilding.losses(transaction, repository)
    if not lost:
        return lost
    click.echo(f"Accepting Git's state would lose, in the project {project.slug}:", err=True)
    for line in lost:
        click.echo(f"  {line}", err=True)
    if project.slug in named:
        return lost
    if not sys.stdin.isatty():
        message = f"nothing was changed; to confirm: gitstore rebuild {project.slug} --accept-git "
        raise CliError(ConfigError(message + f"--project-name {project.slug}"))
    if click.prompt("Type the project's name to confirm", default="", show_default=False) != project.slug:
        raise CliError(ConfigError("the name does not match: nothing was changed"))
    return lost


@click.command()
@click.argument("project", required=False)
@click.option(
    "--new-repository",
    is_flag=True,
    help="If a project's repository is missing, create it again from the database.",
)
@click.option(
    "--start-above",
    nargs=2,
    type=(str, int),
    multiple=True,
    metavar="WORKFLOW NUMBER",
    help="Give the next version of WORKFLOW a number above NUMBER, if neither Git nor the database knows the "
    "numbers in use.",
)
@as_object
@with_config(*WHERE)
def repair(
    config: Config,
    project: str | None,
    new_repository: bool,
    start_above: tuple[tuple[str, int], ...],
    as_json: bool,
) -> None:
    """Restore what a repository lost.

    Restores refs from ledgers and rows, and versions from the database, in PROJECT or in all projects, and
    adds rows that are behind Git.
    """
    projects, done, left = Projects(config), list[str](), list[str]()

    def record(lines: list[str], line: str) -> None:
        lines.append(line)
        if not as_json:
            print_line(line if lines is done else line.replace(": ", ": remaining: ", 1), err=lines is left)

    with connected(config, APPLICATION) as database:
        wanted = _wanted(database, project)
        if start_above and len(wanted) != 1:
            raise click.UsageError("--start-above requires PROJECT: there are several")
        for one in wanted:
            if new_repository and projects.missing(one):
                projects.init(one.id)
                record(done, f"{one.slug}: created an empty repository at {projects.path(one.id)}")
            with closing(projects.reader(one)) as repository:
                writes = MirrorUnitOfWork(database, repository)
                for line in repairing.repair(writes, Progress(f"repairing {one.slug}")):
                    record(done, f"{one.slug}: {line}")
                for slug, number in start_above:
                    following = repairing.start_above(writes, slug, number, OPERATOR)
                    unknown = "" if repository.exists(slug) else " (this workflow does not exist yet)"
                    record(done, f"{one.slug}: the next version of {slug} is v{following}{unknown}")
            for line in differences(database, projects, one):
                record(left, f"{one.slug}: {line}")
    if as_json:
        click.echo(in_json({"repaired": done, "remaining": left}))
    elif not done and not left:
        click.echo("nothing to repair")
    if not left:
        click.echo(_UNKNOWN_NUMBERS, err=True)
    sys.exit(1 if left else 0)


@click.command()
@click.argument("project", required=False)
@as_rows
@with_config(*WHERE)
def gc(config: Config, project: str | None, as_json: bool) -> None:
    """Pack repositories.

    Packs refs and objects, and prunes unreachable objects, of PROJECT or of all projects. The worker does so
    daily.
    """
    projects, progress = Projects(config), Progress("packing")
    rows: list[tuple[object, ...]] = []
    with connected(config, APPLICATION) as database:
        wanted = _wanted(database, project)
        for number, one in enumerate(wanted):
            progress(number, len(wanted))
            with closing(projects.reader(one)) as repository:
                writes = MirrorUnitOfWork(database, repository)
                writes.sweep(everything=True)
                done = collect(repository.path, writes)
            rows.append((one.slug, done is None, done and done.pruned, done and done.packs))
            if as_json:
                continue
            if done is None:
                print_line(f"{one.slug}: another gc is already running", err=True)
            else:
                print_line(
                    f"{one.slug}: pruned {_count(done.pruned, 'object')}, {_count(done.packs, 'pack')}"
                )
        progress(len(wanted), len(wanted))
    if as_json:
        show(("project", "busy", "pruned", "packs"), rows, as_json=True)


@click.command()
@with_config(*WHERE)
def openapi(config: Config) -> None:
    """Print the OpenAPI document of the HTTP API."""
    # Imported here, as no other command needs Flask, which is slow to load.
    from flask_openapi3.openapi import OpenAPI

    from service.api.openapi import document
    from service.app import create_app

    app = create_app(config, database=Database("", application=APPLICATION))  # never connected
    click.echo(json.dumps(document(cast(OpenAPI, app)), indent=2))


def _wanted(database: Database, slug: str | None) -> list[Project]:
    """Return the named project, or all."""
    with database.as_owner() as transaction:
        return catalog.projects(transaction) if slug is None else [named_project(transaction, slug)]


def differences(
    database: Database,
    projects: Projects,
    project: Project,
    *,
    full: bool = True,
    notes: verifying.Notes | None = None,
) -> Iterator[str]:
    """Yield what `gitstore verify` finds in one project."""
    try:
        with closing(projects.reader(project)) as store:
            progress = Progress(f"verifying {project.slug}")
            yield from map(str, verifying.verify(database, store, progress, full=full, notes=notes))
    except IntegrityError as error:
        yield error.message


def _note(project: Project, notes: verifying.Notes) -> None:
    """Print what is not a difference: versions that exist only in Git, ledger entries of unknown kinds."""
    lines = notes.unrecoverable
    for line in [*lines[:_MOST_NOTES], *notes.unknown[:_MOST_NOTES]]:
        click.echo(f"note: {project.slug}: {line}", err=True)
    if lines:
        click.echo(
            f"note: {project.slug}: {_count(len(lines), 'version')} could not be restored from the database "
            "alone; gitstore repair stores what Git has, objects up to 1 MiB each",
            err=True,
        )


def _count(number: int, what: str) -> str:
    return f"{number or 'no'} {what}{'' if number == 1 else 's'}"
