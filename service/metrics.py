"""Metrics at `/metrics`, for Prometheus.

Several processes serve, and one of them answers each scrape: their counters are in memory-mapped files of a
shared folder, which `gitstore serve` creates, empty, before the client library is imported (it reads the
folder's name from the environment at import). Without that folder, as in tests, each process counts for
itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from webhooks.gauges import Gauges

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
Outcome = Literal["immediate", "queued", "refused"]
"""Outcome of the admission of a heavy request (service/run/admission.py)."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Seconds. The target is 50 ms at the 99th percentile, and a full clone may take minutes. Each bucket is one
# more series per area, and reading a series takes about 6 microseconds for each process.
_BUCKETS: Final = (0.0025, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 2.5, 10, 120)


@dataclass(frozen=True, slots=True)
class Background:
    """Lag of the background work, in seconds; None is unknown.

    `beats` are the ages of the last heartbeats, by loop of the worker; `replaced` counts the workers that
    were replaced, by reason.
    """

    deliveries: float | None = None
    sources: float | None = None
    beats: Mapping[str, float] | None = None
    replaced: Mapping[str, int] | None = None


class Metrics:
    """Counters of one application. Several processes share them in `folder` (None: a single process)."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._registry = registry = CollectorRegistry()
        self._requests = Histogram(
            "gitstore_request_duration_seconds",
            "Time from a request to the last byte of its answer.",
            ("area",),
            buckets=_BUCKETS,
            registry=registry,
        )
        self._statuses = Counter(
            "gitstore_requests_total",
            "Requests by area of the service, method and class of status (2xx to 5xx).",
            ("area", "method", "status"),
            registry=registry,
        )
        self._heavy = Counter(
            "gitstore_heavy_requests_total",
            "Heavy requests by outcome: immediate, queued (started after a wait), refused (429).",
            ("outcome",),
            registry=registry,
        )
        self._publishes = Counter(
            "gitstore_publishes_total",
            "Attempts to publish, by door (git, http, page) and outcome (published, or an error code).",
            ("door", "outcome"),
            registry=registry,
        )
        self._pushes = Counter(
            "gitstore_pushes_total",
            "Pushes by outcome: ok, or refused (at least one ref).",
            ("outcome",),
            registry=registry,
        )

        self._deliveries = Counter(
            "gitstore_delivery_attempts_total",
            "Attempts to deliver an event to a subscriber, by outcome: succeeded, retry, failed, gone.",
            ("outcome",),
            registry=registry,
        )
        self._syncs = Counter(
            "gitstore_source_syncs_total",
            "Synchronizations of sources, by outcome: ok, or an error code.",
            ("outcome",),
            registry=registry,
        )
        self._divergences = Counter(
            "gitstore_divergences_total",
            "Divergences found between a source and a project, by code.",
            ("code",),
            registry=registry,
        )

    def synced(self, outcome: str, divergences: Iterable[str] = ()) -> None:
        """Count one sync; `divergences` are the codes of its new divergences."""
        self._syncs.labels(outcome).inc()
        for code in divergences:
            self._divergences.labels(code).inc()

    def delivered(self, outcome: str) -> None:
        self._deliveries.labels(outcome).inc()

    def request(self, *, endpoint: str | None, method: str, status: int, seconds: float) -> None:
        """Count one request. `endpoint` is Flask's name of the route, None if no route matches."""
        area = _area(endpoint)
        self._requests.labels(area).observe(seconds)
        self._statuses.labels(area, method if method in _METHODS else "other", f"{status // 100}xx").inc()

    def heavy(self, outcome: Outcome) -> None:
        self._heavy.labels(outcome).inc()

    def published(self, *, door: str, outcome: str = "published") -> None:
        self._publishes.labels(door, outcome).inc()

    def pushed(self, outcome: str) -> None:
        self._pushes.labels(outcome).inc()

    def exposition(
        self,
        *,
        mirror_lag_seconds: float | None = None,
        background: Background = Background(),
        standing: Gauges | None = None,
    ) -> bytes:
        """Return all metrics of all processes in Prometheus' text format (CONTENT_TYPE).

        The caller measures the lags, and the gauges of sources and deliveries (`standing`), at scrape time:
        they grow exactly when no process runs that could update them. Values that are None are left out.
        """
        counted = self._registry
        if self._folder is not None:
            counted = CollectorRegistry()
            MultiProcessCollector(counted, path=str(self._folder))  # type: ignore[no-untyped-call]
        gauges = [
            _gauge(
                "gitstore_mirror_lag_seconds",
                "Age of the oldest write that Postgres has not mirrored yet; 0 if there is none.",
                mirror_lag_seconds,
            ),
            *_behind(background),
            *(_standing(standing) if standing is not None else ()),
        ]
        return generate_latest(counted) + generate_latest(
            _only(gauge for gauge in gauges if gauge is not None)
        )


def _area(endpoint: str | None) -> str:
    """Return the area of a route: its blueprint. Each operation of git is an area of its own."""
    if endpoint is None:
        return "none"
    area = endpoint.partition(".")[0]
    return endpoint if area == "git" else area


def forget_process(folder: Path | None, pid: int) -> None:
    """Remove the live state of a process that has ended. Its counts are kept."""
    if folder is not None:
        mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


def _behind(now: Background) -> Iterator[Metric | None]:
    yield _gauge(
        "gitstore_delivery_lag_seconds",
        "Time for which the oldest unsent delivery has been due; 0 if there is none.",
        now.deliveries,
    )
    yield _gauge(
        "gitstore_source_lag_seconds",
        "Time for which the oldest waiting source has been due; 0 if there is none.",
        now.sources,
    )
    if now.beats is not None:
        beats = GaugeMetricFamily(
            "gitstore_worker_beat_age_seconds",
            "Time since the last heartbeat of each loop of the background worker.",
            labels=["loop"],
        )
        for loop, age in now.beats.items():
            beats.add_metric([loop], age)
        yield beats
    if now.replaced is not None:
        replaced = CounterMetricFamily(
            "gitstore_worker_replacements",
            "Replacements of the background worker, by reason: ended, or stalled.",
            labels=["reason"],
        )
        for reason, count in now.replaced.items():
            replaced.add_metric([reason], count)
        yield replaced


def _standing(now: Gauges) -> Iterator[Metric | None]:
    yield _by_state("gitstore_sources", "Sources, by state.", now.sources)
    yield _gauge(
        "gitstore_source_success_age_seconds",
        "Age of the oldest last successful synchronization among the sources that are not paused.",
        now.since_success,
    )
    yield _gauge("gitstore_divergences_open", "Unresolved divergences.", now.divergences)
    yield _by_state(
        "gitstore_subscriptions", "Subscriptions, by state; failing ones are active.", now.subscriptions
    )
    yield _gauge(
        "gitstore_deliveries_pending", "Deliveries that have not ended, including held ones.", now.pending
    )


def _gauge(name: str, meaning: str, value: float | None) -> Metric | None:
    return None if value is None else GaugeMetricFamily(name, meaning, value)


def _by_state(name: str, meaning: str, counts: Mapping[str, int]) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=["state"])
    for state, count in counts.items():
        family.add_metric([state], count)
    return family


class _Measured(Collector):
    """Gauges computed at scrape time. A library Gauge would be one per process, in the shared folder."""

    def __init__(self, found: Iterable[Metric]) -> None:
        self._found = list(found)

    def collect(self) -> Iterator[Metric]:
        return iter(self._found)


def _only(found: Iterable[Metric]) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Measured(found))
    return registry
