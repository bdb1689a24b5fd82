r"""Mask secrets in text that leaves access control: logs, events, summaries, the output of a push.

    masked({"name": "API_KEY", "value": "abc123"})  # {"name": "API_KEY", "value": "***"}
    masked("GET /hooks/orders?token=abc123 401")    # "GET /hooks/orders?token=*** 401"

Pages and the API show values unchanged, because their readers may read the file. A secret is recognized by
the key of a value, the format of a known kind of token, or the randomness of a text. Templates, references
and switches (`none`, `true`) are never secrets. The cost is linear in the text.

docs/decisions/0012-masking.md has the reasons for a table of our own.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

from gitstore.definition.quoting import clip

HIDDEN: Final = "***"
LONGEST: Final = 20_000
"""Maximum number of characters that are shown of one text."""

# Keys, by their words: `dbPassword`, `DB_PASSWORD` and `db-password` are the same.

_WORDS: Final = re.compile(r"[A-Z]++(?![a-z])|[A-Z]?[a-z]++|[0-9]++")
_LONGEST_KEY: Final = 200
_SECRET_WORD: Final = re.compile(
    r"authorization|cookies?|credential|pass|passcode|passwort|pwd|sig|signature"
    r"|[a-z]*?(?:apikey|passphrase|passwd|password|secret|token)"
)
_SECRET_KIND_OF_KEY: Final = re.compile(
    r"access|account|admin|api|app|auth|client|decryption|deploy|encryption|hmac|license|master|private|role"
    r"|secret|service|session|shared|signing|storage|subscription|webhook"
)
# `id-token: write` is a permission, `next_page_token` a position, `max_token` a number.
_OTHER_TOKEN: Final = re.compile(r"continuation|count|cursor|id|max|min|next|number|page|per|sync")
_IDENTIFIER: Final = re.compile(
    r"arn|checksum|commit|digest|etag|fingerprint|guid|hash|ids?|identifier|integrity|md|oid|parent|ref|revision"
    r"|sha|uid|uuid"
)
_NAMES: Final = ("name", "Name", "key", "Key")
_VALUES: Final = ("value", "Value", "val", "default")

# Values that are never secrets, under any key.

_SWITCH: Final = re.compile(
    r"all|auto|basic|bearer|default|disabled|enabled|false|header|inherit|no|none|null|off|on|optional|query|read"
    r"|required|true|undefined|write|yes",
    re.IGNORECASE,
)
_TEMPLATE: Final = re.compile(r"\{\{|\$\{|\$\(|\{%|<%|@\{|(?<![^\s\"'=(:])\$[A-Za-z_]")
_REFERENCE: Final = re.compile(
    r"\$\$?\.?[\w.$\[\]*'\"]*+|%\w++%|<[^<>]*+>|[*•x.…-]*+|!\w++ .*"
    r"|(?:arn|aws|azure|bao|doppler|env|file|gcp|keyvault|op|ref|secret|secrets|ssm|vault):\S*+"
    r"|[a-z][a-z0-9+.-]*+://\S*+",
    re.DOTALL,
)
_CODE: Final = re.compile(
    r"(?:await |new )?+[A-Za-z_$][\w$]*+(?P<path>(?:\??\.[A-Za-z_$][\w$]*+)*+)(?P<call>[(\[]|\Z)"
)
"""An expression of a programming language: a path of names, or the start of a call or of an index."""
_ROOT_OF_CODE: Final = re.compile(
    r"(?:args|config|ctx|data|env|inputs?|item|json|options|os|params|process|req|request|res|response|result|self"
    r"|settings|state|this|vars)\."
)

# Formats of tokens. Each begins with fixed text, so that a search is linear.

_KNOWN: Final = re.compile(
    r"""(?P<keep>
          (?:hooks\.slack\.com/(?:services|workflows|triggers)/ | discord(?:app)?\.com/api/webhooks/[0-9]++/
            | \bbot(?=[0-9]{6,12}:AA) | \.webhook\.office\.com/webhookb2/))[\w/:@-]++
      | (?:gst|whsec)_[\w+/=-]++
      | (?<![\w-])(?:
          gh[pousr]_[A-Za-z0-9]{20,}+ | github_pat_\w{20,}+
        | gl(?:pat|rt|dt|ft|cbt|ptt|soat|agent|imt)-[\w.-]{20,}+
        | xox[abdeoprs]-[\w-]{10,}+ | xapp-[\w-]{10,}+
        | (?:sk|rk)_(?:live|test)_\w{10,}+ | sk-[\w-]{20,}+ | gsk_\w{20,}+ | hf_[A-Za-z]{30,}+ | r8_\w{30,}+
        | (?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9]) | AIza[\w-]{35} | ya29\.[\w-]{20,}+ | GOCSPX-[\w-]{20,}+
        | npm_[A-Za-z0-9]{30,}+ | pypi-[\w-]{50,}+ | dckr_pat_[\w-]{20,}+ | rubygems_[a-f0-9]{40,}+
        | eyJ[\w-]{8,}+\.eyJ[\w-]{4,}+\.[\w-]*+
        | SG\.[\w-]{16,}+\.[\w-]{16,}+ | SK[0-9a-f]{32}(?!\w) | key-[0-9a-f]{32}(?!\w) | xkeysib-[\w-]{40,}+
        | sb[pv]_[0-9a-f]{40,}+ | sb_secret_[\w-]{16,}+ | shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}
        | sq0(?:atp|csp)-[\w-]{20,}+
        | do[opr]_v1_[0-9a-f]{40,}+ | hv[bsr]\.[\w-]{20,}+ | dapi[0-9a-f]{32} | gl(?:sa|c)_[\w+/=-]{20,}+
        | lin_api_\w{30,}+ | ntn_\w{30,}+ | secret_[A-Za-z0-9]{40,}+ | figd_[\w-]{30,}+ | ATATT3[\w=-]{50,}+
        | PMAK-[\w-]{30,}+ | NRAK-[A-Z0-9]{20,}+ | sntry[su]_[\w+/=-]{30,}+
        | dp\.[a-z]{2,5}\.[A-Za-z0-9]{40,}+ | AGE-SECRET-KEY-1[0-9A-Z]{20,}+
      )""",
    re.VERBOSE,
)
_PEM: Final = re.compile(r"-----BEGIN (?P<label>[A-Z0-9 ]{0,40})-----")
_PRIVATE: Final = "PRIVATE KEY"
_SCHEME: Final = re.compile(
    r"(?P<keep>\b(?:Basic|Bearer|Token|ApiKey)\s++)(?P<secret>[\w.~+/=-]{4,}+)", re.IGNORECASE
)
_LOGIN: Final = re.compile(r"(?P<keep>://[^\s:/@\"'<>]*+:)(?P<secret>[^\s/@\"'<>]*+)(?P<end>@|…\Z)")
_LOGIN_OPTION: Final = re.compile(r"(?P<keep>\s(?:-u|--user)[ =][\"']?[\w.@%+-]++:)(?P<secret>[^\s\"']++)")
_FLAG: Final = re.compile(r"(?<![\w-])--(?P<key>[A-Za-z][\w-]*+)[ ]++(?=[^\s-])")
_ASSIGNED: Final = re.compile(
    r"""(?<![\w-])-{0,2}(?P<key>[A-Za-z_][\w-]*+)
        (?: (?P<quoted>\\{0,3}["'])\]?\s*+(?::|=>|=)\s*+
          | (?P<equals>=(?![=>]))
          | (?P<spaced>[ \t]++:?=[ \t]++)
          | (?P<colon>(?:[ ]of[ ][^:\n]{1,60}+)?:(?:[ \t]++|(?=["'])))
        )""",
    re.VERBOSE,
)
_QUOTE: Final = re.compile(r"\\{0,3}[\"'`]")
_BARE: Final = re.compile(r"[^\s\"'`<>,;&|)}\]\\]++")
_ARROW: Final = re.compile(r"[ ]→[ ]")
_PROSE: Final = re.compile(r"[A-Z]?[a-z-]++|[0-9]{1,4}")

# Random texts.

_LONG: Final = re.compile(
    r"""(?P<public>  # random, but no secret: paths in URLs, images, public keys, digests
          (?<![\w.+-])[a-z][a-z0-9+.-]*+://[^\s"'<>]++ | data:[\w/+.-]{0,80}+;base64,[\w+/=-]*+
        | \bAAAA[A-Za-z0-9+/=]{20,}+ | \bsha(?:1|256|384|512)[-:][\w+/=-]++
        | -----BEGIN[ ][A-Z0-9 ]{0,40}-----[^-]*+-----END[ ]
      ) | (?<![\w+/-])[\w+/-]{24,}+={0,2}""",
    re.VERBOSE,
)
_SEPARATORS: Final = re.compile(r"[^A-Za-z0-9]")
_CLASSES: Final = (re.compile(r"[a-z]"), re.compile(r"[A-Z]"), re.compile(r"[0-9]"))
_PARTS: Final = re.compile(r"[A-Z]?[a-z]++|[A-Z]++|[0-9]++")
_LEAST_PARTS: Final = 0.35
"""Words and numbers, divided by characters: 0.5 in random texts, up to 0.3 in names in camel case."""
_MOST_SEPARATORS: Final = 1 / 8
_FILES: Final = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"%PDF", b"PK\x03\x04", b"\x1f\x8b")


def masked(value: Any) -> Any:
    """Return `value`, at any depth, with every secret in it replaced, and each text clipped to LONGEST."""
    return _masked(value, "")


def _masked(value: Any, key: str) -> Any:
    if isinstance(value, str):
        return _hidden(value) if is_secret_key(key) else masked_text(value, identifier=_is_identifier(key))
    if isinstance(value, Mapping):
        return dict(_masked_items(value))
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_masked(item, key) for item in value]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, (int, float)):
        return HIDDEN if is_secret_key(key) else value
    return _masked(str(value), key)


def _masked_items(mapping: Mapping[Any, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield the masked items of a mapping. In `{name: API_KEY, value: …}`, the name decides."""
    names = (mapping.get(name) for name in _NAMES)
    name = next((name for name in names if isinstance(name, str)), "")
    secret = mapping.get("kind") == "Secret"
    for key, value in mapping.items():
        if secret and key in ("data", "stringData") and isinstance(value, Mapping):
            yield key, {name: _hidden(str(inner)) for name, inner in value.items()}
        elif key in _VALUES and is_secret_key(name) and not isinstance(value, Mapping):
            yield key, _masked(value, name)
        else:
            yield (
                masked_text(key) if isinstance(key, str) and len(key) > 16 else key,
                _masked(value, str(key)),
            )


def is_secret_key(key: str) -> bool:
    """Return whether the value of `key` is a secret, which its last word shows."""
    return len(key) <= _LONGEST_KEY and _names_secret(key)


@lru_cache(1024)  # the keys of log lines are few, and each line has a dozen
def _names_secret(key: str) -> bool:
    words = [word.lower() for word in _WORDS.findall(key)]
    if words[-2:] == ["key", "data"]:  # client-key-data of a kubeconfig
        words.pop()
    if not words:
        return False
    *before, last = words
    if last == "key":
        return bool(before) and _SECRET_KIND_OF_KEY.fullmatch(before[-1]) is not None
    if last == "token" and any(map(_OTHER_TOKEN.fullmatch, before)):
        return False
    return _SECRET_WORD.fullmatch(last) is not None


def _is_identifier(key: str) -> bool:
    """Return whether the value of `key` may be random: `spreadsheetId`, `sha256`."""
    return _names_identifier(key[-_LONGEST_KEY:])


@lru_cache(1024)
def _names_identifier(key: str) -> bool:
    words = [word.lower() for word in _WORDS.findall(key) if not word.isdecimal()]
    return bool(words) and _IDENTIFIER.fullmatch(words[-1]) is not None


def _hidden(text: str) -> str:
    """Return the value of a secret key as it is shown: hidden, unless it only refers to the secret."""
    if _SWITCH.fullmatch(text.strip()) or _TEMPLATE.search(text) or _REFERENCE.fullmatch(text.strip()):
        return masked_text(text)
    return HIDDEN


def masked_text(text: str, *, identifier: bool = False) -> str:
    """Return `text` with the secrets in it replaced; an `identifier` may be random."""
    if len(text) < 6:
        return text
    text = clip(text, LONGEST)
    text = _without_private_keys(text)
    text = _KNOWN.sub(lambda match: (match["keep"] or "") + HIDDEN, text)
    if ":" in text:
        text = _LOGIN.sub(_login, text)
        text = _LOGIN_OPTION.sub(_kept, text)
    text = _SCHEME.sub(_credentials, text)
    text = _without_assigned(text)
    return text if identifier else _LONG.sub(_random, text)


def _without_private_keys(text: str) -> str:
    """Hide each private key from its first line to its last, or to the end of the text."""
    pieces, at = [], 0
    for block in _PEM.finditer(text):
        if block.start() < at or _PRIVATE not in block["label"]:
            continue
        end = f"-----END {block['label']}-----"
        found = text.find(end, block.end())
        pieces += [text[at : block.start()], HIDDEN]
        at = found + len(end) if found >= 0 else len(text)
    return "".join([*pieces, text[at:]])


def _kept(match: re.Match[str]) -> str:
    return match[0] if _TEMPLATE.search(match["secret"]) else match["keep"] + HIDDEN


def _login(match: re.Match[str]) -> str:
    """Hide the password of a URL; `clip` may have cut off the @ behind it."""
    return match[0] if _TEMPLATE.search(match["secret"]) else match["keep"] + HIDDEN + match["end"]


def _credentials(match: re.Match[str]) -> str:
    """Hide what follows the name of an HTTP authentication scheme, unless it is a word of a sentence."""
    return match[0] if _PROSE.fullmatch(match["secret"].rstrip(".")) else match["keep"] + HIDDEN


def _without_assigned(text: str) -> str:
    """Hide the values of secret keys in text: `key=value`, `"key": "value"`, `--key value`."""
    pieces, done, examined = [], 0, 0
    for match in sorted((*_ASSIGNED.finditer(text), *_FLAG.finditer(text)), key=lambda match: match.end()):
        if match.end() < examined or not is_secret_key(match["key"]):
            continue
        groups = match.groupdict()
        is_prose, is_code = bool(groups.get("colon")), bool(groups.get("spaced"))
        at = match.end()
        for start, end in _values(text, at, is_sentence=" of " in match[0]):
            examined = end
            if _is_assigned_secret(text, start, end, is_prose=is_prose, is_code=is_code):
                pieces += [text[done:start], HIDDEN]
                done = end
    return "".join([*pieces, text[done:]])


def _values(text: str, at: int, *, is_sentence: bool) -> Iterator[tuple[int, int]]:
    """Yield where the value at `at` begins and ends; of a change (`old → new`), both."""
    quote = _QUOTE.match(text, at)
    if quote is not None and (end := text.find(quote[0], quote.end(), quote.end() + 4096)) >= 0:
        yield quote.end(), end
        return
    scheme = _SCHEME.match(text, at)
    bare = _BARE.match(text, scheme.end("keep") if scheme else quote.end() if quote else at)
    if bare is None:
        return
    yield bare.span()
    if (
        is_sentence
        and (arrow := _ARROW.match(text, bare.end()))
        and (after := _BARE.match(text, arrow.end()))
    ):
        yield after.span()


def _is_assigned_secret(text: str, start: int, end: int, *, is_prose: bool, is_code: bool) -> bool:
    """Return whether text[start:end], behind a secret key, is a value rather than a word or an expression."""
    value, is_quoted = text[start:end], text[start - 1 : start] in ("'", '"', "`")
    if not value or HIDDEN in value or _SWITCH.fullmatch(value) or _TEMPLATE.search(value):
        return False
    if _REFERENCE.fullmatch(value):
        return False
    if is_quoted:
        return True
    if is_prose and _PROSE.fullmatch(value.rstrip(".!?:")):
        return False
    code = _CODE.match(value)
    if code is None:
        return True
    is_name = is_code and (code["path"] or not any(map(str.isdigit, value)))
    return not (code["call"] or is_name or _ROOT_OF_CODE.match(value) is not None)


def _random(match: re.Match[str]) -> str:
    return match[0] if match["public"] or not _is_random(match[0]) else HIDDEN


def _is_random(text: str) -> bool:
    """Return whether a word is a secret: random, or Base64 of a text with a secret."""
    content = _decoded(text)
    if content.startswith(_FILES):
        return False
    try:
        inner = content.decode()
    except UnicodeDecodeError:
        inner = ""
    if inner and "".join(inner.split()).isprintable():
        return masked_text(inner) != inner
    plain = _SEPARATORS.sub("", text.rstrip("="))
    if len(text) - len(plain) > _MOST_SEPARATORS * len(text) + 2:
        return False
    has_all = all(each.search(plain) for each in _CLASSES)
    return has_all and len(_PARTS.findall(plain)) > _LEAST_PARTS * len(plain)


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
