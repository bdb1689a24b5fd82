"""Access tokens: `gst_` and 43 characters of base64url (RFC 4648 section 5), 32 random bytes.

Postgres stores the SHA-256, which suffices for a secret with this much entropy.
"""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Callable
from typing import Final

PREFIX: Final = "gst_"
_TOKEN: Final = re.compile(PREFIX + r"[A-Za-z0-9_-]{43}")


def new_token(random: Callable[[int], bytes] = secrets.token_bytes) -> str:
    """Return a new token. The caller shows it once, to one person, and stores its digest."""
    return PREFIX + base64.urlsafe_b64encode(random(32)).rstrip(b"=").decode()


def is_token(text: str) -> bool:
    """Return whether `text` has the form of a token; text without it needs no lookup."""
    return _TOKEN.fullmatch(text) is not None


def digest(token: str) -> bytes:
    """Return the SHA-256 (32 bytes) under which Postgres stores the token."""
    return hashlib.sha256(token.encode()).digest()
