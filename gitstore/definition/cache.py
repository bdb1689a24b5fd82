"""Definitions that were parsed, kept for who needs the same next: a write judges, compares and mirrors them,
and the next write compares with what this one left. Safe to share between threads and repositories.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final
from uuid import UUID

from gitstore.model import Definition, Rules

ROOM: Final = 2**20
"""Bytes of definitions, which take some twenty times that in memory when they are parsed."""

Key = tuple[UUID, Rules, bytes, str]
"""Project, rules, blob and file name. A definition is read only: it is given to many."""


class DefinitionCache:
    """The definitions asked for last, as far as there is room for them, and the very last in any case."""

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
