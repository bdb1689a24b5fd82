"""/livez, /readyz and /metrics: for monitoring. None accepts an access token."""

from __future__ import annotations

import os
from typing import Final

from flask import Response, request

from gitstore.errors import UnavailableError
from service import scraping
from service.api.answers import answer
from service.api.openapi import Responses, new_blueprint, refusal, says
from service.api.schemas import Health, Ready
from service.context import services
from service.run import heartbeats
from webhooks import delivery_queue, source_leases

blueprint = new_blueprint("health", "For whoever watches the service.", needs_token=False)
LATE_SECONDS: Final = 300.0
"""Seconds for which background work may be overdue before /readyz reports it as late."""
_OK: Final = Health(status="ok")
_HEALTH: Final = says(200, Health, needs_token=False)
_METRICS: Final[Responses] = {
    200: {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}},
    401: refusal(401),
    404: refusal(404),
}


@blueprint.get("/livez", responses=_HEALTH)
def livez() -> Response:
    """This process answers."""
    return _fresh(answer(_OK))


@blueprint.get("/readyz", responses={**says(200, Ready, needs_token=False), 503: refusal(503)})
def readyz() -> Response:
    """The database answers, and the repositories can be written.

    Late background work is reported with 200, because published versions can still be read.
    """
    here = services()
    with here.database.as_mirror() as tx:
        late = max(delivery_queue.lag(tx), source_leases.lag(tx)) > LATE_SECONDS
    if not os.access(here.config.repositories, os.R_OK | os.W_OK | os.X_OK):
        raise UnavailableError("the folder of the repositories can't be written to")
    worker = "late" if late else "ok"
    beats = heartbeats.read(here.config.metrics_folder)
    if beats is None:
        worker = "late" if late else "unknown"
    elif max(beats[0].values(), default=0.0) > heartbeats.STALL_SECONDS:
        worker = "stalled"
    status = "degraded" if worker in ("late", "stalled") else "ok"
    return _fresh(answer(Ready.model_construct(status=status, worker=worker)))


@blueprint.get("/metrics", responses=_METRICS)
def exposition() -> Response:
    """The metrics, in Prometheus' text format. It takes GITSTORE_METRICS_TOKEN, no access token."""
    here = services()
    scraping.authorize(here.config, request.environ)
    return here.scraper.answer()


def _fresh(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response
