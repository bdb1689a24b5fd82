"""Location of each project's repository, and opening of its Store."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar
from uuid import UUID

from gitstore.errors import Code, ConfigError, ConflictError, IntegrityError
from gitstore.git.files import fsync_folder, make_folder
from gitstore.model import FileNames, Rules
from gitstore.repository import Caches, Repository
from gitstore.store import Store
from gitstore.system import now
from gitstore.unit_of_work import WRITERS, exclusive_lock
from service.config import Config
from sync.audit import WORKER, Origin
from sync.catalog import Project
from sync.db import Database
from sync.markers import Markers
from sync.unit_of_work import MirrorUnitOfWork

R = TypeVar("R", bound=Repository)

DEFAULT: Final = "default"
"""Slug of the project that a new gitstore has."""


class Projects:
    """Repositories of a data folder, `<data>/repos/<project id>.git`."""

    def __init__(self, config: Config) -> None:
        self._folder = config.repositories
        self._is_absent = config.read_only
        self._limits = config.limits
        self._caches = Caches()

    def path(self, project: UUID) -> Path:
        return self._folder / f"{project}.git"

    def reader(self, project: Project) -> Repository:
        """Return the project's repository for reading; the caller closes it.

        A read node has none: all objects of its reader are read from Postgres.

        Raises `integrity` if the project has no repository: an empty one in its place would look as if
        nothing had ever been published.
        """
        return self._open(project, Repository)

    def writer(
        self, project: Project, database: Database, origin: Origin = WORKER, *, patience: float = 0.0
    ) -> Store:
        """Return the project's Store, whose writes are mirrored to `database`; the caller closes it.

        `patience`: the seconds for which a write that is in Git retries to be mirrored. Raises `integrity`
        as `reader` does, and `project_archived`.
        """
        check_writable(project)
        unit_of_work = partial(MirrorUnitOfWork, database, origin=origin, patience=patience)
        return self._open(project, partial(Store, unit_of_work=unit_of_work))

    def _open(self, project: Project, kind: Callable[..., R]) -> R:
        if not self._is_absent and (missing := self.missing(project)):
            raise IntegrityError(missing, project=project.slug)
        return kind(
            self.path(project.id),
            project.id,
            rules=Rules(project.rules),
            first_rules=Rules(project.first_rules),
            file_names=FileNames(tuple(project.file_names), project.file_name or FileNames().preferred),
            limits=self._limits,
            caches=self._caches,
        )

    def unclaimed(self, known: Collection[Project]) -> list[UUID]:
        """Return the ids of repositories that belong to none of the `known` projects."""
        identities = []
        for path in sorted(self._folder.glob("*.git")):
            with suppress(ValueError):
                identities.append(UUID(path.stem))
        return [identity for identity in identities if identity not in {project.id for project in known}]

    def missing(self, project: Project) -> str | None:
        """Return the message about a project whose repository is missing, else None."""
        if self.exists(project.id):
            return None
        path = self.path(project.id)
        return (
            f"the repository of the project {project.slug} is not at {path}: is GITSTORE_DATA the folder "
            "that this database belongs to? If it is, and the repository is lost, the database has what was "
            f"published: gitstore repair {project.slug} --new-repository"
        )

    def exists(self, project: UUID) -> bool:
        return (self.path(project) / "HEAD").is_file()

    def init(self, project: UUID) -> None:
        """Create the empty repository of a project. Call it before inserting the row."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        fsync_folder(self._folder.parent)
        Store.init(self.path(project))

    def discard(self, project: UUID) -> Path | None:
        """Move the repository of a deleted project to the trash; return its new path, or None without one.

        gitstore never removes a repository: an operator removes it, or moves it back for a new project.
        """
        path, trash = self.path(project), self._folder.parent / "trash"
        if not path.is_dir():
            return None
        trash.mkdir(mode=0o700, exist_ok=True)
        fsync_folder(trash.parent)
        with exclusive_lock(path / WRITERS):  # of a writer that lost its connection, too
            kept = path.rename(trash / f"{now():%Y%m%dT%H%M%SZ}-{path.name}")
        fsync_folder(trash)
        return kept

    def put_back(self, project: UUID, kept: Path) -> None:
        """Move a repository out of the trash again."""
        kept.rename(self.path(project))
        fsync_folder(self._folder)

    def mirror_lag(self, now: float) -> float:
        """Return the seconds since the oldest write that Postgres may not have mirrored (0: none pending).

        `now` is in seconds as of time.time(). Writes in progress count, too: they last milliseconds.
        """
        times = (Markers(repository).oldest() for repository in self._folder.glob("*.git"))
        return max(now - min((at for at in times if at is not None), default=now), 0.0)


def check_writable(project: Project) -> None:
    """Raise `project_archived` if the project is archived, and therefore read-only."""
    if project.archived_at is not None:
        message = f"the project {project.slug} is archived: it is read-only until an owner unarchives it"
        raise ConflictError(Code.PROJECT_ARCHIVED, message, project=project.slug)


def make_data_folder(config: Config) -> None:
    """Create the data folder, readable by this user only. Raises `config` if that fails.

    Root's data folder can be traversed by others (but not listed), as its embedded Postgres may have to run
    as another user; each entry in it is closed to them.
    """
    try:
        if not config.data.is_dir():
            make_folder(config.data.parent)
            config.data.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, exist_ok=True)
        config.repositories.mkdir(mode=0o700, exist_ok=True)
        if not os.access(config.data, os.W_OK | os.X_OK):
            raise PermissionError("it can't be written to")
    except OSError as error:
        raise ConfigError(
            f"the data folder {config.data} can't be used ({error.strerror or error}): set GITSTORE_DATA to "
            "a folder that this user may write to",
        ) from error
