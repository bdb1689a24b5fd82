"""The `gitstore` command: its commands, output and exit statuses."""

from __future__ import annotations

import io
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import click
import psycopg
import pytest
from click.testing import CliRunner, Result

from gitstore import names
from gitstore.drafts import Content
from gitstore.model import LedgerKind, Person
from gitstore.store import Actors, Store
from gitstore.unit_of_work import FileUnitOfWork
from service.access import digest, is_token
from service.cli.main import commands
from service.cli.manual import EXAMPLES, FAILURES
from service.cli.terminal import Progress, print_line
from service.config import Config
from service.projects import Projects
from sync import catalog
from sync.db import Database
from tests.service.serve_process import STUB, environment, gitstore, running

ADA = Person("Ada", "ada@example.com")
DEFINITION = {"nodes": [{"id": "start", "type": "webhook", "data": {"label": "Start"}}]}


@dataclass(frozen=True)
class House:
    """A data folder and a database, and the commands on them, in this process."""

    data: Path
    url: str

    def __call__(self, *arguments: str, status: int = 0, **settings: str) -> Result:
        ours = {"DATABASE_URL": self.url, "GITSTORE_DATA": str(self.data), **settings}
        wanted = environment(**ours)
        absent: dict[str, str | None] = {name: None for name in os.environ if name not in wanted}
        result = CliRunner(env={**absent, **wanted}).invoke(commands, arguments)
        assert result.exit_code == status, result.output
        assert "Traceback" not in result.output
        return result

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url) as connection:
            return connection.execute(query.encode()).fetchall()

    def publish(self, project: str, slug: str) -> Store:
        """Publish a version of `slug` without a database; return its store, for the caller to close."""
        store = self.store(project)
        who = Actors(ADA, ADA)
        store.create_workflow(slug, Content(value=DEFINITION), who)
        store.publish(slug, who)
        return store

    def store(self, project: str) -> Store:
        """A store whose writes are not mirrored."""
        config = Config.from_env({"GITSTORE_DATA": str(self.data)})
        with closing(Database(self.url)) as database, database.as_owner() as transaction:
            row = catalog.project(transaction, project)
        assert row is not None
        return Store(Projects(config).path(row.id), row.id, FileUnitOfWork)


@pytest.fixture
def house(tmp_path: Path, make_database: Callable[..., str]) -> House:
    made = House(tmp_path / "data", make_database())
    assert "applied 0001" in made("migrate").stdout
    return made


def test_migrating_again_does_nothing(house: House) -> None:
    assert house("migrate").stdout == "the database is up to date\n"


def test_a_project_is_created_with_its_repository(house: House) -> None:
    """It is listed with its name and rules."""
    made = house("project", "create", "team-a", "--name", "Team A", "--rules", "any")
    assert made.stdout == "created the project team-a: http://127.0.0.1:8080/team-a.git\n"
    house("project", "create", "team-b")
    heads, *rows = house("project", "list").stdout.splitlines()
    assert heads.split() == ["slug", "name", "rules", "created", "archived", "id"]
    assert [row.split("  ")[0] for row in rows] == ["team-a", "team-b"]
    assert "Team A" in rows[0]
    assert "any" in rows[0]
    with closing(house.store("team-a")) as store:
        assert store.slugs() == []
    assert house.sql("select action, actor_id, door from gitstore.audit_log order by at") == [
        ("project.created", "operator", "cli"),
        ("project.created", "operator", "cli"),
    ]


def test_a_setting_of_a_project_is_changed(house: House) -> None:
    house("project", "create", "team-a")
    assert house("project", "set", "team-a", "--activate-invalid").stdout == "changed the project team-a\n"
    assert house.sql("select activate_invalid from gitstore.projects") == [(True,)]
    house("project", "set", "team-a", "--file-name", "flows.json")
    assert house.sql("select file_name, file_names from gitstore.projects") == [
        ("flows.json", ["flows.json"])
    ]
    house("project", "set", "team-a", "--file-name", "a/b.json", status=2)
    house("project", "set", "team-a", status=2)


