"""/<project>.git and /<project>: the smart HTTP protocol of git (gitprotocol-http(5)): clone, fetch and push.

The adapter between Flask and `push/receive.py` and `upload_pack.py`. Messages for the user's terminal are
sent as text/plain, which git prints as `remote: ...`.
"""

from __future__ import annotations

import gzip
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from typing import IO, Final

from dulwich.protocol import pkt_line
from flask import Blueprint, Response, request
from werkzeug.exceptions import HTTPException

from gitstore import names, upload_pack
from gitstore.changes import Authorship
from gitstore.definition.quoting import clip
from gitstore.errors import Code, ForbiddenError, GitstoreError, MalformedError, NotFoundError, too_large
from gitstore.model import Permission
from gitstore.names import VersionRef
from gitstore.policy import Effect
from gitstore.push import receive
from gitstore.push.receive import Receipt, Receiver
from gitstore.push.report import PushReport
from gitstore.repository import Repository
from gitstore.system import now
from service import access, errors, logs
from service.caller import Caller
from service.context import admit, caller_of, note, sender, services
from service.errors import HttpCode
from service.logs import Event
from service.projects import check_writable

FETCH: Final = "git-upload-pack"
PUSH: Final = "git-receive-pack"
ARCHIVE: Final = "git-upload-archive"
NO_ARCHIVE: Final = "git archive --remote is not supported: clone the repository, then run git archive in it"

FETCH_LIMIT: Final = 32 * 2**20  # bytes of wants and haves
_NOT_CACHED: Final = {  # as by git-http-backend(1), for caches of HTTP/1.0, too
    "Expires": "Fri, 01 Jan 1980 00:00:00 GMT",
    "Pragma": "no-cache",
    "Cache-Control": "no-cache, max-age=0, must-revalidate",
}
_CHUNK: Final = 64 * 1024
_DONE: Final = {
    Effect.SAVE: Event.SAVED,
    Effect.PUBLISH: Event.PUBLISHED,
    Effect.DISCARD: Event.DISCARDED,
}

Read = Callable[[int], bytes]


blueprint = Blueprint("git", __name__)


@blueprint.errorhandler(GitstoreError)
def refused(error: GitstoreError) -> Response:
    return errors.plain(error)


@blueprint.errorhandler(Exception)
def unexpected(error: Exception) -> Response:
    if isinstance(error, HTTPException):
        return errors.plain(errors.of_flask(error))
    logs.action(Event.INTERNAL_ERROR, level="error", path=request.path, exc_info=True)
    return errors.plain(errors.of_unexpected(error))


@blueprint.get("/info/refs", defaults={"project": ""})
@blueprint.get("/<path:project>/info/refs")
def info_refs(project: str) -> Response:
    """Advertise the refs. A path that no project can have is refused here, too, as git prints it."""
    if not project or "/" in project:
        url = f"{services().config.public_url}/<project>.git"
        raise NotFoundError(Code.NOT_FOUND, f"no repository is at /{clip(project)}: clone {url}")
    service = request.args.get("service", "")
    if service == ARCHIVE:
        raise ForbiddenError(NO_ARCHIVE)
    if service not in (FETCH, PUSH):
        raise ForbiddenError("only git's smart HTTP protocol is supported: use git 1.6.6 or newer")
    caller = _enter(project, service)
    with closing(caller.services.projects.reader(caller.project)) as repository:
        if service == PUSH:
            body: Iterable[bytes] = [receive.advertise(repository)]
        else:
            body = upload_pack.advertise(repository.path, request.headers.get("Git-Protocol", ""))
        return _answer(body, f"application/x-{service}-advertisement")


@blueprint.post(f"/<project>/{ARCHIVE}")
def archive(project: str) -> Response:
    """Refuse by an ERR packet (gitprotocol-pack(5)), which git prints, unlike the body of an HTTP error."""
    _enter(project, ARCHIVE)
    return _answer([pkt_line(f"ERR {NO_ARCHIVE}\n".encode())], f"application/x-{ARCHIVE}-result")


@blueprint.post(f"/<project>/{FETCH}")
def fetch(project: str) -> Response:
    _check_content_type(FETCH)
    caller = _enter(project, FETCH)
    with closing(caller.services.projects.reader(caller.project)) as repository:
        wants, protocol = _spool(_reader()), request.headers.get("Git-Protocol", "")
        return _answer(_served(repository, protocol, wants), f"application/x-{FETCH}-result")


