"""Restores from a backup, and losses: each command prints the next step, and that step works.

In each story v1 to v6 of `a` were published, and a backup was made after v3. Afterwards v1 to v6 are the same
bytes under the same ids, or known to be lost; and the next version is v7.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result
from psycopg.conninfo import conninfo_to_dict

from gitstore.drafts import Content
from gitstore.model import Person
from gitstore.store import Actors
from service.actions.projects import insert_token
from service.cli.main import commands
from service.config import Config
from service.projects import Projects
from service.run.bootstrap import OPERATOR, create_project
from sync import catalog
from sync.catalog import Project
from sync.db import Database
from tests.stories.instance import Caller, Service, definition

PROJECTS = ("older", "newer", "accepted", "gone")
ANN = Person("Ann", "ann@example.test")
MakeDatabase = Callable[..., str]


@dataclass(frozen=True)
class Backups:
    """The repositories of each project as they were after v3 and after v6, and a database of each time."""

    projects: Mapping[str, Project]
    old_repositories: Path
    new_repositories: Path
    old_database: str
    new_database: str

    def old(self, project: str) -> Path:
        return self.old_repositories / f"{self.projects[project].id}.git"

    def new(self, project: str) -> Path:
        return self.new_repositories / f"{self.projects[project].id}.git"


def show(repository: Path) -> str:
    """Return the tag of each version, with its id."""
    command = ["git", "-C", str(repository), "for-each-ref", "refs/tags"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def backups(tmp_path: Path, make_database: MakeDatabase, migrated_template: str) -> Backups:
    conninfo = make_database(migrated_template)
    config = Config.from_env({"GITSTORE_DATA": str(tmp_path / "was"), "DATABASE_URL": conninfo})
    repositories, who = Projects(config), Actors(ANN, ANN)
    with closing(Database(conninfo)) as database, database.as_owner() as tx:
        projects = {slug: create_project(tx, repositories, uuid4(), slug, slug) for slug in PROJECTS}

    def publish(numbers: range) -> None:
        with closing(Database(conninfo)) as database:
            for project in projects.values():
                with closing(repositories.writer(project, database)) as store:
                    for number in numbers:
                        content = Content(raw=definition(f"v{number}").encode())
                        (store.create_workflow if number == 1 else store.create_draft)("a", content, who)
                        store.publish("a", who, message=f"No. {number}")

    publish(range(1, 4))
    old = Path(shutil.copytree(config.repositories, tmp_path / "old"))
    old_database = make_database(str(conninfo_to_dict(conninfo)["dbname"]))
    publish(range(4, 7))
    return Backups(projects, old, config.repositories, old_database, conninfo)


@pytest.fixture
def restored(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Function that creates a data folder with these repositories, for a database; nothing runs yet."""
    services: list[Service] = []

    def restore(database: str, *repositories: Path) -> Service:
        service = Service(tmp_path / "data", {"DATABASE_URL": database})
        (service.data / "repos").mkdir(parents=True)
        for repository in repositories:
            shutil.copytree(repository, service.data / "repos" / repository.name)
        services.append(service)
        return service

    yield restore
    for service in services:
        if service.process is not None:
            service.kill()


def advice(output: str, command: str) -> list[str]:
    """The arguments of `gitstore <command> ...` in a sentence, as a shell would split them."""
    match = re.search(rf"gitstore ({command}\b[^.,;:\n]*)", output)
    assert match, output
    return shlex.split(match[1])


def gitstore(service: Service, *arguments: str, status: int = 0) -> Result:
    """Run `gitstore <arguments>` as a command beside the service, without a process of its own."""
    done = CliRunner(env=service.settings()).invoke(commands, arguments)
    assert done.exit_code == status, done.output
    return done


def follow(service: Service, output: str, command: str, *more: str) -> str:
    """Run the command that `output` advises, with `more` arguments; return its output."""
    return gitstore(service, *advice(output, command), *more).output


