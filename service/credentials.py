"""Access tokens: `gst_` and 43 characters of base64url (RFC 4648 section 5), 32 random bytes.

Postgres keeps the SHA-256: of something this random, that is enough.
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
    """A new one. Its caller shows it once, to one person, and stores its digest."""
    return PREFIX + base64.urlsafe_b64encode(random(32)).rstrip(b"=").decode()


def is_token(text: str) -> bool:
    """Whether `text` has the shape of a token: what has not need not be looked up."""
    return _TOKEN.fullmatch(text) is not None


def digest(token: str) -> bytes:
    """The SHA-256 (32 bytes) under which Postgres knows the token."""
    return hashlib.sha256(token.encode()).digest()
