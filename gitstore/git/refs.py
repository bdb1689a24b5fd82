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
import subprocess
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

from dulwich.file import FileLocked, GitFile, _GitFile

from gitstore import names
from gitstore.budget import spending
from gitstore.errors import BusyError, GitstoreError, IntegrityError
from gitstore.git.files import flush_all, fsync_folder, make_folders, read_file, release
from gitstore.git.packed_refs import PackedRefs
from gitstore.git.process import command, environment

_OID = re.compile(rb"[0-9a-f]{40}")
_LOCK_PATIENCE = 3.0  # seconds; git's own maintenance holds a ref's lock for microseconds


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
        self._packed_path = folder / "packed-refs"

    @contextmanager
    def cached_reads(self) -> Iterator[None]:
        """Cache reads within the block: while the caller holds the lock of all refs it reads, or before.

        A write by a process without that lock is caught by the compare-and-swap, which reads from disk. A
        block within another begins, and ends, with an empty cache.
        """
        outer, self._seen = self._seen, {}
        try:
            yield
        finally:
            self._seen = None if outer is None else {}
            self._close_snapshot()

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
        found = set(islice(self._walk(prefix), most))
        with self._packed() as packed:
            found.update(name for name, _ in islice(packed.scan(prefix), most))
        return sorted(found)[:most]

    @spending("git")
    def names_below(self, prefix: bytes) -> set[bytes]:
        """Return the names of the refs below `prefix`, without a look at their values."""
        found = set(self._walk(prefix))
        with self._packed() as packed:
            return found | {name for name, _ in packed.scan(prefix)}

    def has_below(self, prefix: bytes) -> bool:
        """Return whether any ref is below `prefix`: the cost of a look into one folder and into packed-refs.

        In `cached_reads`, packed-refs is open already.
        """
        if next(self._walk(prefix), None) is not None:
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
        for name in self._walk(prefix):
            try:
                value = self._read_loose(name)
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
        if self._snapshot is None or not self._snapshot.is_of(self._packed_path):
            self._close_snapshot()
            self._snapshot = self._packed()
        return self._snapshot

    def _close_snapshot(self) -> None:
        if self._snapshot is not None:
            self._snapshot.close()
            self._snapshot = None

    def _packed(self) -> PackedRefs:
        return PackedRefs(self._packed_path)

    def _path(self, name: bytes) -> Path:
        return self._folder / os.fsdecode(name)

    def _read_loose(self, name: bytes) -> bytes | None:
        try:
            content = read_file(self._root + name)
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:
                return None
            raise
        value = content.rstrip()
        if _OID.fullmatch(value) is None:
            raise IntegrityError(
                f"{names.show(name)} is damaged on disk ({len(content)} bytes, not an object id): "
                "run gitstore verify",
                ref=names.show(name),
            )
        return value

    def _walk(self, prefix: bytes) -> Iterator[bytes]:
        """Yield the names of the loose refs below `prefix`, without lock files."""
        try:
            entries = sorted(os.scandir(self._root + prefix), key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from self._walk(name + b"/")
            elif not entry.name.endswith(b".lock"):
                yield name

    def head(self) -> bytes | None:
        """Return the ref that HEAD points to."""
        try:
            content = (self._folder / "HEAD").read_bytes()
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
        held: dict[bytes, _GitFile] = {}
        try:
            for update in sorted(updates, key=lambda update: update.name):
                held[update.name] = self._lock(update.name, [update.name for update in updates])
            moved = [update.name for update in updates if self._read_in_place(update.name) != update.old]
            if moved:
                self.invalidate()
                return moved
            for update in updates:
                held[update.name].write(update.new + b"\n")
            flush_all([held[update.name] for update in updates])
            self.before_writing()
            self._commit(updates, held)
        except BaseException:
            self.invalidate()
            raise
        finally:
            for lock in held.values():
                release(lock)
        if self._seen is not None:
            self._seen.update((update.name, update.new) for update in updates)
        return []

    def _read_in_place(self, name: bytes) -> bytes | None:
        """Return what a locked ref holds on disk; a new file must have a place. Raises `integrity`."""
        loose = self._read_loose(name)
        if loose is not None:
            return loose
        self.check_place(name)
        return self._read_packed(name)

    def _commit(self, updates: Sequence[RefUpdate], held: Mapping[bytes, _GitFile]) -> None:
        """Move the lock files into place; a folder is fsynced before the next folder's refs appear."""
        for folder, group in groupby(updates, key=lambda update: _folder(update.name)):
            for update in group:
                if update.old is None and update.name.startswith(names.TAGS):
                    self._create(update, held[update.name])
                else:
                    self._replace(update.name, held[update.name])
            with suppress(FileNotFoundError):  # git has packed these refs, durably, and removed the folder
                fsync_folder(self._path(folder))

    def _replace(self, name: bytes, lock: _GitFile) -> None:
        """Rename a lock file into place, unless it was removed, or is another process' by now."""
        lost = True
        with suppress(FileNotFoundError):
            there = os.stat(self._root + name + b".lock")  # noqa: PTH116 - of bytes, see `_root`
            if os.path.samestat(os.fstat(lock.fileno()), there):
                lock.close()
                lost = False
        if lost:
            shown = names.show(name)
            raise BusyError(f"the lock of {shown} was lost to another process: try again", ref=shown)

    def _create(self, update: RefUpdate, lock: _GitFile) -> None:
        """Create a ref from its lock file, unless it exists by now, as a file or in packed-refs.

        packed-refs is read again afterwards: while this process was stopped between the two, another one may
        have created the tag and packed it.
        """
        name, place = update.name, self._root + update.name
        created = self._read_packed(name) is None
        if created:
            try:
                os.link(place + b".lock", place)
            except (FileExistsError, FileNotFoundError):
                created = False
        if created and self._read_packed(name) not in (None, update.new):
            os.unlink(place)  # noqa: PTH108 - of bytes; the packed value is the tag's
            created = False
        if not created:
            shown = names.show(name)
            raise BusyError(f"{shown} was created by another process: try again", ref=shown)
        release(lock)

    def check_place(self, name: bytes) -> None:
        """Raise `integrity` if `name` is a folder, or if a file is in the place of one of its folders.

        Empty folders are removed, as git does.
        """
        path = self._root + name
        try:
            if stat.S_ISDIR(os.stat(path).st_mode):  # noqa: PTH116 - of bytes, see `_root`
                for folder, _, _ in os.walk(self._path(name), topdown=False):
                    Path(folder).rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            raise _in_the_way(name) from error

    def _make_folders(self, refs: Iterable[bytes]) -> None:
        with suppress(NotADirectoryError):  # reported for the ref that is then locked
            make_folders(map(self._path, dict.fromkeys(map(_folder, refs))))

    def _lock(self, name: bytes, planned: Collection[bytes]) -> _GitFile:
        """Lock `name`. If its folder does not exist, make those of all `planned` refs, at the same cost."""
        deadline = time.monotonic() + _LOCK_PATIENCE
        while True:
            try:
                # No fsync on close: `flush_all` has already synced all files of the set at once.
                return GitFile(self._root + name, "wb", fsync=False)
            except (FileLocked, FileNotFoundError) as error:
                # Held by another writer; or the folder is new, or was just emptied and removed by git.
                if time.monotonic() > deadline:
                    raise BusyError(
                        f"{names.show(name)} is locked by another process: try again",
                        ref=names.show(name),
                    ) from error
                if isinstance(error, FileLocked):
                    time.sleep(0.005)
                self._make_folders(planned)
            except NotADirectoryError as error:
                raise _in_the_way(name) from error

    def restore(self, name: bytes, new: bytes) -> None:
        """Set `name` to `new` regardless of its value, even if damaged: for `gitstore repair`."""
        self.invalidate()
        self.check_place(name)
        lock = self._lock(name, [name])
        try:
            lock.write(new + b"\n")
            flush_all([lock])
            lock.close()
            fsync_folder(self._path(_folder(name)))
        finally:
            release(lock)

    def delete(self, name: bytes, old: bytes) -> bool:
        """Delete `name` if it holds `old`; return whether it was deleted.

        Delegated to git: deleting a packed ref means rewriting packed-refs under its lock.
        """
        self.invalidate()
        child = subprocess.run(
            command(self._folder, "update-ref", "--no-deref", "-d", os.fsdecode(name), old.decode()),
            capture_output=True,
            check=False,
            env=environment(),
        )
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
        with suppress(FileLocked, OSError):
            lock = GitFile(os.fspath(self._folder / "HEAD"), "wb", fsync=False)
            try:
                lock.write(b"ref: " + name + b"\n")
                lock.close()
            finally:
                release(lock)


def _folder(name: bytes) -> bytes:
    return name.rpartition(b"/")[0]


def _in_the_way(name: bytes) -> GitstoreError:
    return IntegrityError(
        f"another file is in the place of {names.show(name)} or its folder: run gitstore verify",
        ref=names.show(name),
    )
