"""Admission of large request bodies: whether, how large, and in what time, decided from the head alone.

The views have limits of their own; a body that exceeds its view's limit is cut off here and refused there.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from flask import Request

from gitstore.model import Rules
from service.clients import set_address
from service.context import EXTENSION, Services
from service.errors import UnauthenticatedError
from service.git_http import FETCH, FETCH_LIMIT, PUSH
from service.inputs import most_json
from service.lookup import uuid_of
from service.run.bridge import Admit, Allowance
from service.ui import session as browser_session
from service.ui import visits
from webhooks import source_queue
from webhooks.forges import MOST_BYTES

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

BODY_SECONDS: Final = 15.0
GIT_SECONDS: Final = 60.0
_HOOKS: Final = "/hooks/"
_GIT: Final = (f"/{FETCH}", f"/{PUSH}")
_DRAINED: Final = 256 * 2**20  # bytes of a push beyond its limit: git sends all before it reads the answer
_COMMAND: Final = 512  # bytes of a push besides its pack, for each ref


def seconds(path: str) -> float:
    """Return the seconds that a request's body may take, in addition to the time for its size."""
    return GIT_SECONDS if path.endswith(_GIT) else BODY_SECONDS


def admission_for(app: Any) -> Admit:
    """Return the admission function for `app`; an app without services (test, bench) gets any body."""
    services: Services | None = getattr(app, "extensions", {}).get(EXTENSION)
    return (lambda _environ: Allowance(MOST_BYTES)) if services is None else partial(admit, services)


def admit(here: Services, environ: WSGIEnvironment) -> Allowance | None:
    """Return the allowance of the request: no body unless its credential is active."""
    path: str = environ["PATH_INFO"]
    if path.startswith(_HOOKS):
        source = uuid_of(path.removeprefix(_HOOKS))
        known = source is not None and source_queue.hook_target(here.database, source) is not None
        return Allowance(MOST_BYTES) if known else None
    try:
        return _with_credential(here, path, environ)
    except UnauthenticatedError:
        return None


def _with_credential(here: Services, path: str, environ: WSGIEnvironment) -> Allowance | None:
    limits = here.config.limits
    set_address(environ, here.config.trusted_proxies)
    authorization, address = environ.get("HTTP_AUTHORIZATION"), environ["REMOTE_ADDR"]
    if path.endswith(_GIT):
        here.auth.basic(authorization, address)
        if path.endswith(FETCH):
            return Allowance(FETCH_LIMIT)
        # A compressed body may be a little larger than its content.
        most = limits.pack + limits.pack // 256 + limits.commands * _COMMAND + 2**20
        return Allowance(most, _DRAINED)
    if path.startswith(browser_session.PATH):
        session = browser_session.read(Request(environ), here)
        if session is None:
            return None
        browser_session.principal(here, session, address)
        return Allowance(visits.most_form(limits))
    here.auth.bearer(authorization, address)
    return Allowance(most_json(limits.under(Rules.ANY)))
