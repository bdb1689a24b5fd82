"""Sockets that keep to a budget of time and bytes, in sum, whatever reads from them.

A timeout of urllib3's, or of a socket, is one of each single read: a peer that sends a byte a second, in its
headers, its body or the handshake, holds a thread for ever by it. Here every operation has what is left.
"""

from __future__ import annotations

import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

from gitstore.errors import Code, GitstoreError


class Budget:
    """What an exchange may cost: seconds from now on, and bytes received, all of them together.

    Nothing may come for `stall` seconds at most (None: as long as there is time). Of the bytes, `first` may
    be received before `go_on` is called (None: all).
    """

    def __init__(
        self, seconds: float, size: int, *, stall: float | None = None, first: int | None = None
    ) -> None:
        self.seconds = seconds
        self.stall = stall
        self._deadline = time.monotonic() + seconds
        self._left = size if first is None else min(first, size)
        self._later = size - self._left

    def remaining(self) -> float:
        """Seconds that the next operation may take. Raises TimeoutError where there are none left."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time for this exchange is up")
        return left if self.stall is None else min(left, self.stall)

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._deadline

    def go_on(self) -> None:
        """From now on the rest of the bytes may be received, too."""
        self._left += self._later
        self._later = 0

    def take(self, size: int) -> None:
        """Count `size` bytes; raises `too_large`."""
        self._left -= size
        if self._left < 0:
            raise GitstoreError(Code.TOO_LARGE, "the other side sends more than is accepted")


class _Metered(socket.socket if TYPE_CHECKING else object):  # type: ignore[misc]
    """A socket each of whose operations has what is left of the budget, and no more."""

    budget: Budget | None = None

    def recv_into(self, *arguments: Any) -> int:
        self._limit()
        count: int = super().recv_into(*arguments)
        if self.budget is not None:
            self.budget.take(count)
        return count

    def send(self, *arguments: Any) -> int:
        self._limit()
        sent: int = super().send(*arguments)
        return sent

    def sendall(self, *arguments: Any) -> None:
        self._limit()
        super().sendall(*arguments)

    def _limit(self) -> None:
        if self.budget is not None:
            self.settimeout(self.budget.remaining())


class PlainSocket(_Metered, socket.socket):
    pass


class TlsSocket(_Metered, ssl.SSLSocket):
    pass
