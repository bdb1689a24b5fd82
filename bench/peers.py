"""What gitstore is compared with: a plain Flask application on Postgres, and git's own server.

`serving_flask` serves the same rows of the same Postgres by the same server (service/run/web.py), in as
many processes: an application as one would write it without Git, with a token check, a query and json.dumps.
It reads gitstore's own tables, and writes to tables `peer.*` that have the same columns and indexes. No
row-level security, no validation and no triggers cost it anything.

`serving_git` serves repositories by `git http-backend` behind lighttpd, which checks no credentials.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, Final, LiteralString, cast
from uuid import uuid4

import psycopg
from flask import Flask, Response, request
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from gitstore.git.process import environment, git
from service.config import METRICS_FOLDER, Config
from service.run import web
from service.run.listener_socket import answers
from service.run.serve import metrics_folder
from service.setting_kinds import Bind
from sync.embedded.server import SUPERUSER
from tests.helpers import until

TOKEN: Final = "a-token-of-the-peer"
OPEN: Final = "open"
"""A token that the application does not look up."""
SAFE: Final = {"http.receivepack": "true", "core.fsync": "all", "receive.fsckObjects": "true"}
"""What makes git's server as safe as gitstore: it checks objects, and syncs everything to the disk."""

_TABLES: Final[tuple[LiteralString, ...]] = ("workflows", "workflow_versions", "events", "audit_log")
_VERSION: Final[LiteralString] = """
    select v.id, v.workflow_id, w.slug as workflow, v.version_number, v.state, v.valid, v.commit_sha,
        v.digest, v.message, v.author_name, v.author_email, v.published_by, v.created_at, v.published_at,
        v.id = w.current_version_id as is_current
"""
_ONE: Final[LiteralString] = (
    _VERSION
    + """, v.definition_text
    from gitstore.workflows w join gitstore.workflow_versions v on v.workflow_id = w.id
    where w.project_id = %(project)s and w.slug = %(slug)s
"""
)
_CURRENT: Final[LiteralString] = _ONE + " and v.id = w.current_version_id"
_NUMBERED: Final[LiteralString] = _ONE + " and v.version_number = %(number)s"
_PAGE: Final[LiteralString] = (
    _VERSION
    + """
    from gitstore.workflows w join gitstore.workflow_versions v on v.workflow_id = w.id
    where w.project_id = %(project)s and w.slug = %(slug)s and v.version_number < %(before)s
    order by v.version_number desc limit %(limit)s
"""
)
_AUTHENTICATE: Final[LiteralString] = "select project_id, name from peer.tokens where sha256 = %s"
_LOCK: Final[LiteralString] = """
    select id, latest_number from peer.workflows where project_id = %s and slug = %s for update
"""
_CREATE: Final[LiteralString] = """
    insert into peer.workflows
        (id, project_id, slug, name, description, held, created_at, updated_at, latest_number)
    values (gen_random_uuid(), %s, %s, %s, '', false, now(), now(), 0) on conflict do nothing
"""
_SAVE: Final[LiteralString] = """
    insert into peer.workflow_versions (
        id, workflow_id, project_id, version_number, state, created_at, commit_sha, ref_oid, tree_sha,
        blob_sha, file_name, digest, definition, definition_text, valid, message, author_name, author_email)
    values (gen_random_uuid(), %(workflow)s, %(project)s, %(number)s, 'draft', now(), %(oid)s, %(oid)s,
        %(oid)s, %(oid)s, 'workflow.yaml', %(digest)s, %(text)s::text::jsonb, %(text)s, true, 'Save', %(by)s,
        'ann@example.test')
    on conflict (workflow_id, version_number) do update set created_at = excluded.created_at,
        commit_sha = excluded.commit_sha, ref_oid = excluded.ref_oid, tree_sha = excluded.tree_sha,
        blob_sha = excluded.blob_sha, digest = excluded.digest, definition = excluded.definition,
        definition_text = excluded.definition_text
    returning id, version_number, commit_sha, digest, created_at
"""
_SAVED: Final[LiteralString] = """
    update peer.workflows set updated_at = now(), draft_commit = %(oid)s where id = %(workflow)s
"""
_PUBLISH: Final[LiteralString] = """
    update peer.workflow_versions set state = 'published', published_at = now(), published_by = %(by)s
    where workflow_id = %(workflow)s and version_number = %(number)s
    returning id, version_number, commit_sha, digest, created_at, published_at
"""
_PUBLISHED: Final[LiteralString] = """
    update peer.workflows
    set updated_at = now(), latest_number = %(number)s, current_version_id = %(version)s
    where id = %(workflow)s
"""
_EVENT: Final[LiteralString] = """
    with made as (
        insert into peer.events (id, project_id, workflow_id, type, created_at, data)
        values (gen_random_uuid(), %(project)s, %(workflow)s, %(type)s, now(), %(data)s) returning id
    ), noted as (
        insert into peer.audit_log (project_id, actor_id, actor_name, door, action, object, details)
        select %(project)s, 'peer', %(by)s, 'http', %(type)s, %(object)s, jsonb_build_object('event', id)
        from made
    )
    select pg_notify('peer_events', id::text) from made
"""


