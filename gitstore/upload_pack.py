"""Serve git fetch and clone by git's own `upload-pack --stateless-rpc`.

Supports protocol v2, partial clones and shallow clones: gitprotocol-http(5) and gitprotocol-v2(5).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from dulwich.protocol import pkt_line

from gitstore import names
from gitstore.errors import MalformedError
from gitstore.git.process import FRUGAL, command, environment, git

_CHUNK = 64 * 1024
_PROTOCOL = re.compile(r"[a-z0-9=:.]{1,64}")
_SETTINGS = {
    **FRUGAL,
    "uploadpack.allowFilter": "true",
    # A partial clone asks for single objects later. Protocol v2 answers for any; versions 0 and 1 need this,
    # and still refuse a commit that no ref leads to.
    "uploadpack.allowReachableSHA1InWant": "true",
    "core.quotePath": "false",
    # Of no use to a clone, and gone in a moment.
    "uploadpack.hideRefs": names.show(names.PENDING),
}

_MOST_KEPT = 16
_capabilities: dict[tuple[int, int, bytes], bytes] = {}
"""The advertisement of protocol v2, by git's binary and the configuration: it depends on nothing else."""


def advertise(repository: Path, protocol: str) -> Iterator[bytes]:
    """Yield the advertisement: of protocol v2, the capabilities; otherwise, the refs, too.

    `protocol` is the request's Git-Protocol header, "" if absent.
    """
    if protocol == "version=2":  # by every git since 2.26
        yield _advertised_capabilities(repository)
        return
    if "version=2" not in protocol.split(":"):
        yield pkt_line(b"# service=git-upload-pack\n") + pkt_line(None)
    with _upload_pack(repository, protocol, "--http-backend-info-refs", subprocess.DEVNULL) as child:
        yield from _output(child)


def _advertised_capabilities(repository: Path) -> bytes:
    """Return the advertisement of protocol v2, from memory unless git or the configuration has changed."""
    binary = Path(git()).stat()
    key = (binary.st_ino, binary.st_mtime_ns, (repository / "config").read_bytes())
    if (known := _capabilities.get(key)) is not None:
        return known
    with _upload_pack(repository, "version=2", "--http-backend-info-refs", subprocess.DEVNULL) as child:
        advertised = b"".join(_output(child))
    if child.returncode == 0:
        if len(_capabilities) >= _MOST_KEPT:
            _capabilities.clear()
        _capabilities[key] = advertised
    return advertised


def serve(repository: Path, protocol: str, request: IO[bytes]) -> Generator[bytes]:
    """Yield the response to one request, read from `request` (a real file, positioned at its start).

    Raises `malformed`, before any output, if git fails without output because it cannot parse the request.
    """
    with _upload_pack(repository, protocol, "--stateless-rpc", request) as child:
        answered = False
        for chunk in _output(child):
            answered = True
            yield chunk
        if child.returncode and not answered:
            raise MalformedError("malformed git-upload-pack request")


@contextmanager
def _upload_pack(
    repository: Path, protocol: str, mode: str, stdin: IO[bytes] | int
) -> Iterator[subprocess.Popen[bytes]]:
    """Run git upload-pack; kill it as soon as the client disconnects early."""
    extra = {"GIT_PROTOCOL": protocol} if _PROTOCOL.fullmatch(protocol) else {}
    modes = dict.fromkeys(("--stateless-rpc", mode))
    # upload-pack takes the repository as an argument, where other commands take --git-dir.
    arguments = command(repository, "upload-pack", *modes, "--strict", str(repository), config=_SETTINGS)
    with subprocess.Popen(
        arguments,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment(extra),
    ) as child:
        try:
            yield child
        finally:
            if child.poll() is None:
                child.kill()


def _output(child: subprocess.Popen[bytes]) -> Iterator[bytes]:
    if child.stdout is not None:
        while chunk := child.stdout.read1(_CHUNK):  # type: ignore[attr-defined]
            yield chunk
    child.wait()
