"""What a write costs on the disk, and how long the service needs to start.

The last measures of this module stop and kill the service: the peers lose their connections to Postgres.
"""

from __future__ import annotations

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

from bench import peers, seeds, writes
from bench.measures import Figures, at_most, beside, measure, median
from bench.memory import at_rest, serving
from bench.rig import Rig
from tests.helpers import until
from tests.stories.instance import Caller, Service

# The disk

_WRITES = {"write", "pwrite64", "writev", "pwritev", "pwritev2", "sendfile"}
_WAITS = {"fsync", "fdatasync", "sync_file_range", "syncfs"}


@dataclass
class Disk:
    """The calls that wait for the disk, and the bytes that are written to files."""

    waits: int = 0
    bytes: int = 0


@contextmanager
def traced(service: Service, folder: Path) -> Iterator[Disk]:
    """Count what the serving processes and their children do to repositories until the block ends.

    strace(1) writes a file for each thread (-ff): in one file for all, a call that others interrupt has two
    lines, "unfinished" and "resumed".
    """
    strace = shutil.which("strace")
    if strace is None:
        raise peers.SkippedError("Debian's package strace is not installed")
    traces, servers = folder / "traces", serving(service)
    traces.mkdir()
    command = [strace, "-ff", "-y", "-qq", "-s", "0", "-o", str(traces / "trace")]
    command += ["-e", f"trace={','.join(sorted(_WRITES | _WAITS))}"]
    command += [part for pid in servers for part in ("-p", str(pid))]
    disk = Disk()
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as child:
        try:
            until(lambda: all(map(_is_traced, servers)), "strace does not attach")
            yield disk
        finally:
            child.terminate()
    _count(disk, traces, str(service.data / "repos"))
    shutil.rmtree(traces)


def _count(disk: Disk, traces: Path, within: str) -> None:
    """Count the calls on files below a folder, which look so: `write(5</folder/file>, ""..., 41) = 41`."""
    for trace in traces.iterdir():
        for line in trace.read_text(errors="replace").splitlines():
            call, _, arguments = line.partition("(")
            result = line.rpartition(" = ")[2]
            if arguments.partition("<")[2].startswith(within) and result.isdecimal():
                disk.waits += call in _WAITS
                disk.bytes += int(result) if call in _WRITES else 0


def _is_traced(pid: int) -> bool:
    """Return whether all threads of a process have a tracer."""
    statuses = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/status")]
    return all("TracerPid:\t0\n" not in status for status in statuses)


def _disk(rig: Rig, make: writes.Make) -> Figures:
    """The second half of the writes is counted: the first makes folders, and pages of Postgres new."""
    owner, slug = rig.fresh("disk"), "disk"
    writes.create(owner, make, [slug])
    side = rig.ours(owner.project)
    job = partial(writes.job, rig, make, side, [slug])
    with peers.connect(rig.conninfo) as connection:
        connection.execute("checkpoint")  # the first change of a page after it writes the whole page
        rig.clients.run(job(0))
        before = _wal(connection)
        with traced(rig.service, rig.folder) as disk:
            taken = rig.clients.run(job(1))
        wal = _wal(connection) - before
    count = len(taken.operations)
    return {
        "fsyncs": beside(disk.waits / count, None, ""),
        "bytes": beside((disk.bytes + wal) / count / 1000, None, "KB"),
        "in Git": beside(disk.bytes / count / 1000, None, "KB"),
        "WAL": beside(wal / count / 1000, None, "KB"),
    }


def _wal(connection: peers.Connection) -> int:
    row = connection.execute("select pg_current_wal_lsn() - '0/0' as written").fetchone()
    assert row is not None
    return int(row["written"])


@measure("disk-save", fsyncs=at_most(5, ""), bytes=at_most(15, "KB"))
def disk_of_saves(rig: Rig, size: int) -> Figures:
    """fsyncs in the repository, and bytes written to it and to the WAL, of the PUT of a draft."""
    return _disk(rig, writes.saved)


@measure("disk-publish", fsyncs=at_most(8, ""), bytes=at_most(25, "KB"))
def disk_of_publications(rig: Rig, size: int) -> Figures:
    """fsyncs in the repository, and bytes written to it and to the WAL, of a draft published in one call."""
    return _disk(rig, writes.published)


@measure("disk-publish-apart")
def disk_of_publications_apart(rig: Rig, size: int) -> Figures:
    """The same, of a draft and its publication by another call."""
    return _disk(rig, writes.published_apart)


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
    times, cpu = [], []
    for _ in range(rig.form.rounds):
        rig.service.stop()
        times.append(_started(rig))
        cpu.append(rig.ours(seeds.project(rig.largest)).cpu())
    time.sleep(2 if rig.form.rounds > 1 else 0)  # until it is at rest
    return {
        "time": beside(median(times), None, "s"),
        "CPU": beside(median(cpu), None, "s"),
        "memory": beside(at_rest(rig.service), None, "MB"),
    }


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
