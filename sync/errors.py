"""Translation of the driver's exceptions into GitstoreError, in this one module.

Errors are mapped by SQLSTATE (Postgres' documentation, appendix A) and, for a violated constraint, by its
name. The driver's message stays in `__cause__`: it may name hosts and users, so it is for the log alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg

from gitstore.errors import (
    BusyError,
    Code,
    ConfigError,
    ConflictError,
    ForbiddenError,
    GitstoreError,
    MalformedError,
    UnavailableError,
)

RETRY_AFTER: Final = 2  # seconds

_BUSY: Final = {
    "55P03": "timed out waiting for another writer",  # lock_not_available: lock_timeout passed
    "40P01": "deadlock with another writer",  # deadlock_detected
    "40001": "conflict with a concurrent write",  # serialization_failure
    "57014": "the query timed out",  # query_canceled: statement_timeout passed
}
# Classes 08 (connection), 53 (resources: disk full, too many connections), 57P (shutdown, startup, crash)
# and 58 (I/O errors); 25006: a read-only standby, right after a failover.
_UNREACHABLE: Final = ("08", "53", "57P", "58", "25006")
# 42P01, 3F000, 42883, 42703, 42704: a missing table, schema, function, column or role of the migrations.
_UNMIGRATED: Final = frozenset({"42P01", "3F000", "42883", "42703", "42704"})

# What a retry does not change. A failure to connect has no SQLSTATE in the driver, so the texts of libpq,
# Postgres and PgBouncer are matched; in another language, the start retries until its time is over.
_REFUSED_CONNECTIONS: Final = tuple(
    (re.compile(text), reason)
    for text, reason in (
        (r'FATAL: +(?:database ".*" does not exist|no such database)', "there is no database of that name"),
        (r"authentication failed|no such user|no password supplied", "the user or the password is wrong"),
        (r'FATAL: +role ".*" (?:does not exist|is not permitted)', "the user is unknown or may not log in"),
        (r"FATAL: +permission denied for database", "the user may not connect to the database"),
        (r"no pg_hba\.conf entry", "the server does not admit this user, database and address (pg_hba.conf)"),
        (
            r"unsupported startup parameter",
            "the pooler refuses a startup parameter of it, such as options: leave that out",
        ),
        (r"failed to resolve host .*(?:not known|No address)|could not translate host name .*not known",
         "its host name is unknown"),
        (r"server does not support SSL|SSL .*certificate verify failed|certificate .* does not match",
         "the server does not have the TLS that sslmode requires"),
    )
)  # fmt: skip

_CONSTRAINTS: Final = {
    "projects_slug_key": (Code.PROJECT_EXISTS, "the slug is taken: choose another one"),
    "sources_url_key": (Code.SOURCE_EXISTS, "the project already has a source with this URL"),
    "immutable": (Code.INTEGRITY, "the row is immutable"),
    "workflow_versions_number_key": (
        Code.INTEGRITY,
        "the version number already exists in the database: run gitstore verify",
    ),
}


def unavailable() -> GitstoreError:
    """Return an `unavailable` error: the database does not answer, and nothing was executed."""
    return UnavailableError("the database does not answer: try again in a moment", retry_after=RETRY_AFTER)


def translate(error: psycopg.Error) -> GitstoreError:
    """Return the GitstoreError for an error of the driver or of its pool."""
    state = error.sqlstate
    constraint = error.diag.constraint_name or ""
    if constraint in _CONSTRAINTS:
        code, message = _CONSTRAINTS[constraint]
        return GitstoreError(code, message)
    if state is None:
        # No SQLSTATE: the connection failed or was refused, or the driver rejected a value.
        if isinstance(error, psycopg.OperationalError):
            return _refused_connection(str(error)) or unavailable()
        if isinstance(error, psycopg.DataError):
            return _unstorable()
    elif state in ("22021", "22P05"):  # invalid text: in its bytes or in a JSON escape
        return _unstorable()
    elif state == "23503":  # foreign_key_violation
        return ConflictError(Code.INTEGRITY, "rows of other tables refer to these rows: remove them first")
    elif state in _BUSY:
        return BusyError(f"{_BUSY[state]}: try again", retry_after=1)
    elif "statement pooling mode" in (error.diag.message_primary or ""):
        return ConfigError(
            "DATABASE_URL: a pooler in statement mode refuses transactions: set it to transaction mode"
        )
    elif state.startswith(_UNREACHABLE):
        return unavailable()
    elif state == "42501":
        return ForbiddenError("the database denied permission")
    elif state in _UNMIGRATED or _lacks_role(error):
        return ConfigError("the database schema is missing or outdated: run gitstore migrate")
    return GitstoreError(Code.INTERNAL, "the database rejected a statement")


def _refused_connection(text: str) -> GitstoreError | None:
    for pattern, reason in _REFUSED_CONNECTIONS:
        if pattern.search(text):
            return ConfigError(f"DATABASE_URL: {reason}")
    return None


def _lacks_role(error: psycopg.Error) -> bool:
    """Return whether `set local role` failed, which Postgres reports as 22023, a code of many meanings."""
    return error.sqlstate == "22023" and (error.diag.message_primary or "").startswith("role ")


def _unstorable() -> GitstoreError:
    return MalformedError("text must not contain NUL or lone surrogates")


@contextmanager
def translated() -> Iterator[None]:
    """Translate every error of the driver that is raised in this block."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error) from error
    except UnicodeEncodeError as error:  # raised by the driver for a value with a lone surrogate
        raise _unstorable() from error
