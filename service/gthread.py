"""gunicorn's worker with threads, in which a client that sends nothing takes none.

gunicorn lets a thread wait for the first bytes of a connection for 5 s, and for the rest of a request's head
for good: some idle connections, and nobody is served. Here the poller waits for the first bytes, and the
kernel ends a wait for more of them. Bodies have limits of their own (service/requests.py).
"""

from __future__ import annotations

import socket
import struct
from typing import Any, Final

from gunicorn.workers.gthread import _DEFER, TConn, ThreadWorker  # type: ignore[import-untyped]

HEAD_SECONDS: Final = 15


class Worker(ThreadWorker):  # type: ignore[misc]
    """Whoever has sent the first byte of a request gets a thread."""

    def handle(self, conn: TConn) -> Any:
        if not conn.initialized and not conn.wait_for_data(0):
            return _DEFER
        # Unlike a timeout of Python's, this outlives gunicorn's setblocking(True).
        conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", HEAD_SECONDS, 0))
        return super().handle(conn)
