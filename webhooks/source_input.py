"""Owners' input for sources: the URL, the credential, the webhook secret and the workflows, validated."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from gitstore.definition.quoting import clip
from gitstore.errors import MalformedError
from gitstore.upstream.remote import Credential
from webhooks.addresses import refused
from webhooks.egress import Egress
from webhooks.forges import Forge, detect
from webhooks.secrets import is_secret

MOST_GLOBS: Final = 50
"""Largest number of globs of a source. Each is compared with each ref of the upstream."""
LONGEST_GLOB: Final = 63

_URL: Final = re.compile(r"(https?)://(?:([^/@?#\\]*)@)?([^@?#\\]+)", re.IGNORECASE)
_SECRET: Final = re.compile(r"[!-~]{12,256}")
_VISIBLE: Final = re.compile(r"[!-~]{1,1000}")
_GLOB: Final = re.compile(rf"[a-z0-9*?-]{{1,{LONGEST_GLOB}}}")


@dataclass(frozen=True, slots=True)
class SourceInput:
    """The checked input for a new source. `secret` is None where one has to be generated."""

    url: str
    forge: Forge
    login: Credential | None
    secret: str | None


def check_source(
    egress: Egress, url: str, *, forge: str | None, credential: str | None, secret: str | None
) -> SourceInput:
    """Check and complete the input. Raises `address_refused` or `malformed`."""
    bare, url_credential = split_url(url, egress)
    sender = Forge(forge) if forge else detect(bare)
    if credential and url_credential:
        raise MalformedError("the credential is given twice: remove it from the URL")
    login = credential or url_credential
    return SourceInput(
        bare,
        sender,
        read_credential(login, sender) if login else None,
        check_secret(secret, sender) if secret else None,
    )


def split_url(url: str, egress: Egress) -> tuple[str, str | None]:
    """Return the URL without its credential, and the credential. Raises `address_refused`.

    URLs are shown and logged; a credential in one is therefore removed and stored encrypted.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise refused("a source is an http:// or https:// URL of a repository, without ? and #")
    scheme, user, rest = match.groups()
    target = egress.check(f"{scheme}://{rest}")
    return str(target).rstrip("/"), unquote(user) if user else None


def read_credential(text: str, forge: Forge) -> Credential:
    """Return the credential in `user:password`, or in an access token alone. Raises `malformed`."""
    if not _VISIBLE.fullmatch(text):
        raise MalformedError("a credential is user:password or an access token, in visible ASCII characters")
    user, colon, password = text.partition(":")
    return Credential(user, password) if colon else Credential(forge.profile.token_user, text)


def check_secret(secret: str, forge: Forge) -> str:
    """Return `secret`, or raise `malformed` if it cannot be a webhook secret of `forge`."""
    if not _SECRET.fullmatch(secret):
        raise MalformedError("a webhook secret has 12 to 256 visible ASCII characters")
    if forge is Forge.ANY and not is_secret(secret):
        raise MalformedError("a secret of Standard Webhooks has the form whsec_<base64>")
    return secret


def check_globs(globs: Sequence[str]) -> list[str]:
    """Return `globs` without repetitions, or raise `malformed` if they cannot select workflows."""
    unique = list(dict.fromkeys(globs))
    if not 1 <= len(unique) <= MOST_GLOBS:
        raise MalformedError(f"name 1 to {MOST_GLOBS} globs of workflows; * selects all workflows")
    for glob in unique:
        if not _GLOB.fullmatch(glob):
            raise MalformedError(
                f"{clip(glob)!r} is not a glob of workflows: use 1 to {LONGEST_GLOB} of a-z, 0-9, '-', "
                "'?' (one character) and '*' (any number of characters)"
            )
    return unique
