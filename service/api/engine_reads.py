"""Short way of an engine's reads around Flask: one round trip to Postgres, and no routing or validation.

`in_loop` answers in the event loop, without a thread; `around` answers in a request's thread, and also reads
replicas.

It answers `GET /workflows/{slug or id}/versions/{current, number or environment}`, with and without
`/definition`, for an access token and with no query but a plain `key`; and `GET …/versions`, the history,
with no query but `limit` and `cursor`. Any other request, and any that would not be answered with 200 or 304,
goes to Flask, whose views in `service/api/versions.py` define the answers. Only create_app uses it.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from uuid import UUID

from gitstore.definition.document import is_bytes_only
from gitstore.environments import is_name
from gitstore.errors import GitstoreError
from gitstore.git.commits import object_of
from gitstore.model import Permission, Problems
from gitstore.names import HIGHEST_NUMBER, is_slug, parse_number
from service.access import Role, digest, includes, is_token
from service.api import http, versions
from service.api.openapi import LONGEST_PAGE, YAML
from service.context import FACTS, ON_REPLICA, Services
from service.lookup import number_in, uuid_of
from service.middleware import ENDPOINT, Answer, Reads
from sync import tokens
from sync.catalog import InEnvironment
from sync.libpq import Call
from sync.loop_calls import LoopCalls
from sync.tokens import ListedVersion, ReadVersion

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_PATH: Final = re.compile(r"/workflows/([^/]++)/versions(?:/([a-z0-9-]++)(/definition)?+)?+")
_PAGE: Final = re.compile(r"(?:limit=([1-9][0-9]{0,2}+)(?:&|$))?+(?:cursor=([A-Za-z0-9_-]{1,40}+))?+")
_KEY: Final = re.compile(r"(?:key=([A-Za-z0-9._~-]{1,200}+))?+")
_BEARER: Final = "Bearer "
_TRIED: Final = "gitstore.tried"
_UNUSUAL: Final = ("SCRIPT_NAME", "HTTP_GITSTORE_ON_BEHALF_OF", "HTTP_TRANSFER_ENCODING")


class _Asked(NamedTuple):
    """A request as a call of Postgres, and a function from its rows to the answer, or to None for Flask."""

    secret: bytes
    address: str
    call: Call[Any]
    answer: Callable[[list[Any]], Answer | None]


def around(inner: WSGIApplication, services: Services) -> WSGIApplication:
    """Wrap `inner`, which answers all that is not answered here."""

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        here = services.replica if ON_REPLICA in environ else services
        answer = _answer(environ, here or services)
        if answer is None:
            return inner(environ, start_response)
        start_response(answer.status, answer.all_headers())
        return [answer.body] if answer.body is not None else []

    return app


def in_loop(services: Services) -> Reads:
    """Return a function that answers as `around` does, in an event loop; None for any other request."""
    calls = LoopCalls(services.database)

    async def answered(environ: WSGIEnvironment, asked: _Asked) -> Answer | None:
        environ[_TRIED] = True
        try:
            with services.auth.reading(asked.secret, asked.address) as rows:
                rows += await calls.call(asked.call)
        except GitstoreError:
            return None
        return asked.answer(rows) if rows else None

    def app(environ: WSGIEnvironment) -> Awaitable[Answer | None] | None:
        asked = _asked(environ, services)
        return answered(environ, asked) if asked is not None else None

    return app


def _answer(environ: WSGIEnvironment, services: Services) -> Answer | None:
    """Return the answer, or None for Flask."""
    asked = _asked(environ, services) if _TRIED not in environ else None
    if asked is None:
        return None
    try:
        with services.auth.reading(asked.secret, asked.address) as rows:
            rows += services.database.call(asked.call)
    except GitstoreError:
        return None
    return asked.answer(rows) if rows else None


def _asked(environ: WSGIEnvironment, services: Services) -> _Asked | None:
    """Return the request as a call of Postgres, or None if Flask must answer it."""
    path = _PATH.fullmatch(environ.get("PATH_INFO", ""))
    if path is None or environ["REQUEST_METHOD"] != "GET" or any(environ.get(name) for name in _UNUSUAL):
        return None
    authorization = environ.get("HTTP_AUTHORIZATION", "")
    token = authorization.removeprefix(_BEARER)
    if token == authorization or not is_token(token):
        return None
    name, version, definition = path.groups()
    workflow = uuid_of(name) or (name if is_slug(name) else None)
    if workflow is None or environ.get("CONTENT_LENGTH", "0") not in ("", "0"):
        return None
    secret, address = digest(token), environ.get("REMOTE_ADDR", "")
    if version is None:
        return _history(environ, services, secret, workflow)
    key = _KEY.fullmatch(environ.get("QUERY_STRING", ""))
    number = parse_number(version)
    in_environment = number is None and is_name(version)
    if key is None or not (number or in_environment or version == "current"):
        return None
    which = InEnvironment(version, key[1]) if in_environment else number
    if definition and environ.get("HTTP_ACCEPT", "*/*") != "*/*":
        return None
    known = environ.get("HTTP_IF_NONE_MATCH", "")
    call = tokens.read_version(secret, workflow, which, as_text=not definition, known=known)

    def answer(rows: list[ReadVersion]) -> Answer | None:
        (row,) = rows
        if is_slug(name) and name != row.slug:  # a former slug, which redirects
            return None
        if row.archived and number is None:  # nothing runs
            return None
        if row.state != "published" or not includes(Role(row.token_role), Permission.READ):
            return None
        given = _bytes(row, known, numbered=number is not None) if definition else _json(row, known, services)
        if given is not None:
            _note(environ, row, "read_definition" if definition else "read_version")
        return given

    return _Asked(secret, address, call, answer)


def _note(environ: WSGIEnvironment, row: ReadVersion | ListedVersion, endpoint: str) -> None:
    environ[ENDPOINT] = f"versions.{endpoint}"
    environ.setdefault(FACTS, {}).update(principal=row.token_name, project=row.project_slug)


def _history(
    environ: WSGIEnvironment, services: Services, secret: bytes, workflow: UUID | str
) -> _Asked | None:
    query = _PAGE.fullmatch(environ.get("QUERY_STRING", ""))
    if query is None:
        return None
    limit = int(query[1] or versions.HistoryQuery.model_fields["limit"].default)
    if limit > LONGEST_PAGE:
        return None
    try:
        below = number_in(query[2]) or HIGHEST_NUMBER + 1
    except GitstoreError:
        return None

    def answer(rows: list[ListedVersion]) -> Answer | None:
        if isinstance(workflow, str) and workflow != rows[0].slug:
            return None
        if not includes(Role(rows[0].token_role), Permission.READ):
            return None
        place = rows[limit - 1].version_number if len(rows) > limit else None
        given = {name: text for name, text in zip(("limit", "cursor"), query.groups(), strict=True) if text}
        body, link = versions.page_of(services, rows[:limit], place, given)
        _note(environ, rows[0], "list_versions")
        return Answer(
            body, http.JSON, (("Cache-Control", http.CHANGING), *([("Link", link)] if link else []))
        )

    call = tokens.read_history(secret, workflow, below=below, limit=limit + 1)
    return _Asked(secret, environ.get("REMOTE_ADDR", ""), call, answer)


def _json(row: ReadVersion, known: str, services: Services) -> Answer | None:
    if not row.valid or is_bytes_only(row.digest):
        return None
    etag = versions.etag_of(row)
    body = None
    if not http.matches(known, etag):
        if row.text is None:
            return None
        body = versions.json_of(row, services, Problems())
    return Answer(body, http.JSON, (("Cache-Control", http.CHANGING), ("ETag", etag), *_deprecation(row)))


def _bytes(row: ReadVersion, known: str, *, numbered: bool) -> Answer | None:
    etag, body = f'"{row.blob_sha}"', None
    content_type = YAML[0]
    if not http.matches(known, etag):
        body = row.stored
        if body is None or object_of(row.blob_sha, "blob", body) is None:
            return None
        if row.file_name.endswith(".json"):
            body, content_type = body.removeprefix(codecs.BOM_UTF8), http.JSON
    caching = http.IMMUTABLE if numbered else http.CHANGING
    headers = (("Cache-Control", caching), ("ETag", etag), ("Vary", "Accept"), *_deprecation(row))
    return Answer(body, content_type, headers)


def _deprecation(row: ReadVersion) -> Iterable[tuple[str, str]]:
    return [(name.title(), value) for name, value in versions.deprecation(row).items()]
