"""A primary and a synchronous replica of Postgres, and a PgBouncer in transaction mode before the primary."""

from __future__ import annotations

import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.machines import NETWORK, Machine, wait_for

USER = "postgres"
PORT = "5432"
POOLER_PORT = "6432"
_SETTINGS = f"""
listen_addresses = '*'
port = {PORT}
unix_socket_directories = ''
wal_sender_timeout = 5s
wal_receiver_timeout = 5s
wal_keep_size = 512MB
hot_standby_feedback = on
tcp_keepalives_idle = 3
tcp_keepalives_interval = 1
tcp_keepalives_count = 3
tcp_user_timeout = 5000
client_connection_check_interval = 2s
max_connections = 120
shared_buffers = 64MB
dynamic_shared_memory_type = mmap
include 'synchronous.conf'
"""
_HBA = f"host all all {NETWORK}0/24 trust\nhost replication all {NETWORK}0/24 trust\n"
_POOLER = """
[databases]
gitstore = host={primary} port={port}
[pgbouncer]
listen_addr = {address}
listen_port = {pooler_port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
admin_users = gitstore
pool_mode = transaction
default_pool_size = 40
max_client_conn = 400
server_login_retry = 1
server_connect_timeout = 3
server_check_delay = 2
query_wait_timeout = 10
tcp_keepalive = 1
tcp_keepidle = 2
tcp_keepintvl = 1
tcp_keepcnt = 3
tcp_user_timeout = 5000
"""


def programs() -> Path | None:
    """Return the folder of the newest Postgres installed by the system, which has pg_basebackup, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_basebackup"))
    return found[-1].parent if found else None


@dataclass
class Databases:
    """Two servers; `primary` is the one that is written to. `pooler` is the machine with PgBouncer."""

    primary: Machine
    replica: Machine
    pooler: Machine

    @property
    def url(self) -> str:
        return f"postgresql://gitstore@{self.pooler.address}:{POOLER_PORT}/gitstore"

    @property
    def direct_url(self) -> str:
        return f"postgresql://gitstore@{self.primary.address}:{PORT}/gitstore"

    def create(self) -> None:
        for machine in (self.primary, self.replica, self.pooler):
            shutil.chown(machine.folder, USER, USER)
        data = self._data(self.primary)
        self._program(self.primary, "initdb", "-D", str(data), "-U", USER, "--auth=trust", "--locale=C.UTF-8")
        with (data / "postgresql.conf").open("a") as file:
            file.write(_SETTINGS)
        (data / "pg_hba.conf").write_text(_HBA)
        self._be_synchronous(self.primary, on=False)
        self._start(self.primary)
        self.sql(self.primary, "create role gitstore login createrole")
        self.sql(self.primary, "create database gitstore owner gitstore")
        self.follow()
        self.start_pooler()

    def follow(self) -> None:
        """Make `replica` a new copy of `primary`, and let every commit wait for it."""
        data = self._data(self.replica)
        shutil.rmtree(data, ignore_errors=True)
        source = ("-h", self.primary.address, "-p", PORT, "-U", USER)
        # A machine that was cut off is reached again only after a moment.
        wait_for(lambda: self._answers(self.primary, self.replica), "the primary cannot be reached")
        self._program(
            self.replica, "pg_basebackup", *source, "-D", str(data), "-R", "-X", "stream", "-c", "fast"
        )
        self._be_synchronous(self.replica, on=False)
        self._start(self.replica)
        state = "select count(*) from pg_stat_replication where state = 'streaming'"
        wait_for(lambda: self.sql(self.primary, state) == "1", "the replica does not follow")
        self._be_synchronous(self.primary, on=True)
        self._reload(self.primary)
        state = "select count(*) from pg_stat_replication where sync_state in ('sync', 'quorum')"
        wait_for(lambda: self.sql(self.primary, state) == "1", "replication is not synchronous")

    def promote(self) -> None:
        """Make the replica the primary. The former one is killed first, wherever it may be: it is fenced."""
        self.primary.kill()
        self.primary.join()
        self._program(self.replica, "pg_ctl", "promote", "-D", str(self._data(self.replica)), "-w")
        self.primary, self.replica = self.replica, self.primary
        self._write_pooler()
        self.pooler.signal(signal.SIGHUP, self.pooler.pids("pgbouncer"))

    def start_pooler(self) -> None:
        self._write_pooler()
        self.pooler.start("pgbouncer", str(self.pooler.folder / "pgbouncer.ini"), user=USER)

    def sql(self, machine: Machine, statement: str, database: str = USER) -> str:
        where = ("-h", machine.address, "-p", PORT, "-U", USER, "-d", database)
        return self._program(
            machine, "psql", "-qAtX", "-v", "ON_ERROR_STOP=1", *where, "-c", statement
        ).strip()

    def _write_pooler(self) -> None:
        users = self.pooler.folder / "users"
        users.write_text('"gitstore" ""\n')
        (self.pooler.folder / "pgbouncer.ini").write_text(
            _POOLER.format(
                primary=self.primary.address, port=PORT, address=self.pooler.address,
                pooler_port=POOLER_PORT, users=users,
            )
        )  # fmt: skip

    def _start(self, machine: Machine) -> None:
        machine.start(str(self._bin / "postgres"), "-D", str(self._data(machine)), user=USER)
        ready = (str(self._bin / "pg_isready"), "-q", "-h", machine.address, "-p", PORT)
        wait_for(
            lambda: "no" not in machine.run(*ready, check=False) and self._answers(machine), machine.log()
        )

    def _answers(self, machine: Machine, asking: Machine | None = None) -> bool:
        where = ("-h", machine.address, "-p", PORT, "-U", USER, "-d", USER)
        return (asking or machine).run(
            str(self._bin / "psql"), "-qAtX", *where, "-c", "select 1", check=False
        ).strip() == "1"

    def _be_synchronous(self, machine: Machine, *, on: bool) -> None:
        path = self._data(machine) / "synchronous.conf"
        path.write_text(f"synchronous_standby_names = '{'*' if on else ''}'\n")
        shutil.chown(path, USER, USER)

    def _reload(self, machine: Machine) -> None:
        self._program(machine, "pg_ctl", "reload", "-D", str(self._data(machine)))

    def _program(self, machine: Machine, name: str, *arguments: str) -> str:
        return machine.run(str(self._bin / name), *arguments, user=USER)

    @staticmethod
    def _data(machine: Machine) -> Path:
        return machine.folder / "data"

    @property
    def _bin(self) -> Path:
        found = programs()
        assert found is not None
        return found
