"""/livez, /readyz and /metrics: for whoever watches the service. They need no token."""

from __future__ import annotations

import os
import time
from typing import Final

from flask import Response

from gitstore.errors import Code, GitstoreError
from service import heartbeats, metrics
from service.api.answers import answer
from service.api.openapi import Responses, new_blueprint, refusal, says
from service.api.schemas import Health, Ready
from service.context import services
from service.metrics import Background
from webhooks import deliveries, due
from webhooks.figures import Figures, figures

blueprint = new_blueprint("health", "For whoever watches the service.", needs_token=False)
LATE_SECONDS: Final = 300.0
"""For which background work may have been due before /readyz calls it late."""
_OK: Final = Health(status="ok")
_HEALTH: Final = says(200, Health, needs_token=False)
_FIGURES: Final[Responses] = {
    200: {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}}
}


@blueprint.get("/livez", responses=_HEALTH)
def livez() -> Response:
    """This process answers."""
    return _fresh(answer(_OK))


@blueprint.get("/readyz", responses={**says(200, Ready, needs_token=False), 503: refusal(503)})
def readyz() -> Response:
    """The database answers, and the repositories can be written.

    Background work that is late is told, with 200: what is published can be read all the same.
    """
    here = services()
    with here.database.as_mirror() as tx:
        late = max(deliveries.lag(tx), due.lag(tx)) > LATE_SECONDS
    if not os.access(here.config.repositories, os.R_OK | os.W_OK | os.X_OK):
        raise GitstoreError(Code.UNAVAILABLE, "the folder of the repositories can't be written to")
    worker = "late" if late else "ok"
    beats = heartbeats.read(here.config.metrics_folder)
    if beats is None:
        worker = "late" if late else "unknown"
    elif max(beats[0].values(), default=0.0) > heartbeats.STALL_SECONDS:
        worker = "stalled"
    status = "degraded" if worker in ("late", "stalled") else "ok"
    return _fresh(answer(Ready.model_construct(status=status, worker=worker)))


@blueprint.get("/metrics", responses=_FIGURES)
def exposition() -> Response:
    """The figures, in Prometheus' text format."""
    here = services()
    background, standing = _of_the_database()
    told = here.metrics.exposition(
        mirror_lag_seconds=here.projects.mirror_lag(time.time()), background=background, standing=standing
    )
    return _fresh(Response(told, content_type=metrics.CONTENT_TYPE))


def _of_the_database() -> tuple[Background, Figures | None]:
    """None where it is away: what is known without it is told all the same."""
    here = services()
    beats, replaced = heartbeats.read(here.config.metrics_folder) or (None, None)
    try:
        with here.database.as_mirror() as tx:
            lags = deliveries.lag(tx), due.lag(tx)
            standing = figures(tx)
    except GitstoreError:
        return Background(None, None, beats, replaced), None
    return Background(*lags, beats, replaced), standing


def _fresh(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response
