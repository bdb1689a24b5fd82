"""The refs of one bare repository on disk, and the only code that writes them.

Every write is a compare-and-swap: all locks of a set are taken first (git's own `<ref>.lock` files, which
also exclude a concurrent git), all old values are re-read under them, and only then is anything written. A
process that was stopped may have lost its locks, so link(2) creates a new tag: it fails if the tag exists.
Files and folders are fsynced in the order in which refs are given, so that after a power cut a ref on disk
implies those before it.

Format: gitrepository-layout(5). A ref is a loose file, or else a line of packed-refs. Symbolic refs other
than HEAD are not used; one created by hand counts as damaged.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Final

from gitstore import names
from gitstore.budget import spending
from gitstore.errors import BusyError, GitstoreError, IntegrityError
from gitstore.git import packed_refs_guard
from gitstore.git.files import fsync_folder, make_folders, open_folder, read_file, sync_all
from gitstore.git.lock_file import SUFFIX, LockFile, open_folders
from gitstore.git.packed_refs import PackedRefs

_OID = re.compile(rb"[0-9a-f]{40}")
# Linux can refer to a folder without opening it, which a network file system does at each of its servers.
_ROOT: Final = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_LOCK_PATIENCE = 3.0  # seconds; git's own maintenance holds a ref's lock for microseconds
_DELETING = {"core.packedRefsTimeout": "5000"}  # milliseconds; packing refs takes a second on a slow volume


@dataclass(frozen=True, slots=True)
class RefUpdate:
    """Set `name` to `new` if it holds `old`; None as `old` means that it must not exist."""

    name: bytes
    old: bytes | None
    new: bytes


class Refs:
    """Reads the refs below `folder` (a bare repository). Use one instance per thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Names are bytes, and so are the paths of very many refs: creating a Path for each took half the time
        # of an advertisement.
        self._root = os.fsencode(folder) + b"/"
        self._seen: dict[bytes, bytes | None] | None = None
        self._snapshot: PackedRefs | None = None
        self._root_handle: int | None = None

    @contextmanager
    def cached_reads(self) -> Iterator[None]:
        """Cache reads within the block: while the caller holds the lock of all refs it reads, or before.

        A write by a process without that lock is caught by the compare-and-swap, which reads from disk. A
        block within another begins, and ends, with an empty cache.

        The folder of the repository is looked up once in a block.
        """
        outer, self._seen = self._seen, {}
        outer_root, self._root_handle = self._root_handle, None
        try:
            yield
        finally:
            self._seen = None if outer is None else {}
            self._close_snapshot()
            if self._root_handle is not None:
                os.close(self._root_handle)
            self._root_handle = outer_root

    def invalidate(self) -> None:
        """Clear the read cache, so that the next reads come from disk."""
        if self._seen is not None:
            self._seen.clear()

    # Reading

    def read(self, name: bytes) -> bytes | None:
        """Return the hex id that `name` holds, or None. Raises `integrity` if the file is damaged.

        `name` may be any bytes a pusher sends; names that git-check-ref-format(1) rejects do not exist.
        """
        if self._seen is None:
            return self._read(name)
        if name not in self._seen:
            self._seen[name] = self._read(name)
        return self._seen[name]

    @spending("git")
    def _read(self, name: bytes) -> bytes | None:
        if not names.is_ref(name):
            return None
        loose = self._read_loose(name)
        if loose is None:
            loose = self._read_packed(name)
        if loose is None and self._seen is None:
            # Packed between the two reads: git removes the loose file after it has written packed-refs.
            loose = self._read_loose(name)
        return loose

    def below(self, prefix: bytes) -> dict[bytes, bytes]:
        """Return ref -> hex id below `prefix` (a folder, ending in "/"), sorted, without damaged refs."""
        refs, _ = self.survey(prefix)
        return refs

    @spending("git")
    def sample(self, prefix: bytes, most: int) -> list[bytes]:
        """Return at most `most` names of refs below `prefix`, sorted, at the cost of so many."""
        with closing(self._walk(prefix)) as loose:
            found = {name for name, _, _ in islice(loose, most)}
        with self._packed() as packed:
            found.update(name for name, _ in islice(packed.scan(prefix), most))
        return sorted(found)[:most]

    @spending("git")
    def names_below(self, prefix: bytes) -> set[bytes]:
        """Return the names of the refs below `prefix`, without a look at their values."""
        found = {name for name, _, _ in self._walk(prefix)}
        with self._packed() as packed:
            return found | {name for name, _ in packed.scan(prefix)}

    def has_below(self, prefix: bytes) -> bool:
        """Return whether any ref is below `prefix`: the cost of a look into one folder and into packed-refs.

        In `cached_reads`, packed-refs is open already.
        """
        with closing(self._walk(prefix)) as loose:
            if next(loose, None) is not None:
                return True
        if self._seen is None:
            with self._packed() as packed:
                return next(packed.scan(prefix), None) is not None
        return next(self._current_snapshot().scan(prefix), None) is not None

    @spending("git")
    def survey(self, prefix: bytes) -> tuple[dict[bytes, bytes], list[bytes]]:
        """Return the refs as `below` does, and the names of the refs whose files are damaged."""
        damaged = []
        loose = {}
        for name, last, folder in self._walk(prefix):
            try:
                value = _read_value(name, last, folder)
            except GitstoreError:
                damaged.append(name)
                continue
            if value is not None:
                loose[name] = value
        # Read packed after loose, so that a ref packed in between is found in one of the two.
        with self._packed() as packed:
            refs = packed.below(prefix)
        for name in damaged:
            refs.pop(name, None)
        return dict(sorted((refs | loose).items())) if loose else refs, sorted(damaged)

    def _read_packed(self, name: bytes) -> bytes | None:
        """Return the value in packed-refs. In `cached_reads`, the file stays mapped until git replaces it."""
        if self._seen is None:
            with self._packed() as packed:
                return packed.get(name)
        return self._current_snapshot().get(name)

    def _current_snapshot(self) -> PackedRefs:
        if self._snapshot is None or not self._snapshot.is_of(*self._at(b"packed-refs")):
            self._close_snapshot()
            self._snapshot = self._packed()
        return self._snapshot

    def _close_snapshot(self) -> None:
        if self._snapshot is not None:
            self._snapshot.close()
            self._snapshot = None

    def _packed(self) -> PackedRefs:
        return PackedRefs(*self._at(b"packed-refs"))

    def _path(self, name: bytes) -> Path:
        return self._folder / os.fsdecode(name)

    def _at(self, name: bytes) -> tuple[bytes, int | None]:
        """Return the path of a file of the repository, and the open folder that it is relative to, if any."""
        if self._seen is not None and self._root_handle is None:
            with suppress(FileNotFoundError):  # the repository is gone
                self._root_handle = os.open(self._root, _ROOT)
        if self._root_handle is None:
            return self._root + name, None
        return name, self._root_handle

    def _read_loose(self, name: bytes) -> bytes | None:
        return _read_value(name, *self._at(name))

    def _walk(self, prefix: bytes) -> Generator[tuple[bytes, bytes, int]]:
        """Yield the loose refs below `prefix`, without lock files: name, file name, and the open folder."""
        return _walk(prefix, *self._at(prefix))

    def head(self) -> bytes | None:
        """Return the ref that HEAD points to."""
        try:
            content = read_file(*self._at(b"HEAD"))
        except FileNotFoundError:
            return None
        return content[5:].strip() if content.startswith(b"ref: ") else None


