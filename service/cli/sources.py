"""`gitstore source`: upstream repositories of a project."""

from __future__ import annotations

import sys
import threading
from dataclasses import asdict, replace
from datetime import timedelta
from typing import Any, TextIO
from uuid import UUID

import click

from gitstore.upstream.refs import Layout
from service import lookup
from service.actions import sources as actions
from service.actions.sources import Webhook
from service.caller import Operator
from service.cli.operator import operating, remove_leftovers, with_operator
from service.cli.terminal import (
    WHERE,
    Progress,
    as_object,
    as_rows,
    in_json,
    one_of,
    report,
    show,
    with_config,
)
from service.config import Config
from service.worker import source_sync
from sync.db import Database
from webhooks import divergences, sources
from webhooks.divergences import TAKES
from webhooks.forges import Forge
from webhooks.ref_sync import Result
from webhooks.sources import EVERY_WORKFLOW, LONGEST_POLL, POLL_SECONDS, SHORTEST_POLL, Direction, Source
from webhooks.subscriptions import LONGEST_OVERLAP


@click.group("source")
def source() -> None:
    """Upstream repositories to pull from or push to."""


@source.command("add")
@click.argument("project")
@click.argument("url")
@click.option("--forge", type=one_of(Forge), help="Sender of the webhooks. Default: by the URL's host.")
@click.option("--layout", type=one_of(Layout), default=Layout.REFS.value, show_default=True,
              help="The same refs as here, or workflows/<slug>/ of one repository.")  # fmt: skip
@click.option("--direction", type=one_of(Direction), default=Direction.PULL.value, show_default=True,
              help="Direction in which versions and drafts are synced.")  # fmt: skip
@click.option("--workflows", metavar="GLOB", multiple=True, default=EVERY_WORKFLOW, show_default=True,
              help="Slugs of the workflows to sync; may be given several times.")  # fmt: skip
@click.option("--drafts", is_flag=True, help="Sync drafts, too.")
@click.option("--credential-file", type=click.File("r", encoding="utf-8"), metavar="FILE",
              help="File with user:password or an access token; - is standard input.")  # fmt: skip
@click.option("--secret-file", type=click.File("r", encoding="utf-8"), metavar="FILE",
              help="File with the webhook's secret. Default: one is generated.")  # fmt: skip
@click.option("--poll-seconds", type=click.IntRange(SHORTEST_POLL, LONGEST_POLL), default=POLL_SECONDS,
              show_default=True, help="Interval of polling, in addition to webhooks.")  # fmt: skip
@as_object
@with_config(*WHERE, "GITSTORE_PUBLIC_URL", "GITSTORE_BIND", "GITSTORE_SECRET_KEY", "GITSTORE_EGRESS_ALLOW")
def add(config: Config, project: str, url: str, as_json: bool, **options: Any) -> None:
    """Add the Git repository at URL as a source of PROJECT, and print the webhook to add at its forge."""
    values = {name.removesuffix("_file"): _read(value) for name, value in options.items()}
    with operating(config, project) as operator:
        made, webhook = actions.create(operator, url, **values)
    if as_json:
        click.echo(in_json({"id": made.id, "url": made.url, "webhook": asdict(webhook)}))
        return
    click.echo(f"source {made.id}: {made.direction} {made.url} ({made.layout})")
    click.echo(f"webhook to add to the repository ({made.forge}), content type {webhook.content_type}:")
    _show(webhook)
    click.echo(f"first import: gitstore source sync {project}, or by the worker", err=True)


@source.command("list")
@click.argument("project")
@as_rows
@with_operator
def list_(operator: Operator, as_json: bool) -> None:
    """List the sources of PROJECT, and their open divergences."""
    with operator.reading() as tx:
        rows = sources.sources(tx, operator.project_id)
        open_ = {row.id: divergences.open_divergences(tx, operator.project_id, row.id) for row in rows}
    heads = [
        "id", "direction", "layout", "workflows", "drafts", "state", "last success", "divergences", "url",
    ]  # fmt: skip
    cells = [_row(row, len(open_[row.id])) for row in rows]
    if as_json:
        heads.append("last error")
        cells = [(*cell, row.last_error) for cell, row in zip(cells, rows, strict=True)]
    show(heads, cells, as_json=as_json)
    for row in () if as_json else rows:
        if row.last_error:
            click.echo(f"{row.id}: {row.last_error}")
        for one in open_[row.id]:
            click.echo(f"{row.id}: {one.ref}: {one.reason}")


@source.command("resolve")
@click.argument("project")
@click.argument("source_id", metavar="SOURCE", type=click.UUID)
@click.argument("ref")
@click.argument("take", type=click.Choice(TAKES))
@as_object
@with_operator
def resolve(operator: Operator, source_id: UUID, ref: str, take: str, as_json: bool) -> None:
    """Resolve the divergence of REF, as listed, between a SOURCE and PROJECT.

    For a draft, the next sync takes theirs, or ours is kept. Acknowledge any other ref.
    """
    with operator.reading() as tx:
        row = actions.find(tx, operator, str(source_id))
        open_ = divergences.open_divergences(tx, operator.project_id, row.id)
    one = next((one for one in open_ if one.ref == ref), None)
    if one is None:
        raise lookup.not_found("open divergence", ref, ": see gitstore source list")
    actions.resolve(operator, str(row.id), str(one.id), take)
    line = f"{ref}: the next sync takes theirs" if take == "theirs" else f"{ref}: both sides are kept"
    report(line, {"source": row.id, "ref": ref, "take": take}, as_json=as_json)


