"""Back up the objects and refs of each repository, and the rows that Git does not hold.

A project is backed up as it was at one moment: while its repository is locked, for milliseconds, its refs are
read and a snapshot of the database is taken. Rows and objects are then read while writers go on. A backup
after another one has only the objects that the refs of that one do not reach, and new rows of tables that
grow.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Final, LiteralString, Protocol
from uuid import UUID

from dulwich.refs import Ref, check_ref_format

from gitstore import names
from gitstore.errors import BusyError, IntegrityError
from gitstore.git.process import FRUGAL, command, environment
from gitstore.repository import Repository
from sync import backup_tables, catalog
from sync.backup_archive import Archive, BackedUp, Manifest, Writer
from sync.catalog import Project
from sync.db import Database, Transaction
from sync.reconcile import Progress, reconcile
from sync.unit_of_work import MirrorUnitOfWork

SECRETS: Final = "secrets"

_EMPTY_PACK: Final = 32  # bytes
_TRIES: Final = 5
_STEP: Final = 2**20
_HEAD: Final = b"HEAD"
_REF: Final = re.compile(rb"([0-9a-f]{40}) (" + names.PREFIX + rb"[^\0\n ]+)")

_PROJECT_THERE: Final[LiteralString] = "select true from gitstore.projects where id = %(project)s"
_MIGRATION: Final[LiteralString] = "select max(number) from gitstore.migrations"


class Places(Protocol):
    """The repositories of an installation (`service.projects.Projects`)."""

    def path(self, project: UUID) -> Path: ...

    def reader(self, project: Project) -> Repository: ...

    def init(self, project: UUID) -> None: ...


@dataclass(frozen=True, slots=True)
class BackUp:
    """The result: the manifest, and lines about what is not as it should be."""

    manifest: Manifest
    notes: list[str] = field(default_factory=list)
    secrets: int = 0
    """The number of secrets that were left out, for want of a passphrase."""


def back_up(
    database: Database,
    places: Places,
    writer: Writer,
    previous: Archive | None,
    *,
    key: str | None,
    without: Collection[str],
    progress: Callable[[str], Progress],
) -> BackUp:
    """Write a backup of all projects to `writer`, which adds to `previous` if there is one.

    `without`: the slugs of projects that are left out, as one is whose repository is damaged. `key` is the
    secret key of the installation, which is kept with the secrets; None leaves out both. Raises `integrity`
    where a repository is missing or damaged.
    """
    with database.as_owner() as tx:
        migration = int(tx.value(_MIGRATION))
        projects = [project for project in catalog.projects(tx) if project.slug not in without]
    done: list[BackedUp] = []
    notes: list[str] = []
    hidden: list[str] = [] if key is None else [key]
    for project in projects:
        before = previous.project(project.id) if previous is not None else None
        is_same = before is not None and before.created_at == project.created_at
        try:
            with closing(places.reader(project)) as repository:
                added = _Addition(writer, repository, previous if is_same else None)
                if added.back_up(database, hidden, progress(f"backing up {project.slug}")):
                    done.append(BackedUp(id=project.id, slug=project.slug, created_at=project.created_at))
                    notes += (f"{project.slug}: {note}" for note in added.notes)
        except IntegrityError as error:
            leave = f"To back up the others until then: --without {project.slug}"
            raise error.reworded(f"{project.slug}: {error.message}. {leave}") from error
    if key is not None:
        with writer.lines(SECRETS, secret=True) as put:
            for line in hidden:
                put(line)
    manifest = writer.finish(done, migration, previous.manifest.id if previous is not None else None)
    return BackUp(manifest, notes, 0 if key is not None else len(hidden))


class _Addition:
    """The part of a backup about one project."""

    def __init__(self, writer: Writer, repository: Repository, previous: Archive | None) -> None:
        self._writer = writer
        self._repository = repository
        self._previous = previous
        self._folder = f"projects/{repository.project}"
        self.notes: list[str] = []

    def back_up(self, database: Database, hidden: list[str], progress: Progress) -> bool:
        """Write the project, and append its secrets to `hidden`; False if it has been deleted since."""
        with self._frozen(database) as (tx, refs):
            if not tx.value(_PROJECT_THERE, project=self._repository.project):
                return False
            hidden += backup_tables.secrets_of(tx, self._repository.project)
            self._write_rows(tx, refs, progress)
        known: Collection[bytes] = ()
        if self._previous is not None:
            known = read_refs(self._previous, self._repository.project)[1].values()
        with self._writer.stream(f"{self._folder}/refs") as put:
            put(b"".join(b"%s %s\n" % (oid, name) for name, oid in refs.items()))
            put(_HEAD + b" " + (self._repository.refs.head() or b"") + b"\n")
        tips = set(refs.values())
        with self._writer.stream(f"{self._folder}/pack") as put:
            for chunk in _packed(self._repository.path, tips, self._held(set(known))):
                put(chunk)
        return True

    @contextmanager
    def _frozen(self, database: Database) -> Iterator[tuple[Transaction, Mapping[bytes, bytes]]]:
        """Yield a transaction with a snapshot of the database, and the refs of the same moment."""
        writes = MirrorUnitOfWork(database, self._repository)
        for _ in range(_TRIES):
            failures = reconcile(writes).failures
            with ExitStack() as snapshot:
                with writes.maintenance():
                    if writes.markers.pending().keys() - failures.keys():
                        continue  # a writer was killed just now
                    tx = snapshot.enter_context(database.snapshot())
                    refs, damaged = self._repository.refs.survey(names.PREFIX)
                self.notes += (f"{slug}: {error.message}" for slug, error in failures.items())
                self.notes += (
                    f"{names.show(name)} is damaged and not in the backup: run gitstore repair"
                    for name in damaged
                )
                yield tx, refs
                return
        raise BusyError("writers are killed again and again: read the log of the service")

    def _write_rows(self, tx: Transaction, refs: Mapping[bytes, bytes], progress: Progress) -> None:
        project = self._repository.project
        since: datetime | None = self._previous.manifest.created_at if self._previous is not None else None
        stored = set(backup_tables.stored_objects(tx, project))
        for oid in objects_below(self._repository.path, set(refs.values())):
            stored.discard(oid)
        tables = backup_tables.tables(tx)
        for done, table in enumerate(tables):
            progress(done, len(tables))
            with self._writer.lines(backup_tables.stream(project, table)) as put:
                for row in backup_tables.rows_of(tx, table, project, stored, since):
                    put(row)
        progress(1, 1)

    def _held(self, oids: set[bytes]) -> set[bytes]:
        """Return those of the objects that the repository has: `gc` prunes what is not reachable."""
        return {oid for oid in oids if oid in self._repository.objects}


def read_refs(archive: Archive, project: UUID) -> tuple[bytes, dict[bytes, bytes]]:
    """Return the ref that HEAD points to, and ref -> object id, of a project in a backup."""
    head, refs = b"", {}
    for line in b"".join(archive.read(f"projects/{project}/refs")).splitlines():
        if (match := _REF.fullmatch(line)) is not None:
            if not check_ref_format(Ref(match[2])):
                raise IntegrityError(f"{archive.path} is damaged: {names.show(match[2])} is not a ref")
            refs[match[2]] = match[1]
        elif line.startswith(_HEAD + b" " + names.PREFIX) and check_ref_format(Ref(line[5:])):
            head = line[5:]
        elif line != _HEAD + b" ":
            raise IntegrityError(f"{archive.path} is damaged: a line of its refs can't be read")
    return head, refs


def _packed(repository: Path, tips: Collection[bytes], known: Collection[bytes]) -> Iterator[bytes]:
    """Yield a pack of the objects that `tips` reach and `known` do not; nothing if there are none."""
    revisions = b"".join([*(b"%s\n" % oid for oid in tips), *(b"^%s\n" % oid for oid in known)])
    with _started(
        repository, revisions, "pack-objects", "-q", "--revs", "--stdout", "--delta-base-offset"
    ) as out:
        beginning = out.read(_STEP)
        if len(beginning) > _EMPTY_PACK:
            yield beginning
            while chunk := out.read(_STEP):
                yield chunk


def objects_below(repository: Path, tips: Collection[bytes]) -> Iterator[str]:
    """Yield the ids of all objects that `tips` reach."""
    listing = ("rev-list", "--objects", "--no-object-names", "--stdin")
    with _started(repository, b"".join(b"%s\n" % oid for oid in tips), *listing) as out:
        for line in out:
            yield line.rstrip().decode()


@contextmanager
def _started(repository: Path, stdin: bytes, *arguments: str) -> Iterator[IO[bytes]]:
    """Run git on `stdin`, which it reads before it writes anything; yield its output.

    Raises `integrity` if it fails.
    """
    with tempfile.TemporaryFile() as complaints, tempfile.TemporaryFile() as given:
        given.write(stdin)
        given.seek(0)
        with subprocess.Popen(
            command(repository, *arguments, config=FRUGAL),
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=complaints,
            env=environment(),
        ) as child:
            assert child.stdout is not None  # noqa: S101 - it is a pipe
            try:
                yield child.stdout
            except BaseException:
                child.kill()
                raise
        if child.returncode:
            complaints.seek(0)
            reason = complaints.read(500).decode("utf-8", "replace").strip()
            raise IntegrityError(
                f"git {arguments[0]} failed in {repository}: {reason}. Run gitstore verify, which names what "
                "is damaged and what to do"
            )