def check_v7_is_next(
    service: Service, project: str, folder: Path, backups: Backups, *, kept: range = range(1, 7)
) -> Caller:
    """A push of v4 is refused, naming v7; v7 is published; the versions `kept` are unchanged."""
    with closing(Database(service.environment["DATABASE_URL"])) as database, database.as_owner() as tx:
        row = catalog.project(tx, project)
        assert row is not None
        _, secret = insert_token(tx, row.id, OPERATOR, "Ann", "owner")
    owner = Caller(service.url, project, secret)
    for number in kept:
        assert owner.definition("a", number) == definition(f"v{number}").encode()
    ann = owner.author(folder / f"ann-{project}")
    ann.draft("a", definition("next"))
    assert ann.push("drafts/a").ok
    if 4 not in kept:
        ann.tag("a", 4)
        refused = ann.push("a/v4")
        assert not refused.ok
        assert "the next version is v7: git tag -d a/v4 && git tag -a a/v7" in refused.output
    ann.tag("a", 7)
    assert ann.push("a/v7").ok
    tags = show(service.data / "repos" / f"{row.id}.git")
    was = show(backups.new_repositories / f"{row.id}.git").splitlines()
    assert [line for line in tags.splitlines() if not line.endswith("a/v7")] == [
        line for line in was if int(line.rpartition("/v")[2]) in kept
    ]
    gitstore(service, "verify", project)
    return owner


def test_a_database_newer_than_its_repositories(
    tmp_path: Path, backups: Backups, restored: Callable[..., Service]
) -> None:
    """One older repository is repaired, one is accepted as it is, and one is gone."""
    service = restored(backups.new_database, backups.old("older"), backups.old("accepted"))
    # verify advises repair, and repair restores v4 to v6.
    report = gitstore(service, "verify", "older", status=1)
    output = follow(service, report.stdout, "repair", "older")
    assert "refs/tags/a/v6: restored to" in output
    assert "still" not in output
    # Versions to give up are listed and have to be confirmed; their numbers stay taken.
    refused = gitstore(service, "rebuild", "accepted", "--accept-git", status=1)
    for number in (4, 5, 6):
        assert f"a/v{number}, published by Ann on" in refused.stderr
    gitstore(service, "verify", "accepted", status=1)
    follow(service, refused.stderr, "rebuild")
    # A missing repository is created again.
    report = gitstore(service, "verify", "gone", status=1)
    output = follow(service, report.stdout, "repair")
    assert "created an empty repository" in output
    assert "refs/tags/a/v1: restored to" in output
    service.start()
    check_v7_is_next(service, "older", tmp_path, backups)
    check_v7_is_next(service, "gone", tmp_path, backups)
    owner = check_v7_is_next(service, "accepted", tmp_path, backups, kept=range(1, 4))
    listed = owner.get("/workflows/a/versions").json["versions"]
    assert [(one["version_number"], one["state"]) for one in listed] == [
        (7, "published"), *((n, "lost") for n in (6, 5, 4)), *((n, "published") for n in (3, 2, 1))
    ]  # fmt: skip
    assert owner.definition("a", 5) == definition("v5").encode()
    assert "a/v5: published again as" in gitstore(service, "repair", "accepted").stdout
    assert owner.get("/workflows/a/versions/5").json["state"] == "published"


def test_a_database_older_than_its_repository(
    tmp_path: Path, backups: Backups, restored: Callable[..., Service]
) -> None:
    """One repository is newer, and one as old as the database."""
    service = restored(backups.old_database, backups.new("newer"), backups.old("older"))
    report = gitstore(service, "verify", "newer", status=1)
    assert "a: its rows are behind Git" in report.stdout
    output = follow(service, report.stdout, "repair", "newer")
    assert "a: its rows were behind Git, and were updated" in output
    # v4 to v6 are unknown: repair points that out, and takes a number to start above.
    gitstore(service, "verify", "older")
    output = gitstore(service, "repair", "older").stderr
    assert "clones or upstreams" in output
    named = {"PROJECT": "older", "WORKFLOW": "a", "NUMBER": "6"}
    command = [named.get(word, word) for word in advice(output, "repair")]
    assert "the next version of a is v7" in gitstore(service, *command).stdout
    service.start()
    check_v7_is_next(service, "newer", tmp_path, backups)
    check_v7_is_next(service, "older", tmp_path, backups, kept=range(1, 4))


def test_a_lost_database(
    tmp_path: Path, backups: Backups, restored: Callable[..., Service], make_database: MakeDatabase
) -> None:
    """The start adopts the only repository, and names the command that derives its rows."""
    service = restored(make_database(), backups.new("older")).start()
    assert service.process is not None
    assert service.process.stdout is not None
    note = next(line for line in service.process.stdout if line.startswith("note: "))
    assert f"the existing repository {backups.new('older').name} is now" in note
    assert "6 versions in 1 project" in follow(service, note, "rebuild")
    check_v7_is_next(service, "default", tmp_path, backups)
