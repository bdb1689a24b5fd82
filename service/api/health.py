"""/livez, /readyz and /metrics: for monitoring, without an access token."""

from __future__ import annotations

import os
from typing import Final, Literal

from flask import Response, request
from pydantic import Field

from gitstore.errors import UnavailableError
from service import replicas, scraping
from service.api.http import Answer, answer
from service.api.openapi import Responses, new_blueprint, problem, responds
from service.context import services
from service.run import heartbeats
from sync import catalog
from webhooks import delivery_queue, source_queue

blueprint = new_blueprint("health", "Monitoring of the service.", needs_token=False)
LATE_SECONDS: Final = 300.0
"""Seconds for which background work may be overdue before /readyz reports it as late."""
SAMPLE: Final = 3
"""Projects of which one must have a repository: if all lack theirs, the volume is not mounted."""
_METRICS: Final[Responses] = {
    200: {"description": "OK", "content": {"text/plain": {"schema": {"type": "string"}}}},
    401: problem(401),
    404: problem(404),
}


class Health(Answer):
    status: Literal["ok"]


class Ready(Answer):
    status: Literal["ok", "degraded"] = Field(
        description="`degraded`: requests are served, but background work is late"
    )
    worker: Literal["ok", "late", "stalled", "unknown"] = Field(
        description="`late`: a source or a delivery is more than five minutes overdue; `stalled`: a loop of "
        "the background worker does not respond; `unknown`: this node runs no worker"
    )


@blueprint.get("/livez", responses=responds(200, Health))
def livez() -> Response:
    """Check that this process answers."""
    return answer(Health(status="ok"), cache_control="no-store")


@blueprint.get("/readyz", responses={**responds(200, Ready), 503: problem(503)})
def readyz() -> Response:
    """Check that the database answers and that the repositories can be written.

    A read node checks instead that its replica does not lag too far. Late background work is reported with
    200, because published versions can still be read.
    """
    here = services()
    if here.config.read_only:
        replicas.check_ready(here)
        return answer(Ready.model_construct(status="ok", worker="unknown"), cache_control="no-store")
    with here.database.as_mirror() as tx:
        late = max(delivery_queue.lag(tx), source_queue.lag(tx)) > LATE_SECONDS
        some = catalog.some_projects(tx, SAMPLE)
    if not os.access(here.config.repositories, os.R_OK | os.W_OK | os.X_OK):
        raise UnavailableError("the folder of the repositories is not writable")
    if some and not any(map(here.projects.exists, some)):
        raise UnavailableError("no repository is in the folder of the repositories: is its volume mounted?")
    worker = "late" if late else "ok"
    beats = heartbeats.read(here.config.metrics_folder)
    if beats is None:
        worker = "late" if late else "unknown"
    elif max(beats[0].values(), default=0.0) > heartbeats.STALL_SECONDS:
        worker = "stalled"
    status = "degraded" if worker in ("late", "stalled") else "ok"
    return answer(Ready.model_construct(status=status, worker=worker), cache_control="no-store")


@blueprint.get("/metrics", responses=_METRICS)
def exposition() -> Response:
    """Read the metrics in Prometheus' text format. Requires GITSTORE_METRICS_TOKEN, not an access token."""
    here = services()
    scraping.authorize(here.config, request.environ)
    return here.scraper.answer()
