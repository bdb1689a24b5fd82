"""Work on many workflows of a project, in a process for each core.

Most of the time goes into parsing definitions, which takes a core for itself. A task is a function of a
module; it gets a group of slugs, and a database and a repository of the process in which it runs. For a few
groups, the caller's process is enough: another one takes half a second to start.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from pathlib import Path
from threading import Thread
from typing import Any, Final, TypeVar
from uuid import UUID

from gitstore.repository import Repository
from sync.db import Database
from sync.reconcile import Progress

T = TypeVar("T")
Task = Callable[[Database, Repository, Sequence[str]], T]

GROUP: Final = 32
"""Workflows of one task, and of one transaction."""
_FEW: Final = 4  # groups for which no process is started
_MOST: Final = 8  # processes, each with a connection

_here: list[tuple[Database, Repository]] = []


@dataclass(frozen=True, slots=True)
class _Place:
    """What another process needs to open the same database and repository."""

    conninfo: str
    lock_seconds: float
    path: Path
    project: UUID
    options: dict[str, Any]


def in_groups(
    task: Task[T],
    database: Database,
    repository: Repository,
    slugs: Sequence[str],
    progress: Progress | None = None,
) -> Iterator[T]:
    """Yield the result of `task` for each group of `slugs`, in their order."""
    groups = [slugs[start : start + GROUP] for start in range(0, len(slugs), GROUP)]
    report = progress or (lambda _done, _total: None)
    report(0, len(slugs))
    results = (
        _in_processes(task, database, repository, groups)
        if len(groups) > _FEW and (os.cpu_count() or 1) > 1
        else (task(database, repository, group) for group in groups)
    )
    done = 0
    for group, result in zip(groups, results, strict=True):
        done += len(group)
        report(done, len(slugs))
        yield result


def _in_processes(
    task: Task[T], database: Database, repository: Repository, groups: Sequence[Sequence[str]]
) -> Iterator[T]:
    """Run `task` in processes; at most two groups for each of them are waiting or finished."""
    place = _Place(
        database.conninfo,
        database.lock_seconds,
        repository.path,
        repository.project,
        {
            "rules": repository.rules,
            "first_rules": repository.first_rules,
            "file_names": repository.file_names,
            "limits": repository.limits,
        },
    )
    count = min(len(os.sched_getaffinity(0)), _MOST, len(groups))
    # Not forked: this process has threads, whose locks a forked child would find taken forever.
    pool = ProcessPoolExecutor(count, get_context("spawn"), initializer=_open, initargs=(place,))
    with pool:
        waiting = iter(groups)
        running = [pool.submit(_run, task, group) for group in islice(waiting, 2 * count)]
        try:
            while running:
                yield running.pop(0).result()
                running += [pool.submit(_run, task, group) for group in islice(waiting, 1)]
        finally:
            pool.shutdown(cancel_futures=True)


def _open(place: _Place) -> None:
    Thread(target=_end_with_parent, daemon=True).start()
    database = Database(place.conninfo, max_connections=2, lock_seconds=place.lock_seconds)
    repository = Repository(place.path, place.project, **place.options)
    repository.objects.mostly_packed = True
    _here.append((database, repository))


def _end_with_parent() -> None:
    """End this process if its parent was killed: the parent's locks are gone, and so are its results."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _run(task: Task[T], slugs: Sequence[str]) -> T:
    ((database, repository),) = _here
    return task(database, repository, slugs)
