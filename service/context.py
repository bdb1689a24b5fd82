"""Request context: the services built by create_app, and the caller.

A view begins with `enter`, which authenticates and authorizes, and returns the `Caller` of its actions.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, cast
from uuid import UUID, uuid4

from flask import Request, abort, current_app, request

from gitstore.errors import GitstoreError, MalformedError, too_large
from gitstore.model import Permission
from service import fairness
from service.access import Identity, Principal, authorize, check_acting
from service.auth import Authenticator
from service.caller import Backend, Caller
from service.errors import HttpCode
from service.fairness import FairShares
from service.issuers import User
from service.lookup import uuid_of
from service.metrics import Metrics
from service.scraping import Scraper
from sync.audit import Origin

EXTENSION: Final = "gitstore"
ON_BEHALF_OF: Final = "Gitstore-On-Behalf-Of"
"""Header in which a program names the user for whom it acts."""
FORKS: Final = "gitstore.forks"
"""Flask extension that holds this process's fork server (service/run/forking.py), if it has one."""
FACTS: Final = "gitstore.facts"
"""WSGI environment key for the fields of a request's log line; `request_id` is always present."""

ON_REPLICA: Final = "gitstore.on_replica"
"""WSGI environment key that is set while a request reads from the replica (service/replicas.py)."""
_USER: Final = "gitstore.user"
"""WSGI environment key for the verified user of a request that a process of its own answers."""
_SANE_USER: Final = re.compile(r"[!-~]{1,200}")
_SANE_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._~:+/=@-]{1,128}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Services(Backend):
    """Services that create_app builds once per process."""

    metrics: Metrics
    scraper: Scraper
    shares: FairShares
    auth: Authenticator
    replica: Services | None = None
    """The same services on GITSTORE_READ_URL, if that is set."""


def services() -> Services:
    """Return the services of the application that serves this request."""
    here = cast(Services, current_app.extensions[EXTENSION])
    return here.replica if here.replica is not None and ON_REPLICA in request.environ else here


def request_id_from(header: str | None) -> str:
    """Return the request id given by a client or a proxy if it is valid, else a new one."""
    return header if header is not None and _SANE_REQUEST_ID.fullmatch(header) else str(uuid4())


def request_id() -> str:
    """Return the id of this request."""
    return str(request.environ.get(FACTS, {}).get("request_id", ""))


def note(**facts: object) -> None:
    """Add `facts` to this request's log line."""
    request.environ.setdefault(FACTS, {}).update(facts)


def origin(principal: Identity, door: str) -> Origin:
    """Return the origin of this request for the audit log."""
    return Origin(str(principal.id), principal.name, door, request.remote_addr, request_id() or None)


def client_address() -> str:
    """Return the address of this request's client."""
    return request.remote_addr or ""


def admit(principal: Principal | None, *, definitions: int = 0) -> None:
    """Wait for this request's turn if it is heavy; the turn lasts until its answer is sent.

    `definitions` is the size in bytes of the stored definitions that it works on. Raises `too_many_requests`.
    Does not return if a process of its own answers the request: that process starts the view again.
    """
    environ = request.environ
    heavy = fairness.is_heavy(request.endpoint, request.content_length or 0, definitions)
    if not heavy or fairness.LEASE in environ:
        return
    tenant, credential = fairness.ANONYMOUS, str(request.remote_addr)
    if principal is not None:
        tenant, credential = str(principal.project.id), str(principal.id)
    is_gone = environ.get(fairness.DISCONNECTED, lambda: False)
    environ[fairness.LEASE] = services().shares.admit(tenant, credential, is_gone)
    forks = current_app.extensions.get(FORKS)
    if forks is not None and fairness.is_apart(request.endpoint, request.content_length or 0):
        answer = forks.run(environ)
        if answer is not None:
            abort(answer)


def caller_of(principal: Principal, door: str) -> Caller:
    """Return the caller of this request.

    Raises `forbidden` or `malformed` if it acts for a user, and may not, or does not name the user in text.
    """
    user = request.headers.get(ON_BEHALF_OF)
    if user is not None:
        check_acting(principal)
        if not _SANE_USER.fullmatch(user):
            raise MalformedError(f"{ON_BEHALF_OF} names a user in 1 to 200 visible ASCII characters")
    return Caller(
        services(), principal, origin(principal, door), lambda size: admit(principal, definitions=size), user
    )


def enter(permission: Permission, what: str, *, project: str | None = None) -> Caller:
    """Authenticate and authorize an API caller for `what` (a phrase for messages: "publishing x").

    `project` is the value of `?project=`. Raises `unauthenticated`, `project_not_found`, `forbidden` or, for
    a user of several projects who names none, `project_required`.
    """
    identity = enter_user()
    principal = services().auth.in_project(identity, project, workflow=_workflow_in_path())
    note(project=principal.project.slug)
    authorize(principal, permission, what)
    admit(principal)
    return caller_of(principal, "http")


def enter_user() -> Identity:
    """Authenticate an API caller of an endpoint that is about no one project; raises `unauthenticated`.

    The identity of an access token is a `Principal`, in the token's own project.
    """
    return sender(services().auth.bearer)


def sender(authenticate: Callable[[str | None, str], Identity]) -> Identity:
    """Return the sender of this request, whom `authenticate` finds by the header Authorization.

    A user's token is verified by the process that received the request, which keeps the issuers' keys.
    """
    known = request.environ.get(_USER)
    if known is None:
        identity = authenticate(request.headers.get("Authorization"), client_address())
        if identity.user is not None:
            request.environ[_USER] = str(identity.user)
    else:
        identity = Identity.of(User.parse(known))
    note(principal=identity.name)
    return identity


def _workflow_in_path() -> UUID | None:
    """Return the UUID in the path that names a workflow; None for a slug, and in paths without a workflow."""
    rule = request.url_rule
    if rule is None or "/workflows/<id>" not in rule.rule:
        return None
    return uuid_of(str((request.view_args or {}).get("id", "")))


def read_body(request: Request, most: int) -> bytes:
    """Return the body, at most `most` bytes; a larger declared length is refused before reading."""
    encoding = request.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        message = "Content-Encoding is not supported: send the body without one"
        raise GitstoreError(HttpCode.UNSUPPORTED_MEDIA_TYPE, message)
    declared = request.content_length
    if declared is not None and declared > most:
        raise too_large("the body has", declared, most)
    # Werkzeug truncates a body at its limit silently, and takes a body that ended early for complete if the
    # server declares that it terminates the input itself (as bridge.py does). So one byte more, and then both
    # checks.
    request.max_content_length = most + 1
    try:
        raw = request.get_data(cache=False)
    except GitstoreError:
        raise
    except Exception as error:
        raise MalformedError("the body is damaged, or took too long to arrive") from error
    if len(raw) > most:
        raise too_large("the body has more than", most, most)
    if declared is not None and len(raw) != declared:
        raise MalformedError(f"the body ended after {len(raw):,} of {declared:,} bytes")
    return raw
