"""Units of work with a mirror: locks, markers, and a Postgres that is lost during a write."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from gitstore.changes import Authorship, ChangeSet, write
from gitstore.drafts import Content
from gitstore.errors import BusyError, Code, GitstoreError
from gitstore.names import tag
from gitstore.policy import Command
from gitstore.policy_facts import accepted
from gitstore.repository import Repository
from gitstore.unit_of_work import MOST_WORKFLOWS
from sync.db import Database
from sync.reconcile import reconcile
from sync.unit_of_work import MirrorUnitOfWork, lock_key
from tests.sync.conftest import House


def cut_off(admin_conninfo: str) -> None:
    """Let Postgres end every connection to the database, as at a restart."""
    with psycopg.connect(admin_conninfo, autocommit=True) as admin:
        admin.execute(
            "select pg_terminate_backend(pid, 1000) from pg_stat_activity where usename = 'gitstore'"
        )


def second(house: House) -> MirrorUnitOfWork:
    """Open the project as another process would."""
    return MirrorUnitOfWork(house.database, Repository(house.store.path, house.project))


def test_two_writers_of_one_workflow_exclude_each_other(house: House) -> None:
    order: list[str] = []
    inside = threading.Event()

    def other() -> None:
        inside.wait()
        with second(house).begin(["order-sync"]):
            order.append("second")

    thread = threading.Thread(target=other)
    thread.start()
    with house.writes.begin(["order-sync"]):
        inside.set()
        time.sleep(0.2)
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_writers_of_different_workflows_do_not_wait_for_each_other(house: House) -> None:
    with house.writes.begin(["order-sync"]), second(house).begin(["invoices", "payroll"]):
        pass


def test_the_same_slug_of_another_project_is_another_lock(make_house: Callable[..., House]) -> None:
    with make_house("one").writes.begin(["order-sync"]), make_house("two").writes.begin(["order-sync"]):
        pass


def test_a_writer_that_waits_too_long_is_refused_as_busy(house: House) -> None:
    with (
        house.writes.begin(["order-sync"]),
        pytest.raises(GitstoreError) as refused,
        second(house).begin(["a", "order-sync"]),
    ):
        pytest.fail("got in")
    assert refused.value.code is Code.BUSY


def test_crossing_sets_do_not_deadlock(house: House) -> None:
    failures: list[Exception] = []

    def write(slugs: list[str]) -> None:
        writes = second(house)
        try:
            for _ in range(15):
                with writes.begin(slugs):
                    pass
        except Exception as error:
            failures.append(error)

    threads = [
        threading.Thread(target=write, args=(slugs,))
        for slugs in (["a", "b", "c"], ["c", "b", "a"], ["b", "c"], ["c", "a"])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def advisory_locks(house: House) -> list[str]:
    """Return the modes of the advisory locks that are held or waited for in the database."""
    with house.database.as_owner() as tx:
        query = """select mode from pg_locks join pg_database on pg_database.oid = database
                   where locktype = 'advisory' and datname = current_database()"""
        return [mode for (mode,) in tx.tuples(query)]


def test_many_workflows_are_locked_one_by_one_instead_of_the_repository(house: House) -> None:
    many = [f"w{number}" for number in range(MOST_WORKFLOWS)]
    with house.writes.begin(many):
        assert advisory_locks(house).count("ExclusiveLock") == MOST_WORKFLOWS
        with second(house).begin(["something-else"]):
            pass
    with pytest.raises(GitstoreError) as refused, house.writes.begin([*many, "one-more"]):
        pytest.fail("got in")
    assert refused.value.code is Code.TOO_LARGE
    assert refused.value.data == {"limit": MOST_WORKFLOWS}


def test_a_waiting_exclusive_lock_does_not_stop_writers(house: House) -> None:
    """Postgres queues them behind it; each attempt is short, and a pause follows."""
    refused: list[str] = []
    writes = 0

    def maintain() -> None:
        try:
            with second(house).maintenance():
                refused.append(Code.INTERNAL)
        except GitstoreError as error:
            refused.append(error.code)

    thread = threading.Thread(target=maintain)
    with house.writes.begin(["busy-for-long"]):
        thread.start()
        while thread.is_alive():
            with second(house).begin(["something-else"]):
                writes += 1
    assert refused == [Code.BUSY]
    assert writes > 1


def test_maintenance_proceeds_between_writers_without_end(house: House) -> None:
    stop = threading.Event()
    failures: list[Exception] = []

    def write(slug: str) -> None:
        writes = second(house)
        try:
            while not stop.is_set():
                with writes.begin([slug]):
                    time.sleep(0.02)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(f"w{number}",)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(5):
            with second(house).maintenance():
                assert advisory_locks(house).count("ExclusiveLock") >= 1
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []


def test_locks_of_a_killed_writer_are_removed_beside_writers_without_end(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One workflow is not blocked as long as others are written; the lock files of live writers stay."""
    monkeypatch.setattr("sync.unit_of_work._ALONE_SECONDS", 0.5)
    house.database.lock_seconds = 0.5
    left = [house.store.path / f"refs/heads/drafts/{slug}.lock" for slug in ("killed", "live")]
    left[0].parent.mkdir(parents=True, exist_ok=True)
    for path in left:
        path.touch()
    with second(house).begin(["live"]):
        assert house.writes.sweep(everything=True) == left[:1]
        with pytest.raises(GitstoreError, match="another writer"):
            house.writes.sweep(everything=True)
    assert house.writes.sweep(everything=True) == left[1:]