class WritableRefs(Refs):
    """The refs of a repository, which this object may write."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.before_writing: Callable[[], None] = lambda: None
        """Called once all locks are held, before the first ref appears. Raises if the write may not go on."""

    @spending("git")
    def update(self, updates: Sequence[RefUpdate]) -> list[bytes]:
        """Write all of `updates` or none, in their order.

        Returns the names that did not hold their old value (then nothing was written); an empty list means
        that every ref holds its new value on disk. Raises `busy` if a lock cannot be acquired, or if another
        process creates a tag of the set although it is locked; refs before it in the set are then written.
        """
        planned = [update.name for update in updates]
        held: dict[bytes, LockFile] = {}
        with open_folders() as folders:
            try:
                for name in sorted(planned):
                    held[name] = self._lock(name, planned, folders)
                moved = [
                    update.name for update in updates if self._read_locked(update, folders) != update.old
                ]
                if moved:
                    self.invalidate()
                    return moved
                for update in updates:
                    held[update.name].write(update.new + b"\n")
                sync_all([held[name].handle for name in planned])
                self.before_writing()
                self._commit(updates, held, folders)
            except BaseException:
                self.invalidate()
                raise
            finally:
                for lock in held.values():
                    lock.release()
        if self._seen is not None:
            self._seen.update((update.name, update.new) for update in updates)
        return []

    def _read_locked(self, update: RefUpdate, folders: Mapping[bytes, int]) -> bytes | None:
        """Return what a locked ref holds on disk; a new file must have a place. Raises `integrity`."""
        folder, last = _parts(update.name)
        try:
            return _value(update.name, read_file(last, folders[folder]))
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            self.check_place(update.name)
        return self._read_packed(update.name)

    def _commit(
        self, updates: Sequence[RefUpdate], held: Mapping[bytes, LockFile], folders: Mapping[bytes, int]
    ) -> None:
        """Move the lock files into place; a folder is fsynced before the next folder's refs appear."""
        for folder, group in groupby(updates, key=lambda update: _parts(update.name)[0]):
            for update in group:
                if update.old is None and update.name.startswith(names.TAGS):
                    self._create(update, held[update.name])
                else:
                    _replace(update.name, held[update.name])
            sync_folder(folders[folder])

    def _create(self, update: RefUpdate, lock: LockFile) -> None:
        """Create a ref from its lock file, unless it exists by now, as a file or in packed-refs.

        packed-refs is read again afterwards: while this process was stopped between the two, another one may
        have created the tag and packed it.
        """
        created = self._read_packed(update.name) is None
        if created:
            try:
                lock.link()
            except (FileExistsError, FileNotFoundError):
                created = False
        if created and self._read_packed(update.name) not in (None, update.new):
            lock.unlink()  # the packed value is the tag's
            created = False
        if not created:
            shown = names.show(update.name)
            raise BusyError(f"{shown} was created by another process: try again", ref=shown)
        lock.release()

    def check_place(self, name: bytes) -> None:
        """Raise `integrity` if `name` is a folder, or if a file is in the place of one of its folders.

        Empty folders are removed, as git does.
        """
        path = self._path(name)
        try:
            if stat.S_ISDIR(path.stat().st_mode):
                for folder, _, _ in os.walk(path, topdown=False):
                    Path(folder).rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            raise _in_the_way(name) from error

    def _make_folders(self, refs: Iterable[bytes]) -> None:
        with suppress(NotADirectoryError):  # reported for the ref that is then locked
            make_folders(map(self._path, dict.fromkeys(_parts(name)[0] for name in refs)))

    def _lock(self, name: bytes, planned: Collection[bytes], folders: dict[bytes, int]) -> LockFile:
        """Lock `name`, and keep its folder open in `folders`.

        If the folder does not exist, make those of all `planned` refs, at the same cost.
        """
        folder, last = _parts(name)
        deadline = time.monotonic() + _LOCK_PATIENCE
        while True:
            try:
                if folder not in folders:
                    folders[folder] = open_folder(*self._at(folder))
                return LockFile(folders[folder], last)
            except (FileExistsError, FileNotFoundError) as error:
                # Held by another writer; or the folder is new, or was just emptied and removed by git.
                if time.monotonic() > deadline:
                    raise BusyError(
                        f"{names.show(name)} is locked by another process: try again",
                        ref=names.show(name),
                    ) from error
                if isinstance(error, FileExistsError):
                    time.sleep(0.005)
                elif folder in folders:
                    os.close(folders.pop(folder))
                self._make_folders(planned)
            except NotADirectoryError as error:
                raise _in_the_way(name) from error

    def restore(self, name: bytes, new: bytes) -> None:
        """Set `name` to `new` regardless of its value, even if damaged: for `gitstore repair`."""
        self.invalidate()
        self.check_place(name)
        with open_folders() as folders:
            lock = self._lock(name, [name], folders)
            try:
                lock.write(new + b"\n")
                sync_all([lock.handle])
                _replace(name, lock)
                sync_folder(folders[_parts(name)[0]])
            finally:
                lock.release()

    def delete(self, name: bytes, old: bytes) -> bool:
        """Delete `name` if it holds `old`; return whether it was deleted.

        Delegated to git: deleting a packed ref means rewriting packed-refs under its lock.
        """
        self.invalidate()
        try:
            arguments = ("update-ref", "--no-deref", "-d", os.fsdecode(name), old.decode())
            child = packed_refs_guard.run(self._folder, *arguments, config=_DELETING)
        except BusyError:
            return False
        if child.returncode == 0:
            with suppress(FileNotFoundError):  # git removes a folder that it emptied
                fsync_folder(self._path(name).parent)
            fsync_folder(self._folder)
        return child.returncode == 0 and self.read(name) is None

    def point_head(self, name: bytes) -> None:
        """Point HEAD to `name`: a hint for clones, not a fact, so the last writer wins."""
        if self.head() == name:
            return
        # The refs have already moved; a failure to set this hint must not look like a failed write.
        with suppress(OSError), open_folders() as folders:
            folders[b""] = open_folder(self._root)
            lock = LockFile(folders[b""], b"HEAD")
            try:
                lock.write(b"ref: " + name + b"\n")
                lock.replace()
            finally:
                lock.release()


