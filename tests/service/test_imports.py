"""`gitstore import`: workflows of a MeshHook, in a Postgres of the same schema, become Git history."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid5

import psycopg
import pytest
from psycopg.types.json import Jsonb

from gitstore.drafts import Content
from gitstore.model import Person
from gitstore.names import slug_from
from gitstore.store import Actors, Store
from service.app import create_app
from service.config import Config
from service.projects import Projects
from sync import catalog
from sync.db import Database
from sync.meshhook import file_of
from tests.conftest import MakeDatabase, database, temporary_folder
from tests.helpers import definition, until
from tests.service.api.conftest import Client, problem
from tests.service.test_cli import House
from tests.service.users import ISSUER, SECRET, jwt_of

SCHEMA = """
    create schema auth;
    create table auth.users (id uuid primary key, email text, raw_user_meta_data jsonb);
    create table projects (id uuid primary key, owner uuid not null, name text not null);
    create table workflow_definitions (
        id uuid primary key, project_id uuid not null references projects, slug text not null, name text,
        description text, version int not null default 1, definition jsonb not null,
        status text not null check (status in ('draft', 'published', 'archived')), user_id uuid,
        created_at timestamptz not null, updated_at timestamptz not null, unique (project_id, slug, version)
    );
"""
SPACE = UUID(int=7)
PROJECTS = (uuid5(SPACE, "one"), uuid5(SPACE, "two"))
USERS = {uuid5(SPACE, name): (f"{name.lower()}@example.com", name) for name in ("Ada", "Grace", "Lin")}
STRANGER = uuid5(SPACE, "a user without a row")
START = datetime(2025, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
ODD = ["", "заказ", "Order Sync", "x" * 80, "naïve-café", "UPPER", str(UUID(int=9)), "a/b"]
SLUGS = [*(f"flow-{number}" for number in range(42)), *ODD]
VERSIONS = [
    *(
        [(1, "published"), (2, "published"), (3, "published"), (4, "published"), (5, "draft")]
        for _ in range(20)
    ),
    *(
        [(2, "archived"), (3, "published"), (7, "published"), (9, "archived"), (10, "draft")]
        for _ in range(20)
    ),
    *([(1, "draft"), (2, "published"), (3, "draft"), (5, "published")] for _ in range(6)),
    *(
        [(1, "archived"), (4, "archived"), (5, "published"), (6, "published"), (8, "published")]
        for _ in range(4)
    ),
]


@dataclass(frozen=True)
class Row:
    id: UUID
    project_id: UUID
    slug: str
    name: str | None
    description: str | None
    version: int
    definition: Any
    status: str
    user_id: UUID | None
    created_at: datetime
    updated_at: datetime

    @property
    def here(self) -> str:
        return slug_from(self.slug)


def rows() -> list[Row]:
    """50 workflows in 244 rows: gaps, archived and invalid versions, odd slugs, several authors."""
    made = []
    people = [*USERS, STRANGER, None]
    for index, (slug, versions) in enumerate(zip(SLUGS, VERSIONS, strict=True)):
        for place, (number, status) in enumerate(versions):
            content: Any = definition(f"https://{index}-{number}.example/")
            if (index, number) == (3, 4):
                content = {"nodes": []}  # current there, and invalid
            if (index, number) == (4, 2):
                content = {"big": 2**60, "float": 10**400}  # does not parse
            if (index, number) == (5, 3):
                content = ["not", "a", "mapping"]
            if (index, number) == (6, 1):
                content["nodes"][0]["data"]["testResult"] = {"token": "secret-of-a-run"}
            when = START + timedelta(days=index, hours=place)
            made.append(
                Row(
                    uuid5(SPACE, f"{slug} {number}"), PROJECTS[index % 5 == 4], slug, f"Flow {index}",
                    f"Change {number}" if place else None, number, content, status,
                    people[(index + place) % len(people)], when, when + timedelta(minutes=5, microseconds=7),
                )
            )  # fmt: skip
    return made


ROWS = rows()
VERSION_ROWS = [row for row in ROWS if row.status != "draft"]


def insert(connection: psycopg.Connection[Any], *given: Row) -> None:
    """Insert rows; one with a known id is replaced."""
    columns = list(Row.__dataclass_fields__)
    with connection.cursor() as cursor:
        cursor.executemany("delete from workflow_definitions where id = %s", [(row.id,) for row in given])
        cursor.executemany(
            f"insert into workflow_definitions ({', '.join(columns)}) "  # noqa: S608 - of constants
            f"values ({', '.join(['%s'] * len(columns))})",
            [
                [Jsonb(row.definition) if name == "definition" else getattr(row, name) for name in columns]
                for row in given
            ],
        )


@pytest.fixture(scope="module")
def meshhook(postgres_admin_conninfo: str) -> Iterator[str]:
    with database(postgres_admin_conninfo) as conninfo:
        with psycopg.connect(conninfo) as connection:
            connection.execute(SCHEMA)
            add_projects(connection)
            insert(connection, *ROWS)
        yield conninfo


def add_projects(connection: psycopg.Connection[Any]) -> None:
    with connection.cursor() as cursor:
        cursor.executemany(
            "insert into auth.users values (%s, %s, %s)",
            [(id_, email, Jsonb({"full_name": name})) for id_, (email, name) in USERS.items()],
        )
        cursor.executemany(
            "insert into projects values (%s, %s, %s)",
            [(project, next(iter(USERS)), "Default Project") for project in PROJECTS],
        )


@pytest.fixture(scope="module")
def house(postgres_admin_conninfo: str, migrated_template: str) -> Iterator[House]:
    with database(postgres_admin_conninfo, migrated_template) as url, temporary_folder() as folder:
        yield House(folder / "data", url)


@pytest.fixture(scope="module")
def output(house: House, meshhook: str) -> str:
    """The output of an import that was killed half-way, left its lock files, and was resumed."""
    settings = {
        "DATABASE_URL": house.url,
        "GITSTORE_DATA": str(house.data),
        "MESHHOOK_DATABASE_URL": meshhook,
    }
    command = [sys.executable, "-m", "service.cli", "import", "meshhook"]
    child = subprocess.Popen(command, env={**settings, "PATH": "/usr/bin:/bin"}, stdout=subprocess.DEVNULL)
    count = "select count(*) from gitstore.workflow_versions"
    until(lambda: house.sql(count)[0][0] > 40, "nothing was imported")
    child.kill()
    child.wait()
    assert 40 < house.sql(count)[0][0] < len(VERSION_ROWS)
    leave_locks(house.data / "repos" / f"{min(PROJECTS)}.git", "flow-39")
    return house("import", "meshhook", MESHHOOK_DATABASE_URL=meshhook).stdout


def leave_locks(repository: Path, slug: str) -> None:
    """Leave the marker and the lock files of a writer of `slug` that was killed before its first rename."""
    locks = [f"refs/heads/drafts/{slug}.lock", f"refs/ledger/{slug}.lock", f"refs/tags/{slug}/v2.lock"]
    for name in (f"gitstore-pending/{slug}.{time.time_ns()}.00000000", *locks):
        (repository / name).parent.mkdir(parents=True, exist_ok=True)
        (repository / name).touch()


Versions = dict[tuple[str, int], dict[str, Any]]


def imported(house: House) -> Versions:
    """The versions by workflow and number."""
    with psycopg.connect(house.url, row_factory=psycopg.rows.dict_row) as connection:
        found = connection.execute(
            "select w.slug, v.*, v.id = w.current_version_id as is_current "
            "from gitstore.workflow_versions v join gitstore.workflows w on w.id = v.workflow_id"
        )
        return {(row["slug"], row["version_number"]): row for row in found}


@pytest.fixture(scope="module")
def found(house: House, output: str) -> Versions:
    """The versions as the import left them, before a test changes some."""
    return imported(house)


def test_the_rows_are_as_many_as_promised() -> None:
    assert (len(SLUGS), len(ROWS)) == (50, 244)


def test_numbers_authors_times_and_currents_are_those_of_meshhook(output: str, found: Versions) -> None:
    """Every row but the drafts, and nothing else; the newest published row is current."""
    assert "Traceback" not in output
    check_versions(found)


def check_versions(found: Versions) -> None:
    """Compare the versions with MeshHook's rows."""
    published = {key: row for key, row in found.items() if row["state"] == "published"}
    assert set(published) == {(row.here, row.version) for row in VERSION_ROWS}
    for row in VERSION_ROWS:
        version = published[row.here, row.version]
        email, name = USERS.get(row.user_id, (None, None)) if row.user_id else ("", "unknown")
        assert version["author_name"] == version["published_by"] == (name or str(row.user_id))
        assert version["author_email"] == (email if email is not None else f"{row.user_id}@users.meshhook")
        assert version["created_at"] == row.created_at
        assert version["published_at"] == (row.updated_at if row.status == "published" else row.created_at)
        assert version["external_id"] == row.id
        assert version["project_id"] == row.project_id
        assert version["message"] == (row.description or f"Import {row.here} v{row.version}")
    current = {row.here: row.version for row in VERSION_ROWS if row.status == "published"}
    assert {slug: number for (slug, number), row in published.items() if row["is_current"]} == current


