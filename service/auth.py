"""Authentication: the credential of a request -> Identity, and its project -> Principal.

A credential is an access token or a user's JWT (`service/issuers.py`), sent as a Bearer token (RFC 6750) to
the API, and as the password of HTTP Basic (RFC 7617, any user name) by git. The API does not accept Basic,
because browsers send it automatically, even from pages of other sites.

An access token belongs to one project. A user may be a member of several, so a request names its project.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from gitstore.definition.quoting import clip
from gitstore.errors import Code, GitstoreError, NotFoundError
from service.access import Identity, Principal, Role, check_project, digest, is_token, unknown_project
from service.clients import SignIns
from service.errors import HttpCode, UnauthenticatedError
from service.issuers import Verifier, is_jwt
from sync import tokens
from sync.db import Database


@dataclass(frozen=True, slots=True)
class Authenticator:
    """Authenticates requests. Safe to share between threads."""

    database: Database
    verifier: Verifier
    sign_ins: SignIns

    # Each method takes the client's address, and raises `unauthenticated` or, after failed attempts from that
    # address, `too_many_requests`.

    def bearer(self, authorization: str | None, address: str) -> Identity:
        """Return the sender of an Authorization header with a Bearer token."""
        scheme, _, credentials = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            raise UnauthenticatedError("send an access token: Authorization: Bearer <token>")
        return self._holder(credentials.strip(), address)

    def basic(self, authorization: str | None, address: str) -> Identity:
        """Return the sender of an Authorization header with Basic credentials."""
        scheme, _, credentials = (authorization or "").partition(" ")
        if scheme.lower() != "basic":
            raise UnauthenticatedError(
                "an access token is required: send it as the password, with any user name"
            )
        try:
            _, _, password = base64.b64decode(credentials.strip(), validate=True).partition(b":")
        except (binascii.Error, ValueError):
            raise UnauthenticatedError("invalid HTTP Basic credentials") from None
        return self._holder(password.decode("utf-8", "replace"), address)

    def token(self, token: str, address: str) -> Principal:
        """Return the principal of an access token."""
        if is_token(token):
            return self.session(digest(token), address)
        with self._attempt(token.encode(), address):
            raise UnauthenticatedError("invalid access token: expected gst_ and 43 characters")

    def session(self, secret: bytes, address: str) -> Principal:
        """Return the principal of a browser session, which stores the token's digest.

        Called at every request, so that a session ends when its token does.
        """
        with self._attempt(secret, address):
            holder = tokens.authenticate(self.database, secret)
            if holder is None:
                raise UnauthenticatedError("the access token is unknown, revoked or expired")
        project = holder.project
        visible = project.id if holder.visible else None
        return Principal(holder.id, holder.name, "token", project, Role(holder.role), visible=visible)

    @contextmanager
    def reading(self, secret: bytes, address: str) -> Iterator[list[Any]]:
        """Yield a list to which the block adds the rows of a read: a row proves that the credential is valid.

        A failure is not counted: the request is then answered as any other.
        """
        self.sign_ins.check(address, secret)
        rows: list[Any] = []
        yield rows
        if rows:
            self.sign_ins.accepted(secret)

    def in_project(
        self, identity: Identity, named: str | None = None, *, workflow: UUID | None = None
    ) -> Principal:
        """Return `identity` with its role in the project of the request.

        That is the one `named`, by slug or id, else that of the workflow with an id `workflow`, else the only
        one of the user. Raises `project_not_found`, `workflow_not_found` or, for a user without or with
        several projects, `project_required`. Another tenant's object and one that does not exist give the
        same error.
        """
        if isinstance(identity, Principal):
            check_project(identity, named)
            return identity
        if named is not None and not named.isprintable():
            raise unknown_project(named)
        if named is not None:
            workflow = None
        found = tokens.user_role(self.database, identity.claims, named=named, workflow=workflow)
        if found is not None and not found.others:
            return Principal(
                identity.id, identity.name, "user", found.project, Role(found.role), user=identity.user
            )
        if named is not None:
            raise unknown_project(named)
        if workflow is not None and found is None:
            raise NotFoundError(Code.WORKFLOW_NOT_FOUND, f"there is no workflow {clip(str(workflow))!r}")
        raise GitstoreError(
            HttpCode.PROJECT_REQUIRED,
            "name the project: ?project=<slug or id>"
            if found is not None
            else "you are not a member of any project: create one, or ask an owner to add you",
        )

    def _holder(self, credential: str, address: str) -> Identity:
        if not is_jwt(credential):
            return self.token(credential, address)
        with self._attempt(credential.encode(), address):
            return Identity.of(self.verifier.user(credential))

    @contextmanager
    def _attempt(self, credential: bytes, address: str) -> Iterator[None]:
        """Count a failed sign-in of the block; refuse to try after too many failures."""
        self.sign_ins.check(address, credential)
        try:
            yield
        except UnauthenticatedError:
            self.sign_ins.failed(address)
            raise
        self.sign_ins.accepted(credential)
