"""Send due deliveries: signed JSON in the format of Standard Webhooks, {"type", "timestamp", "data"}.

    workflow.version.published   workflow, version_number, version_id, commit, digest, valid, message,
                                 author {name, email}, published_by, activated
    workflow.draft.updated       the same up to author, discarded; for a discarded draft workflow, commit
                                 (null), discarded, message
    workflow.current.changed     workflow, version_number and version_id (null: no current version), previous,
                                 held, message, by
    workflow.version.yanked      workflow, version_number, version_id, message (the reason), by, pointers
    workflow.version.unyanked    the same without pointers
    workflow.version.annotated   the same, title, notes
    workflow.archived, .unarchived
                                 workflow, message, by
    workflow.updated             workflow, name, description, by
    workflow.version.diverged    the fields of the divergence
    subscription.disabled        subscription_id, url, reason, failing_since
    webhook.test                 subscription_id, message

`data` also has project_id and, for an event of a workflow, workflow_id. A payload describes the event without
the definition, which subscribers fetch from the API. `timestamp` is the time of the event. Every attempt
sends the same bytes, since the payload is built from the event's row, which never changes.

A slow subscriber delays only its own deliveries: the attempts at one subscription at a time are few, a slow
or failing subscription gets one, and all such subscriptions together use at most half of the threads. A
delivery during which a process crashed is sent alone.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from gitstore.errors import ConfigError, GitstoreError, TemporaryError
from gitstore.system import now as utc_now
from gitstore.system import rfc3339
from sync import replication
from sync.db import Database
from webhooks import attempts, delivery_queue
from webhooks.attempts import Attempt, Outcome, Verdict, judge
from webhooks.delivery_queue import Due, Room
from webhooks.egress import Egress
from webhooks.lease_loop import POLL_SECONDS, WORKER_ENDED, Beat, LeaseLoop, Report, no_beat, no_report
from webhooks.secrets import Sealer, sign
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
_RECORD_PAUSES: Final = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, None)  # seconds; None: no further attempt to record
_STUCK_SECONDS: Final = 120.0  # longer than an attempt and its recording take while Postgres is unavailable


@dataclass(frozen=True, slots=True)
class Sender:
    """Sends a delivery and records the attempt. Safe to share between threads.

    `on_attempt` is called after each recorded attempt. `now` and `dice` are passed in for tests; without
    `now`, the database's clock determines which deliveries are due.
    """

    database: Database
    egress: Egress
    sealer: Sealer
    stop: threading.Event = field(default_factory=threading.Event)
    agent: str = "gitstore"
    seconds: float = SECONDS
    on_attempt: Callable[[Due, Attempt, Verdict], None] = lambda _due, _attempt, _verdict: None
    report: Report = no_report
    now: Callable[[], datetime] | None = None
    dice: Callable[[], float] = random.random

    def deliver(self, due: Due) -> None:
        """Send and record a delivery.

        Raises an error that prevents the recording permanently; the delivery is then sent again once the
        lease has expired.
        """
        started_at, started = self.given_now() or utc_now(), time.monotonic()
        outcome = self._send(due, started_at)
        verdict = judge(outcome, due.tries + 1, self.given_now() or utc_now(), self.dice())
        attempt = Attempt(started_at, time.monotonic() - started, outcome)
        for pause in _RECORD_PAUSES:
            try:
                with self.database.as_mirror() as tx:
                    verdict = attempts.record(tx, due, attempt, verdict, self.given_now())
                break
            except TemporaryError:
                if pause is None or self.stop.wait(pause):
                    raise
        self.on_attempt(due, attempt, verdict)

    def given_now(self) -> datetime | None:
        return self.now() if self.now else None

    def _send(self, due: Due, now: datetime) -> Outcome:
        body = payload(due)
        position = replication.position(self.database)
        try:
            keys = [self.sealer.open(purpose(due.subscription_id), sealed) for sealed in due.sealed]
            headers = {
                "Content-Type": "application/json",
                "User-Agent": self.agent,
                **({replication.HEADER: position} if position else {}),
                **sign(keys, str(due.event_id), now, body),
            }
            response = self.egress.post(due.url, body, headers, seconds=self.seconds, keep=KEPT)
        except ConfigError as error:
            self.report(error)
            return Outcome(error="the signing secret cannot be decrypted: rotate it")
        except GitstoreError as error:
            return Outcome(error=error.message)
        retry_after = response.headers.get("retry-after")
        return Outcome(response.status, retry_after=retry_after, response=response.body)


class DeliveryLoop(LeaseLoop[Due]):
    """Loop that turns events into deliveries and sends due ones.

    `send_alone` sends a delivery in its own process. `on_crash` is called for a delivery whose process ended,
    with the number of its crashes and a reason.
    """

    def __init__(
        self,
        sender: Sender,
        *,
        send_alone: Callable[[Due], None] | None = None,
        on_crash: Callable[[Due, int, str], None] = lambda _due, _crashes, _reason: None,
        threads: int = THREADS,
        lease: timedelta = LEASE,
        beat: Beat = no_beat,
    ) -> None:
        super().__init__(
            sender.database,
            delivery_queue.CHANNEL,
            sender.stop,
            slow_seconds=_SLOW_SECONDS,
            beat=beat,
            report=sender.report,
        )
        self._sender = sender
        self._send_alone = send_alone or sender.deliver
        self._on_crash = on_crash
        self._most = threads
        self._lease = lease

    def tick(self) -> float:
        now, progress = self._sender.given_now(), self.progress()
        sending = [one.lease for one in (*progress.quick, *progress.slow)]
        free = self._most - len(sending)
        room = Room(
            free,
            min(free, max(self._most // 2 - len(progress.slow), 0)),
            EACH,
            Counter(due.subscription_id for due in sending),
            progress.known_slow,
        )
        with self._sender.database.as_mirror() as tx:
            created = delivery_queue.fan_out(tx, now)
            claimed = delivery_queue.claim(tx, room, self._lease, now) if free else []
            if len(claimed) < free and not any(due.crashes for due in sending):
                alone = delivery_queue.claim_alone(tx, self._lease, now)
                claimed += [alone] if alone else []
            next_in = delivery_queue.seconds_to_next(tx) if not (created or claimed) else 0.0
            crashed = [due for due in claimed if due.crashed]
            counts = [delivery_queue.crash(tx, due, WORKER_ENDED, now) for due in crashed]
        for due, count in zip(crashed, counts, strict=True):
            self._on_crash(due, count or 0, WORKER_ENDED)
        self.start([due for due in claimed if not due.crashed])
        return POLL_SECONDS if next_in is None else min(POLL_SECONDS, next_in)

    def work(self, lease: Due) -> None:
        (self._send_alone if lease.crashes else self._sender.deliver)(lease)

    def release(self, leases: Sequence[Due]) -> None:
        with self._sender.database.as_mirror() as tx:
            delivery_queue.release(tx, [due.id for due in leases])

    def is_stuck(self) -> bool:
        """Return whether a thread exceeds all limits of an attempt."""
        progress = self.progress()
        oldest = min((one.started for one in (*progress.quick, *progress.slow)), default=time.monotonic())
        return time.monotonic() - oldest >= _STUCK_SECONDS


def payload(due: Due) -> bytes:
    """Return the UTF-8 bytes to sign and send."""
    ids = {"project_id": str(due.project_id)}
    if due.workflow_id is not None:
        ids["workflow_id"] = str(due.workflow_id)
    message = {"type": due.type, "timestamp": rfc3339(due.at), "data": {**ids, **due.data}}
    return json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode()
