"""The connection to another repository: list its refs, fetch objects, push refs.

Smart HTTP through dulwich's client, on connections that the caller has checked. Even a malicious server
causes only coded errors from this module: `upstream_failed` with the reason (readable by users of the
project), or a GitstoreError that the connections raised.

gitprotocol-http(5), gitprotocol-v2(5). The "dumb" protocol is refused, because it has no limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from dulwich.client import HTTPUnauthorized, Urllib3HttpGitClient
from dulwich.errors import GitProtocolError, HangupException, NotGitRepository, SendPackError
from dulwich.objects import ObjectID

from gitstore import names
from gitstore.errors import Code, GitstoreError, TemporaryError
from gitstore.git.objects import Objects

Refs = Mapping[bytes, bytes]
"""Ref name -> hex id."""

_LONGEST_REASON = 300  # characters of the server's message that are passed on
_NOT_GIT = "the upstream's answer is not git's smart HTTP protocol"


@dataclass(frozen=True, slots=True)
class Credential:
    """User and password for HTTP Basic; forges accept access tokens this way, too."""

    username: str
    password: str = field(repr=False)


class Remote:
    """The repository at `url` (http or https, without credentials in it).

    `pool` is a urllib3 PoolManager or compatible. `explain` describes why a connection failed; `advertised`
    is called after the ref advertisement, before objects are transferred. Keeps no state between calls.
    """

    def __init__(
        self,
        url: str,
        pool: Any,
        credential: Credential | None = None,
        *,
        explain: Callable[[BaseException], str] = lambda _: "the connection failed",
        advertised: Callable[[], None] = lambda: None,
    ) -> None:
        self._explain = explain
        self._advertised = advertised
        self._credential = credential
        self._requests = _Requests(pool)
        self._client = Urllib3HttpGitClient(
            url,
            pool_manager=self._requests,  # type: ignore[arg-type] # dulwich uses only these members
            username=credential.username if credential else None,
            password=credential.password if credential else None,
            quiet=True,
        )

    def refs(self, prefixes: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the refs below `prefixes`, name -> hex id."""
        with self._translated():
            listed = self._client.get_refs("", ref_prefix=list(prefixes)).refs
            self._check_advertisement()
        # Entries `<name>^{}` repeat the commits of annotated tags.
        return {bytes(name): bytes(oid) for name, oid in listed.items() if oid and not name.endswith(b"^{}")}

    def fetch(self, oids: Sequence[bytes], haves: Iterable[bytes], write: Callable[[bytes], int]) -> None:
        """Pass a pack of the objects that `oids` need to `write`.

        `haves` are commits that exist here, the ones most likely known there first.
        """

        def wanted(_: object) -> list[ObjectID]:
            self._check_advertisement()
            return [ObjectID(oid) for oid in oids]

        with self._translated():
            self._client.fetch_pack(
                "",
                wanted,  # type: ignore[arg-type] # called without a depth, as none is asked for
                _Haves(haves),
                write,
                ref_prefix=[names.NO_REFS],  # they need not be listed again
            )

    def push(
        self, objects: Objects, new: Mapping[bytes, bytes], old: Mapping[bytes, bytes]
    ) -> dict[bytes, str | None]:
        """Push the values `new` of the refs whose values there are still those in `old`.

        The server compares, too: a ref that moves in between is refused. Returns ref -> None, or the reason
        of the refusal, for each pushed ref; without a report from the server, success is assumed.
        """
        pushed: dict[bytes, bytes] = {}

        def update(advertised: Mapping[Any, Any]) -> dict[Any, Any]:
            self._check_advertisement()
            pushed.update({name: oid for name, oid in new.items() if advertised.get(name) == old.get(name)})
            return dict(pushed)

        with self._translated():
            result = self._client.send_pack("", update, objects.pack_data)
        status = result.ref_status or {}
        return {name: _line(status.get(name)) for name in pushed}

    def _check_advertisement(self) -> None:
        if self._client.dumb:
            raise _failed("this address does not speak git's smart HTTP protocol: is it a repository's?")
        self._advertised()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (GitstoreError, MemoryError):
            raise
        except Exception as error:
            raise _wrapped(error) or _failed(self._reason(error)) from error
        finally:
            self._requests.close()

    def _reason(self, error: Exception) -> str:
        match error:
            case NotGitRepository():
                return "there is no repository at this address, or the credential does not open it (404)"
            case HTTPUnauthorized():
                what = "does not accept the credential" if self._credential else "asks for a credential"
                return f"the upstream {what} (401)"
            case SendPackError():
                return f"the upstream refuses the objects: {_line(_text(error.args))}"
            case HangupException():
                return "the upstream closed the connection"
            case GitProtocolError() if error.__cause__ is None:
                reason = str(error).partition(" for http")[0]
                return f"{_NOT_GIT}: {_line(reason)}"
            case GitProtocolError() | OSError():
                return self._explain(error)
            case _ if type(error).__module__.startswith("urllib3"):
                return self._explain(error)
        return _NOT_GIT


class _Requests:
    """The part of a pool that dulwich uses; closes the responses that dulwich leaves open when it raises."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._responses: list[Any] = []
        self.headers: Mapping[str, str] = pool.headers

    def request(self, method: str, url: str, **options: Any) -> Any:
        self._responses.append(self._pool.request(method, url, **options))
        return self._responses[-1]

    def close(self) -> None:
        while self._responses:
            self._responses.pop().close()


class _Haves:
    """The graph walker that `fetch_pack` asks for commits; acknowledgements are not needed here."""

    def __init__(self, commits: Iterable[bytes]) -> None:
        self._commits = iter(commits)

    def __next__(self) -> ObjectID | None:
        commit = next(self._commits, None)
        return None if commit is None else ObjectID(commit)

    def ack(self, oid: ObjectID) -> None:
        """Ignore that the server has `oid`."""

    def nak(self) -> None:
        """Ignore that the server has none of the commits."""


def _wrapped(error: BaseException | None) -> GitstoreError | None:
    """Return the GitstoreError that a library has wrapped, or None."""
    depth = 0
    while error is not None and depth < 20:
        if isinstance(error, GitstoreError):
            return error
        error, depth = error.__cause__ or error.__context__, depth + 1
    return None


def _text(arguments: Sequence[object]) -> str:
    parts = (part.decode("utf-8", "replace") if isinstance(part, bytes) else str(part) for part in arguments)
    return " ".join(parts)


def _line(message: str | None) -> str | None:
    """Return a remote message as one line without control characters."""
    if message is None:
        return None
    line = "".join(char if char.isprintable() else " " for char in message)
    return line.strip()[:_LONGEST_REASON]


def _failed(message: str) -> GitstoreError:
    return TemporaryError(Code.UPSTREAM_FAILED, message)