class SkippedError(Exception):
    """Something that a measure needs is not installed here."""


def prepare(conninfo: str, project: str) -> None:
    """Make the peer's tables, and its token for `project`."""
    with connect(conninfo) as connection:
        connection.execute("create schema peer")
        for table in _TABLES:
            connection.execute(f"create table peer.{table} (like gitstore.{table} including all)")
        connection.execute("create table peer.tokens (sha256 bytea primary key, project_id uuid, name text)")
        connection.execute(
            "insert into peer.tokens select %s, id, 'Ann' from gitstore.projects where slug = %s",
            [_sha256(TOKEN), project],
        )


# The statements, which the application and the measures of bare SQL execute

Connection = psycopg.Connection[dict[str, Any]]


def connect(conninfo: str) -> Connection:
    return psycopg.connect(conninfo, user=SUPERUSER, autocommit=True, row_factory=dict_row)


def authenticate(connection: Connection, token: str = TOKEN) -> dict[str, Any]:
    found = connection.execute(_AUTHENTICATE, [_sha256(token)]).fetchone()
    assert found is not None
    return found


def read(connection: Connection, who: dict[str, Any], slug: str, version: str) -> dict[str, Any]:
    about = {"project": who["project_id"], "slug": slug, "number": version}
    found = connection.execute(_CURRENT if version == "current" else _NUMBERED, about).fetchone()
    assert found is not None
    return found


def save(connection: Connection, who: dict[str, Any], slug: str, content: str) -> dict[str, Any]:
    """Write the draft, its event and its line of the audit log, in the caller's transaction."""
    values = _locked(connection, who, slug)
    values |= {"oid": uuid4().hex, "text": content, "digest": f"sha256:{_sha256(content).hex()}"}
    made = connection.execute(_SAVE, values).fetchone()
    connection.execute(_SAVED, values)
    return _noted(connection, values, made, "workflow.draft.updated")


def publish(connection: Connection, who: dict[str, Any], slug: str) -> dict[str, Any]:
    """Write the version, its two events and their lines of the audit log, in the caller's transaction."""
    values = _locked(connection, who, slug)
    made = connection.execute(_PUBLISH, values).fetchone()
    assert made is not None
    connection.execute(_PUBLISHED, {**values, "version": made["id"]})
    return _noted(connection, values, made, "workflow.version.published", "workflow.current.changed")


def _locked(connection: Connection, who: dict[str, Any], slug: str) -> dict[str, Any]:
    project = who["project_id"]
    row = connection.execute(_LOCK, [project, slug]).fetchone()
    if row is None:
        connection.execute(_CREATE, [project, slug, slug])
        row = connection.execute(_LOCK, [project, slug]).fetchone()
    assert row is not None
    number = row["latest_number"] + 1
    return {"project": project, "workflow": row["id"], "number": number, "by": who["name"], "object": slug}


def _noted(
    connection: Connection, values: dict[str, Any], made: dict[str, Any] | None, *kinds: str
) -> dict[str, Any]:
    assert made is not None
    for kind in kinds:
        connection.execute(_EVENT, {**values, "type": kind, "data": json.dumps(made, default=str)})
    return made


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


# The application


def create_app(config: Config) -> Flask:
    app = Flask(__name__)
    kwargs = {"autocommit": True, "user": SUPERUSER, "row_factory": dict_row}
    pool: ConnectionPool[Connection] = ConnectionPool(
        config.database_url or "", kwargs=kwargs, min_size=1, max_size=16, open=False
    )
    os.register_at_fork(after_in_child=pool.open)  # in the processes that serve

    @cache
    def anyone() -> dict[str, Any]:
        with pool.connection() as first:
            return authenticate(first)

    def authenticated(connection: Connection) -> dict[str, Any]:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        return anyone() if token == OPEN else authenticate(connection, token)

    def one(slug: str, version: str) -> dict[str, Any]:
        with pool.connection() as connection:
            return read(connection, authenticated(connection), slug, version)

    @app.get("/workflows/<slug>/versions/<version>")
    def version(slug: str, version: str) -> Response:
        found = one(slug, version)
        found["definition"] = json.loads(found.pop("definition_text"))
        return _cached(_json(found), found["digest"])

    @app.get("/workflows/<slug>/versions/<version>/definition")
    def definition(slug: str, version: str) -> Response:
        found = one(slug, version)
        return _cached(Response(found["definition_text"], content_type="application/json"), found["digest"])

    @app.get("/workflows/<slug>/versions")
    def history(slug: str) -> Response:
        with pool.connection() as connection:
            who = authenticated(connection)
            about = {"project": who["project_id"], "slug": slug, "before": 2**31 - 1}
            found = connection.execute(_PAGE, {**about, "limit": request.args["limit"]}).fetchall()
        return _json({"versions": found})

    @app.put("/workflows/<slug>/versions/draft")
    @app.post("/workflows/<slug>/versions", endpoint="draft")
    def save_draft(slug: str) -> Response:
        content = json.dumps(request.get_json()["definition"])
        with pool.connection() as connection, connection.transaction():
            return _json(save(connection, authenticated(connection), slug, content), 201)

    @app.post("/workflows/<slug>/versions/publish")
    def publish_draft(slug: str) -> Response:
        definition = request.get_json().get("definition")
        with pool.connection() as connection, connection.transaction():
            who = authenticated(connection)
            if definition is not None:
                save(connection, who, slug, json.dumps(definition))
            return _json(publish(connection, who, slug), 201)

    @app.get("/livez")
    def livez() -> str:
        return "here"

    return app


