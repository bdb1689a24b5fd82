"""Secrets at rest: sealed for one purpose (Fernet: AES-128-CBC and HMAC-SHA256, github.com/fernet/spec).

What a sealed text is for is sealed in with it, so that whoever can write rows, but has no key, can't have one
row's secret used for another.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from gitstore.errors import Code, GitstoreError


def new_key() -> str:
    """32 random bytes in URL-safe base64."""
    return Fernet.generate_key().decode()


def keys_in(text: str) -> tuple[str, ...]:
    """The keys in a setting, commas between them. Raises ValueError where one is none."""
    keys = tuple(part.strip() for part in text.split(","))
    for key in keys:
        Fernet(key)
    return keys


class Sealer:
    """Seals with the first of its keys, opens with any: so a key is replaced without an outage."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def seal(self, purpose: str, secret: str) -> str:
        """`purpose` names the row, as "subscription <id>"; it holds no newline."""
        return self._fernet.encrypt(f"{purpose}\n{secret}".encode()).decode()

    def open(self, purpose: str, sealed: str) -> str:
        """Raises `config` where it was sealed with another key, or for another purpose."""
        try:
            found, _, secret = self._fernet.decrypt(sealed).decode().partition("\n")
        except InvalidToken:
            found, secret = "", ""
        if found != purpose:
            raise GitstoreError(
                Code.CONFIG,
                f"the secret of {purpose} can't be opened: GITSTORE_SECRET_KEY (or the file secret-key in "
                "the data folder) is not the one that it was sealed with",
            )
        return secret
