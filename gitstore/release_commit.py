"""The commit of a release: its format, and reading it.

A release is a commit at `refs/releases/<name>`, without parents. Its tree has the folder of each workflow's
version as `workflows/<slug>/`, so that a checkout gives the whole release; those trees exist already. The
message is for people, except for its last paragraph:

    Release 2026-48

    The autumn catalogue

    Gitstore-Event: released
    Gitstore-Environment: current
    Gitstore-Item: order-sync v3 published before=v2
    Gitstore-Item: stock v7 chosen before=v5,held
    Gitstore-Issuer, -Subject, -On-Behalf-Of        as in a ledger entry

Each item has the version that its pointer was on before, so that the release can be rolled back.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from dulwich.objects import Commit, ObjectID, Tree

from gitstore import ledger, names
from gitstore.definition.quoting import clip
from gitstore.errors import Code, IntegrityError, NotFoundError
from gitstore.git.commits import new_commit, person, text, utc
from gitstore.model import Environment, Person
from gitstore.names import parse_version
from gitstore.repository import FOLDER, Repository

_EVENT: Final = "released"
_ITEM: Final = re.compile(r"([a-z0-9-]+) (v[0-9]+) (published|chosen) before=(\S+)")
_POINTER: Final = re.compile(r"(?:none|(v[0-9]+)(?::([0-9]{1,3}),(v[0-9]+):[0-9]{1,3})?)(,held)?")


@dataclass(frozen=True, slots=True)
class Pointer:
    """The version of a pointer in some environment: as in `Environment`, or none."""

    version: int | None
    held: bool = False
    weight: int = 100
    second: int | None = None

    @classmethod
    def of(cls, pointer: Environment | None) -> Pointer:
        if pointer is None:
            return cls(None)
        return cls(pointer.version, pointer.held, pointer.weight, pointer.second)

    @classmethod
    def parse(cls, shown: str) -> Pointer | None:
        if (match := _POINTER.fullmatch(shown)) is None:
            return None
        first, weight, second, held = match.groups()
        number, other = (parse_version(each) if each else None for each in (first, second))
        return cls(number, held is not None, int(weight) if weight else 100, other)

    def named(self, environment: str) -> Environment | None:
        """Return the pointer in `environment`, None if it has no version."""
        if self.version is None:
            return None
        return Environment(environment, self.version, self.weight, self.second, self.held)

    def __str__(self) -> str:
        pointer = self.named("")
        shown = "none" if pointer is None else ledger.show_pointer(pointer)
        return f"{shown},held" if self.held else shown


@dataclass(frozen=True, slots=True)
class Item:
    """A version in a release, whether it was `published` by it, and the pointer `before`."""

    slug: str
    version: int
    published: bool
    before: Pointer


@dataclass(frozen=True, slots=True)
class Release:
    """A release: who made it when (UTC), and its items by slug. `new` is False if it existed already."""

    name: str
    commit: str
    environment: str
    message: str
    actor: Person
    when: datetime
    items: tuple[Item, ...]
    new: bool = True


def find(repository: Repository, name: str) -> Release:
    """Return the release `name`. Raises `not_found`, and `integrity` if it is damaged."""
    ref = names.release(name)
    oid = repository.refs.read(ref)
    if names.release_of(ref) is None or oid is None:
        raise NotFoundError(Code.NOT_FOUND, f"there is no release {clip(name)!r}")
    return _parse(repository, name, oid)


def listed(repository: Repository) -> Iterator[Release]:
    """Yield every release, by name. Raises `integrity` for a damaged one."""
    for ref, oid in repository.refs.below(names.RELEASES).items():
        if (name := names.release_of(ref)) is not None:
            yield _parse(repository, name, oid)


def _parse(repository: Repository, name: str, oid: bytes) -> Release:
    commit = repository.objects.commit(oid)
    paragraphs = text(commit.message).rstrip("\n").split("\n\n")
    lines = [line.removeprefix("Gitstore-").partition(": ") for line in paragraphs[-1].split("\n")]
    trailers = {key: value for key, _, value in lines}
    found = [_item(value) for key, _, value in lines if key == "Item"]
    if trailers.get("Event") != _EVENT or "Environment" not in trailers or not all(found):
        shown = names.show(names.release(name))
        raise IntegrityError(f"{shown} is not a release written by gitstore: run gitstore verify", ref=shown)
    return Release(
        name=name,
        commit=oid.decode(),
        environment=trailers["Environment"],
        message="\n\n".join(paragraphs[1:-1]),
        actor=ledger.actor_of(person(commit.author), trailers),
        when=utc(commit.commit_time),
        items=tuple(item for item in found if item is not None),
    )


def _item(shown: str) -> Item | None:
    if (match := _ITEM.fullmatch(shown)) is None or (before := Pointer.parse(match[4])) is None:
        return None
    return Item(match[1], parse_version(match[2]) or 0, match[3] == "published", before)


def _message(release: Release) -> str:
    trailers = [
        ("Event", _EVENT),
        ("Environment", release.environment),
        *(
            ("Item", f"{i.slug} v{i.version} {'published' if i.published else 'chosen'} before={i.before}")
            for i in release.items
        ),
        *ledger.trailers_of(release.actor),
    ]
    block = "\n".join(f"Gitstore-{key}: {value}" for key, value in trailers)
    reason = release.message.replace("\r\n", "\n").strip()
    return "\n\n".join([f"Release {release.name}", *([reason] if reason else []), block])


def compose(release: Release, folders: Sequence[bytes]) -> tuple[list[Tree], Commit]:
    """Return the new trees and the commit of `release`; `folders` are the trees of its items."""
    folder, root = Tree(), Tree()
    for item, oid in zip(release.items, folders, strict=True):
        folder.add(item.slug.encode(), stat.S_IFDIR, ObjectID(oid))
    root.add(FOLDER, stat.S_IFDIR, folder.id)
    commit = new_commit(
        tree=root.id,
        parents=[],
        author=release.actor,
        committer=ledger.COMMITTER,
        when=release.when,
        message=_message(release),
    )
    return [folder, root], commit
