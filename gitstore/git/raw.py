"""Raw objects from another store: kind, content without Git's header, and the resulting id."""

from __future__ import annotations

from hashlib import sha1
from typing import Final

from dulwich.objects import Blob, Commit, ShaFile, Tag, Tree

__all__ = ["ShaFile", "object_of"]

_KINDS: Final[dict[str, type[ShaFile]]] = {"commit": Commit, "tree": Tree, "blob": Blob, "tag": Tag}


def object_of(oid: str, kind: str, content: bytes) -> ShaFile | None:
    """Return the object, or None if `content` does not hash to the id `oid`."""
    header = f"{kind} {len(content)}\0".encode()
    if sha1(header + content).hexdigest() != oid:  # noqa: S324 - Git's ids
        return None
    return _KINDS[kind].from_string(content)