def test_the_schema_of_a_project_is_set_shown_and_removed(house: House, tmp_path: Path) -> None:
    """An invalid one is refused with its problems."""
    house("project", "create", "team-a")
    file = tmp_path / "schema.json"
    file.write_bytes(b'{"type": 5}\n')
    refused = house("project", "schema", "set", "team-a", str(file), status=1).stderr
    assert "the schema is not a JSON Schema (2020-12): 1 problem: " in refused
    house("project", "schema", "show", "team-a", status=1)
    for content in (b'{"type": "array"}\n', b'{"type": "object"}\n'):
        file.write_bytes(content)
        assert "team-a has the schema " in house("project", "schema", "set", "team-a", str(file)).stdout
        assert house("project", "schema", "show", "team-a").stdout == content.decode()
    assert house("project", "rules", "team-a", "schema").stdout == "team-a has the rules schema\n"
    assert house("project", "schema", "remove", "team-a").stdout == "team-a has no schema\n"
    rows = house("project", "schema", "show", "team-a", "--history").stdout.splitlines()[1:]
    assert [row.split()[1:3] for row in rows] == [["operator", kind] for kind in ("removed", "set", "set")]


@pytest.mark.parametrize("slug", ["Team", "-a", "a b", str(UUID(int=5))])
def test_the_name_of_a_project_must_be_a_slug(house: House, slug: str) -> None:
    output = house("project", "create", "--", slug, status=1).stderr
    assert output.startswith("error: ")
    assert "is not a slug" in output


def test_the_slug_of_a_project_is_unique(house: House) -> None:
    """The second is refused, and leaves nothing behind."""
    house("project", "create", "team")
    assert house("project", "create", "team", status=1).stderr == "error: there is a project team already\n"
    assert len(list((house.data / "repos").iterdir())) == 1


def test_a_project_is_made_with_the_id_and_the_owner_of_the_host(house: House) -> None:
    """An id that is in use is refused: by a project, or by a repository in the data folder."""
    identity, user = uuid4(), uuid4()
    house("project", "create", "team", "--id", str(identity), "--owner", str(user))
    assert house.sql("select id, owner from gitstore.projects") == [(identity, user)]
    assert (house.data / "repos" / f"{identity}.git" / "HEAD").is_file()
    refused = house("project", "create", "other", "--id", str(identity), status=2).stderr
    assert "has this id already" in refused
    shown = house("project", "show", "team").stdout
    assert [line.split("  ", 1)[0] for line in shown.splitlines()][:3] == ["slug", "name", "id"]
    assert str(user) in shown
    assert house("member", "list", "team").stdout.splitlines()[1].startswith(f"{user}  owner")


def test_members_are_added_and_removed_but_for_the_last_owner(house: House) -> None:
    ada, bob = str(uuid4()), str(uuid4())
    house("project", "create", "team", "--owner", ada)
    assert house("member", "add", "team", bob, "--role", "editor").stdout == f"{bob} is editor of team\n"
    assert "last owner" in house("member", "remove", "team", ada, status=1).stderr
    assert house("project", "transfer", "team", bob).stdout == f"team belongs to {bob}\n"
    house("member", "remove", "team", ada)
    assert house.sql("select owner::text from gitstore.projects") == [(bob,)]
    assert "there is no member" in house("member", "remove", "team", ada, status=1).stderr
    assert [row for (row,) in house.sql("select action from gitstore.audit_log order by at")] == [
        "project.created", "member.changed", "project.changed", "member.removed",
    ]  # fmt: skip


def test_a_project_is_renamed_and_its_repository_stays(house: House) -> None:
    """Under its id. A slug that is taken is refused."""
    house("project", "create", "team")
    house("project", "create", "taken")
    with closing(house.publish("team", "order-sync")):
        house("rebuild")
    renamed = house("project", "rename", "team", "crew", "--name", "The crew").stdout
    assert renamed == "team is now crew (The crew): http://127.0.0.1:8080/crew.git\n"
    assert house("verify").exit_code == 0
    with closing(house.store("crew")) as store:
        assert store.slugs() == ["order-sync"]
    assert "is taken" in house("project", "rename", "crew", "taken", status=1).stderr
    assert "is not a slug" in house("project", "rename", "crew", "The Crew", status=1).stderr
    house("project", "rename", "crew", status=2)


def test_an_archived_project_is_read_and_not_written(house: House) -> None:
    house("project", "create", "team")
    with closing(house.publish("team", "order-sync")):
        house("rebuild")
    house("project", "archive", "team")
    refused = house("draft", "restore", "team", "order-sync", status=1).stderr
    assert refused == "error: the project team is archived: it is read-only until an owner unarchives it\n"
    for command in ("verify", "gc", "rebuild"):
        house(command, "team")
    assert "archived" in house("project", "rules", "team", "any", status=1).stderr
    house("project", "unarchive", "team")
    assert house("project", "rules", "team", "any").stdout == "team has the rules any\n"
    assert house("verify", "team").exit_code == 0


