"""The figures at `/metrics`, for Prometheus.

Several processes serve, and each scrape is answered by one of them: what they count stands in memory-mapped
files of a shared folder, which `gitstore serve` makes, empty, before the client library is imported (it
reads the folder's name from the environment at import). Without that folder, as in tests, each process
counts for itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Seconds. The promise is 50 ms at the 99th percentile, and a clone of everything may take minutes.
_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 30, 120)


class Metrics:
    """What one application counts. `folder` is where several processes count together (None: alone)."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._registry = registry = CollectorRegistry()
        self._requests = Histogram(
            "gitstore_request_duration_seconds",
            "Time from the request to the last byte of its answer.",
            ("endpoint", "method", "status"),
            buckets=_BUCKETS,
            registry=registry,
        )
        self._publishes = Counter(
            "gitstore_publishes_total",
            "Versions published, or not, by door (http, push) and outcome (published, or a refusal's code).",
            ("door", "outcome"),
            registry=registry,
        )
        self._pushes = Counter(
            "gitstore_pushes_total",
            "Pushes by outcome: ok, refused (at least one ref), failed.",
            ("outcome",),
            registry=registry,
        )

        self._deliveries = Counter(
            "gitstore_delivery_attempts_total",
            "Attempts to deliver an event to a subscriber, by outcome: succeeded, retry, failed, gone.",
            ("outcome",),
            registry=registry,
        )

    def delivered(self, outcome: str) -> None:
        self._deliveries.labels(outcome).inc()

    def request(self, *, endpoint: str | None, method: str, status: int, seconds: float) -> None:
        """Count one request. `endpoint` names the route, never the path: its values must be few."""
        known = method if method in _METHODS else "other"
        self._requests.labels(endpoint or "none", known, str(status)).observe(seconds)

    def published(self, *, door: str, outcome: str = "published") -> None:
        self._publishes.labels(door, outcome).inc()

    def pushed(self, outcome: str) -> None:
        self._pushes.labels(outcome).inc()

    def exposition(
        self, *, mirror_lag_seconds: float | None = None, delivery_lag_seconds: float | None = None
    ) -> bytes:
        """Every figure, of all processes, in Prometheus' text format (CONTENT_TYPE).

        The lags are measured by the caller at the scrape, as they grow just when nobody is there to update
        them: the age of the oldest write that Git has and Postgres may lack, and how long the oldest delivery
        has been due (0: none).
        """
        counted = self._registry
        if self._folder is not None:
            counted = CollectorRegistry()
            MultiProcessCollector(counted, path=str(self._folder))  # type: ignore[no-untyped-call]
        text = generate_latest(counted)
        for lag, name, meaning in (
            (
                mirror_lag_seconds,
                "gitstore_mirror_lag_seconds",
                "Age of the oldest write that Git has and Postgres may lack; 0 where there is none.",
            ),
            (
                delivery_lag_seconds,
                "gitstore_delivery_lag_seconds",
                "How long the oldest delivery that is not sent yet has been due; 0 where there is none.",
            ),
        ):
            if lag is not None:
                text += generate_latest(_only(_Lag(lag, name, meaning)))
        return text


def forget_process(folder: Path | None, pid: int) -> None:
    """A process that counted there has ended. What it counted stays."""
    if folder is not None:
        mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


class _Lag(Collector):
    """A figure that nobody keeps. A Gauge would be one for each process, in the shared folder."""

    def __init__(self, seconds: float, name: str, meaning: str) -> None:
        self._family = GaugeMetricFamily(name, meaning, seconds)

    def collect(self) -> Iterator[Metric]:
        yield self._family


def _only(collector: Collector) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(collector)
    return registry