def test_the_ledger_keeps_the_ids_of_users(house: House, output: str) -> None:
    """Names and addresses may change there."""
    row = next(row for row in VERSION_ROWS if row.slug == "flow-1" and row.user_id)
    repository = house.data / "repos" / f"{row.project_id}.git"
    entries = git(repository, "log", "--format=%B", "refs/ledger/flow-1").split("Published flow-1 ")
    (entry,) = (entry for entry in entries if f"Gitstore-External-Ids: {row.id}\n" in entry)
    assert f'Gitstore-On-Behalf-Of: "{row.user_id}"\n' in entry


def test_the_newest_draft_row_is_the_draft(output: str, found: Versions) -> None:
    """Older ones are listed."""
    drafts = {row.here: row for row in ROWS if row.status == "draft"}
    open_drafts = {slug: row for (slug, _), row in found.items() if row["state"] == "draft"}
    assert set(open_drafts) == set(drafts)
    for slug, row in drafts.items():
        assert open_drafts[slug]["definition"] == row.definition
        assert open_drafts[slug]["created_at"] == row.updated_at.replace(microsecond=0)
    older = [row for row in ROWS if row.status == "draft" and drafts[row.here] is not row]
    assert len(older) == 6
    for row in older:
        assert f'left out: "{row.slug}" version {row.version} (draft, {row.id})' in output


