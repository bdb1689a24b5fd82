"""View of a version that several pages share: its drawing, text and problems."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gitstore.drafts import File
from gitstore.model import Problems, Rules, Snapshot
from gitstore.repository import Repository
from service.ui.graph import Graph, draw
from service.ui.texts import Text, highlighted
from sync.catalog import FullVersion, Version


@dataclass(frozen=True, slots=True)
class VersionView:
    """One version for display. `graph` is None if it has no graph to draw."""

    version: Version
    graph: Graph | None
    problems: Problems

    @property
    def narrow(self) -> bool:
        return self.graph is not None and self.graph.narrow

    def beside(self) -> VersionView:
        """Return the view for half the width of the page."""
        return replace(self, graph=self.graph.beside() if self.graph else None)


def seen(store: Repository, version: FullVersion, rules: Rules, prefix: str, *, judged: bool) -> VersionView:
    """Return the view of `version`, with its problems if `judged`. Keys of its boxes begin with `prefix`."""
    problems = Problems()
    if judged:
        problems = snapshot(store, version).problems
    graph = None
    if version.definition is not None and rules is Rules.MESHHOOK:
        graph = draw(version.definition, prefix, [problem.node for problem in problems if problem.error])
    return VersionView(version, graph, problems)


def snapshot(store: Repository, version: Version) -> Snapshot:
    """Return the content of the version's commit, read from Git: with lines and columns."""
    return store.snapshot(version.slug, version.commit_sha)


def file_of(store: Repository, version: Version) -> File:
    return File(version.file_name, store.objects.blob(version.blob_sha.encode()))


def text_of(store: Repository, version: Version) -> Text:
    file = file_of(store, version)
    return highlighted(file.raw.decode(errors="replace"), file.name)
