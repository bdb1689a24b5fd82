"""The file of a backup: a tar of parts, and its manifest as the last member.

    <stream>/000001 ...     parts of at most `PART` bytes, which make up a stream
    manifest.json           of when, of which projects, after which backup; size and SHA-256 of each part

The manifest comes last, so that a backup can be written to a pipe, and one that was cut off is recognized.
Nothing is extracted to a path that an archive names: parts are read by the names in the manifest, each whole
and checked before it is used.

In a folder, each backup names the one that it adds to; together they are a chain.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import datetime
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, BinaryIO, Final, Literal
from uuid import UUID, uuid4

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from pydantic import BaseModel, ConfigDict, Field

from gitstore.errors import ConfigError, IntegrityError
from gitstore.git.files import flush, fsync_folder
from gitstore.system import now

PART: Final = 8 * 2**20

_MANIFEST: Final = "manifest.json"
_LARGEST_PART: Final = PART + 1024  # an encrypted one has a nonce and a tag
_LARGEST_MANIFEST: Final = 256 * 2**20
_MOST_PARTS: Final = 1_000_000
_LONGEST_LINE: Final = 64 * 2**20
_STEP: Final = 2**20
_NONCE: Final = 12
_GZIP: Final = 31  # as zlib's wbits
_PART_NAME: Final = r"^[a-z_]+(/[0-9a-f-]{36}/[a-z_]+)?/[0-9]{6}$"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Part(_Model):
    """A member of the archive, by its name."""

    name: Annotated[str, Field(pattern=_PART_NAME)]
    size: Annotated[int, Field(ge=0, le=_LARGEST_PART)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class BackedUp(_Model):
    """A project in a backup. One that was created again under the same id has another `created_at`."""

    id: UUID
    slug: Annotated[str, Field(max_length=63)]
    created_at: datetime


class Manifest(_Model):
    """The content of a backup. `migration` is the number of the newest migration of its database.

    `salt` is that of the key made from the passphrase; None where the secrets are left out.
    """

    format: Literal[1]
    id: UUID
    created_at: datetime
    gitstore: Annotated[str, Field(max_length=100)]
    migration: int
    predecessor: UUID | None
    projects: list[BackedUp]
    salt: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None
    parts: list[Part]


def _key(passphrase: str, salt: str) -> AESGCM:
    derived = Scrypt(salt=bytes.fromhex(salt), length=32, n=2**16, r=8, p=1)
    return AESGCM(derived.derive(passphrase.encode()))


class Writer:
    """Writes an archive to `file`, which may be a pipe. Call `finish` at the end."""

    def __init__(self, file: BinaryIO, passphrase: str | None = None) -> None:
        self.id = uuid4()
        self.created_at = now()
        self._tar = tarfile.open(fileobj=file, mode="w|", format=tarfile.PAX_FORMAT)  # noqa: SIM115
        self._salt = secrets.token_hex(16) if passphrase is not None else None
        self._cipher = _key(passphrase, self._salt) if passphrase is not None and self._salt else None
        self._parts: list[Part] = []
        self.size = 0

    @contextmanager
    def stream(self, name: str, *, secret: bool = False) -> Iterator[Callable[[bytes], None]]:
        """Write a stream: yield a function that appends bytes. A `secret` one is encrypted."""
        waiting, number = bytearray(), 0

        def put(content: bytes) -> None:
            nonlocal waiting, number
            waiting += content
            while len(waiting) >= PART:
                number += 1
                self._put(f"{name}/{number:06}", bytes(waiting[:PART]), secret=secret)
                del waiting[:PART]

        yield put
        if waiting:
            self._put(f"{name}/{number + 1:06}", bytes(waiting), secret=secret)

    @contextmanager
    def lines(self, name: str, *, secret: bool = False) -> Iterator[Callable[[str], None]]:
        """Write a stream of lines, compressed: yield a function that appends one."""
        packer, count = zlib.compressobj(wbits=_GZIP), 0
        with self.stream(name, secret=secret) as put:

            def put_line(line: str) -> None:
                nonlocal count
                count += 1
                put(packer.compress(line.encode() + b"\n"))

            yield put_line
            if count:
                put(packer.flush())

    def finish(self, projects: Sequence[BackedUp], migration: int, predecessor: UUID | None) -> Manifest:
        """Write the manifest, without which the archive is incomplete."""
        manifest = Manifest(
            format=1,
            id=self.id,
            created_at=self.created_at,
            gitstore=version("gitstore"),
            migration=migration,
            predecessor=predecessor,
            projects=list(projects),
            salt=self._salt,
            parts=self._parts,
        )
        self._add(_MANIFEST, manifest.model_dump_json().encode())
        self._tar.close()
        return manifest

    def _put(self, name: str, content: bytes, *, secret: bool) -> None:
        if secret:
            assert self._cipher is not None  # noqa: S101 - secrets are written with a passphrase alone
            nonce = secrets.token_bytes(_NONCE)
            content = nonce + self._cipher.encrypt(nonce, content, _bound(self.id, name))
        self._parts.append(Part(name=name, size=len(content), sha256=sha256(content).hexdigest()))
        self._add(name, content)

    def _add(self, name: str, content: bytes) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode, member.mtime = len(content), 0o600, int(self.created_at.timestamp())
        self._tar.addfile(member, io.BytesIO(content))
        self.size += len(content)


def _bound(backup: UUID, name: str) -> bytes:
    """Return the data that an encrypted part is bound to, so that it is of no use elsewhere."""
    return f"{backup} {name}".encode()


class Archive:
    """A complete archive at `path`, for reading. Raises `integrity` where it is damaged or incomplete."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._reading():
            self._tar = tarfile.open(path, mode="r:")  # noqa: SIM115 - closed by `close`
        try:
            with self._reading():
                self._members = dict(self._listed())
            self.manifest = self._read_manifest()
            self._parts = {part.name: part for part in self.manifest.parts}
        except BaseException:
            self.close()
            raise

    def _read_manifest(self) -> Manifest:
        member = self._members.pop(_MANIFEST, None)
        if member is None:
            raise self._damaged("it ends before its manifest: the backup was interrupted")
        try:
            content = json.loads(self._content(member))
            if isinstance(content, dict) and content.get("format", 1) != 1:
                raise ConfigError(f"{self.path} is of a newer gitstore: restore it with that version")
            manifest = Manifest.model_validate(content)
        except (ValueError, RecursionError) as error:  # pydantic's ValidationError is a ValueError
            raise self._damaged("its manifest can't be read") from error
        if {part.name for part in manifest.parts} != self._members.keys():
            raise self._damaged("its parts are not those of its manifest")
        return manifest

    def close(self) -> None:
        self._tar.close()

    def check(self, progress: Callable[[int, int], None]) -> None:
        """Read every part, and compare it with its checksum."""
        for done, name in enumerate(self._parts, start=1):
            self._part(name)
            progress(done, len(self._parts))

    def has(self, stream: str) -> bool:
        return f"{stream}/000001" in self._parts

    def read(self, stream: str) -> Iterator[bytes]:
        """Yield the parts of a stream; nothing where it is missing, and therefore empty."""
        for number in range(1, len(self._parts) + 1):
            if (name := f"{stream}/{number:06}") not in self._parts:
                return
            yield self._part(name)

    def lines(self, stream: str, passphrase: str | None = None) -> Iterator[str]:
        """Yield the lines of a stream; with a `passphrase`, of an encrypted one."""
        parts = self.read(stream)
        if passphrase is not None and self.manifest.salt is not None:
            parts = self._decrypted(stream, _key(passphrase, self.manifest.salt))
        try:
            for line in _lines(parts):
                yield line.decode()
        except (zlib.error, UnicodeDecodeError, _LineTooLongError) as error:
            raise self._damaged(f"{stream} can't be read") from error

    def project(self, project: UUID) -> BackedUp | None:
        return next((one for one in self.manifest.projects if one.id == project), None)

    def _decrypted(self, stream: str, cipher: AESGCM) -> Iterator[bytes]:
        for number, part in enumerate(self.read(stream), start=1):
            bound = _bound(self.manifest.id, f"{stream}/{number:06}")
            try:
                yield cipher.decrypt(part[:_NONCE], part[_NONCE:], bound)
            except (InvalidTag, ValueError) as error:
                raise ConfigError(
                    f"the secrets in {self.path} can't be decrypted: the passphrase is not that of the backup"
                ) from error

    def _listed(self) -> Iterator[tuple[str, tarfile.TarInfo]]:
        names: set[str] = set()
        for member in self._tar:
            most = _LARGEST_MANIFEST if member.name == _MANIFEST else _LARGEST_PART
            is_plain = member.type == tarfile.REGTYPE and not member.issparse()
            if not is_plain or member.size > most or member.name in names or len(names) > _MOST_PARTS:
                raise self._damaged(f"its member {member.name[:100]!a} is none of a backup")
            names.add(member.name)
            yield member.name, member

    def _part(self, name: str) -> bytes:
        content, part = self._content(self._members[name]), self._parts[name]
        if len(content) != part.size or sha256(content).hexdigest() != part.sha256:
            raise self._damaged(f"the checksum of {name} is wrong")
        return content

    def _content(self, member: tarfile.TarInfo) -> bytes:
        with self._reading():
            file = self._tar.extractfile(member)
            return file.read() if file is not None else b""

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise ConfigError(f"there is no backup {self.path}") from error
        except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
            raise self._damaged("it is not a tar file, or its end is missing") from error

    def _damaged(self, what: str) -> IntegrityError:
        return IntegrityError(f"{self.path} is damaged: {what}")


