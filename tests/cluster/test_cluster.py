"""A cluster under load and under faults: nothing acknowledged is lost, and it is back within seconds.

`make cluster-test` runs it. It needs root, network namespaces, FUSE, GlusterFS, HAProxy, PgBouncer and the
system's Postgres, and is skipped where one of them is missing. A shorter form: `CLUSTER_WRITES=100
CLUSTER_FAULTS="cut off a brick,kill the pooler" make cluster-test`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.clients import GIVE_UP
from tests.cluster.cluster import Cluster, cluster
from tests.cluster.databases import programs
from tests.cluster.machines import missing, wait_for
from tests.conftest import temporary_folder

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]
BACK_SECONDS = 30.0
FAULT_SECONDS = 8.0
CALM_SECONDS = 5.0
WRITES = int(os.environ.get("CLUSTER_WRITES", "1000"))
FAULTS = [name for name in os.environ.get("CLUSTER_FAULTS", "").split(",") if name]
END = "end of a file"
_RAISED = re.compile(r"[A-Za-z_.]*(Error|Exception)\b")


@pytest.fixture
def running() -> Iterator[Cluster]:
    reason = missing() or (None if programs() else "no pg_basebackup is installed")
    if reason is not None:
        pytest.skip(reason)
    with temporary_folder(shared=True) as folder, cluster(folder) as made:
        yield made


@dataclass(frozen=True)
class Fault:
    """A fault that was caused: when it began, when it was over, and when writes were acknowledged again."""

    name: str
    begin: float
    end: float
    back: float

    def __str__(self) -> str:
        return f"| {self.name} | {self.end - self.begin:.1f} s | {self.back - self.begin:.1f} s |"


@dataclass
class Record:
    """What the clients wrote down."""

    writes: list[dict[str, Any]]
    errors: list[str]
    failures: list[Any]

    @classmethod
    def read(cls, path: Path) -> Record:
        *writes, end = _lines(path)
        assert end["kind"] == "end", end
        return cls(writes, end["errors"], end["failures"])

    def percentiles(self, kind: str) -> str:
        took = sorted(write["at"] - write["began"] for write in self.writes if write["kind"] == kind)
        at = {
            name: took[min(int(len(took) * part), len(took) - 1)]
            for name, part in (("p50", 0.5), ("p99", 0.99))
        }
        return f"{kind}: {len(took)}, " + ", ".join(f"{name} {seconds:.2f} s" for name, seconds in at.items())


def _lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines that are written to their end."""
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


def git(cluster: Cluster, *arguments: str, given: str = "") -> str:
    (repository,) = (cluster.data / "repos").glob("*.git")
    command = ["git", "-c", "safe.directory=*", "-C", str(repository), *arguments]
    return subprocess.run(command, input=given, capture_output=True, text=True, check=True).stdout


def check(cluster: Cluster, record: Record) -> None:
    """Compare what was acknowledged with Git."""
    assert record.errors == []
    lines = git(cluster, "for-each-ref", "--format=%(refname) %(objectname)", "refs/tags").splitlines()
    tags = dict(line.removeprefix("refs/tags/").split() for line in lines)
    numbers: dict[str, list[int]] = defaultdict(list)
    for name in tags:
        slug, _, number = name.rpartition("/v")
        numbers[slug].append(int(number))
    for slug, found in numbers.items():
        assert sorted(found) == list(range(1, len(found) + 1)), f"{slug} has gaps"
    written = [f"{write['slug']}/v{write['number']}" for write in record.writes]
    lost = sorted(set(written) - set(tags))
    assert not lost, f"acknowledged, and lost: {lost}"
    asked = "".join(f"{tags[name]}:workflow.yaml\n" for name in written)
    files = git(cluster, "cat-file", "--batch=" + END, given=asked).split(END + "\n")[1:]
    for write, name, file in zip(record.writes, written, files, strict=True):
        assert f"name: {write['mark']}\n" in file, name
        if write["kind"] == "race":
            assert write["won"].count(True) == 1, write
        assert write.get("oid") in (None, tags[name]), f"{name} has another tag than the acknowledged one"


