"""Where each project's repository is, and how its Store is opened."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Final
from uuid import UUID

from gitstore.definition.cache import DefinitionCache
from gitstore.errors import Code, GitstoreError
from gitstore.git.files import make_folder
from gitstore.model import Rules
from gitstore.store import Store
from service.config import Config
from sync.audit import WORKER, Origin
from sync.catalog import Project
from sync.db import Database
from sync.markers import Markers
from sync.unit_of_work import MirrorUnitOfWork

DEFAULT: Final = "default"
"""The project that a new gitstore has."""


class Projects:
    """The repositories of a data folder, `<data>/repos/<project id>.git`."""

    def __init__(self, config: Config) -> None:
        self._folder = config.repositories
        self._limits = config.limits
        self._parsed = DefinitionCache()

    def path(self, project: UUID) -> Path:
        return self._folder / f"{project}.git"

    def open(self, project: Project) -> Store:
        """The project's Store, for the caller to close, and to give the locks of its database.

        Raises `integrity` where the project has no repository: an empty one in its place would look as if
        nothing had ever been published.
        """
        if missing := self.missing(project):
            raise GitstoreError(Code.INTEGRITY, missing, project=project.slug)
        return Store(
            self.path(project.id),
            project.id,
            rules=Rules(project.rules),
            limits=self._limits,
            parsed=self._parsed,
        )

    def unclaimed(self, known: Collection[Project]) -> list[UUID]:
        """The ids of repositories that belong to none of the `known` projects."""
        found = []
        for path in sorted(self._folder.glob("*.git")):
            with suppress(ValueError):
                found.append(UUID(path.stem))
        return [identity for identity in found if identity not in {project.id for project in known}]

    def missing(self, project: Project) -> str | None:
        """What to say of a project whose repository is not there."""
        path = self.path(project.id)
        if (path / "HEAD").is_file():
            return None
        return (
            f"the repository of the project {project.slug} is not at {path}: is GITSTORE_DATA the folder "
            "that this database belongs to? If it is, and the repository is lost, the database has what was "
            f"published: gitstore repair {project.slug} --new-repository"
        )

    @contextmanager
    def mirrored(
        self, project: Project, database: Database, origin: Origin = WORKER, *, patience: float = 0.0
    ) -> Iterator[tuple[Store, MirrorUnitOfWork]]:
        """The project's Store, whose writes the database follows, and the means by which it does.

        `patience`: the seconds for which a write tries to be mirrored, once it is in Git.
        """
        with closing(self.open(project)) as store:
            store.locks = writes = MirrorUnitOfWork(database, store, origin, patience=patience)
            yield store, writes

    def init(self, project: UUID) -> None:
        """Make the empty repository of a project. Before its row, so that no project is without one."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        Store.init(self.path(project))

    def mirror_lag(self, now: float) -> float:
        """Seconds since the oldest write that Postgres may not have followed (0: there is none).

        `now` is as time.time() tells. Writers at work count, too: they are a matter of milliseconds.
        """
        oldest = now
        for repository in self._folder.glob("*.git"):
            for marker in chain.from_iterable(Markers(repository).pending().values()):
                with suppress(FileNotFoundError):  # its writer is done
                    oldest = min(oldest, marker.stat().st_mtime)
        return max(now - oldest, 0.0)


def make_data_folder(config: Config) -> None:
    """Make the data folder, for nobody else to read. Raises `config` where that can't be.

    Root's lets others through (and no more), for its embedded Postgres may have to run as somebody else;
    each thing in it is closed to them.
    """
    try:
        if not config.data.is_dir():
            make_folder(config.data.parent)
            config.data.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, exist_ok=True)
        config.repositories.mkdir(mode=0o700, exist_ok=True)
        if not os.access(config.data, os.W_OK | os.X_OK):
            raise PermissionError("it can't be written to")
    except OSError as error:
        raise GitstoreError(
            Code.CONFIG,
            f"the data folder {config.data} can't be used ({error.strerror or error}): set GITSTORE_DATA to "
            "a folder that this user may write to",
        ) from error