def test_invalid_versions_are_recorded_and_run_as_they_did(
    house: House, output: str, found: Versions
) -> None:
    """Bytes are kept where there is no JSON; the numbers in them, too."""
    assert (found["flow-3", 4]["valid"], found["flow-3", 4]["is_current"]) == (False, True)
    for key in (("flow-4", 2), ("flow-5", 3)):
        assert (found[key]["valid"], found[key]["definition"], found[key]["digest"]) == (False, None, None)
        assert f"{key[0]}: v{key[1]} is recorded as invalid: 1 problem" in output or key[0] == "flow-4"
    repository = house.data / "repos" / f"{PROJECTS[1]}.git"
    shown = subprocess.run(
        ["git", "-C", repository, "show", "flow-4/v2:workflow.json"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert f"1{'0' * 400}" in shown
    assert str(2**60) in shown


def test_live_data_of_the_editor_is_left_out_and_counted(house: House, output: str, found: Versions) -> None:
    assert "left out what the editor left in 1 definition" in output
    repository = house.data / "repos" / f"{PROJECTS[0]}.git"
    objects = ["git", "-C", str(repository), "log", "--all", "-p", "--format=%s", "-S", "secret-of-a-run"]
    assert subprocess.run(objects, check=True, capture_output=True, text=True).stdout == ""
    assert found["flow-6", 1]["definition"]["nodes"][0]["data"]["label"] == "Hook"


def test_other_slugs_are_listed(house: House, output: str) -> None:
    for slug in ODD:
        assert f"becomes {slug_from(slug)}" in output


def test_projects_have_their_ids_and_owners(house: House, output: str) -> None:
    made = house.sql("select id, owner, slug from gitstore.projects")
    owner = next(iter(USERS))
    slugs = {"default-project", f"default-project-{max(PROJECTS).hex[:8]}"}
    assert {row[:2] for row in made} == {(project, owner) for project in PROJECTS}
    assert {row[2] for row in made} == slugs


def test_importing_again_adds_nothing(house: House, output: str, meshhook: str) -> None:
    before = house.sql("select * from gitstore.workflows order by id"), imported(house)
    again = house("import", "meshhook", MESHHOOK_DATABASE_URL=meshhook).stdout
    assert "imported no versions (0 invalid) and no drafts of no workflows" in again
    assert (house.sql("select * from gitstore.workflows order by id"), imported(house)) == before


def test_rows_are_verified_and_rebuilt(house: House, output: str) -> None:
    """Ids, times and people are in the ledger."""
    assert house("verify").stdout == ""
    before = house.sql("select * from gitstore.workflows order by id"), imported(house)
    with closing(Database(house.url)) as connected, connected.upkeep() as tx:
        tx.run(
            "update gitstore.workflow_versions "
            "set external_id = null, published_at = now(), created_at = now() where state = 'published'"
        )
        tx.run("update gitstore.workflows set external_ids = '{}', created_at = now()")
    house("rebuild")
    assert (house.sql("select * from gitstore.workflows order by id"), imported(house)) == before


@pytest.fixture(scope="module")
def api(house: House, found: Versions) -> Iterator[Client]:
    """A client of the larger project, as an editor."""
    slug = dict(house.sql("select id, slug from gitstore.projects"))[PROJECTS[0]]
    token = house("token", "create", slug, "--role", "publisher", "--name", "t").stdout.strip()
    issuers = json.dumps([{"issuer": ISSUER, "secret": SECRET}])
    config = Config.from_env(
        {"GITSTORE_DATA": str(house.data), "DATABASE_URL": house.url, "GITSTORE_JWT_ISSUERS": issuers}
    )
    with closing(Database(house.url)) as connected:
        yield Client(create_app(config, database=connected), token)


def test_ids_mean_their_workflows_and_versions(api: Client) -> None:
    """An id of a row in MeshHook, or of a version here: it names its workflow, or that very version."""
    draft, row = (next(row for row in ROWS if row.slug == "flow-1" and row.version == n) for n in (5, 2))
    version = api.get("/workflows/flow-1/versions/2").json
    assert version["external_id"] == str(row.id)
    for identity in (row.id, version["id"]):
        assert api.get(f"/workflows/{identity}").json["slug"] == "flow-1"
        for workflow in ("flow-1", version["workflow_id"], row.id, version["id"]):
            read = api.get(f"/workflows/{workflow}/versions/{identity}")
            assert read.json["version_number"] == 2, read.text
        assert api.get(f"/workflows/{identity}/versions/current/definition").status_code == 200
    assert api.get(f"/workflows/{draft.id}").json["slug"] == "flow-1"
    assert api.get(f"/workflows/{draft.id}/versions/{draft.id}").json["state"] == "draft"
    moved = api.put(f"/workflows/{row.id}/current", json={"version": str(row.id)})
    assert moved.json["current"]["version_number"] == 2
    moved = api.put(
        f"/workflows/{draft.id}/current", json={"version": api.get("/workflows/flow-1/versions/4").json["id"]}
    )
    assert moved.json["current"]["version_number"] == 4
    assert api.post(f"/workflows/flow-1/versions/{row.id}/revert", match="*", json={}).status_code == 201


def test_an_id_chooses_the_project_of_a_user_with_several(api: Client) -> None:
    """The owner of both names no project where the path has an id of a row, or of a version."""
    owner = Client(api.app, jwt_of(next(iter(USERS))))
    stranger = Client(api.app, jwt_of(STRANGER))
    for slug, number in (("flow-1", 2), ("flow-4", 3), ("flow-24", 10), ("flow-40", 1)):
        row = next(row for row in ROWS if row.slug == slug and row.version == number)
        for path in (f"/workflows/{row.id}", f"/workflows/{row.id}/versions", f"/api/workflows/{row.id}"):
            assert owner.get(path).status_code == 200, path
            problem(stranger.get(path), 404, "workflow_not_found")
        newest = owner.get(f"/workflows/{row.id}/versions").json["versions"][0]
        assert owner.get(f"/workflows/{newest['id']}").json["slug"] == slug
    problem(owner.get(f"/workflows/{UUID(int=1)}"), 404, "workflow_not_found")


def test_a_version_that_does_not_parse_has_no_json(api: Client) -> None:
    """Its facts and problems are in the refusal, its bytes are served."""
    owner = Client(api.app, jwt_of(next(iter(USERS))))
    row = next(row for row in ROWS if row.slug == "flow-4" and row.version == 2)
    path = f"/workflows/{row.id}/versions/2"
    refused = problem(owner.get(path), 422, "definition_unparsable")
    assert (refused["version"]["external_id"], refused["version"]["digest"]) == (str(row.id), None)
    assert refused["problems_total"] == 2
    problem(
        owner.get(f"{path}/definition", headers={"Accept": "application/json"}), 422, "definition_unparsable"
    )
    assert owner.get(f"{path}/definition", headers={"Accept": "*/*"}).status_code == 200


def test_meshhook_rolls_back_by_its_own_ids(api: Client) -> None:
    row = next(row for row in ROWS if row.slug == "flow-10" and row.version == 1)
    url = f"/api/workflows/{row.id}/versions"
    made = api.post(url, json={"version_id": str(row.id), "force": True})
    assert made.json["version"]["definition"]["nodes"] == row.definition["nodes"]
    assert api.post(url, json={"version_id": str(UUID(int=1))}).status_code == 404


def test_ids_of_other_projects_mean_nothing(api: Client) -> None:
    other = next(row for row in VERSION_ROWS if row.project_id == PROJECTS[1])
    for path in (
        f"/{other.id}",
        f"/flow-1/versions/{other.id}",
        f"/{UUID(int=1)}",
        f"/flow-1/versions/{UUID(int=1)}",
    ):
        assert api.get(f"/workflows{path}").status_code == 404


EVE = Actors(Person("Eve", "eve@example.com"), Person("Eve", "eve@example.com"))


@dataclass
class Move:
    """A MeshHook with one workflow, and the gitstore that imports it again and again."""

    house: House
    meshhook: str

    def there(self, *given: Row) -> None:
        with psycopg.connect(self.meshhook) as connection:
            insert(connection, *given)

    def run(self, *arguments: str, status: int = 0) -> str:
        result = self.house(
            "import", "meshhook", *arguments, status=status, MESHHOOK_DATABASE_URL=self.meshhook
        )
        return result.output

    def state(self) -> dict[int, str]:
        """The state of each version; the current one in capitals."""
        return {
            number: row["state"].upper() if row["is_current"] else row["state"]
            for (_, number), row in imported(self.house).items()
        }

    @contextmanager
    def store(self) -> Iterator[Store]:
        config = Config.from_env({"GITSTORE_DATA": str(self.house.data), "DATABASE_URL": self.house.url})
        with closing(Database(self.house.url)) as connected:
            with connected.as_owner() as tx:
                project = catalog.project_by_id(tx, PROJECTS[0])
            assert project is not None
            with closing(Projects(config).writer(project, connected)) as store:
                yield store


@pytest.fixture
def move(make_database: MakeDatabase, migrated_template: str, tmp_path: Path) -> Move:
    there = make_database()
    with psycopg.connect(there) as connection:
        connection.execute(SCHEMA)
        add_projects(connection)
    return Move(House(tmp_path / "data", make_database(migrated_template)), there)


def row(number: int, status: str, url: str = "", **changed: Any) -> Row:
    when = START + timedelta(hours=number)
    content = definition(url or f"https://{number}.example/")
    made = Row(
        uuid5(SPACE, f"moved {number}"), PROJECTS[0], "moved", "Moved", None, number, content, status,
        next(iter(USERS)), when, when,
    )  # fmt: skip
    return replace(made, **changed)


def test_a_later_import_follows_what_changed(move: Move) -> None:
    """A draft that was saved, published and replaced there, and a version that was archived."""
    move.there(row(1, "published"), row(2, "published"), row(3, "draft"))
    move.run()
    assert move.state() == {1: "published", 2: "PUBLISHED", 3: "draft"}
    move.there(row(3, "draft", "https://saved.example/"))
    assert "no versions (0 invalid) and 1 draft of 1 workflow" in move.run()
    move.there(row(3, "published", "https://saved.example/"), row(5, "draft"))
    move.run()
    assert move.state() == {1: "published", 2: "published", 3: "PUBLISHED", 4: "draft"}
    move.there(row(3, "archived", "https://saved.example/"), row(4, "published"))
    move.run()
    assert move.state() == {1: "published", 2: "published", 3: "published", 4: "PUBLISHED", 5: "draft"}
    move.there(row(4, "archived"))
    move.run()
    assert move.state() == {1: "published", 2: "PUBLISHED", 3: "published", 4: "published", 5: "draft"}
    with move.store() as store:
        assert store.publish("moved", EVE).number == 5  # the draft is not behind
    move.house("project", "archive", "default-project-90642a07")
    assert "is archived: it is read-only until an owner unarchives it" in move.run(status=1)
    move.house("project", "unarchive", "default-project-90642a07")
    move.there(row(2, "published", "https://rewritten.example/"))
    would = move.run("--dry-run", status=1)
    again = move.run(status=1)
    assert "v2: published here with other content, which cannot change" in would
    assert "v2: published here with other content, which cannot change" in again
    assert "v5 stays current: " in again
    assert move.house("verify").stdout == ""


def test_a_later_import_does_not_touch_what_people_did_here(move: Move) -> None:
    """Neither their draft, nor their current version, nor a draft that they discarded."""
    move.there(row(1, "published"), row(2, "published"), row(3, "draft"))
    move.run()
    with move.store() as store:
        ours = store.save_draft(
            "moved", Content(value=definition("https://ours.example/")), EVE, expected="*"
        )
        store.move_current("moved", 1, EVE)
    move.there(row(3, "draft", "https://theirs.example/"))
    kept = move.run()
    assert "moved: the draft was changed here and is kept" in kept
    assert "moved: v1 stays current: " in kept
    assert move.state()[1] == "PUBLISHED"
    with move.store() as store:
        assert store.state("moved").draft == ours.commit
        store.discard_draft("moved", EVE)
    move.there(row(3, "draft"))
    move.run()
    assert move.state()[3] == "discarded"


def test_a_dry_run_changes_nothing(move: Move) -> None:
    """In either database; it tells what would be imported."""
    move.there(row(1, "published"), row(2, "published", definition={}), row(3, "draft"))
    output = move.run("--dry-run")
    assert "default-project: would create the project" in output
    assert "would import 2 versions (1 invalid) and 1 draft of 1 workflow" in output
    assert move.house.sql("select count(*) from gitstore.projects") == [(0,)]
    move.run()
    assert "would import no versions (0 invalid) and no drafts" in move.run("--dry-run")


def test_leftovers_are_kept_on_request(move: Move) -> None:
    content = definition()
    content["nodes"][0]["data"]["testResult"] = {"status": 200}
    move.there(row(1, "published", definition=content))
    move.run("--keep-leftovers")
    assert imported(move.house)["moved", 1]["definition"] == content


def test_the_database_is_named_without_its_password_in_arguments(move: Move, tmp_path: Path) -> None:
    """By a file, a variable or, without a password, an argument."""
    assert "name MeshHook's database" in move.house("import", "meshhook", status=2).output
    refused = move.house("import", "meshhook", "postgresql://u:hunter2@localhost/m", status=2).output
    assert "other users can read a password" in refused
    assert "hunter2" not in refused
    assert "not a URL" in move.house("import", "meshhook", "hunter2 = =", status=2).output
    file = tmp_path / "url"
    file.write_text(move.meshhook + "\n")
    for arguments in (["--url-file", str(file)], [move.meshhook]):
        assert "imported no versions" in move.house("import", "meshhook", *arguments).output


def test_a_host_that_ends_idle_transactions_can_be_imported(move: Move) -> None:
    """The snapshot is idle while gitstore writes."""
    move.there(*(row(number, "published") for number in (1, 2, 3)))
    with psycopg.connect(move.meshhook, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f'alter database "{name}" set idle_in_transaction_session_timeout = 1')
    move.run()
    assert move.state() == {1: "published", 2: "published", 3: "PUBLISHED"}


def test_a_database_that_is_not_read_whole_is_refused(move: Move) -> None:
    """One without MeshHook's tables, one whose rows are hidden, and one that does not answer."""
    run = partial(move.house, "import", "meshhook", status=1)
    assert "not the database of a MeshHook" in run(MESHHOOK_DATABASE_URL=move.house.url).output
    with psycopg.connect(move.meshhook) as connection:
        connection.execute(
            "alter table workflow_definitions enable row level security, force row level security"
        )
    assert "BYPASSRLS" in run(MESHHOOK_DATABASE_URL=move.meshhook).output
    assert "does not answer" in run(MESHHOOK_DATABASE_URL="postgresql://127.0.0.1:1/m").output


@pytest.mark.parametrize(
    ("text", "printed", "leftovers"),
    [
        (
            '{"a": 1.0, "b": [12345678901234567890, 1e400, -0]}',
            "[\n    12345678901234567890,\n    1e400,",
            False,
        ),
        ('{"nodes": [{"selected": true, "id": "0\\\\u0000"}]}', '"id": "0\\\\u0000"', True),
        ('{"nodes": [{"data": {"testResult": 1e400}}], "big": 1e400}', '"big": 1e400', True),
        ("[" * 5000 + "]" * 5000, "[[", False),
        ("null", "null\n", False),
        ('{"long": "' + "x" * 1000 + '"}', '{"long": "xxx', False),
    ],
)
def test_the_file_of_a_row_has_its_numbers_and_no_leftovers(text: str, printed: str, leftovers: bool) -> None:
    """Deep, large and strange definitions included; a large one is not indented."""
    raw, stripped = file_of(text, keep_leftovers=False, most=500)
    assert printed in raw.decode()
    assert stripped is leftovers
    assert b"testResult" not in raw


# Folders and Git repositories


def git(folder: Path, *arguments: str) -> str:
    ada = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "init.defaultBranch=main")
    command = ["git", "-C", str(folder), *ada, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@pytest.fixture
def flows(tmp_path: Path) -> Path:
    """A repository in the layout of n8n and Kestra, whose files have a history, with a rename in it."""
    folder = tmp_path / "flows"
    (folder / "workflows" / "team a").mkdir(parents=True)
    git(folder, "init", "-q")
    first = folder / "workflows" / "old.yaml"
    first.write_text("id: order\ntasks: [one, two, three, four, five, six]\n")
    (folder / "package.json").write_text("{}")
    (folder / "workflows" / "team a" / "n8n.json").write_text('{"nodes": [], "connections": {}}')
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "Begin")
    first.rename(folder / "workflows" / "order.yaml")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "Rename it")
    (folder / "workflows" / "order.yaml").write_text(
        "id: order\ntasks: [one, two, three, four, five, seven]\n"
    )
    git(folder, "commit", "-qam", "Change it")
    (folder / "workflows" / "link.yaml").symlink_to("/etc/passwd")
    (folder / "workflows" / "broken.yml").write_text("a: [")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "More")
    return folder