class _LineTooLongError(Exception):
    pass


def _lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the lines of compressed text, inflating a bounded piece at a time."""
    inflater, is_empty = zlib.decompressobj(wbits=_GZIP), True
    line = bytearray()
    for part in parts:
        given, is_empty = part, False
        while given:
            piece = inflater.decompress(given, _STEP)
            given = inflater.unconsumed_tail
            *ended, rest = piece.split(b"\n")
            for end in ended:
                yield bytes(line) + end
                line.clear()
            line += rest
            if len(line) > _LONGEST_LINE:
                raise _LineTooLongError
            if not piece and not given:
                break
    if not is_empty and (line or not inflater.eof or inflater.unused_data):
        raise zlib.error("the stream has no end")


# Files and folders

SUFFIX: Final = ".tar"


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Write the new file `path`, which appears complete and durable at the end of the block, or not at all.

    Raises `config` if it exists.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.exists():
        raise ConfigError(f"{path} exists already: name another file, or a folder")
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            flush(file)
        temporary.rename(path)
    finally:
        temporary.unlink(missing_ok=True)
    fsync_folder(path.parent)


def name_at(moment: datetime) -> str:
    """Return the name of a backup in a folder; names sort by time."""
    return f"gitstore-{moment:%Y%m%dT%H%M%S.%fZ}{SUFFIX}"


def newest_in(folder: Path) -> Path | None:
    """Return the newest backup of a folder, by its name; None in an empty one."""
    return max(folder.glob(f"gitstore-*{SUFFIX}"), default=None)


def remove_interrupted(folder: Path) -> None:
    """Remove what killed backups left in a folder."""
    for path in folder.glob(f".gitstore-*{SUFFIX}.*.part"):
        with suppress(OSError):
            path.unlink()


def newest(path: Path) -> Archive:
    """Open the backup at `path`, a file or the newest of a folder. Raises `config` without one."""
    found = newest_in(path) if path.is_dir() else path
    if found is None:
        raise ConfigError(f"there is no backup in {path}")
    return Archive(found)


@contextmanager
def chain(path: Path) -> Iterator[list[Archive]]:
    """Open the backup at `path`, as `newest` does, and those that it adds to, the oldest first.

    Raises `config` where one of them is missing.
    """
    with ExitStack() as stack:
        archives = [stack.enter_context(closing(newest(path)))]
        folder = archives[0].path.parent
        others = sorted(folder.glob(f"*{SUFFIX}"), reverse=True)
        while (wanted := archives[0].manifest.predecessor) is not None:
            before = next((found for found in map(_opened, others) if _is(found, wanted)), None)
            if before is None:
                raise ConfigError(
                    f"{archives[0].path} only adds to the backup {wanted}, which is not in {folder}, or is "
                    "damaged: put it there, or restore an older backup, by its file"
                )
            archives.insert(0, stack.enter_context(closing(before)))
            if len(archives) > len(others):
                raise IntegrityError(f"{path} is damaged: the backup adds to itself")
        yield archives


def _is(archive: Archive | None, wanted: UUID) -> bool:
    if archive is not None and archive.manifest.id != wanted:
        archive.close()
        return False
    return archive is not None


def _opened(path: Path) -> Archive | None:
    with suppress(IntegrityError, ConfigError):
        return Archive(path)
    return None
