"""What a loop reports of ticks that fail."""

from __future__ import annotations

import threading

import pytest

from gitstore.errors import BusyError, GitstoreError, UnavailableError
from webhooks import lease_loop
from webhooks.lease_loop import Loop

BUSY, UNAVAILABLE = BusyError("deadlock with another writer"), UnavailableError("no database")


class Scripted(Loop):
    """A loop whose ticks raise the given errors in turn, and succeed at None; then it stops."""

    def __init__(self, *script: GitstoreError | None) -> None:
        self.lines: list[str] = []
        self.script = iter(script)
        super().__init__(threading.Event(), report=lambda error: self.lines.append(str(error)))

    def tick(self) -> float:
        for error in self.script:
            if error is not None:
                raise error
            return 0.0
        self._stop.set()
        return 0.0

    def recovered(self) -> None:
        self.lines.append("recovered")


@pytest.mark.parametrize(
    ("script", "lines"),
    [
        ([UNAVAILABLE, UNAVAILABLE, None], ["no database", "recovered"]),
        ([BUSY, None, BUSY, None], []),
        ([BUSY, BUSY, BUSY, None], ["deadlock with another writer", "recovered"]),
        ([BUSY, UNAVAILABLE, None, UNAVAILABLE], ["no database", "recovered", "no database", "recovered"]),
    ],
)
def test_a_failure_is_reported_once_and_a_conflict_of_locks_if_it_lasts(
    script: list[GitstoreError | None], lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_loop, "_PAUSES", (0.0,))
    loop = Scripted(*script)
    loop.run()
    assert loop.lines == lines
