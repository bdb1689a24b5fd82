"""Postgres behind PgBouncer, in both modes: nothing fails, and nothing is left in a session."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from gitstore.errors import BusyError, ConfigError, GitstoreError, UnavailableError
from sync import notifications
from sync.db import Database, Locks, user_claims
from sync.migrate import migrate, shipped
from sync.notifications import POLLING_SECONDS, check_direct, listen, shares_backends
from tests.pooler import left_behind, pooler
from tests.sync.conftest import House

MODES = ("transaction", "session")


@pytest.mark.parametrize("mode", MODES)
def test_nothing_is_left_to_the_next_client(conninfo: str, mode: str) -> None:
    with pooler(conninfo, mode, size=1) as through:
        with closing(Database(through, max_connections=1)) as database:
            claims = user_claims(uuid4())
            locks = Locks(shared=[1], exclusive=[2], patience=0.5)
            opened: list[Callable[[], Any]] = [
                lambda: database.reading(claims),
                lambda: database.as_user(claims),
                lambda: database.as_mirror(locks),
                lambda: database.as_owner(),
                lambda: database.upkeep(locks),
            ]
            for begin in opened:
                for _ in range(7):  # the driver prepares what it has run five times, unless told not to
                    with begin() as tx:
                        tx.value("select %(n)s::int", n=1)
                with pytest.raises(GitstoreError), begin() as tx:
                    tx.run("select 1 / 0")
                database.ask(_Number, claims, "select 1 as number")
            if mode == "transaction":
                assert shares_backends(through)
                assert left_behind(through) == []
        migrate(through)
        assert left_behind(through) == []


class _Number:
    def __init__(self, number: int) -> None:
        self.number = number


@pytest.mark.parametrize("mode", MODES)
def test_the_settings_hold_in_every_transaction(conninfo: str, mode: str) -> None:
    """Whatever the database's own defaults and the other clients of the pooler."""
    query: LiteralString = (
        "select current_setting('search_path'), current_setting('timezone'), "
        "current_setting('lock_timeout'), current_setting('statement_timeout'), now()::text like '%%+00'"
    )
    with pooler(conninfo, mode, size=2) as through:
        with psycopg.connect(through, autocommit=True) as other:
            other.execute("set search_path = public; set timezone = 'Asia/Tokyo'; set datestyle = 'German'")
        with closing(Database(through, max_connections=1, lock_seconds=3)) as database:
            for opened in (database.reading({}), database.as_mirror()):
                with opened as tx:
                    assert tx.tuples(query) == [("pg_catalog", "UTC", "3s", "30s", True)]


@pytest.mark.parametrize("mode", MODES)
def test_concurrent_processes_migrate_through_a_pooler(make_database: Callable[..., str], mode: str) -> None:
    with pooler(make_database(), mode, size=3) as through, ThreadPoolExecutor(3) as threads:
        applied = [name for names in threads.map(migrate, [through] * 3) for name in names]
    assert sorted(applied) == [migration.name for migration in shipped()]


def test_many_transactions_share_few_backends(house: House, conninfo: str) -> None:
    """Statements that were run often enough to be prepared, on backends that change all the time."""
    house.publish("order-sync")

    def read(_: int) -> str:
        with database.reading(house.claims) as tx:
            slug: str = tx.value("select slug from gitstore.workflows where slug = %(s)s", s="order-sync")
            assert tx.value("select count(*) from gitstore.workflow_versions") == 1
        return slug

    with (
        pooler(conninfo, size=2) as through,
        closing(Database(through, max_connections=8)) as database,
        ThreadPoolExecutor(8) as threads,
    ):
        assert set(threads.map(read, range(400))) == {"order-sync"}


def test_a_shared_backend_proves_transaction_mode(conninfo: str) -> None:
    assert not shares_backends(conninfo)
    for mode, size in (("transaction", 1), ("transaction", 4), ("session", 4)):
        with pooler(conninfo, mode, size=size) as through:
            assert shares_backends(through) is (mode == "transaction")


