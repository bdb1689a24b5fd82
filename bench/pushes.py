"""Small pushes, a commit and its tag each: prepared once, then sent by 8 pushers to one server or the other.

By git itself, which uses most of two cores; and as the two requests that git makes, with packs made
beforehand, so that the servers are measured. Both send the credentials with the first request.
"""

from __future__ import annotations

import http.client
import subprocess
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from dulwich.protocol import pkt_line

from gitstore import names
from gitstore.push.request import ZERO
from tests.stories.instance import PLAIN, definition

_CAPABILITIES = b"report-status side-band-64k agent=git/bench"
_TYPE = "application/x-git-receive-pack-request"


@dataclass(frozen=True)
class Server:
    """Where to push: the repository's URL, and the token for it (sent to both, read by one)."""

    url: str
    token: str

    @property
    def authorization(self) -> str:
        return "Basic " + b64encode(f"git:{self.token}".encode()).decode()


@dataclass(frozen=True)
class Push:
    """One of a pusher's, to be sent after the one before."""

    slug: str
    number: int
    before: bytes
    commit: bytes
    tag: bytes

    def refs(self) -> list[tuple[bytes, bytes, bytes]]:
        """(old, new, name) of each."""
        return [
            (self.before, self.commit, names.draft(self.slug)),
            (ZERO, self.tag, names.tag(self.slug, self.number)),
        ]


class Work:
    """A repository with everything that `pushers` will push, `each` times."""

    def __init__(self, folder: Path, prefix: str, pushers: int, each: int) -> None:
        self.folder = folder
        self._git("init", "-q", "--bare", str(folder), within=folder.parent)
        slugs = [f"{prefix}-{number}" for number in range(pushers)]
        self._git("fast-import", "--quiet", given=b"".join(_script(slug, each) for slug in slugs))
        self._git("pack-refs", "--all")
        listed = self._git("for-each-ref", "--format=%(refname:short) %(objectname) %(*objectname)")
        held = {name: oids for name, *oids in (line.split() for line in listed.decode().splitlines())}
        self.pushes = [[_push(slug, number, held) for number in range(1, each + 1)] for slug in slugs]

    def _git(self, *arguments: str, given: bytes = b"", within: Path | None = None) -> bytes:
        done = subprocess.run(
            ["git", *arguments], cwd=within or self.folder, env=PLAIN, input=given, capture_output=True,
            check=True,
        )  # fmt: skip
        return done.stdout

    def body(self, push: Push) -> bytes:
        """What git would send."""
        lines = [b" ".join(command) for command in push.refs()]
        lines[0] += b"\0" + _CAPABILITIES
        wanted = [push.commit, push.tag, *([b"^" + push.before] if push.before != ZERO else [])]
        flags = ("--revs", "--thin", "--stdout", "--delta-base-offset", "-q")
        pack = self._git("pack-objects", *flags, given=b"".join(oid + b"\n" for oid in wanted))
        return b"".join(map(pkt_line, lines)) + pkt_line(None) + pack

    def by_git(self, server: Server, push: Push) -> None:
        """`git push`, as a person would."""
        specs = [f"{new.decode()}:{name.decode()}" for _, new, name in push.refs()]
        done = subprocess.run(
            ["git", "push", "-q", server.url, *specs], cwd=self.folder, capture_output=True, check=False,
            env={**PLAIN, "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "http.extraHeader",
                 "GIT_CONFIG_VALUE_0": f"Authorization: {server.authorization}"},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()


def _unframed(data: bytes, band: int | None = None) -> bytes:
    """Return the payloads of pkt-lines, or those of one side band, joined."""
    parts, at = [], 0
    while at < len(data):
        size = max(int(data[at : at + 4], 16), 4)
        payload = data[at + 4 : at + size]
        if band is None or payload[:1] == bytes([band]):
            parts.append(payload[band is not None :])
        at += size
    return b"".join(parts)


class Wire:
    """A pusher without git: a connection for each push, as git makes."""

    def __init__(self, server: Server) -> None:
        address = urlsplit(server.url)
        self._path = address.path
        self._connection = http.client.HTTPConnection(address.hostname or "", address.port)
        self._headers = {"Authorization": server.authorization}

    def push(self, body: bytes, *, refs: int = 2) -> None:
        """Look, then push: git's two requests."""
        self._connection.close()
        self._send("GET", "/info/refs?service=git-receive-pack", None)
        content = self._send("POST", "/git-receive-pack", body)
        accepted = _unframed(_unframed(content, band=1)).count(b"ok refs/")
        assert accepted == refs, f"{accepted} of {refs} refs were accepted"

    def _send(self, method: str, path: str, body: bytes | None) -> bytes:
        headers = self._headers if body is None else {**self._headers, "Content-Type": _TYPE}
        self._connection.request(method, self._path + path, body, headers)
        answer = self._connection.getresponse()
        content = answer.read()
        assert answer.status == 200, content
        return content


def at_once(turns: Sequence[Sequence[Callable[[], None]]]) -> float:
    """Everybody does their turns one after the other, all at once: turns a second."""
    failures: list[BaseException] = []
    barrier = threading.Barrier(len(turns) + 1)

    def run(mine: Sequence[Callable[[], None]]) -> None:
        barrier.wait()
        try:
            for turn in mine:
                turn()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(mine,)) for mine in turns]
    for thread in threads:
        thread.start()
    barrier.wait()
    begun = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - begun
    if failures:
        raise failures[0]
    return sum(map(len, turns)) / seconds


def _script(slug: str, count: int) -> bytes:
    """Of git-fast-import(1)."""
    parts = []
    for number in range(1, count + 1):
        text, name = definition(f"{slug} {number}").encode(), f"{slug}/v{number}".encode()
        identity = b"Ann <ann@example.test> %d +0000" % (1_700_000_000 + number)
        parts.append(
            b"commit %s\nmark :%d\ncommitter %s\ndata 4\nEdit\n" % (names.draft(slug), number, identity)
            + b"M 100644 inline workflow.yaml\ndata %d\n%s\n" % (len(text), text)
            + b"tag %s\nfrom :%d\ntagger %s\ndata 7\nShip it\n" % (name, number, identity)
        )
    return b"".join(parts)


def _push(slug: str, number: int, held: dict[str, list[str]]) -> Push:
    tag, commit = (oid.encode() for oid in held[f"{slug}/v{number}"])
    before = held[f"{slug}/v{number - 1}"][1].encode() if number > 1 else ZERO
    return Push(slug, number, before, commit, tag)
