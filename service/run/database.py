"""Which Postgres: the one of DATABASE_URL, else the embedded one, whoever runs it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Final

import psycopg

from gitstore.errors import Code, GitstoreError
from service.config import Config
from service.projects import make_data_folder
from sync.db import CONNECT_SECONDS, Database
from sync.embedded.server import EmbeddedPostgres
from sync.errors import translated

_PATIENCE: Final = 15.0  # seconds in which another process may be starting, or stopping, the server
_TICK: Final = 0.1


@contextmanager
def connection_string(config: Config, *, make: bool = False) -> Iterator[str]:
    """The Postgres of this gitstore, as a connection string that holds until the end of the block.

    Where `gitstore serve` runs the embedded one, that; where nobody does, it runs for as long as the block.
    Raises `config` where there is none yet, unless it may be made (`make`).
    """
    if config.database_url is not None:
        yield config.database_url
        return
    if not make and not (config.postgres_folder / "data").is_dir():
        raise GitstoreError(
            Code.CONFIG,
            f"there is no gitstore in {config.data}: run gitstore serve, which makes one, or set "
            "GITSTORE_DATA to the folder of yours",
        )
    make_data_folder(config)
    server = EmbeddedPostgres(config.postgres_folder)
    try:
        yield _found_or_started(server)
    finally:
        server.stop()  # one that another process runs goes on


@contextmanager
def connected(config: Config, application: str) -> Iterator[Database]:
    """The database, for one command. Raises `unavailable`, caused by what the driver says, at once."""
    with connection_string(config) as conninfo:
        check(conninfo)
        with closing(Database(conninfo, max_connections=4, application=application)) as database:
            yield database


def check(conninfo: str) -> None:
    """Raise `unavailable` unless Postgres answers. A pool would only say that it took too long."""
    with translated():
        psycopg.connect(conninfo, connect_timeout=CONNECT_SECONDS).close()


def _found_or_started(server: EmbeddedPostgres) -> str:
    deadline = time.monotonic() + _PATIENCE
    while not server.running():
        try:
            return server.start()
        except GitstoreError as error:
            # Somebody has just taken it, and it is about to answer; or to be let go.
            if "pid" not in error.data or time.monotonic() > deadline:
                raise
        time.sleep(_TICK)
    return server.conninfo()
