"""What two repositories have to say to each other: refs of an upstream that mean something here, and back.

Layouts: in `refs`, the upstream holds the same refs as this repository. In `folders`, a team keeps its
definitions in workflows/<slug>/ of one repository, and tags <slug>/v<N> on any commit of it; its branches are
its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from gitstore import names
from gitstore.errors import GitstoreError
from gitstore.names import DraftRef, VersionRef
from gitstore.policy import Effect
from gitstore.store import Store
from gitstore.upstream.remote import Refs


class Layout(StrEnum):
    """How an upstream keeps workflows."""

    REFS = "refs"
    FOLDERS = "folders"

    @property
    def prefixes(self) -> tuple[bytes, ...]:
        """Where the refs that are followed stand."""
        return (names.TAGS,) if self is Layout.FOLDERS else (names.TAGS, names.DRAFTS)


@dataclass(frozen=True, slots=True)
class RemoteRef:
    """A ref of the upstream that means something here, and what it holds there."""

    target: DraftRef | VersionRef
    theirs: bytes

    @property
    def name(self) -> bytes:
        return names.full(self.target)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an offer: an effect, or a refusal beside what the ref holds here."""

    offer: RemoteRef
    effect: Effect = Effect.NOTHING
    refusal: GitstoreError | None = None
    ours: bytes | None = None


@dataclass(frozen=True, slots=True)
class Blocked:
    """A workflow none of whose refs could be taken now, and why."""

    slug: str
    error: GitstoreError


def match_refs(advertised: Refs, layout: Layout) -> list[RemoteRef]:
    """What of `advertised` means something here: by workflow, its versions in order, its draft last."""
    found = []
    for name, oid in advertised.items():
        target = names.parse(name) if name.startswith(layout.prefixes) else None
        if target is not None:
            found.append(RemoteRef(target, oid))
    return sorted(found, key=_order)


def _order(offer: RemoteRef) -> tuple[str, bool, int]:
    match offer.target:
        case VersionRef(slug, number):
            return slug, False, number
        case DraftRef(slug):
            return slug, True, 0


def gaps(numbers: Iterable[int], after: int) -> list[tuple[int, int]]:
    """The runs of numbers that are missing between `after` and the highest of `numbers`."""
    missing = []
    for number in sorted(numbers):
        if number > after + 1:
            missing.append((after + 1, number - 1))
        after = max(after, number)
    return missing


def pushable(store: Store, advertised: Mapping[bytes, bytes], layout: Layout) -> list[RemoteRef]:
    """The refs that are here and that the upstream lacks, or has an older draft of. Never by force."""
    found = []
    for prefix in layout.prefixes:
        for name, oid in store.refs.below(prefix).items():
            target, theirs = names.parse(name), advertised.get(name)
            if target is None or theirs == oid:
                continue
            if _is_new(store, target) if theirs is None else _follows(store, target, theirs, oid):
                found.append(RemoteRef(target, oid))
    return sorted(found, key=_order)


def _is_new(store: Store, target: DraftRef | VersionRef) -> bool:
    """A version, or a draft that is open: one that was published need not be seen there any more."""
    try:
        return isinstance(target, VersionRef) or store.state(target.slug).draft_open
    except GitstoreError:
        return False


def _follows(store: Store, target: DraftRef | VersionRef, older: bytes, newer: bytes) -> bool:
    if isinstance(target, VersionRef) or older not in store.objects:
        return False
    return store.objects.is_ancestor(older, newer)
