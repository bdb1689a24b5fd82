"""The refs of an upstream, matched with those of this repository.

A workflow may have been renamed on one side only. Therefore a ref of the upstream under any name that the
workflow has had here is this workflow's: after `orders` was renamed to `sales` at v2, the tag `orders/v3` of
the upstream is `sales/v3` here, and its branch `drafts/orders` is `drafts/sales`. What the upstream has under
a former name is not pushed again under another.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Final

from gitstore import names
from gitstore.errors import GitstoreError
from gitstore.names import DraftRef, MisnamedRef, VersionRef
from gitstore.repository import Repository

MOST_MISNAMED: Final = 1000  # refs of one upstream that are reported


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
    """A draft or a version under its name here and its name upstream, `remote`, and its value there.

    `target` has the present slug of the workflow.
    """

    target: DraftRef | VersionRef
    theirs: bytes
    name: bytes
    remote: bytes

    @property
    def order(self) -> tuple[str, bool, int, bool]:
        """The sort key: by workflow, versions before the draft, and the name that is used here first."""
        other = self.name != self.remote
        match self.target:
            case VersionRef(slug, number):
                return slug, False, number, other
            case DraftRef(slug):
                return slug, True, 0, other


class RefMatching:
    """Matches the refs of one upstream in `layout` with those of `repository`, during one sync."""

    def __init__(self, repository: Repository, layout: Layout) -> None:
        self._repository = repository
        self._layout = layout
        self._names: dict[str, list[str]] = {}

    def here(self, target: DraftRef | VersionRef, theirs: bytes = b"") -> RemoteRef:
        """Return the ref here for `target`, which has the upstream's name of the workflow."""
        known = self._names_of(target.slug)
        match target:
            case DraftRef():
                own: DraftRef | VersionRef = DraftRef(known[-1])
                name = names.full(own)
            case VersionRef(_, number):
                own = VersionRef(known[-1], number)
                name = names.full(own) if len(known) == 1 else self._repository.tag(known[-1], number)
        return RemoteRef(own, theirs, name, names.full(target))

    def there(self, target: DraftRef | VersionRef) -> list[bytes]:
        """Return every name that the ref may have upstream; that under the present slug comes first."""
        slugs = reversed(self._names_of(target.slug))
        if isinstance(target, DraftRef):
            return [names.draft(slug) for slug in slugs]
        return [names.tag(slug, target.number) for slug in slugs]

    def _names_of(self, slug: str) -> list[str]:
        """Return every name of the workflow that is or was called `slug`, the present one last."""
        if slug not in self._names:
            try:
                present = self._repository.renamed_to(slug) or slug
            except GitstoreError:  # damage, which the import of the workflow reports
                present = slug
            self._names[slug] = self._repository.all_names(present)
        return self._names[slug]

    def match(self, advertised: Mapping[bytes, bytes]) -> list[RemoteRef]:
        """Select the drafts and versions in `advertised`, by workflow: its versions in order, then drafts."""
        refs = []
        for name, oid in advertised.items():
            target = names.parse(name) if name.startswith(self._layout.prefixes) else None
            if target is not None:
                refs.append(self.here(target, oid))
        return sorted(refs, key=lambda ref: ref.order)

    def pushable(
        self, advertised: Mapping[bytes, bytes], before: Collection[bytes], synced: Callable[[bytes], bool]
    ) -> list[RemoteRef]:
        """Return the refs here that the upstream lacks, or has an older draft of. Never forces an update.

        Each goes to the name that the upstream has it under, or had `before`. Only names for which `synced`
        is true are considered. `theirs` of the result is the value to push.
        """
        refs = []
        for prefix in self._layout.prefixes:
            for name, oid in self._repository.refs.below(prefix).items():
                target = names.parse(name)
                if target is None:
                    continue
                known = [name, *self.there(target)]
                remote = next((each for held in (advertised, before) for each in known if each in held), name)
                theirs = advertised.get(remote)
                if theirs == oid or not synced(remote):
                    continue
                if self._is_new(target) if theirs is None else self._follows(target, theirs, oid):
                    refs.append(RemoteRef(self.here(target).target, oid, name, remote))
        return sorted(refs, key=lambda ref: ref.order)

    def _is_new(self, target: DraftRef | VersionRef) -> bool:
        """Return whether a missing ref is to be pushed: a version or an open draft, not a published draft."""
        try:
            return isinstance(target, VersionRef) or self._repository.state(target.slug).draft_open
        except GitstoreError:
            return False

    def _follows(self, target: DraftRef | VersionRef, older: bytes, newer: bytes) -> bool:
        objects = self._repository.objects
        return isinstance(target, DraftRef) and older in objects and objects.is_ancestor(older, newer)


def misnamed_refs(advertised: Mapping[bytes, bytes], layout: Layout) -> list[MisnamedRef]:
    """Select the refs that only look like drafts or versions, by name: at most MOST_MISNAMED."""
    followed = (name for name in sorted(advertised) if name.startswith(layout.prefixes))
    return list(islice(filter(None, map(names.misnamed, followed)), MOST_MISNAMED))


def gaps(numbers: Iterable[int], after: int) -> list[tuple[int, int]]:
    """Return the runs of missing numbers, (first, last), between `after` and the highest of `numbers`."""
    missing = []
    for number in sorted(numbers):
        if number > after + 1:
            missing.append((after + 1, number - 1))
        after = max(after, number)
    return missing
