"""What the service takes of memory: at rest, and at most for one large request.

A request's memory is what its processes have at most beyond what they had before it. For a process that was
there before, that is the growth of the peak that the kernel keeps (VmHWM, reset by clear_refs: proc(5)). For
those that work on the request alone, it is their private memory, added up and looked at every few
milliseconds. The processes have begun shortly before, and have answered small requests of each kind.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil
from dulwich.objects import Blob, Tree

from bench import seeds
from bench.load import Job, request
from bench.measures import Figures, at_most, beside, measure, median
from bench.pushes import LOOK, Target, by_git
from bench.rig import Rig
from gitstore import names
from gitstore.git.commits import new_commit
from gitstore.push.request import ZERO
from gitstore.system import now
from tests.gitstore.test_bombs import BLOB, COMMIT, TREE, raw
from tests.gitstore.test_packs import pack
from tests.gitstore.test_receive import request as push_request
from tests.stories.instance import Service

_MIB = 2**20
_TICK = 0.002
_LONG = 1_000
_PRIVATE = re.compile(r"^Private_(?:Clean|Dirty):\s{1,99}+(\d{1,20}+) kB", re.MULTILINE)


def serving(service: Service) -> list[int]:
    """Return the processes that answer requests, and their parents."""
    found = []
    for process in service.family():
        with suppress(psutil.NoSuchProcess):
            found += [process.pid] if "service.run.web" in process.cmdline() else []
    return found


def at_rest(service: Service) -> float:
    """Return the MB of all processes but Postgres': a page that several share is counted once."""
    total = 0
    for process in service.family():
        with suppress(psutil.NoSuchProcess):
            total += 0 if process.name() == "postgres" else process.memory_full_info().pss
    return total / 1e6


@dataclass
class Growth:
    """The MiB that requests take at most: in processes that were there before, and in those of their own."""

    before: float = 0
    own: float = 0

    @property
    def whole(self) -> float:
        return self.before + self.own


@contextmanager
def watched(service: Service) -> Iterator[Growth]:
    """Note what requests take until the block ends (on Linux alone)."""
    servers = serving(service)
    rest = {pid: _reset_peak(pid) for pid in servers}
    growth, done = Growth(), threading.Event()

    def look() -> None:
        while not done.wait(_TICK):
            own = sum(map(_private, _descendants(servers) - set(servers)))
            growth.own = max(growth.own, own)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield growth
    finally:
        done.set()
        thread.join()
        growth.before = sum(_peak(pid) - rest[pid] for pid in servers)


def _reset_peak(pid: int) -> float:
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return _peak(pid)


def _peak(pid: int) -> float:
    found = re.search(r"VmHWM:\s{1,99}+(\d{1,20}+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def _private(pid: int) -> float:
    """Return the MiB of a process that it shares with no other one; 0 if it has ended."""
    with suppress(OSError):
        return sum(map(int, _PRIVATE.findall(Path(f"/proc/{pid}/smaps_rollup").read_text()))) / 1024
    return 0


def _descendants(pids: list[int]) -> set[int]:
    found, waiting = set(pids), list(pids)
    while waiting:
        for file in Path(f"/proc/{waiting.pop()}/task").glob("*/children"):
            with suppress(OSError):
                new = set(map(int, file.read_text().split())) - found
                found |= new
                waiting += new
    return found


# Requests


def near_limits() -> bytes:
    """Return the body of a push just within them: 15 of 16 MiB of pack, 61 of 64 inflated, objects of 3.8."""
    size = 38 * _MIB // 10
    contents = [os.urandom(size) for _ in range(4)] + [bytes([n]) * size for n in range(12)]
    blobs = [Blob.from_string(content) for content in contents]
    workflow = Blob.from_string(seeds.as_yaml(seeds.definition("large")).encode())
    return _body(workflow, blobs)


def _body(workflow: Blob, others: list[Blob]) -> bytes:
    """Return the body of a push that makes a draft of a definition and other files."""
    tree = Tree()
    for number, blob in enumerate(others):
        tree.add(b"attachment-%d" % number, 0o100644, blob.id)
    tree.add(b"workflow.yaml", 0o100644, workflow.id)
    commit = new_commit(
        tree=tree.id, parents=[], author=seeds.ANN, committer=seeds.ANN, when=now(), message="Large"
    )
    entries = [raw(BLOB, blob.as_raw_string()) for blob in (*others, workflow)]
    entries += [raw(TREE, tree.as_raw_string()), raw(COMMIT, commit.as_raw_string())]
    return push_request((ZERO, commit.id, names.draft("large")), pack=pack(*entries))


def _long_history(rig: Rig) -> str:
    """Return a new project with one workflow that has many versions."""
    project = rig.fresh("long").project
    seeds.fill(rig.path(project), seeds.workflow("long", min(_LONG, rig.largest), ledgers=True))
    rig.service.cli("rebuild", project)
    return project


_MOST = at_most(64, "MiB")


@measure("memory-request", page=_MOST, advertisement=_MOST, clone=_MOST, push=_MOST)
def memory_of_requests(rig: Rig, size: int) -> Figures:
    """What a page of 100 of a history, the advertisement to a pusher, a clone and a push of 61 MiB take."""
    long, large, small = _long_history(rig), seeds.project(rig.largest), seeds.project(rig.smallest)
    body = near_limits()
    little = _body(Blob.from_string(seeds.as_yaml(seeds.definition("little")).encode()), [])
    settings = rig.service.environment
    rig.service.environment = {**settings, "GITSTORE_WORKERS": "1"}
    taken: dict[str, list[float]] = {}
    for _ in range(rig.form.rounds):
        rig.service.stop()
        rig.service.start()
        cold = _requests(rig, small, f"/workflows/{seeds.slug(0)}/versions?limit=1", small, little)
        for _, ask in cold:
            ask()
        for name, ask in _requests(rig, long, "/workflows/long/versions?limit=100", large, body):
            with watched(rig.service) as growth:
                ask()
            taken.setdefault(name, []).append(growth.whole)
            rig.report(f"{name}: {growth.before:.1f} MiB, and {growth.own:.1f} in processes of its own")
    rig.service.environment = settings
    return {name: beside(median(values), None, "MiB") for name, values in taken.items()}


def _requests(
    rig: Rig, paged: str, page: str, project: str, body: bytes
) -> list[tuple[str, Callable[[], object]]]:
    """Return what requests the page of a project, what fetches from another one, and what pushes `body`."""
    pages, fetched = rig.ours(paged), Target(rig.ours(project), f"/{project}.git")
    new = rig.fresh("pushed").project
    pushed = Target(rig.ours(new), f"/{new}.git")

    def sent(*requests: bytes) -> None:
        rig.clients.run(Job(fetched.side.port, [[requests]], None))

    def cloned() -> None:
        folder = rig.folder / "cloned.git"
        who = fetched.side.basic(0)
        by_git("clone", "-q", "--bare", fetched.url, str(folder), authorization=who)
        shutil.rmtree(folder)

    return [
        ("page", partial(sent, request("GET", page, pages.bearer(0)))),
        ("advertisement", partial(sent, request("GET", fetched.path + LOOK, fetched.side.basic(0)))),
        ("clone", cloned),
        ("push", partial(sent, *pushed.raw(body))),
    ]
