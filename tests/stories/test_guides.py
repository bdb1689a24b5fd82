"""The guides for teams that have a Supabase project, followed from beginning to end."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import playwright
import psycopg
import pytest

from gitstore.definition.quoting import quote
from gitstore.names import slug_from
from tests.service.test_cli import House
from tests.service.test_imports import (
    ROWS,
    SCHEMA,
    USERS,
    VERSION_ROWS,
    add_projects,
    check_versions,
    imported,
    insert,
)
from tests.stories.guide import Guide, Shell, Terminal
from tests.stories.instance import Author, Caller
from tests.supabase import PROGRAMS, Supabase, SupabaseDatabase, project_database, supabase
from tests.ui import browser

pytestmark = [pytest.mark.slow, browser.needs_chromium]
ADA, EVE = "ada@example.com", "eve@example.com"
URL = "postgresql://postgres.<project-ref>:<password>@<pooler-host>:6543/postgres"
READY = "gitstore is ready"
NODE = shutil.which("node") or str(Path(playwright.__file__).parent / "driver/node")
MORE = """
    alter table projects enable row level security;
    create policy own on projects using (owner = auth.uid());
    alter table workflow_definitions enable row level security;
    create policy own on workflow_definitions
        using (project_id in (select id from projects where owner = auth.uid()));
    create table workflow_runs (
        id bigint generated always as identity primary key,
        workflow_id uuid not null references workflow_definitions (id) on delete cascade
    )
"""
STUB = """
    export const createServerSupabaseClient = (event) => ({ auth: {
      getSession: async () => ({ data: { session: event.jwt ? { access_token: event.jwt } : null } }) } })
"""
FORWARD = """
    import { GET, PUT } from "./src/routes/api/workflows/[...path]/+server.js"
    const url = new URL("http://localhost/api/workflows/flow-9?project=default-project")
    const save = { method: "PUT", body: JSON.stringify({ description: "Forwarded" }) }
    const event = (options, jwt) => (
      { request: new Request(url, options), url, jwt, getClientAddress: () => "203.0.113.9" })
    const answers = [await GET(event({}, process.env.JWT)), await PUT(event(save, process.env.JWT)),
      await GET(event({}))]
    for (const answer of answers) console.log(answer.status, JSON.stringify(await answer.json()))