def _walk(prefix: bytes, path: bytes, within: int | None) -> Generator[tuple[bytes, bytes, int]]:
    try:
        folder = open_folder(path, within)
    except (FileNotFoundError, NotADirectoryError):
        return
    try:
        with os.scandir(folder) as found:
            entries = sorted(
                (os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in found
            )
        for last, is_folder in entries:
            if is_folder:
                yield from _walk(prefix + last + b"/", last, folder)
            elif not last.endswith(SUFFIX):
                yield prefix + last, last, folder
    finally:
        os.close(folder)


def _read_value(name: bytes, path: bytes, within: int | None) -> bytes | None:
    """Return the value of the ref `name`, whose file is at `path`; None without one. Raises `integrity`."""
    try:
        return _value(name, read_file(path, within))
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return None
        raise


def _value(name: bytes, content: bytes) -> bytes:
    """Return the value in the content of the file of the ref `name`. Raises `integrity` if it is damaged."""
    value = content.rstrip()
    if _OID.fullmatch(value) is None:
        raise IntegrityError(
            f"{names.show(name)} is damaged on disk ({len(content)} bytes, not an object id): "
            "run gitstore verify",
            ref=names.show(name),
        )
    return value


def _replace(name: bytes, lock: LockFile) -> None:
    try:
        lock.replace()
    except FileNotFoundError as error:
        shown = names.show(name)
        raise BusyError(f"the lock of {shown} was lost to another process: try again", ref=shown) from error


def sync_folder(folder: int) -> None:
    """Make the entries of an open folder durable, unless git has packed its refs, durably, and removed it."""
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE):
            raise


def _parts(name: bytes) -> tuple[bytes, bytes]:
    """Return the folder and the file name of a ref."""
    folder, _, last = name.rpartition(b"/")
    return folder, last


def _in_the_way(name: bytes) -> GitstoreError:
    return IntegrityError(
        f"another file is in the place of {names.show(name)} or its folder: run gitstore verify",
        ref=names.show(name),
    )
