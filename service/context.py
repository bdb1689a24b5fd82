"""Request context: the services built by create_app, and the caller.

A view begins with `enter`, which authenticates and authorizes; the `Caller` that it returns reads rows as
that principal, and opens the project's Store for one write.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast
from uuid import UUID, uuid4

from dulwich.objects import ShaFile
from flask import abort, current_app, request

from gitstore.errors import GitstoreError
from gitstore.model import Permission, Person, Rules
from gitstore.repository import Repository
from gitstore.store import Actors, Store
from service import auth, fairness, logs
from service.access import authorize, check_project
from service.auth import Principal
from service.config import Config
from service.fairness import FairShares
from service.logs import Event
from service.metrics import Metrics
from service.projects import Projects
from service.scraping import Scraper
from sync import git_objects
from sync.audit import Origin
from sync.catalog import Project
from sync.db import Database, Transaction
from webhooks.egress import Egress
from webhooks.secrets import Sealer

EXTENSION: Final = "gitstore"
FORKS: Final = "gitstore.forks"
"""Flask extension that holds this process's fork server (service/run/forking.py), if it has one."""
PATIENCE: Final = 5.0
"""Seconds for which HTTP waits for Postgres to mirror a Git write before it reports a failure."""
FACTS: Final = "gitstore.facts"
"""WSGI environment key for the fields of a request's log line; `request_id` is always present."""

_SANE_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._~:+/=@-]{1,128}")


@dataclass(frozen=True, slots=True)
class Services:
    """Services that create_app builds once per process."""

    config: Config
    database: Database
    projects: Projects
    metrics: Metrics
    scraper: Scraper
    shares: FairShares
    egress: Egress
    sealer: Callable[[], Sealer]
    """Created at first use, which may also create its key."""


def services() -> Services:
    """Return the services of the application that serves this request."""
    return cast(Services, current_app.extensions[EXTENSION])


def request_id_from(header: str | None) -> str:
    """Return the request id given by a client or a proxy if it is valid, else a new one."""
    return header if header is not None and _SANE_REQUEST_ID.fullmatch(header) else str(uuid4())


def request_id() -> str:
    """Return the id of this request."""
    return str(request.environ.get(FACTS, {}).get("request_id", ""))


def note(**facts: object) -> None:
    """Add `facts` to this request's log line."""
    request.environ.setdefault(FACTS, {}).update(facts)


def origin(principal: Principal, door: str) -> Origin:
    """Return the origin of this request for the audit log."""
    return Origin(str(principal.id), principal.name, door, request.remote_addr, request_id() or None)


def admit(principal: Principal | None, *, definitions: int = 0) -> None:
    """Wait for this request's turn if it is heavy; the turn lasts until its answer is sent.

    `definitions` is the size in bytes of the stored definitions that it works on. Raises `too_many_requests`.
    Does not return if a process of its own answers the request: that process starts the view again.
    """
    environ = request.environ
    heavy = fairness.is_heavy(request.endpoint, request.content_length or 0, definitions)
    if not heavy or fairness.LEASE in environ:
        return
    tenant, credential = fairness.ANONYMOUS, str(request.remote_addr)
    if principal is not None:
        tenant, credential = str(principal.project.id), str(principal.id)
    is_gone = environ.get(fairness.DISCONNECTED, lambda: False)
    environ[fairness.LEASE] = services().shares.admit(tenant, credential, is_gone)
    forks = current_app.extensions.get(FORKS)
    if forks is not None and fairness.is_apart(request.endpoint, request.content_length or 0):
        answer = forks.run(environ)
        if answer is not None:
            abort(answer)


@dataclass(frozen=True, slots=True)
class Caller:
    """Authenticated principal with the permission that a view requires."""

    services: Services
    principal: Principal
    origin: Origin

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
    def said(self) -> dict[str, Any]:
        """Log fields that identify the caller."""
        return {"project": self.project.slug, "principal": self.principal.name}

    def reading(self) -> AbstractContextManager[Transaction]:
        """Return a read-only transaction with the caller's access to rows."""
        return self.services.database.reading(self.principal.claims)

    def as_user(self) -> AbstractContextManager[Transaction]:
        """Return a transaction with the caller's read and write access to rows, without Git."""
        return self.services.database.as_user(self.principal.claims)

    @contextmanager
    def opened(self) -> Iterator[Repository]:
        """Open the project's repository for reading; objects missing in Git are read from Postgres."""
        with closing(self.services.projects.reader(self.project)) as repository:
            repository.objects.elsewhere = self._kept
            yield repository

    def _kept(self, oid: bytes) -> ShaFile | None:
        with self.reading() as tx:
            return git_objects.load(tx, self.project_id, [oid]).get(oid)

    @contextmanager
    def writing(self) -> Iterator[Store]:
        """Open the project's Store for writing; each write is mirrored before it returns."""
        projects, database = self.services.projects, self.services.database
        with closing(projects.writer(self.project, database, self.origin, patience=PATIENCE)) as store:
            yield store

    def who(self, author: Person | None) -> Actors:
        """Return the actors of a change: the caller as actor, and `author`, by default the caller."""
        return Actors(self.principal.person, author or self.principal.person)

    @contextmanager
    def acting(
        self, action: Event, workflow: str, count: Callable[..., None] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Log the key action of the block as done, or as refused.

        The block adds its facts to the yielded dict. `count` is called with the door and the outcome, unless
        a fact `new` reports that nothing was new.
        """
        facts: dict[str, Any] = {}
        who = {**self.said, "workflow": workflow}
        started = time.perf_counter()
        try:
            yield facts
        except GitstoreError as error:
            if count is not None:
                count(door=self.origin.door, outcome=error.code.value)
            logs.action(
                Event.REFUSED, **who, action=action, code=error.code.value, duration_ms=_since(started)
            )
            raise
        if count is not None and facts.get("new", True):
            count(door=self.origin.door)
        logs.action(action, **{**who, **facts}, duration_ms=_since(started))


def enter(permission: Permission, what: str, *, project: str | None = None) -> Caller:
    """Authenticate and authorize an API caller for `what` (a phrase for messages: "publishing x").

    `project` is the value of `?project=`. Raises `unauthenticated`, `project_not_found` or `forbidden`.
    """
    here = services()
    principal = auth.bearer(here.database, request.headers.get("Authorization"))
    note(principal=principal.name, project=principal.project.slug)
    check_project(principal, project)
    authorize(principal, permission, what)
    admit(principal)
    return Caller(here, principal, origin(principal, "http"))


def _since(started: float) -> float:
    return round((time.perf_counter() - started) * 1000, 1)