@source.command("rotate")
@click.argument("project")
@click.argument("source_id", metavar="SOURCE", type=click.UUID)
@click.option("--secret-file", type=click.File("r", encoding="utf-8"), metavar="FILE",
              help="File with the new secret. Default: one is generated.")  # fmt: skip
@click.option("--overlap-hours", type=click.IntRange(0, LONGEST_OVERLAP), default=24, show_default=True,
              help="Time for which the previous secret is accepted, too.")  # fmt: skip
@as_object
@with_config(*WHERE, "GITSTORE_PUBLIC_URL", "GITSTORE_BIND", "GITSTORE_SECRET_KEY")
def rotate(
    config: Config,
    project: str,
    source_id: UUID,
    secret_file: TextIO | None,
    overlap_hours: int,
    as_json: bool,
) -> None:
    """Replace the secret of the webhook of a SOURCE of PROJECT, and print the webhook."""
    secret = _read(secret_file)
    with operating(config, project) as operator:
        made, webhook = actions.rotate(operator, str(source_id), timedelta(hours=overlap_hours), secret)
    if as_json:
        click.echo(in_json({"id": made.id, "url": made.url, "webhook": asdict(webhook)}))
        return
    click.echo(f"webhook to change at the repository ({made.forge}):")
    _show(webhook)


@source.command("sync")
@click.argument("project")
@click.argument("source_id", metavar="[SOURCE]", type=click.UUID, required=False)
@as_rows
@with_config(*WHERE, "GITSTORE_SECRET_KEY", "GITSTORE_EGRESS_ALLOW", "GITSTORE_MAX_IMPORT")
def sync(config: Config, project: str, source_id: UUID | None, as_json: bool) -> None:
    """Sync a SOURCE of PROJECT, or all of them, now; exit status 1 if one fails."""
    with operating(config, project) as operator:
        with operator.reading() as tx:
            rows = [row for row in sources.sources(tx, operator.project_id) if source_id in (None, row.id)]
        if source_id is not None and not rows:
            raise lookup.not_found("source", str(source_id), f" in {project}: see gitstore source list")
        with operator.opened() as repository:
            remove_leftovers(operator.services.database, repository)
        results = []
        for row in rows:
            result = _sync(config, operator.services.database, row)
            results.append((row, result))
            if not as_json:
                _print(row, result)
    if as_json:
        click.echo(in_json([_facts(row, result) for row, result in results]))
    sys.exit(1 if any(result is not None and result.error for _, result in results) else 0)


def _sync(config: Config, database: Database, row: Source) -> Result | None:
    """Synchronize a source; None if a worker is doing so."""
    syncs = source_sync(config, database, threading.Event())
    claim = syncs.claim(row.id)
    if claim is None:
        return None
    # A manual sync also rechecks known divergences.
    return syncs.sync(replace(claim, full_sync=True), Progress(f"importing from {row.url}"))


def _facts(row: Source, result: Result | None) -> dict[str, object]:
    found = result or Result()
    return {
        "id": row.id,
        "url": row.url,
        "busy": result is None,
        "published": found.published,
        "saved": found.saved,
        "pushed": found.pushed,
        "gaps": found.gaps,
        "diverged": [{"ref": one.ref, "reason": one.reason} for one in found.diverged.values()],
        "error": found.error.message if found.error else None,
    }


def _print(row: Source, result: Result | None) -> None:
    if result is None:
        click.echo(f"{row.url}: already being synced by a worker: see gitstore source list")
        return
    for slug, numbers in result.published.items():
        click.echo(f"{row.url}: {slug}: {len(numbers)} new, the latest is v{max(numbers)}")
    for slug, runs in result.gaps.items():
        missing = ", ".join(f"v{a}" if a == b else f"v{a} to v{b}" for a, b in runs)
        click.echo(f"{row.url}: {slug}: the upstream lacks {missing}; skipped")
    for slug in result.saved:
        click.echo(f"{row.url}: {slug}: the draft changed")
    for ref in result.pushed:
        click.echo(f"{row.url}: pushed {ref}")
    for one in result.diverged.values():
        click.echo(f"{row.url}: {one.ref}: {one.reason}")
    if result.error is not None:
        click.echo(f"{row.url}: {result.error.message}", err=True)
    elif result.report is None and not result.diverged:
        click.echo(f"{row.url}: nothing new")


def _show(webhook: Webhook) -> None:
    click.echo(f"  URL     {webhook.url}")
    click.echo(f"  secret  {webhook.secret}")
    if webhook.secret_as is not None:
        click.echo(f"          as {webhook.secret_as}")
    click.echo(f"  events  {', '.join(webhook.events)}")


def _row(row: Source, divergences: int) -> tuple[object, ...]:
    drafts = "yes" if row.drafts else "no"
    return (
        row.id, row.direction, row.layout, " ".join(row.workflows), drafts, row.state, row.succeeded_at,
        divergences,
        row.url,
    )  # fmt: skip


def _read(value: Any) -> Any:
    """Return the content of a file, without surrounding space; any other value as it is."""
    return value.read().strip() if hasattr(value, "read") else value
