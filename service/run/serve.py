"""`gitstore serve`: start everything that the first request needs, then supervise it.

    socket; web server, loading; data folder; Postgres; migrations; project and token; web server, serving;
    the greeting; the worker

The processes: this one, and as its children the embedded Postgres, the web server (service/run/web.py), which
forks the processes that serve, and `gitstore worker`. If this process is killed at any point, all of them
end, and the next start recovers everything.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, TextIO, TypeVar

from gitstore.errors import ConfigError, UnavailableError
from gitstore.git.process import git
from gitstore.system import try_lock, wait_until
from service import logs
from service.config import METRICS_FOLDER, Config, misspelt
from service.logs import Event
from service.run.heartbeats import Heartbeats
from service.run.listener_socket import allow_connections, answers, bound, listen
from service.run.supervisor import (
    Postgres,
    Signals,
    Stopped,
    Supervisor,
    WatchedWorker,
    end_at_once,
    start_child,
)

T = TypeVar("T")

OLDEST_GIT: Final = (2, 36)
_DATABASE_NEWS: Final = 5.0  # seconds between two messages about a given Postgres that is not reachable
_READY_SECONDS: Final = 60.0
_ANSWER_SECONDS: Final = 5.0
_DATABASE_TICK: Final = 0.25
_METRICS_PREFIX: Final = "gitstore-metrics-"
_LOCK: Final = "lock"

# -P: modules in the current folder are not imported.
WEB: Final = (sys.executable, "-P", "-m", "service.run.web")
WORKER: Final = (sys.executable, "-P", "-m", "service.cli", "worker")


def serve(config: Config, out: TextIO, *, web: Sequence[str] = WEB, worker: Sequence[str] = WORKER) -> int:
    """Serve until a stop signal; return the exit status. The greeting goes to `out`, the log to stderr.

    `web` and `worker` are the commands of the two children. Raises `config` or `unavailable` if the service
    cannot start.
    """
    begun = time.monotonic()
    signals = Signals()
    signals.install()
    with ExitStack() as stack:
        try:
            with signals.interrupting():
                service = _begin(config, stack, web)
                command = (*worker, "--parent", str(os.getpid()))
                start_worker = partial(start_child, command, _environment(service.config))
                watched = None if config.read_only else WatchedWorker(start_worker, service.beats)
                start_web = partial(_restarted_web, service, web)
                supervisor = Supervisor(signals, service.postgres, service.web, start_web, watched)
                stack.callback(supervisor.stop)
                stack.callback(service.listener.close)  # first: new clients are refused from then on
                _wait_until_ready(service)
        except Stopped:
            return 0
        logs.action(Event.READY, url=service.config.public_url, seconds=round(time.monotonic() - begun, 2))
        with suppress(OSError):  # the reader is gone
            out.write(service.greeting(terminal=out.isatty()))
            out.flush()
        supervisor.watch()
        logs.action(Event.STOPPING)
    logs.action(Event.STOPPED)
    return 0


@dataclass(frozen=True, slots=True)
class _Service:
    """Started service; `config` has the Postgres and the port in use."""

    config: Config
    listener: socket.socket
    web: subprocess.Popen[bytes]
    postgres: Postgres | None
    beats: Heartbeats
    greeting: partial[str]


def _begin(config: Config, stack: ExitStack, web: Sequence[str]) -> _Service:
    """Start everything up to the first request. Cleanup is registered on `stack`."""
    if not config.read_only:
        check_git()
    for given, meant in misspelt().items():
        logs.action(Event.UNKNOWN_SETTING, level="warning", given=given, meant=meant)
    listener = stack.enter_context(listen(config.bind))
    config = replace(config, bind=bound(config.bind, listener))
    folder = stack.enter_context(metrics_folder())
    config = replace(config, metrics_folder=folder)
    beats = stack.enter_context(closing(Heartbeats(folder)))
    metrics_listener = None
    if config.metrics_bind is not None:
        metrics_listener = stack.enter_context(listen(config.metrics_bind, "GITSTORE_METRICS_BIND"))
        config = replace(config, metrics_bind=bound(config.metrics_bind, metrics_listener))
    allow_connections()
    child = _start_web(config, listener, web)
    stack.callback(end_at_once, child)
    # Imported only now: they take as long as the web server, which loads its own modules at the same time.
    from service.projects import make_data_folder
    from service.run.bootstrap import greeting, read_node_greeting, set_up, unused_slug
    from service.run.database import check, opened
    from service.run.secret_key import checked_sealer
    from sync.embedded.server import EmbeddedPostgres

    if config.read_only and config.database_url is not None:
        _wait_for(partial(check, config.database_url), config.database_seconds)
        _begin_to_serve(child, config.database_url)
        if metrics_listener is not None:
            _serve_metrics(config, metrics_listener, stack)
        return _Service(config, listener, child, None, beats, partial(read_node_greeting, config))
    make_data_folder(config)
    postgres = None
    database_url = config.database_url
    if database_url is None:
        postgres = EmbeddedPostgres(config.postgres_folder)
        stack.callback(postgres.stop)
        database_url = postgres.start()
    for name in _migrated(database_url, config.database_direct_url, config.database_seconds):
        logs.action(Event.MIGRATED, migration=name)
    config = replace(config, database_url=database_url)
    with closing(opened(config, database_url, "gitstore serve", most=4)) as database:
        checked_sealer(config, database)
        setup = set_up(config, database)
        slug = unused_slug(database, setup)
    _begin_to_serve(child, database_url)
    if metrics_listener is not None:
        _serve_metrics(config, metrics_listener, stack)
    return _Service(config, listener, child, postgres, beats, partial(greeting, config, setup, slug))


def _start_web(config: Config, listener: socket.socket, web: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start the web server, which loads the application while Postgres starts."""
    descriptor = listener.fileno()
    arguments = (*web, str(os.getpid()), str(descriptor))
    return start_child(arguments, _environment(config), stdin=subprocess.PIPE, keep=[descriptor])


