"""Caller: the principal for whom an action runs, with access to rows and to the project's repository.

It knows neither HTTP nor Flask: the API (`context.enter`), the pages and the command line make their own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, LiteralString, TypeVar
from uuid import UUID

from dulwich.objects import ShaFile

from gitstore.errors import ForbiddenError, GitstoreError
from gitstore.model import Actor, Limits, Person, Rules
from gitstore.repository import Repository
from gitstore.store import Actors, Store
from service import logs
from service.access import Identity, Principal, Role, unknown_project
from service.config import Config
from service.issuers import User
from service.logs import Event
from service.projects import Projects
from service.run.secret_key import checked_sealer
from sync import audit, catalog, git_objects, tokens
from sync.audit import Origin
from sync.catalog import Project
from sync.db import Database, SingleReading, Transaction
from webhooks.egress import Egress
from webhooks.secrets import Sealer

T = TypeVar("T")

PATIENCE: Final = 5.0
"""Seconds for which a caller waits for Postgres to mirror a Git write before it reports a failure."""
_OPERATOR: Final = Person("operator", "operator@localhost")


def _admit_at_once(_size: int) -> None:
    """Admit work of any size: nothing competes with it."""


def _count_nothing(**_labels: str) -> None:
    """Count nothing: a single command has no metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backend:
    """Services that actions use. They are created once per process."""

    config: Config
    database: Database
    projects: Projects
    egress: Egress
    sealer: Callable[[], Sealer]
    """Created at first use, which may also create its key."""
    count_publish: Callable[..., None] = _count_nothing
    """Count an attempt to publish, with its `door`, and its `outcome` if it failed."""
    count_release: Callable[..., None] = _count_nothing
    """Count an attempt to release or to roll back, with its `door`, and its `outcome`."""
    count_move: Callable[..., None] = _count_nothing
    """Count an attempt to move or to promote a pointer, with its `door`, and its `outcome`."""

    @classmethod
    def of(cls, config: Config, database: Database, **counts: Callable[..., None]) -> Backend:
        """Return the services of a process that serves no requests; `counts` are some of the fields."""
        return Backend(
            config=config,
            database=database,
            projects=Projects(config),
            egress=Egress(config.egress_allow),
            sealer=partial(checked_sealer, config, database),
            **counts,
        )


