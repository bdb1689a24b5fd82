"""Quote text for terminals, log lines and YAML."""

from __future__ import annotations

import json
import re
from typing import Final

MOST_ECHOED: Final = 200
"""Characters of a client's text that a message repeats."""

CUT: Final = "…"

# Characters that act instead of being displayed, or that other parsers read differently: control characters,
# the other line breaks of Unicode, byte order marks, non-characters, and those that reorder text (Trojan
# Source).
INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff]")


def quote_exactly(text: str) -> str:
    """Return `text` as a JSON string, which is also a YAML double-quoted scalar. Escapes `INVISIBLE`."""
    quoted = json.dumps(text, ensure_ascii=False)
    return INVISIBLE.sub(lambda match: f"\\u{ord(match[0]):04x}", quoted)


def quote(text: str, most: int = 80) -> str:
    """Return `text` in double quotes for a message, truncated to `most` characters."""
    return quote_exactly(clip(text, most))


def clip(text: str, most: int = MOST_ECHOED) -> str:
    """Return `text` truncated to `most` characters. Messages use this for any text of a client."""
    return text if len(text) <= most else text[:most] + CUT
