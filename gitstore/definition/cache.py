"""Cache of parsed definitions, safe to share between threads and repositories.

A write judges, compares and mirrors the same definitions, and the next write compares with its result.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final
from uuid import UUID

from gitstore.model import Definition, Rules

ROOM: Final = 2**20
"""Bytes of cached definitions, which take some twenty times that in memory once parsed."""

Key = tuple[UUID, Rules, bytes, str]
"""Project, rules, blob and file name. Do not modify a cached definition: it is shared."""


class DefinitionCache:
    """The most recently used definitions that fit into `room`, and the very last one in any case."""

    def __init__(self, room: int = ROOM) -> None:
        self._room = room
        self._kept: OrderedDict[Key, Definition] = OrderedDict()
        self._size = 0
        self._lock = threading.Lock()

    def get(self, key: Key) -> Definition | None:
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: Key, definition: Definition) -> None:
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = definition
            self._size += len(definition.raw)
            while self._size > self._room and len(self._kept) > 1:
                _, oldest = self._kept.popitem(last=False)
                self._size -= len(oldest.raw)
