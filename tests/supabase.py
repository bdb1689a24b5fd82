"""A Supabase project: Debian's Postgres with Supabase's roles, PgBouncer before it, and its sign-in.

The owner of the database is no superuser. Roles and the schema `auth` are as Supabase's image makes them. One
server answers for the API (a sign-in by password, and the keys), and with an empty page at its other name.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from sync.embedded.server import USER
from tests import postgres_server
from tests.conftest import database, temporary_folder
from tests.pooler import pooler
from tests.service.users import claims, jwk, signed_with

PROGRAMS = Path("/usr/lib/postgresql/15/bin")
_KEY = ec.generate_private_key(ec.SECP256R1())

_ROLES = """
    alter role gitstore nosuperuser createrole bypassrls;
    create role anon nologin noinherit;
    create role authenticated nologin noinherit;
    create role service_role nologin noinherit bypassrls;
    create role authenticator login noinherit;
    grant anon, authenticated, service_role to authenticator, gitstore;
"""
_AUTH = """
    create schema auth;
    create table auth.users (id uuid primary key, email text, raw_user_meta_data jsonb);
    create function auth.uid() returns uuid language sql stable as $$
        select coalesce(nullif(current_setting('request.jwt.claim.sub', true), ''),
            nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub')::uuid
    $$;
    create function auth.jwt() returns jsonb language sql stable as $$
        select coalesce(nullif(current_setting('request.jwt.claim', true), ''),
            nullif(current_setting('request.jwt.claims', true), ''))::jsonb
    $$;
    grant usage on schema auth to anon, authenticated, service_role, gitstore;
    grant select, insert on auth.users to gitstore;
    grant usage on schema public to anon, authenticated, service_role;
    grant create on schema public to gitstore;
"""


@dataclass
class Supabase:
    """The project's addresses: of its API, of the front end, and of its databases' superuser."""

    url: str
    front_end: str
    admin: str
    users: dict[str, UUID] = field(default_factory=dict)

    def add_user(self, email: str, user: UUID | None = None) -> str:
        """Let a user sign in with the password "secret of <email>"; the user's JWT."""
        self.users[email] = user or uuid4()
        return self.jwt(email)

    def jwt(self, email: str) -> str:
        user = {"email": email, "user_metadata": {"full_name": email.partition("@")[0].title()}}
        return signed_with(_KEY, claims(self.users[email], iss=f"{self.url}/auth/v1", **user), kid="1")


@dataclass(frozen=True)
class SupabaseDatabase:
    """A database, as its owner reaches it: `direct`, and as the URL of its pooler."""

    direct: str
    pooled: str

    def rows_of(self, query: str, email: str | None, supabase: Supabase, **values: Any) -> list[Any]:
        """What PostgREST reads for a user; without one, for the host's servers (`service_role`)."""
        with psycopg.connect(make_conninfo(self.direct, user="authenticator")) as connection:
            role = sql.Identifier("authenticated" if email else "service_role")
            connection.execute(sql.SQL("set local role {}").format(role))
            if email is not None:
                passed = {"sub": str(supabase.users[email]), "role": "authenticated", "email": email}
                connection.execute("select set_config('request.jwt.claims', %s, true)", (json.dumps(passed),))
            return connection.execute(query.encode(), values or None).fetchall()


@contextmanager
def supabase() -> Iterator[Supabase]:
    if not (PROGRAMS / "postgres").exists():
        pytest.skip("Postgres 15 is not installed")
    with (
        temporary_folder(shared=True) as folder,
        postgres_server.running(PROGRAMS, folder / "postgres") as admin,
    ):
        with psycopg.connect(admin, autocommit=True) as connection:
            connection.execute(_ROLES.encode())
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Api)
        port = server.server_port
        server.project = made = Supabase(f"http://127.0.0.1:{port}", f"http://localhost:{port}", admin)  # type: ignore[attr-defined] # for the handler
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        try:
            yield made
        finally:
            server.shutdown()
            server.server_close()


@contextmanager
def project_database(project: Supabase) -> Iterator[SupabaseDatabase]:
    """A database of the project, behind PgBouncer in transaction mode."""
    with database(project.admin) as direct:
        name = str(conninfo_to_dict(direct)["dbname"])
        with psycopg.connect(make_conninfo(project.admin, dbname=name)) as connection:
            connection.execute(_AUTH.encode())
        with pooler(direct) as through:
            at = conninfo_to_dict(through)
            url = f"postgresql://{USER}@{quote(str(at['host']), safe='')}:{at['port']}/{name}"
            yield SupabaseDatabase(direct, url)


class _Api(BaseHTTPRequestHandler):
    """Supabase's sign-in and keys; and an empty page for any other path."""

    def do_GET(self) -> None:
        if self.path == "/auth/v1/.well-known/jwks.json":
            self._answer(200, {"keys": [jwk(_KEY.public_key(), "1")]})
        else:
            self._answer(200, "<!doctype html><title>Host</title>")

    def do_POST(self) -> None:
        project: Supabase = self.server.project  # type: ignore[attr-defined]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = body["email"] in project.users and body["password"] == f"secret of {body['email']}"
        if known and self.path == "/auth/v1/token?grant_type=password" and self.headers["apikey"]:
            self._answer(200, {"access_token": project.jwt(body["email"]), "token_type": "bearer"})
        else:
            self._answer(400, {"error_code": "invalid_credentials"})

    def _answer(self, status: int, content: Any) -> None:
        page = isinstance(content, str)
        raw = (content if page else json.dumps(content)).encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html" if page else "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *arguments: Any) -> None: ...
