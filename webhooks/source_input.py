"""Validate user input for a source: its URL, a credential and a webhook secret."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from gitstore.errors import MalformedError
from gitstore.upstream.remote import Credential
from webhooks import signature
from webhooks.addresses import Target, refused
from webhooks.egress import Egress
from webhooks.forges import Forge, detect

_URL: Final = re.compile(r"(https?)://(?:([^/@?#\\]*)@)?([^@?#\\]+)", re.IGNORECASE)
_SECRET: Final = re.compile(r"[!-~]{12,256}")
_VISIBLE: Final = re.compile(r"[!-~]{1,1000}")


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
    bare, in_url = split_url(url, egress)
    kind = Forge(forge) if forge else detect(bare)
    if credential and in_url:
        raise MalformedError("the credential is given twice: remove it from the URL")
    login = credential or in_url
    return SourceInput(
        bare,
        kind,
        read_credential(login, kind) if login else None,
        check_secret(secret, kind) if secret else None,
    )


def split_url(url: str, egress: Egress) -> tuple[str, str | None]:
    """Return the URL without its credential, and the credential. Raises `address_refused`.

    A URL is shown and logged, so that a credential in it is removed and stored encrypted.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise refused("a source is an http:// or https:// URL of a repository, without ? and #")
    scheme, user, rest = match.groups()
    target: Target = egress.check(f"{scheme}://{rest}")
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
    if forge is Forge.ANY and not signature.is_standard_secret(secret):
        raise MalformedError(
            "the secret of a sender that signs per Standard Webhooks has the form whsec_<base64>",
        )
    return secret
