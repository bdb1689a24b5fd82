"""`gitstore serve` and `gitstore worker`: the processes of the service.

The process of `gitstore serve` and the watcher of a worker run for long, and import only what they use.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from typing import Final

import click

from gitstore.errors import UnavailableError
from service.cli.terminal import WHERE, with_config
from service.config import METRICS_FOLDER, Config
from service.run import serve as serving
from service.run.heartbeats import Heartbeats
from service.run.serve import WORKER, metrics_folder
from service.run.supervisor import Signals, WatchedWorker, die_with_parent, end_worker, start_child
from sync.db import Database


@click.command()
@with_config()
def serve(config: Config) -> None:
    """Run the service.

    Serves HTTP and git, and runs the background worker and, unless DATABASE_URL is set, Postgres.
    """
    status = serving.serve(config, sys.stdout)
    # Without the interpreter's teardown: everything has been stopped.
    os._exit(status)


LOGGING: Final = ("GITSTORE_LOG_FORMAT", "GITSTORE_LOG_LEVEL")
_STATEMENT_SECONDS: Final = 15.0
"""Timeout of the loops' own statements, which are short: less than the time that counts as a stall."""
_TICK: Final = 0.1


@click.command()
@click.option("--parent", type=int, hidden=True, help="Pid of the process that watches the worker.")
@with_config(*WHERE, *LOGGING, "GITSTORE_RECONCILE_SECONDS", "GITSTORE_KEEP_DAYS")
def worker(config: Config, parent: int | None) -> None:
    """Run the background work.

    Synchronizes sources, delivers events and does upkeep. `gitstore serve` includes one worker; further ones
    share the work. The process watches a child that does the work, and replaces it when it exits or does not
    respond.
    """
    if parent is None:
        _watch(config)
    else:
        die_with_parent(parent)
        _work(config)


def _watch(config: Config) -> None:
    from service.run.database import check, connection_string
    from service.run.secret_key import checked_sealer
    from sync.notifications import check_direct

    signals = Signals()
    signals.install()
    with (
        connection_string(config) as conninfo,
        metrics_folder() as folder,
        closing(Heartbeats(folder)) as beats,
    ):
        with suppress(UnavailableError):  # the worker waits for Postgres
            check(conninfo)
            if config.database_direct_url is not None:
                check_direct(conninfo, config.database_direct_url)
            with closing(Database(conninfo, max_connections=1)) as database:
                checked_sealer(config, database)
        config = replace(config, database_url=conninfo)
        environment = config.environment(**{METRICS_FOLDER: str(folder)})
        start = partial(start_child, (*WORKER, "--parent", str(os.getpid())), environment)
        watched = WatchedWorker(start, beats)
        try:
            while not signals.stop:
                watched.check(time.monotonic())
                time.sleep(_TICK)
        finally:
            if watched.process is not None:
                watched.process.terminate()
                end_worker(watched.process, signals)


def _work(config: Config) -> None:
    from service.run.database import connection_string, opened
    from service.run.isolation import fork_server
    from service.worker import Worker

    fork_server()  # while there is one thread, and no connection
    stop = threading.Event()

    def request_stop(*_: object) -> None:
        # In a thread: the main thread may be in stop.wait, and hold its lock.
        threading.Thread(target=stop.set).start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, request_stop)
    beats = Heartbeats(config.metrics_folder) if config.metrics_folder is not None else None
    with (
        connection_string(config) as conninfo,
        # One for each import that writes, and some for deliveries; they are opened on demand.
        closing(
            opened(config, conninfo, "gitstore worker", statement_seconds=_STATEMENT_SECONDS)
        ) as database,
    ):
        Worker(replace(config, database_url=conninfo), database, stop, beats=beats).run()
