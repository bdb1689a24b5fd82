"""A worker's sync in its own process, to kill it or to measure its memory."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from gitstore.model import Limits
from gitstore.store import Store
from sync.audit import Origin
from sync.catalog import Project
from sync.db import Database
from sync.unit_of_work import MirrorUnitOfWork
from tests.webhooks.followed_project import LOOPBACK, Following
from webhooks.egress import Egress
from webhooks.secrets import Sealer, new_key
from webhooks.source_sync import SourceSync, import_limits

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Done:
    """`grown` is the growth of the process's own memory in MiB, without mapped files."""

    killed: bool
    error: str | None = None
    progress: tuple[tuple[int, int], ...] = ()
    grown: float = 0.0


def sync_in_process(
    following: Following, *, dies_at: int = 0, size: int = 2**28, seconds: float = 600
) -> Done:
    """Sync once; kill it at its `dies_at`th fsync (0: never). `size` is the limit of an import."""
    given = {
        "conninfo": following.database.conninfo, "path": str(following.house.store.path),
        "source": str(following.source.id), "dies_at": dies_at, "size": size,
    }  # fmt: skip
    command = [sys.executable, "-m", "tests.webhooks.sync_process", json.dumps(given)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        try:
            output, errors = child.communicate(timeout=seconds)
        finally:
            child.kill()
    assert child.returncode in (0, -signal.SIGKILL), errors.decode()
    if child.returncode:
        return Done(killed=True)
    done: dict[str, Any] = json.loads(output)
    return Done(False, done["error"], tuple(map(tuple, done["progress"])), done["grown"])


def _sync(given: dict[str, Any]) -> dict[str, Any]:
    database = Database(given["conninfo"], max_connections=4)

    @contextmanager
    def open_store(project: Project, origin: Origin) -> Iterator[Store]:
        yield Store(Path(given["path"]), project.id, partial(MirrorUnitOfWork, database, origin=origin))

    limits = import_limits(Limits(), given["size"])
    syncs = SourceSync(database, open_store, Egress(LOOPBACK), Sealer([new_key()]), limits)
    claim = syncs.claim(UUID(given["source"]))
    assert claim is not None, "the source is leased"
    progress: list[tuple[int, int]] = []
    start = _anonymous()
    most, stop = [start], threading.Event()

    def measure() -> None:
        while not stop.wait(0.01):
            most[0] = max(most[0], _anonymous())

    watcher = threading.Thread(target=measure)
    watcher.start()
    if given["dies_at"]:
        _die_at(given["dies_at"])
    result = syncs.sync(claim, lambda done, total: progress.append((done, total)))
    stop.set()
    watcher.join()
    error = result.error.message if result.error else None
    return {"error": error, "progress": progress, "grown": most[0] - start}


def _anonymous() -> float:
    match = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(match[1]) / 1024 if match else 0.0


def _die_at(nth: int) -> None:
    """Kill this process at the nth fsync from now on, when a write is half done."""
    fsync, left = os.fsync, [nth]

    def dying(handle: int) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        fsync(handle)

    os.fsync = dying  # type: ignore[assignment] # as dulwich calls it, too


if __name__ == "__main__":
    print(json.dumps(_sync(json.loads(sys.argv[1]))))
