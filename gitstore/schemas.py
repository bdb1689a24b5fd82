"""The schema of a project in Git: a chain of commits that only gitstore appends to, one for each change.

A commit has the schema as `schema.json`, byte for byte as it was sent; without that file, it removes the
schema. Its author and date are those of the change. Ledger entries of versions name the commit that judged
them, so no commit of the chain is ever dropped.
"""

from __future__ import annotations

import hashlib
import stat
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dulwich.objects import Blob, ObjectID, ShaFile, Tree

from gitstore import ledger, names
from gitstore.definition.document import parse_schema
from gitstore.definition.schema import Schema
from gitstore.errors import (
    Code,
    ConfigError,
    ConflictError,
    GitstoreError,
    IntegrityError,
    NotFoundError,
    UnavailableError,
)
from gitstore.git.commits import new_commit, person, utc
from gitstore.git.refs import RefUpdate
from gitstore.model import Person, Problems, Rules
from gitstore.repository import SCHEMA_FILE, Repository
from gitstore.store import ANY, Store

NONE: Final = ""
"""The expectation that a project has no schema."""


@dataclass(frozen=True, slots=True)
class SchemaChange:
    """A change of the schema: its commit, who made it, and when (UTC). `removed`: there was none after it."""

    commit: str
    by: Person
    at: datetime
    removed: bool


def current(repository: Repository) -> Schema:
    """Return the project's schema, under any rules. Raises `not_found`, and `integrity` if it is damaged."""
    tip = repository.refs.read(names.SCHEMA)
    schema = repository.schema_at(tip.decode()) if tip is not None else None
    if schema is None:
        raise NotFoundError(Code.NOT_FOUND, "the project has no schema")
    if schema.text is None:
        raise IntegrityError(f"the schema in {schema.commit} is missing or damaged in Git: set it again")
    return schema


def history(repository: Repository) -> Iterator[SchemaChange]:
    """Yield the changes of the schema, the newest first."""
    oid = repository.refs.read(names.SCHEMA)
    while oid is not None:
        commit = repository.objects.commit(oid)
        removed = SCHEMA_FILE not in repository.objects.tree(commit.tree)
        yield SchemaChange(oid.decode(), person(commit.author), utc(commit.commit_time), removed)
        oid = next(iter(commit.parents), None)


@dataclass(frozen=True, slots=True)
class Trial:
    """The open drafts under a schema: `failing` have errors; for `untried` of them, time did not suffice."""

    failing: dict[str, Problems]
    tried: int
    untried: int


def attempt(repository: Repository, text: bytes, seconds: float) -> Trial:
    """Judge each open draft by the schema `text`, under any rules of the project, for at most `seconds`.

    Nothing is stored. Raises `schema_invalid`.
    """
    parse_schema(text)
    judge = Schema(f"sha256-bytes:{hashlib.sha256(text).hexdigest()}", text)  # no commit has it yet
    open_drafts = [(slug, draft) for slug, (draft, _) in repository.tips().items() if draft is not None]
    deadline = time.monotonic() + seconds
    failing: dict[str, Problems] = {}
    for tried, (slug, draft) in enumerate(open_drafts):
        if time.monotonic() > deadline:
            return Trial(failing, tried, len(open_drafts) - tried)
        try:
            problems = repository.snapshot(slug, draft, Rules.SCHEMA, judge).problems
        except (UnavailableError, ConfigError):
            raise
        except GitstoreError:
            continue  # a draft that is damaged in Git fails under every schema
        if problems.errors:
            failing[slug] = problems
    return Trial(failing, len(open_drafts), 0)


def change(store: Store, text: bytes | None, actor: Person, expected: Collection[str] | None) -> str:
    """Set the schema to `text`, or remove it; return its commit.

    `expected` are the commits that the schema may be at, ANY for every one, NONE for no schema. It is
    required if there is a schema, and ignored for one that cannot be read. Raises `schema_invalid`,
    `not_found`, `precondition_required` and `stale_schema`.
    """
    if text is not None:
        parse_schema(text)
    with store.unit_of_work.begin([]):
        tip, known, damaged = _state(store)
        if text is None and known is None:
            raise NotFoundError(Code.NOT_FOUND, "the project has no schema")
        if known is None or known.text is not None:
            _check(known, expected)
        if known is not None and known.text is not None and known.text == text:
            return known.commit
        new = _objects(text)
        commit = new_commit(
            tree=new[-1].id,
            parents=[tip] if tip is not None else [],
            author=actor,
            committer=ledger.COMMITTER,
            when=store.clock(),
            message="Remove the schema" if text is None else "Set the schema",
        )
        store.objects.write_together([*new, commit])
        if damaged:
            store.refs.restore(names.SCHEMA, commit.id)
        elif store.refs.update([RefUpdate(names.SCHEMA, tip, commit.id)]):
            raise _stale("someone else has just changed the schema")
        return commit.id.decode()


def _state(store: Store) -> tuple[bytes | None, Schema | None, bool]:
    """Return the commit to build on, the schema in it, and whether the ref or the commit is damaged."""
    try:
        tip = store.refs.read(names.SCHEMA)
        if tip is None:
            return None, None, False
        store.objects.commit(tip)
    except GitstoreError:
        return None, Schema("", None), True
    return tip, store.schema_at(tip.decode()), False


def _check(known: Schema | None, expected: Collection[str] | None) -> None:
    if expected is None:
        if known is not None:
            message = "the project has a schema: give the one that you have seen (If-Match)"
            raise ConflictError(Code.EXPECTED_REQUIRED, message)
    elif known is None:
        if NONE not in expected:
            raise _stale("the project has no schema any more")
    elif ANY not in expected and known.commit not in expected:
        raise _stale("the project has a schema, another one than you expect")


def _stale(reason: str) -> ConflictError:
    return ConflictError(Code.STALE_SCHEMA, f"{reason}: read it again, then change it")


def _objects(text: bytes | None) -> list[ShaFile]:
    """Return new objects with the schema, if any; the last one is the tree."""
    tree = Tree()
    if text is None:
        return [tree]
    blob = Blob.from_string(text)
    tree[SCHEMA_FILE] = (stat.S_IFREG | 0o644, ObjectID(blob.id))
    return [blob, tree]
