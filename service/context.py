"""What a request has at hand: the services that create_app put together, and who is calling.

A view begins with `enter`, which authenticates and authorizes; the `Caller` it gets reads rows as that
principal, and opens the project's Store for one write.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, cast
from uuid import UUID, uuid4

from flask import abort, current_app, request

from gitstore.errors import GitstoreError
from gitstore.git.raw import ShaFile
from gitstore.model import Permission, Person, Rules
from gitstore.store import Actors, Store
from service import auth, fairness, logs
from service.access import authorize, check_project
from service.auth import Principal
from service.config import Config
from service.fairness import FairShares
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
"""The extension that is the fork server of this process (service/run/forking.py), where it has one."""
PATIENCE: Final = 5.0
"""Seconds for which HTTP waits for Postgres to follow what is in Git, before it says that it can't."""
FACTS: Final = "gitstore.facts"
"""Where in the WSGI environment a request collects what its log line tells; `request_id` is always there."""

_SANE_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._~:+/=@-]{1,128}")


@dataclass(frozen=True, slots=True)
class Services:
    """Made once a process by create_app."""

    config: Config
    database: Database
    projects: Projects
    metrics: Metrics
    scraper: Scraper
    shares: FairShares
    egress: Egress
    sealer: Callable[[], Sealer]
    """Made at first use: its key may be."""


def services() -> Services:
    """Those of the application that serves this request."""
    return cast(Services, current_app.extensions[EXTENSION])


def now() -> datetime:
    return datetime.now(UTC)


def request_id_from(header: str | None) -> str:
    """The request id that a client or a proxy gave, where it is sane, else a new one."""
    return header if header is not None and _SANE_REQUEST_ID.fullmatch(header) else str(uuid4())


def request_id() -> str:
    """This request's."""
    return str(request.environ.get(FACTS, {}).get("request_id", ""))


def note(**facts: object) -> None:
    """Let this request's log line tell `facts`."""
    request.environ.setdefault(FACTS, {}).update(facts)


def origin(principal: Principal, door: str) -> Origin:
    """Where this request comes from, for the audit log."""
    return Origin(str(principal.id), principal.name, door, request.remote_addr, request_id() or None)


def admit(principal: Principal | None, *, definitions: int = 0) -> None:
    """Wait for this request's turn, where it is heavy; the turn lasts until its answer is sent.

    `definitions` is the size in bytes of the stored definitions that it works on. Raises `too_many_requests`.
    Does not return where the request is answered by a process of its own: that begins the view again.
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
    """An authenticated principal with the permission that a view asked for."""

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
        """How a line of the log names the caller."""
        return {"project": self.project.slug, "principal": self.principal.name}

    def reading(self) -> AbstractContextManager[Transaction]:
        """A read-only transaction that sees what the caller may see."""
        return self.services.database.reading(self.principal.claims)

    def as_user(self) -> AbstractContextManager[Transaction]:
        """A transaction that may write what the caller may write, without Git."""
        return self.services.database.as_user(self.principal.claims)

    @contextmanager
    def opened(self) -> Iterator[Store]:
        """The project's Store, to read from; objects that Git lacks are read from Postgres."""
        with closing(self.services.projects.open(self.project)) as store:
            store.objects.elsewhere = self._kept
            yield store

    def _kept(self, oid: bytes) -> ShaFile | None:
        with self.reading() as tx:
            return git_objects.load(tx, self.project_id, [oid]).get(oid)

    @contextmanager
    def writing(self) -> Iterator[Store]:
        """The project's Store; each write through it is mirrored before it returns."""
        projects, database = self.services.projects, self.services.database
        with projects.mirrored(self.project, database, self.origin, patience=PATIENCE) as (store, _):
            yield store

    def who(self, author: Person | None) -> Actors:
        """On whose behalf: the caller, or the person that the caller says it acts for."""
        return Actors(self.principal.person, author or self.principal.person)

    @contextmanager
    def acting(
        self, action: str, workflow: str, count: Callable[..., None] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Log the key action that the block is: done, with the facts put into what is given, or refused.

        `count` is told the door and the outcome, unless a fact `new` says that nothing was.
        """
        facts: dict[str, Any] = {}
        who = {**self.said, "workflow": workflow}
        started = time.perf_counter()
        try:
            yield facts
        except GitstoreError as error:
            if count is not None:
                count(door=self.origin.door, outcome=error.code.value)
            logs.action("refused", **who, action=action, code=error.code.value, duration_ms=_since(started))
            raise
        if count is not None and facts.get("new", True):
            count(door=self.origin.door)
        logs.action(action, **{**who, **facts}, duration_ms=_since(started))


def enter(permission: Permission, what: str, *, project: str | None = None) -> Caller:
    """Authenticate and authorize the caller of the API for `what` (words for people: "publishing x").

    `project` is what `?project=` says. Raises `unauthenticated`, `project_not_found` or `forbidden`.
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
