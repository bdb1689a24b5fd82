"""The content of commits and tags (text, people, dates), and the objects that a commit adds."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha1
from typing import Final

from dulwich.objects import Blob, Commit, ObjectID, ShaFile, Tag, Tree

from gitstore.definition.quoting import clip
from gitstore.errors import IntegrityError
from gitstore.git.objects import Objects
from gitstore.model import Person

# Codecs of Python that are no character sets; punycode takes quadratic time.
_NO_CHARSETS = frozenset({"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"})
_LONGEST_ADDRESS = 254  # characters, the same limit as over HTTP
_SPECIAL = dict.fromkeys(map(ord, "<>\n\r\0"))
_LAST_SECOND = 253_402_300_799  # 9999-12-31T23:59:59Z; git allows later dates, Python and Postgres do not
_KINDS: Final[dict[str, type[ShaFile]]] = {"commit": Commit, "tree": Tree, "blob": Blob, "tag": Tag}
_FOLDER = b"40000"
_GITLINK = b"160000"
_PARENTS = 2  # parents that a tree is compared with; more would only exclude more of the known objects

Entries = dict[bytes, tuple[bytes, bytes]]
"""Entries of a tree: name -> (mode, hex id)."""


def utc(seconds: int) -> datetime:
    """Convert a Git date to a time within the range of Python and Postgres."""
    return datetime.fromtimestamp(min(max(seconds, 0), _LAST_SECOND), UTC)


def text(raw: bytes | None, encoding: bytes | None = None) -> str:
    """Decode the text of a commit or tag for display and Postgres; NUL is replaced.

    The encoding is the declared one, if it is known and the text is valid in it; else UTF-8; else Latin-1, in
    which any bytes are valid.
    """
    raw = raw or b""
    for codec in (_codec(encoding), "utf-8"):
        try:
            decoded = raw.decode(codec)
            break
        except ValueError:
            continue
    else:
        decoded = raw.decode("latin-1")
    return decoded.replace("\0", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode()


def _codec(encoding: bytes | None) -> str:
    """Return the name of Python's codec for the declared `encoding`; of UTF-8 if it has none for texts."""
    try:
        name = codecs.lookup((encoding or b"utf-8").decode("ascii")).name
        "".encode(name)
    except (ValueError, LookupError):
        return "utf-8"
    return "utf-8" if name in _NO_CHARSETS else name


def person(line: bytes | None, encoding: bytes | None = None) -> Person:
    """Parse `Name <address>` of an author or tagger line."""
    name, _, address = text(line, encoding).partition("<")
    return Person(clip(name.strip()), clip(address.partition(">")[0].strip(), _LONGEST_ADDRESS))


def ident(who: Person) -> bytes:
    """Format the author line for `who`, without characters that are special to git (see git-commit(1))."""
    name = who.name.translate(_SPECIAL).strip() or "unknown"
    return f"{name} <{who.email.translate(_SPECIAL).strip()}>".encode("utf-8", "replace")


def new_commit(
    *, tree: bytes, parents: list[bytes], author: Person, committer: Person, when: datetime, message: str
) -> Commit:
    """Create a commit with dates in UTC."""
    made = Commit()
    made.tree = ObjectID(tree)
    made.parents = [ObjectID(parent) for parent in parents]
    made.author, made.committer = ident(author), ident(committer)
    made.author_time = made.commit_time = int(when.timestamp())
    made.author_timezone = made.commit_timezone = 0
    made.message = message.replace("\0", "").rstrip("\n").encode("utf-8", "replace") + b"\n"
    return made


def new_tag(name: str, commit: bytes, tagger: Person, when: datetime, message: str) -> Tag:
    """Create an annotated tag of a commit, dated in UTC."""
    made = Tag()
    made.name = name.encode()
    made.object = (Commit, ObjectID(commit))
    made.tagger = ident(tagger)
    made.tag_time, made.tag_timezone = int(when.timestamp()), 0
    made.message = message.replace("\0", "").strip().encode("utf-8", "replace") + b"\n"
    return made


def new_objects(
    objects: Objects, tip: bytes, known: bytes | None, *, steps: int, size: int
) -> Iterator[tuple[bytes, bool]]:
    """Yield the objects that the commit `tip` needs beyond the commit `known`, newest commits first.

    Each item is (id, whether it is a file). No id is repeated; a few may also be reachable from `known`. To
    bound the cost, the walk ends after `steps` commits or once trees of `size` bytes have been read: the
    result is then incomplete.
    """
    trees = _Trees(objects, size)
    for oid in objects.commits_beyond(tip, known, steps):
        yield oid, False
        commit = objects.commit(oid)
        before = [objects.commit(parent).tree for parent in commit.parents[:_PARENTS]]
        yield from trees.new(commit.tree, before)
        if trees.left < 0:
            return


class _Trees:
    """Trees of one walk, each read as rarely as possible. `left` is the remaining budget in bytes."""

    def __init__(self, objects: Objects, size: int) -> None:
        self.left = size
        self._objects = objects
        self._done: set[bytes] = set()
        self._last: dict[bytes, Entries] = {}

    def new(self, tree: bytes, before: list[bytes]) -> Iterator[tuple[bytes, bool]]:
        """Yield `tree` and its content, except entries that a tree of `before` has at the same path."""
        waiting = [(tree, before)]
        while waiting and self.left >= 0:
            folder, old = waiting.pop()
            if folder in old or folder in self._done:
                continue
            self._done.add(folder)
            yield folder, False
            others = [self._entries(other) for other in old]
            for name, (mode, oid) in self._entries(folder).items():
                known = [entries[name] for entries in others if name in entries]
                if mode == _GITLINK or any(oid == other for _, other in known):
                    continue
                if mode == _FOLDER:
                    waiting.append((oid, [other for kind, other in known if kind == _FOLDER]))
                elif oid not in self._done:
                    self._done.add(oid)
                    yield oid, True

    def _entries(self, tree: bytes) -> Entries:
        if tree not in self._last:
            raw = self._objects.tree(tree).as_raw_string()
            self.left -= len(raw)
            if len(self._last) > _PARENTS:
                del self._last[next(iter(self._last))]
            self._last[tree] = _parse(raw)
        return self._last[tree]


def _parse(raw: bytes) -> Entries:
    """Parse a tree. dulwich is not used: its entries take 25 times the size of the tree."""
    entries: Entries = {}
    at = 0
    while at < len(raw):
        space, end = raw.find(b" ", at), raw.find(b"\0", at)
        if not at < space < end:
            raise IntegrityError("a tree is damaged on disk: run gitstore verify")
        entries[raw[space + 1 : end]] = (raw[at:space], raw[end + 1 : end + 21].hex().encode())
        at = end + 21
    return entries


def object_of(oid: str, kind: str, content: bytes) -> ShaFile | None:
    """Return the object, or None if `content` does not hash to the id `oid`."""
    header = f"{kind} {len(content)}\0".encode()
    if sha1(header + content).hexdigest() != oid:  # noqa: S324 - Git's ids
        return None
    return _KINDS[kind].from_string(content)
