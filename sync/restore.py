"""Restore a backup into an empty database and new repositories.

A restore is one transaction: rows are loaded under the schema of the backup, which is then migrated; rows
that Git determines are derived from the restored repositories, as by a rebuild. The caller puts the
repositories into their places just before it commits.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, LiteralString
from uuid import UUID

from gitstore.errors import ConfigError, IntegrityError
from gitstore.git.files import write_atomically
from gitstore.git.process import FRUGAL, command, environment, limit_memory
from sync import audit, backup_tables, catalog, levels, migrate
from sync.audit import Origin
from sync.backup import SECRETS, Places, objects_below, read_refs
from sync.backup_archive import Archive, BackedUp
from sync.catalog import Project
from sync.db import Database, Transaction
from sync.integrity import rebuild
from sync.reconcile import Progress

_MEMORY: Final = 4 * 2**30  # address space of the child that indexes a pack
_DURABLE: Final = {**FRUGAL, "core.fsync": "all", "core.fsyncMethod": "fsync"}

_PATIENT: Final[LiteralString] = "set local idle_in_transaction_session_timeout = 0"  # while git works
_HAS_SCHEMA: Final[LiteralString] = "select to_regclass('gitstore.migrations') is not null"
_MIGRATION: Final[LiteralString] = "select max(number) from gitstore.migrations"
_HAS_PROJECTS: Final[LiteralString] = "select exists (select from gitstore.projects)"
_HOLD: Final[tuple[LiteralString, ...]] = (
    "update gitstore.subscriptions set state = 'paused', reason = %(why)s where state = 'active'",
    "update gitstore.sources set paused = true",
)


def check_compatible(archives: Sequence[Archive]) -> None:
    """Raise `config` if this version of gitstore is too old for a backup."""
    manifest = archives[-1].manifest
    newest = migrate.shipped()[-1].number
    if manifest.migration > newest:
        raise ConfigError(
            f"{archives[-1].path} was made by gitstore {manifest.gitstore} with a newer schema (migration "
            f"{manifest.migration}; this version knows {newest}): restore it with that version"
        )


@dataclass(frozen=True, slots=True)
class Restored:
    """The result: the projects, and the secret key of the backup, if it has one."""

    projects: list[Project]
    key: str | None


@contextmanager
def restoring(
    database: Database,
    places: Places,
    archives: Sequence[Archive],
    origin: Origin,
    *,
    passphrase: str | None,
    hold: bool,
    progress: Callable[[str], Progress],
) -> Iterator[tuple[Transaction, Restored]]:
    """Restore a chain of backups into an empty database, and new repositories into `places`.

    Commits at the end of the block, in which the caller puts the repositories where they belong. `hold`
    pauses subscriptions and sources. Raises `config` where the database is not empty.
    """
    newest = archives[-1]
    with database.upkeep() as tx:
        tx.run(_PATIENT)
        _prepare(tx, newest.manifest.migration)
        backup_tables.switch_triggers(tx, on=False)
        for backed_up in newest.manifest.projects:
            _load_rows(tx, archives, backed_up)
        key = _load_secrets(tx, newest, passphrase)
        tx.run("set constraints all immediate")
        tx.run("set constraints all deferred")
        backup_tables.switch_triggers(tx, on=True)
        migrate.within(tx.connection)
        levels.raise_level(tx)
        if hold:
            for statement in _HOLD:
                tx.run(statement, why="it was restored from a backup: activate it")
        wanted = {backed_up.id for backed_up in newest.manifest.projects}
        projects = catalog.projects(tx)
        if {project.id for project in projects} != wanted:
            raise IntegrityError(f"{newest.path} is damaged: it lacks rows of its projects")
        for project in projects:
            places.init(project.id)
            _fill(places.path(project.id), project.id, archives, progress(f"restoring {project.slug}"))
            with closing(places.reader(project)) as repository:
                rebuild.correct_all(tx, repository, progress(f"deriving {project.slug}"))
            details = {"backup": str(newest.manifest.id), "made_at": newest.manifest.created_at.isoformat()}
            audit.note(tx, project.id, origin, "project.restored", project.slug, details)
        yield tx, Restored(projects, key)


def _prepare(tx: Transaction, migration: int) -> None:
    """Create the schema that the backup had. Raises `config` unless the database is empty."""
    if tx.value(_HAS_SCHEMA):
        if tx.value(_HAS_PROJECTS):
            raise ConfigError("the database has projects already: restore into an empty one")
        if int(tx.value(_MIGRATION) or 0) > migration:
            raise ConfigError(
                "the database has a newer schema than the backup: restore into one without the schema "
                "gitstore (drop schema gitstore cascade); the restored one is migrated"
            )
    migrate.within(tx.connection, migration)


def _load_rows(tx: Transaction, archives: Sequence[Archive], project: BackedUp) -> None:
    for table in backup_tables.tables(tx):
        sources = [archives[-1]] if table.grows_by is None else archives
        for archive in sources:
            if (there := archive.project(project.id)) and there.created_at == project.created_at:
                lines = archive.lines(backup_tables.stream(project.id, table))
                backup_tables.load(tx, table, project.id, lines)


def _load_secrets(tx: Transaction, archive: Archive, passphrase: str | None) -> str | None:
    """Load the secrets, and return the key that encrypts them in the database."""
    if passphrase is None or not archive.has(SECRETS):
        return None
    key: str | None = None
    for line in archive.lines(SECRETS, passphrase):
        if key is None:
            key = line
        else:
            backup_tables.load_secret(tx, line)
    return key


def _fill(path: Path, project: UUID, archives: Sequence[Archive], progress: Progress) -> None:
    """Put the objects of a chain, and the refs of its newest backup, into a new repository."""
    for done, archive in enumerate(archives):
        progress(done, len(archives))
        if archive.has(f"projects/{project}/pack"):
            _index(path, archive, archive.read(f"projects/{project}/pack"))
    progress(1, 1)
    head, refs = read_refs(archives[-1], project)
    lines = b"".join(b"%s %s\n" % (oid, name) for name, oid in sorted(refs.items()))
    write_atomically(path / "packed-refs", "# pack-refs with: sorted \n" + lines.decode())
    if head:
        write_atomically(path / "HEAD", f"ref: {head.decode()}\n")
    for _ in objects_below(path, set(refs.values())):
        pass  # every object is there


def _index(path: Path, archive: Archive, chunks: Iterable[bytes]) -> None:
    with tempfile.TemporaryFile() as complaints:
        with subprocess.Popen(
            command(path, "index-pack", "--strict", "--stdin", config=_DURABLE),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=complaints,
            env=environment(),
        ) as child:
            assert child.stdin is not None  # noqa: S101 - it is a pipe
            limit_memory(child.pid, _MEMORY)
            try:
                for chunk in chunks:
                    child.stdin.write(chunk)
                child.stdin.close()
            except BrokenPipeError:
                pass  # it has reported why
        if child.returncode:
            complaints.seek(0)
            reason = complaints.read(500).decode("utf-8", "replace").strip()
            raise IntegrityError(f"{archive.path} is damaged: git index-pack: {reason}")
