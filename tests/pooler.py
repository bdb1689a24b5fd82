"""A real PgBouncer over a test's Postgres, as the same unprivileged user: it refuses to run as root."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from gitstore.system import wait_until
from sync.embedded.binaries import choose_runner
from tests.conftest import temporary_folder
from tests.helpers import PATIENCE

PORT = 6432
PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")

# What a client could leave behind for the next client of the same backend.
LEFT_BEHIND: LiteralString = """
    select name, setting from pg_settings where source = 'session'
        and name <> 'application_name' and name not like 'transaction\\_%'
    union all select name, current_setting(name, true)
        from unnest('{request.jwt.claims,request.jwt.claim.sub,request.jwt.claim.role}'::text[]) name
        where current_setting(name, true) <> ''
    union all select 'role', current_user where current_user <> session_user
    union all select 'prepared', name from pg_prepared_statements
    union all select 'listening', * from pg_listening_channels()
    union all select 'locked', objid::text from pg_locks
        where locktype = 'advisory' and pid = pg_backend_pid()
"""


def left_behind(conninfo: str, backends: int = 1) -> list[tuple[Any, ...]]:
    """What earlier clients of a pooler left to another client, in each of its backends."""
    with ExitStack() as stack:
        found = []
        for _ in range(backends):  # each keeps a backend until the end
            other = psycopg.connect(conninfo, autocommit=True, prepare_threshold=None)
            stack.enter_context(other).execute("begin")
            found += other.execute(LEFT_BEHIND).fetchall()
        return found


@contextmanager
def pooler(conninfo: str, mode: str = "transaction", *, size: int = 4) -> Iterator[str]:
    """A PgBouncer in front of `conninfo`, with `size` backends for each database; its conninfo.

    Skips the test where PgBouncer is not installed.
    """
    if PROGRAM is None:
        pytest.skip("PgBouncer is not installed")
    server = conninfo_to_dict(conninfo)
    with temporary_folder(shared=True) as folder:
        runner = choose_runner(Path(str(server["host"])))
        users, settings, log = folder / "users", folder / "pgbouncer.ini", folder / "log"
        users.write_text(f'"{server["user"]}" ""\n')
        settings.write_text(
            f"[databases]\n* = host={server['host']} port={server.get('port', 5432)}\n"
            f"[pgbouncer]\nlisten_addr =\nunix_socket_dir = {folder}\nlisten_port = {PORT}\n"
            f"auth_type = trust\nauth_file = {users}\npool_mode = {mode}\ndefault_pool_size = {size}\n"
            f"max_client_conn = 400\nserver_login_retry = 1\nquery_wait_timeout = 20\n"
        )
        if runner.user is not None:
            shutil.chown(folder, runner.user.uid, runner.user.gid)
        with log.open("w") as out:
            process = runner.popen(PROGRAM, [str(settings)], out.fileno())
        through = make_conninfo(conninfo, host=str(folder), port=PORT)

        def answers() -> bool:
            assert process.poll() is None, log.read_text()
            with suppress(psycopg.Error):
                psycopg.connect(through, connect_timeout=5).close()
                return True
            return False

        try:
            assert wait_until(answers, PATIENCE), log.read_text()
            yield through
        finally:
            process.terminate()
            process.wait(PATIENCE)