"""
Rows = dict[tuple[UUID, str, int], dict[str, Any]]


@pytest.fixture(scope="module")
def project() -> Iterator[Supabase]:
    with supabase() as running:
        running.add_user(ADA, next(iter(USERS)))
        running.add_user(EVE)
        yield running


@pytest.fixture
def base(project: Supabase) -> Iterator[SupabaseDatabase]:
    with project_database(project) as made:
        yield made


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    """A shell in a clone whose dependencies are installed."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    tools = [str(PROGRAMS), os.defpath, "/usr/local/bin", str(Path(NODE).parent)]
    environment = {"PATH": os.pathsep.join(tools), "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    environment["GITSTORE_WORKERS"] = "1"
    with closing(Shell(tmp_path, environment)) as opened:
        yield opened


def values(project: Supabase, base: SupabaseDatabase, **others: str) -> dict[str, str]:
    """What replaces the placeholders; the service gets a free port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    return {
        URL: base.pooled,
        "https://<project-ref>.supabase.co": project.url,
        "https://app.example.com": project.front_end,
        "127.0.0.1:8080": address,
        "<password of ada>": f"secret of {ADA}",
        **others,
    }


def test_a_meshhook_moves_in_and_out(project: Supabase, base: SupabaseDatabase, shell: Shell) -> None:
    """By docs/meshhook.md alone, with 50 workflows in 244 rows, through PgBouncer in transaction mode."""
    with psycopg.connect(base.direct) as connection:
        connection.execute(SCHEMA.partition("raw_user_meta_data jsonb);")[2].encode())
        add_projects(connection)
        insert(connection, *ROWS)
        connection.execute(MORE)
        ran = [row.id for row in ROWS if row.slug == "flow-9" and row.version in (3, 5)]
        connection.cursor().executemany(
            "insert into workflow_runs (workflow_id) values (%s)", [(id_,) for id_ in ran]
        )
    before = rows_of_meshhook(base)
    given = values(project, base, **{"order-sync": "flow-9"})
    url = f"http://{given['127.0.0.1:8080']}"
    ada, eve = (Caller(url, "default-project", project.jwt(email)) for email in (ADA, EVE))
    guide = Guide("meshhook.md", given)

    shell.follow(guide.section("Settings"))
    would, did, _ = shell.follow(guide.section("Import"))
    check_listed(would)
    check_listed(did)
    assert "no differences in 2 projects" in did
    house = House(shell.folder / "gitstore-data", base.direct)
    check_versions(imported(house))
    (block,) = guide.section("Serve")
    terminal = Terminal(shell, block.text, READY)
    try:
        engine = guide.section("The engine")
        (query,) = (block.text for block in engine if block.kind == "sql")
        *_, calls, clients, _ = shell.follow(engine)
        assert "\n304\n" in calls
        assert re.search(r"^4 2 (\d+) True\n4 2 \1 true$", clients, re.MULTILINE)
        assert [row[1] for row in base.rows_of(query, None, project)] == [4]
        assert [row[1] for row in base.rows_of(query, ADA, project)] == [4]

        assert "default-project-90642a07" in shell.follow(guide.section("The front end"))[-1]
        check_forwarding(shell.folder, ada.token)
        assert ("203.0.113.9",) in house.sql("select remote from gitstore.audit_log")
        (script,) = guide.section("From another origin")
        edited = in_page(
            project, script.text, ada.token, "opened, saved, published, versions, draft, rolledBack"
        )
        check_edits(edited)
        row = next(row for row in VERSION_ROWS if row.slug == "flow-9")
        assert ada.definition(str(row.id), 6) == ada.definition(str(row.id), 4)

        shell.follow(guide.section("Foreign keys"))
        assert runs(base) == [imported(house)["flow-9", 3]["id"], None]
        sees_nothing(project, base, eve, shell.folder)
        assert shell.paste("gitstore verify").startswith("no differences in 2 projects")
        shell.follow(guide.section("The way back"))
        check_moved_out(before, rows_of_meshhook(base))
    finally:
        log = terminal.interrupt()
    assert '"error"' not in log
    shell.follow(guide.section("Uninstall"))
    with psycopg.connect(base.direct) as connection:
        left = "select from pg_namespace where nspname = 'gitstore' union all select from pg_roles "
        assert connection.execute(f"{left} where rolname like 'gitstore\\_%'".encode()).fetchall() == []
    assert not guide.unread


def rows_of_meshhook(base: SupabaseDatabase) -> Rows:
    with psycopg.connect(base.direct, row_factory=psycopg.rows.dict_row) as connection:
        found = connection.execute("select * from public.workflow_definitions")
        return {(row["project_id"], row["slug"], row["version"]): row for row in found}


def runs(base: SupabaseDatabase) -> list[UUID | None]:
    with psycopg.connect(base.direct) as connection:
        found = connection.execute("select version_id from workflow_runs order by id").fetchall()
        return [version for (version,) in found]


def check_forwarding(folder: Path, jwt: str) -> None:
    """Call the route that MeshHook's server forwards by, with and without a session."""
    library = folder / "node_modules/$lib"
    library.mkdir(parents=True)
    (library / "supabase.js").write_text(STUB)
    (folder / "forward.js").write_text(FORWARD)
    for place in (folder, library):
        (place / "package.json").write_text('{"type": "module"}')
    command = [NODE, "forward.js"]
    done = subprocess.run(command, cwd=folder, env={"JWT": jwt}, capture_output=True, text=True, check=False)
    read, saved, refused = done.stdout.splitlines() or [done.stderr] * 3
    assert '"version":5' in read
    assert saved.startswith("200 ")
    assert '"description":"Forwarded"' in saved
    assert refused.startswith("401 ")


def check_moved_out(before: Rows, after: Rows) -> None:
    """What was published in MeshHook is as it was, and what was published here since is there, too."""
    kept = {key: row for key, row in before.items() if row["status"] != "draft"}
    assert kept.items() <= after.items()
    new = {key[1:]: row for key, row in after.items() if before.get(key) != row}
    assert {key: row["status"] for key, row in new.items()} == {("flow-9", n): "published" for n in (5, 6)}
    assert new["flow-9", 5]["definition"]["nodes"][0]["position"] == {"x": 120, "y": 80}
    assert new["flow-9", 6]["definition"] == after[new["flow-9", 6]["project_id"], "flow-9", 4]["definition"]


def check_listed(output: str) -> None:
    """Each exception has a line: a slug that changes, an older draft, an invalid version."""
    for slug in {row.slug for row in ROWS if row.slug != row.here}:
        assert f"the slug {quote(slug)} becomes {slug_from(slug)}" in output
    assert output.count(": left out: ") == 6
    assert output.count(" is recorded as invalid: ") == 3
    assert "192 versions (3 invalid) and 46 drafts of 50 workflows" in output


def in_page(project: Supabase, script: str, jwt: str, names: str) -> dict[str, Any]:
    """Run the script of a guide in a page of the front end; the values of these names."""
    with browser.browser() as chromium:
        page = chromium.new_page()
        page.goto(project.front_end)
        value = page.evaluate(f"async (jwt) => {{ {script}\nreturn {{ {names} }} }}", jwt)
        assert isinstance(value, dict)
        return value


def check_edits(edited: dict[str, Any]) -> None:
    """Ada opened the imported draft, v5, moved a node, published it, and rolled back to v4."""
    opened, saved, published, rolled_back = (
        (edited[name]["version"], edited[name]["status"])
        for name in ("opened", "saved", "published", "rolledBack")
    )
    assert (opened, saved) == ((5, "draft"), (5, "draft"))
    assert (published, rolled_back) == ((5, "published"), (6, "published"))
    assert edited["published"]["definition"]["nodes"][0]["position"] == {"x": 120, "y": 80}
    assert [version["version"] for version in edited["versions"]] == [5, 4, 3, 2, 1]
    assert [version["is_current"] for version in edited["versions"]] == [True, *[False] * 4]
    assert (edited["draft"]["version"], edited["draft"]["description"]) == (6, "As it was")
    assert edited["rolledBack"]["definition"] == edited["versions"][1]["definition"]


def sees_nothing(project: Supabase, base: SupabaseDatabase, eve: Caller, folder: Path) -> None:
    """A user without a role sees nothing of the projects: over the API, in Postgres, with git."""
    row = next(row for row in VERSION_ROWS if row.slug == "flow-9")
    assert eve.get("/projects").json["projects"] == []
    for path in ("/workflows", "/api/workflows", f"/workflows/{row.id}", f"/api/workflows/{row.id}/versions"):
        for query in ("", "?project=default-project", f"?project={row.project_id}"):
            answer = eve.get(path + query)
            assert answer.status in (400, 404) or answer.json["workflows"] == [], path + query
    assert eve.call("PUT", f"/api/workflows/{row.id}", {"status": "published"}).status == 404
    for table in ("projects", "workflows", "workflow_versions", "members", "events", "meshhook_versions"):
        assert base.rows_of(f"select from gitstore.{table}", EVE, project) == []
        assert len(base.rows_of(f"select from gitstore.{table}", ADA, project)) > 1 or table == "members"
    author = Author(folder, eve)
    assert not author.run("ls-remote", author.remote).ok
    assert Author(folder, replace(eve, token=project.jwt(ADA))).run("ls-remote", author.remote).ok


def test_a_team_with_supabase_begins(project: Supabase, base: SupabaseDatabase, shell: Shell) -> None:
    """By docs/supabase.md alone."""
    ids = {f"<id of {name}>": str(user) for user, (_, name) in USERS.items() for name in [name.lower()]}
    given = values(project, base, **{key: ids[key] for key in ("<id of ada>", "<id of grace>")})
    guide = Guide("supabase.md", given)
    shell.follow(guide.section("Settings"))
    (block,) = guide.section("Serve")
    terminal = Terminal(shell, block.text, READY)
    try:
        shell.follow(guide.section("Projects and users"))
        workflow = guide.section("A workflow")
        assert shell.follow(workflow)[-1].strip() == "steps:\n  - run: sync-orders"
        (script,) = (block.text for block in workflow if block.kind == "js")
        current = in_page(project, script, project.jwt(ADA), "current")["current"]
        assert (current["version_number"], current["author"]["name"]) == (1, "Ada")
        shell.follow(guide.section("In Postgres"))
        runs = "select from public.workflow_runs"
        assert [len(base.rows_of(runs, email, project)) for email in (ADA, EVE)] == [1, 0]
        assert "no differences" in shell.follow(guide.section("Verify, back up, leave"))[0]
    finally:
        log = terminal.interrupt()
    assert '"error"' not in log
    assert not guide.unread