def versions(house: House) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for slug, number in sorted(imported(house)):
        found.setdefault(slug, []).append(number)
    return found


NESTED = slug_from("team a/n8n")


def test_a_repository_is_imported_with_its_history(move: Move, flows: Path) -> None:
    """By author, time and message of each commit that changed a file, under all of its names."""
    house = move.house
    imports = partial(house, "import", "folder", str(flows), "--project", "flows")
    dry = imports("--history", "--dry-run", status=1).output
    assert "would import 4 versions (1 invalid)" in dry
    output = imports("--history", status=1).output
    assert "imported 4 versions (1 invalid) and no drafts of 3 workflows" in output
    assert 'not imported: "workflows/link.yaml": not a regular file' in output
    assert f'"workflows/team a/n8n.json" becomes {NESTED}' in output
    assert versions(house) == {"broken": [1], "order": [1, 2], NESTED: [1]}
    found = imported(house)
    when = datetime.fromtimestamp(int(git(flows, "log", "-1", "--format=%at", "HEAD~1")), UTC)
    assert (found["order", 2]["author_name"], found["order", 2]["message"]) == ("Ada", "Change it")
    assert (found["order", 2]["created_at"], found["order", 2]["is_current"]) == (when, True)
    assert (found["broken", 1]["valid"], found["broken", 1]["is_current"]) == (False, None)
    assert found[NESTED, 1]["file_name"] == "workflow.json"
    assert house.sql("select slug, rules from gitstore.projects") == [("flows", "any")]
    assert "imported no versions" in imports("--history", status=1).output
    assert house("verify").stdout == ""


