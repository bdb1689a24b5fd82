"""Translation of the driver's exceptions into GitstoreError, in this one module.

Errors are mapped by SQLSTATE (Postgres' documentation, appendix A) and, for a violated constraint, by its
name. The driver's message stays in `__cause__`: it may name hosts and users, so it is for the log alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg

from gitstore.errors import (
    BusyError,
    Code,
    ConfigError,
    ForbiddenError,
    GitstoreError,
    MalformedError,
    UnavailableError,
)

RETRY_AFTER: Final = 2  # seconds

_BUSY: Final = {
    "55P03": "another writer has been at it for too long",  # lock_not_available: lock_timeout passed
    "40P01": "two writers stood in each other's way",  # deadlock_detected
    "40001": "two writers stood in each other's way",  # serialization_failure
    "57014": "the database took too long",  # query_canceled: statement_timeout passed
}
# Classes 08 (connection), 53 (resources: disk full, too many connections), 57P (shutdown, startup, crash)
# and 58 (I/O errors); 25006: a read-only standby, right after a failover.
_AWAY: Final = ("08", "53", "57P", "58", "25006")
# 42P01, 3F000, 42883, 42703, 42704: a missing table, schema, function, column or role of the migrations.
_UNMIGRATED: Final = frozenset({"42P01", "3F000", "42883", "42703", "42704"})

_CONSTRAINTS: Final = {
    "projects_slug_key": (Code.PROJECT_EXISTS, "there is a project of that name already"),
    "sources_url_key": (Code.SOURCE_EXISTS, "the project has a source with this URL already"),
    "immutable": (Code.INTEGRITY, "what is recorded there can't be changed"),
    "workflow_versions_number_key": (
        Code.INTEGRITY,
        "that version number stands in the database already: run gitstore verify",
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
            return unavailable()
        return _unstorable() if isinstance(error, psycopg.DataError) else _internal()
    if state in ("22021", "22P05"):  # invalid text: in its bytes or in a JSON escape
        return _unstorable()
    if state in _BUSY:
        return BusyError(f"{_BUSY[state]}: try again", retry_after=1)
    if state.startswith(_AWAY):
        return unavailable()
    if state == "42501":
        return ForbiddenError("the database does not allow that here")
    # `set local role` reports a missing role as 22023, a code with many other meanings.
    if state in _UNMIGRATED or (state == "22023" and (error.diag.message_primary or "").startswith("role ")):
        return ConfigError("the database lacks what this gitstore needs: run gitstore migrate")
    return _internal()


def _unstorable() -> GitstoreError:
    return MalformedError("text with a NUL or half a surrogate pair in it can't be stored")


def _internal() -> GitstoreError:
    return GitstoreError(Code.INTERNAL, "the database refused what gitstore asked of it")


@contextmanager
def translated() -> Iterator[None]:
    """Translate every error of the driver that is raised in this block."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error) from error
    except UnicodeEncodeError as error:  # raised by the driver for a value with a lone surrogate
        raise _unstorable() from error
