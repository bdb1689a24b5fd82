"""Requests of large pushes, made in memory: many drafts, or many versions, with a pack of their objects."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from io import BytesIO

from dulwich.object_format import DEFAULT_OBJECT_FORMAT
from dulwich.objects import Blob, Commit, ShaFile, Tree
from dulwich.pack import write_pack_objects
from dulwich.protocol import pkt_line

from gitstore import names
from gitstore.changes import Authorship
from gitstore.git.commits import new_commit
from gitstore.model import Person
from gitstore.push.receive import CAPABILITIES, Receiver
from gitstore.push.report import PushReport
from gitstore.push.request import ZERO
from gitstore.store import Store

ANN = Person("Ann", "ann@example.test")
_YAML = "nodes:\n- {id: a, type: webhook, data: {label: %s}}\n"


class LargePush:
    """Collects refs and their objects; `request` is what git would send."""

    def __init__(self) -> None:
        self.refs: dict[bytes, tuple[bytes, bytes]] = {}
        self._objects: dict[bytes, ShaFile] = {}

    def commit(self, label: str, *parents: bytes) -> bytes:
        blob, tree = Blob.from_string((_YAML % label).encode()), Tree()
        tree.add(b"workflow.yaml", 0o100644, blob.id)
        commit: Commit = new_commit(
            tree=tree.id, parents=list(parents), author=ANN, committer=ANN,
            when=datetime(2026, 1, 1, tzinfo=UTC), message=label,
        )  # fmt: skip
        self._objects.update((item.id, item) for item in (blob, tree, commit))
        return commit.id

    def put(self, ref: bytes, new: bytes, old: bytes = ZERO) -> None:
        self.refs[ref] = (old, new)

    def drafts(self, slugs: Iterable[str], label: str = "one") -> LargePush:
        """A new draft for each of `slugs`."""
        for slug in slugs:
            self.put(names.draft(slug), self.commit(f"{slug}-{label}"))
        return self

    def versions(self, slug: str, count: int) -> list[bytes]:
        """v1 to v`count` of `slug`, each on the commit before; their commits."""
        commits: list[bytes] = []
        for number in range(1, count + 1):
            commits.append(self.commit(f"{slug}-{number}", *commits[-1:]))
            self.put(names.tag(slug, number), commits[-1])
        return commits

    def request(self, *, atomic: bool = False, backwards: bool = False) -> bytes:
        capabilities = CAPABILITIES.replace(b" push-options", b"")
        if not atomic:
            capabilities = capabilities.replace(b" atomic", b"")
        lines = [b" ".join((old, new, ref)) for ref, (old, new) in self.refs.items()]
        if backwards:
            lines.reverse()
        lines[0] += b"\0" + capabilities
        pack = BytesIO()
        write_pack_objects(pack, list(self._objects.values()), DEFAULT_OBJECT_FORMAT)
        return b"".join(map(pkt_line, lines)) + pkt_line(None) + pack.getvalue()


def push(store: Store, request: bytes) -> dict[str, str]:
    """Push `request` into `store`: ref -> "ok", or the code of the refusal."""
    receiver = Receiver(
        store, Authorship(ANN, store.clock()), lambda *_: None, PushReport(lambda *_: "http://x/")
    )
    receipt = receiver.receive(BytesIO(request).read)
    return {
        names.show(verdict.command.ref): verdict.refusal.code.value if verdict.refusal else "ok"
        for verdict in receipt.verdicts
    }
