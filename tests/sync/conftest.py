"""A migrated database per test, cloned from one that is migrated once a worker; and servers of its own."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID, uuid4

import pytest
from psycopg import sql
from psycopg.rows import dict_row

from gitstore.changes import Authorship, ChangeSet, write
from gitstore.drafts import Content
from gitstore.model import LedgerKind, Person, Rules
from gitstore.names import tag as version_tag
from gitstore.names import workflow_id
from gitstore.store import Actors, Store
from gitstore.unit_of_work import FileUnitOfWork
from sync import tokens
from sync.audit import Origin
from sync.catalog import create_project
from sync.db import Claims, Database, token_claims
from sync.embedded.server import EmbeddedPostgres
from sync.events import Fact
from sync.rows import VersionRow, column_names
from sync.unit_of_work import MirrorUnitOfWork
from tests.helpers import definition as definition


@pytest.fixture
def conninfo(make_database: Callable[..., str], migrated_template: str) -> str:
    """Connection string of a migrated database, as its owner, who is not a superuser."""
    return make_database(migrated_template)


@pytest.fixture
def database(conninfo: str) -> Iterator[Database]:
    database = Database(conninfo, lock_seconds=1)
    yield database
    database.close()


class ObservedUnitOfWork(MirrorUnitOfWork):
    """Collects the facts of each write in order, which no table records."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self.facts: list[Fact] = []

    def _converge(self, *given: Any) -> list[Fact]:
        facts = super()._converge(*given)
        self.facts += facts
        return facts


@dataclass
class House:
    """A project with its repository, its rows, and a store that writes both."""

    database: Database
    store: Store
    writes: ObservedUnitOfWork
    _token: UUID | None = None

    @property
    def project(self) -> UUID:
        return self.store.project

    def rows(self, table: str) -> list[dict[str, Any]]:
        """Return every row of a table, as its owner."""
        query = sql.SQL("select * from gitstore.{} order by id").format(sql.Identifier(table))
        with self.database.as_owner() as tx, tx.connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query).fetchall()

    @property
    def facts(self) -> list[Fact]:
        """Facts that this house's units of work have mirrored, in order."""
        return self.writes.facts

    def mirrored(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        return self.rows("workflows"), self.rows("workflow_versions")

    @property
    def who(self) -> Actors:
        return WHO

    @staticmethod
    def definition(url: str = "https://a.example/", **top: Any) -> dict[str, Any]:
        return definition(url, **top)

    @property
    def claims(self) -> Claims:
        """Claims of a token with the role owner, created at first use."""
        if self._token is None:
            with self.database.as_owner() as tx:
                self._token = tokens.create(tx, self.project, "owner", "owner", secrets.token_bytes(32)).id
        return token_claims(self._token)

    def workflow_id(self, slug: str) -> UUID:
        return workflow_id(self.project, slug)

    def git(self, *arguments: str, given: str = "") -> str:
        """Run git in the repository, past gitstore, and return its output."""
        command = ["git", "-C", str(self.store.path), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, input=given).stdout.strip()

    def tamper(self, statement: LiteralString, **values: object) -> int:
        """Run a statement as the database's owner, past the triggers."""
        with self.database.upkeep() as tx:
            return tx.run(statement, **values)

    def copy_version(self, slug: str, number: int, **changed: LiteralString) -> int:
        """Insert a copy of the newest row of `slug` as v<number>, past gitstore, with `changed` columns."""
        columns = {name: name for name in column_names(VersionRow)}
        columns |= {"id": "gen_random_uuid()", "version_number": str(number), **changed}
        return self.tamper(
            f"insert into gitstore.workflow_versions ({', '.join(columns)}) "  # noqa: S608 - of constants
            f"select {', '.join(columns.values())} from gitstore.workflow_versions "
            "where workflow_id = %(id)s order by version_number desc limit 1",
            id=self.workflow_id(slug),
        )

    def record(self, slug: str, number: int, target: str, *, tag: bool = True) -> datetime:
        """Publish `target` as v<number> past the rules, at the returned time; without `tag`, as if killed."""
        when = self.store.clock()
        change = ChangeSet(self.store, slug, Authorship(WHO.actor, when))
        change.append(LedgerKind.PUBLISHED, version=number, target=target, latest=number, current=number)
        if tag:
            change.move(version_tag(slug, number), None, target.encode())
        write(self.store, [change])
        return when

    def commit_as_eve(self, tree: str, parent: str, message: str) -> str:
        eve = ("-c", "user.name=Eve", "-c", "user.email=eve@example.com")
        return self.git(*eve, "commit-tree", tree, "-p", parent, "-m", message)

    def publish(self, slug: str, url: str = "https://a.example/", **options: Any) -> int:
        """Save a draft with `url` in it, creating the workflow if needed, and publish it."""
        self.save(slug, url)
        return self.store.publish(slug, WHO, **options).number

    def save(self, slug: str, url: str = "https://a.example/", **top: Any) -> str:
        content = Content(value=definition(url, **top))
        if not self.store.exists(slug):
            return self.store.create_workflow(slug, content, WHO).commit
        if not self.store.state(slug).draft_open:
            return self.store.create_draft(slug, content, WHO).commit
        return self.store.save_draft(slug, content, WHO, expected="*").commit

    def unmirrored(self) -> Store:
        """Open a store on the same repository that does not mirror, as if killed before."""
        return Store(self.store.path, self.project, FileUnitOfWork, clock=self.store.clock)


ADA = Person("Ada", "ada@example.com")
WHO = Actors(actor=ADA, author=ADA)


def ticking(start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> Callable[[], datetime]:
    seconds = count()
    return lambda: start + timedelta(seconds=next(seconds))


@pytest.fixture
def make_house(database: Database, tmp_path: Path) -> Callable[..., House]:
    def make(slug: str = "default") -> House:
        project = uuid4()
        with database.as_owner() as tx:
            create_project(tx, project, slug, slug, Rules.MESHHOOK)
        path = tmp_path / f"{project}.git"
        Store.init(path)
        origin = Origin(str(uuid4()), "ada's token", "http", "127.0.0.1", "r-1")
        store = Store(path, project, partial(ObservedUnitOfWork, database, origin=origin), clock=ticking())
        assert isinstance(store.unit_of_work, ObservedUnitOfWork)
        return House(database, store, store.unit_of_work)

    return make


@pytest.fixture
def house(make_house: Callable[..., House]) -> Iterator[House]:
    house = make_house()
    yield house
    house.store.close()


@pytest.fixture
def folder(ram_path: Path) -> Path:
    """Folder for an embedded Postgres, not created yet."""
    return ram_path / "postgres"


@pytest.fixture
def start() -> Iterator[Callable[..., EmbeddedPostgres]]:
    """Starts embedded servers that are stopped at the end."""
    with ExitStack() as servers:

        def start_one(folder: Path, settings: Mapping[str, str] | None = None) -> EmbeddedPostgres:
            server = EmbeddedPostgres(folder, settings=settings)
            servers.callback(server.stop)
            server.start()
            return server

        yield start_one