def report(record: Record, faults: Sequence[Fault] = ()) -> None:
    """Print the figures; with `pytest -s` they are shown."""
    for kind in ("publish", "push", "race"):
        print(record.percentiles(kind))
    times = sorted(write["at"] for write in record.writes)
    print(f"{len(times)} writes in {times[-1] - times[0]:.0f} s")
    print(
        "\n".join(["| fault | lasted | writes are acknowledged after |", "|---|---|---|", *map(str, faults)])
    )
    for cause, count in record.failures[:12]:
        print(f"{count} attempts failed: {cause}")


def check_answers(cluster: Cluster, record: Record) -> None:
    """A fault is 503, or no answer at all: 500 is an error that no code expected."""
    unexpected = [cause for cause, _ in record.failures if " 500 " in f" {cause} "]
    logs = "\n".join(node.log(characters=20_000_000) for node in cluster.nodes)
    raised = Counter(line for line in logs.splitlines() if _RAISED.match(line))
    assert not unexpected, raised.most_common(20)


def _back(out: Path, begin: float) -> float:
    """Return when the first write that began after `begin` was acknowledged; wait for it."""
    found: list[float] = []

    def is_back() -> bool:
        found[:] = [write["at"] for write in _lines(out) if write.get("began", 0) >= begin]
        return bool(found)

    wait_for(is_back, "no write is acknowledged any more", GIVE_UP)
    return min(found)


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
    assert "no differences" in running.cli("verify")


def test_faults_lose_nothing(running: Cluster, tmp_path: Path) -> None:
    """Nodes, bricks, the pooler and the primary are killed, paused and cut off, each under load.

    The next fault comes when the cluster is whole and writes are acknowledged again. What was acknowledged is
    there at once, since two bricks of three have it, and still when the third has caught up.
    """
    node, other = running.nodes[1], running.nodes[2]
    brick = running.volume.bricks[1]
    seconds = FAULT_SECONDS
    faults: dict[str, Callable[[], None]] = {
        "kill a node": lambda: running.kill_node(node, seconds),
        "pause a node": lambda: running.pause(other, seconds, "service."),
        "cut off a node": lambda: running.cut_off(node, seconds),
        "lose the volume on a node": lambda: running.lose_volume(other, seconds),
        "kill a brick": lambda: running.kill_brick(brick, seconds),
        "pause a brick": lambda: running.pause(brick, seconds),
        "cut off a brick": lambda: running.cut_off(brick, seconds),
        "kill the pooler": lambda: running.kill_pooler(2),
        "kill the primary": lambda: running.fail_over("kill", 2),
        "pause the primary": lambda: running.fail_over("pause", 4),
        "cut off the primary": lambda: running.fail_over("cut", 4),
    }
    out, until = tmp_path / "writes", tmp_path / "over"
    options = {"publishers": 5, "publishes": WRITES * 16 // 100, "pushers": 4, "pushes": WRITES * 17 // 400}
    clients = running.start_clients(
        out, folder=tmp_path / "clones", **options, races=WRITES * 3 // 100, until=until
    )
    done: list[Fault] = []
    _back(out, time.time())
    for name in FAULTS or faults:
        running.wait_until_whole()
        time.sleep(CALM_SECONDS)
        assert clients.poll() is None, running.clients.log()
        begin = time.time()
        faults[name]()
        done.append(Fault(name, begin, time.time(), _back(out, begin)))
    until.touch()
    assert clients.wait(3000) == 0, running.clients.log()  # a write takes seconds where two cores run it all
    for each in running.nodes:
        (tmp_path / f"{each.name}.log").write_text(each.log(characters=20_000_000))
    record = Record.read(out)
    report(record, done)
    check(running, record)
    check_answers(running, record)
    running.wait_until_whole()
    running.volume.wait_until_healed(120)
    check(running, record)
    assert "no differences" in running.cli("verify")
    assert not [str(fault) for fault in done if fault.back - fault.begin > BACK_SECONDS]
