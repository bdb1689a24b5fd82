"""Stopping, killing and starting again: everything is found, and the rows can be made anew from Git."""

from __future__ import annotations

import re
import signal
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from gitstore.drafts import Content
from gitstore.model import Person
from gitstore.store import ANY, Actors, Store
from gitstore.unit_of_work import FileUnitOfWork
from sync.db import Database
from sync.embedded.server import EmbeddedPostgres
from tests.helpers import until
from tests.service.serve_process import alive
from tests.stories.instance import PLAIN, Caller, Service, definition


def owner_of(service: Service) -> Caller:
    return Caller(service.url, "default", service.owner_token)


def publish(owner: Caller, slug: str, label: str) -> None:
    new = owner.get(f"/workflows/{slug}").status == 404
    path = "/workflows" if new else f"/workflows/{slug}/versions"
    assert owner.call("POST", path, {"slug": slug, "definition": definition(label)} if new else
                      {"definition": definition(label)}).status == 201  # fmt: skip
    assert owner.call("POST", f"/workflows/{slug}/versions/publish").status == 201


def rows(service: Service) -> list[Any]:
    """Every mirrored row, as text."""
    postgres = EmbeddedPostgres(service.data / "postgres")
    database = Database(postgres.conninfo())
    try:
        with database.as_owner() as tx:
            return [
                *tx.tuples("select w::text from gitstore.workflows w order by id"),
                *tx.tuples("select v::text from gitstore.workflow_versions v order by id"),
            ]
    finally:
        database.close()


def test_everything_is_there_after_a_stop_a_kill_and_a_rebuild(own_service: Service) -> None:
    """Stopped with SIGTERM, then killed with all its processes: the same rows and bytes each time."""
    owner = owner_of(own_service)
    for label in ("one", "two"):
        publish(owner, "a", label)
    owner.call("PUT", "/workflows/a/current", {"version": 1, "hold": True, "message": "Night"})
    publish(owner, "b", "other")
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
    owner = owner_of(own_service)
    assert rows(own_service) == before
    assert owner.definition("a", "current") == definition("one").encode()

    assert own_service.cli("verify").returncode == 0
    own_service.cli("rebuild")
    assert rows(own_service) == before
    assert own_service.cli("verify").returncode == 0
    publish(owner, "a", "three")
    assert owner.definition("a", 3) == definition("three").encode()


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_ten_thousand_versions_start_like_a_few(
    own_service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a kill of all processes; everything is there."""
    (repository,) = (own_service.data / "repos").glob("*.git")
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
    for way in ("killed", "packed and killed"):
        if "packed" in way:
            own_service.cli("gc")
            own_service.kill()
        started = time.monotonic()
        own_service.start()
        took = time.monotonic() - started
        with capsys.disabled():
            print(f"\n  10,000 versions, {way}: serving after {took:.2f} s")
        assert owner_of(own_service).definition("w99", 100) == definition("w99 99").encode()
    assert own_service.cli("verify").returncode == 0


def test_a_supervisor_that_is_killed_leaves_nobody_behind(own_service: Service) -> None:
    """kill -9 of `serve` alone: its children end by themselves, and the next start works."""
    children = own_service.family()[1:]
    own_service.stop(signal.SIGKILL)
    until(lambda: not any(alive(child.pid) for child in children), "still there")
    own_service.start()
    assert owner_of(own_service).get("/readyz").status == 200


def test_what_a_kill_left_between_tag_and_row_is_healed_at_the_start(own_service: Service) -> None:
    """A tag with its ledger entry and marker, but no row: the start adds the row, once."""
    owner = owner_of(own_service)
    publish(owner, "a", "one")
    before = rows(own_service)
    postgres = EmbeddedPostgres(own_service.data / "postgres")
    database = Database(postgres.conninfo())
    with database.as_owner() as tx:
        project = tx.value("select id from gitstore.projects where slug = 'default'")
        tx.run("select set_config('gitstore.upkeep', 'on', true)")
        tx.run("update gitstore.workflows set current_version_id = null")
        tx.run("delete from gitstore.workflow_versions")
        tx.run("delete from gitstore.workflows")
    database.close()
    pending = own_service.data / "repos" / f"{project}.git" / "gitstore-pending"
    pending.mkdir(exist_ok=True)
    (pending / "a.0123456789abcdef").touch()
    own_service.stop()
    own_service.start()
    until(lambda: rows(own_service) == before, "the row did not come back")
    assert list(pending.iterdir()) == []


def test_the_printed_lines_publish_a_workflow(tmp_path: Path) -> None:
    """Pasted as they are into sh, without any configuration of git; twice, in a folder with a space."""
    service = Service(tmp_path / "some data" / "store")
    service.data.parent.mkdir()
    try:
        for turn in range(2):
            service.start()
            printed: list[str] = []
            assert service.process is not None
            assert service.process.stdout is not None
            while len(printed) < 5:
                line = service.process.stdout.readline()
                if printed or line.startswith("git clone"):
                    printed.append(line)
            folder = tmp_path / f"shell-{turn}"
            folder.mkdir()
            done = subprocess.run(
                ["sh", "-e"], input="".join(printed), cwd=folder, env={**PLAIN, "HOME": str(folder)},
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            slug = re.findall(r"published (\S+) v1", done.stderr)[0]
            owner = owner_of(service)
            assert owner.get(f"/workflows/{slug}/versions/current").json["version_number"] == 1
            service.stop()
    finally:
        service.stop()


def test_a_setting_that_makes_no_sense_stops_the_start(tmp_path: Path) -> None:
    """All of them are named, with what was expected; no secret is shown."""
    service = Service(tmp_path / "data", {"GITSTORE_WORKERS": "many", "GITSTORE_BIND": "nowhere",
                                          "DATABASE_URL": "mysql://u:hunter2@h/d"})  # fmt: skip
    done = service.cli("serve", check=False)
    assert done.returncode != 0
    for name in ("GITSTORE_WORKERS", "GITSTORE_BIND", "DATABASE_URL"):
        assert name in done.stderr
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


def test_no_secret_is_in_an_argument_or_in_the_log(own_service: Service) -> None:
    """Neither the owner's token nor the settings' values are seen by `ps`."""
    owner = owner_of(own_service)
    owner.get("/workflows")
    owner.get(f"/workflows?token={own_service.owner_token}")
    assert own_service.owner_token not in own_service.arguments()
    assert own_service.owner_token not in own_service.log()
    assert (own_service.data / "owner-token").stat().st_mode & 0o777 == 0o600
