"""A project that follows a real upstream, for tests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, LiteralString
from uuid import UUID

from psycopg.rows import dict_row

from gitstore.model import Limits
from gitstore.store import Store
from gitstore.upstream.refs import Layout
from gitstore.upstream.remote import Credential
from sync.audit import Origin
from sync.catalog import Project
from sync.db import Database
from sync.unit_of_work import MirrorUnitOfWork
from tests.sync.conftest import House
from webhooks import divergences, source_queue, sources
from webhooks.addresses import Allowed
from webhooks.divergences import Divergence
from webhooks.egress import Egress
from webhooks.forges import Forge
from webhooks.ref_sync import Result
from webhooks.secrets import Sealer, new_key
from webhooks.source_queue import HookTarget
from webhooks.source_sync import SourceSync, import_limits
from webhooks.sources import EVERY_WORKFLOW, Direction, Source

LOOPBACK = Allowed.parse("127.0.0.0/8")
SECRET = "It's-a-secret-to-everybody"


@dataclass
class Following:
    """A project with one source, and its synchronization as in a worker."""

    house: House
    url: str
    layout: Layout = Layout.REFS
    direction: Direction = Direction.PULL
    workflows: Sequence[str] = EVERY_WORKFLOW
    drafts: bool = True
    login: Credential | None = None
    forge: Forge = Forge.GITHUB
    limits: Limits | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    logged: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    counted: list[tuple[str, list[str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sealer = Sealer([new_key()])
        self.syncs = SourceSync(
            database=self.database,
            open_store=self._open,
            egress=Egress(LOOPBACK),
            sealer=self.sealer,
            limits=self.limits or import_limits(Limits(), 2**28),
            stop=self.stop,
            log=self._log,
            count=lambda outcome, codes, _published: self.counted.append((outcome, list(codes))),
        )
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
                workflows=self.workflows,
                drafts=self.drafts,
            )

    @property
    def database(self) -> Database:
        return self.house.database

    def _log(self, event: str, **fields: Any) -> None:
        self.logged.append((event, fields))

    @contextmanager
    def _open(self, project: Project, origin: Origin) -> Iterator[Store]:
        unit_of_work = partial(MirrorUnitOfWork, self.database, origin=origin)
        store = Store(self.house.store.path, project.id, unit_of_work, clock=self.house.store.clock)
        try:
            yield store
        finally:
            store.close()

    def sync(self, *, full: bool = False) -> Result:
        """Sync now, whether or not the source is due."""
        if full:
            with self.database.as_user(self.house.claims) as tx:
                assert sources.request_sync(tx, self.house.project, self.source.id)
        claim = self.syncs.claim(self.source.id)
        assert claim is not None
        return self.syncs.sync(claim)

    def change(self, **given: Any) -> None:
        with self.database.as_user(self.house.claims) as tx:
            assert sources.change(tx, self.sealer, self.house.project, self.source.id, **given)

    def row(self) -> Source:
        with self.database.reading(self.house.claims) as tx:
            row = sources.source(tx, self.house.project, self.source.id)
        assert row is not None
        return row

    def open_divergences(self) -> dict[str, Divergence]:
        """Return the open divergences by the short name of their ref."""
        with self.database.reading(self.house.claims) as tx:
            rows = divergences.open_divergences(tx, self.house.project, self.source.id)
        return {row.ref.split("/", 2)[2].removeprefix("drafts/"): row for row in rows}

    def resolve(self, ref: str, take: str) -> Divergence:
        with self.database.as_user(self.house.claims) as tx:
            id_ = self.open_divergences()[ref].id
            return divergences.resolve(tx, self.house.project, self.source.id, id_, take, "ada")

    def hook_target(self) -> HookTarget:
        target = source_queue.hook_target(self.database, self.source.id)
        assert target is not None
        return target

    def query(self, query: LiteralString) -> list[dict[str, Any]]:
        """Return rows as the tables' owner sees them."""
        with self.database.as_owner() as tx, tx.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query).fetchall()

    def state(self) -> tuple[Any, ...]:
        """Return everything that must be the same after any sequence of syncs."""
        refs = self.house.git("for-each-ref", "--format=%(objectname) %(refname)", "refs/heads", "refs/tags")
        versions = self.query(
            "select version_number, state, commit_sha, ref_oid, digest, message, author_name, published_by "
            "from gitstore.workflow_versions order by workflow_id, version_number"
        )
        return refs, [tuple(row.values()) for row in versions]

    def diverged_events(self) -> list[dict[str, Any]]:
        query: LiteralString = (
            "select data from gitstore.events where type = 'workflow.version.diverged' order by recorded_at"
        )
        return [row["data"] for row in self.query(query)]

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