@blueprint.post(f"/<project>/{PUSH}")
def push(project: str) -> Response:
    _check_content_type(PUSH)
    caller = _enter(project, PUSH)
    started, projects = time.perf_counter(), caller.services.projects
    with closing(projects.writer(caller.project, caller.services.database, caller.origin)) as store:
        page = f"{caller.services.config.public_url}/ui/workflows/{{}}/versions/{{}}"
        authorship = Authorship(caller.actors().actor, now())
        authorize = partial(access.authorize, caller.principal)
        receipt = Receiver(store, authorship, authorize, PushReport(page.format)).receive(_reader())
    _record(caller, receipt, duration_ms=round((time.perf_counter() - started) * 1000, 1))
    return _answer([receipt.answer], f"application/x-{PUSH}-result")


def _enter(project: str, service: str) -> Caller:
    """Authenticate and authorize the caller, and wait for its turn if the request is heavy."""
    here = services()
    principal = here.auth.in_project(sender(here.auth.basic), project.removesuffix(".git"))
    note(project=principal.project.slug)
    if service == PUSH:
        access.authorize(principal, Permission.EDIT, "pushing")
        check_writable(principal.project)  # here, as git prints the answer to its first request alone
    else:
        access.authorize(principal, Permission.READ, "fetching")
    admit(principal)
    caller = caller_of(principal, "git")
    caller.check_visible()
    return caller


def _record(caller: Caller, receipt: Receipt, *, duration_ms: float) -> None:
    """Update the counters, and log a line for each ref: the key actions of a push."""
    if not receipt.verdicts:
        return
    metrics = services().metrics
    metrics.pushed("refused" if any(verdict.refusal for verdict in receipt.verdicts) else "ok")
    facts = {"door": "git", "duration_ms": duration_ms}
    with logs.batch():
        for verdict in receipt.verdicts:
            if verdict.refusal is not None:
                ref = clip(names.show(verdict.command.ref))
                caller.log(Event.REFUSED, **facts, ref=ref, code=verdict.refusal.code.value)
            elif verdict.target is not None and verdict.effect is not Effect.NOTHING:
                version = getattr(verdict.target, "number", None)
                caller.log(_DONE[verdict.effect], **facts, workflow=verdict.target.slug, version=version)
    for verdict in receipt.verdicts:
        if verdict.refusal is None and verdict.effect is Effect.PUBLISH:
            metrics.published(door="git")
        elif verdict.refusal is not None and isinstance(verdict.target, VersionRef) and verdict.command.new:
            metrics.published(door="git", outcome=verdict.refusal.code.value)


def _served(repository: Repository, protocol: str, wants: IO[bytes]) -> Iterator[bytes]:
    """Return the answer; errors in the request are raised before its first byte."""

    answer = upload_pack.serve(repository.path, protocol, wants)
    try:
        first = next(answer, b"")
    except BaseException:
        wants.close()
        raise

    def whole() -> Iterator[bytes]:
        with wants, closing(answer):
            yield first
            yield from answer

    return whole()


def _answer(body: Iterable[bytes], content_type: str) -> Response:
    return Response(body, content_type=content_type, headers=_NOT_CACHED)


def _check_content_type(service: str) -> None:
    expected = f"application/x-{service}-request"
    if request.content_type != expected:
        raise GitstoreError(HttpCode.UNSUPPORTED_MEDIA_TYPE, f"Content-Type must be {expected}")


def _reader() -> Read:
    """Return a reader that returns exactly the requested number of bytes of the body, or all that is left.

    It unpacks gzip.
    """
    stream: IO[bytes] = request.stream
    match request.content_encoding:
        case None | "" | "identity":
            pass
        case "gzip" | "x-gzip":
            stream = gzip.GzipFile(fileobj=stream, mode="rb")  # type: ignore[assignment]
        case other:
            raise GitstoreError(
                HttpCode.UNSUPPORTED_MEDIA_TYPE, f"Content-Encoding {clip(other)!r} is not supported"
            )

    def read(size: int) -> bytes:
        parts = []
        while size > 0:
            try:
                part = stream.read(size)
            except GitstoreError:
                raise
            except Exception as error:  # from gzip, or an OSError
                raise MalformedError("the request is truncated or damaged") from error
            if not part:
                break
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    return read


def _spool(read: Read) -> IO[bytes]:
    """Write the body to a file, which git reads as its standard input."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by its caller
    size = 0
    while chunk := read(_CHUNK):
        size += len(chunk)
        if size > FETCH_LIMIT:
            file.close()
            raise too_large("the request has more than", size, FETCH_LIMIT)
        file.write(chunk)
    file.seek(0)
    return file