@dataclass(frozen=True, slots=True)
class Caller:
    """Authenticated principal with the permission that an action requires."""

    services: Backend
    principal: Principal
    origin: Origin
    admit: Callable[[int], None] = field(default=_admit_at_once)
    """Wait for the turn of work on this many bytes of definitions; raises `too_many_requests`."""
    on_behalf_of: str | None = None
    """The user for whom the principal, a program, acts, as the program names the user."""

    @property
    def project(self) -> Project:
        return self.principal.project

    @property
    def project_id(self) -> UUID:
        return self.project.id

    @property
    def rules(self) -> Rules:
        return Rules(self.project.rules)

    @property
    def limits(self) -> Limits:
        return self.services.config.limits.under(self.rules)

    def reading(self) -> AbstractContextManager[Transaction]:
        """Return a read-only transaction with the caller's access to rows."""
        return self.services.database.reading(self.principal.claims)

    def reading_once(self) -> SingleReading:
        """Return a reader of single rows with the caller's access, each read in one round trip."""
        return SingleReading(self.services.database, self.principal.claims)

    def as_user(self) -> AbstractContextManager[Transaction]:
        """Return a transaction with the caller's read and write access to rows, without Git."""
        return self.services.database.as_user(self.principal.claims)

    def check_visible(self) -> None:
        """Raise `project_not_found` unless Postgres shows the caller the project: Git has no second wall."""
        if self.principal.visible == self.project_id:
            return
        if catalog.project_by_id(self.reading_once(), self.project_id) is None:
            raise unknown_project(self.project.slug)

    def stored_object(self, oid: bytes) -> ShaFile | None:
        """Return an object of the project that Postgres keeps with bytes that match its id, or None."""
        with self.reading() as tx:
            return git_objects.load(tx, self.project_id, [oid]).get(oid)

    @contextmanager
    def opened(self, *, shown: bool = False) -> Iterator[Repository]:
        """Open the project's repository for reading; objects missing in Git are read from Postgres.

        `shown`: the caller was shown a row of the project just now, which `check_visible` would repeat.
        """
        if not shown:
            self.check_visible()
        with closing(self.services.projects.reader(self.project)) as repository:
            repository.objects.elsewhere = self.stored_object
            yield repository

    @contextmanager
    def writing(self) -> Iterator[Store]:
        """Open the project's Store for writing; each write is mirrored before it returns.

        What the block reads before a write is read again under the write's locks.
        """
        self.check_visible()
        projects, database = self.services.projects, self.services.database
        with (
            closing(projects.writer(self.project, database, self.origin, patience=PATIENCE)) as store,
            store.refs.cached_reads(),
        ):
            yield store

    def actors(self, author: Person | None = None) -> Actors:
        """Return the actors of a change: the caller as actor, and `author`, by default the caller."""
        person = self.principal.person
        actor = person if isinstance(person, Actor) else Actor(person.name, person.email)
        actor = replace(actor, on_behalf_of=self.on_behalf_of, request=self.origin.request_id)
        return Actors(actor, author or person)

    def log(self, event: Event, **facts: Any) -> None:
        """Log an action of the caller."""
        logs.action(event, project=self.project.slug, principal=self.principal.name, **facts)

    def audit(self, tx: Transaction, action: str, target: object, details: dict[str, Any]) -> None:
        """Record an action of the caller in the audit log."""
        if self.on_behalf_of is not None:
            details = {**details, "on_behalf_of": self.on_behalf_of}
        audit.note(tx, self.project_id, self.origin, action, str(target), details)

    @contextmanager
    def acting(
        self, action: Event, slug: str | None, count: Callable[..., None] = _count_nothing, **about: Any
    ) -> Iterator[tuple[Store, dict[str, Any]]]:
        """Open the Store for an action on a workflow, and log the action of the block as done, or as refused.

        `about` names the object of another action. The block adds facts to the yielded dict. `count` is
        called with the door and, for a refusal, the outcome; not if a fact `new` reports that nothing was
        new.
        """
        about = about if slug is None else {"workflow": slug, **about}
        facts: dict[str, Any] = {**about}
        started = time.perf_counter()
        try:
            with self.writing() as store:
                yield store, facts
        except GitstoreError as error:
            code = error.code.value
            count(door=self.origin.door, outcome=code)
            refusal = {**about, "action": action, "code": code}
            self.log(Event.REFUSED, **refusal, duration_ms=_milliseconds_since(started))
            raise
        if facts.get("new", True):
            count(door=self.origin.door)
        self.log(action, **facts, duration_ms=_milliseconds_since(started))


class _OwnerReading(SingleReading):
    """Reads of single rows with the access of the tables' owner."""

    def rows(self, row: type[T], query: LiteralString, **values: object) -> list[T]:
        with self._database.as_owner() as tx:
            return tx.rows(row, query, **values)


class Operator(Caller):
    """The operator, who acts on one project with the access of the tables' owner. Nothing is logged."""

    def reading(self) -> AbstractContextManager[Transaction]:
        return self.services.database.as_owner()

    def reading_once(self) -> SingleReading:
        return _OwnerReading(self.services.database, self.principal.claims)

    def as_user(self) -> AbstractContextManager[Transaction]:
        return self.services.database.as_owner()

    def actors(self, author: Person | None = None) -> Actors:
        return Actors(_OPERATOR, author or _OPERATOR)

    def log(self, event: Event, **facts: Any) -> None:
        pass


def operator(backend: Backend, project: Project, origin: Origin) -> Operator:
    principal = Principal(UUID(int=0), origin.actor_name, "operator", project, Role.OWNER)
    return Operator(backend, principal, origin)


def in_the_name_of(backend: Backend, project_id: UUID, actor: UUID, user: str | None) -> Caller:
    """Return the caller for work that a person, or a token, left to the worker, with their present role.

    `user` is the user, for one who is not a token. Raises `forbidden` if they have no role any more.
    """
    with backend.database.as_owner() as tx:
        project = catalog.project_by_id(tx, project_id)
        token = None if user else tokens.valid(tx, project_id, actor)
    role = token.role if token else None
    identity = Identity(actor, token.name if token else "", "token")
    if user:
        identity = Identity.of(User.parse(user))
        found = tokens.user_role(backend.database, identity.claims, named=str(project_id))
        role = found.role if found else None
    if project is None or role is None or identity.id != actor:
        raise ForbiddenError("its author has no access to the project any more")
    principal = Principal(identity.id, identity.name, identity.kind, project, Role(role), user=identity.user)
    return Caller(backend, principal, Origin(str(principal.id), principal.name, "worker"))


def _milliseconds_since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 1)
