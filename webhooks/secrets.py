"""Encrypt secrets at rest, each for one purpose.

Fernet (github.com/fernet/spec) encrypts with AES-128-CBC and authenticates with HMAC-SHA256.

The purpose is encrypted together with the secret, so that an attacker with write access to the rows but no
key cannot move a secret from one row to another.
"""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from gitstore.errors import ConfigError


def new_key() -> str:
    """Return a new key: 32 random bytes in URL-safe base64."""
    return Fernet.generate_key().decode()


def keys_in(text: str) -> tuple[str, ...]:
    """Return the keys of a comma-separated setting. Raises ValueError for an invalid key."""
    keys = tuple(part.strip() for part in text.split(","))
    for key in keys:
        Fernet(key)
    return keys


class Sealer:
    """Encryption with the first key and decryption with any of them, so that keys rotate without downtime."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._fernet = MultiFernet([Fernet(key) for key in keys])

    def seal(self, purpose: str, secret: str) -> str:
        """Encrypt `secret`. `purpose` names the row, as "subscription <id>", and contains no newline."""
        return self._fernet.encrypt(f"{purpose}\n{secret}".encode()).decode()

    def open(self, purpose: str, sealed: str) -> str:
        """Decrypt a secret. Raises `config` if it was sealed with another key or for another purpose."""
        try:
            sealed_for, _, secret = self._fernet.decrypt(sealed).decode().partition("\n")
        except InvalidToken:
            sealed_for, secret = "", ""
        if sealed_for != purpose:
            raise ConfigError(
                f"the secret of {purpose} cannot be decrypted: GITSTORE_SECRET_KEY (or the file secret-key "
                "in the data folder) is not the key that sealed it"
            )
        return secret
