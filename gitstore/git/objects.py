"""The objects of one bare repository: typed reading, durable writing, ancestry.

Ids are hex bytes, as in Git. A missing object raises `objects_missing`, an unreadable one `integrity`; a
damaged repository causes no other error from this module.
"""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from contextlib import suppress
from hashlib import sha1
from heapq import heappop, heappush
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TypeVar

from dulwich.errors import ChecksumMismatch, FileFormatException, NotGitRepository, ObjectFormatException
from dulwich.file import FileLocked
from dulwich.object_store import DiskObjectStore
from dulwich.objects import Blob, Commit, ObjectID, ShaFile, Tag, Tree
from dulwich.pack import UnpackedObject

from gitstore.budget import spending
from gitstore.errors import BusyError, Code, ConflictError, IntegrityError, ObjectsMissingError
from gitstore.git import small_packs
from gitstore.git.files import fsync_folder, make_folders, read_file
from gitstore.git.small_packs import SmallPacks

T = TypeVar("T", bound=ShaFile)
F = TypeVar("F")

_UNREADABLE = (ChecksumMismatch, FileFormatException, ObjectFormatException, NotGitRepository, zlib.error,
               AssertionError, ValueError, IndexError, EOFError, OSError)  # fmt: skip
# dulwich searches the packs it knows, then loose files: an object packed by git in between is in neither.
_LOOKS = 3
_LARGEST_KEPT = 256 * 2**10
_MOST_KEPT = 4 * 2**20  # bytes of objects cached by one instance, which lives for one request

_LARGEST_TOGETHER = 2**20  # bytes of objects in a small pack
_NUMBERS = {kind.type_name.decode(): kind.type_num for kind in (Commit, Tree, Blob, Tag)}

_THEIRS, _OURS = 1, 2  # flags of a commit: from which of two tips it is reachable
_MOST_PAIRS = 50_000


class UnrelatedCommits:
    """Pairs (a, b) of commits where a is known not to be an ancestor of b; may be shared by repositories.

    An id identifies a whole history, so a pair holds forever and everywhere.
    """

    def __init__(self) -> None:
        self._pairs: set[tuple[bytes, bytes]] = set()

    def __contains__(self, pair: tuple[bytes, bytes]) -> bool:
        return pair in self._pairs

    def add(self, ancestor: bytes, descendant: bytes) -> None:
        if len(self._pairs) >= _MOST_PAIRS:
            self._pairs.clear()
        self._pairs.add((ancestor, descendant))


