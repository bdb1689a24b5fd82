"""`gitstore doctor` and `gitstore secrets`: check an installation, and advise what to do about each fault."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Final, LiteralString

import click

from gitstore.diff.summary import count
from gitstore.errors import ConfigError, GitstoreError
from gitstore.git import volume
from service import assets
from service.cli.operator import APPLICATION, owner_transaction
from service.cli.terminal import WHERE, as_rows, in_json, show, table, with_config
from service.config import Config, misspelt
from service.projects import Projects
from service.run import secret_key
from service.run.bootstrap import OPERATOR
from service.run.database import connected
from service.run.secret_key import existing_sealer, explanation
from service.run.serve import check_git
from sync import catalog, migrate
from sync.db import Database
from sync.notifications import check_direct, shares_backends
from webhooks import delivery_queue, source_queue
from webhooks.housekeeping import gauges
from webhooks.lost_secrets import Lost, lost, reset

_LITTLE_SPACE: Final = 0.05
_LEAST_SPACE: Final = 2**30
_SKEW_SECONDS: Final = 2.0
_LATE_SECONDS: Final = 300.0
_SERVER: Final[LiteralString] = """
    select current_setting('server_version'), clock_timestamp(), current_setting('max_connections')::int,
        current_setting('fsync'), current_setting('synchronous_commit'), current_setting('full_page_writes')
"""


class Level(StrEnum):
    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a check; `action` is what to do about it."""

    check: str
    level: Level
    message: str
    action: str = ""


