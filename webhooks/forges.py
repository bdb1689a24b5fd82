"""Forges: one entry each for the signature scheme, event names and token authentication.

To add a forge, add a member of `Forge` here and a sample delivery to tests/webhooks/test_inbound.py.

Sources: https://docs.github.com/webhooks/using-webhooks/validating-webhook-deliveries,
https://docs.gitea.com/usage/webhooks, https://forgejo.org/docs/latest/user/webhooks/,
https://docs.gitlab.com/user/project/integrations/webhooks/,
https://support.atlassian.com/bitbucket-cloud/docs/manage-webhooks/, and, for `any`,
https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

WEBHOOK_ID = "webhook-id"
"""The header of Standard Webhooks that identifies a message."""


@dataclass(frozen=True, slots=True)
class Profile:
    """The properties of a forge. Header names are in lower case.

    `title`              the display name
    `hosts`              words that identify the forge in a host's name
    `hmac_headers`       header -> the prefix before the hex HMAC-SHA256 of the raw body
    `token_header`       the header that holds the secret itself
    `standard`           deliveries may be signed per Standard Webhooks
    `event_headers`      headers that name the event; the first one present counts
    `delivery_headers`   headers that identify the delivery, the same for every retry
    `ref_events`         events that report changed refs; without `event_headers`, every delivery does
    `ping_events`        events that only test the webhook
    `subscribe_to`       the events to select in the forge's settings, by the names used there
    `token_user`         the user name that goes with an access token
    """

    title: str
    hosts: tuple[str, ...] = ()
    hmac_headers: Mapping[str, str] = field(default_factory=dict)
    token_header: str | None = None
    standard: bool = False
    event_headers: tuple[str, ...] = ()
    delivery_headers: tuple[str, ...] = ()
    ref_events: frozenset[str] = frozenset()
    ping_events: frozenset[str] = frozenset()
    subscribe_to: tuple[str, ...] = ()
    token_user: str = "git"  # noqa: S105 - a user name


class Forge(StrEnum):
    """The sender of a source's webhooks. The value is the name in the API and in the database."""

    profile: Profile

    def __new__(cls, name: str, profile: Profile | None = None) -> Forge:
        # The default is for type checkers: Forge("github") looks a member up and creates none.
        member = str.__new__(cls, name)
        member._value_ = name
        member.profile = profile or Profile(name)
        return member

    GITHUB = (
        "github",
        Profile(
            "GitHub",
            hosts=("github",),
            hmac_headers={"x-hub-signature-256": "sha256="},
            event_headers=("x-github-event",),
            delivery_headers=("x-github-delivery",),
            ref_events=frozenset({"push", "create", "delete"}),
            ping_events=frozenset({"ping"}),
            subscribe_to=("push", "create", "delete"),
            token_user="x-access-token",  # noqa: S106 - a user name
        ),
    )
    GITLAB = (
        "gitlab",
        Profile(
            "GitLab",
            hosts=("gitlab",),
            token_header="x-gitlab-token",  # noqa: S106 - the name of a header
            standard=True,
            event_headers=("x-gitlab-event",),
            # Idempotency-Key is the same for every retry; several hooks share the UUID of an event.
            delivery_headers=(WEBHOOK_ID, "idempotency-key", "x-gitlab-event-uuid"),
            ref_events=frozenset({"Push Hook", "Tag Push Hook", "System Hook"}),
            subscribe_to=("Push events", "Tag push events"),
            token_user="oauth2",  # noqa: S106 - a user name
        ),
    )
    GITEA = (
        "gitea",
        Profile(
            "Gitea",
            hosts=("gitea",),
            hmac_headers={"x-gitea-signature": ""},
            event_headers=("x-gitea-event",),
            delivery_headers=("x-gitea-delivery",),
            ref_events=frozenset({"push", "create", "delete"}),
            subscribe_to=("push", "create", "delete"),
        ),
    )
    FORGEJO = (
        "forgejo",
        Profile(
            "Forgejo",
            hosts=("forgejo", "codeberg"),
            hmac_headers={"x-forgejo-signature": "", "x-gitea-signature": ""},
            event_headers=("x-forgejo-event", "x-gitea-event"),
            delivery_headers=("x-forgejo-delivery", "x-gitea-delivery"),
            ref_events=frozenset({"push", "create", "delete"}),
            subscribe_to=("push", "create", "delete"),
        ),
    )
    BITBUCKET = (
        "bitbucket",
        Profile(
            "Bitbucket",
            hosts=("bitbucket",),
            hmac_headers={"x-hub-signature": "sha256="},
            event_headers=("x-event-key",),
            delivery_headers=("x-request-uuid", "x-request-id"),
            ref_events=frozenset({"repo:push", "repo:refs_changed"}),
            ping_events=frozenset({"diagnostics:ping"}),
            subscribe_to=("repo:push",),
            token_user="x-token-auth",  # noqa: S106 - a user name
        ),
    )
    ANY = (
        "any",
        Profile(
            "another sender, signed per Standard Webhooks",
            standard=True,
            delivery_headers=(WEBHOOK_ID,),
            subscribe_to=("every push",),
        ),
    )


def detect(url: str) -> Forge:
    """Return the forge that the host of `url` is named after, or `any`."""
    host = url.partition("://")[2].partition("/")[0].lower()
    return next((forge for forge in Forge if any(word in host for word in forge.profile.hosts)), Forge.ANY)
