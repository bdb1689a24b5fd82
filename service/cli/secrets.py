"""`gitstore secrets`: list secrets that the present key cannot decrypt, and discard them."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from gitstore.diff.summary import count
from service.cli.terminal import WHERE, table, with_config
from service.config import Config
from service.run import secret_key
from service.run.bootstrap import OPERATOR
from service.run.database import connected
from webhooks.lost_secrets import Lost, lost, reset

_NAME = "gitstore cli"


@click.group()
def secrets() -> None:
    """Secrets of subscriptions and sources, sealed in the database."""


@secrets.command()
@with_config(*WHERE, "GITSTORE_SECRET_KEY")
def check(config: Config) -> None:
    """List the secrets that the present key does not open; exit status 1 if there are any."""
    with connected(config, _NAME) as database, database.as_owner() as transaction:
        found = lost(transaction, secret_key.existing_sealer(config))
    if found:
        click.echo(_table(found))
        click.echo(secret_key.explanation(config, found), err=True)
        sys.exit(1)
    click.echo("every secret can be opened")


@secrets.command("reset")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_config(*WHERE, "GITSTORE_SECRET_KEY")
def reset_(config: Config, yes: bool) -> None:
    """Clear the secrets that the present key does not open, for good. Others stay as they are."""
    with connected(config, _NAME) as database, database.as_owner() as transaction:
        found = lost(transaction, secret_key.existing_sealer(config))
        if not found:
            click.echo("every secret can be opened: nothing to reset")
            return
        click.echo(_table(found))
        if not yes:
            click.confirm(f"clear {count(len(found), 'secret')} for good?", abort=True)
        for line in reset(transaction, secret_key.created_sealer(config), found, OPERATOR):
            click.echo(line)


def _table(found: Sequence[Lost]) -> str:
    return table(
        ("project", "of", "id", "secret"), [(one.project, one.noun, one.owner, one.kind) for one in found]
    )