def test_a_deleted_project_leaves_its_repository_in_the_trash(house: House) -> None:
    """From there, it can be given a project again. Deletion needs an archive before, and the slug again."""
    house("project", "create", "team")
    with closing(house.publish("team", "order-sync")):
        house("rebuild")
    ((identity,),) = house.sql("select id::text from gitstore.projects")
    assert "is not archived" in house("project", "delete", "team", "--project-name", "team", status=1).stderr
    house("project", "archive", "team")
    for named in ([], ["--project-name", "other"]):
        assert "confirm the deletion" in house("project", "delete", "team", *named, status=1).stderr
    house("project", "delete", "team", "--project-name", "team")
    (kept,) = (house.data / "trash").iterdir()
    assert kept.name.endswith(f"-{identity}.git")
    assert not list((house.data / "repos").iterdir())
    assert house("verify").stderr == "no differences in no projects\n"
    assert "there is no project" in house("project", "show", "team", status=1).stderr
    kept.rename(house.data / "repos" / f"{identity}.git")
    house("project", "create", "again", "--repository", identity)
    assert house("rebuild", "again").stdout == "1 version in 1 project\n"
    assert house("verify").exit_code == 0


def test_a_token_is_shown_once(house: House) -> None:
    """On stdout, to be piped; the database has only its SHA-256."""
    house("project", "create", "team")
    made = house("token", "create", "team", "--role", "publisher", "--name", "ci")
    secret = made.stdout.strip()
    assert is_token(secret)
    assert secret not in made.stderr
    ((stored,),) = house.sql("select sha256 from gitstore.access_tokens")
    assert stored == digest(secret)
    listed = house("token", "list", "team").stdout
    assert secret not in listed
    assert {"publisher", "ci", "active"} <= set(listed.split())


@pytest.mark.parametrize(
    ("given", "after"),
    [("12h", timedelta(hours=12)), ("30d", timedelta(days=30)), ("8w", timedelta(weeks=8))],
)
def test_a_token_can_expire_after_a_duration(house: House, given: str, after: timedelta) -> None:
    """Hours, days or weeks."""
    house("project", "create", "team")
    before = datetime.now(UTC)
    house("token", "create", "team", "--role", "viewer", "--name", "x", "--expires", given)
    ((until,),) = house.sql("select expires_at from gitstore.access_tokens")
    assert before + after <= until <= datetime.now(UTC) + after


def test_a_token_can_expire_on_a_date(house: House) -> None:
    """At the end of that day; a past or invalid date is refused."""
    house("project", "create", "team")
    create = ("token", "create", "team", "--role", "viewer", "--name", "x", "--expires")
    house(*create, "2999-12-30")
    assert house.sql("select expires_at::text from gitstore.access_tokens")[0][0].startswith(
        "2999-12-31 00:00"
    )
    assert "must be in the future" in house(*create, "2001-01-01", status=2).stderr
    assert "expected 12h" in house(*create, "soon", status=2).stderr
    assert "expected 12h" in house(*create, "0d", status=2).stderr


def test_the_choices_of_a_source_are_spelled_as_in_the_api(house: House) -> None:
    house("project", "create", "team")
    kinds = ("--forge", "gitea", "--layout", "folders", "--direction", "both")
    output = house("source", "add", "team", "https://forge.example/a.git", *kinds).stdout
    assert "both https://forge.example/a.git (folders)" in output
    assert "(gitea)" in output
    url = "https://dev.azure.com/acme/flows/_git/flows"
    assert "as the password of HTTP basic authentication" in house("source", "add", "team", url).stdout
    shown = house("source", "add", "--help").stdout
    assert {"[refs|folders]", "[pull|push|both]"} <= set(re.findall(r"\[[a-z|]+\]", shown))


