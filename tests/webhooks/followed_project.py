"""A project that follows a real upstream: what adds, syncs and shows a source in tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, LiteralString
from uuid import UUID

from psycopg.rows import dict_row

from gitstore.model import Limits
from gitstore.store import Store
from gitstore.upstream.importer import Layout
from gitstore.upstream.remote import Credential
from sync.audit import Origin
from sync.catalog import Project
from sync.db import Database
from sync.unit_of_work import MirrorUnitOfWork
from tests.sync.conftest import House
from webhooks import divergence_decisions, receipts, sources
from webhooks.addresses import Allowed
from webhooks.divergence_decisions import Divergence
from webhooks.egress import Egress
from webhooks.forges import Forge
from webhooks.receipts import HookTarget
from webhooks.ref_sync import Result
from webhooks.secrets import Sealer, new_key
from webhooks.source_sync import Means, SourceSync, import_limits
from webhooks.sources import Direction, Source

LOOPBACK = Allowed.parse("127.0.0.0/8")
SECRET = "It's-a-secret-to-everybody"


@dataclass
class Following:
    """A house with one source, and the means to sync it as a worker does."""

    house: House
    url: str
    layout: Layout = Layout.REFS
    direction: Direction = Direction.PULL
    login: Credential | None = None
    forge: Forge = Forge.GITHUB
    limits: Limits | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    counted: list[tuple[str, list[str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sealer = Sealer([new_key()])
        means = Means(
            database=self.database,
            open_store=self._open,
            egress=Egress(LOOPBACK),
            sealer=self.sealer,
            limits=self.limits or import_limits(Limits(), 2**28),
            tell=lambda event, **facts: self.told.append((event, facts)),
            count=lambda outcome, codes, _published: self.counted.append((outcome, list(codes))),
        )
        self.follower = SourceSync(means, self.stop)
        with self.database.as_user(self.house.claims) as tx:
            self.source, self.secret = sources.create(
                tx,
                self.sealer,
                self.house.project,
                self.url,
                forge=self.forge,
                login=self.login,
                secret=SECRET if self.forge is not Forge.ANY else None,
                layout=self.layout,
                direction=self.direction,
            )

    @property
    def database(self) -> Database:
        return self.house.database

    @contextmanager
    def _open(self, project: Project, origin: Origin) -> Iterator[Store]:
        unit_of_work = partial(MirrorUnitOfWork, self.database, origin=origin)
        store = Store(self.house.store.path, project.id, unit_of_work, clock=self.house.store.clock)
        try:
            yield store
        finally:
            store.close()

    def sync(self, *, full: bool = False) -> Result:
        """As a worker, now, whether it is due or not."""
        if full:
            with self.database.as_user(self.house.claims) as tx:
                assert sources.ask(tx, self.house.project, self.source.id)
        claim = self.follower.claim(self.source.id)
        assert claim is not None
        return self.follower.sync(claim)

    def change(self, **given: Any) -> None:
        with self.database.as_user(self.house.claims) as tx:
            assert sources.change(tx, self.sealer, self.house.project, self.source.id, **given)

    def row(self) -> Source:
        with self.database.reading(self.house.claims) as tx:
            found = sources.source(tx, self.house.project, self.source.id)
        assert found is not None
        return found

    def open(self) -> dict[str, Divergence]:
        """The open divergences, by the ref without `refs/...`."""
        with self.database.reading(self.house.claims) as tx:
            found = divergence_decisions.open_divergences(tx, self.house.project, self.source.id)
        return {one.ref.split("/", 2)[2].removeprefix("drafts/"): one for one in found}

    def resolve(self, ref: str, take: str) -> Divergence:
        with self.database.as_user(self.house.claims) as tx:
            one = self.open()[ref].id
            return divergence_decisions.resolve(tx, self.house.project, self.source.id, one, take, "ada")

    def bell(self) -> HookTarget:
        found = receipts.bell(self.database, self.source.id)
        assert found is not None
        return found

    def ask(self, query: LiteralString) -> list[dict[str, Any]]:
        """What the owner of the tables reads."""
        with self.database.as_owner() as tx, tx.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query).fetchall()

    def state(self) -> tuple[Any, ...]:
        """Everything that must come out the same, however it came about."""
        refs = self.house.git("for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/tags")
        versions = self.ask(
            "select version_number, state, commit_sha, ref_oid, digest, message, author_name, published_by "
            "from gitstore.workflow_versions order by workflow_id, version_number"
        )
        return refs, [tuple(row.values()) for row in versions]

    def diverged_events(self) -> list[dict[str, Any]]:
        query: LiteralString = (
            "select data from gitstore.events where type = 'workflow.version.diverged' order by recorded_at"
        )
        return [row["data"] for row in self.ask(query)]

    def due(self) -> bool:
        with self.database.as_owner() as tx:
            query: LiteralString = "select due_at <= now() from gitstore.sources where id = %(id)s"
            return bool(tx.value(query, id=self.source.id))


Follow = Callable[..., Following]


def versions(following: Following, slug: str) -> list[int]:
    return sorted(following.house.store.version_tags(slug))


def source_of(following: Following, id_: UUID) -> Source | None:
    with following.database.reading(following.house.claims) as tx:
        return sources.source(tx, following.house.project, id_)
