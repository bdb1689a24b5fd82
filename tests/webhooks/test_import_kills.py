"""An import that is killed at any moment: the next one completes it, and nothing is there twice or left."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import LiteralString

import pytest

from gitstore.sweeping import sweep
from sync import reconcile
from sync.verify import verify
from tests.sync.conftest import House
from tests.webhooks.sourcing import Following
from tests.webhooks.test_courier import ROOT, end
from tests.webhooks.upstreams import Upstream, upstream_in

# A worker that dies at the nth fsync from when its sync begins: by then something was written, half.
WORKER = """
import os, signal, sys, threading
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID
from gitstore.model import Limits
from gitstore.store import Store
from sync.db import Database
from sync.writing import MirroredWrites
from webhooks.addresses import Allowed
from webhooks.egress import Egress
from webhooks.following import Follower, Means, import_limits
from webhooks.sealing import Sealer, new_key

conninfo, path, source, nth = sys.argv[1:]
left, fsync = int(nth), os.fsync
database = Database(conninfo, max_connections=4)

def dying(handle):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    fsync(handle)

@contextmanager
def open_store(project, origin):
    store = Store(Path(path), project.id)
    store.locks = MirroredWrites(database, store, origin)
    yield store

means = Means(database, open_store, Egress(Allowed.parse("127.0.0.0/8")), Sealer([new_key()]),
              import_limits(Limits(), 2**28))
follower = Follower(means, threading.Event())
claim = follower.claim(UUID(source))
assert claim is not None, "somebody is at it"
os.fsync = dying
result = follower.sync(claim)
assert result.error is None, result.error
os._exit(0)
"""


@pytest.fixture
def upstream(ram_path: Path) -> Iterator[Upstream]:
    with upstream_in(ram_path / "upstream") as made:
        yield made


@pytest.mark.parametrize(
    ("tags", "kills"), [(110, 2), pytest.param(1000, 60, marks=pytest.mark.soak)], ids=["short", "soak"]
)
@pytest.mark.timeout(1800)
def test_an_import_that_is_killed_is_completed_once(
    house: House, upstream: Upstream, tags: int, kills: int
) -> None:
    """Every version arrives once, with one event each, and verify finds nothing."""
    upstream.many("many", tags)
    following = Following(house, upstream.url)
    dice = random.Random(tags)  # noqa: S311
    died = 0
    for _ in range(kills):
        died += work(following, dice.randint(1, 130)) == -9
        recover(house, following)
    assert died > 0
    assert work(following, 0) == 0
    recover(house, following)
    assert sorted(house.store.version_tags("many")) == list(range(1, tags + 1))
    assert list(verify(house.database, house.store)) == []
    published: LiteralString = """
        select data ->> 'version_number' as number, count(*) as events from gitstore.events
        where type = 'workflow.version.published' group by 1
    """
    assert {(row["number"], row["events"]) for row in following.ask(published)} == {
        (str(number), 1) for number in range(1, tags + 1)
    }
    objects = house.store.path / "objects"
    assert [path for path in house.store.path.rglob("*.lock") if path.name != "writers.lock"] == []
    assert [*objects.glob("tmp_*"), *objects.glob("pack/tmp_*")] == []
    following.sync()
    assert following.open() == {}
    assert not house.writes.markers.pending()


def work(following: Following, nth: int) -> int:
    """A worker's sync; how it ended."""
    command = [sys.executable, "-c", WORKER, following.database.conninfo,
               str(following.house.store.path), str(following.source.id), str(nth)]  # fmt: skip
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE)
    try:
        _, complaint = child.communicate(timeout=300)
    finally:
        end(child)
    assert child.returncode in (0, -9), complaint.decode()
    return child.returncode


def recover(house: House, following: Following) -> None:
    """What the next worker does at its start, once the lease of the killed one is over."""
    with house.database.as_owner() as tx:
        tx.run("update gitstore.sources set claimed_until = now() where claimed_until > now()")
    sweep(house.store.path, house.writes.maintenance, time.time(), None)
    report = reconcile.reconcile(house.writes)
    assert report.failures == {}
    house.store.forget()
    assert following.row()