def test_the_secret_of_a_source_is_rotated(house: House, tmp_path: Path) -> None:
    """A generated one is printed; one from a file is checked as by the API."""
    house("project", "create", "team")
    output = house("source", "add", "team", "https://forge.example/a.git", "--workflows", "a-*").stdout
    source, first = re.findall(r"source (\S+):", output)[0], re.findall(r"secret +(\S+)", output)
    rotated = house("source", "rotate", "team", source, "--overlap-hours", "1").stdout
    assert f"/hooks/{source}" in rotated
    assert re.findall(r"secret +(whsec_\S+)", rotated) != first
    ((left,),) = house.sql("select previous_secret_until - now() < interval '1 hour' from gitstore.sources")
    assert left
    file = tmp_path / "secret"
    file.write_text("not-of-the-standard\n")
    refused = house("source", "rotate", "team", source, "--secret-file", str(file), status=1).stderr
    assert "whsec_<base64>" in refused
    assert "there is no source" in house("source", "rotate", "team", str(uuid4()), status=1).stderr
    assert "a-*" in house("source", "list", "team").stdout


def test_divergences_are_resolved_by_ref(house: House) -> None:
    """Under the name that the list shows; a tag can only be acknowledged."""
    house("project", "create", "team")
    house("source", "add", "team", "https://forge.example/a.git")
    ((source,),) = house.sql(
        "with one as (select id, project_id from gitstore.sources), new as ("
        "insert into gitstore.divergences (source_id, project_id, ref, slug, version_number, ours, theirs, "
        "code, reason) select id, project_id, ref, 'a', number, '1', '2', 'x', 'moved' "
        "from one, (values ('refs/tags/a/v1', 1), ('refs/heads/drafts/a', null)) as refs (ref, number)) "
        "select id::text from one"
    )
    resolve = ("source", "resolve", "team", source)
    assert "acknowledge the difference" in house(*resolve, "refs/tags/a/v1", "theirs", status=1).stderr
    kept = house(*resolve, "refs/tags/a/v1", "acknowledge").stdout
    assert kept == "refs/tags/a/v1: both sides are kept\n"
    taken = house(*resolve, "refs/heads/drafts/a", "theirs").stdout
    assert taken == "refs/heads/drafts/a: the next sync takes theirs\n"
    listed = house("source", "list", "team").stdout
    assert ("refs/heads/drafts/a" in listed, "refs/tags/a/v1" in listed) == (True, False)
    again = house(*resolve, "refs/tags/a/v1", "acknowledge", status=1).stderr
    assert again == ("error: there is no open divergence 'refs/tags/a/v1': see gitstore source list\n")
    assert "Invalid value" in house(*resolve, "refs/tags/a/v1", "both", status=2).stderr


def test_repair_without_differences(house: House) -> None:
    house("project", "create", "team")
    assert house("repair").stdout == "nothing to repair\n"


def test_a_revoked_token_stops_working(house: House) -> None:
    """It remains in the list; revoking it again, or an unknown one, is an error."""
    house("project", "create", "team")
    house("token", "create", "team", "--role", "owner", "--name", "lost")
    ((token,),) = house.sql("select id::text from gitstore.access_tokens")
    assert house("token", "revoke", token).stdout == f"revoked {token} of team\n"
    assert "revoked" in house("token", "list", "team").stdout
    for absent in (token, str(uuid4())):
        assert f"there is no active token {absent!r}" in house("token", "revoke", absent, status=1).stderr
    assert "not a valid UUID" in house("token", "revoke", "lost", status=2).stderr


@pytest.mark.parametrize("command", [("token", "list"), ("verify",), ("rebuild",)])
def test_an_unknown_project_is_an_error(house: House, command: tuple[str, ...]) -> None:
    output = house(*command, "nowhere", status=1).stderr
    assert output == "error: there is no project 'nowhere': see gitstore project list\n"


def test_verify_lists_differences(house: House) -> None:
    """Each is a line on stdout, and the exit status is 1; after a rebuild there are none."""
    house("project", "create", "team")
    assert house("verify").stderr == "no differences in 1 project\n"
    with closing(house.publish("team", "order-sync")):
        pass
    differing = house("verify", "team", status=1)
    assert differing.stdout.startswith("team: order-sync")
    assert differing.stderr.endswith("in 1 project\n")
    assert house("rebuild", "team").stdout == "1 version in 1 project\n"
    assert house("verify").exit_code == 0


