"""What a person says of a source (its URL, a credential, a secret), and what differs from forge to forge."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from gitstore.errors import Code, GitstoreError
from gitstore.upstream import Credential
from webhooks import signature
from webhooks.addresses import Target, refused
from webhooks.egress import Egress
from webhooks.signature import Forge

_URL: Final = re.compile(r"(https?)://(?:([^/@?#\\]*)@)?([^@?#\\]+)", re.IGNORECASE)
_SECRET: Final = re.compile(r"[!-~]{12,256}")
_VISIBLE: Final = re.compile(r"[!-~]{1,1000}")
# What stands in a host's name where it is a forge's own, or named after what runs there.
_NAMED: Final = {
    "github": Forge.GITHUB,
    "gitlab": Forge.GITLAB,
    "gitea": Forge.GITEA,
    "forgejo": Forge.FORGEJO,
    "codeberg": Forge.FORGEJO,
    "bitbucket": Forge.BITBUCKET,
}
# The user name beside an access token, which each forge wants differently, or does not look at.
_TOKEN_USERS: Final = {
    Forge.GITHUB: "x-access-token",
    Forge.GITLAB: "oauth2",
    Forge.BITBUCKET: "x-token-auth",
}
EVENTS: Final[Mapping[Forge, tuple[str, ...]]] = {
    Forge.GITHUB: ("push", "create", "delete"),
    Forge.GITEA: ("push", "create", "delete"),
    Forge.FORGEJO: ("push", "create", "delete"),
    Forge.GITLAB: ("Push events", "Tag push events"),
    Forge.BITBUCKET: ("repo:push",),
    Forge.ANY: ("every push",),
}
"""Which events a forge should send, as it calls them."""


@dataclass(frozen=True, slots=True)
class Given:
    """What somebody said of a new source, checked. `secret` is None where one is to be made."""

    url: str
    forge: Forge
    login: Credential | None
    secret: str | None


def given(
    egress: Egress, url: str, *, forge: str | None, credential: str | None, secret: str | None
) -> Given:
    """Check and complete it. Raises `address_refused`, `malformed`."""
    bare, in_url = address(url, egress)
    kind = Forge(forge) if forge else detected(bare)
    if credential and in_url:
        raise GitstoreError(Code.MALFORMED, "a credential is given twice: leave it out of the URL")
    login = credential or in_url
    return Given(
        bare,
        kind,
        login_of(login, kind) if login else None,
        check_secret(secret, kind) if secret else None,
    )


def address(url: str, egress: Egress) -> tuple[str, str | None]:
    """(the URL as it is kept, the credential that stood in it). Raises `address_refused`.

    A credential in a URL ends up in logs and on screens: it is taken out, and sealed like any other.
    """
    found = _URL.fullmatch(url)
    if found is None:
        raise refused("a source is an http:// or https:// URL of a repository, without ? and #")
    scheme, user, rest = found.groups()
    target: Target = egress.check(f"{scheme}://{rest}")
    return str(target).rstrip("/"), unquote(user) if user else None


def detected(url: str) -> Forge:
    """The forge at `url`, as far as the host's name tells; `any` where it does not."""
    host = url.partition("://")[2].partition("/")[0].lower()
    return next((forge for word, forge in _NAMED.items() if word in host), Forge.ANY)


def login_of(given: str, forge: Forge) -> Credential:
    """From `user:password`, or an access token alone."""
    if not _VISIBLE.fullmatch(given):
        raise GitstoreError(Code.MALFORMED, "a credential is user:password or an access token, visible ASCII")
    user, colon, password = given.partition(":")
    return Credential(user, password) if colon else Credential(_TOKEN_USERS.get(forge, "git"), given)


def check_secret(secret: str, forge: Forge) -> str:
    """Raise `malformed` unless `secret` will do for the webhook."""
    if not _SECRET.fullmatch(secret):
        raise GitstoreError(Code.MALFORMED, "the secret of a webhook is 12 to 256 visible ASCII characters")
    if forge is Forge.ANY and not signature.is_standard_secret(secret):
        raise GitstoreError(
            Code.MALFORMED,
            "a sender without a forge signs by Standard Webhooks: the secret is whsec_<base64>",
        )
    return secret