class Objects:
    """Objects in `folder` (a repository's `objects/`, or a quarantine with `behind` as its alternate)."""

    def __init__(self, folder: Path, *, behind: Path | None = None) -> None:
        self.folder = folder
        self._store = DiskObjectStore(
            folder, fsync_object_files=True, alternates=[behind] if behind is not None else None
        )
        self._folders = [folder, *([behind] if behind is not None else [])]
        self._pack_folders = [f"{path}/pack" for path in self._folders]
        self.mostly_packed = False
        """Whether to search packs before loose files, because the requested objects arrived in a pack."""
        # A request reads the same few objects repeatedly while it is judged, recorded and mirrored.
        self._kept: dict[bytes, ShaFile] = {}
        self._room = _MOST_KEPT
        self._listed = False
        self._staged: dict[bytes, ShaFile] = {}
        self.small_packs = SmallPacks()
        self.unrelated = UnrelatedCommits()
        self.elsewhere: Callable[[bytes], ShaFile | None] = lambda _oid: None
        """A reader's fallback source of objects that are missing here. Writers keep the default: none."""

    def close(self) -> None:
        """Close packs and their file descriptors, and clear the cache."""
        with suppress(BufferError):  # the traceback of an error about a damaged pack refers to its content
            self._store.close()
        self._kept.clear()
        self._room = _MOST_KEPT
        self._listed = False

    def __del__(self) -> None:
        """Close packs that a reader has opened and left open, as every write adds one."""
        if hasattr(self, "_listed"):  # not where the constructor failed
            self.close()

    def __contains__(self, oid: bytes) -> bool:
        if self._in_small_packs(SmallPacks.has, oid, lambda: any(map(os.path.exists, self._paths(oid)))):
            return True
        return any(ObjectID(oid) in self._store for _ in range(_LOOKS))

    def packed_here(self) -> Iterator[bytes]:
        """Yield the ids in this folder's own packs, without alternates."""
        for pack in self._store.packs:
            for oid in pack:
                yield bytes(oid)

    # Reading

    def get(self, oid: bytes) -> ShaFile:
        """Return the object `oid` of any type. Do not modify it: it is cached and shared."""
        found = self._kept.get(oid) or self._staged.get(oid)
        if found is None:
            found = self._read(oid)
            self._keep(found)
        return found

    def keep(self, items: Iterable[ShaFile]) -> None:
        """Cache `items`, which have just been written, so that they are not read from disk."""
        for item in items:
            self._keep(item)

    def stage(self, items: Iterable[ShaFile]) -> None:
        """Make `items` readable before they are written, so that the rules can judge them."""
        self._staged.update((item.id, item) for item in items)

    def _keep(self, item: ShaFile) -> None:
        size = item.raw_length()
        if size > _LARGEST_KEPT or item.id in self._kept:
            return  # dulwich uses 25 times the size of a tree once its entries are read
        if size > self._room:
            self._kept.clear()
            self._room = _MOST_KEPT
        self._room -= size
        self._kept[item.id] = item

    def keep_read(self, read: Iterable[tuple[bytes, str, bytes]]) -> Iterator[ShaFile]:
        """Cache objects given as (id, type, content) as long as there is room, and yield them."""
        for oid, kind, content in read:
            header = b"%s %d\0" % (kind.encode(), len(content))
            is_sound = sha1(header + content).hexdigest().encode() == oid  # noqa: S324 - Git's ids
            if not is_sound or len(content) > self._room:
                return
            item = ShaFile.from_raw_string(_NUMBERS[kind], content, ObjectID(oid))
            self._keep(item)
            yield item

    def adopt(self, other: Objects, oids: Iterable[bytes]) -> None:
        """Take over the cache entries of `other` for `oids`, which now exist here."""
        for oid in oids:
            if (item := other._kept.get(oid)) is not None:
                self._keep(item)

    @spending("git")
    def _read(self, oid: bytes) -> ShaFile:
        for looks_left in reversed(range(_LOOKS)):
            try:
                return self._found(oid) or self._store[ObjectID(oid)]
            except KeyError as error:
                if not looks_left:
                    if (found := self.elsewhere(oid)) is not None:
                        return found
                    raise ObjectsMissingError(
                        f"object {oid.decode()} is missing", oid=oid.decode()
                    ) from error
            except _UNREADABLE as error:
                if not looks_left or not isinstance(error, FileNotFoundError):
                    raise IntegrityError(
                        f"object {oid.decode()} is damaged on disk: run gitstore verify",
                        oid=oid.decode(),
                    ) from error
        raise AssertionError("the last look returns or raises")

    def _found(self, oid: bytes) -> ShaFile | None:
        """Return the object if it is loose or in a small pack: without opening other packs."""
        if self.mostly_packed:
            return None
        return self._in_small_packs(SmallPacks.read, oid, lambda: self._loose(oid))

    def _in_small_packs(
        self,
        find: Callable[[SmallPacks, str, bytes], F | None],
        oid: bytes,
        loose: Callable[[], F | None],
    ) -> F | None:
        """Return what `find` finds in the known small packs, else `loose`, else in packs that are new."""
        if not self._listed:
            self._listed = True
            for folder in self._pack_folders:
                self.small_packs.refresh(folder)
        for folder in self._pack_folders:
            if found := find(self.small_packs, folder, oid):
                return found
        if found := loose():
            return found
        for folder in self._pack_folders:
            if self.small_packs.refresh(folder) and (found := find(self.small_packs, folder, oid)):
                return found
        return None

    def _loose(self, oid: bytes) -> ShaFile | None:
        """Read a loose object first, unlike dulwich: a write asks for new objects, so no pack need be opened.

        Return None for a damaged one, too: a pack may hold another copy; if not, dulwich reports the damage.
        """
        for path in self._paths(oid):
            with suppress(*_UNREADABLE):
                found = ShaFile.from_file(BytesIO(read_file(path)))
                if found.id == oid:
                    return found
        return None

    def _paths(self, oid: bytes) -> Iterator[str]:
        """Return the candidate paths of `oid` as a loose object."""
        name = oid.decode()
        return (f"{folder}/{name[:2]}/{name[2:]}" for folder in self._folders)

    def size(self, oid: bytes) -> int | None:
        """Return the size of an object, compressed if it is loose; None if it is in a large pack."""

        def loose() -> int | None:
            for path in self._paths(oid):
                with suppress(FileNotFoundError):
                    return Path(path).stat().st_size
            return None

        return self._in_small_packs(SmallPacks.size, oid, loose)

    def commit(self, oid: bytes) -> Commit:
        return self._typed(oid, Commit)

    def tree(self, oid: bytes) -> Tree:
        return self._typed(oid, Tree)

    def blob(self, oid: bytes) -> bytes:
        return self._typed(oid, Blob).data

    def peel(self, oid: bytes) -> tuple[bytes, Tag | None]:
        """Return the commit that a version's tag holds, and the tag object if the tag is annotated.

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
        raise ConflictError(
            Code.REF_NOT_ACCEPTED, "a version is a tag on a commit: git tag -a <slug>/v<N> <commit>"
        )

    def _typed(self, oid: bytes, kind: type[T]) -> T:
        found = self.get(oid)
        if not isinstance(found, kind):
            raise ConflictError(
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
        """Return the objects of `want` beyond `have` for dulwich's client; `have` may hold unknown ids."""
        return self._store.generate_pack_data(have, want, progress=progress, ofs_delta=ofs_delta)

    # Ancestry

    def is_ancestor(self, ancestor: bytes, descendant: bytes) -> bool:
        """Return whether `ancestor` is `descendant` or reachable from it through parents.

        Both histories are walked together, newest first. Commits reached from the ancestor's side are not
        visited again from the other, so a short fork costs its own length and not that of the whole history.
        Commit dates only decide the order, never the result.
        """
        if ancestor == descendant:
            return True
        above = self.commit(ancestor).parents
        if descendant in above or any((parent, descendant) in self.unrelated for parent in above):
            # A reachable `ancestor` would make its parent reachable, too. This saves walking the history
            # again for a draft that grows by one commit.
            self.unrelated.add(ancestor, descendant)
            return False
        if ancestor in self.commit(descendant).parents:
            return True  # the usual case, regardless of dates
        seen = {ancestor: _THEIRS, descendant: _OURS}
        if any(oid == ancestor and seen[oid] & _OURS for oid in self._walk(seen)):
            return True
        self.unrelated.add(ancestor, descendant)
        return False

    def commits_beyond(self, tip: bytes, known: bytes | None, most: int) -> list[bytes]:
        """Return the commits reachable from `tip` and not from `known`, `tip` first.

        Wrong commit dates may add a few reachable from `known`, too. The walk ends after `most` steps.
        """
        seen = {known: _THEIRS} if known is not None else {}
        seen[tip] = seen.get(tip, 0) | _OURS
        for _ in islice(self._walk(seen), most):
            pass
        return [oid for oid, flags in seen.items() if flags == _OURS]

    def _walk(self, seen: dict[bytes, int]) -> Iterator[bytes]:
        """Walk the histories of `seen` (commit -> `_OURS`, `_THEIRS`) together, newest first.

        Yields each commit whose flags changed, until no queued commit has `_OURS` alone.
        """
        queue = sorted((-self._time(oid), oid) for oid in seen)
        hopeful = {oid for oid, flags in seen.items() if flags == _OURS}  # queued with `_OURS` alone
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