def _json(value: Any, status: int = 200) -> Response:
    return Response(json.dumps(value, default=str), status, content_type="application/json")


def _cached(response: Response, digest: str) -> Response:
    response.set_etag(digest)
    return cast(Response, response.make_conditional(request))


@contextmanager
def serving_flask(settings: dict[str, str], conninfo: str, log: Path) -> Iterator[tuple[int, int]]:
    """Serve `create_app` with a service's settings, for as long as the block: its port and process id."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener, metrics_folder() as figures:
        port = listener.getsockname()[1]
        given = {**settings, "GITSTORE_BIND": f"127.0.0.1:{port}", METRICS_FOLDER: str(figures)}
        command = [sys.executable, "-m", "bench.peers", str(os.getpid()), str(listener.fileno())]
        with log.open("a") as file:
            child = subprocess.Popen(
                command, env=given, stdin=subprocess.PIPE, stdout=file, stderr=file,
                pass_fds=[listener.fileno()],
            )  # fmt: skip
        listener.close()
        with child:
            try:
                assert child.stdin is not None
                with child.stdin:
                    child.stdin.write(json.dumps(conninfo).encode() + b"\n")
                until(lambda: answers(Bind("127.0.0.1", port), 5), f"it does not answer: see {log}")
                yield port, child.pid
            finally:
                child.terminate()


_LIGHTTPD: Final = """
server.modules = ("mod_setenv", "mod_alias", "mod_cgi")
server.document-root = "{root}"
server.bind = "127.0.0.1"
server.port = {port}
server.max-worker = 2
server.errorlog = "{log}"
server.max-keep-alive-requests = 100000
alias.url = ("/git" => "{backend}")
cgi.assign = ("" => "")
setenv.set-environment = (
    "GIT_PROJECT_ROOT" => "{root}", "GIT_HTTP_EXPORT_ALL" => "1", "REMOTE_USER" => "ann",
    "GIT_CONFIG_COUNT" => "1", "GIT_CONFIG_KEY_0" => "safe.directory", "GIT_CONFIG_VALUE_0" => "*"
)
"""


@contextmanager
def serving_git(root: Path, folder: Path) -> Iterator[tuple[int, int]]:
    """Serve the repositories below `root` at `/git/`: the port and the process id of lighttpd."""
    server = shutil.which("lighttpd", path=f"{os.environ['PATH']}:/usr/sbin")
    if server is None:
        raise SkippedError("git's own server needs Debian's package lighttpd")
    backend = subprocess.run(
        [git(), "--exec-path"], env=environment(), capture_output=True, text=True, check=True
    ).stdout.strip()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings, log = folder / "lighttpd.conf", folder / "lighttpd.log"
    settings.write_text(
        _LIGHTTPD.format(root=root, port=port, log=log, backend=f"{backend}/git-http-backend")
    )
    # It ends its workers by a signal to its whole process group, which must not be ours.
    command = [server, "-D", "-f", str(settings)]
    with subprocess.Popen(command, env=environment(), start_new_session=True) as child:
        try:
            until(lambda: child.poll() is not None or _listens(port), f"it does not answer: see {log}")
            assert child.poll() is None, log.read_text()
            yield port, child.pid
        finally:
            child.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def plain_copy(repository: Path, path: Path) -> Path:
    """Copy a repository, but not its ledgers, for git's own server, with its settings for safety."""
    subprocess.run(["cp", "-a", "--reflink=auto", str(repository), str(path)], check=True)
    run = partial(subprocess.run, check=True, env=environment(), stdout=subprocess.PIPE)
    listed = run([git(), "-C", str(path), "for-each-ref", "--format=delete %(refname)", "refs/ledger"])
    run([git(), "-C", str(path), "update-ref", "--stdin"], input=listed.stdout)
    for key, value in SAFE.items():
        subprocess.run([git(), "-C", str(path), "config", key, value], check=True, env=environment())
    return path


if __name__ == "__main__":
    web.main(sys.argv[1:], "bench.peers:create_app")
