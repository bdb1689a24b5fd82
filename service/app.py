"""Composition root: build the Flask application and its services from the config."""

from __future__ import annotations

from functools import cache, partial
from http import HTTPStatus
from importlib.metadata import version
from typing import Final

from flask import Flask, Response, request
from pydantic import ValidationError
from werkzeug.exceptions import HTTPException

from gitstore.errors import Code, ConfigError, GitstoreError, RenamedError, UnavailableError
from service import assets, cors, errors, git_http, logs, replicas, ui
from service.api import (
    activity,
    diff,
    drafts,
    edits,
    engine_reads,
    environments,
    health,
    meshhook,
    openapi,
    projects,
    releases,
    schedules,
    sources,
    states,
    subscriptions,
    versions,
    workflows,
)
from service.api.openapi import new_app, register
from service.auth import Authenticator
from service.clients import SignIns
from service.config import Config
from service.context import EXTENSION, Services, enter_user, request_id
from service.fairness import FairShares
from service.inputs import malformed
from service.issuers import Verifier
from service.logs import Event
from service.metrics import Metrics
from service.middleware import ENDPOINT, SHORTCUT, RequestMiddleware
from service.projects import Projects
from service.run import secret_key
from service.run.database import opened
from service.scraping import Scraper
from sync.db import Database
from webhooks.egress import Egress

BLUEPRINTS: Final = (
    workflows.blueprint,
    drafts.blueprint,
    edits.blueprint,
    versions.blueprint,
    diff.blueprint,
    activity.blueprint,
    diff.blame,
    activity.audit_log,
    workflows.current,
    projects.blueprint,
    projects.access_tokens,
    environments.blueprint,
    releases.blueprint,
    schedules.blueprint,
    states.blueprint,
    subscriptions.blueprint,
    subscriptions.deliveries,
    sources.blueprint,
    meshhook.blueprint,
    health.blueprint,
    openapi.docs,
    assets.embedding,
    git_http.blueprint,
    sources.hooks,
    ui.blueprint,
)


def create_app(config: Config, *, database: Database | None = None, metrics: Metrics | None = None) -> Flask:
    """Return the application, which uses `database` if given, else the one at `config.database_url`."""
    if database is None:
        if config.database_url is None:
            raise ConfigError("DATABASE_URL is required: gitstore serve sets it")
        database = opened(config, config.database_url, "gitstore web")
    counters = metrics or Metrics(config.metrics_folder)
    projects = Projects(config)
    shares = FairShares(config.threads, config.metrics_folder, counters.heavy)
    reads = opened(config, config.read_url, "gitstore reads") if config.read_url is not None else None
    replica = database if config.read_only and reads is None else reads
    app = new_app("gitstore", version("gitstore"))
    services = Services(
        config=config,
        database=database,
        projects=projects,
        count_publish=counters.published,
        count_release=counters.released,
        count_move=counters.moved,
        metrics=counters,
        egress=Egress(config.egress_allow),
        sealer=cache(partial(secret_key.sealer, config, database)),
        scraper=Scraper(counters, projects, database, config.metrics_folder, replica=replica),
        shares=shares,
        auth=Authenticator(
            database,
            Verifier(config.jwt_issuers, most_waiting=max(1, config.threads // 2)),
            SignIns(config.metrics_folder),
        ),
    )
    if reads is not None:
        services = replicas.with_replica(services, reads)
    app.extensions[EXTENSION] = services
    app.url_map.merge_slashes = False  # no redirect from //x to /x
    app.validation_error_callback = _refuse_parameters
    for blueprint in BLUEPRINTS:
        register(app, blueprint)
    app.before_request(_prepare)
    app.after_request(replicas.add_position)
    app.register_error_handler(GitstoreError, _refused)
    app.register_error_handler(RenamedError, _redirected)
    app.register_error_handler(HTTPException, _refused_by_flask)
    app.register_error_handler(Exception, _unexpected)
    inner = replicas.around(engine_reads.around(app.wsgi_app, services), services)
    inner = cors.around(shares.places.around(inner), config.cors_origins)
    cpu, slow = config.limits.cpu, config.slow_request
    middleware = RequestMiddleware(inner, counters, cpu, config.trusted_proxies, slow)
    app.wsgi_app = middleware  # type: ignore[method-assign]
    if services.replica is None and not config.read_only:
        app.extensions[SHORTCUT] = middleware.shortcut(engine_reads.in_loop(services), config.cors_origins)
    return app


def _prepare() -> None:
    request.environ[ENDPOINT] = request.endpoint


def _refuse_parameters(error: ValidationError) -> Response:
    """Refuse parameters. They are validated before the view authenticates, so that is done first, here."""
    enter_user()
    raise malformed(error, "a parameter") from None


def _redirected(error: RenamedError) -> Response:
    """Redirect from a former slug in the path to the present one, permanently and with the same method."""
    given = request.view_args or {}
    if error.former not in (given.get("id"), given.get("slug")):
        return _refused(error)  # named in the body
    path = request.path.replace(f"/workflows/{error.former}", f"/workflows/{error.slug}", 1)
    query = f"?{request.query_string.decode('latin-1')}" if request.query_string else ""
    is_shown = ui.is_page(request.path) and request.method in ("GET", "HEAD")
    status = HTTPStatus.MOVED_PERMANENTLY if is_shown else HTTPStatus.PERMANENT_REDIRECT
    answer = Response(status=status, headers={"Cache-Control": "no-store"})
    answer.location = f"{ui.prefix()}{path}{query}"
    return answer


def _refused(error: GitstoreError) -> Response:
    if error.code in (Code.INTERNAL, Code.CONFIG, Code.INTEGRITY, Code.OBJECTS_MISSING):
        logs.action(
            Event.INTERNAL_ERROR, level="error", code=error.code.value, message=error.message, exc_info=True
        )
    return _rendered(error)


def _refused_by_flask(error: HTTPException) -> Response:
    return _rendered(errors.of_flask(error))


def _unexpected(error: Exception) -> Response:
    answer = errors.of_unexpected(error)
    if isinstance(answer, UnavailableError):  # a traceback explains no full disk
        logs.action(Event.INTERNAL_ERROR, level="error", path=request.path, message=answer.message)
    else:
        logs.action(Event.INTERNAL_ERROR, level="error", path=request.path, exc_info=True)
    return _rendered(answer)


def _rendered(error: GitstoreError) -> Response:
    """Render an error in the form that fits the client: an API client, git, or a browser."""
    return ui.refusal(error) if ui.is_page(request.path) else errors.problem(error, request_id())