def test_locks_of_a_killed_writer_are_removed_beside_writers_that_try_again(house: House) -> None:
    """Each of them holds the workflow's lock while it waits for the lock file."""
    left = house.store.path / "refs/heads/drafts/killed.lock"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.touch()
    house.database.lock_seconds = 0.5
    gone = threading.Event()

    def write() -> None:
        while not gone.is_set():
            with suppress(BusyError), second(house).begin(["killed"]):
                gone.wait(0.4)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        assert house.writes.sweep(everything=True) == [left]
    finally:
        gone.set()
        for thread in threads:
            thread.join()


def test_maintenance_waits_for_writers_and_excludes_them(house: House) -> None:
    with house.writes.begin(["a"]), pytest.raises(GitstoreError), second(house).maintenance():
        pytest.fail("got in")
    with house.writes.maintenance(), pytest.raises(GitstoreError), second(house).begin(["a"]):
        pytest.fail("got in")


def test_lock_keys_use_all_64_bits_and_differ(house: House) -> None:
    keys = {lock_key(house.store, slug) for slug in (None, "a", "b", "ab")}
    assert len(keys) == 4
    assert max(abs(key) for key in keys) > 2**48


def test_an_invalid_slug_reaches_neither_disk_nor_database(house: House) -> None:
    for slug in ("../../etc", "a/b", "A", "", "a.b", "x" * 64):
        with pytest.raises(GitstoreError) as refused, house.writes.begin([slug]):
            pytest.fail("got in")
        assert refused.value.code is Code.INVALID_NAME
    assert house.writes.markers.pending() == {}


def test_a_marker_exists_during_a_write_and_is_removed_after_the_commit(house: House) -> None:
    with house.writes.begin(["order-sync"]):
        assert list(house.writes.markers.pending()) == ["order-sync"]
    assert house.writes.markers.pending() == {}


def test_a_refused_write_leaves_no_marker_and_raises_its_reason(house: House) -> None:
    house.publish("order-sync")
    with pytest.raises(GitstoreError) as refused:
        house.store.save_draft("order-sync", Content(value={}), house.who, expected="0" * 40)
    assert refused.value.code is Code.VERSION_NOT_FOUND
    assert house.writes.markers.pending() == {}


def test_refs_written_before_a_failure_are_mirrored_and_the_failure_is_raised(house: House) -> None:
    left = house.unmirrored()
    with pytest.raises(ZeroDivisionError), house.writes.begin(["order-sync"]):  # noqa: PT012
        left.create_workflow("order-sync", Content(value=house.definition()), house.who)
        raise ZeroDivisionError
    assert [row["slug"] for row in house.rows("workflows")] == ["order-sync"]
    assert house.writes.markers.pending() == {}


def test_a_killed_write_leaves_its_marker_and_reconcile_adds_rows_and_events_once(house: House) -> None:
    left = house.unmirrored()
    with pytest.raises(KeyboardInterrupt), house.writes.begin(["order-sync"]):  # noqa: PT012
        left.create_workflow("order-sync", Content(value=house.definition()), house.who)
        left.publish("order-sync", house.who)
        raise KeyboardInterrupt  # the nearest thing to a kill that leaves the test alive
    assert house.rows("workflow_versions") == []
    assert list(house.writes.markers.pending()) == ["order-sync"]
    assert len(reconcile(house.writes).facts) == 2
    assert reconcile(house.writes).facts == []
    assert len(house.rows("workflow_versions")) == 1
    assert len(house.rows("events")) == 2
    assert house.writes.markers.pending() == {}


def test_without_postgres_nothing_is_written(house: House, tmp_path: Path) -> None:
    away = Database(f"host={tmp_path} dbname=none")
    house.store.unit_of_work = MirrorUnitOfWork(away, house.store)
    with pytest.raises(GitstoreError) as refused:
        house.save("order-sync")
    away.close()
    assert refused.value.code is Code.UNAVAILABLE
    assert house.store.slugs() == []
    assert house.writes.markers.pending() == {}