class WritableObjects(Objects):
    """The objects of a repository, to which this object may add."""

    @spending("git")
    def write(self, new: Sequence[ShaFile]) -> None:
        """Write loose objects in the caller's order (referenced objects first), durable on return."""
        folders = dict.fromkeys(self.folder / item.id[:2].decode() for item in new)
        make_folders(folders)
        for item in new:
            self._write_one(item)
            self._keep(item)
        for folder in folders:
            sync_fanout(folder)

    @spending("git")
    def write_together(self, new: Sequence[ShaFile]) -> None:
        """Write the objects of one write, durable on return: as a small pack, which costs less than files."""
        items = list({item.id: item for item in new}.values())
        small = sum(item.raw_length() for item in items) <= _LARGEST_TOGETHER
        if len(items) > 1 and small and self.small_packs.write(self._pack_folders[0], items):
            self.keep(items)
        else:
            self.write(new)

    @spending("git")
    def write_pack(self, new: Sequence[ShaFile]) -> None:
        """Write many objects as one pack, which costs three fsyncs in total; each loose object costs two."""
        items = {item.id: item for item in new}.values()
        small_packs.write(self.folder / "pack", map(small_packs.entry_of, items), len(items))

    def _write_one(self, item: ShaFile) -> None:
        """Write one object; retry if another writer holds its lock, or if git's gc removed the folder."""
        for _ in range(200):
            try:
                self._store.add_object(item)
            except (FileLocked, FileNotFoundError):
                time.sleep(0.005)
            except OSError:
                # On a full disk, dulwich leaves its lock file, which would block later writes of this object.
                name = item.id.decode()
                (self.folder / name[:2] / f"{name[2:]}.lock").unlink(missing_ok=True)
                raise
            else:
                return
        raise BusyError(f"object {item.id.decode()} is locked by another process: try again")


def sync_fanout(folder: Path) -> None:
    """Make new entries of `objects/xx` durable, unless git packed them (durably) and removed the folder."""
    with suppress(FileNotFoundError):
        fsync_folder(folder)
