"""Text in double quotes, safe on a terminal, in a log line and in YAML."""

from __future__ import annotations

import json
import re
from typing import Final

MOST_ECHOED: Final = 200
"""Characters that a message repeats of a text which a client sent."""

CUT: Final = "…"

# What would act instead of being seen, or be read differently by another parser: control characters, the
# other line breaks of Unicode, byte order marks, non-characters, and what reorders text (Trojan Source).
INVISIBLE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff]")


def quote_exactly(text: str) -> str:
    """`text` as a JSON string, which is a YAML double-quoted scalar too. Escapes `INVISIBLE`."""
    quoted = json.dumps(text, ensure_ascii=False)
    return INVISIBLE.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)


def quote(text: str, most: int = 80) -> str:
    """`text` in double quotes for a message, cut after `most` characters."""
    return quote_exactly(clip(text, most))


def clip(text: str, most: int = MOST_ECHOED) -> str:
    """`text`, cut after `most` characters. What a message repeats of a client's text goes through here."""
    return text if len(text) <= most else text[:most] + CUT
