"""The connection to another repository: its ref advertisement, a fetch of objects, a push of refs.

Smart HTTP through dulwich's client, on connections that the caller has checked. Even a malicious server
causes only coded errors from this module: `upstream_failed` with the reason (readable by users of the
project), or a GitstoreError that the connections raised.

gitprotocol-http(5), gitprotocol-v2(5). The "dumb" protocol is refused, because it has no limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn

from dulwich.client import HTTPUnauthorized, Urllib3HttpGitClient
from dulwich.errors import GitProtocolError, HangupException, NotGitRepository, SendPackError
from dulwich.objects import ObjectID

from gitstore.errors import Code, GitstoreError, TemporaryError
from gitstore.git.objects import Objects

Refs = Mapping[bytes, bytes]
"""Ref name -> hex id."""

_SAID = 300  # characters of the server's message that are passed on


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

    def fetch(
        self,
        prefixes: Sequence[bytes],
        choose: Callable[[Refs], Iterable[bytes]],
        haves: Iterable[bytes],
        write: Callable[[bytes], int],
    ) -> None:
        """Pass the refs below `prefixes` to `choose`, and a pack of the objects it selects to `write`.

        `haves` are commits that exist here, the ones most likely known there first. If nothing is selected,
        nothing is written.
        """

        def wanted(advertised: Mapping[Any, Any]) -> list[ObjectID]:
            self._refuse_dumb()
            self._advertised()
            refs = {bytes(name): bytes(oid) for name, oid in advertised.items()}
            return [ObjectID(oid) for oid in choose(refs)]

        with self._translated():
            self._client.fetch_pack(
                "",
                wanted,  # type: ignore[arg-type] # called without a depth, as none is asked for
                _Haves(haves),
                write,
                ref_prefix=list(prefixes),
            )

    def push(
        self, objects: Objects, choose: Callable[[Refs], Mapping[bytes, bytes]]
    ) -> dict[bytes, str | None]:
        """Push the refs that `choose` returns with their new values, given the current refs there.

        The server compares: a ref that moved in between is refused. Returns ref -> None, or the reason of the
        refusal; without a report from the server, success is assumed.
        """
        wanted: dict[bytes, bytes] = {}

        def update(advertised: Mapping[Any, Any]) -> dict[Any, Any]:
            self._refuse_dumb()
            self._advertised()
            wanted.update(choose({bytes(name): bytes(oid) for name, oid in advertised.items()}))
            return dict(wanted)

        with self._translated():
            told = self._client.send_pack("", update, objects.pack_data)
        status = told.ref_status or {}
        return {name: _line(status.get(name)) for name in wanted}

    def _refuse_dumb(self) -> None:
        if self._client.dumb:
            raise _failed("this address does not speak git's smart HTTP protocol: is it a repository's?")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (GitstoreError, MemoryError):
            raise
        except Exception as error:
            self._raise(error)
        finally:
            self._requests.close()

    def _raise(self, error: Exception) -> NoReturn:
        ours = _ours_behind(error)
        if ours is not None:
            raise ours from error
        raise _failed(self._words(error)) from error

    def _words(self, error: Exception) -> str:
        match error:
            case NotGitRepository():
                return "there is no repository at this address, or the credential does not open it (404)"
            case HTTPUnauthorized():
                what = "does not accept the credential" if self._credential else "asks for a credential"
                return f"the other side {what} (401)"
            case SendPackError():
                return f"the other side refuses the objects: {_line(_text(error.args))}"
            case HangupException():
                return "the other side broke off"
            case GitProtocolError() if error.__cause__ is None:
                said = str(error).partition(" for http")[0]
                return f"the other side did not answer as git does: {_line(said)}"
            case GitProtocolError() | OSError():
                return self._explain(error)
        if type(error).__module__.startswith("urllib3"):
            return self._explain(error)
        return "the other side did not answer as git does"


class _Requests:
    """The part of a pool that dulwich uses; closes the responses that dulwich leaves open when it raises."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._answers: list[Any] = []
        self.headers: Mapping[str, str] = pool.headers

    def request(self, method: str, url: str, **options: Any) -> Any:
        self._answers.append(self._pool.request(method, url, **options))
        return self._answers[-1]

    def close(self) -> None:
        while self._answers:
            self._answers.pop().close()


class _Haves:
    """The graph walker that `fetch_pack` asks for commits; acknowledgements are not needed here."""

    def __init__(self, commits: Iterable[bytes]) -> None:
        self._commits = iter(commits)

    def __next__(self) -> ObjectID | None:
        found = next(self._commits, None)
        return None if found is None else ObjectID(found)

    def ack(self, oid: ObjectID) -> None:
        """Ignore that the server has `oid`."""

    def nak(self) -> None:
        """Ignore that the server has none of the commits."""


def _ours_behind(error: BaseException | None) -> GitstoreError | None:
    """Return the GitstoreError that a library has wrapped, or None."""
    seen = 0
    while error is not None and seen < 20:
        if isinstance(error, GitstoreError):
            return error
        error, seen = error.__cause__ or error.__context__, seen + 1
    return None


def _text(arguments: Sequence[object]) -> str:
    return " ".join(part.decode("utf-8", "replace") if isinstance(part, bytes) else str(part)
                    for part in arguments)  # fmt: skip


def _line(said: str | None) -> str | None:
    """Return a remote message as one line without control characters."""
    if said is None:
        return None
    return "".join(char if char.isprintable() else " " for char in said).strip()[:_SAID]


def _failed(message: str) -> GitstoreError:
    return TemporaryError(Code.UPSTREAM_FAILED, message)
