"""The operator at the command line, as a caller of actions with the access of the tables' owner."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import click

from gitstore.errors import BusyError
from gitstore.repository import Repository
from service.caller import Backend, Operator, operator
from service.cli.terminal import WHERE, with_config
from service.config import Config
from service.projects import DEFAULT
from service.run.bootstrap import OPERATOR, named_project
from service.run.database import connected
from sync.catalog import Project
from sync.db import Database, Transaction
from sync.unit_of_work import MirrorUnitOfWork

APPLICATION: Final = "gitstore cli"

in_project = click.option("--project", default=DEFAULT, show_default=True, help="The project.")
"""Decorate a command on a project with the option that names it."""

with_message = click.option("--message", default="", help="The reason, which the ledger records.")
"""Decorate a command that records a reason."""


def operator_of(config: Config, database: Database, project: Project) -> Operator:
    return operator(Backend.of(config, database), project, OPERATOR)


@contextmanager
def operating(config: Config, project: str) -> Iterator[Operator]:
    """Connect to the database for a command on one project; raises `project_not_found`."""
    with connected(config, APPLICATION) as database:
        with database.as_owner() as tx:
            row = named_project(tx, project)
        yield operator_of(config, database, row)


def with_operator(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a command on a project, which gets an Operator in place of a Config and the project."""

    @functools.wraps(command)
    def operated(config: Config, *arguments: Any, project: str, **options: Any) -> Any:
        with operating(config, project) as operator:
            return command(operator, *arguments, **options)

    return with_config(*WHERE)(operated)


def remove_leftovers(database: Database, repository: Repository) -> None:
    """Remove the lock files of a killed run of the command, which would block this one."""
    with suppress(BusyError):  # writers leave no gap, so a service runs, whose worker removes them
        MirrorUnitOfWork(database, repository).sweep()


@contextmanager
def owner_transaction(config: Config) -> Iterator[Transaction]:
    """Connect to the database, for one transaction of the tables' owner."""
    with connected(config, APPLICATION) as database, database.as_owner() as tx:
        yield tx
