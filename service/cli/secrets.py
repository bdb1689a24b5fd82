"""`gitstore secrets`: list secrets that the current key cannot decrypt, and delete them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

import click

from gitstore.diff.summary import count
from service.cli.operator import owner_transaction
from service.cli.terminal import WHERE, as_rows, show, with_config
from service.config import Config
from service.run import secret_key
from service.run.bootstrap import OPERATOR
from webhooks.lost_secrets import Lost, lost, reset

_HEADS: Final = ("project", "of", "id", "secret")


@click.group()
def secrets() -> None:
    """Secrets of subscriptions and sources, encrypted in the database."""


@secrets.command()
@as_rows
@with_config(*WHERE, "GITSTORE_SECRET_KEY")
def check(config: Config, as_json: bool) -> None:
    """List the secrets that the current key cannot decrypt; exit status 1 if there are any."""
    with owner_transaction(config) as transaction:
        unreadable = lost(transaction, secret_key.existing_sealer(config))
    if unreadable or as_json:
        show(_HEADS, _rows(unreadable), as_json=as_json)
    if unreadable:
        click.echo(secret_key.explanation(config, unreadable), err=True)
        sys.exit(1)
    if not as_json:
        click.echo("every secret can be decrypted")


@secrets.command("reset")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@as_rows
@with_config(*WHERE, "GITSTORE_SECRET_KEY")
def reset_(config: Config, yes: bool, as_json: bool) -> None:
    """Delete the secrets that the current key cannot decrypt. Others are unchanged."""
    with owner_transaction(config) as transaction:
        unreadable = lost(transaction, secret_key.existing_sealer(config))
        if not unreadable:
            click.echo("[]" if as_json else "every secret can be decrypted: nothing to reset")
            return
        if as_json and not yes:
            raise click.UsageError("--json asks nothing: give --yes, too")
        if not as_json:
            show(_HEADS, _rows(unreadable), as_json=False)
        if not yes:
            click.confirm(f"delete {count(len(unreadable), 'secret')}?", abort=True)
        lines = list(reset(transaction, secret_key.created_sealer(config), unreadable, OPERATOR))
    if as_json:
        rows = [(*row, line) for row, line in zip(_rows(unreadable), lines, strict=True)]
        show((*_HEADS, "then"), rows, as_json=True)
    else:
        click.echo("\n".join(lines))


def _rows(secrets: Sequence[Lost]) -> list[tuple[object, ...]]:
    return [(one.project, one.noun, one.owner, one.kind) for one in secrets]
