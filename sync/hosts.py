"""Grant a host's roles read access to the tables: the roles that Supabase's PostgREST assumes for a request.

`authenticated` is a signed-in user, who sees rows by the same policies as `gitstore_user`. `service_role`
is that of the host's own servers, which see every project. Neither can write, because every write goes
through Git. Only missing grants are made, so that running it again after an upgrade covers new tables and
views.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, LiteralString

from psycopg import sql

from sync.db import Transaction

USER: Final = "authenticated"
SERVER: Final = "service_role"

# Tables, and the policy that shows their rows to members or to owners; none with secrets or raw objects.
_SHOWN: Final = {
    "projects": "visible",
    "members": "owned",
    "workflows": "visible",
    "workflow_versions": "visible",
    "events": "visible",
}
_SERVED: Final = (*_SHOWN, "audit_log")
_FUNCTIONS: Final = ("visible_projects", "owned_projects")
_POLICY: Final = "host"

_EXISTS: Final[LiteralString] = "select true from pg_roles where rolname = %(role)s"
# Only views that read with the rights of their reader.
_VIEWS: Final[LiteralString] = """
    select relname from pg_class
    where relnamespace = 'gitstore'::regnamespace and relkind = 'v' and exists (
        select from pg_options_to_table(reloptions)
        where option_name = 'security_invoker' and option_value::boolean)
    order by relname
"""
_HAS_SCHEMA: Final[LiteralString] = "select has_schema_privilege(%(role)s, 'gitstore', 'usage')"
_HAS_TABLE: Final[LiteralString] = "select has_table_privilege(%(role)s, 'gitstore.' || %(name)s, 'select')"
_HAS_FUNCTION: Final[LiteralString] = """
    select has_function_privilege(%(role)s, 'gitstore.' || %(name)s || '()', 'execute')
"""
_POLICY_ROLES: Final[LiteralString] = """
    select roles::text[] from pg_policies
    where schemaname = 'gitstore' and tablename = %(table)s and policyname = %(policy)s
"""


def grant(tx: Transaction) -> Iterator[str]:
    """Make the missing grants to the roles that exist; yield a line for each. Requires the tables' owner."""
    views = [name for (name,) in tx.tuples(_VIEWS)]
    for role, tables in ((USER, tuple(_SHOWN)), (SERVER, _SERVED)):
        if not tx.value(_EXISTS, role=role):
            yield f"there is no role {role}: skipped"
            continue
        done = list(_grant(tx, role, (*tables, *views)))
        done += list(_show_to_users(tx) if role == USER else _show_to_servers(tx))
        yield from done or [f"{role} already has every grant"]


def _grant(tx: Transaction, role: str, relations: tuple[str, ...]) -> Iterator[str]:
    """Grant `role` the schema and reading of `relations`."""
    if not tx.value(_HAS_SCHEMA, role=role):
        yield _run(tx, "grant usage on schema gitstore to {}", role)
    for name in relations:
        if not tx.value(_HAS_TABLE, role=role, name=name):
            yield _run(tx, "grant select on gitstore.{} to {}", name, role)


def _show_to_users(tx: Transaction) -> Iterator[str]:
    """Apply the policies of `gitstore_user` to users of the host."""
    for name in _FUNCTIONS:
        if not tx.value(_HAS_FUNCTION, role=USER, name=name):
            yield _run(tx, "grant execute on function gitstore.{}() to {}", name, USER)
    for table, policy in _SHOWN.items():
        roles = tx.value(_POLICY_ROLES, table=table, policy=policy)
        if USER not in roles:
            names = sql.SQL(", ").join(map(sql.Identifier, [*roles, USER]))
            yield _run(tx, "alter policy {} on gitstore.{} to {}", policy, table, names)


def _show_to_servers(tx: Transaction) -> Iterator[str]:
    """Create a policy for the host's servers, for roles that do not bypass row-level security."""
    for table in _SERVED:
        if tx.value(_POLICY_ROLES, table=table, policy=_POLICY) is None:
            statement: LiteralString = "create policy {} on gitstore.{} for select to {} using (true)"
            yield _run(tx, statement, _POLICY, table, SERVER)


def _run(tx: Transaction, statement: LiteralString, *names: str | sql.Composed) -> str:
    """Execute the statement with these names, and return its text."""
    parts: list[Any] = [sql.Identifier(name) if isinstance(name, str) else name for name in names]
    text = sql.SQL(statement).format(*parts)
    tx.connection.execute(text)
    return text.as_string(tx.connection)
