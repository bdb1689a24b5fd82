"""Build the source follower for the worker and the CLI, with the service's settings and log.

The worker syncs each source in a child process (isolation.py), which fetches and parses the upstream's data.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from typing import Final

from gitstore.errors import ConfigError, GitstoreError
from gitstore.store import Store
from service import logs
from service.config import Config
from service.logs import Event
from service.metrics import Metrics
from service.projects import Projects
from service.run import secret_key
from service.run.isolation import Channel, CrashError, Isolation, Limits, StopError, Work
from sync.audit import Origin
from sync.catalog import Project
from sync.db import Database
from webhooks.egress import Egress
from webhooks.pulse import Beat
from webhooks.ref_sync import Progress, Result
from webhooks.source_leases import Claim
from webhooks.source_loop import SyncLoop
from webhooks.source_sync import Means, SourceSync, StoppingError, import_limits

LIMITS: Final = Limits(memory=2**30, step=300, whole=7200)
"""Limits of a sync. Its longest steps are git's check of the largest pack, and the walk over its objects."""


@contextmanager
def following(
    config: Config, database: Database, metrics: Metrics, beat: Beat, off: Callable[[], None]
) -> Iterator[None]:
    """Sync sources when they are due, in separate threads, until the block ends.

    The loop calls `beat`; `off` is called if no loop starts because the secrets cannot be decrypted.
    """
    stop = threading.Event()
    try:
        means = means_of(config, database, metrics.synced)
    except GitstoreError as error:
        # The worker's other tasks continue.
        logs.action(Event.SOURCES_DISABLED, level="error", reason=error.message)
        off()
        yield
        return
    follower = IsolatedFollower(config, means, stop, Isolation(LIMITS))
    dispatcher = SyncLoop(follower, database, stop, trouble=_trouble, beat=beat)
    thread = threading.Thread(target=dispatcher.run, name="dispatcher")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        dispatcher.wake()
        thread.join()


class IsolatedFollower(SourceSync):
    """Sync of each source in a child process; a child that crashes or reaches a limit is recorded as a crash.

    `work` is the function that the child runs; tests pass their own.
    """

    def __init__(
        self,
        config: Config,
        means: Means,
        stop: threading.Event,
        isolation: Isolation,
        work: Work | None = None,
    ) -> None:
        super().__init__(means, stop)
        self._config = config
        self._counted = means.count
        self._stop_asked = stop
        self._isolation = isolation
        self._work = work or sync_in_child

    def is_stuck(self) -> bool:
        return self._isolation.is_stuck()

    def sync(self, claim: Claim, progress: Progress | None = None) -> Result:  # noqa: ARG002
        """Sync a leased source. The result is empty: the outcome is in the rows and in the log."""
        run = partial(self._isolation.run, stop=self._stop_asked, heard=self._count)
        try:
            with self.holding(claim):  # here too: a child that hangs does not renew its lease
                run(self._work, self._config, claim)
        except StopError:
            self.release(claim)
            raise StoppingError from None
        except CrashError as error:
            self.record_crash(claim, f"the sync {error}")
        return Result()

    def _count(self, message: tuple[str, dict[str, int], int]) -> None:
        outcome, divergences, published = message
        self._counted(outcome, list(Counter(divergences).elements()), published)


def sync_in_child(channel: Channel, stop: threading.Event, config: Config, claim: Claim) -> None:
    """Sync a source, in a child process: `work` for Isolation."""
    logs.configure(config.log_format, config.log_level)

    def count(outcome: str, divergences: Sequence[str], published: int) -> None:
        channel.tell((outcome, dict(Counter(divergences)), published))

    with closing(connected_in_child(config)) as database:
        means = means_of(config, database, count, channel.alive)
        try:
            SourceSync(means, stop).sync(claim)
        except StoppingError as error:
            raise StopError from error


def connected_in_child(config: Config) -> Database:
    """Return the worker's database, for one task in a child process."""
    if config.database_url is None:
        raise ConfigError("DATABASE_URL is needed: the worker sets it")
    return Database(config.database_url, max_connections=4, application="gitstore worker child")


def means_of(
    config: Config,
    database: Database,
    count: Callable[[str, Sequence[str], int], None] = lambda _outcome, _divergences, _published: None,
    alive: Callable[[], None] = lambda: None,
) -> Means:
    """Return the follower's dependencies; `count` updates the metrics.

    Raises `config` if the secrets cannot be decrypted.
    """
    projects = Projects(config)

    @contextmanager
    def open_store(project: Project, origin: Origin) -> Iterator[Store]:
        with closing(projects.writer(project, database, origin)) as store:
            yield store

    return Means(
        database=database,
        open_store=open_store,
        egress=Egress(config.egress_allow),
        sealer=secret_key.sealer(config, database),
        limits=import_limits(config.limits, config.max_import),
        tell=logs.action,
        count=count,
        alive=alive,
    )


def _trouble(error: BaseException) -> None:
    if isinstance(error, GitstoreError):
        logs.action(Event.SYNC_LOOP_FAILED, level="error", reason=error.message, cause=logs.cause_of(error))
    else:
        logs.action(Event.SYNC_LOOP_FAILED, level="error", exc_info=error)
