"""`gitstore draft`: list and restore discarded drafts, for the operator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from itertools import islice
from typing import Final

import click

from gitstore.definition.quoting import clip
from gitstore.errors import Code, NotFoundError
from gitstore.model import Person
from gitstore.names import show
from gitstore.store import Actors, Store
from gitstore.system import rfc3339
from service.cli.terminal import WHERE, table, with_config
from service.config import Config
from service.projects import Projects
from service.run.bootstrap import OPERATOR, named_project
from service.run.database import connected

_PERSON: Final = Person("operator", "operator@localhost")
_MOST: Final = 100


@click.group()
def draft() -> None:
    """Drafts that were discarded."""


@draft.command("list")
@click.argument("project")
@click.argument("slug")
@with_config(*WHERE)
def list_(config: Config, project: str, slug: str) -> None:
    """List the discarded drafts of the workflow SLUG of PROJECT, the newest first."""
    with _opened(config, project, slug) as store:
        rows = [
            (_time(kept.at), store.snapshot(slug, kept.commit).author.name, kept.commit, show(kept.ref))
            for kept in islice(store.discarded(slug), _MOST)
        ]
    click.echo(table(("discarded at", "author", "commit", "ref"), rows))


@draft.command("restore")
@click.argument("project")
@click.argument("slug")
@click.option("--at", metavar="TIME", help="When it was discarded, as `list` shows it; else the last one.")
@with_config(*WHERE)
def restore(config: Config, project: str, slug: str, at: str | None) -> None:
    """Open a discarded draft of the workflow SLUG of PROJECT again."""
    when = _moment(at)
    with _opened(config, project, slug) as store:
        saved = store.restore_draft(slug, Actors(_PERSON, _PERSON), at=when)
    click.echo(f"restored the draft of {slug}: {saved.commit}")


@contextmanager
def _opened(config: Config, project: str, slug: str) -> Iterator[Store]:
    """Open the project's Store, whose writes are mirrored; raises `workflow_not_found`."""
    with connected(config, "gitstore cli") as database:
        with database.as_owner() as transaction:
            tenant = named_project(transaction, project)
        with closing(Projects(config).writer(tenant, database, OPERATOR)) as store:
            if not store.exists(slug):
                raise NotFoundError(Code.WORKFLOW_NOT_FOUND, f"{project} has no workflow {clip(slug)!r}")
            yield store


def _moment(text: str | None) -> datetime | None:
    """Parse ISO 8601, as in the output of `list` and in ref names; UTC if no zone is given."""
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter("not like 2026-01-31T12:00:00.123456Z", param_hint="--at") from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _time(when: datetime) -> str:
    return rfc3339(when, "microseconds")