@click.command()
@click.option(
    "--other-mount",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="The data folder by another mount, as another node has it: checks the caches of a network volume.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@with_config(*WHERE, "DATABASE_DIRECT_URL", "GITSTORE_SECRET_KEY")
def doctor(config: Config, other_mount: Path | None, as_json: bool) -> None:
    """Check this installation.

    Checks settings, git, the volume, the database and the background work, and advises what to do. Changes
    nothing. Without DATABASE_URL, the embedded Postgres is started for the checks unless it runs.
    """
    findings = list(_examined(config, other_mount))
    if as_json:
        click.echo(in_json([asdict(finding) for finding in findings]))
    else:
        rows = [(one.level, one.check, one.message) for one in findings]
        click.echo(table(("RESULT", "CHECK", "FINDING"), rows))
        for one in findings:
            if one.action:
                click.echo(f"{one.check}: {one.action}", err=True)
    sys.exit(1 if any(one.level is Level.PROBLEM for one in findings) else 0)


def _examined(config: Config, other_mount: Path | None) -> Iterator[Finding]:
    """Yield the findings of each check. What needs the database is left out if there is none."""
    yield from _settings()
    yield from _trial("git", check_git, "git is new enough", "install git 2.36 or newer")
    yield from _editor()
    yield from _volume(config, other_mount)
    with ExitStack() as stack:
        try:
            database = stack.enter_context(connected(config, APPLICATION))
        except GitstoreError as error:
            # The message of a `config` error has the advice.
            action = "" if isinstance(error, ConfigError) else "start Postgres, or correct DATABASE_URL"
            yield Finding("database", Level.PROBLEM, error.message, action)
            return
        yield from _server(database)
        behind = list(_schema(database))
        yield from behind
        if any(finding.level is not Level.OK for finding in behind):
            return  # the other checks read the tables
        yield from _pooler(database)
        secrets = "every secret in the database can be decrypted"
        yield from _trial("secret key", lambda: _secrets(config, database), secrets, "restore the key")
        yield from _repositories(config, database)
        yield from _work(config, database)
        yield from _attention(database)


def _trial(check: str, attempt: Callable[[], object], success: str, action: str) -> Iterator[Finding]:
    try:
        attempt()
    except GitstoreError as error:
        yield Finding(check, Level.PROBLEM, error.message, action)
    else:
        yield Finding(check, Level.OK, success)


def _settings() -> Iterator[Finding]:
    """Report misspelt settings; invalid ones have ended the command before."""
    wrong = misspelt()
    for given, meant in wrong.items():
        yield Finding("settings", Level.WARNING, f"{given} is not a setting", f"rename it to {meant}")
    if not wrong:
        yield Finding("settings", Level.OK, "all settings are valid")


def _editor() -> Iterator[Finding]:
    if assets.are_built():
        yield Finding("editor", Level.OK, "the visual editor is built")
    else:
        message = "the visual editor was not built: pages have plain forms"
        yield Finding("editor", Level.WARNING, message, f"run {assets.HOW_TO_BUILD}, and restart the service")


def _volume(config: Config, other_mount: Path | None) -> Iterator[Finding]:
    folder = config.repositories if config.repositories.is_dir() else config.data
    other = other_mount / folder.relative_to(config.data) if other_mount is not None else None
    try:
        faults = list(volume.faults(folder, other))
        space = shutil.disk_usage(folder)
    except OSError as error:
        message = f"{folder}: {error.strerror}"
        action = "create the data folder with gitstore serve, or set GITSTORE_DATA; its user must own it"
        yield Finding("volume", Level.PROBLEM, message, action)
        return
    for fault in faults:
        yield Finding("volume", Level.PROBLEM, fault, "see docs/operations.md for what a volume needs")
    if not faults:
        yield Finding("volume", Level.OK, "files are durable, links and renames atomic, locks exclusive")
    shown = f"{space.free / 2**30:.1f} GiB of {space.total / 2**30:.1f} GiB are free"
    scarce = space.free < _LEAST_SPACE or space.free < space.total * _LITTLE_SPACE
    action = "free some, or enlarge the volume: writes are refused when it is full" if scarce else ""
    yield Finding("space", Level.WARNING if scarce else Level.OK, shown, action)


def _server(database: Database) -> Iterator[Finding]:
    with database.as_owner() as tx:
        before = datetime.now(UTC)
        version, there, most, *durable = tx.tuples(_SERVER)[0]
        here = before + (datetime.now(UTC) - before) / 2
    yield Finding("database", Level.OK, f"Postgres {version}, at most {most} connections")
    skew = abs((there - here).total_seconds())
    clock = f"the clocks of this machine and of Postgres differ by {skew:.1f} s"
    if skew > _SKEW_SECONDS:
        yield Finding("clock", Level.WARNING, clock, "synchronize the clocks (chrony, systemd-timesyncd)")
    else:
        yield Finding("clock", Level.OK, clock)
    for name, value in zip(("fsync", "synchronous_commit", "full_page_writes"), durable, strict=True):
        if value == "off":
            message = f"{name} is off: a crash of Postgres can lose tokens, members and the audit log"
            yield Finding("database", Level.WARNING, message, f"set {name} = on")


def _schema(database: Database) -> Iterator[Finding]:
    """Compare the applied migrations with those of this release."""
    try:
        missing = migrate.pending(database.conninfo)
    except GitstoreError as error:
        yield Finding("schema", Level.PROBLEM, error.message, "run the version that this database belongs to")
        return
    if missing:
        message = f"{len(missing)} migrations are not applied, {missing[0].name} first"
        yield Finding("schema", Level.PROBLEM, message, "run gitstore migrate, or start gitstore serve")
    else:
        yield Finding("schema", Level.OK, "all migrations are applied")


def _pooler(database: Database) -> Iterator[Finding]:
    if database.direct is not None:
        direct = database.direct
        success = "DATABASE_DIRECT_URL receives notifications"
        yield from _trial("pooler", lambda: check_direct(database.conninfo, direct), success, "correct it")
    elif shares_backends(database.conninfo):
        message = "a pooler in transaction mode: the worker looks for work every second"
        yield Finding("pooler", Level.WARNING, message, "set DATABASE_DIRECT_URL for work to begin at once")
    else:
        yield Finding("pooler", Level.OK, "Postgres can notify the worker")


def _secrets(config: Config, database: Database) -> None:
    """Raise `config` if a secret cannot be decrypted. Unlike `checked_sealer`, make no key."""
    with database.as_owner() as tx:
        undecryptable = lost(tx, existing_sealer(config))
    if undecryptable:
        raise ConfigError(explanation(config, undecryptable))


def _repositories(config: Config, database: Database) -> Iterator[Finding]:
    projects = Projects(config)
    with database.as_owner() as tx:
        rows = catalog.projects(tx)
    absent = [row for row in rows if projects.missing(row)]
    for row in absent:
        message = f"the repository of the project {row.slug} is missing"
        action = "mount the volume, or run gitstore repair --new-repository"
        yield Finding("repositories", Level.PROBLEM, message, action)
    if not absent:
        yield Finding("repositories", Level.OK, f"all repositories are there: {len(rows)}")


def _work(config: Config, database: Database) -> Iterator[Finding]:
    """Report late background work."""
    with database.as_mirror() as tx:
        lags = {
            "the mirror": Projects(config).mirror_lag(time.time()),
            "sources": source_queue.lag(tx),
            "deliveries": delivery_queue.lag(tx),
        }
    late = [f"{what} by {seconds:.0f} s" for what, seconds in lags.items() if seconds > _LATE_SECONDS]
    if late:
        action = "start gitstore serve or gitstore worker; if one runs, read its log"
        yield Finding("worker", Level.PROBLEM, f"background work is late: {', '.join(late)}", action)
    else:
        yield Finding("worker", Level.OK, "no background work is late")


def _attention(database: Database) -> Iterator[Finding]:
    """Report what waits for an owner of a project."""
    with database.as_mirror() as tx:
        now = gauges(tx)
    stuck = now.sources["failing"] + now.sources["poison"]
    waiting = (
        ("sources", stuck, "sources cannot be synchronized", "read last_error: gitstore source list PROJECT"),
        ("sources", now.divergences, "refs of sources differ", "resolve them on the page of the source"),
        (
            "webhooks",
            now.subscriptions["disabled"],
            "subscriptions were disabled after permanent failures",
            "correct their URLs on the page of webhooks",
        ),
    )
    for check, number, what, action in waiting:
        if number:
            yield Finding(check, Level.WARNING, f"{number} {what}", action)


# Secrets of subscriptions and sources

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
