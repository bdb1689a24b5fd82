"""The peak memory of a push: of the process that serves it and its largest child, near the limits."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from dulwich.objects import Blob, Tree

from bench.many_versions import ANN
from gitstore import names
from gitstore.git.commits import new_commit
from gitstore.push.request import ZERO
from gitstore.store import Store
from gitstore.system import now
from tests.gitstore.test_bombs import BLOB, BOMBS, COMMIT, ROOT, TREE, raw
from tests.gitstore.test_packs import pack
from tests.gitstore.test_receive import DRAFT, request
from tests.stories.instance import Service, definition

MIB = 2**20
_TICK = 0.002


def near_limits(slug: str) -> bytes:
    """The request of a push just within them: 15 of 16 MiB of pack, 61 of 64 MiB inflated, objects of 3.8."""
    size = 38 * MIB // 10
    contents = [os.urandom(size) for _ in range(4)] + [bytes([n]) * size for n in range(12)]
    blobs = [Blob.from_string(content) for content in contents]
    workflow, tree = Blob.from_string(definition("Large").encode()), Tree()
    for number, blob in enumerate(blobs):
        tree.add(b"attachment-%d" % number, 0o100644, blob.id)
    tree.add(b"workflow.yaml", 0o100644, workflow.id)
    commit = new_commit(tree=tree.id, parents=[], author=ANN, committer=ANN, when=now(), message="Large")
    entries = [raw(BLOB, blob.as_raw_string()) for blob in (*blobs, workflow)]
    entries += [raw(TREE, tree.as_raw_string()), raw(COMMIT, commit.as_raw_string())]
    return request((ZERO, commit.id, names.draft(slug)), pack=pack(*entries))


@dataclass
class Peak:
    """MiB: of a serving process at rest, at its most, and of its largest child."""

    rest: float = 0
    most: float = 0
    child: float = 0


@contextmanager
def watched(service: Service) -> Iterator[Peak]:
    """What the processes that serve take until the block ends (Linux alone tells)."""
    servers = [process for process in service.family() if _serves(process)]
    peak, done = Peak(), threading.Event()
    for server in servers:
        Path(f"/proc/{server.pid}/clear_refs").write_text("5")  # proc(5): the peak begins anew
    peak.rest = max(_high(server.pid) for server in servers)

    def look() -> None:
        while not done.wait(_TICK):
            for server in servers:
                with suppress(psutil.NoSuchProcess, OSError):
                    for child in server.children():
                        peak.child = max(peak.child, 0 if _serves(child) else _high(child.pid))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
        peak.most = max(_high(server.pid) for server in servers)


def _serves(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return "service.run.web" in process.cmdline()
    return False


def _high(pid: int) -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    return int(found[1]) / 1024 if found else 0


def worst_bomb(folder: Path, report: Callable[[str], object]) -> tuple[str, float]:
    """Of what tests/gitstore/test_bombs.py throws at a Store: the one that takes most, and its MiB."""
    found = {}
    for bomb, _ in BOMBS:
        bare, file = folder / f"{bomb.__name__}.git", folder / "request"
        Store.init(bare)
        tip, entries = bomb()
        file.write_bytes(request((ZERO, tip, DRAFT), pack=pack(*entries)))
        command = [sys.executable, "-m", "tests.gitstore.push_process", str(bare), str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        peaks = json.loads(done.stdout)
        found[bomb.__name__] = peaks["total"] + peaks["child"]
        report(f"{bomb.__name__}: {peaks['total']:.0f} MiB, and its child {peaks['child']:.0f}")
    return max(found.items(), key=lambda item: item[1])