def _restarted_web(service: _Service, web: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a web server on the same socket in place of one that ended."""
    child = _start_web(service.config, service.listener, web)
    _begin_to_serve(child, service.config.database_url or "")
    return child


def _begin_to_serve(web: subprocess.Popen[bytes], database_url: str) -> None:
    """Let the web server begin to serve."""
    if web.stdin is not None:
        with suppress(BrokenPipeError):  # it has ended, which is noticed next
            web.stdin.write(json.dumps(database_url).encode() + b"\n")
            web.stdin.close()


def _serve_metrics(config: Config, listener: socket.socket, stack: ExitStack) -> None:
    """Serve GITSTORE_METRICS_BIND from this process, which outlives a worker that hangs."""
    from service import scraping  # imported only if used: it loads Flask
    from service.metrics import Metrics
    from service.projects import Projects
    from sync.db import Database

    def connected(url: str) -> Database:
        database = Database(url, max_connections=1, application="gitstore metrics")
        stack.callback(database.close)
        return database

    database = connected(config.database_url or "")
    replica = connected(config.read_url) if config.read_url is not None else None
    if config.read_only and replica is None:
        replica = database
    folder = config.metrics_folder
    scraper = scraping.Scraper(Metrics(folder), Projects(config), database, folder, replica=replica)
    stack.enter_context(scraping.serving(listener, config, scraper))
    logs.action(Event.METRICS_LISTENING, url=f"http://{config.metrics_bind}/metrics")


def _environment(config: Config) -> dict[str, str]:
    """Return the environment of a child. The worker shares the counters of the processes that serve."""
    return config.environment(**{METRICS_FOLDER: str(config.metrics_folder)})


def _wait_until_ready(service: _Service) -> None:
    def is_ready() -> bool:
        if (status := service.web.poll()) is not None:
            raise UnavailableError(f"the web server exited with status {status}: see the log")
        return answers(service.config.bind, _ANSWER_SECONDS)

    if not wait_until(is_ready, _READY_SECONDS):
        raise UnavailableError(f"no answer from the service after {_READY_SECONDS:g} s")


def _migrated(conninfo: str, direct: str | None, seconds: int) -> list[str]:
    """Migrate the database, once it is reachable: it may be starting at the same time.

    Raises `config` at once for an address that cannot work, such as that of a database that does not exist.
    """
    from sync.migrate import migrate
    from sync.notifications import check_direct

    def migrated() -> list[str]:
        if direct is not None:
            check_direct(conninfo, direct)
        return migrate(conninfo)

    return _wait_for(migrated, seconds)


def _wait_for(work: Callable[[], T], seconds: int) -> T:
    """Repeat `work` until Postgres answers; raises `unavailable` after `seconds`."""
    started = next_news = time.monotonic()
    while True:
        try:
            return work()
        except UnavailableError as error:
            now = time.monotonic()
            if now - started > seconds:
                message = f"Postgres at DATABASE_URL did not answer within {seconds} s"
                raise error.reworded(message) from error.__cause__
            if now >= next_news:
                next_news = now + _DATABASE_NEWS
                waited = round(now - started)
                logs.action(
                    Event.WAITING_FOR_POSTGRES, level="warning", cause=logs.cause_of(error), seconds=waited
                )
        time.sleep(_DATABASE_TICK)


def check_git() -> None:
    """Raise `config` unless a sufficiently new git is installed."""
    output = subprocess.run([git(), "version"], capture_output=True, text=True, check=False).stdout
    version = re.search(r"(\d+)\.(\d+)", output)
    if version is None or (int(version[1]), int(version[2])) < OLDEST_GIT:
        needed = ".".join(map(str, OLDEST_GIT))
        raise ConfigError(f"git {needed} or newer is needed; installed is {output.strip() or 'none'}")


@contextmanager
def metrics_folder() -> Iterator[Path]:
    """Yield an empty folder for the counters of one service (service/metrics.py), removed after the block.

    It is on this machine, as the data folder may be remote and counting must be cheap. A lock in it is held
    as long as the service runs: a folder with a free lock was left by a killed service, and is removed.
    """
    parent = Path(tempfile.gettempdir())
    for folder in parent.glob(f"{_METRICS_PREFIX}*"):
        with suppress(OSError):  # another user's, or already removed by another process
            _remove_unless_locked(folder)
    folder = Path(tempfile.mkdtemp(prefix=_METRICS_PREFIX))
    # The lock file has another name until it is locked.
    unlocked = folder / f"new-{_LOCK}"
    handle = os.open(unlocked, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try_lock(handle)  # no other process knows it
        unlocked.rename(folder / _LOCK)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _remove_unless_locked(folder: Path) -> None:
    handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        if try_lock(handle):
            shutil.rmtree(folder)
    finally:
        os.close(handle)