def test_rebuild_does_not_hide_a_contradiction(house: House) -> None:
    """A tag that was moved from outside: an error that names it, unless Git's state is accepted."""
    house("project", "create", "team")
    with closing(house.publish("team", "order-sync")) as store:
        house("rebuild")
        tag = store.path / os.fsdecode(names.tag("order-sync", 1))
        commit = store.version("order-sync", 1).snapshot.commit
    tag.write_text(commit + "\n")
    assert "order-sync/v1" in house("verify", status=1).stdout
    assert "order-sync/v1" in house("rebuild", status=1).stderr
    refused = house("rebuild", "--accept-git", status=1)
    assert "order-sync/v1, published by Ada on " in refused.stderr
    assert "--project-name team" in refused.stderr
    house("rebuild", "--accept-git", "--project-name", "other", status=1)
    house("rebuild", "--accept-git", "--project-name", "team")


def test_a_missing_repository_is_a_difference(house: House) -> None:
    house("project", "create", "team")
    (repository,) = (house.data / "repos").iterdir()
    repository.rename(house.data / "elsewhere")
    assert "the repository of the project team is not at" in house("verify", status=1).stdout


def test_the_openapi_document_is_printed(house: House) -> None:
    """Without a database."""
    document = json.loads(house("openapi", DATABASE_URL="").stdout)
    assert document["openapi"].startswith("3.1")
    assert "/workflows/{id}/versions/publish" in document["paths"]


def test_an_option_overrides_the_environment(house: House, tmp_path: Path) -> None:
    """With the same validation."""
    output = house("project", "list", "--database-url", "mysql://u:hunter2@db", status=1).stderr
    assert output.startswith("error: DATABASE_URL is 'mysql://u:***@db': expected ")
    missing = house(
        "project", "list", "--database-url", "", "--data", str(tmp_path / "none"), status=1
    ).stderr
    assert missing.startswith(f"error: there is no gitstore in {tmp_path / 'none'}: run gitstore serve")


def test_an_unreachable_database_is_an_error(house: House) -> None:
    """With the driver's message, and without the password."""
    url = "postgresql://me:hunter2@127.0.0.1:1/x"
    output = house("project", "list", status=1, DATABASE_URL=url).stderr
    assert output.startswith("error: the database does not answer")
    assert "refused" in output
    assert "hunter2" not in output


def test_an_unmigrated_database_is_an_error(tmp_path: Path, make_database: Callable[..., str]) -> None:
    bare = House(tmp_path, make_database())
    assert "run gitstore migrate" in bare("project", "list", status=1).stderr


def test_an_invalid_command_line_exits_with_2(house: House) -> None:
    house("project", "erase", status=2)
    house("token", "create", "team", "--role", "boss", "--name", "x", status=2)


def test_commands_work_with_and_without_a_running_service(ram_path: Path, cluster: Path) -> None:
    """With its embedded Postgres while it runs; else the command starts it."""
    with running(ram_path, STUB, cluster) as service:
        service.ready()
        settings = {"GITSTORE_DATA": str(service.data)}
        assert gitstore("project", "create", "team", settings=settings).returncode == 0
        assert service.stop() == 0
    listed = gitstore("project", "list", settings=settings)
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["slug", "default", "team"]
    assert listed.stderr == ""
    assert gitstore("verify", settings=settings).stderr == "no differences in 2 projects\n"


def test_a_definition_is_merged_in_the_terminal(house: House, tmp_path: Path) -> None:
    """Conflicts are listed with their values, until each is decided by its path; then the draft is saved."""
    house("project", "create", "team-a")
    who = Actors(ADA, ADA)
    with closing(house.publish("team-a", "a")) as store:
        theirs = {"name": "Theirs", "nodes": [{**DEFINITION["nodes"][0], "data": {"label": "Begin"}}]}
        draft = store.create_draft("a", Content(value=theirs), who).commit
    house("rebuild", "team-a")
    file = tmp_path / "mine.json"
    mine = {"description": "Mine", "nodes": [{**DEFINITION["nodes"][0], "data": {"label": "\x1b[1mGo"}}]}
    file.write_text(json.dumps(mine))
    left = house("merge", "a", "1", str(file), "--project", "team-a", status=1)
    assert 'conflict: /nodes/start/data/label\n  base:   "Start"\n  ours:   "' in left.stderr
    assert "\x1b" not in left.stderr
    assert "name: Theirs" in left.stdout
    assert "description: Mine" in left.stdout
    decided = ("merge", "a", "1", str(file), "--project", "team-a", "--theirs", "/nodes/start/data/label")
    assert "label: Begin" in house(*decided).stdout
    saved = house(*decided, "--save", "--message", "Both").stdout
    with closing(house.publish("team-a", "b")) as store:
        commit = store.objects.commit(saved.split()[-1].encode())
        assert (commit.message, commit.parents) == (b"Both\n", [draft.encode()])
    assert "give MINE or --commit" in house("merge", "a", "1", "--project", "team-a", status=2).stderr


