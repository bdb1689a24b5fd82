"""Restores from a backup, and losses: each command prints the next step, and following it works.

In each story v1 to v6 of `a` were published, and a backup was made after v3. Afterwards v1 to v6 are what
they were, byte for byte under the same ids, or known to be lost; and the next version is v7.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from click.testing import CliRunner, Result
from psycopg.conninfo import conninfo_to_dict

from gitstore.content import Content
from gitstore.model import Person
from gitstore.store import Who
from service.cli import commands
from service.config import Config
from service.projects import Projects
from service.setup import create_project
from sync.db import Database
from tests.stories.running import Caller, Service, definition

ANN = Person("Ann", "ann@example.test")
MakeDatabase = Callable[..., str]


@dataclass(frozen=True)
class Backups:
    """The repository as it was after v3 and after v6, and a database of each time."""

    project: UUID
    old_repository: Path
    new_repository: Path
    old_database: str
    new_database: str

    @property
    def tags(self) -> str:
        return show(self.new_repository)


def show(repository: Path) -> str:
    """Every version's tag and what it holds."""
    command = ["git", "-C", str(repository), "for-each-ref", "refs/tags"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def backups(tmp_path: Path, make_database: MakeDatabase, migrated_template: str) -> Backups:
    conninfo = make_database(migrated_template)
    config = Config.from_env({"GITSTORE_DATA": str(tmp_path / "was"), "DATABASE_URL": conninfo})
    projects, who = Projects(config), Who(ANN, ANN)
    with closing(Database(conninfo)) as database, database.as_owner() as tx:
        project = create_project(tx, projects, uuid4(), "default", "Default")

    def publish(numbers: range) -> None:
        with closing(Database(conninfo)) as database, projects.mirrored(project, database) as (store, _):
            for number in numbers:
                content = Content(raw=definition(f"v{number}").encode())
                (store.create_workflow if number == 1 else store.create_draft)("a", content, who)
                store.publish("a", who, message=f"No. {number}")

    publish(range(1, 4))
    repository = projects.path(project.id)
    old = Path(shutil.copytree(repository, tmp_path / "old.git"))
    old_database = make_database(str(conninfo_to_dict(conninfo)["dbname"]))
    publish(range(4, 7))
    return Backups(project.id, old, repository, old_database, conninfo)


@pytest.fixture
def restored(tmp_path: Path, backups: Backups) -> Iterator[Callable[[Path | None, str], Service]]:
    """Makes a data folder of a repository, for a database; nothing runs yet."""
    services: list[Service] = []

    def restore(repository: Path | None, database: str) -> Service:
        service = Service(tmp_path / "data", {"DATABASE_URL": database})
        (service.data / "repos").mkdir(parents=True)
        if repository is not None:
            shutil.copytree(repository, service.data / "repos" / f"{backups.project}.git")
        services.append(service)
        return service

    yield restore
    for service in services:
        service.stop()


def advice(output: str, command: str) -> list[str]:
    """The arguments of `gitstore <command> ...` in a sentence, as a shell would split them."""
    found = re.search(rf"gitstore ({command}\b[^.,;:\n]*)", output)
    assert found, output
    return shlex.split(found[1])


def gitstore(service: Service, *arguments: str, status: int = 0) -> Result:
    """Run `gitstore <arguments>` as a command beside the service, without a process of its own."""
    done = CliRunner(env=service.settings()).invoke(commands, arguments)
    assert done.exit_code == status, done.output
    return done


def follow(service: Service, output: str, command: str) -> str:
    """Run the command that `output` advises; return what it printed."""
    return gitstore(service, *advice(output, command)).output


def goes_on_with_v7(service: Service, tmp_path: Path, backups: Backups, *, kept: range = range(1, 7)) -> None:
    """By git: v4 to v6 are refused, naming v7, and v7 is published; what there was is what it was."""
    if service.process is None:
        service.start()
    owner = Caller(service.url, "default", service.owner_token)
    for number in kept:
        assert owner.definition("a", number) == definition(f"v{number}").encode()
    ann = owner.author(tmp_path / "ann")
    ann.draft("a", definition("next"))
    assert ann.push("drafts/a").ok
    if 4 not in kept:
        ann.tag("a", 4)
        refused = ann.push("a/v4")
        assert not refused.ok
        assert "the next version is v7: git tag -d a/v4 && git tag -a a/v7" in refused.said
    ann.tag("a", 7)
    assert ann.push("a/v7").ok
    tags = show(service.data / "repos" / f"{backups.project}.git")
    assert [line for line in tags.splitlines() if not line.endswith("a/v7")] == [
        line for line in backups.tags.splitlines() if int(line.rpartition("/v")[2]) in kept
    ]
    gitstore(service, "verify")


def test_an_older_repository_under_a_newer_database(
    tmp_path: Path, backups: Backups, restored: Callable[..., Service]
) -> None:
    """verify advises repair, and repair restores v4 to v6."""
    service = restored(backups.old_repository, backups.new_database)
    found = gitstore(service, "verify", status=1)
    output = follow(service, found.stdout, "repair")
    assert "refs/tags/a/v6: put back to" in output
    assert "still" not in output
    goes_on_with_v7(service, tmp_path, backups)


def test_an_older_repository_that_is_accepted(
    tmp_path: Path, backups: Backups, restored: Callable[..., Service]
) -> None:
    """What is given up is listed and has to be confirmed; its numbers stay taken, and it is served."""
    service = restored(backups.old_repository, backups.new_database)
    refused = gitstore(service, "rebuild", "--accept-git", status=1)
    for number in (4, 5, 6):
        assert f"a/v{number}, published by Ann on" in refused.stderr
    gitstore(service, "verify", status=1)
    follow(service, refused.stderr, "rebuild")
    goes_on_with_v7(service, tmp_path, backups, kept=range(1, 4))
    owner = Caller(service.url, "default", service.owner_token)
    listed = owner.get("/workflows/a/versions").json["versions"]
    assert [(one["version_number"], one["state"]) for one in listed] == [
        (7, "published"), *((n, "lost") for n in (6, 5, 4)), *((n, "published") for n in (3, 2, 1))
    ]  # fmt: skip
    assert owner.definition("a", 5) == definition("v5").encode()
    assert "a/v5: published again as" in gitstore(service, "repair").stdout
    assert owner.get("/workflows/a/versions/5").json["state"] == "published"


def test_a_newer_repository_under_an_older_database(
    tmp_path: Path, backups: Backups, restored: Callable[..., Service]
) -> None:
    service = restored(backups.new_repository, backups.old_database)
    found = gitstore(service, "verify", status=1)
    assert "a: its rows are behind Git" in found.stdout
    assert "a: its rows were behind Git, and follow now" in follow(service, found.stdout, "repair")
    goes_on_with_v7(service, tmp_path, backups)


def test_a_repository_that_is_gone(
    tmp_path: Path, backups: Backups, restored: Callable[..., Service]
) -> None:
    service = restored(None, backups.new_database)
    found = gitstore(service, "verify", status=1)
    output = follow(service, found.stdout, "repair")
    assert "made an empty repository" in output
    assert "refs/tags/a/v1: put back to" in output
    goes_on_with_v7(service, tmp_path, backups)


def test_a_database_that_is_gone(
    tmp_path: Path, backups: Backups, restored: Callable[..., Service], make_database: MakeDatabase
) -> None:
    """The start names the repository that is there, and the command that makes its rows again."""
    service = restored(backups.new_repository, make_database()).start()
    assert service.process is not None
    assert service.process.stdout is not None
    note = next(line for line in service.process.stdout if line.startswith("note: "))
    assert f"{backups.project}.git is older" in note
    assert "6 versions in 1 project" in follow(service, note, "rebuild")
    goes_on_with_v7(service, tmp_path, backups)


def test_both_restored_to_an_older_state(
    tmp_path: Path, backups: Backups, restored: Callable[..., Service]
) -> None:
    """v4 to v6 are unknown: repair points that out, and takes a number to start above."""
    service = restored(backups.old_repository, backups.old_database)
    gitstore(service, "verify")
    output = gitstore(service, "repair").stderr
    assert "clones or upstreams" in output
    command = [
        {"PROJECT": "default", "WORKFLOW": "a", "NUMBER": "6"}.get(w, w) for w in advice(output, "repair")
    ]
    assert "the next version of a is v7" in gitstore(service, *command).stdout
    goes_on_with_v7(service, tmp_path, backups, kept=range(1, 4))
