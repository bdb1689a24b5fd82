"""Sockets with a total budget of time and bytes for a whole exchange.

A timeout of urllib3 or of a socket applies to each single read, so a peer that sends one byte a second in its
headers, its body or the handshake can occupy a thread forever. Here each operation gets the remaining time.
"""

from __future__ import annotations

import socket
import ssl
import time
from typing import TYPE_CHECKING, Any

from gitstore.errors import TooLargeError


class Budget:
    """Total limits of an exchange: `seconds` from its creation and `size` bytes received.

    `stall` is the longest silence in seconds (None: limited by the total time only). `first` is the number of
    bytes that may be received before `go_on` is called (None: all).
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
        """Return the seconds that the next operation may take. Raises TimeoutError if no time is left."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the time for this exchange is up")
        return left if self.stall is None else min(left, self.stall)

    @property
    def is_over(self) -> bool:
        return time.monotonic() >= self._deadline

    def go_on(self) -> None:
        """Allow the bytes beyond `first` to be received."""
        self._left += self._later
        self._later = 0

    def take(self, size: int) -> None:
        """Count `size` received bytes. Raises `too_large` beyond the limit."""
        self._left -= size
        if self._left < 0:
            raise TooLargeError("the other side sends more than is accepted")


class _Metered(socket.socket if TYPE_CHECKING else object):  # type: ignore[misc]
    """A socket whose operations are limited to the remaining budget."""

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
