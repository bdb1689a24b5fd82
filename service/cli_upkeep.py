"""`gitstore migrate`, `verify`, `repair`, `rebuild`, `gc` and `openapi`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from typing import Final, cast

import click

from gitstore.disk.maintenance import collect
from gitstore.disk.sweeping import sweep
from gitstore.errors import Code, GitstoreError
from service.config import Config
from service.database import connected, connection_string
from service.projects import Projects
from service.setup import named_project
from service.terminal import WHERE, Progress, with_config
from sync import catalog
from sync import migrate as migrations
from sync import rebuild as rebuilding
from sync import repair as repairing
from sync import verify as verifying
from sync.catalog import Project
from sync.db import Database

_NAME: Final = "gitstore cli"


@click.command()
@with_config(*WHERE)
def migrate(config: Config) -> None:
    """Bring the database up to date. `gitstore serve` does so by itself."""
    with connection_string(config, make=True) as conninfo:
        applied = migrations.migrate(conninfo)
    for name in applied:
        click.echo(f"applied {name}")
    if not applied:
        click.echo("the database is up to date")


@click.command()
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


@click.command()
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


@click.command()
@click.argument("project", required=False)
@with_config(*WHERE)
def repair(config: Config, project: str | None) -> None:
    """Bring refs back that are gone, damaged or moved, from ledger and rows; status 1 if anything is left."""
    projects, done, left = Projects(config), 0, 0
    with connected(config, _NAME) as database:
        for one in _wanted(database, project):
            with projects.mirrored(one, database) as (_, writes):
                for line in repairing.repair(writes, Progress(f"repairing {one.slug}")):
                    done += 1
                    click.echo(f"{one.slug}: {line}")
            for line in _differences(database, projects, one):
                left += 1
                click.echo(f"{one.slug}: still, {line}", err=True)
    if not done and not left:
        click.echo("nothing to repair")
    sys.exit(1 if left else 0)


@click.command()
@click.argument("project", required=False)
@with_config(*WHERE)
def gc(config: Config, project: str | None) -> None:
    """Let git pack refs and objects, and prune what nothing refers to. The worker does so daily."""
    projects = Projects(config)
    with connected(config, _NAME) as database:
        for one in _wanted(database, project):
            with projects.mirrored(one, database) as (store, writes):
                sweep(store.path, writes.maintenance, time.time())
                done = collect(store.path, writes)
            if done is None:
                click.echo(f"{one.slug}: somebody else is at it", err=True)
            else:
                click.echo(
                    f"{one.slug}: pruned {_count(done.pruned, 'object')}, {_count(done.packs, 'pack')}"
                )


@click.command()
@with_config(*WHERE)
def openapi(config: Config) -> None:
    """Print the OpenAPI document of the HTTP API."""
    # Here, as no other command needs Flask, which takes a moment to load.
    from flask_openapi3.openapi import OpenAPI

    from service.api.openapi import document
    from service.app import create_app

    app = create_app(config, database=Database("", application=_NAME))  # which is never connected to
    click.echo(json.dumps(document(cast(OpenAPI, app)), indent=2))


def _wanted(database: Database, slug: str | None) -> list[Project]:
    """The project that was named, or all."""
    with database.as_owner() as transaction:
        return catalog.projects(transaction) if slug is None else [named_project(transaction, slug)]


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
