"""Webhooks out, in the worker: the courier, with our settings, our log and our figures."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version

from gitstore.errors import GitstoreError
from service import logs, secret_key
from service.config import Config
from service.metrics import Metrics
from sync.db import Database
from webhooks.delivery import Courier, Means, Told
from webhooks.egress import Egress
from webhooks.schedule import Ending


@contextmanager
def delivering(config: Config, database: Database, metrics: Metrics) -> Iterator[None]:
    """Deliver, in threads of its own, for the time of the block."""
    try:
        sealer = secret_key.sealer(config, database)
    except GitstoreError as error:
        # What else the worker does goes on.
        logs.action("deliveries_off", level="error", reason=error.message)
        yield
        return

    def tell(told: Told) -> None:
        metrics.delivered(told.ending.value)
        _log(told)

    means = Means(
        database=database,
        egress=Egress(config.egress_allow),
        sealer=sealer,
        agent=f"gitstore/{version('gitstore')}",
        tell=tell,
        trouble=_trouble,
    )
    stop = threading.Event()
    courier = Courier(means, stop)
    thread = threading.Thread(target=courier.run, name="courier")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        courier.wake()
        thread.join()


def _log(told: Told) -> None:
    delivered = told.ending is Ending.SUCCEEDED
    logs.action(
        "delivered" if delivered else "delivery_failed",
        level="info" if delivered else "warning",
        project=told.project,
        subscription=str(told.subscription_id),
        delivery=str(told.delivery_id),
        type=told.type,
        attempt=told.attempt,
        status=told.status,
        reason=told.error,
        again=None if delivered else told.ending is Ending.RETRY and not told.disabled,
        duration_ms=round(told.seconds * 1000, 1),
    )
    if told.disabled:
        logs.action(
            "subscription_disabled",
            level="warning",
            project=told.project,
            subscription=str(told.subscription_id),
            reason=told.error,
        )


def _trouble(error: BaseException) -> None:
    if isinstance(error, GitstoreError):
        cause = logs.cause_of(error)
        logs.action("delivery_trouble", level="error", reason=error.message, cause=cause)
    else:
        logs.action("delivery_trouble", level="error", exc_info=error)
