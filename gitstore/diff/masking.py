"""Mask the secrets in definitions for display: `[secret 1]`, `[secret 2]` in order of appearance.

A secret is a value under a key that looks like one ("token", "x-api-key", "Authorization"), also in a JSON
text, in the user part and the query of a URL, and in a pair `{name: Authorization, value: ...}`. Within one
`Masks`, equal secrets have equal masks and different ones different masks, so that a comparison of masked
values shows that a secret changed without revealing it. Booleans, null and empty strings are not masked.
Values under other keys are not masked: they cannot be recognised as secrets.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final
from urllib.parse import unquote_plus

from gitstore import budget

_SECRET_WORDS: Final = re.compile(
    "token|passw(?:or)?d|passphrase|secret|authorization|apikey|accesskey|privatekey|credential|cookie|bearer"
)
_SECRET_KEYS: Final = frozenset({"auth", "pwd", "pass", "signature", "sig"})
_IN_QUERIES: Final = frozenset({"key", "code"})
_NOT_LETTERS: Final = re.compile(r"[^a-z0-9]")

# Character classes exclude the start of the next match, so that each search is linear in the text.
_USER: Final = re.compile(r"://(?P<secret>[^/?#\s]+)@")
_PARAMETER: Final = re.compile(r"[?&;#](?P<key>[^=&#?;\s]++)=(?P<secret>(?:\{\{[^{}]*+\}\}|[^&#\s\"'<>])++)")
_KEY: Final = re.compile(
    r"""(?<![\w-])(?P<quote>["']?)(?P<key>[\w-]{1,200})(?P=quote)[ \t]*+[:=][ \t]*+(?![{\[\n])"""
)
_VALUE: Final = re.compile(
    r""""(?P<double>(?:[^"\\\n]++|\\[^\n])*+)" | '(?P<single>(?:[^'\n]++|'')*+)'
        | (?P<word>true|false|null)\b | (?P<plain>[^\n]*+)""",
    re.VERBOSE,
)


def is_secret_key(key: str) -> bool:
    """Return whether the value under `key` is likely to be a secret."""
    letters = _NOT_LETTERS.sub("", key.lower())
    return letters in _SECRET_KEYS or _SECRET_WORDS.search(letters) is not None


class Masks:
    """The masks of one comparison."""

    def __init__(self) -> None:
        self._known: dict[str | float, str] = {}
        self._keys: dict[str, bool] = {}  # cache: all nodes have the same few keys

    def of(self, secret: str | float) -> str:
        """Return the mask of one secret."""
        return self._known.setdefault(secret, f"[secret {len(self._known) + 1}]")

    def value(self, found: Any, key: str = "", *, secret: bool = False) -> Any:
        """Return the JSON value `found`, under the key `key`, masked. Recurses as deep as the value."""
        if isinstance(found, str):
            if secret and found:
                return self.of(found)
            return self.text(found, is_header="header" in key.lower())
        if isinstance(found, dict):
            budget.check()
            named = _names_a_secret(found)
            return {
                inner: self.value(
                    item, inner, secret=secret or self._is_secret(inner) or (named and inner == "value")
                )
                for inner, item in found.items()
            }
        if isinstance(found, list):
            return [self.value(item, key, secret=secret) for item in found]
        is_number = isinstance(found, (int, float)) and not isinstance(found, bool)
        return self.of(found) if secret and is_number else found

    def _is_secret(self, key: str) -> bool:
        known = self._keys.get(key)
        if known is None:
            known = self._keys[key] = is_secret_key(key)
        return known

    def text(self, found: str, *, is_header: bool = False) -> str:
        """Mask the secrets in a text, or the whole text if they cannot be separated from the rest."""
        is_json = found.lstrip()[:1] in ("{", "[")
        masked = self.addresses(found)
        if not (is_json or is_header):
            return masked
        masked = self.pairs(masked)
        return masked if not is_json or self._covers(found, masked) else self.of(found)

    def addresses(self, text: str) -> str:
        """Mask the user part and the secret parameters of the URLs in `text`."""
        masked = _USER.sub(self._masked, text) if "://" in text else text
        return _PARAMETER.sub(self._parameter, masked) if "=" in masked else masked

    def pairs(self, text: str) -> str:
        """Mask the value of each `secret key: value` in `text`; without quotes, to the end of the line."""
        made, at = [], 0
        while (key := _KEY.search(text, at)) is not None:
            made.append(text[at : key.end()])
            at = key.end()
            if self._is_secret(key["key"]) and (found := _VALUE.match(text, at)):
                made.append(self._masked(found, found.lastgroup or "plain"))
                at = found.end()
        return "".join([*made, text[at:]])

    def _covers(self, found: str, masked: str) -> bool:
        """Return whether `masked` hides all secrets of `found`. True if `found` is not JSON after all."""
        try:
            value = json.loads(found)
        except (ValueError, RecursionError):
            return True
        try:
            return bool(self.value(value) == json.loads(masked))
        except (ValueError, RecursionError):
            return False

    def _masked(self, found: re.Match[str], group: str = "secret") -> str:
        """Return the match with `group` masked; JSON literals and empty values stay as they are."""
        start, end = found.start(group) - found.start(), found.end(group) - found.start()
        if start == end or group == "word":
            return found[0]
        return found[0][:start] + self.of(found[group]) + found[0][end:]

    def _parameter(self, found: re.Match[str]) -> str:
        key = unquote_plus(found["key"])
        return self._masked(found) if is_secret_key(key) or key.lower() in _IN_QUERIES else found[0]


def masked(a: Any, b: Any) -> tuple[Any, Any]:
    """Mask two JSON values with the same masks for the same secrets, so that they can be compared."""
    masks = Masks()
    return masks.value(a), masks.value(b)


def _names_a_secret(found: dict[str, Any]) -> bool:
    """Return whether a mapping is a pair of a secret's name and its value, a common form of headers."""
    names = (found.get("name"), found.get("key"))
    return "value" in found and any(isinstance(name, str) and is_secret_key(name) for name in names)
