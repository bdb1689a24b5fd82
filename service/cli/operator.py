"""The operator at the command line, as a caller of actions with the access of the tables' owner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Final
from uuid import UUID

from gitstore.model import Person
from gitstore.store import Actors
from service.access import Principal, Role
from service.caller import Backend, Caller
from service.config import Config
from service.logs import Event
from service.projects import Projects
from service.run.bootstrap import OPERATOR, named_project
from service.run.database import connected
from service.run.secret_key import checked_sealer
from sync.catalog import Project
from sync.db import Database, Transaction
from webhooks.egress import Egress

APPLICATION: Final = "gitstore cli"
_PERSON: Final = Person("operator", "operator@localhost")


class Operator(Caller):
    """The operator, who acts on one project. The command reports what it does; nothing is logged."""

    def reading(self) -> AbstractContextManager[Transaction]:
        return self.services.database.as_owner()

    def as_user(self) -> AbstractContextManager[Transaction]:
        return self.services.database.as_owner()

    def actors(self, author: Person | None = None) -> Actors:
        return Actors(_PERSON, author or _PERSON)

    def log(self, event: Event, **facts: Any) -> None:
        pass


def operator_of(config: Config, database: Database, project: Project) -> Operator:
    backend = Backend(
        config=config,
        database=database,
        projects=Projects(config),
        egress=Egress(config.egress_allow),
        sealer=partial(checked_sealer, config, database),
    )
    principal = Principal(UUID(int=0), OPERATOR.actor_name, "operator", project, Role.OWNER)
    return Operator(backend, principal, OPERATOR)


@contextmanager
def operating(config: Config, project: str) -> Iterator[Operator]:
    """Connect to the database for a command on one project; raises `project_not_found`."""
    with connected(config, APPLICATION) as database:
        with database.as_owner() as tx:
            row = named_project(tx, project)
        yield operator_of(config, database, row)


@contextmanager
def owner_transaction(config: Config) -> Iterator[Transaction]:
    """Connect to the database, for one transaction of the tables' owner."""
    with connected(config, APPLICATION) as database, database.as_owner() as tx:
        yield tx
