"""What a run measures, and how: figures with their bars, the forms of a run, and statistics.

A measure is a function of a `Rig` and a number of versions that returns figures by name. `@measure` registers
it with the bar of each figure, for one size. Two sides take turns, and the side that begins alternates.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from bench import seeds

if TYPE_CHECKING:
    from bench.rig import Rig

T = TypeVar("T")

# Bars and figures


@dataclass(frozen=True)
class Bar:
    limit: float
    least: bool = False
    unit: str = "x"

    def holds(self, value: float) -> bool:
        return value >= self.limit if self.least else value <= self.limit

    def __str__(self) -> str:
        return f"{'>=' if self.least else '<='} {shown(self.limit, self.unit)}"


def at_least(limit: float, unit: str = "x") -> Bar:
    return Bar(limit, least=True, unit=unit)


def at_most(limit: float, unit: str = "x") -> Bar:
    return Bar(limit, unit=unit)


def shown(value: float, unit: str) -> str:
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f}".removesuffix(".00").removesuffix(".0") + f" {unit}"


@dataclass(frozen=True)
class Figure:
    """`value` is what the bar is about; `ours` and `theirs` say where it comes from."""

    value: float
    ours: str = ""
    theirs: str = ""
    unit: str = "x"


def ratio(ours: float, theirs: float, unit: str) -> Figure:
    return Figure(ours / theirs, shown(ours, unit), shown(theirs, unit))


def beside(ours: float, theirs: float | None, unit: str) -> Figure:
    """`ours` is what the bar is about."""
    return Figure(ours, shown(ours, unit), shown(theirs, unit) if theirs is not None else "", unit)


Figures = Mapping[str, Figure]


Run = Callable[["Rig", int], Figures]


@dataclass(frozen=True)
class Measure:
    name: str
    run: Run
    bars: Mapping[str, Bar]
    size: int | None

    @property
    def what(self) -> str:
        what = (self.run.__doc__ or self.name).splitlines()[0].removesuffix(".")
        return what if self.size is None else f"{self.size:,} versions: {what}"


MEASURES: Final[list[Measure]] = []


def measure(name: str, size: int | None = None, **bars: Bar) -> Callable[[Run], Run]:
    """Register a measure; the first line of its docstring names it in the table.

    It gets the project with `size` versions, and is left out of a run without that; else it gets the largest.
    """

    def register(run: Run) -> Run:
        MEASURES.append(Measure(name if size is None else f"{name}-{size}", run, bars, size))
        return run

    return register


@dataclass(frozen=True)
class Form:
    """How much a run measures."""

    name: str
    sizes: Sequence[int]
    seconds: float
    """How long the clients of one turn send."""
    rounds: int
    """How often the sides take turns, after one that warms up."""
    count: int
    """Operations of a client in a turn, where they are counted."""


TINY: Final = Form("tiny", (10,), 0.05, 1, 2)
SMALL: Final = Form("small", (10, 1_000), 0.4, 3, 12)
FULL: Final = Form("full", seeds.SIZES, 1.5, 5, 40)


# Statistics


def median(values: Iterable[float]) -> float:
    return statistics.median(values)


def p99(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)]


def by_turns(rounds: int, *sides: Callable[[int], T]) -> list[list[T]]:
    """Run every side in each of `rounds`; return the results of each. The order of the sides alternates."""
    results: list[list[T]] = [[] for _ in sides]
    for number in range(rounds):
        order = range(len(sides)) if number % 2 == 0 else reversed(range(len(sides)))
        for side in order:
            results[side].append(sides[side](number))
    return results


def seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
