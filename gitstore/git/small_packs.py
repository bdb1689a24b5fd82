"""Packs that gitstore writes: the objects of one write in two files, and few packs at any time.

A loose object costs an fsync of its file and one of its folder; a pack costs three in total. But every git
that looks for an object opens the packs. So the pack that would be number `AT_ONCE` of a size class gets the
objects of the others, too, and replaces them: fewer than `AT_ONCE` of each class stay, and an object is
copied once for each. Where something holds that up, a writer that finds `MOST` packs writes loose objects.

Packs are immutable. A combined pack is durable before the packs that it replaces are removed, the index of
each first: a pack exists once its index does. A process that has one open reads on, and git looks again for
an object that is no longer where it was. `removing_packs` excludes git's own maintenance and fsck.

Formats: gitformat-pack(5), version 2 of both. No entry is a delta. A pack with deltas, which a push has sent,
is read by dulwich and combined by git.
"""

from __future__ import annotations

import os
import threading
import zlib
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from hashlib import sha1
from itertools import pairwise
from pathlib import Path
from struct import pack as packed
from typing import Final
from uuid import uuid4

from dulwich.objects import ObjectID, ShaFile

from gitstore.git.files import flush, make_folder, open_folder
from gitstore.system import try_lock

AT_ONCE: Final = 16
MOST: Final = 80
_CLASSES: Final = (32, 512, 8192)
"""Numbers of objects below which a pack belongs to a class. Larger packs are left to git's maintenance."""
_LOCK: Final = "gitstore-gc.running"
_MOST_FOLDERS: Final = 200  # repositories whose indexes a process keeps
_MOST_BYTES: Final = 2 * 2**20  # of a pack that is combined with others
_LARGEST_KEPT: Final = 64 * 2**10  # bytes of an object in memory
_MOST_KEPT: Final = 4 * 2**20
_EACH: Final = 300  # bytes that an object in memory takes in addition
_CHUNK: Final = 4096
_TRAILER: Final = 20  # bytes of a checksum
_FANOUT, _OIDS = 8, 8 + 4 * 256  # offsets in an index
_DELTAS: Final = (6, 7)

Entry = tuple[bytes, bytes]
"""The id of an object (20 bytes) and its entry in a pack: header and compressed content."""


@contextmanager
def removing_packs(repository: Path) -> Iterator[bool]:
    """Hold the lock of a process that may remove packs within the block; yield whether it was free."""
    handle = os.open(repository / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        yield try_lock(handle)
    finally:
        os.close(handle)


def entry_of(item: ShaFile) -> Entry:
    content = item.as_raw_string()
    size = len(content)
    first, size = item.type_num << 4 | size & 15, size >> 4
    header = bytearray()
    while size:
        header.append(first | 128)
        first, size = size & 127, size >> 7
    header.append(first)
    return bytes.fromhex(item.id.decode()), bytes(header) + zlib.compress(content)


def write(folder: Path, entries: Iterable[Entry], count: int) -> tuple[str, Index]:
    """Write a pack of `count` different entries into `folder`, durable on return; return name and index."""
    index: list[tuple[bytes, bytes, bytes]] = []
    unique = uuid4().hex
    temporary = [f"tmp_{kind}_{unique}" for kind in ("pack", "idx")]
    handle = _open_or_make(folder)
    try:
        checksum = sha1()  # noqa: S324 - the format's, as below
        with open(_create(temporary[0], handle), "wb") as file:
            at = 12
            part = b"PACK" + packed(">II", 2, count)
            file.write(part)
            checksum.update(part)
            for oid, entry in entries:
                # Signed, so that an offset which needs another form, beyond 2 GiB, is an error.
                index.append((oid, packed(">I", zlib.crc32(entry)), packed(">i", at)))
                at += file.write(entry)
                checksum.update(entry)
            file.write(checksum.digest())
            flush(file)
        with open(_create(temporary[1], handle), "wb") as file:
            content = _index(sorted(index), checksum.digest())
            content += sha1(content).digest()  # noqa: S324 - the format's
            file.write(content)
            flush(file)
        name = f"pack-{checksum.hexdigest()}"
        # The index first: git before 2.42, when it repacks, removes a pack whose index it did not find.
        for path, suffix in zip(reversed(temporary), (".idx", ".pack"), strict=True):
            os.rename(path, f"{name}{suffix}", src_dir_fd=handle, dst_dir_fd=handle)
        os.fsync(handle)
    except BaseException:
        for path in temporary:
            with suppress(FileNotFoundError):
                os.unlink(path, dir_fd=handle)
        raise
    finally:
        os.close(handle)
    return name, Index(content)


def _open_or_make(folder: Path) -> int:
    try:
        return open_folder(folder)
    except FileNotFoundError:
        make_folder(folder)
        return open_folder(folder)


def _create(name: str, folder: int) -> int:
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o444, dir_fd=folder)


