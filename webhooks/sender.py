"""Send due deliveries from a pool of threads.

One loop turns events into deliveries and claims due ones for the free threads. Each thread sends one delivery
outside any transaction and records the result. A slow subscriber delays only its own deliveries: the attempts
at one subscription at a time are few, a slow or failing subscription gets one, and all such subscriptions
together use at most half of the threads. The loop sleeps until a notification (NOTIFY), until a thread is
free or until the next due time.

A delivery during which a process crashed is sent alone, in a child process if `Means.send_alone` is given.
The loop calls `beat` every few seconds while its threads finish their attempts in time.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from gitstore.errors import ConfigError, GitstoreError, TemporaryError
from sync.db import Database
from webhooks import attempts, crashes, delivery_queue, payload, pulse, signature
from webhooks.attempts import Attempt
from webhooks.delivery_queue import Due, Room
from webhooks.egress import Egress
from webhooks.listener import Listener
from webhooks.pulse import Beat
from webhooks.retry import Ending, Outcome, judge
from webhooks.secrets import Sealer
from webhooks.subscriptions import purpose

SECONDS: Final = 15.0
"""Time limit of an attempt, from resolving the name to the last stored byte."""
KEPT: Final = 16 * 1024
"""Stored bytes of a response body."""
LEASE: Final = timedelta(seconds=60)
"""Length of a lease, well above SECONDS and the time to record an attempt."""
THREADS: Final = 32
EACH: Final = 4
"""Concurrent attempts at one subscription by one loop."""

_SLOW_SECONDS: Final = 2.0
_SLOW_FOR: Final = 600.0  # seconds for which a subscription counts as slow after a slow attempt
_POLL_SECONDS: Final = 10.0  # in case a notification is missed
_BREATH: Final = 0.02  # least seconds between ticks, so that one tick serves threads that finish together
_PAUSES: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
_STUCK_SECONDS: Final = 120.0  # longer than an attempt and its recording take while Postgres is unavailable
_PATIENCE: Final = 2.0  # seconds that running attempts get to finish at a shutdown


@dataclass(frozen=True, slots=True)
class AttemptEvent:
    """A finished attempt, for logs and metrics. `disabled` is whether it disabled the subscription."""

    project: str
    subscription_id: UUID
    delivery_id: UUID
    type: str
    ending: Ending
    disabled: bool
    status: int | None
    error: str | None
    attempt: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Means:
    """The dependencies of a delivery loop.

    `send_alone` sends a delivery in its own process. `crashed` is called for a delivery whose process ended,
    with the number of its crashes and a reason. `now` and `dice` are passed in for tests; without `now`, the
    database's clock determines which deliveries are due.
    """

    database: Database
    egress: Egress
    sealer: Sealer
    agent: str = "gitstore"
    tell: Callable[[AttemptEvent], None] = lambda _: None
    trouble: Callable[[BaseException], None] = lambda _: None
    crashed: Callable[[Due, int, str], None] = lambda _due, _crashes, _reason: None
    send_alone: Callable[[Due], None] | None = None
    now: Callable[[], datetime] | None = None
    dice: Callable[[], float] = random.random

    def given_now(self) -> datetime | None:
        return self.now() if self.now else None

    def clock(self) -> datetime:
        return self.now() if self.now else datetime.now(UTC)


class DeliveryLoop:
    """A loop that runs until `stop` is set. Several loops, on any machine, share the work."""

    def __init__(
        self,
        means: Means,
        stop: threading.Event,
        *,
        threads: int = THREADS,
        each: int = EACH,
        lease: timedelta = LEASE,
        seconds: float = SECONDS,
        beat: Beat = pulse.silent,
    ) -> None:
        self._means = means
        self._stop = stop
        self._beat_now = beat
        self._each = each
        self._lease = lease
        self._threads = threads
        self._sender = DeliveryAttempt(means, stop, seconds)
        self._wake = threading.Event()
        self._jobs: queue.SimpleQueue[Due | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._sending: dict[UUID, tuple[Due, float]] = {}
        self._slow_until: dict[UUID, float] = {}

    def run(self) -> None:
        """Send due deliveries until `stop` is set. Retries while the database is unavailable."""
        listener = Listener(
            self._means.database.conninfo, self._wake, self._stop, channels=(delivery_queue.CHANNEL,)
        )
        workers = [threading.Thread(target=self._work, daemon=True) for _ in range(self._threads)]
        for thread in (*workers, listener):
            thread.start()
        failures = 0
        while not self._stop.is_set():
            self._wake.clear()
            looked = time.monotonic()
            try:
                pause = self.tick()
                failures = 0
            except GitstoreError as error:
                if not failures:
                    self._means.trouble(error)
                pause = _PAUSES[min(failures, len(_PAUSES) - 1)]
                failures += 1
            pulse.wait(self._wake, pause, self._beat)
            self._stop.wait(max(looked + _BREATH - time.monotonic(), 0.0))
        for _ in workers:
            self._jobs.put(None)
        deadline = time.monotonic() + _PATIENCE
        for thread in (*workers, listener):
            # Another worker repeats an attempt that takes longer, with the same id, once its lease expires.
            thread.join(max(deadline - time.monotonic(), 0.0))
        self._release()

    def wake(self) -> None:
        """Wake the loop for due work or for a shutdown."""
        self._wake.set()

    def tick(self) -> float:
        """Claim due deliveries for the free threads. Return the seconds until the next tick."""
        room, now = self._room(), self._means.given_now()
        with self._means.database.as_mirror() as tx:
            made = delivery_queue.fan_out(tx, now)
            claimed = delivery_queue.claim(tx, room, self._lease, now) if room.threads else []
            if len(claimed) < room.threads and not self._sends_one_alone():
                alone = delivery_queue.claim_alone(tx, self._lease, now)
                claimed += [alone] if alone else []
            next_in = delivery_queue.seconds_to_next(tx) if not (made or claimed) else 0.0
            ended = [due for due in claimed if due.crashed]
            counts = [delivery_queue.crash(tx, due, crashes.WORKER_ENDED, now) for due in ended]
        for due, count in zip(ended, counts, strict=True):
            self._means.crashed(due, count or 0, crashes.WORKER_ENDED)
        mine = [due for due in claimed if not due.crashed]
        with self._lock:
            started = time.monotonic()
            self._sending.update({due.id: (due, started) for due in mine})
        for due in mine:
            self._jobs.put(due)
        return min(_POLL_SECONDS, next_in if next_in is not None else _POLL_SECONDS)

    def _beat(self) -> None:
        with self._lock:
            oldest = min((started for _, started in self._sending.values()), default=time.monotonic())
        if time.monotonic() - oldest < _STUCK_SECONDS:
            self._beat_now()

    def _sends_one_alone(self) -> bool:
        with self._lock:
            return any(due.crashes for due, _ in self._sending.values())

    def _release(self) -> None:
        """Release the unsent deliveries at a shutdown, so that they do not count as crashes."""
        with self._lock:
            left = list(self._sending)
        try:
            if left:
                with self._means.database.as_mirror() as tx:
                    delivery_queue.release(tx, left)
        except GitstoreError as error:
            self._means.trouble(error)

    def _room(self) -> Room:
        with self._lock:
            now = time.monotonic()
            counts: dict[UUID, int] = {}
            for due, started in self._sending.values():
                counts[due.subscription_id] = counts.get(due.subscription_id, 0) + 1
                if now - started > _SLOW_SECONDS:
                    self._slow_until[due.subscription_id] = now + _SLOW_FOR
            self._slow_until = {key: until for key, until in self._slow_until.items() if until > now}
            slow = list(self._slow_until)
            slow_now = sum(
                due.slow or due.subscription_id in self._slow_until for due, _ in self._sending.values()
            )
        free = self._threads - sum(counts.values())
        return Room(free, min(free, max(self._threads // 2 - slow_now, 0)), self._each, counts, slow)

    def _work(self) -> None:
        while (due := self._jobs.get()) is not None:
            if self._stop.is_set():
                continue
            started = time.monotonic()
            try:
                if due.crashes and self._means.send_alone is not None:
                    self._means.send_alone(due)
                else:
                    self._sender.deliver(due)
            except Exception as error:  # any failure is reported, and the thread continues
                self._means.trouble(error)
            with self._lock:
                self._sending.pop(due.id, None)
                if time.monotonic() - started > _SLOW_SECONDS:
                    self._slow_until[due.subscription_id] = time.monotonic() + _SLOW_FOR
                else:
                    self._slow_until.pop(due.subscription_id, None)
            self._wake.set()


class DeliveryAttempt:
    """An attempt at a delivery: sends it and records the result."""

    def __init__(self, means: Means, stop: threading.Event, seconds: float = SECONDS) -> None:
        self._means = means
        self._stop = stop
        self._seconds = seconds

    def deliver(self, due: Due) -> None:
        """Send and record a delivery.

        Raises an error that prevents the recording permanently; the delivery is then sent again once the
        lease has expired.
        """
        means = self._means
        started_at, started = means.clock(), time.monotonic()
        outcome, response = self._send(due, started_at)
        seconds = time.monotonic() - started
        verdict = judge(outcome, due.tries + 1, means.clock(), means.dice())
        attempt = Attempt(started_at, round(seconds * 1000), outcome.status, response)
        for pause in (*_PAUSES, None):
            try:
                with means.database.as_mirror() as tx:
                    disabled = attempts.record(tx, due, attempt, verdict, means.given_now())
                break
            except TemporaryError:
                if pause is None or self._stop.wait(pause):
                    raise
        told = AttemptEvent(
            project=due.project,
            subscription_id=due.subscription_id,
            delivery_id=due.id,
            type=due.type,
            ending=verdict.ending,
            disabled=disabled,
            status=outcome.status,
            error=verdict.error,
            attempt=due.tries + 1,
            seconds=seconds,
        )
        means.tell(told)

    def _send(self, due: Due, now: datetime) -> tuple[Outcome, bytes | None]:
        try:
            headers = self._headers(due, now, body := _body(due))
            answer = self._means.egress.post(due.url, body, headers, seconds=self._seconds, keep=KEPT)
        except ConfigError as error:
            self._means.trouble(error)
            return Outcome(error="its secret can't be opened here: rotate it"), None
        except GitstoreError as error:
            return Outcome(error=error.message), None
        return Outcome(answer.status, retry_after=answer.headers.get("retry-after")), answer.body

    def _headers(self, due: Due, now: datetime, body: bytes) -> Mapping[str, str]:
        secrets = [self._means.sealer.open(purpose(due.subscription_id), sealed) for sealed in due.sealed]
        return {
            "Content-Type": "application/json",
            "User-Agent": self._means.agent,
            **signature.sign(secrets, str(due.event_id), now, body),
        }


def _body(due: Due) -> bytes:
    return payload.body(due.type, due.at, due.project_id, due.workflow_id, due.data)
