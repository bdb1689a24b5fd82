"""The worker's loop that carries out schedules at their time (`service/actions/schedules.py`).

It sleeps until the next one is due by Postgres' clock. While any waits, it asks again every `_ASK` seconds,
as that clock may be set, and a notification may be missed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

from service.actions import schedules as actions
from service.caller import Backend
from sync import schedules
from sync.schedules import CHANNEL, LEASE_SECONDS
from webhooks.lease_loop import POLL_SECONDS, Beat, LeaseLoop, Report, no_beat, no_report

THREADS: Final = 4
"""Schedules that are carried out at once."""
_ASK: Final = 1.5
_BEHIND: Final = 0.25
_SLOW_SECONDS: Final = 60.0
_STUCK: Final = 180.0
"""Seconds after which one that is being carried out counts as hanging: locks and writes have lower limits."""


class ScheduleLoop(LeaseLoop[schedules.Claim]):
    """Loop that claims due schedules. `carry_out` carries one out, in a thread."""

    def __init__(
        self,
        backend: Backend,
        stop: threading.Event,
        *,
        carry_out: Callable[[Backend, schedules.Claim], None] = actions.carry_out,
        beat: Beat = no_beat,
        report: Report = no_report,
    ) -> None:
        super().__init__(
            backend.database, CHANNEL, stop, slow_seconds=_SLOW_SECONDS, beat=beat, report=report
        )
        self._backend = backend
        self._carry_out = carry_out

    def tick(self) -> float:
        progress = self.progress()
        running = [one.lease for one in (*progress.quick, *progress.slow)]
        with self._database.as_mirror() as tx:
            if running:
                schedules.renew(tx, [each.claim for each in running])
            claims = schedules.claim(tx, max(THREADS - len(running), 0))
            following = schedules.seconds_to_next(tx)
        self.start(claims)
        pause = POLL_SECONDS
        if following is not None:  # one that is due waits for another one of its workflow
            pause = min(following, _ASK) if following > 0 else _BEHIND
        if len(running) + len(claims) >= THREADS:
            pause = LEASE_SECONDS / 4  # a thread that is done wakes the loop
        return pause

    def is_stuck(self) -> bool:
        progress = self.progress()
        return any(time.monotonic() - one.started > _STUCK for one in (*progress.quick, *progress.slow))

    def work(self, lease: schedules.Claim) -> None:
        self._carry_out(self._backend, lease)

    def release(self, leases: Sequence[schedules.Claim]) -> None:
        """Let the next worker look in the ledger for unfinished work, which may be there."""
        with self._database.as_mirror() as tx:
            for lease in leases:
                schedules.look_again(tx, lease, timedelta())
