"""What syncs sources, in the worker and for one command: with our settings and our log."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from gitstore.errors import GitstoreError
from gitstore.store import Store
from service import logs, secret_key
from service.config import Config
from service.metrics import Metrics
from service.projects import Projects
from sync.audit import Origin
from sync.catalog import Project
from sync.db import Database
from webhooks.dispatch import Dispatcher
from webhooks.egress import Egress
from webhooks.following import Follower, Means, import_limits


@contextmanager
def following(config: Config, database: Database, metrics: Metrics) -> Iterator[None]:
    """Sync sources when they are due, in threads of their own, for the time of the block."""
    stop = threading.Event()
    try:
        follower = follower_of(config, database, stop, metrics.synced)
    except GitstoreError as error:
        # What else the worker does goes on.
        logs.action("sources_off", level="error", reason=error.message)
        yield
        return
    dispatcher = Dispatcher(follower, database, stop, trouble=_trouble)
    thread = threading.Thread(target=dispatcher.run, name="dispatcher")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        dispatcher.wake()
        thread.join()


def follower_of(
    config: Config,
    database: Database,
    stop: threading.Event,
    count: Callable[[str, Sequence[str]], None] = lambda _outcome, _divergences: None,
) -> Follower:
    """What syncs a source; `count` keeps the figures. Raises `config` where the secrets can't be opened."""
    projects = Projects(config)

    @contextmanager
    def open_store(project: Project, origin: Origin) -> Iterator[Store]:
        with projects.mirrored(project, database, origin) as (store, _):
            yield store

    means = Means(
        database=database,
        open_store=open_store,
        egress=Egress(config.egress_allow),
        sealer=secret_key.sealer(config, database),
        limits=import_limits(config.limits, config.max_import),
        tell=logs.action,
        count=count,
    )
    return Follower(means, stop)


def _trouble(error: BaseException) -> None:
    if isinstance(error, GitstoreError):
        logs.action("sync_trouble", level="error", reason=error.message, cause=logs.cause_of(error))
    else:
        logs.action("sync_trouble", level="error", exc_info=error)
