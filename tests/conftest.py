"""A real Postgres for each test that needs one: a server per worker, a database per test.

Also the rules of the whole run: profiles of property tests, the order of tests, temporary folders, no proxy.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from inspect import signature
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from psycopg import sql
from psycopg.conninfo import make_conninfo

from sync.embedded.server import SUPERUSER, USER, EmbeddedPostgres
from sync.migrate import migrate
from tests import postgres_server
from tests.installation import Installation, install, is_open

# A slow machine is no failure; and one folder of a fixture may serve all examples.
IGNORED = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
FULL = 100
settings.register_profile("full", deadline=None, suppress_health_check=IGNORED, max_examples=FULL)
settings.register_profile("fast", settings.get_profile("full"), max_examples=FULL // 5)
settings.load_profile("fast")  # `--hypothesis-profile=full` replaces it

RAM_DISK = Path("/dev/shm")  # noqa: S108 (used through tempfile)
ENOUGH = 2 << 30
SERVING = {"own_service", "installation"}
"""Fixtures that start `gitstore serve` for one test, or copy the checkout for it."""
SHARED = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 (used through tempfile)


def has_ram_disk() -> bool:
    return RAM_DISK.is_dir() and shutil.disk_usage(RAM_DISK).free > ENOUGH


# A process that may not write bytecode compiles every module again: half of the time of a start.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Tests connect to loopback only, and urllib uses a proxy even for that.
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
    if len({argument.partition("::")[0] for argument in config.args}) == 1 and ".py" in config.args[0]:
        config.option.dist = "no"
        return 0
    return cores * 3 // 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that start a service of their own as `slow`, and let every worker begin with slow ones.

    Each worker begins with its part of the list, and later takes over tests from the ends of other parts.
    """
    for item in items:
        if isinstance(item, pytest.Function) and (
            SERVING & set(item.fixturenames) or "cluster" in signature(item.function).parameters
        ):
            item.add_marker("slow")
    slow = [item for item in items if item.get_closest_marker("slow")]
    rest = [item for item in items if not item.get_closest_marker("slow")]
    files = list(dict.fromkeys(item.path for item in slow))  # kept together: they share what they set up
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    part = -(-len(items) // workers)
    items.clear()
    for worker in range(workers):
        first = [item for item in slow if files.index(item.path) % workers == worker]
        count = max(part - len(first), 0) if worker < workers - 1 else len(rest)
        items += first + rest[:count]
        del rest[:count]


MakeDatabase = Callable[..., str]
"""`make_database(template: str | None = None)` creates a database that `gitstore` owns; its conninfo."""


@pytest.fixture(scope="session")
def cluster() -> Iterator[Path]:
    """The folder of an embedded Postgres that ran and was stopped, for `copy_cluster`."""
    with temporary_folder() as folder:
        server = EmbeddedPostgres(folder / "postgres")
        server.start()
        server.stop()
        yield folder / "postgres"


def copy_cluster(cluster: Path, folder: Path) -> None:
    """Copy a cluster to `folder`, so that the start there runs no initdb, which takes a second of CPU."""
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
def postgres_admin_conninfo(request: pytest.FixtureRequest) -> Iterator[str]:
    """The conninfo of the superuser and the database `postgres` of this worker's server.

    It is the embedded one, or that of the programs in GITSTORE_TEST_POSTGRES.
    """
    programs = os.environ.get(postgres_server.SETTING)
    if programs is None:
        yield request.getfixturevalue("postgres").conninfo(user=SUPERUSER, dbname=SUPERUSER)
        return
    with (
        temporary_folder(shared=True) as folder,
        postgres_server.running(Path(programs), folder / "postgres") as conninfo,
    ):
        yield conninfo


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    """A copy of the checkout for children of another user, who may be unable to enter the checkout."""
    with temporary_folder(shared=True) as folder:
        yield install(folder / "with a space, and ümlaut")


@pytest.fixture
def ram_path() -> Iterator[Path]:
    """Like tmp_path, but in RAM if possible, with a short name, and removed at the end."""
    with temporary_folder() as folder:
        yield folder


@pytest.fixture
def make_database(postgres_admin_conninfo: str) -> Iterator[MakeDatabase]:
    """Creates databases, each a copy of `template` (which must have no connections), dropped at the end."""
    with ExitStack() as databases:
        yield lambda template=None: databases.enter_context(database(postgres_admin_conninfo, template))


@contextmanager
def database(admin_conninfo: str, template: str | None = None) -> Iterator[str]:
    """A database owned by the role of the service, for as long as the block; its conninfo."""
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
    """A folder for as long as the block, in RAM if possible: fsync is free there.

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
    """The name of a migrated database, to be copied only."""
    name = f"template_{uuid4().hex}"
    names = sql.Identifier(name), sql.Identifier(USER)
    with psycopg.connect(postgres_admin_conninfo, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(*names))
        migrate(make_conninfo(postgres_admin_conninfo, user=USER, dbname=name))
        yield name
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(names[0]))
