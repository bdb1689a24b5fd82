"""Listening socket of the service: bound before any child starts, so that a taken port is reported early."""

from __future__ import annotations

import errno
import http.client
import resource
import socket
import time
from contextlib import closing
from typing import Final
from urllib.parse import urlsplit

from gitstore.errors import ConfigError, GitstoreError
from service import logs
from service.logs import Event
from service.setting_kinds import Bind

OPEN_FILES: Final = 5120
"""Open files of each process: its connections, and the other files that it opens."""

_SPARE_FILES: Final = 1024
_BACKLOG: Final = 2048
_PATIENCE: Final = 1.0  # seconds in which the remains of a killed service release the port
_TICK: Final = 0.05


def listen(bind: Bind, setting: str = "GITSTORE_BIND") -> socket.socket:
    """Return a socket that listens at `bind`. Connections queue in it until they are served.

    Raises `config`, naming the `setting` that `bind` is from, if it cannot listen there.
    """
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return _listen(bind)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline:
                raise _refusal(bind, error, setting) from error
        time.sleep(_TICK)


def allow_connections() -> None:
    """Raise this process's limit of open files, which its children inherit, as far as needed.

    A lower hard limit is logged: each serving process then accepts fewer connections.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    if wanted < OPEN_FILES:
        logs.action(
            Event.FEW_OPEN_FILES,
            level="warning",
            limit=wanted,
            advice=f"raise the hard limit of open files (ulimit -Hn) to {OPEN_FILES}",
        )


def connections() -> int:
    """Return the number of connections that a process may hold within its limit of open files."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = OPEN_FILES if soft == resource.RLIM_INFINITY else min(OPEN_FILES, soft)
    return max(most - _SPARE_FILES, 64)


def bound(bind: Bind, listener: socket.socket) -> Bind:
    """Return `bind` with the port that the socket is bound to."""
    return Bind(bind.host, listener.getsockname()[1])


def answers(bind: Bind, seconds: float) -> bool:
    """Return whether an HTTP answer, of any status, comes from `bind` in time."""
    try:
        with closing(http.client.HTTPConnection(urlsplit(bind.url).netloc, timeout=seconds)) as connection:
            connection.request("GET", "/livez")
            return connection.getresponse().status < http.client.INTERNAL_SERVER_ERROR
    except (OSError, http.client.HTTPException):
        return False


def _listen(bind: Bind) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        bind.host, bind.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def _refusal(bind: Bind, error: OSError, setting: str) -> GitstoreError:
    if error.errno == errno.EADDRINUSE:
        reason = f"another program listens there: stop it, or set {setting} to another port"
    elif error.errno == errno.EACCES:
        reason = f"ports below 1024 require root: set {setting} to a higher one"
    else:
        reason = f"{error.strerror or error}: set {setting} to an address of this machine"
    return ConfigError(f"{setting} is {bind}, and {reason}", setting=setting)
