"""The CPU time budget of one request, checked in the loops that a definition drives.

Sizes, node counts and nesting depth bound each definition on their own (`gitstore.model.Limits`), equally
on every machine. The budget covers combinations of inputs that cost more than those limits foresee. It
counts the CPU time of the current thread only, so load from other requests never causes a refusal. Outside
`limited` (a rebuild, the worker, the command line) nothing is refused.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from gitstore.errors import TooLargeError


@dataclass(frozen=True, slots=True)
class _Budget:
    seconds: float
    end: float


_current: ContextVar[_Budget | None] = ContextVar("gitstore_budget", default=None)


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Make `check` raise `too_large` once this thread has used `seconds` more of CPU time."""
    token = _current.set(_Budget(seconds, time.thread_time() + seconds))
    try:
        yield
    finally:
        _current.reset(token)


def check() -> None:
    """Raise `too_large` if the budget is exhausted."""
    budget = _current.get()
    if budget is not None and time.thread_time() > budget.end:
        raise TooLargeError(
            f"this takes more than {budget.seconds:g} seconds of CPU time, the limit of one request "
            "(GITSTORE_MAX_CPU): send less at once",
            limit=budget.seconds,
        )


def lift() -> None:
    """Remove the budget of this request, so that a write in progress always completes."""
    _current.set(None)