def test_a_direct_address_has_to_receive_notifications(
    conninfo: str, make_database: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notifications, "_HEARD_SECONDS", 0.5)
    with pooler(conninfo) as through, pooler(conninfo, "session") as session:
        check_direct(through, conninfo)
        check_direct(through, session)
        for wrong in (through, make_database()):
            with pytest.raises(ConfigError, match="DATABASE_DIRECT_URL receives no notifications"):
                check_direct(through, wrong)
        with pytest.raises(ConfigError, match="DATABASE_DIRECT_URL: there is no database of that name"):
            check_direct(through, make_conninfo(conninfo, dbname="nope"))


@pytest.mark.parametrize("direct", [False, True])
def test_the_listener_polls_unless_it_has_a_backend_of_its_own(conninfo: str, direct: bool) -> None:
    heard: list[str] = []
    polls: list[float] = []
    stop = threading.Event()
    with (
        pooler(conninfo) as through,
        closing(Database(through, direct=conninfo if direct else None)) as database,
    ):
        listener = threading.Thread(
            target=listen,
            args=(database, "gitstore_deliveries", stop),
            kwargs={"heard": heard.append, "poll": lambda: polls.append(time.monotonic())},
        )
        listener.start()
        deadline = time.monotonic() + 20 * POLLING_SECONDS
        while len(polls) < 3 - 2 * direct and time.monotonic() < deadline:
            time.sleep(0.02)
        with database.as_owner() as tx:
            tx.run("select pg_notify('gitstore_deliveries', 'x')")
        while direct and not heard and time.monotonic() < deadline:
            time.sleep(0.02)
        stop.set()
        listener.join()
        assert left_behind(through) == []
    assert (len(polls) == 1, heard) == (True, ["x"]) if direct else len(polls) >= 3


REFUSED = {
    "another database": ({"dbname": "nope"}, "there is no database of that name"),
    "another user": ({"user": "nobody"}, "the user or the password is wrong|the user is unknown"),
    "an unknown host": ({"host": "no-such-host.invalid"}, "its host name is unknown"),
}


@pytest.mark.parametrize("wrong", REFUSED)
def test_an_address_that_never_works_is_refused_at_once(conninfo: str, wrong: str) -> None:
    given, reason = REFUSED[wrong]
    with pooler(conninfo) as through:
        for address in (conninfo, through):
            with pytest.raises(ConfigError, match=f"DATABASE_URL: ({reason})"):
                migrate(make_conninfo(address, **given))


def test_a_pooler_in_statement_mode_is_refused(conninfo: str) -> None:
    with pooler(conninfo, "statement") as through, pytest.raises(ConfigError, match="statement mode refuses"):
        migrate(through)


def test_a_startup_parameter_that_the_pooler_refuses_is_named(conninfo: str) -> None:
    with (
        pooler(conninfo) as through,
        pytest.raises(ConfigError, match="refuses a startup parameter"),
    ):
        migrate(make_conninfo(through, options="-c timezone=UTC"))


def test_a_server_that_does_not_answer_is_unavailable(conninfo: str) -> None:
    with pooler(conninfo) as through:
        pass
    for address in (through, make_conninfo(conninfo, host="127.0.0.1", port=1)):
        with pytest.raises(UnavailableError):
            migrate(address)


def test_writers_leave_half_of_the_connections_to_readers(conninfo: str) -> None:
    with closing(Database(conninfo, max_connections=4, lock_seconds=0.3)) as database, ExitStack() as writers:
        for key in range(2):
            writers.enter_context(database.as_mirror(Locks(shared=[], exclusive=[key])))
        with pytest.raises(BusyError), database.as_mirror(Locks(shared=[], exclusive=[9])):
            pass
        with database.reading({}) as one, database.as_mirror() as two:
            assert (one.value("select 1"), two.value("select 2")) == (1, 2)
    with closing(Database(conninfo, max_connections=1)) as smallest:
        for _ in range(2):
            with smallest.as_mirror(Locks(shared=[], exclusive=[1])):
                pass
