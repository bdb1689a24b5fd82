"""/livez, /readyz and /metrics: for whoever watches the service. They need no token."""

from __future__ import annotations

import os
import time
from typing import Final

from flask import Response

from gitstore.errors import Code, GitstoreError
from service import metrics
from service.api.answers import answer
from service.api.openapi import Responses, new_blueprint, refusal, says
from service.api.schemas import Health
from service.context import services
from webhooks import deliveries
from webhooks.figures import Figures, figures

blueprint = new_blueprint("health", "For whoever watches the service.", needs_token=False)
_OK: Final = Health(status="ok")
_HEALTH: Final = says(200, Health, needs_token=False)
_FIGURES: Final[Responses] = {
    200: {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}}
}


@blueprint.get("/livez", responses=_HEALTH)
def livez() -> Response:
    """This process answers."""
    return _fresh(answer(_OK))


@blueprint.get("/readyz", responses={**_HEALTH, 503: refusal(503)})
def readyz() -> Response:
    """The database answers, and the repositories can be written."""
    here = services()
    here.database.ping()
    if not os.access(here.config.repositories, os.R_OK | os.W_OK | os.X_OK):
        raise GitstoreError(Code.UNAVAILABLE, "the folder of the repositories can't be written to")
    return _fresh(answer(_OK))


@blueprint.get("/metrics", responses=_FIGURES)
def exposition() -> Response:
    """The figures, in Prometheus' text format."""
    here = services()
    lag, standing = _of_the_database()
    told = here.metrics.exposition(
        mirror_lag_seconds=here.projects.mirror_lag(time.time()), delivery_lag_seconds=lag, standing=standing
    )
    return _fresh(Response(told, content_type=metrics.CONTENT_TYPE))


def _of_the_database() -> tuple[float | None, Figures | None]:
    """None where it is away: what is known without it is told all the same."""
    try:
        with services().database.as_mirror() as tx:
            return deliveries.lag(tx), figures(tx)
    except GitstoreError:
        return None, None


def _fresh(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response
