"""The CPU time that one request may take, checked in the loops that a definition drives.

Sizes, nodes and levels bound each definition by themselves (`gitstore.model.Limits`), the same on every
machine. The budget is what holds if a combination of inputs costs more than those limits foresee. It counts
the time of this thread only, so that a request is not refused because others are busy. Without `limited`
around it (a rebuild, the worker, the command line) nothing is refused.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from gitstore.errors import Code, GitstoreError


@dataclass(frozen=True, slots=True)
class _Budget:
    seconds: float
    end: float


_current: ContextVar[_Budget | None] = ContextVar("gitstore_budget", default=None)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Let `check` raise `too_large` once this thread has taken `seconds` of CPU time from here on."""
    token = _current.set(_Budget(seconds, time.thread_time() + seconds))
    try:
        yield
    finally:
        _current.reset(token)


def check() -> None:
    """Raise `too_large` where the budget is used up."""
    budget = _current.get()
    if budget is not None and time.thread_time() > budget.end:
        raise GitstoreError(
            Code.TOO_LARGE,
            f"this takes more than {budget.seconds:g} seconds of CPU time, the limit of one request "
            "(GITSTORE_MAX_CPU): send less at once",
            limit=budget.seconds,
        )


def lift() -> None:
    """End the budget of this request: what is being written is carried through."""
    _current.set(None)