def test_discarded_drafts_are_listed_and_restored(house: House) -> None:
    """As the operator; not over an open draft, nor one that was never discarded."""
    house("project", "create", "team-a")
    who, commits = Actors(ADA, ADA), []
    with closing(house.publish("team-a", "a")) as store:
        for label in ("One", "Two"):
            draft = {**DEFINITION, "name": label}
            commits.append(store.create_draft("a", Content(value=draft), who).commit)
            assert "a draft is open" in house("draft", "restore", "team-a", "a", status=1).stderr
            store.discard_draft("a", who)
        _, newest, oldest = house("draft", "list", "team-a", "a").stdout.splitlines()
        assert commits[1] in newest
        assert commits[0] in oldest
        restored = house("draft", "restore", "team-a", "a", "--at", oldest.split()[0])
        assert restored.stdout == f"restored the draft of a: {commits[0]}\n"
        entry = next(store.ledger("a"))
    assert (entry.kind, entry.actor.name) == (LedgerKind.RESTORED, "operator")
    noted = (
        "select actor_name, door from gitstore.audit_log where object = 'drafts/a' order by at desc limit 1"
    )
    assert house.sql(noted) == [("operator", "cli")]
    assert house.sql("select commit_sha from gitstore.workflow_versions where state = 'draft'") == [
        (commits[0],)
    ]
    assert "no project 'nowhere'" in house("draft", "restore", "nowhere", "a", status=1).stderr
    assert "no workflow 'b'" in house("draft", "restore", "team-a", "b", status=1).stderr
    assert (
        "expected a time such as" in house("draft", "restore", "team-a", "a", "--at", "soon", status=2).stderr
    )


def test_commands_load_without_flask(house: House) -> None:
    """Only `gitstore openapi` and the processes that serve HTTP need it."""
    house("project", "create", "team")
    with closing(house.publish("team", "a")) as store:
        store.create_draft("a", None, Actors(ADA, ADA))
    house("rebuild")
    run = (
        "import sys; from service.cli.main import commands; commands(sys.argv[1:], standalone_mode=False); "
        "print(sorted({'flask', 'werkzeug', 'pydantic'} & set(sys.modules)), file=sys.stderr)"
    )
    settings = environment(DATABASE_URL=house.url, GITSTORE_DATA=str(house.data))
    for command in ("draft list team a", "token list team", "source list team", "diff a --project team"):
        arguments = [sys.executable, "-c", run, *command.split()]
        done = subprocess.run(arguments, env=settings, capture_output=True, check=False, text=True)
        assert (done.returncode, done.stderr) == (0, "[]\n"), command
        assert done.stdout


def test_lists_are_printed_as_json_too(house: House) -> None:
    """With the columns of the table as keys, whole times, and null for an empty cell."""
    house("project", "create", "team", "--name", "A Team")
    house("token", "create", "team", "--role", "viewer", "--name", "ci", "--expires", "2099-01-31")
    house.publish("team", "a").close()

    def listed(*arguments: str, status: int = 0) -> Any:
        return json.loads(house(*arguments, "--json", status=status).stdout)

    (project,) = listed("project", "list")
    assert (project["slug"], project["name"], project["archived"]) == ("team", "A Team", None)
    assert datetime.fromisoformat(project["created"]).tzinfo == UTC
    (token,) = listed("token", "list", "team")
    assert (token["name"], token["state"], token["last_used"]) == ("ci", "active", None)
    assert token["expires"] == "2099-02-01T00:00:00Z"
    assert listed("project", "show", "team")["owner"] is None
    for command in ("member list team", "source list team", "draft list team a", "secrets check"):
        assert listed(*command.split()) == []
    differences = listed("verify", status=1)
    assert {one["project"] for one in differences} == {"team"}
    assert all(one["difference"] for one in differences)
    house("rebuild")
    assert listed("verify") == []


