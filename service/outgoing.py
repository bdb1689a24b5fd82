"""Build the delivery loop of outgoing webhooks for the worker, with our settings, log and metrics."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib.metadata import version
from typing import Final

from gitstore.errors import GitstoreError
from service import logs
from service.config import Config
from service.incoming import connected_in_child
from service.logs import Event
from service.metrics import Metrics
from service.run import secret_key
from service.run.isolation import Channel, CrashError, Isolation, Limits, StopError
from sync.db import Database
from webhooks import crashes, delivery_queue
from webhooks.delivery_queue import Due
from webhooks.egress import Egress
from webhooks.pulse import Beat
from webhooks.retry import Ending
from webhooks.sender import AttemptEvent, DeliveryAttempt, DeliveryLoop, Means

LIMITS: Final = Limits(memory=2**29, step=45, whole=45)
"""Limits of a delivery sent in a child process: they end it before its lease expires."""


@contextmanager
def delivering(
    config: Config, database: Database, metrics: Metrics, beat: Beat, off: Callable[[], None]
) -> Iterator[None]:
    """Send deliveries, in separate threads, until the block ends.

    The loop calls `beat`; `off` is called if no loop starts because the secrets cannot be decrypted.
    """

    def tell(told: AttemptEvent) -> None:
        metrics.delivered(told.ending.value)
        _log(told)

    try:
        means = _means(config, database, tell)
    except GitstoreError as error:
        # The worker's other tasks continue.
        logs.action(Event.DELIVERIES_DISABLED, level="error", reason=error.message)
        off()
        yield
        return
    stop, isolation = threading.Event(), Isolation(LIMITS)

    def send_alone(due: Due) -> None:
        try:
            isolation.run(deliver_in_child, config, due, stop=stop, heard=metrics.delivered)
        except StopError:
            with database.as_mirror() as tx:
                delivery_queue.release(tx, [due.id])
        except CrashError as error:
            metrics.delivered("crashed")
            reason = f"the attempt {error}"
            with database.as_mirror() as tx:
                count = delivery_queue.crash(tx, due, reason)
            _log_crash(due, count or 0, reason)

    courier = DeliveryLoop(replace(means, crashed=_log_crash, send_alone=send_alone), stop, beat=beat)
    thread = threading.Thread(target=courier.run, name="courier")
    thread.start()
    try:
        yield
    finally:
        stop.set()
        courier.wake()
        thread.join()


def deliver_in_child(channel: Channel, stop: threading.Event, config: Config, due: Due) -> None:
    """Send a delivery, in a child process: `work` for Isolation."""
    logs.configure(config.log_format, config.log_level)

    def tell(told: AttemptEvent) -> None:
        channel.tell(told.ending.value)
        _log(told)

    with closing(connected_in_child(config)) as database:
        DeliveryAttempt(_means(config, database, tell), stop).deliver(due)


def _means(config: Config, database: Database, tell: Callable[[AttemptEvent], None]) -> Means:
    return Means(
        database=database,
        egress=Egress(config.egress_allow),
        sealer=secret_key.sealer(config, database),
        agent=f"gitstore/{version('gitstore')}",
        tell=tell,
        trouble=_trouble,
    )


def _log_crash(due: Due, count: int, reason: str) -> None:
    logs.action(
        Event.DELIVERY_POISONED if count >= crashes.MOST else Event.DELIVERY_CRASHED,
        level="error",
        project=due.project,
        subscription=str(due.subscription_id),
        delivery=str(due.id),
        crashes=count,
        reason=reason,
    )


def _log(told: AttemptEvent) -> None:
    delivered = told.ending is Ending.SUCCEEDED
    logs.action(
        Event.DELIVERED if delivered else Event.DELIVERY_FAILED,
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
            Event.SUBSCRIPTION_DISABLED,
            level="warning",
            project=told.project,
            subscription=str(told.subscription_id),
            reason=told.error,
        )


def _trouble(error: BaseException) -> None:
    if isinstance(error, GitstoreError):
        cause = logs.cause_of(error)
        logs.action(Event.DELIVERY_LOOP_FAILED, level="error", reason=error.message, cause=cause)
    else:
        logs.action(Event.DELIVERY_LOOP_FAILED, level="error", exc_info=error)