def test_postgres_lost_after_the_write_is_reported_and_mirrored_later(
    house: House, postgres_admin_conninfo: str
) -> None:
    left = house.unmirrored()
    with pytest.raises(GitstoreError) as refused, house.writes.begin(["order-sync"]):  # noqa: PT012
        left.create_workflow("order-sync", Content(value=house.definition()), house.who)
        left.publish("order-sync", house.who)
        cut_off(postgres_admin_conninfo)
    assert refused.value.code is Code.PUBLISHED_NOT_MIRRORED
    assert refused.value.data["latest"] == {"order-sync": 1}
    assert list(house.writes.markers.pending()) == ["order-sync"]
    assert house.rows("workflow_versions") == []
    facts = house.writes.mirror_now(["order-sync"])
    assert [fact.object for fact in facts] == ["order-sync/v1", "order-sync/v1"]
    assert house.rows("audit_log")[0]["request_id"] == "r-1"
    assert house.writes.markers.pending() == {}


def test_with_patience_a_lost_connection_goes_unnoticed(house: House, postgres_admin_conninfo: str) -> None:
    patient = MirrorUnitOfWork(house.database, house.store, house.writes.origin, patience=5)
    left = house.unmirrored()
    with patient.begin(["order-sync"]):
        left.create_workflow("order-sync", Content(value=house.definition()), house.who)
        left.publish("order-sync", house.who)
        cut_off(postgres_admin_conninfo)
    assert [row["version_number"] for row in house.rows("workflow_versions")] == [1]
    assert house.rows("audit_log")[0]["request_id"] == "r-1"
    assert house.writes.markers.pending() == {}


def test_patience_ends(house: House, tmp_path: Path) -> None:
    impatient = MirrorUnitOfWork(house.database, house.store, patience=0.5)
    began = time.monotonic()
    with pytest.raises(GitstoreError) as refused, impatient.begin(["order-sync"]):  # noqa: PT012
        house.unmirrored().create_workflow("order-sync", Content(value=house.definition()), house.who)
        impatient.database = Database(f"host={tmp_path} dbname=none")
        with house.database.as_owner() as tx:
            tx.run(
                "select pg_terminate_backend(pid, 1000) from pg_stat_activity where state like 'idle in%%'"
            )
    impatient.database.close()
    assert refused.value.code is Code.PUBLISHED_NOT_MIRRORED
    assert 0.5 < time.monotonic() - began < 5
    assert list(house.writes.markers.pending()) == ["order-sync"]


def test_postgres_lost_during_a_write_without_changes_is_not_reported(
    house: House, postgres_admin_conninfo: str
) -> None:
    house.publish("order-sync")
    with house.writes.begin(["order-sync"]):
        cut_off(postgres_admin_conninfo)
    assert house.writes.markers.pending() == {}


def test_postgres_lost_during_a_refused_write_raises_the_refusal(
    house: House, postgres_admin_conninfo: str
) -> None:
    left = house.unmirrored()
    with pytest.raises(ZeroDivisionError), house.writes.begin(["order-sync"]):  # noqa: PT012
        left.create_workflow("order-sync", Content(value=house.definition()), house.who)
        cut_off(postgres_admin_conninfo)
        raise ZeroDivisionError
    assert list(house.writes.markers.pending()) == ["order-sync"], "a part was written"


def test_a_marker_removed_by_another_process_is_restored_when_postgres_is_lost(
    house: House, postgres_admin_conninfo: str
) -> None:
    """A writer that lost its connection has lost its locks: reconcile may run at the same time."""
    left = house.unmirrored()
    with pytest.raises(GitstoreError), house.writes.begin(["order-sync"]):  # noqa: PT012
        cut_off(postgres_admin_conninfo)
        reconcile(second(house))
        assert house.writes.markers.pending() == {}
        left.create_workflow("order-sync", Content(value=house.definition()), house.who)
    assert list(house.writes.markers.pending()) == ["order-sync"]


def test_a_writer_whose_transaction_has_ended_writes_no_ref(
    house: House, postgres_admin_conninfo: str
) -> None:
    """It has lost its locks, so another writer may publish the same number: it is refused as unavailable."""
    house.publish("a")
    house.save("a", "https://b.example/")
    before = house.store.state("a")
    with pytest.raises(GitstoreError) as refused, house.writes.begin(["a"]):  # noqa: PT012
        change = ChangeSet(house.store, "a", Authorship(house.who.actor, house.store.clock()))
        change.publish(accepted(house.store, Command(tag("a", 2), None, (before.draft or "").encode())))
        cut_off(postgres_admin_conninfo)
        write(house.store, [change])
    assert refused.value.code is Code.UNAVAILABLE
    assert house.store.state("a") == before
    assert house.store.publish("a", house.who).number == 2
