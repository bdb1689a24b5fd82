"""`gitstore worker`."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Final

import click

from gitstore.errors import Code, GitstoreError
from service.config import Config
from service.database import connection_string
from service.lifeline import end_with
from service.secret_key import checked_sealer
from service.terminal import WHERE, with_config
from service.worker import Worker
from sync.db import Database

LOGGING: Final = ("GITSTORE_LOG_FORMAT", "GITSTORE_LOG_LEVEL")


@click.command()
@click.option("--parent", type=int, hidden=True, help="End with this process, our parent.")
@with_config(*WHERE, *LOGGING, "GITSTORE_RECONCILE_SECONDS", "GITSTORE_KEEP_DAYS")
def worker(config: Config, parent: int | None) -> None:
    """Do what is due in the background. `gitstore serve` runs one; more of them do no harm."""
    if parent is not None:
        end_with(parent)
    stop = threading.Event()

    def ask(*_: object) -> None:
        # Not here: the main thread may be inside of stop.wait, and hold its lock.
        threading.Thread(target=stop.set).start()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    with (
        connection_string(config) as conninfo,
        # One for each import that writes, and some for deliveries beside them; they open as they are needed.
        closing(Database(conninfo, max_connections=16, application="gitstore worker")) as database,
    ):
        if parent is None:  # else `gitstore serve` has checked them
            with _waiting():
                checked_sealer(config, database)
        Worker(config, database, stop).run()


@contextmanager
def _waiting() -> Iterator[None]:
    """Pass over a Postgres that is away: the worker waits for it."""
    try:
        yield
    except GitstoreError as error:
        if error.code is not Code.UNAVAILABLE:
            raise
