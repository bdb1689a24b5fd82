"""Selection of Postgres: the one at DATABASE_URL, else the embedded one, started by any process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Final

from gitstore.errors import ConfigError
from service.config import Config
from service.projects import make_data_folder
from sync.db import STATEMENT_SECONDS, Database, connect
from sync.embedded.folder import FolderInUseError
from sync.embedded.server import EmbeddedPostgres
from sync.errors import translated

_PATIENCE: Final = 15.0  # seconds in which another process may be starting, or stopping, the server
_TICK: Final = 0.1


@contextmanager
def connection_string(config: Config, *, make: bool = False) -> Iterator[str]:
    """Yield a connection string to this gitstore's Postgres, valid until the end of the block.

    The embedded server that `gitstore serve` runs is used; if none is running, one is started for the
    duration of the block. Raises `config` if none has been created yet, unless `make` is set.
    """
    if config.database_url is not None:
        yield config.database_url
        return
    if not make and not (config.postgres_folder / "data").is_dir():
        raise ConfigError(
            f"there is no gitstore in {config.data}: run gitstore serve to create one, or set GITSTORE_DATA "
            "to the data folder of yours",
        )
    make_data_folder(config)
    server = EmbeddedPostgres(config.postgres_folder)
    try:
        yield _find_or_start(server)
    finally:
        server.stop()  # a server that another process runs is left running


@contextmanager
def connected(config: Config, application: str) -> Iterator[Database]:
    """Open the database for one command. Raises `unavailable` at once, caused by the driver's error."""
    with connection_string(config) as conninfo:
        check(conninfo)
        with closing(opened(config, conninfo, application, most=4)) as database:
            yield database


def opened(
    config: Config,
    conninfo: str,
    application: str,
    *,
    most: int | None = None,
    statement_seconds: float = STATEMENT_SECONDS,
) -> Database:
    """Return the database at `conninfo`, with at most `most` of the connections that are permitted."""
    permitted = config.database_connections
    return Database(
        conninfo,
        direct=config.database_direct_url,
        max_connections=min(most or permitted, permitted),
        statement_seconds=statement_seconds,
        application=application,
    )


def check(conninfo: str) -> None:
    """Raise `unavailable` unless Postgres answers, `config` where it never will. A pool reports a timeout."""
    with translated():
        connect(conninfo).close()


def _find_or_start(server: EmbeddedPostgres) -> str:
    deadline = time.monotonic() + _PATIENCE
    while not server.running():
        try:
            return server.start()
        except FolderInUseError:
            # Another process has just locked it, and is about to start it, or to stop it.
            if time.monotonic() > deadline:
                raise
        time.sleep(_TICK)
    return server.conninfo()
