"""Definitions in a folder or in another Git repository, one file per workflow, for an import.

A folder gives one version of each file: its present content. A Git repository gives the files of HEAD or,
with their history, a version of a file for each commit that changed it, also under its former names. Links
are left out, because they may lead anywhere.
"""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from dulwich.objects import Blob, Commit, ObjectID, Tree
from dulwich.repo import Repo

from gitstore.definition.document import FILE_NAMES
from gitstore.definition.quoting import quote
from gitstore.errors import ConfigError
from gitstore.git.commits import person, text, utc
from gitstore.git.process import command, environment
from gitstore.model import Person
from gitstore.names import slug_from
from gitstore.repository import FOLDER, Repository
from gitstore.upstream.recorded import RecordedVersion, RecordedWorkflow, Result

_WORKFLOWS: Final = FOLDER.decode()
_NAMES: Final = {name.removeprefix("workflow"): name for name in FILE_NAMES}
"""The name of a definition here, by the suffix of a file."""
_AUTHOR: Final = Person("operator", "operator@localhost")
# The repository's own configuration must not start programs.
_LOG: Final = (
    "--follow", "--raw", "--no-abbrev", "-z", "--format=%H",
    "--no-show-signature", "--no-ext-diff", "--no-textconv",
)  # fmt: skip


class _Change(NamedTuple):
    """A commit that changed a file, and the file's content and path after it."""

    commit: bytes
    blob: bytes
    path: bytes


