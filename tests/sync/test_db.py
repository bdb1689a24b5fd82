"""Connections: roles and claims of transactions, and a Postgres that goes away."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import LiteralString
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from gitstore.errors import Code, GitstoreError
from sync import tokens
from sync.db import Database, Locks, Transaction, user_claims
from sync.embedded.server import EmbeddedPostgres
from sync.replication import Position

WHO = "select current_user, nullif(current_setting('request.jwt.claims', true), '')"


def test_role_and_claims_last_as_long_as_the_transaction(conninfo: str) -> None:
    database = Database(conninfo, max_connections=1)
    someone = uuid4()
    with database.reading(user_claims(someone)) as tx:
        assert tx.tuples(WHO) == [("gitstore_user", f'{{"sub": "{someone}"}}')]
    with database.as_mirror() as tx:
        assert tx.tuples(WHO) == [("gitstore_mirror", None)]
    with database.as_owner() as tx:
        assert tx.tuples(WHO) == [("gitstore", None)]
    with database.reading({}) as tx:
        assert tx.tuples(WHO) == [("gitstore_user", "{}")]
    database.close()


@pytest.mark.parametrize("fails_with", [ValueError, KeyboardInterrupt])
def test_claims_do_not_outlive_a_transaction_that_failed(
    conninfo: str, fails_with: type[BaseException]
) -> None:
    database = Database(conninfo, max_connections=1)
    with pytest.raises(fails_with), database.as_user(user_claims(uuid4())):
        raise fails_with
    with database.as_owner() as tx:
        assert tx.tuples(WHO) == [("gitstore", None)]
    database.close()


def test_claims_with_quotes_and_unicode_arrive_as_they_are(database: Database) -> None:
    strange = "o'brien\\ \"; drop table x; -- %s %(a)s \N{SNOWMAN}"
    with database.reading({"sub": strange}) as tx:
        assert tx.value("select current_setting('request.jwt.claims')::jsonb ->> 'sub'") == strange
        assert tx.value("select gitstore.visible_projects()") == []


def test_a_subject_that_is_not_a_uuid_has_no_rights(database: Database) -> None:
    for subject in ("", "me", "00000000-0000-0000-0000-00000000000g", None, 7):
        with database.reading({"sub": subject}) as tx:
            assert tx.value("select gitstore.visible_projects()") == []


def test_reading_cannot_write(database: Database) -> None:
    with pytest.raises(GitstoreError), database.reading({}) as tx:
        tx.run("create temporary table t (id int)")


def test_a_failed_transaction_is_rolled_back(database: Database) -> None:
    with pytest.raises(ValueError, match="no"), database.as_owner() as tx:  # noqa: PT012
        tx.run("create table gitstore.scratch (id int)")
        raise ValueError("no")
    with database.as_owner() as tx:
        assert tx.value("select to_regclass('gitstore.scratch')") is None


def test_a_suppressed_error_does_not_pass_for_a_commit(database: Database) -> None:
    with (
        pytest.raises(GitstoreError, match="rolled back"),
        database.as_owner() as tx,
        suppress(psycopg.Error),
    ):
        tx.run("select 1 / 0")


def test_connections_cut_while_idle_are_replaced(database: Database, postgres_admin_conninfo: str) -> None:
    def ping(_: int) -> None:
        database.ping()
        time.sleep(0.02)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(ping, range(8)))
    with psycopg.connect(postgres_admin_conninfo, autocommit=True) as admin:
        admin.execute("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'gitstore'")
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(ping, range(8)))


def test_a_connection_cut_in_the_middle_is_unavailable_and_the_next_request_works(
    database: Database, postgres_admin_conninfo: str
) -> None:
    with pytest.raises(GitstoreError) as refused, database.as_owner() as tx:  # noqa: PT012
        pid = tx.value("select pg_backend_pid()")
        with psycopg.connect(postgres_admin_conninfo, autocommit=True) as admin:
            admin.execute("select pg_terminate_backend(%s, 1000)", (pid,))
        tx.value("select 1")
    assert refused.value.code is Code.UNAVAILABLE
    assert refused.value.data["retry_after"] > 0
    database.ping()


def test_a_stopped_server_is_refused_quickly_and_found_again_when_started(tmp_path: Path) -> None:
    server = EmbeddedPostgres(tmp_path / "postgres")
    database = Database(server.start(), max_connections=4)
    try:
        database.ping()
        server.stop()
        for _ in range(3):
            began = time.monotonic()
            with pytest.raises(GitstoreError) as refused:
                database.ping()
            assert refused.value.code is Code.UNAVAILABLE
            assert time.monotonic() - began < 2
        server.start()
        database.ping()
    finally:
        database.close()
        server.stop()


def test_a_wait_for_a_lock_ends_as_busy(conninfo: str) -> None:
    database = Database(conninfo, lock_seconds=0.2)
    with database.as_mirror() as first:
        first.run("select pg_advisory_xact_lock(1)")
        with pytest.raises(GitstoreError) as refused, database.as_mirror() as second:
            second.run("select pg_advisory_xact_lock(1)")
    database.close()
    assert (refused.value.code, refused.value.data) == (Code.BUSY, {"retry_after": 1})


def test_a_statement_that_takes_too_long_ends_as_busy(conninfo: str) -> None:
    database = Database(conninfo, statement_seconds=0.1)
    with pytest.raises(GitstoreError) as refused, database.reading({}) as tx:
        tx.run("select pg_sleep(5)")
    with database.as_owner() as tx:
        tx.run("select pg_sleep(0.2)")
    database.close()
    assert refused.value.code is Code.BUSY


def test_more_requests_than_connections_wait_for_one(conninfo: str) -> None:
    database = Database(conninfo, max_connections=2)

    def work(_: int) -> None:
        with database.reading({}) as tx:
            tx.run("select pg_sleep(0.05)")

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(24)))
    database.close()


@pytest.mark.parametrize("value", ["a\0b", "half \ud800 pair"])
def test_text_that_postgres_cannot_store_is_malformed(database: Database, value: str) -> None:
    with pytest.raises(GitstoreError) as refused, database.reading({}) as tx:
        tx.value("select %(value)s::text", value=value)
    assert refused.value.code is Code.MALFORMED


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_connections_of_its_own(database: Database) -> None:
    database.ping()
    child = os.fork()
    if child == 0:
        try:
            with database.as_owner() as tx:
                tx.value("select 1")
            os._exit(0)
        except BaseException:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    for _ in range(3):
        database.ping()


def test_a_pool_opens_once_for_concurrent_first_uses(make_database: Callable[..., str]) -> None:
    database = Database(make_database(), max_connections=4)
    start = threading.Barrier(4)

    def first(_: int) -> None:
        start.wait()
        database.ping()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(first, range(4)))
    assert database._inherited == [None]
    database.close()


def test_a_call_on_a_connection_that_was_cut_while_idle_is_repeated(
    database: Database, postgres_admin_conninfo: str
) -> None:
    assert tokens.authenticate(database, b"unknown") is None
    with psycopg.connect(postgres_admin_conninfo, autocommit=True) as admin:
        admin.execute(
            "select pg_terminate_backend(pid, 1000) from pg_stat_activity where usename = 'gitstore'"
        )
    assert tokens.authenticate(database, b"unknown") is None


def test_the_position_after_a_write_is_known_once_and_only_after_a_write(database: Database) -> None:
    writes: list[Callable[[], AbstractContextManager[Transaction]]] = [
        database.as_mirror,
        lambda: database.as_user({}),
        lambda: database.as_mirror(Locks([], [1])),
    ]
    for opened in writes:
        with opened() as tx:
            before = Position.parse(tx.value("select gitstore.position()"))
        position = database.committed()
        assert position is not None
        assert Position.parse(position) >= before
        assert database.committed() is None
        with opened():
            pass
        with database.as_owner():
            pass
        assert database.committed() is None


@pytest.mark.parametrize("fault", ["revoke execute on function pg_walfile_name(pg_lsn) from public",
                                   "drop function gitstore.position()"])  # fmt: skip
def test_a_write_is_committed_where_the_position_is_withheld_or_fails(
    database: Database, postgres_admin_conninfo: str, fault: LiteralString
) -> None:
    name = str(conninfo_to_dict(database.conninfo)["dbname"])
    with psycopg.connect(make_conninfo(postgres_admin_conninfo, dbname=name), autocommit=True) as admin:
        admin.execute(fault)
    with database.as_user({}) as tx:
        number = tx.value("select pg_current_xact_id()::text")
    assert database.committed() is None
    with database.as_owner() as tx:
        assert tx.value("select pg_xact_status(%(id)s::xid8)", id=number) == "committed"
