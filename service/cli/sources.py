"""`gitstore source`: the repositories that a project follows, for the operator."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final
from uuid import UUID

import click

from gitstore.errors import Code, NotFoundError
from gitstore.system import rfc3339
from gitstore.upstream.importer import Layout
from service.cli.terminal import Progress, one_of, table, with_config
from service.config import Config
from service.incoming import means_of
from service.run import secret_key
from service.run.bootstrap import OPERATOR
from service.run.database import connected
from sync import audit, catalog
from sync.catalog import Project
from sync.db import Database, Transaction
from webhooks import divergence_decisions, source_input, sources
from webhooks.egress import Egress
from webhooks.forges import Forge
from webhooks.source_sync import SourceSync
from webhooks.sources import LONGEST_POLL, POLL_SECONDS, SHORTEST_POLL, Direction, Source

WHERE: Final = ("DATABASE_URL", "GITSTORE_DATA")
_NAME: Final = "gitstore cli"


@click.group("source")
def source() -> None:
    """Sources: other repositories, followed or pushed to."""


@source.command("add")
@click.argument("project")
@click.argument("url")
@click.option("--forge", type=one_of(Forge), help="Who sends webhooks; else what the URL tells.")
@click.option("--layout", type=one_of(Layout), default=Layout.REFS.value, show_default=True,
              help="The same refs as here, or workflows/<slug>/ of one repository.")  # fmt: skip
@click.option("--direction", type=one_of(Direction), default=Direction.PULL.value, show_default=True,
              help="Which way versions and drafts go.")  # fmt: skip
@click.option("--credential-file", type=click.File("r", encoding="utf-8"), metavar="FILE",
              help="Holds user:password, or an access token; - is standard input.")  # fmt: skip
@click.option("--secret-file", type=click.File("r", encoding="utf-8"), metavar="FILE",
              help="Holds the webhook's secret; without it, one is made.")  # fmt: skip
@click.option("--poll-seconds", type=click.IntRange(SHORTEST_POLL, LONGEST_POLL), default=POLL_SECONDS,
              show_default=True, help="How often it is asked, webhooks or not.")  # fmt: skip
@with_config(*WHERE, "GITSTORE_PUBLIC_URL", "GITSTORE_BIND", "GITSTORE_SECRET_KEY", "GITSTORE_EGRESS_ALLOW")
def add(config: Config, project: str, url: str, **options: Any) -> None:
    """Let PROJECT follow the Git repository at URL; say what to paste into its forge."""
    credential, secret = (_read(options[name]) for name in ("credential_file", "secret_file"))
    egress = Egress(config.egress_allow)
    new = source_input.check_source(egress, url, forge=options["forge"], credential=credential, secret=secret)
    with _owning(config) as (database, tx):
        made, secret = sources.create(
            tx,
            secret_key.checked_sealer(config, database),
            _named(tx, project).id,
            new.url,
            forge=new.forge,
            login=new.login,
            secret=new.secret,
            layout=Layout(options["layout"]),
            direction=Direction(options["direction"]),
            poll_seconds=options["poll_seconds"],
        )
        details = {"url": made.url, "direction": made.direction}
        audit.note(tx, made.project_id, OPERATOR, "source.created", str(made.id), details)
    click.echo(f"source {made.id}: {made.direction} {made.url} ({made.layout})")
    click.echo(f"a webhook of the repository ({made.forge}), content type application/json:")
    click.echo(f"  URL     {config.public_url}/hooks/{made.id}")
    click.echo(f"  secret  {secret}")
    click.echo(f"  events  {', '.join(Forge(made.forge).profile.subscribe_to)}")
    click.echo(f"the first import: gitstore source sync {project}, or let the worker do it", err=True)


@source.command("list")
@click.argument("project")
@with_config(*WHERE)
def list_(config: Config, project: str) -> None:
    """List the sources of PROJECT, and where it and they differ."""
    with _owning(config) as (_, tx):
        tenant = _named(tx, project)
        rows = sources.sources(tx, tenant.id)
        open_ = {row.id: divergence_decisions.open_divergences(tx, tenant.id, row.id) for row in rows}
    heads = ("id", "direction", "layout", "state", "last success", "differences", "url")
    click.echo(table(heads, [_row(row, len(open_[row.id])) for row in rows]))
    for row in rows:
        if row.last_error:
            click.echo(f"{row.id}: {row.last_error}")
        for one in open_[row.id]:
            click.echo(f"{row.id}: {one.ref}: {one.reason}")


@source.command("sync")
@click.argument("project")
@click.argument("source_id", metavar="[SOURCE]", type=click.UUID, required=False)
@with_config(*WHERE, "GITSTORE_SECRET_KEY", "GITSTORE_EGRESS_ALLOW", "GITSTORE_MAX_IMPORT")
def sync(config: Config, project: str, source_id: UUID | None) -> None:
    """Sync a SOURCE of PROJECT, or all of them, now and here; exit status 1 where one fails."""
    with connected(config, _NAME) as database:
        with database.as_owner() as tx:
            tenant = _named(tx, project)
            wanted = [row for row in sources.sources(tx, tenant.id) if source_id in (None, row.id)]
        if source_id is not None and not wanted:
            raise NotFoundError(Code.NOT_FOUND, f"{project} has no source {source_id}: gitstore source list")
        failed = [row for row in wanted if not _sync(config, database, row)]
    sys.exit(1 if failed else 0)


def _sync(config: Config, database: Database, row: Source) -> bool:
    follower = SourceSync(means_of(config, database), threading.Event())
    claim = follower.claim(row.id)
    if claim is None:
        click.echo(f"{row.url}: a worker is at it right now: gitstore source list shows what comes of it")
        return True
    # A manual sync also rechecks known divergences.
    result = follower.sync(replace(claim, full_sync=True), Progress(f"importing from {row.url}"))
    for slug, numbers in result.published.items():
        click.echo(f"{row.url}: {slug}: {len(numbers)} new, the latest is v{max(numbers)}")
    for slug, runs in result.gaps.items():
        missing = ", ".join(f"v{a}" if a == b else f"v{a} to v{b}" for a, b in runs)
        click.echo(f"{row.url}: {slug}: the upstream lacks {missing}: they stay out")
    for slug in result.saved:
        click.echo(f"{row.url}: {slug}: the draft moved")
    for ref in result.pushed:
        click.echo(f"{row.url}: pushed {ref}")
    for one in result.found.values():
        click.echo(f"{row.url}: {one.ref}: {one.reason}")
    if result.error is not None:
        click.echo(f"{row.url}: {result.error.message}", err=True)
    elif result.report is None and not result.found:
        click.echo(f"{row.url}: nothing new")
    return result.error is None


def _row(row: Source, differences: int) -> tuple[object, ...]:
    last = rfc3339(row.succeeded_at, "seconds") if row.succeeded_at else None
    return row.id, row.direction, row.layout, row.state, last, differences, row.url


def _read(file: Any) -> str | None:
    return file.read().strip() if file is not None else None


@contextmanager
def _owning(config: Config) -> Iterator[tuple[Database, Transaction]]:
    with connected(config, _NAME) as database, database.as_owner() as tx:
        yield database, tx


def _named(tx: Transaction, slug: str) -> Project:
    found = catalog.project(tx, slug)
    if found is None:
        message = f"there is no project {slug!r}: see gitstore project list"
        raise NotFoundError(Code.PROJECT_NOT_FOUND, message, project=slug)
    return found
