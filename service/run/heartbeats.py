"""Heartbeats of the background worker: the last beat of each of its loops, in a small file.

The process that watches the worker creates the file; the worker writes a time for each loop, from inside that
loop; the processes that serve HTTP read them, for /readyz and /metrics. Times are of the monotonic clock,
which all processes of a machine share. The file lies in the folder of the metrics, on this machine, and is a
few bytes that are overwritten in place.
"""

from __future__ import annotations

import math
import os
import struct
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

LOOPS: Final = ("sync", "delivery", "schedule", "upkeep")
ENDINGS: Final = ("ended", "stalled")
"""Reasons for the replacement of a worker: it exited by itself, or it did not respond and was killed."""
STALL_SECONDS: Final = 20.0
"""Seconds without a beat of one loop, after which the worker is replaced."""

_FILE: Final = "worker-heartbeats"
_SLOTS: Final = struct.Struct(f"={len(LOOPS) + len(ENDINGS)}d")
_SLOT: Final = struct.Struct("=d")
_OFF: Final = math.inf


class Heartbeats:
    """Heartbeat file below `folder`. A loop that the settings do not allow to run is `off`."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        self._handle = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        if os.fstat(self._handle).st_size < _SLOTS.size:
            os.pwrite(self._handle, _SLOTS.pack(*[0.0] * (len(LOOPS) + len(ENDINGS))), 0)

    def close(self) -> None:
        os.close(self._handle)

    def beat(self, loop: str) -> None:
        """Record that `loop` is alive now. Called by the thread of that loop."""
        self._write(LOOPS.index(loop), time.monotonic())

    def off(self, loop: str) -> None:
        self._write(LOOPS.index(loop), _OFF)

    def begin(self, at: float) -> None:
        """Count every loop as alive at `at`, when a worker is started."""
        for number in range(len(LOOPS)):
            self._write(number, at)

    def count(self, ending: str) -> None:
        """Count a worker that was replaced. Called only by the process that watches it."""
        number = len(LOOPS) + ENDINGS.index(ending)
        self._write(number, _SLOTS.unpack(os.pread(self._handle, _SLOTS.size, 0))[number] + 1)

    def ages(self, now: float | None = None) -> Mapping[str, float]:
        """Return the seconds since the last beat of each loop that is not off."""
        return _ages(os.pread(self._handle, _SLOTS.size, 0), now)

    def _write(self, slot: int, value: float) -> None:
        os.pwrite(self._handle, _SLOT.pack(value), slot * _SLOT.size)


def read(folder: Path | None) -> tuple[Mapping[str, float], Mapping[str, int]] | None:
    """Return the seconds since each loop's last beat, and the number of replacements by reason.

    None if this service does not watch a worker.
    """
    with suppress(OSError, struct.error):
        if folder is not None:
            slots = (folder / _FILE).read_bytes()
            counts = [int(count) for count in _SLOTS.unpack(slots)[len(LOOPS) :]]
            return _ages(slots, None), dict(zip(ENDINGS, counts, strict=True))
    return None


def _ages(slots: bytes, now: float | None) -> Mapping[str, float]:
    at = time.monotonic() if now is None else now
    beats = zip(LOOPS, _SLOTS.unpack(slots), strict=False)
    return {loop: max(at - beat, 0.0) for loop, beat in beats if beat != _OFF}
