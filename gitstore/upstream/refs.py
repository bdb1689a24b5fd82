"""Match the refs of an upstream to local drafts and versions, in both directions.

Layouts: with `refs`, the upstream has the same refs as this repository. With `folders`, a team keeps its
definitions in workflows/<slug>/ of one repository and tags <slug>/v<N> on any commit of it; its branches are
not considered.
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
    """The way an upstream stores workflows."""

    REFS = "refs"
    FOLDERS = "folders"

    @property
    def prefixes(self) -> tuple[bytes, ...]:
        """The prefixes of the refs that are followed."""
        return (names.TAGS,) if self is Layout.FOLDERS else (names.TAGS, names.DRAFTS)


@dataclass(frozen=True, slots=True)
class RemoteRef:
    """A ref of the upstream that is a draft or a version here, and its value there."""

    target: DraftRef | VersionRef
    theirs: bytes

    @property
    def name(self) -> bytes:
        return names.full(self.target)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result for a remote ref: an effect, or a refusal with the local value of the ref."""

    offer: RemoteRef
    effect: Effect = Effect.NOTHING
    refusal: GitstoreError | None = None
    ours: bytes | None = None


@dataclass(frozen=True, slots=True)
class Blocked:
    """A workflow whose refs cannot be imported for now, and the error."""

    slug: str
    error: GitstoreError


def match_refs(advertised: Refs, layout: Layout) -> list[RemoteRef]:
    """Select the drafts and versions in `advertised`, by workflow: its versions in order, then its draft."""
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
    """Return the runs of missing numbers, (first, last), between `after` and the highest of `numbers`."""
    missing = []
    for number in sorted(numbers):
        if number > after + 1:
            missing.append((after + 1, number - 1))
        after = max(after, number)
    return missing


def pushable(store: Store, advertised: Mapping[bytes, bytes], layout: Layout) -> list[RemoteRef]:
    """Return the local refs that the upstream lacks, or has an older draft of. Never forces an update."""
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
    """Return whether a missing ref is to be pushed: a version or an open draft, not a published draft."""
    try:
        return isinstance(target, VersionRef) or store.state(target.slug).draft_open
    except GitstoreError:
        return False


def _follows(store: Store, target: DraftRef | VersionRef, older: bytes, newer: bytes) -> bool:
    if isinstance(target, VersionRef) or older not in store.objects:
        return False
    return store.objects.is_ancestor(older, newer)