def each_command(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from each_command(child, (*path, name))
    else:
        yield " ".join(path), command


def test_the_help_of_every_command_is_complete() -> None:
    """It describes the command and each option, and has examples that its parser accepts."""
    found = dict(each_command(commands))
    assert found.keys() == EXAMPLES.keys()
    assert FAILURES.keys() <= EXAMPLES.keys()
    for name, command in found.items():
        shown = CliRunner().invoke(commands, [*name.split(), "--help"], terminal_width=200).stdout
        assert re.search(r"\n\n  [A-Z].{10}", shown), name
        assert all(isinstance(one, click.Argument) or one.help for one in command.params), name
        assert "\n  Exit status:\n" in shown
        assert ("--json" in shown) == (name not in ("serve", "worker", "openapi")), name
        for example in EXAMPLES[name]:
            assert f"    {example}\n" in shown
            assert len(example) <= 110
            words = shlex.split(example, comments=True)
            begin = words.index("gitstore") + 1
            assert words[begin : begin + len(name.split())] == name.split()
            rest = list(itertools.takewhile(lambda word: word not in ("|", ">"), words[begin:]))
            with command.make_context(name, rest[len(name.split()) :], resilient_parsing=True) as context:
                command.make_parser(context).parse_args(rest[len(name.split()) :])


def test_a_bar_shows_progress_on_a_terminal_alone() -> None:
    """It is gone at the end, and lines are printed above it."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream in (Terminal(), io.StringIO()):
        progress = Progress("verifying team", stream)
        for done in range(4):
            progress(done, 3)
            print_line("a line")
        progress(0, 0)
        shown = stream.getvalue()
        if stream.isatty():
            assert "verifying team:   0%|" in shown
            assert shown.rpartition("\r")[0].endswith(" ")
        else:
            assert shown == ""


def test_results_are_printed_as_json(house: House, tmp_path: Path) -> None:
    """By every command that acts; hints stay on stderr."""

    def run(*arguments: str, status: int = 0) -> Any:
        return json.loads(house(*arguments, "--json", status=status).stdout)

    user, flows = str(uuid4()), tmp_path / "flows"
    assert run("migrate") == {"applied": []}
    assert run("migrate", "--plan")["pending"] == []
    made = run("project", "create", "team", "--rules", "any")
    assert (made["slug"], made["url"]) == ("team", "http://127.0.0.1:8080/team.git")
    assert run("project", "set", "team", "--activate-invalid")["activate_invalid"] is True
    assert run("project", "rename", "team", "crew")["slug"] == "crew"
    assert run("member", "add", "crew", user, "--role", "owner") == {
        "project": "crew", "user": user, "role": "owner",
    }  # fmt: skip
    assert run("project", "transfer", "crew", user)["owner"] == user
    token = run("token", "create", "crew", "--role", "viewer", "--name", "x")
    assert is_token(token["token"])
    assert run("token", "revoke", token["id"]) == {"id": token["id"], "project": "crew"}
    flows.mkdir()
    for number in (1, 2):
        (flows / "a.yaml").write_text(f"name: A{number}\n")
        report = run("import", "folder", str(flows), "--project", "crew")
        assert (report["versions"], report["refused"], report["dry_run"]) == (1, 0, False)
    difference = run("diff", "a", "1", "2", "--project", "crew")
    assert [difference[end]["version_number"] for end in ("from", "to")] == [1, 2]
    assert difference["other"][0]["after"] == "A2"
    assert run("rebuild") == {"projects": ["crew"], "versions": 2, "lost": {}}
    assert run("repair") == {"repaired": [], "remaining": []}
    (packed,) = run("gc")
    assert (packed["project"], packed["busy"], packed["pruned"]) == ("crew", False, 0)
    mine = tmp_path / "mine.yaml"
    mine.write_text("name: Mine\n")
    merged = run("merge", "a", "1", str(mine), "--project", "crew", status=1)
    assert (merged["commit"], merged["conflicts"]) == (None, ["/name"])
    source = run("source", "add", "crew", "https://forge.example/a.git")
    assert source["webhook"]["secret"].startswith("whsec_")
    rotated = run("source", "rotate", "crew", source["id"])
    assert rotated["webhook"]["url"] == source["webhook"]["url"]
    assert run("secrets", "reset", "--yes") == []
    assert run("project", "archive", "crew")["archived_at"]
    assert run("project", "delete", "crew", "--project-name", "crew")["slug"] == "crew"
