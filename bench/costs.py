"""How often a write waits for the disk, what the service takes of memory, and how long it needs to start.

The last measures of this module stop and kill the service, so they are the last of a run.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path

import psutil

from bench import peers, seeds, writes
from bench.rig import Figures, Rig, at_most, beside, measure, median
from tests.helpers import until
from tests.stories.instance import Caller, Service

# The disk

_TRACED = "fsync,fdatasync,sync_file_range,syncfs"
_CALL = re.compile(r"\(\d{1,10}+<([^>]{1,4096}+)>")  # the file of a call


@dataclass
class Waits:
    """The number of calls that wait for the disk."""

    count: int = 0


@contextmanager
def traced(service: Service, folder: Path) -> Iterator[Waits]:
    """Count the fsyncs of the serving processes in repositories until the block ends, by strace(1)."""
    strace = shutil.which("strace")
    if strace is None:
        raise peers.SkippedError("Debian's package strace is not installed")
    out = folder / "trace"
    servers = [process.pid for process in service.family() if _serves(process)]
    targets = [part for pid in servers for part in ("-p", str(pid))]
    command = [strace, "-f", "-y", "-qq", "-o", str(out), "-e", f"trace={_TRACED}", *targets]
    waits = Waits()
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as child:
        try:
            until(lambda: all(map(_is_traced, servers)), "strace does not attach")
            yield waits
        finally:
            child.terminate()
    for line in out.read_text(errors="replace").splitlines():
        found = _CALL.search(line)
        if found is not None and line.endswith(" = 0"):
            waits.count += found[1].startswith(str(service.data / "repos"))
    out.unlink()


def _serves(process: psutil.Process) -> bool:
    with suppress(psutil.NoSuchProcess):
        return "service.run.web" in process.cmdline()
    return False


def _is_traced(pid: int) -> bool:
    """Return whether all threads of a process have a tracer."""
    statuses = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/status")]
    return all("TracerPid:\t0\n" not in status for status in statuses)


def _disk(rig: Rig, make: writes.Make) -> Figures:
    """The second half of the writes is counted: the first makes folders."""
    owner, slug = rig.fresh("disk"), "disk"
    writes.create(owner, make, [slug])
    side = rig.ours(owner.project)
    job = partial(writes.job, rig, make, side, [slug])
    rig.clients.run(job(0))
    with peers.connect(rig.conninfo) as connection:
        before = _wal(connection)
        with traced(rig.service, rig.folder) as waits:
            taken = rig.clients.run(job(1))
        wal = _wal(connection) - before
    count = len(taken.operations)
    return {
        "fsyncs": beside(waits.count / count, None, ""),
        "WAL": beside(wal / count / 1000, None, "KB"),
    }


def _wal(connection: peers.Connection) -> int:
    row = connection.execute("select pg_current_wal_lsn() - '0/0' as written").fetchone()
    assert row is not None
    return int(row["written"])


@measure("disk-save", fsyncs=at_most(5, ""))
def disk_of_saves(rig: Rig, size: int) -> Figures:
    """fsyncs in the repository, and bytes of WAL, of the PUT of a draft."""
    return _disk(rig, writes.saved)


@measure("disk-publish", fsyncs=at_most(8, ""))
def disk_of_publications(rig: Rig, size: int) -> Figures:
    """fsyncs in the repository, and bytes of WAL, of the POST of a draft and its publication."""
    return _disk(rig, writes.published)


# Starts: the last measures, because the peers lose their connections


def _started(rig: Rig) -> float:
    """Start the service; return the seconds until an engine has read from the largest project."""
    path = f"/workflows/{seeds.slug(0)}/versions/current"
    begun = time.perf_counter()
    rig.service.start()
    assert rig.owner(seeds.project(rig.largest)).get(path).status == 200
    return time.perf_counter() - begun


@measure("start", time=at_most(2, "s"), memory=at_most(220, "MB"))
def start(rig: Rig, size: int) -> Figures:
    """From the start of the stopped service to the first read, and its memory at rest without Postgres."""
    times = []
    for _ in range(rig.form.rounds):
        rig.service.stop()
        times.append(_started(rig))
    time.sleep(2 if rig.form.rounds > 1 else 0)  # until it is at rest
    return {"time": beside(median(times), None, "s"), "memory": beside(_memory(rig.service), None, "MB")}


def _memory(service: Service) -> float:
    """Return the MB of all its processes but Postgres': a page that several share is counted once."""
    total = 0
    for process in service.family():
        with suppress(psutil.NoSuchProcess):
            total += 0 if process.name() == "postgres" else process.memory_full_info().pss
    return total / 1e6


@measure("start-killed", time=at_most(5, "s"), worst=at_most(5, "s"))
def start_after_kill(rig: Rig, size: int) -> Figures:
    """From the start to the first read, after kill -9 of all processes under a load of saves."""
    times = []
    for number in range(rig.form.rounds):
        owner = rig.fresh("killed")
        done = threading.Event()
        savers = [
            threading.Thread(target=_save, args=(owner, f"killed-{number}-{saver}", done))
            for saver in range(4)
        ]
        for saver in savers:
            saver.start()
        time.sleep(2 * rig.form.seconds)
        rig.service.kill()
        done.set()
        for saver in savers:
            saver.join()
        times.append(_started(rig))
    return {"time": beside(median(times), None, "s"), "worst": beside(max(times), None, "s")}


def _save(owner: Caller, slug: str, done: threading.Event) -> None:
    number = 0
    while not done.is_set():
        number += 1
        with suppress(OSError, HTTPException):  # the service is killed
            owner.save(slug, f"save-{number}")
