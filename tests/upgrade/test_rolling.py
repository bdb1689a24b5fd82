"""A rolling upgrade: processes of 0.1.0 serve while the migrations since then are applied, until the end."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from click.testing import CliRunner, Result

from gitstore.errors import ConfigError
from service.cli.main import commands
from sync.db import Database, Transaction
from sync.levels import NEWEST, Level, level, locks_of, raise_level
from sync.migrate import migrate, shipped
from tests.conftest import MakeDatabase
from tests.service.serve_process import until
from tests.upgrade.test_upgrade import restore

# As a process of 0.1.0 sends them.
_BEGIN = """
    begin; set local search_path = pg_catalog; set local lock_timeout = '10s'; set local role gitstore_user
"""
_CLAIMS = "select set_config('request.jwt.claims', %s, true)"
_AUTHENTICATE = """
    select id, name, role, project_id, project_slug, project_name, project_owner, project_rules,
        project_created_at from gitstore.authenticate(%s)
"""
_CURRENT = """
    select v.version_number, v.definition from gitstore.workflows w
    join gitstore.workflow_versions v on v.id = w.current_version_id where w.slug = 'order-sync'
"""
_NOTE = """
    insert into gitstore.audit_log (project_id, actor_id, actor_name, door, action, object)
    values (%s, %s, 'owner', 'http', 'token.created', 'x')
"""


class OldProcess:
    """The statements of a process of 0.1.0, with an owner's token."""

    def __init__(self, conninfo: str) -> None:
        self.connection = psycopg.connect(conninfo, autocommit=True, prepare_threshold=None)
        query = "select sha256, id, project_id from gitstore.access_tokens where role = 'owner' limit 1"
        self.secret, self.token, self.project = self.connection.execute(query).fetchone() or (b"", "", "")

    def serve(self) -> tuple[bool, int, bool]:
        """A request to read and one that records itself: authenticated, current version, recorded."""
        run = self.connection.execute
        run(_BEGIN)
        held = run(_AUTHENTICATE, (self.secret,)).fetchone()
        run("commit")
        run(_BEGIN)
        run(_CLAIMS, (json.dumps({"sub": str(self.token)}),))
        row = run(_CURRENT).fetchone()
        try:
            noted = run(_NOTE, (self.project, str(self.token))).rowcount == 1
            run("commit")
        except psycopg.errors.InsufficientPrivilege:
            noted = False
            run("rollback")
        return held is not None, row[0] if row else 0, noted


@pytest.fixture
def old(
    make_database: MakeDatabase, postgres_admin_conninfo: str, ram_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OldProcess]:
    """A process of 0.1.0 on its own database; the settings of this version's commands name it."""
    conninfo = make_database()
    restore("0.1.0", conninfo, postgres_admin_conninfo, ram_path)
    monkeypatch.setenv("DATABASE_URL", conninfo)
    monkeypatch.setenv("GITSTORE_DATA", str(ram_path / "data"))
    process = OldProcess(conninfo)
    yield process
    process.connection.close()


def run(*arguments: str, status: int = 0) -> Result:
    done = CliRunner().invoke(commands, arguments)
    assert done.exit_code == status, done.output
    return done


def test_a_process_of_the_release_before_serves_until_the_upgrade_is_finished(old: OldProcess) -> None:
    """Without a failed request while the migrations are applied, and afterwards; `--finish` ends that."""
    plan = run("migrate", "--plan").stdout
    assert "0017_counts.sql\n  workflow_versions (" in plan
    assert "is rewritten; reads and writes wait" in plan
    assert "0013_hardening.sql" in run("migrate", "--finish", status=1).stderr

    served: list[tuple[bool, int, bool]] = []
    failures: list[Exception] = []
    stop = threading.Event()

    def requests() -> None:
        try:
            while not stop.is_set():
                served.append(old.serve())
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=requests)
    thread.start()
    try:
        until(lambda: len(served) > 3 or failures, "the old process serves nothing")
        applied = run("migrate").stdout
    finally:
        stop.set()
        thread.join()
    assert "applied 0013_hardening.sql" in applied
    assert failures == []
    assert set(served) == {(True, 3, True)}
    assert old.serve() == (True, 3, True)
    assert run("migrate", "--plan").stdout.startswith("no migration is pending")
    # From the end of the upgrade on, a token's id in `sub` means nothing.
    assert f"the feature level is now {NEWEST}" in run("migrate", "--finish").stdout
    assert "was already" in run("migrate", "--finish").stdout
    assert old.serve() == (True, 0, False)


def test_the_level_of_an_upgraded_database_is_the_first_and_of_a_new_one_the_newest(
    old: OldProcess, make_database: MakeDatabase
) -> None:
    """So that what older processes do not understand is written only where there are none."""

    def ask(conninfo: str) -> tuple[int, bool]:
        migrate(conninfo)
        database = Database(conninfo)
        try:
            with database.as_mirror() as tx:  # which writes to Git
                return level(tx), level(tx) >= Level.TOKEN_CLAIMS
        finally:
            database.close()

    assert ask(old.connection.info.dsn) == (0, False)
    assert ask(make_database()) == (NEWEST, True)


def test_a_level_is_raised_by_the_owner_alone_and_never_beyond_what_is_known(
    database_of_levels: Database,
) -> None:
    def refused(tx: Transaction) -> bool:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            tx.run("update gitstore.feature_level set level = 0")
        return True

    for transaction in (database_of_levels.as_mirror(), database_of_levels.as_user({})):
        with pytest.raises(Exception, match="rolled back"), transaction as tx:
            assert refused(tx)
    with database_of_levels.as_owner() as tx, pytest.raises(ConfigError, match="a newer gitstore"):
        raise_level(tx, NEWEST + 1)


@pytest.fixture
def database_of_levels(make_database: MakeDatabase, migrated_template: str) -> Iterator[Database]:
    database = Database(make_database(migrated_template))
    yield database
    database.close()


def test_the_plan_knows_the_locks_of_statements() -> None:
    """Of each form that migrations have; an effect on a table that the migration itself creates is none."""
    sizes = {"events": 10, "workflows": 5, "sources": 0}
    text = """
        -- alter table gitstore.events is only a comment
        create table gitstore.new (id uuid); alter table gitstore.new enable row level security;
        create function gitstore.f() returns void language sql as $$ update gitstore.events set id = 1 $$;
        alter table gitstore.workflows add column n int generated always as (1) stored;
        alter table gitstore.workflows add column m int;
        create index i on gitstore.events (id);
        do $$ declare this text; begin foreach this in array array['sources'] loop
            execute format('alter table gitstore.%I enable row level security', this); end loop; end $$;
    """
    found = {one.table: one.kind for one in locks_of(text, sizes)}
    assert found == {"workflows": "rewrite", "events": "index", "sources": "brief"}
    assert all(locks_of(one.text, {}) == [] for one in shipped())
