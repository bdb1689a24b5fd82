"""Quarantine of a pushed pack until it is judged: a temporary object store, checked by git.

The folder is an object store with the repository as its alternate. git unpacks into it with `--strict` (the
checks of git-fsck(1)) under a memory limit, connectivity is checked, and only the objects that an accepted
ref needs are moved into the repository. git's prune removes folders whose name starts with `tmp_objdir-`; a
lock file inside shows whether the process that created it is alive (gitstore/git/cleanup.py).

The objects of a small pack wait in memory instead. git checks them in a folder for temporary files, which is
on a local disk even if the repository is not, and need not be durable. The caller writes those that are
needed, with what refers to them, as one pack.
"""

from __future__ import annotations

import mmap
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Final

from dulwich.objects import Commit, ObjectID, ShaFile, Tag, Tree

from gitstore.budget import spending
from gitstore.errors import IntegrityError, MalformedError, ObjectsMissingError, too_large
from gitstore.git.files import fsync_folder
from gitstore.git.objects import Objects, sync_fanout
from gitstore.git.packs import measure
from gitstore.git.unpacking import ALIVE, checked, unpack
from gitstore.model import Limits
from gitstore.unit_of_work import shared_lock

PREFIX: Final = "tmp_objdir-incoming-"
SMALL: Final = 512 * 1024  # bytes, inflated: half of what is written as a small pack
UNPACK_LIMIT = 100  # objects; a larger pack is kept as a pack, as by git's receive.unpackLimit
_CHUNK = 64 * 1024
_GITLINK = b"160000 "
_FOLDER = b"40000 "


@contextmanager
def quarantine(repository: Path) -> Iterator[Quarantine]:
    """Open a quarantine in front of the bare `repository`; it is deleted with its content on exit."""
    with ExitStack() as stack:
        yield Quarantine(repository, stack)


@contextmanager
def _made(repository: Path) -> Iterator[Path]:
    """Make the folder of a quarantine, and delete it on exit."""
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=repository / "objects"))
    try:
        with shared_lock(folder / ALIVE):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Quarantine:
    """Objects not yet in the repository; `objects` reads them and the repository's own."""

    def __init__(self, repository: Path, stack: ExitStack) -> None:
        self._repository = repository
        self._stack = stack
        self._opened: Path | None = None
        self._read_through(Objects(repository / "objects"))
        self._is_small = False
        self._exploded: set[bytes] = set()
        self._new: set[bytes] = set()
        self._complete: dict[bytes, None] = {}
        self._admitted: set[bytes] = set()

    @property
    def folder(self) -> Path:
        """The folder of a pack that is not small, made at the first use."""
        if self._opened is None:
            self._opened = self._stack.enter_context(_made(self._repository))
            self._read_through(Objects(self._opened, behind=self._repository / "objects"))
        return self._opened

    def _read_through(self, objects: Objects) -> None:
        self.objects = objects
        self._stack.callback(objects.close)

    def receive(self, read: Callable[[int], bytes], limits: Limits) -> None:
        """Read a pack to its end, check its sizes, and have git unpack and check it.

        Raises `too_large` or `objects_refused`, the latter with git's own messages in `lines`.
        """
        with self.incoming(limits) as write:
            while chunk := read(_CHUNK):
                write(chunk)

    @contextmanager
    def incoming(self, limits: Limits) -> Iterator[Callable[[bytes], int]]:
        """Receive a pack as `receive` does, but written in chunks until the block ends."""
        head, size = bytearray(), 0
        file: BinaryIO | None = None

        def write(chunk: bytes) -> int:
            nonlocal file, size
            size += len(chunk)
            if size > limits.pack:
                raise too_large("the pack has more than", limits.pack, limits.pack)
            if file is None:
                if size <= SMALL:
                    head.extend(chunk)
                    return len(chunk)
                file = (self.folder / "incoming").open("w+b")
                self._stack.callback(file.close)
                file.write(head)
            return file.write(chunk)

        yield write
        if file is None:
            self._accept(bytes(head), limits)
            return
        file.flush()
        # mmap: an import may exceed the memory.
        self._accept(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), limits)
        file.close()
        (self.folder / "incoming").unlink()

    def _accept(self, pack: bytes | mmap.mmap, limits: Limits) -> None:
        measured = measure(memoryview(pack), limits)
        if measured.objects == 0:
            return
        if measured.objects <= UNPACK_LIMIT and measured.inflated <= SMALL:
            waiting = checked(self._repository, pack, limits)
            self._read_through(_WaitingObjects(self._repository / "objects", waiting))
            self._new, self._is_small = set(waiting), True
            return
        unpack(self._repository, self.folder, pack, limits, exploded=measured.objects <= UNPACK_LIMIT)
        self._exploded = set(self._loose())
        self.objects.mostly_packed = not self._exploded
        self._new = self._exploded | set(self._packed())

    def _loose(self) -> Iterator[bytes]:
        for folder in self.folder.iterdir():
            if len(folder.name) == 2:
                for item in folder.iterdir():
                    yield (folder.name + item.name).encode()

    def _packed(self) -> Iterator[bytes]:
        return self.objects.packed_here()

    def check(self, tip: bytes) -> None:
        """Check that every object `tip` needs exists. Raises `objects_missing` otherwise.

        Objects in the repository are complete, since nothing else is ever moved in. Objects already checked
        for one tip are not checked again for the next.
        """
        self._walk([tip], self._complete)

    def needed_by(self, tips: Iterable[bytes]) -> list[bytes]:
        """Return the new objects that `tips` need, themselves included, referenced objects first.

        Objects admitted earlier are left out.
        """
        order: dict[bytes, None] = {}
        self._walk(tips, order)
        return list(order)

    @spending("git")
    def _walk(self, tips: Iterable[bytes], complete: dict[bytes, None]) -> None:
        """Add to `complete` every new object reachable from `tips`, after all objects it refers to."""
        entered: set[bytes] = set()
        waiting = [(tip, False) for tip in self._unknown(tips, complete)]
        while waiting:
            oid, below_done = waiting.pop()
            if below_done:
                complete[oid] = None
            elif oid not in complete and oid not in entered:
                entered.add(oid)
                waiting.append((oid, True))
                # Existing objects are looked up here and not queued: a tree may name the same one very often.
                below, files = self._references_of(oid)
                # A blob has no references, and git has checked that it is a blob: it need not be read.
                complete.update(dict.fromkeys(self._unknown(files, complete)))
                waiting.extend((other, False) for other in self._unknown(below, complete))

    def _references_of(self, oid: bytes) -> tuple[Collection[bytes], Collection[bytes]]:
        """Return the references of a new object.

        Raises `malformed` if it cannot be read: git accepts, for example, any octal number as a mode.
        """
        try:
            return _named_by(self.objects.get(oid))
        except IntegrityError as error:
            if isinstance(error.__cause__, OSError):
                raise  # it is the disk
            raise MalformedError(
                f"object {oid.decode()} is malformed: commit again with stock git"
            ) from error

    def _unknown(self, oids: Iterable[bytes], complete: Mapping[bytes, None]) -> list[bytes]:
        """Return those of `oids` that are new and not yet walked. Raises `objects_missing`."""
        found = []
        for oid in dict.fromkeys(oids):
            if oid in self._new:
                if oid not in complete and oid not in self._admitted:
                    found.append(oid)
            elif oid not in self.objects:
                raise ObjectsMissingError(f"object {oid.decode()} is missing", oid=oid.decode())
        return found

    def admit(self, needed: Sequence[bytes]) -> list[ShaFile]:
        """Move `needed` into the repository, in that order, durable on return.

        After a kill in the middle, every object in the repository is still complete. A pack moves whole.
        Those of a small pack are returned instead: the caller writes them before a ref.
        """
        if self._is_small or not needed:
            return [self.objects.get(oid) for oid in needed]
        target = self._repository / "objects"
        packs = sorted((self.folder / "pack").glob("pack-*"), key=_pack_last)
        for path in packs:
            path.rename(target / "pack" / path.name)
        if packs:
            fsync_folder(target / "pack")
        folders = set()
        for oid in needed:
            if oid in self._exploded:
                place = Path(oid[:2].decode(), oid[2:].decode())
                self._move_in(place, target)
                folders.add(target / place.parent)
        for folder in folders:
            sync_fanout(folder)
        self._admitted.update(needed)
        return []

    def _move_in(self, place: Path, target: Path) -> None:
        """Move one loose object; retry if git's repack removes the empty folder just before the rename."""
        while True:
            folder = target / place.parent
            if not folder.is_dir():
                folder.mkdir(exist_ok=True)
                fsync_folder(target)
            try:
                (self.folder / place).rename(target / place)
            except FileNotFoundError:
                if not (self.folder / place).exists():
                    raise
            else:
                return


