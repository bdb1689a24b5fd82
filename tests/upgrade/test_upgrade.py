"""Upgrades from every release: its database and its data folder, restored from tests/upgrade/<version>."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import closing
from importlib.metadata import version
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from service.app import create_app
from service.config import Config
from service.projects import Projects
from sync import catalog
from sync.db import Database
from sync.integrity.verify import verify
from sync.migrate import migrate, shipped
from tests.conftest import MakeDatabase
from tests.gitstore.parsed import parse
from tests.service.api.conftest import House, problem
from tests.upgrade.make import BASES, DATA, DUMP

WRITTEN = b"""\
# The warehouse wants it so.
name: Order sync
nodes:
  - id: hook
    type: webhook
    data: {label: Hook, config: {}}
  - id: call
    type: httpCall
    data: {label: Call, config: {url: "%s", method: POST}}
edges:
  - {id: e, source: hook, target: call}
"""
"""The definition in the bases, for a URL."""

RELEASES = sorted(path.parent.name for path in BASES.glob(f"*/{DUMP}"))

_SCHEMA = """
    select 'column', table_name || '.' || column_name,
            concat(data_type, is_nullable, column_default, generation_expression)
        from information_schema.columns where table_schema = 'gitstore'
    union all select 'constraint', conrelid::regclass || '.' || conname, pg_get_constraintdef(oid)
        from pg_constraint where connamespace = 'gitstore'::regnamespace
    union all select 'index', indexname, indexdef from pg_indexes where schemaname = 'gitstore'
    union all select 'policy', tablename || '.' || policyname, concat(roles, cmd, qual, with_check)
        from pg_policies where schemaname = 'gitstore'
    union all select 'trigger', tgrelid::regclass || '.' || tgname, pg_get_triggerdef(oid)
        from pg_trigger where tgrelid::regclass::text like 'gitstore.%' and not tgisinternal
    union all select 'function', oid::regprocedure::text, concat(proowner::regrole, prosrc, proacl)
        from pg_proc where pronamespace = 'gitstore'::regnamespace
    union all select 'rights', relname, concat(relowner::regrole, array(
            select unnest(relacl)::text order by 1
        )) from pg_class where relnamespace = 'gitstore'::regnamespace and relkind = 'r'
    order by 1, 2, 3
"""


def schema(conninfo: str) -> list[tuple[str, ...]]:
    with psycopg.connect(conninfo) as connection:
        return connection.execute(_SCHEMA).fetchall()


def restore(release: str, conninfo: str, admin_conninfo: str, folder: Path) -> None:
    """Restore a base into an empty database and a folder, as an operator would from a backup."""
    with psycopg.connect(conninfo, autocommit=True) as owner:
        owner.execute(shipped()[0].text.encode())  # the roles, which belong to the cluster
    name = str(conninfo_to_dict(conninfo)["dbname"])
    with psycopg.connect(make_conninfo(admin_conninfo, dbname=name), autocommit=True) as admin:
        admin.execute((BASES / release / DUMP).read_bytes())
    with tarfile.open(BASES / release / DATA) as archive:
        archive.extractall(folder, filter="data")


@pytest.fixture(params=RELEASES)
def upgraded(
    request: pytest.FixtureRequest,
    postgres_admin_conninfo: str,
    make_database: MakeDatabase,
    ram_path: Path,
) -> Iterator[House]:
    """This release on the data of another, with the migrations since then."""
    conninfo = make_database()
    restore(request.param, conninfo, postgres_admin_conninfo, ram_path)
    migrate(conninfo)
    config = Config.from_env({"GITSTORE_DATA": str(ram_path / "data"), "DATABASE_URL": conninfo})
    with closing(Database(conninfo)) as database:
        with database.as_owner() as tx:
            projects = {project.slug: project for project in catalog.projects(tx)}
        app = create_app(config, database=database)
        yield House(app, config, database, projects["default"], projects["other"])


def differences(house: House) -> list[str]:
    """What `gitstore verify` finds in both projects."""
    found: list[str] = []
    for project in (house.project, house.other):
        with closing(Projects(house.config).reader(project)) as repository:
            found += map(str, verify(house.database, repository))
    return found


def test_this_version_has_a_base_and_a_section_of_the_changelog() -> None:
    """CONTRIBUTING describes how a release is made."""
    assert version("gitstore") in RELEASES
    assert f"\n## [{version('gitstore')}] - 20" in (BASES.parents[1] / "CHANGELOG.md").read_text()


def test_an_upgraded_schema_is_that_of_a_new_database(
    upgraded: House, make_database: MakeDatabase, migrated_template: str
) -> None:
    """Columns, constraints, indexes, policies, triggers, functions and rights."""
    assert schema(upgraded.database.conninfo) == schema(make_database(migrated_template))
    assert migrate(upgraded.database.conninfo) == []


def test_work_goes_on_after_an_upgrade(upgraded: House) -> None:
    """Every version is as it was; drafts are published, created, and restored; nothing differs afterwards."""
    assert differences(upgraded) == []
    owner = upgraded.client("owner")
    versions = "/workflows/order-sync/versions"
    assert owner.get(f"{versions}/1/definition").data == WRITTEN % b"https://a.example/"
    assert owner.get(f"{versions}/1").json["message"] == "The first"
    third = parse(WRITTEN % b"https://3.example/").value
    assert owner.get(f"{versions}/3").json["definition"]["nodes"] == third["nodes"]
    published = owner.post(f"{versions}/publish", match=owner.get(f"{versions}/draft").headers["ETag"])
    assert (published.status_code, published.json["version_number"]) == (201, 4)
    held = owner.publish("held", "https://new.example/").json
    assert (held["version_number"], held["is_current"]) == (3, False)
    restored = owner.post("/workflows/discarded/versions/draft/restore")
    assert restored.status_code == 201
    assert owner.get("/workflows/discarded/versions/draft/definition").data == WRITTEN % b"https://a.example/"
    problem(owner.publish("never-published"), 422, "definition_invalid")
    assert upgraded.client("publisher", upgraded.other).publish("any-rules").status_code == 200
    assert [token["role"] for token in owner.get("/tokens").json["tokens"]].count("editor") == 1
    assert len(owner.get("/subscriptions").json["subscriptions"]) == 1
    (source,) = owner.get("/sources").json["sources"]
    assert (source["workflows"], source["drafts"]) == (["*"], True)
    assert differences(upgraded) == []
