"""Receive Postgres notifications (LISTEN) on a dedicated connection."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final, LiteralString

import psycopg

_SLICE: Final = 0.5  # seconds between checks of the stop event
_PAUSE: Final = 1.0


class Listener(threading.Thread):
    """Thread that sets `wake` at each notification, after each (re)connection, and when it ends.

    A connection sets `wake` because earlier notifications may have been missed. `heard` is called with the
    channel and the payload of each notification before `wake` is set.
    """

    def __init__(
        self,
        conninfo: str,
        wake: threading.Event,
        stop: threading.Event,
        *,
        channels: Sequence[LiteralString],
        heard: Callable[[str, str], None] = lambda _channel, _payload: None,
    ) -> None:
        super().__init__(name="listener", daemon=True)
        self._channels = channels
        self._heard = heard
        self._conninfo = conninfo
        self._wake = wake
        self._stop_asked = stop

    def run(self) -> None:
        while not self._stop_asked.is_set():
            try:
                self._listen()
            except psycopg.Error:
                # The loops also poll, and they report the database error.
                self._stop_asked.wait(_PAUSE)
        self._wake.set()

    def _listen(self) -> None:
        with psycopg.connect(self._conninfo, autocommit=True) as connection:
            for channel in self._channels:
                connection.execute("listen " + channel)
            self._wake.set()
            while not self._stop_asked.is_set():
                for told in connection.notifies(timeout=_SLICE, stop_after=1):
                    self._heard(told.channel, told.payload)
                    self._wake.set()
