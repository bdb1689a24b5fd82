"""A cluster under load and under faults: nothing acknowledged is lost, and it is back within seconds.

`make cluster-test` runs it. It needs root, network namespaces, FUSE, GlusterFS, HAProxy, PgBouncer and the
system's Postgres, and is skipped where one of them is missing.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.cluster import Cluster, cluster
from tests.cluster.databases import programs
from tests.cluster.machines import missing, wait_for
from tests.conftest import temporary_folder

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]
BACK_SECONDS = 30.0
FAULT_SECONDS = 8.0
CALM_SECONDS = 5.0


@pytest.fixture
def running() -> Iterator[Cluster]:
    reason = missing() or (None if programs() else "no pg_basebackup is installed")
    if reason is not None:
        pytest.skip(reason)
    with temporary_folder(shared=True) as folder, cluster(folder) as made:
        yield made


@dataclass
class Record:
    """What the clients wrote down."""

    writes: list[dict[str, Any]]
    errors: list[str]
    failures: list[Any]

    @classmethod
    def read(cls, path: Path) -> Record:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        end = lines.pop()
        assert end["kind"] == "end", end
        return cls(lines, end["errors"], end["failures"])

    def percentiles(self, kind: str) -> str:
        took = sorted(write["at"] - write["began"] for write in self.writes if write["kind"] == kind)
        at = {
            name: took[min(int(len(took) * part), len(took) - 1)]
            for name, part in (("p50", 0.5), ("p99", 0.99))
        }
        return f"{kind}: {len(took)}, " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in at.items())


def git(cluster: Cluster, *arguments: str) -> str:
    (repository,) = (cluster.data / "repos").glob("*.git")
    command = ["git", "-c", "safe.directory=*", "-C", str(repository), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def check(cluster: Cluster, record: Record) -> None:
    """Compare what was acknowledged with Git and with the rows."""
    assert record.errors == []
    lines = git(cluster, "for-each-ref", "--format=%(refname) %(objectname)", "refs/tags").splitlines()
    tags = dict(line.removeprefix("refs/tags/").split() for line in lines)
    numbers: dict[str, list[int]] = defaultdict(list)
    for name in tags:
        slug, _, number = name.rpartition("/v")
        numbers[slug].append(int(number))
    for slug, found in numbers.items():
        assert sorted(found) == list(range(1, len(found) + 1)), f"{slug} has gaps"
    for write in record.writes:
        name = f"{write['slug']}/v{write['number']}"
        assert name in tags, f"{name} was acknowledged, and is lost"
        assert f"name: {write['mark']}\n" in git(cluster, "show", f"{tags[name]}:workflow.yaml"), name
        if write["kind"] == "race":
            assert write["won"].count(True) == 1, write
        assert write.get("oid") in (None, tags[name]), f"{name} has another tag than the acknowledged one"
    assert "no differences" in cluster.cli("verify")


def report(record: Record, faults: list[tuple[str, float, float]] = []) -> None:  # noqa: B006 - only read
    """Print the figures; with `pytest -s` they are shown."""
    for kind in ("publish", "push", "race"):
        print(record.percentiles(kind))
    times = sorted(write["at"] for write in record.writes)
    print(f"{len(times)} writes in {times[-1] - times[0]:.0f} s")
    for name, begin, end in faults:
        print(f"{name}: lasted {end - begin:.0f} s, back after {_back(record, begin):.1f} s")
    for cause, count in record.failures[:12]:
        print(f"{count} attempts failed: {cause}")


def _back(record: Record, begin: float) -> float:
    """Return the seconds from `begin` until a write that began afterwards was acknowledged."""
    return min((write["at"] for write in record.writes if write["began"] >= begin), default=begin) - begin


def test_three_nodes_publish_without_faults(running: Cluster, tmp_path: Path) -> None:
    """Writes through the proxy on three nodes: contiguous numbers, one winner of each race, clean rows."""
    out = tmp_path / "writes"
    clients = running.start_clients(
        out, folder=tmp_path / "clones", publishers=4, publishes=8, pushes=10, races=4
    )
    assert clients.wait(600) == 0, running.clients.log()
    record = Record.read(out)
    report(record)
    check(running, record)


def test_faults_lose_nothing(running: Cluster, tmp_path: Path) -> None:
    """Nodes, bricks, the pooler and the primary are killed, paused and cut off, each under load."""
    node, other = running.nodes[1], running.nodes[2]
    brick = running.volume.bricks[1]
    seconds = FAULT_SECONDS
    faults: list[tuple[str, Callable[[], None]]] = [
        ("kill a node", lambda: running.kill_node(node, seconds)),
        ("pause a node", lambda: running.pause(other, seconds, "service.")),
        ("cut off a node", lambda: running.cut_off(node, seconds)),
        ("lose the volume on a node", lambda: running.lose_volume(other, seconds)),
        ("kill a brick", lambda: running.kill_brick(brick, seconds)),
        ("pause a brick", lambda: running.pause(brick, seconds)),
        ("cut off a brick", lambda: running.cut_off(brick, seconds)),
        ("kill the pooler", lambda: running.kill_pooler(2)),
        ("kill the primary", lambda: running.fail_over("kill", 2)),
        ("pause the primary", lambda: running.fail_over("pause", 4)),
        ("cut off the primary", lambda: running.fail_over("cut", 4)),
    ]
    out = tmp_path / "writes"
    options = {"publishers": 5, "publishes": 160, "pushers": 2, "pushes": 70, "races": 60}
    clients = running.start_clients(out, folder=tmp_path / "clones", **options)
    done: list[tuple[str, float, float]] = []
    time.sleep(CALM_SECONDS)
    for name, cause in faults:
        assert clients.poll() is None, f"the clients ended before: {name}"
        begin = time.time()
        cause()
        done.append((name, begin, time.time()))
        time.sleep(CALM_SECONDS)
    assert clients.wait(2400) == 0, running.clients.log()  # a write takes seconds where two cores run it all
    record = Record.read(out)
    report(record, done)
    for machine in running.nodes:
        running.wait_until_ready(machine)
    # Not between the faults: what is being written counts as not healed. All bricks but one have everything.
    wait_for(running.volume.is_healed, "the volume does not heal", 120)
    check(running, record)
    late = {name: _back(record, begin) for name, begin, _ in done if _back(record, begin) > BACK_SECONDS}
    assert not late
    assert all(before[2] <= after[1] for before, after in pairwise(done))
