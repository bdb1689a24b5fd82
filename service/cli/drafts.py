"""`gitstore draft`: list and restore discarded drafts."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from service.actions import drafts
from service.cli.operator import operating
from service.cli.terminal import WHERE, table, with_config
from service.config import Config


@click.group()
def draft() -> None:
    """Discarded drafts."""


@draft.command("list")
@click.argument("project")
@click.argument("slug")
@with_config(*WHERE)
def list_(config: Config, project: str, slug: str) -> None:
    """List the discarded drafts of the workflow SLUG of PROJECT, newest first."""
    with operating(config, project) as operator, operator.opened() as repository:
        rows = [
            (_time(draft.at), draft.author.name, draft.commit, draft.ref)
            for draft in drafts.discarded(repository, slug)
        ]
    click.echo(table(("discarded at", "author", "commit", "ref"), rows))


@draft.command("restore")
@click.argument("project")
@click.argument("slug")
@click.option("--at", metavar="TIME", help="When it was discarded, as shown by `list`. Default: the last.")
@with_config(*WHERE)
def restore(config: Config, project: str, slug: str, at: str | None) -> None:
    """Reopen a discarded draft of the workflow SLUG of PROJECT."""
    moment = _moment(at)
    with operating(config, project) as operator:
        saved = drafts.restore(operator, slug, at=moment)
    click.echo(f"restored the draft of {slug}: {saved.commit}")


def _moment(text: str | None) -> datetime | None:
    """Parse ISO 8601, as in the output of `list` and in ref names; UTC if no zone is given."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        message = "expected a time such as 2026-01-31T12:00:00.123456Z"
        raise click.BadParameter(message, param_hint="--at") from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _time(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
