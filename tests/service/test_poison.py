"""A source whose sync crashes its process, beside another tenant's healthy source."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from gitstore.model import Rules
from service.config import Config
from service.projects import Projects, make_data_folder
from service.run.bootstrap import create_project
from service.run.isolation import Isolation, Limits
from service.worker import isolated_sync_loop, source_sync
from sync.db import Database
from sync.migrate import migrate
from tests.service.isolated_tasks import sync_badly
from tests.service.serve_process import until
from tests.webhooks.upstream import Upstream, upstream_in
from webhooks import sources
from webhooks.forges import Forge
from webhooks.source_sync import SyncLoop
from webhooks.sources import Source


class Tenants:
    """Two projects of one database, each with a source, and the worker's sync loop."""

    def __init__(self, config: Config, database: Database) -> None:
        self.config, self.database = config, database
        self.counted: list[tuple[str, list[str]]] = []
        self.syncs = source_sync(config, database, threading.Event(), self._count)

    def source(self, slug: str, url: str) -> tuple[UUID, UUID]:
        """Create a project with a source. Return the ids of both."""
        with self.database.as_owner() as tx:
            project = create_project(tx, Projects(self.config), uuid4(), slug, slug, Rules.MESHHOOK)
            made, _ = sources.create(tx, self.syncs.sealer, project.id, url, forge=Forge.ANY)
        return project.id, made.id

    def row(self, ids: tuple[UUID, UUID]) -> Source:
        with self.database.as_owner() as tx:
            row = sources.source(tx, *ids)
        assert row is not None
        return row

    def published(self, ids: tuple[UUID, UUID]) -> int:
        with self.database.as_owner() as tx:
            query = "select count(*) from gitstore.workflow_versions where project_id = %(id)s"
            return int(tx.value(query, id=ids[0]))

    def due(self, ids: tuple[UUID, UUID]) -> None:
        """Make the source due."""
        with self.database.as_owner() as tx:
            tx.run("update gitstore.sources set due_at = now() where id = %(id)s", id=ids[1])

    @contextmanager
    def syncing(self, limits: Limits) -> Iterator[SyncLoop]:
        """Run the worker's sync loop until the block ends, without errors of the loop itself."""
        loop = isolated_sync_loop(self.config, self.syncs, Isolation(limits), sync_badly)
        with capture_logs() as lines, loop.running():
            yield loop
        assert not [line for line in lines if line["event"] == "sync_loop_failed"]

    def _count(self, outcome: str, divergences: Sequence[str], _published: int) -> None:
        self.counted.append((outcome, list(divergences)))


@pytest.fixture
def tenants(tmp_path: Path, make_database: Callable[..., str]) -> Iterator[Tenants]:
    url = make_database()
    migrate(url)
    settings = {
        "DATABASE_URL": url,
        "GITSTORE_DATA": str(tmp_path / "data"),
        "GITSTORE_EGRESS_ALLOW": "127.0.0.0/8",
    }
    config = Config.from_env(settings)
    make_data_folder(config)
    with closing(Database(url, max_connections=8)) as database:
        yield Tenants(config, database)


@pytest.fixture
def upstream(ram_path: Path) -> Iterator[Upstream]:
    with upstream_in(ram_path / "upstream") as made:
        yield made


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        ("exhaust_memory", "the sync needed more than 256 MiB of memory"),
        ("match_slowly", "the sync (used 1 seconds of CPU time without|made no) progress"),
    ],
)
def test_a_crashing_source_is_given_up_alone(
    tenants: Tenants, upstream: Upstream, harm: str, reason: str
) -> None:
    """After three crashes, with the reason; the other tenant's source is synced all the time."""
    bad = tenants.source("bad", f"{upstream.url}?{harm}")
    good = tenants.source("good", upstream.url)
    with tenants.syncing(Limits(memory=2**28, step=1, whole=60)) as loop:
        for crashes in (1, 2, 3):
            upstream.version("order-sync", crashes)
            for ids in (bad, good):
                tenants.due(ids)
            loop.wake()
            until(lambda crashes=crashes: tenants.published(good) == crashes)
            until(lambda crashes=crashes: tenants.row(bad).failures == crashes)
    row = tenants.row(bad)
    assert row.state == "poison"
    assert row.last_error is not None
    assert re.match(reason + ".*; given up after 3 crashes in a row", row.last_error)
    assert tenants.row(good).state == "ok"


def test_a_sync_in_a_child_imports_and_counts(tenants: Tenants, upstream: Upstream) -> None:
    """A failure is recorded as such, not as a crash."""
    upstream.version("order-sync", 1)
    upstream.version("broken", 1, content="nodes: []\n")
    good = tenants.source("good", upstream.url)
    with tenants.syncing(Limits(2**30, 60, 60)) as loop:
        until(lambda: tenants.row(good).succeeded_at is not None)
        assert tenants.published(good) == 2
        upstream.broken = 500
        tenants.due(good)
        loop.wake()
        until(lambda: tenants.row(good).failures == 1)
    assert tenants.counted == [("ok", []), ("upstream_failed", [])]
    assert "http resp 500" in (tenants.row(good).last_error or "")
    with tenants.database.as_owner() as tx:
        assert tx.value("select max(crashes) from gitstore.sources") == 0


def test_a_sync_stops_with_the_worker(tenants: Tenants, upstream: Upstream) -> None:
    """Promptly, although the upstream hangs: the lease is released and no crash is counted."""
    upstream.delay = 60.0
    slow = tenants.source("slow", upstream.url)
    with tenants.syncing(Limits(2**30, 60, 60)):
        until(lambda: bool(upstream.requests))
        started = time.monotonic()
    assert time.monotonic() - started < 10
    upstream.delay = 0.0
    with tenants.database.as_owner() as tx:
        assert tx.tuples("select claim, claimed_until, crashes from gitstore.sources") == [(None, None, 0)]
    assert tenants.row(slow).failures == 0
