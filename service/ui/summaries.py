"""Summaries of the versions on a page of the history: one sentence about the changes of each.

Published versions are immutable, so summaries are cached for good. New ones are computed within a time limit:
definitions may be large, and a history page must not be slow.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Final

from gitstore.diff.summary import summary_of
from gitstore.model import Rules
from sync import catalog
from sync.catalog import Version
from sync.db import Transaction

FIRST: Final = "the first version"
_SECONDS: Final = 0.25
_MOST: Final = 20_000

Key = tuple[Rules, str, str, str, str]


class Summaries:
    """Cache of one process's summaries."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._known: dict[Key, str] = {}
        self._lock = threading.Lock()
        self._clock = clock

    def of(self, tx: Transaction, rows: Sequence[Version], rules: Rules) -> dict[int, str]:
        """Return summaries by number, for each of `rows`, in the order of a history, but the last.

        Those beyond the time limit are missing.
        """
        pairs = {new.version_number: (old, new) for new, old in pairwise(rows)}
        keys = {number: _key(rules, old, new) for number, (old, new) in pairs.items()}
        lacking = [number for number, key in keys.items() if key not in self._known]
        ids = {version.id for number in lacking for version in pairs[number]}
        definitions = catalog.definitions(tx, ids)
        deadline = self._clock() + _SECONDS
        for number in lacking:
            if self._clock() > deadline:
                break
            old, new = (definitions.get(version.id) for version in pairs[number])
            if old is None or new is None:
                self._keep(keys[number], "can't be read as a definition")
            else:
                self._keep(keys[number], summary_of(old, new, rules))
        return {number: said for number, key in keys.items() if (said := self._known.get(key)) is not None}

    def _keep(self, key: Key, said: str) -> None:
        with self._lock:
            while len(self._known) >= _MOST:
                del self._known[next(iter(self._known))]
            self._known[key] = said


def _key(rules: Rules, old: Version, new: Version) -> Key:
    return rules, old.blob_sha, old.file_name, new.blob_sha, new.file_name
