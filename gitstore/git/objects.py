"""The objects of one bare repository: typed reading, durable writing, ancestry.

Ids are hex bytes, as in Git. An object that is not there raises `objects_missing`, one that cannot be
read `integrity`; no other error leaves this file for a damaged repository.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import suppress
from datetime import UTC, datetime
from hashlib import sha1
from heapq import heappop, heappush
from io import FileIO
from itertools import islice
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

from dulwich.errors import ChecksumMismatch, FileFormatException, NotGitRepository, ObjectFormatException
from dulwich.file import FileLocked
from dulwich.object_format import DEFAULT_OBJECT_FORMAT
from dulwich.object_store import DiskObjectStore
from dulwich.objects import Blob, Commit, ObjectID, ShaFile, Tag, Tree
from dulwich.pack import UnpackedObject, write_pack_index, write_pack_objects

from gitstore.definition.quoting import clip
from gitstore.errors import Code, GitstoreError
from gitstore.git.files import flush, fsync_folder, make_folder
from gitstore.model import Person

T = TypeVar("T", bound=ShaFile)

_UNREADABLE = (ChecksumMismatch, FileFormatException, ObjectFormatException, NotGitRepository, zlib.error,
               AssertionError, ValueError, IndexError, EOFError, OSError)  # fmt: skip
# dulwich looks into the packs that it knows, then for a loose file: what git packs in between is in neither.
_LOOKS = 3
_LARGEST_KEPT = 256 * 2**10
_MOST_KEPT = 4 * 2**20  # bytes of objects that an instance keeps, which lives as long as a request
_LONGEST_ADDRESS = 254  # characters, as over HTTP
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z; git allows later dates, Python and Postgres do not

_THEIRS, _OURS = 1, 2  # from which of two tips a commit is reached
_MOST_APART = 50_000
# (a, b) where a is known to be no ancestor of b. Ids name a whole history, so this is true for ever and in
# every repository.
_APART: set[tuple[bytes, bytes]] = set()


class Objects:
    """Objects in `folder` (a repository's `objects/`, or a quarantine with `behind` as its alternate)."""

    def __init__(self, folder: Path, *, behind: Path | None = None) -> None:
        self.folder = folder
        self._store = DiskObjectStore(
            folder, fsync_object_files=True, alternates=[behind] if behind is not None else None
        )
        self._folders = [folder, *([behind] if behind is not None else [])]
        self.mostly_packed = False
        """Whether packs are looked into before loose files: what is asked for came in a pack."""
        # The same few are asked for again and again while a request is judged, recorded and mirrored.
        self._kept: dict[bytes, ShaFile] = {}
        self._room = _MOST_KEPT
        self.elsewhere: Callable[[bytes], ShaFile | None] = lambda _oid: None
        """Where a reader gets an object that is missing here, if anywhere. A writer leaves it as it is."""

    def close(self) -> None:
        """Let go of packs and their file descriptors, and of what was read."""
        self._store.close()
        self._kept.clear()
        self._room = _MOST_KEPT

    def __contains__(self, oid: bytes) -> bool:
        if any(Path(path).exists() for path in self._paths(oid)):
            return True
        return any(ObjectID(oid) in self._store for _ in range(_LOOKS))

    def packed_here(self) -> Iterator[bytes]:
        """The ids in this folder's own packs, alternates left out."""
        for pack in self._store.packs:
            for oid in pack:
                yield bytes(oid)

    # Reading

    def get(self, oid: bytes) -> ShaFile:
        """The object `oid`, whatever its type. Read only: it may be given out again."""
        found = self._kept.get(oid)
        if found is None:
            found = self._read(oid)
            self._keep(found)
        return found

    def keep(self, items: Iterable[ShaFile]) -> None:
        """Keep `items`, which were written, so that they are not read again."""
        for item in items:
            self._keep(item)

    def _keep(self, item: ShaFile) -> None:
        size = item.raw_length()
        if size > _LARGEST_KEPT or item.id in self._kept:
            return  # dulwich makes 25 times its size of a tree that is looked into
        if size > self._room:
            self._kept.clear()
            self._room = _MOST_KEPT
        self._room -= size
        self._kept[item.id] = item

    def adopt(self, other: Objects, oids: Iterable[bytes]) -> None:
        """What `other` has read of `oids`, which are here by now, need not be read again."""
        for oid in oids:
            if (item := other._kept.get(oid)) is not None:
                self._keep(item)

    def _read(self, oid: bytes) -> ShaFile:
        for looks_left in reversed(range(_LOOKS)):
            try:
                first = None if self.mostly_packed else self._loose(oid)
                return first or self._store[ObjectID(oid)]
            except KeyError as error:
                if not looks_left:
                    if (found := self.elsewhere(oid)) is not None:
                        return found
                    raise GitstoreError(
                        Code.OBJECTS_MISSING, f"object {oid.decode()} is missing", oid=oid.decode()
                    ) from error
            except _UNREADABLE as error:
                if not looks_left or not isinstance(error, FileNotFoundError):
                    raise GitstoreError(
                        Code.INTEGRITY,
                        f"object {oid.decode()} is damaged on disk: run gitstore verify",
                        oid=oid.decode(),
                    ) from error
        raise AssertionError("the last look returns or raises")

    def _loose(self, oid: bytes) -> ShaFile | None:
        """Looked for first, unlike by dulwich: what a write asks for is new, and no pack need be opened.

        None where it is damaged, too: there may be another in a pack; if not, dulwich meets it again.
        """
        for path in self._paths(oid):
            with suppress(*_UNREADABLE), FileIO(path) as file:
                found = ShaFile.from_file(file)
                if found.id == oid:
                    return found
        return None

    def _paths(self, oid: bytes) -> Iterator[str]:
        """Where `oid` is as a loose object, if it is one."""
        name = oid.decode()
        return (f"{folder}/{name[:2]}/{name[2:]}" for folder in self._folders)

    def loose_size(self, oid: bytes) -> int | None:
        """Return the size on disk (bytes, compressed) of a loose object, or None where it is in a pack."""
        for path in self._paths(oid):
            with suppress(FileNotFoundError):
                return Path(path).stat().st_size
        return None

    def commit(self, oid: bytes) -> Commit:
        return self._typed(oid, Commit)

    def tree(self, oid: bytes) -> Tree:
        return self._typed(oid, Tree)

    def blob(self, oid: bytes) -> bytes:
        return self._typed(oid, Blob).data

    def peel(self, oid: bytes) -> tuple[bytes, Tag | None]:
        """The commit that a version's tag holds, and the tag object where it is an annotated one.

        Raises `ref_not_accepted` for anything but a commit or one tag object on a commit.
        """
        found = self.get(oid)
        if isinstance(found, Commit):
            return oid, None
        if isinstance(found, Tag):
            kind, target = found.object
            if kind is Commit:
                self.commit(target)
                return target, found
        raise GitstoreError(
            Code.REF_NOT_ACCEPTED, "a version is a tag on a commit: git tag -a <slug>/v<N> <commit>"
        )

    def _typed(self, oid: bytes, kind: type[T]) -> T:
        found = self.get(oid)
        if not isinstance(found, kind):
            raise GitstoreError(
                Code.REF_NOT_ACCEPTED,
                f"object {oid.decode()} is a {found.type_name.decode()}, not a {kind.type_name.decode()}",
                oid=oid.decode(),
            )
        return found

    def pack_data(
        self,
        have: Set[ObjectID],
        want: Set[ObjectID],
        *,
        ofs_delta: bool = False,
        progress: Callable[[bytes], None] | None = None,
    ) -> tuple[int, Iterator[UnpackedObject]]:
        """What `want` needs beyond `have`, as dulwich's client takes it; `have` may name what is not here."""
        return self._store.generate_pack_data(have, want, progress=progress, ofs_delta=ofs_delta)

    # Ancestry

    def is_ancestor(self, ancestor: bytes, descendant: bytes) -> bool:
        """Whether `ancestor` is `descendant` or can be reached from it by parents.

        Both histories are walked together, newest first. What the ancestor's side reaches is not looked
        at again from the other, so a short fork costs its own length and not the whole history's; commit
        dates decide the order only, never the answer.
        """
        if ancestor == descendant:
            return True
        above = self.commit(ancestor).parents
        if descendant in above or any((parent, descendant) in _APART for parent in above):
            # It would bring its parent along. So a draft that grows by a commit is not walked again.
            _note_apart(ancestor, descendant)
            return False
        if ancestor in self.commit(descendant).parents:
            return True  # the usual case, whatever the dates say
        seen = {ancestor: _THEIRS, descendant: _OURS}
        if any(oid == ancestor and seen[oid] & _OURS for oid in self._walk(seen)):
            return True
        _note_apart(ancestor, descendant)
        return False

    def commits_beyond(self, tip: bytes, known: bytes | None, most: int) -> list[bytes]:
        """Return the commits that `tip` reaches and `known` does not, `tip` first.

        Commit dates that are wrong may add a few that `known` reaches, too. The walk ends after `most` steps.
        """
        seen = {known: _THEIRS} if known is not None else {}
        seen[tip] = seen.get(tip, 0) | _OURS
        for _ in islice(self._walk(seen), most):
            pass
        return [oid for oid, flags in seen.items() if flags == _OURS]

    def _walk(self, seen: dict[bytes, int]) -> Iterator[bytes]:
        """Walk the histories of `seen` (commit -> `_OURS`, `_THEIRS`) together, newest first.

        Yields each commit whose flags changed, until none is left that is ours alone.
        """
        queue = sorted((-self._time(oid), oid) for oid in seen)
        hopeful = {oid for oid, flags in seen.items() if flags == _OURS}  # queued, and ours alone
        while hopeful:
            _, oid = heappop(queue)
            hopeful.discard(oid)
            for parent in self.commit(oid).parents:
                flags = seen.get(parent, 0) | seen[oid]
                if flags == seen.get(parent):
                    continue
                seen[parent] = flags
                (hopeful.add if flags == _OURS else hopeful.discard)(parent)
                heappush(queue, (-self._time(parent), parent))
                yield parent

    def _time(self, oid: bytes) -> int:
        return int(self.commit(oid).commit_time)

    # Writing

    def write(self, new: Iterable[ShaFile]) -> None:
        """Write loose objects, each after what it refers to (the caller's order), durable on return."""
        folders = set()
        for item in new:
            folder = self.folder / item.id[:2].decode()
            if not folder.is_dir():
                with suppress(FileExistsError):
                    folder.mkdir()
                fsync_folder(self.folder)
            self._write_one(item)
            self._keep(item)
            folders.add(folder)
        for folder in folders:
            sync_fanout(folder)

    def write_pack(self, new: Sequence[ShaFile]) -> None:
        """As `write`, of very many: one pack costs two fsyncs, a loose object each two of its own."""
        folder = self.folder / "pack"
        make_folder(folder)
        name = f"pack-{sha1(b''.join(sorted(item.id for item in new))).hexdigest()}"  # noqa: S324 - as git's
        temporary = [folder / f"tmp_{kind}_{uuid4().hex}" for kind in ("pack", "idx")]
        try:
            with temporary[0].open("xb") as file:
                entries, checksum = write_pack_objects(file, list(new), DEFAULT_OBJECT_FORMAT)
                flush(file)
            with temporary[1].open("xb") as file:
                index = sorted((bytes(oid), offset, crc) for oid, (offset, crc) in entries.items())
                write_pack_index(file, index, checksum)
                flush(file)
            # A pack is there once its index is, so the index comes last.
            for path, suffix in zip(temporary, (".pack", ".idx"), strict=True):
                path.chmod(0o444)
                path.rename(folder / f"{name}{suffix}")
            fsync_folder(folder)
        finally:
            for path in temporary:
                path.unlink(missing_ok=True)

    def _write_one(self, item: ShaFile) -> None:
        """Two writers of the same object meet in its lock, and git's gc may remove a folder beneath us."""
        for _ in range(200):
            try:
                self._store.add_object(item)
            except (FileLocked, FileNotFoundError):
                time.sleep(0.005)
            except OSError:
                # A full disk: dulwich leaves its lock file, and nobody else could write this object.
                name = item.id.decode()
                (self.folder / name[:2] / f"{name[2:]}.lock").unlink(missing_ok=True)
                raise
            else:
                return
        raise GitstoreError(Code.BUSY, f"object {item.id.decode()} is locked by another process: try again")


def _note_apart(ancestor: bytes, descendant: bytes) -> None:
    if len(_APART) >= _MOST_APART:
        _APART.clear()
    _APART.add((ancestor, descendant))


def sync_fanout(folder: Path) -> None:
    """Make what was put into `objects/xx` durable, unless git packed it, durably, and removed the folder."""
    with suppress(FileNotFoundError):
        fsync_folder(folder)


def utc(seconds: int) -> datetime:
    """A Git date as a time that Python and Postgres can hold."""
    return datetime.fromtimestamp(min(max(seconds, 0), _LAST_SECOND), UTC)


def text(raw: bytes | None, encoding: bytes | None = None) -> str:
    """Text of a commit or tag for people and Postgres: decoded, and without NUL, whatever was written."""
    raw = raw or b""
    try:
        decoded = raw.decode((encoding or b"utf-8").decode("ascii"))
    except (UnicodeDecodeError, LookupError):
        decoded = raw.decode("utf-8", "replace")
    return decoded.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def person(line: bytes | None, encoding: bytes | None = None) -> Person:
    """`Name <address>` of an author or tagger line."""
    name, _, address = text(line, encoding).partition("<")
    return Person(clip(name.strip()), clip(address.partition(">")[0].strip(), _LONGEST_ADDRESS))


def ident(who: Person) -> bytes:
    """The line for `who`, without the characters that git gives a meaning (see git-commit(1))."""
    clean = {ord(char): None for char in "<>\n\r\0"}
    name = who.name.translate(clean).strip() or "unknown"
    return f"{name} <{who.email.translate(clean).strip()}>".encode("utf-8", "replace")


def new_commit(
    *, tree: bytes, parents: list[bytes], author: Person, committer: Person, when: datetime, message: str
) -> Commit:
    """A commit made here, in UTC."""
    made = Commit()
    made.tree = ObjectID(tree)
    made.parents = [ObjectID(parent) for parent in parents]
    made.author, made.committer = ident(author), ident(committer)
    made.author_time = made.commit_time = int(when.timestamp())
    made.author_timezone = made.commit_timezone = 0
    made.message = message.replace("\0", "").rstrip("\n").encode("utf-8", "replace") + b"\n"
    return made