@pytest.mark.parametrize("kind", ["repository", "folder"])
def test_a_changed_file_is_the_next_version(move: Move, flows: Path, kind: str) -> None:
    """Without history, each import adds the present content of what has changed."""
    if kind == "folder":
        (flows / ".git").rename(flows / "elsewhere")
    imports = partial(move.house, "import", "folder", str(flows), "--project", "flows", status=1)
    imports()
    assert versions(move.house) == {"broken": [1], "order": [1], NESTED: [1]}
    (flows / "workflows" / "order.yaml").write_text("id: order\n")
    if kind == "repository":
        git(flows, "commit", "-qam", "Shorten it")
    assert "imported 1 version (0 invalid)" in imports().output
    assert "imported no versions" in imports().output
    assert versions(move.house) == {"broken": [1], "order": [1, 2], NESTED: [1]}
    assert imported(move.house)["order", 2]["definition"] == {"id": "order"}


def test_a_folder_without_workflows_is_searched_as_a_whole(move: Move, tmp_path: Path) -> None:
    """But for hidden folders; its history is that of no repository."""
    (tmp_path / "in" / ".github").mkdir(parents=True)
    (tmp_path / "in" / ".github" / "ci.yml").write_text("a: 1")
    (tmp_path / "in" / "flow.json").write_text('{"a": 1}')
    imports = partial(move.house, "import", "folder", str(tmp_path / "in"), "--project", "flows")
    assert "not a Git repository" in imports("--history", status=1).output
    imports()
    assert versions(move.house) == {"flow": [1]}
