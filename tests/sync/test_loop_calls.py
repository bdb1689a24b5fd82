"""Calls from an event loop: many at once, and connections that break."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest

from gitstore.errors import GitstoreError, UnavailableError
from sync import loop_calls
from sync.db import Database
from sync.libpq import Call
from sync.loop_calls import LoopCalls


@dataclass(frozen=True)
class Row:
    number: int
    text: str


def asking(number: int, query: str = "select $1::integer, $2::text") -> Call[Row]:
    """The lock timeout, which is added as the last value, comes back as the text."""
    return Call(Row, query.encode(), (str(number),))


def in_loop(database: Database, work: Callable[[LoopCalls], Awaitable[Any]]) -> Any:
    async def run() -> Any:
        with closing(LoopCalls(database)) as calls:
            return await work(calls)

    return asyncio.run(run())


def sessions(database: Database) -> int:
    with database.as_owner() as tx:
        return int(tx.value("select count(*) from pg_stat_activity where application_name = 'loop'"))


def test_many_calls_share_a_few_connections(database: Database, conninfo: str) -> None:

    async def work(calls: LoopCalls) -> tuple[list[list[Row]], int]:
        found = await asyncio.gather(*(calls.call(asking(number)) for number in range(50)))
        return found, await asyncio.to_thread(sessions, database)

    found, open_now = in_loop(Database(conninfo, application="loop"), work)
    assert [rows[0].number for rows in found] == list(range(50))
    assert {rows[0].text for rows in found} == {"10000ms"}
    assert open_now == loop_calls.MOST


def test_after_an_error_the_next_call_works(database: Database) -> None:
    async def work(calls: LoopCalls) -> list[Row]:
        for query in (
            "select 1/0, $1::text || $2",
            "no sql",
            "select pg_terminate_backend(pg_backend_pid()), $1, $2",
        ):
            with pytest.raises(GitstoreError):
                await calls.call(asking(1, query))
        return await calls.call(asking(2))

    assert in_loop(database, work)[0].number == 2


def test_connections_that_were_closed_while_idle_are_replaced(database: Database) -> None:
    def end_others() -> None:
        with database.as_owner() as tx:
            tx.run(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where application_name = 'gitstore' and pid <> pg_backend_pid()"
            )

    async def work(calls: LoopCalls) -> list[Row]:
        await asyncio.gather(*(calls.call(asking(number)) for number in range(9)))
        await asyncio.to_thread(end_others)
        await asyncio.sleep(0.2)
        return await calls.call(asking(3))

    assert in_loop(database, work)[0].number == 3


def test_a_server_that_does_not_answer_is_unavailable(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also for the calls that wait for a connection, and on one whose calls before were answered."""
    monkeypatch.setattr(loop_calls, "_SECONDS", 0.3)
    sleeping = "select 1, pg_sleep(2)::text || $1 || $2"

    async def work(calls: LoopCalls) -> list[object]:
        await asyncio.gather(*(calls.call(asking(number)) for number in range(9)))
        await asyncio.sleep(0.1)
        asked = (calls.call(asking(number, sleeping)) for number in range(9))
        return await asyncio.gather(*asked, return_exceptions=True)

    assert {type(outcome) for outcome in in_loop(database, work)} == {UnavailableError}


def test_a_server_that_is_gone_is_asked_once_a_second() -> None:
    tried: list[str] = []

    class Gone(Database):
        def connection(self) -> Any:
            tried.append(self.conninfo)
            return super().connection()

    async def work(calls: LoopCalls) -> None:
        for number in range(20):
            with pytest.raises(UnavailableError):
                await calls.call(asking(number))

    in_loop(Gone("host=127.0.0.1 port=1"), work)
    assert len(tried) == 1


def test_a_cancelled_call_leaves_no_trace(database: Database) -> None:
    async def work(calls: LoopCalls) -> list[Row]:
        running = [
            asyncio.create_task(calls.call(asking(1, "select 1, pg_sleep(0.3)::text || $1 || $2")))
            for _ in range(9)
        ]
        await asyncio.sleep(0.1)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        return (await asyncio.gather(*(calls.call(asking(number)) for number in range(9))))[8]

    assert in_loop(database, work)[0].number == 8


def test_a_setting_of_few_connections_leaves_all_to_the_pool() -> None:
    async def work(calls: LoopCalls) -> None:
        with pytest.raises(UnavailableError):
            await calls.call(asking(1))

    in_loop(Database("host=127.0.0.1 port=1", max_connections=3), work)