@dataclass(slots=True)
class DefinitionFiles:
    """The definitions in `folder`. With `history`, which requires a Git repository, all versions of each."""

    folder: Path
    history: bool = False
    _git: Path | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        for path in (self.folder / ".git", self.folder):
            if (path / "HEAD").is_file() and (path / "objects").is_dir():
                self._git = path
                break
        if not self.folder.is_dir():
            raise ConfigError(f"there is no folder {self.folder}")
        if self.history and self._git is None:
            raise ConfigError(f"{self.folder} is not a Git repository: leave out --history")

    def workflows(self, repository: Repository | None, notes: Result) -> Iterator[RecordedWorkflow]:
        """Yield the workflows; `repository` is the one that imports them, if it exists.

        Without history, the version of a file has the number of the latest version here if their contents are
        equal, and otherwise the next number. Adds lines to `notes` about files that are renamed or left out.
        """
        taken: dict[str, PurePosixPath] = {}
        for path in self._paths(notes):
            name = path.relative_to(_WORKFLOWS) if path.parts[0] == _WORKFLOWS else path
            slug = slug_from(str(name.with_suffix("")))
            if repository is not None:
                slug = repository.renamed_to(slug) or slug
            if slug in taken:
                notes.refused.append(f"{_shown(path)}: {_shown(taken[slug])} is the workflow {slug}")
                continue
            taken[slug] = path
            if slug != str(name.with_suffix("")):
                notes.kept.append(f"{_shown(path)} becomes {slug}")
            versions = list(self._versions(path, slug, repository))
            if not versions:
                notes.refused.append(f"{_shown(path)}: git log finds no commit of it")
                continue
            yield RecordedWorkflow(slug, versions)

    def load(self, versions: Sequence[RecordedVersion]) -> list[bytes]:
        """Return the contents of versions."""
        if self._git is None:
            return [(self.folder / str(version.key)).read_bytes() for version in versions]
        with closing(Repo(str(self._git))) as repo:
            return [_blob(repo, str(version.key).encode()).data for version in versions]

    def _paths(self, notes: Result) -> list[PurePosixPath]:
        """Return the definitions in order: those in workflows/ if that folder exists, otherwise all."""
        found = list(self._in_git(notes) if self._git is not None else self._in_folder(notes))
        inside = [path for path in found if path.parts[0] == _WORKFLOWS and len(path.parts) > 1]
        return sorted(inside or found)

    def _in_folder(self, notes: Result) -> Iterator[PurePosixPath]:
        for folder, folders, files in os.walk(self.folder):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in files:
                path = PurePosixPath(Path(folder, name).relative_to(self.folder).as_posix())
                if _is_definition(path):
                    if stat.S_ISREG(Path(folder, name).lstat().st_mode):
                        yield path
                    else:
                        notes.refused.append(f"{_shown(path)}: not a regular file")

    def _in_git(self, notes: Result) -> Iterator[PurePosixPath]:
        with closing(Repo(str(self._git))) as repo:
            try:
                head = repo[repo.head()]
            except KeyError:  # nothing was committed
                return
            if not isinstance(head, Commit):
                return
            waiting = [(PurePosixPath(), head.tree)]
            while waiting:
                folder, oid = waiting.pop()
                tree = repo[oid]
                for name, mode, inner in tree.items() if isinstance(tree, Tree) else ():
                    path = folder / text(name)
                    if stat.S_ISDIR(mode) and not name.startswith(b"."):
                        waiting.append((path, inner))
                    elif _is_definition(path):
                        if stat.S_ISREG(mode):
                            yield path
                        else:
                            notes.refused.append(f"{_shown(path)}: not a regular file")

    def _versions(
        self, path: PurePosixPath, slug: str, repository: Repository | None
    ) -> Iterator[RecordedVersion]:
        if self._git is None:
            about = (self.folder / path).stat()
            when = datetime.fromtimestamp(max(int(about.st_mtime), 0), UTC)
            number = 1
            if repository is not None and about.st_size <= repository.limits.object:
                number = _number(repository, slug, Blob.from_string((self.folder / path).read_bytes()).id)
            file_name = _NAMES[path.suffix]
            yield RecordedVersion(
                path, number, about.st_size, _AUTHOR, when, published_at=when, file_name=file_name
            )
            return
        changes = self._changes(path)
        with closing(Repo(str(self._git))) as repo:
            for number, change in enumerate(changes if self.history else changes[-1:], 1):
                commit, blob = repo[ObjectID(change.commit)], _blob(repo, change.blob)
                if not isinstance(commit, Commit):
                    continue
                when = utc(commit.author_time)
                yield RecordedVersion(
                    key=change.blob.decode(),
                    number=number if self.history else _number(repository, slug, change.blob),
                    size=len(blob.data),
                    author=person(commit.author, commit.encoding),
                    created_at=when,
                    message=text(commit.message, commit.encoding).strip(),
                    published_at=utc(commit.commit_time),
                    file_name=_NAMES.get(PurePosixPath(text(change.path)).suffix, _NAMES[path.suffix]),
                )

    def _changes(self, path: PurePosixPath) -> list[_Change]:
        """Return the changes of a file, oldest first, without deletions and changes of the mode alone."""
        child = subprocess.run(
            command(self._git or self.folder, "log", *_LOG, "HEAD", "--", str(path)),
            env=environment({"GIT_LITERAL_PATHSPECS": "1"}),
            capture_output=True,
            check=False,
        )
        if child.returncode != 0:
            raise ConfigError(
                f"git log of {_shown(path)} failed: {child.stderr.decode(errors='replace').strip()}"
            )
        changes: list[_Change] = []
        commit = b""
        parts = iter(child.stdout.split(b"\0"))
        for part in parts:
            word = part.strip(b"\n")
            if word.startswith(b":"):
                _, _, _, blob, status = word.split(b" ")
                name = next(parts, b"")
                if status.startswith((b"R", b"C")):
                    name = next(parts, b"")
                if status != b"D":
                    changes.append(_Change(commit, blob, name))
            elif word:
                commit = word
        changes.reverse()
        return [
            new
            for old, new in zip([None, *changes], changes, strict=False)
            if not old or new.blob != old.blob
        ]


def _is_definition(path: PurePosixPath) -> bool:
    return path.suffix in _NAMES and not path.name.startswith(".")


def _shown(path: PurePosixPath) -> str:
    return quote(str(path))


def _blob(repo: Repo, oid: bytes) -> Blob:
    found = repo[ObjectID(oid)] if ObjectID(oid) in repo.object_store else None
    if not isinstance(found, Blob):
        raise ConfigError(f"the repository lacks the file {oid.decode()}: is it a partial or shallow clone?")
    return found


def _number(repository: Repository | None, slug: str, blob: bytes) -> int:
    """Return the number of the latest version of `slug` if it has this content, else the next number."""
    if repository is None or not repository.exists(slug):
        return 1
    state = repository.state(slug)
    if state.latest_commit is not None:
        commit = repository.objects.commit(state.latest_commit.encode())
        if repository.locate(commit, slug)[1] == blob:
            return state.latest
    return state.next_number