class _WaitingObjects(Objects):
    """The objects of a repository, and those in memory that are not there yet, as type and content."""

    def __init__(self, folder: Path, waiting: Mapping[bytes, tuple[int, bytes]]) -> None:
        super().__init__(folder)
        self._waiting = waiting

    def __contains__(self, oid: bytes) -> bool:
        return oid in self._waiting or super().__contains__(oid)

    def _found(self, oid: bytes) -> ShaFile | None:
        if (raw := self._waiting.get(oid)) is not None:
            return ShaFile.from_raw_string(*raw, ObjectID(oid))
        return super()._found(oid)


def references(item: ShaFile) -> list[bytes]:
    """Return the ids of the objects that an object refers to."""
    below, files = _named_by(item)
    return [*below, *files]


def _named_by(item: ShaFile) -> tuple[Collection[bytes], Collection[bytes]]:
    """Return the references of an object, split into objects with references of their own, and blobs."""
    if isinstance(item, Commit):
        return [item.tree, *item.parents], ()
    if isinstance(item, Tag):
        return [item.object[1]], ()
    if isinstance(item, Tree):
        return _entries(item.as_raw_string())
    return (), ()


def _entries(tree: bytes) -> tuple[set[bytes], set[bytes]]:
    """Return the folders and files that a tree names. dulwich's parser needs 100 MB for a tree of 4 MB."""
    folders: set[bytes] = set()
    files: set[bytes] = set()
    at = 0
    while at < len(tree):
        end = tree.find(b"\0", at)
        if end < 0:
            raise IntegrityError("a tree is damaged on disk: run gitstore verify")
        # A submodule's commit is in another repository.
        if not tree.startswith(_GITLINK, at):
            kind = folders if tree.startswith(_FOLDER, at) else files
            kind.add(tree[end + 1 : end + 21].hex().encode())
        at = end + 21
    return folders, files - folders


def _pack_last(path: Path) -> tuple[bool, str]:
    """Sort key for moving packs: git before 2.42, when it repacks, removes a pack whose index is missing."""
    return path.suffix == ".pack", path.name
