"""Stop, kill and restart: nothing is lost, and the rows can be derived again from Git."""

from __future__ import annotations

import signal
import time
from contextlib import closing
from typing import Any
from uuid import UUID

import pytest

from gitstore.drafts import Content
from gitstore.model import Person
from gitstore.store import ANY, Actors, Store
from gitstore.unit_of_work import FileUnitOfWork
from tests.helpers import until
from tests.stories.instance import Service, definition


def rows(service: Service) -> list[Any]:
    """Return every mirrored row, as text."""
    with service.owning() as tx:
        return [
            *tx.tuples("select w::text from gitstore.workflows w order by id"),
            *tx.tuples("select v::text from gitstore.workflow_versions v order by id"),
        ]


def test_rows_survive_a_stop_a_kill_and_a_rebuild(own_service: Service) -> None:
    """Stopped with SIGTERM, then killed with all its processes: the rows and bytes are the same each time."""
    owner = own_service.owner
    for label in ("one", "two"):
        owner.publish("a", label)
    owner.call("PUT", "/workflows/a/current", {"version": 1, "hold": True, "message": "Night"})
    owner.publish("b", "other")
    owner.call("POST", "/workflows/b/versions", {"definition": definition("open")})
    owner.call("POST", "/workflows", {"slug": "c", "description": "never published"})
    before = rows(own_service)
    token = own_service.owner_token

    assert own_service.stop(signal.SIGTERM) == 0
    own_service.start()
    assert own_service.owner_token == token
    assert rows(own_service) == before

    own_service.kill()
    own_service.start()
    owner = own_service.owner
    assert rows(own_service) == before
    assert owner.definition("a", "current") == definition("one").encode()

    assert own_service.cli("verify").returncode == 0
    own_service.cli("rebuild")
    assert rows(own_service) == before
    assert own_service.cli("verify").returncode == 0
    owner.publish("a", "three")
    assert owner.definition("a", 3) == definition("three").encode()


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_start_time_with_ten_thousand_versions(
    own_service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    """A start after a kill takes no longer with 10,000 versions, packed or not."""
    repository = own_service.repository
    ann = Person("Ann", "ann@example.test")
    with closing(Store(repository, UUID(repository.stem), FileUnitOfWork)) as store:
        for number in range(100):
            store.create_workflow(f"w{number}", None, Actors(ann, ann))
            for turn in range(100):
                content = Content(raw=definition(f"w{number} {turn}").encode())
                if turn:
                    store.create_draft(f"w{number}", content, Actors(ann, ann))
                else:
                    store.save_draft(f"w{number}", content, Actors(ann, ann), expected=ANY)
                assert store.publish(f"w{number}", Actors(ann, ann)).number == turn + 1
    own_service.cli("rebuild")
    own_service.kill()
    for state in ("loose", "packed"):
        if state == "packed":
            own_service.cli("gc")
            own_service.kill()
        started = time.monotonic()
        own_service.start()
        took = time.monotonic() - started
        with capsys.disabled():
            print(f"\n  10,000 versions, {state}: serving after {took:.2f} s")
        assert own_service.owner.definition("w99", 100) == definition("w99 99").encode()
    assert own_service.cli("verify").returncode == 0


def test_a_start_adds_the_row_of_a_tag_that_has_none(own_service: Service) -> None:
    """The state after a kill between tag and row: a tag with its ledger entry and marker."""
    owner = own_service.owner
    owner.publish("a", "one")
    before = rows(own_service)
    with own_service.owning() as tx:
        tx.run("select set_config('gitstore.upkeep', 'on', true)")
        tx.run("update gitstore.workflows set current_version_id = null")
        tx.run("delete from gitstore.workflow_versions")
        tx.run("delete from gitstore.workflows")
    pending = own_service.repository / "gitstore-pending"
    pending.mkdir(exist_ok=True)
    (pending / "a.0123456789abcdef").touch()
    own_service.stop()
    own_service.start()
    until(lambda: rows(own_service) == before, "the row did not come back")
    assert list(pending.iterdir()) == []