def _index(entries: Sequence[tuple[bytes, bytes, bytes]], checksum: bytes) -> bytes:
    counts = [0] * 256
    for oid, _, _ in entries:
        counts[oid[0]] += 1
    total = 0
    for byte, number in enumerate(counts):
        counts[byte] = total = total + number
    columns = (b"".join(column) for column in zip(*entries, strict=True))
    return b"\377tOc\0\0\0\2" + packed(">256I", *counts) + b"".join(columns) + checksum


class Index:
    """The index of a pack, in memory. `settled` packs are not combined with others."""

    def __init__(self, data: bytes) -> None:
        if not data.startswith(b"\377tOc\0\0\0\2") or len(data) < _OIDS:
            raise ValueError("not an index of version 2")
        self._data = data
        self.count = int.from_bytes(data[_OIDS - 4 : _OIDS])
        self.settled = self.count >= _CLASSES[-1]
        self._offsets = _OIDS + 24 * self.count
        if len(data) < self._offsets + 4 * self.count + 2 * _TRAILER:
            raise ValueError("the index is truncated")

    def offset(self, oid: bytes) -> int | None:
        """Return where the entry of `oid` begins in the pack."""
        at = _FANOUT + 4 * oid[0]
        low = int.from_bytes(self._data[at - 4 : at]) if oid[0] else 0
        high = int.from_bytes(self._data[at : at + 4])
        # Faster than a binary search: the ids with one first byte are few.
        start, end = _OIDS + 20 * low, _OIDS + 20 * high
        found = self._data.find(oid, start, end)
        while found >= 0 and (found - start) % 20:
            found = self._data.find(oid, found + 1, end)
        return self._offset((found - _OIDS) // 20) if found >= 0 else None

    def entries(self, pack: bytes) -> list[Entry]:
        """Return the entries of the whole pack. Raises ValueError if it is damaged, or has deltas."""
        order = sorted((self._offset(number), number) for number in range(self.count))
        ends = [*(at for at, _ in order), len(pack) - _TRAILER]
        found = []
        for (at, number), (_, end) in zip(order, pairwise(ends), strict=True):
            entry = pack[at:end]
            crc = self._offsets - 4 * self.count + 4 * number
            if zlib.crc32(entry) != int.from_bytes(self._data[crc : crc + 4]) or _kind(entry) in _DELTAS:
                raise ValueError("an entry is damaged, or a delta")
            found.append((self._oid(number), entry))
        return found

    def _oid(self, number: int) -> bytes:
        return self._data[_OIDS + 20 * number : _OIDS + 20 * number + 20]

    def _offset(self, number: int) -> int:
        at = self._offsets + 4 * number
        return int.from_bytes(self._data[at : at + 4])


def _kind(entry: bytes) -> int:
    return entry[0] >> 4 & 7


class SmallPacks:
    """The small packs of repositories, as a process knows them, and objects that it read from them or wrote.

    Safe to share between threads. What is known of a folder may be old: a pack that it names may be gone, and
    others may exist.
    """

    def __init__(self) -> None:
        self._folders: dict[str, dict[str, Index | None]] = {}
        self._stamps: dict[str, int] = {}
        self._objects: dict[tuple[str, bytes], tuple[int, bytes]] = {}
        self._size = 0
        self._lock = threading.Lock()

    def read(self, folder: str, oid: bytes) -> ShaFile | None:
        """Return the object `oid` (hex) if a known pack in `folder` has it."""
        for path, offset in self._places(folder, oid):
            if (known := self._objects.get((folder, oid))) is not None:
                return ShaFile.from_raw_string(*known, ObjectID(oid))
            with suppress(OSError, ValueError, zlib.error, IndexError):
                kind, content = _read_entry(path, offset)
                found = ShaFile.from_raw_string(kind, content)
                if found.id == oid:
                    self._remember(folder, oid, kind, content)
                    return found
        return None

    def _remember(self, folder: str, oid: bytes, kind: int, content: bytes) -> None:
        """Keep the content of a small object: a request often reads what the one before has written."""
        if len(content) > _LARGEST_KEPT:
            return
        with self._lock:
            if self._size > _MOST_KEPT:
                self._objects.clear()
                self._size = 0
            self._objects[folder, oid] = kind, content
            self._size += len(content) + _EACH

    def size(self, folder: str, oid: bytes) -> int | None:
        """Return the size of the object `oid` (hex), as `read` finds it."""
        for path, offset in self._places(folder, oid):
            with suppress(OSError, IndexError), _opened(path) as file:
                return _header(os.pread(file, _CHUNK, offset))[1]
        return None

    def has(self, folder: str, oid: bytes) -> bool:
        """Return whether a known pack in `folder`, which still exists, has `oid` (hex)."""
        return any(os.path.exists(path) for path, _ in self._places(folder, oid))  # noqa: PTH110 - the path is a str

    def _places(self, folder: str, oid: bytes) -> Iterator[tuple[str, int]]:
        known = self._folders.get(folder)
        raw = bytes.fromhex(oid.decode()) if known else b""
        for name, index in known.items() if known else ():
            offset = index.offset(raw) if index is not None else None
            if offset is not None:
                yield f"{folder}/{name}.pack", offset

    def refresh(self, folder: str) -> bool:
        """Learn which packs `folder` has, if it changed since; return whether it did."""
        try:
            stamp = os.stat(folder).st_mtime_ns  # noqa: PTH116 - the path is a str
        except FileNotFoundError:
            return False
        if stamp == self._stamps.get(folder):
            return False
        self._stamps[folder] = stamp
        self._list(folder)
        return True

    def _list(self, folder: str) -> None:
        """Learn which packs `folder` has."""
        files = {*os.listdir(folder)}  # noqa: PTH208 - the path is a str
        present = {name[:-4] for name in files if name.endswith(".idx") and f"{name[:-4]}.pack" in files}
        known = self._folders.get(folder, {})
        kept = {name: index for name, index in known.items() if name in present}
        kept.update((name, _small_index(f"{folder}/{name}.idx")) for name in present if name not in kept)
        self._put(folder, kept)

    def _put(self, folder: str, known: dict[str, Index | None]) -> None:
        with self._lock:
            self._folders.pop(folder, None)
            self._folders[folder] = known
            if len(self._folders) > _MOST_FOLDERS:
                oldest = next(iter(self._folders))
                self._folders.pop(oldest)
                self._stamps.pop(oldest, None)

    def write(self, folder: str, items: Sequence[ShaFile]) -> bool:
        """Write `items`, each of another id, as one pack, durable on return; it replaces packs that are many.

        Return whether that was done: not if `folder` has `MOST` packs, which cannot be combined now.
        """
        with self._replaceable(folder) as names:
            if not names and len(self._folders.get(folder, ())) >= MOST:
                return False
            self._combine(folder, names, dict(map(entry_of, items)))
        for item in items:
            self._remember(folder, item.id, item.type_num, item.as_raw_string())
        return True

    @contextmanager
    def _replaceable(self, folder: str) -> Iterator[list[str]]:
        """Yield the names of the packs that a new one may replace within the block."""
        if folder not in self._folders:
            self.refresh(folder)
        if not self._many(folder):
            yield []
            return
        with removing_packs(Path(folder).parent.parent) as free:
            if free:
                self._list(folder)
            yield self._many(folder) if free else []

    def combine_all(self, folder: str) -> None:
        """Combine the packs of all classes into one. Requires `removing_packs`."""
        self.refresh(folder)
        self._combine(folder, [name for names in self._by_class(folder) for name in names], {})

    def _many(self, folder: str) -> list[str]:
        """Return the names of the packs of each class that has no room for another one."""
        full = (names for names in self._by_class(folder) if len(names) >= AT_ONCE - 1)
        return [name for names in full for name in names]

    def _by_class(self, folder: str) -> list[list[str]]:
        classes: list[list[str]] = [[] for _ in _CLASSES]
        for name, index in self._folders.get(folder, {}).items():
            if index is not None and not index.settled:
                classes[bisect_right(_CLASSES, index.count)].append(name)
        return classes

    def _combine(self, folder: str, names: Sequence[str], new: dict[bytes, bytes]) -> None:
        """Write one pack with `new` entries, and with those of the packs `names`, which it replaces."""
        known = dict(self._folders.get(folder, {}))
        entries: dict[bytes, bytes] = {}
        done = []
        for name in names:
            index = known.get(name)
            if index is None:
                continue
            try:
                entries.update(index.entries(_content(f"{folder}/{name}.pack")))
                done.append(name)
            except (OSError, ValueError, IndexError):
                index.settled = True  # it is gone, or damaged, or too large, or it has deltas
        if not new and len(done) < 2:
            return
        entries.update(new)
        made, index = write(Path(folder), entries.items(), len(entries))
        replaced = [name for name in done if name != made]
        for name in replaced:
            del known[name]
        self._put(folder, {**known, made: index})
        if replaced:
            with _opened(folder) as handle:
                present = {*os.listdir(handle)}  # noqa: PTH208 - an open folder
                for file in (f"{name}{suffix}" for name in replaced for suffix in (".rev", ".idx", ".pack")):
                    if file in present:
                        with suppress(FileNotFoundError):
                            os.unlink(file, dir_fd=handle)


@contextmanager
def _opened(path: str) -> Iterator[int]:
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


def _content(path: str) -> bytes:
    """Return the content of a pack that may be combined with others. Raises ValueError for a larger one."""
    with _opened(path) as file:
        data = os.read(file, _MOST_BYTES + 1)
    if len(data) > _MOST_BYTES:
        raise ValueError("too large")
    return data


def _small_index(path: str) -> Index | None:
    """Return the index of a pack; None for a large one, and one that is gone or damaged."""
    largest = _OIDS + 28 * _CLASSES[-1] + 2 * _TRAILER
    try:
        with _opened(path) as file:
            data = os.read(file, largest + 1)
        return Index(data) if len(data) <= largest else None
    except (OSError, ValueError):
        return None


def _read_entry(path: str, offset: int) -> tuple[int, bytes]:
    """Return the type and the content of the object at `offset`. Raises ValueError for a delta."""
    with _opened(path) as file:
        data = os.pread(file, _CHUNK, offset)
        kind, size, start = _header(data)
        if kind in _DELTAS:
            raise ValueError("a delta")
        offset += len(data)
        inflater = zlib.decompressobj()
        content = [inflater.decompress(data[start:])]
        while not inflater.eof:
            data = os.pread(file, max(size, _CHUNK), offset)
            if not data:
                raise ValueError("the pack is truncated")
            offset += len(data)
            content.append(inflater.decompress(data))
    return kind, b"".join(content)


def _header(data: bytes) -> tuple[int, int, int]:
    """Return type, size of the object, and the offset at which its compressed content begins."""
    size, shift, at = data[0] & 15, 4, 1
    while data[at - 1] & 128:
        size |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
    return _kind(data), size, at
