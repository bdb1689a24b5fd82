"""What Postgres' errors mean to gitstore: the one border where the driver's exceptions are translated.

By SQLSTATE (Postgres' documentation, appendix A) and, for a broken rule, by the constraint's name. What
the driver said stays in `__cause__`: it may name hosts and users, so it is for the log alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import psycopg

from gitstore.errors import Code, GitstoreError

RETRY_AFTER: Final = 2  # seconds

_BUSY: Final = {
    "55P03": "another writer has been at it for too long",  # lock_not_available: lock_timeout passed
    "40P01": "two writers stood in each other's way",  # deadlock_detected
    "40001": "two writers stood in each other's way",  # serialization_failure
    "57014": "the database took too long",  # query_canceled: statement_timeout passed
}
# Classes 08 (connection), 53 (resources: full disk, too many connections), 57P (shutting down, starting
# up, crashed) and 58 (input and output); 25006: a standby, right after a failover.
_AWAY: Final = ("08", "53", "57P", "58", "25006")
# 42P01, 3F000, 42883, 42703, 42704: a table, schema, function, column or role that the migrations make.
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
    """The database does not answer; nothing was done."""
    return GitstoreError(
        Code.UNAVAILABLE, "the database does not answer: try again in a moment", retry_after=RETRY_AFTER
    )


def translate(error: psycopg.Error) -> GitstoreError:
    """The GitstoreError that an error of the driver, or of its pool, is."""
    state = error.sqlstate
    constraint = error.diag.constraint_name or ""
    if constraint in _CONSTRAINTS:
        code, message = _CONSTRAINTS[constraint]
        return GitstoreError(code, message)
    if state is None:
        # Without a SQLSTATE: the connection broke or was refused, or the driver refused a value.
        if isinstance(error, psycopg.OperationalError):
            return unavailable()
        return _unstorable() if isinstance(error, psycopg.DataError) else _internal()
    if state in ("22021", "22P05"):  # bytes, or an escape in JSON, that are no text
        return _unstorable()
    if state in _BUSY:
        return GitstoreError(Code.BUSY, f"{_BUSY[state]}: try again", retry_after=1)
    if state.startswith(_AWAY):
        return unavailable()
    if state == "42501":
        return GitstoreError(Code.FORBIDDEN, "the database does not allow that here")
    # A role that `set local role` does not find is 22023, which may mean much else.
    if state in _UNMIGRATED or (state == "22023" and (error.diag.message_primary or "").startswith("role ")):
        return GitstoreError(Code.CONFIG, "the database lacks what this gitstore needs: run gitstore migrate")
    return _internal()


def _unstorable() -> GitstoreError:
    return GitstoreError(Code.MALFORMED, "text with a NUL or half a surrogate pair in it can't be stored")


def _internal() -> GitstoreError:
    return GitstoreError(Code.INTERNAL, "the database refused what gitstore asked of it")


@contextmanager
def translated() -> Iterator[None]:
    """Let no error of the driver past this block."""
    try:
        yield
    except psycopg.Error as error:
        raise translate(error) from error
    except UnicodeEncodeError as error:  # the driver's, from a value with a lone surrogate
        raise _unstorable() from error
