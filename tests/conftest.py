"""A real Postgres for every test that asks for one: a server per worker, a database per test.

And what holds for the whole run: profiles of property tests, where temporary folders are, no proxy.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from psycopg import sql
from psycopg.conninfo import make_conninfo

from sync.embedded.server import SUPERUSER, USER, EmbeddedPostgres
from sync.migrate import migrate
from tests.installation import Installation, install, is_open

# How fast a machine is says nothing of the code. Where a fixture's folder serves all examples, that is meant.
NOT_ASKED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
FULL = 100
settings.register_profile("full", deadline=None, suppress_health_check=NOT_ASKED, max_examples=FULL)
settings.register_profile("fast", settings.get_profile("full"), max_examples=FULL // 5)
settings.load_profile("fast")  # `--hypothesis-profile=full` replaces it

RAM_DISK = Path("/dev/shm")  # noqa: S108 (used through tempfile)
ENOUGH = 2 << 30
SHARED = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 (used through tempfile)


def has_ram_disk() -> bool:
    return RAM_DISK.is_dir() and shutil.disk_usage(RAM_DISK).free > ENOUGH


# Tests talk to loopback alone, and urllib asks a proxy even there.
for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
    del os.environ[name]
if has_ram_disk():
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(RAM_DISK))  # where pytest makes tmp_path


def examples(full: int) -> settings:
    """Settings of a property test: `full` examples in the profile `full`, in proportion in others."""
    return settings(max_examples=max(full * settings().max_examples // FULL, 1))


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> Generator[None, int, int]:
    """Run three workers on two cores, since a test that waits for a child or a socket uses none.

    A single file or test runs without workers: to start them takes longer than most files.
    """
    cores = yield
    if len(config.args) == 1 and ".py" in config.args[0]:
        config.option.dist = "no"
        return 0
    return cores * 3 // 2


MakeDatabase = Callable[..., str]
"""`make_database(template: str | None = None)`: the conninfo, as `gitstore`, of a new database it owns."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Path]:
    """The folder of an embedded Postgres that has run and was stopped, for `copy_cluster`."""
    with temporary_folder() as folder:
        server = EmbeddedPostgres(folder / "postgres")
        server.start()
        server.stop()
        yield folder / "postgres"


def copy_cluster(cluster: Path, folder: Path) -> None:
    """Let `folder` be that of a second start, which runs no initdb: that takes a second of CPU."""
    folder.parent.mkdir(mode=0o711, parents=True, exist_ok=True)  # as make_data_folder does
    shutil.copytree(cluster / "data", folder / "data")


@pytest.fixture(scope="session")
def postgres(cluster: Path) -> Iterator[EmbeddedPostgres]:
    """This worker's server. fsync is on, but costs little in RAM: a new database takes 15 ms, not 300."""
    with temporary_folder() as folder:
        copy_cluster(cluster, folder / "postgres")
        server = EmbeddedPostgres(folder / "postgres", settings={"max_wal_size": "256MB"})
        server.start()
        try:
            yield server
        finally:
            server.stop()


@pytest.fixture(scope="session")
def postgres_admin_conninfo(postgres: EmbeddedPostgres) -> str:
    """The superuser's way into this worker's server, to its database `postgres`."""
    return postgres.conninfo(user=SUPERUSER, dbname=SUPERUSER)


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    """What children of another user run: they may be unable to enter the checkout."""
    with temporary_folder(shared=True) as folder:
        yield install(folder / "with a space, and ümlaut")


@pytest.fixture
def ram_path() -> Iterator[Path]:
    """Like tmp_path, but in RAM where there is enough, with a short name, and gone at the end."""
    with temporary_folder() as folder:
        yield folder


@pytest.fixture
def make_database(postgres_admin_conninfo: str) -> Iterator[MakeDatabase]:
    """Makes databases, each a copy of `template` (to which nobody may be connected), dropped at the end."""
    with ExitStack() as databases:
        yield lambda template=None: databases.enter_context(database(postgres_admin_conninfo, template))


@contextmanager
def database(admin_conninfo: str, template: str | None = None) -> Iterator[str]:
    """A database of its own, owned by the role as which the service connects."""
    name = f"test_{uuid4().hex}"
    names = (sql.Identifier(part) for part in (name, template or "template1", USER))
    with psycopg.connect(admin_conninfo, autocommit=True) as admin:
        # WAL_LOG: as fast as FILE_COPY in RAM, and on a disk without its checkpoints, which all wait for.
        create = sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {} STRATEGY WAL_LOG").format(*names)
        admin.execute(create)
        try:
            yield make_conninfo(admin_conninfo, user=USER, dbname=name)
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def temporary_folder(*, shared: bool = False) -> Iterator[Path]:
    """A folder for a short while, in RAM if possible: there, fsync is free.

    Every user may enter a `shared` one, whatever TMPDIR is.
    """
    places = [RAM_DISK] * has_ram_disk() + [Path(tempfile.gettempdir()), *SHARED]
    place = next(place for place in places if not shared or is_open(place))
    with tempfile.TemporaryDirectory(prefix="gitstore-test-", dir=place) as folder:
        if shared:
            Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture(scope="session")
def migrated_template(postgres_admin_conninfo: str) -> Iterator[str]:
    """The name of a database with everything migrated, to be cloned and not to be used."""
    name = f"template_{uuid4().hex}"
    names = sql.Identifier(name), sql.Identifier(USER)
    with psycopg.connect(postgres_admin_conninfo, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(*names))
        migrate(make_conninfo(postgres_admin_conninfo, user=USER, dbname=name))
        yield name
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(names[0]))
