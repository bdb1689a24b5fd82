"""Public keys of an issuer: its JSON Web Key Set (RFC 7517), fetched and refreshed in the background.

A background thread fetches each set. A request that needs an unknown key waits for the thread for a few
seconds. Only some requests may wait at once, so that threads remain for the others. While a set cannot be
fetched, its keys are used for a day at most.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from gitstore.errors import Code, GitstoreError, UnavailableError
from service import logs
from service.logs import Event
from webhooks.addresses import PORTS, Allowed, target_of
from webhooks.egress import Egress

FRESH_SECONDS: Final = 600.0
"""Age from which a set is fetched again, in the background: removed keys are forgotten then."""
KEPT_SECONDS: Final = 24 * 3600.0
"""Age at which the keys of a set that cannot be fetched are forgotten."""
RETRY_SECONDS: Final = 10.0
"""Minimum time between two fetches, so that unknown keys in tokens cannot cause more."""
FETCH_SECONDS: Final = 3.0
_LARGEST: Final = 256 * 1024  # bytes of a set
_MOST_KEYS: Final = 100
_MOST_TRIED: Final = 4  # keys for a token that names none
_SMALLEST_RSA: Final = 2048

Algorithm = Literal["HS256", "ES256", "RS256"]
_ALGORITHMS: Final[dict[tuple[object, object], Algorithm]] = {
    ("EC", "P-256"): "ES256",
    ("RSA", None): "RS256",
}
PUBLIC: Final = frozenset(_ALGORITHMS.values())
_JWS: Final = jwt.PyJWS()


@dataclass(frozen=True, slots=True)
class Key:
    """A key with the one algorithm that it is for."""

    algorithm: Algorithm
    material: Any
    kid: str | None = None

    def signed(self, token: str) -> bool:
        """Return whether this key signed the token."""
        try:
            _JWS.decode(token, self.material, algorithms=[self.algorithm])
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
            return False
        return True


def fetcher(url: str) -> Callable[[], bytes]:
    """Return a function that fetches `url`, whose host may have any address. Raises ValueError if malformed.

    The operator names the URL: an issuer beside the service has a private address.
    """
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    allowed = Allowed.parse(f"{host}:{parts.port or PORTS.get(parts.scheme)}")
    try:
        target_of(url, allowed)
    except GitstoreError as error:
        raise ValueError(error.message) from None
    egress = Egress(allowed)

    def fetch() -> bytes:
        response = egress.get(url, seconds=FETCH_SECONDS, keep=_LARGEST)
        if response.status != 200:
            raise GitstoreError(Code.UNREACHABLE, f"the answer has the status {response.status}")
        return response.body

    return fetch


def keys_in(raw: bytes) -> list[Key]:
    """Return the keys of a set that verify ES256 or RS256; others are skipped. Raises ValueError."""
    try:
        listed = json.loads(raw)["keys"]
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ValueError("the answer is not a set of keys") from None
    if not isinstance(listed, list) or len(listed) > _MOST_KEYS:
        raise ValueError(f"the answer is not a set of at most {_MOST_KEYS} keys")
    keys = [key for one in listed if isinstance(one, dict) and (key := _key(one))]
    if not keys:
        raise ValueError("the set has no key for ES256 (P-256) or RS256 (2048 bits or more)")
    return keys


def _key(given: dict[str, Any]) -> Key | None:
    kid, operations = given.get("kid"), given.get("key_ops", ["verify"])
    algorithm = _ALGORITHMS.get((str(given.get("kty")), str(given["crv"]) if "crv" in given else None))
    fits = (
        algorithm is not None
        and given.get("alg", algorithm) == algorithm
        and given.get("use", "sig") == "sig"
        and isinstance(operations, list)
        and "verify" in operations
        and "d" not in given
        and (kid is None or isinstance(kid, str))
    )
    if not fits or algorithm is None:
        return None
    try:
        material = jwt.PyJWK(given, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if isinstance(material, RSAPublicKey) and material.key_size < _SMALLEST_RSA:
        return None
    return Key(algorithm, material, kid)


class KeySet:
    """The keys at one URL. Safe to share between threads."""

    def __init__(
        self,
        name: str,
        fetch: Callable[[], bytes],
        *,
        most_waiting: int = 2,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Keep the set of the issuer `name`; `most_waiting` requests may wait for a fetch at once."""
        self._name = name
        self._fetch = fetch
        self._most_waiting = most_waiting
        self._clock = clock
        self._changed = threading.Condition()
        self._keys: list[Key] = []
        self._fetched = self._tried = float("-inf")
        self._failure = "not fetched yet"
        self._fetching = False
        self._waiting = 0

    def keys(self, algorithm: str, kid: str | None) -> list[Key]:
        """Return the keys that may have signed a token with this header, which only chooses among them.

        Raises `unavailable` if no key is known.
        """
        with self._changed:
            now = self._clock()
            if now - self._fetched > KEPT_SECONDS:
                self._keys = []
            found = self._matching(algorithm, kid)
            if not found or now - self._fetched > FRESH_SECONDS:
                self._begin(now)
            if found:
                return found
            if self._fetching:
                self._wait()
                found = self._matching(algorithm, kid)
            if not self._keys:
                raise UnavailableError(f"the keys of {self._name} can't be fetched: {self._failure}")
            return found

    def _matching(self, algorithm: str, kid: str | None) -> list[Key]:
        found = [key for key in self._keys if key.algorithm == algorithm and kid in (None, key.kid)]
        return found[:_MOST_TRIED]

    def _wait(self) -> None:
        if self._waiting >= self._most_waiting:
            raise UnavailableError(f"the keys of {self._name} are being fetched: try again", retry_after=1)
        self._waiting += 1
        try:
            self._changed.wait_for(lambda: not self._fetching, FETCH_SECONDS)
        finally:
            self._waiting -= 1

    def _begin(self, now: float) -> None:
        """Begin a fetch, unless one is running or was a moment ago."""
        if not self._fetching and now - self._tried >= RETRY_SECONDS:
            self._tried = now
            try:
                threading.Thread(target=self._run, name="keys of an issuer", daemon=True).start()
            except RuntimeError:  # no thread can start: the next request after RETRY_SECONDS tries again
                self._failure = "no thread can be started"
            else:
                self._fetching = True

    def _run(self) -> None:
        keys: list[Key] = []
        try:
            keys = keys_in(self._fetch())
        except GitstoreError as error:
            failure = error.message
        except Exception as error:
            failure = str(error) if isinstance(error, ValueError) else "unexpected error"
        with self._changed:
            self._fetching = False
            if keys:
                self._keys, self._fetched = keys, self._clock()
            else:
                self._failure = failure
            self._changed.notify_all()
        if not keys:
            logs.action(Event.KEYS_UNREACHABLE, level="warning", issuer=self._name, reason=failure)
