"""The CPU time budget of one request, checked in the loops that a definition drives, and where its time goes.

Sizes, node counts and nesting depth bound each definition on their own (`gitstore.model.Limits`), equally
on every machine. The budget covers combinations of inputs that cost more than those limits foresee. It
counts the CPU time of the current thread only, so load from other requests never causes a refusal. Outside
`limited` (a rebuild, the worker, the command line) nothing is refused.

`spending` names the part of the work that a block or a function does; `measured` adds up the time of each.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final, Literal

from gitstore.errors import TooLargeError

_EVERY: Final = 16  # calls of `check`; reading the clock of a thread costs more than what many loops do


@dataclass(slots=True)
class _Budget:
    seconds: float
    end: float
    skipped: int = _EVERY


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
    if budget is None:
        return
    budget.skipped += 1
    if budget.skipped < _EVERY:
        return
    if time.thread_time() > budget.end:
        raise TooLargeError(
            f"this takes more than {budget.seconds:g} seconds of CPU time, the limit of one request "
            "(GITSTORE_MAX_CPU): send less at once",
            limit=budget.seconds,
        )
    budget.skipped = 0


def lift() -> None:
    """Remove the budget of this request, so that a write in progress always completes."""
    _current.set(None)


@contextmanager
def kept() -> Iterator[None]:
    """Keep the budget as it was before the block, which may lift it, and do not count the block."""
    budget, begun = _current.get(), time.thread_time()
    try:
        yield
    finally:
        if budget is not None:
            budget.end += time.thread_time() - begun
            _current.set(budget)


Part = Literal["database", "git", "parse", "queue"]
"""Waiting for Postgres, reading and writing Git, parsing definitions, waiting for a turn."""


@dataclass(slots=True)
class Spent:
    """Seconds of each part of a request. The time of a part within another one is that part's alone."""

    seconds: dict[str, float] = field(default_factory=dict)
    part: str | None = None
    since: float = 0.0

    def enter(self, part: str | None) -> str | None:
        """Begin another part; return the one before."""
        now = time.perf_counter()
        before = self.part
        if before is not None:
            self.seconds[before] = self.seconds.get(before, 0.0) + now - self.since
        self.part, self.since = part, now
        return before

    def add(self, seconds: dict[str, float]) -> None:
        """Add what another process has spent on the request."""
        for part, more in seconds.items():
            self.seconds[part] = self.seconds.get(part, 0.0) + more


_spent: ContextVar[Spent | None] = ContextVar("gitstore_spent", default=None)


@contextmanager
def measured() -> Iterator[Spent]:
    """Measure the parts of what this thread does in the block."""
    total = Spent()
    token = _spent.set(total)
    try:
        yield total
    finally:
        _spent.reset(token)


def spent() -> Spent | None:
    """Return what has been spent on this request; None where nothing is measured."""
    return _spent.get()


@contextmanager
def spending(part: Part) -> Iterator[None]:
    """Count the time of a block, or of each call of a decorated function, as a part of the request."""
    spent = _spent.get()
    if spent is None:
        yield
        return
    before = spent.enter(part)
    try:
        yield
    finally:
        spent.enter(before)
