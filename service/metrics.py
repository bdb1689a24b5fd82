"""Metrics at `/metrics`, for Prometheus.

Several processes serve, and one of them answers each scrape: their counters are in memory-mapped files of a
shared folder, which `gitstore serve` creates, empty, before the client library is imported (it reads the
folder's name from the environment at import). Without that folder, as in tests, each process counts for
itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4
Outcome = Literal["immediate", "queued", "refused"]
"""Outcome of the admission of a heavy request (service/fairness.py)."""
Value = float | Mapping[str, float] | None
"""Value of a gauge, or values by label. None is unknown: the series is left out."""

DURATION: Final = "gitstore_request_duration_seconds"
COUNTERS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    "gitstore_requests_total": (
        ("area", "method", "status"),
        "Requests by area of the service, method and class of status (2xx to 5xx).",
    ),
    "gitstore_heavy_requests_total": (
        ("outcome",),
        "Heavy requests by outcome: immediate, queued (started after a wait), refused (429).",
    ),
    "gitstore_publishes_total": (
        ("door", "outcome"),
        "Attempts to publish, by door (git, http, page, source, worker) and outcome (published, or an error "
        "code). "
        "Versions of a source that are not applied count as divergences.",
    ),
    "gitstore_environment_moves_total": (
        ("door", "outcome"),
        "Attempts to move or to promote the pointers of environments, by door and outcome (moved, promoted, "
        "or an error code).",
    ),
    "gitstore_releases_total": (
        ("door", "outcome"),
        "Attempts to release several workflows at once, by door and outcome (released, rolled_back, or an "
        "error code).",
    ),
    "gitstore_pushes_total": (("outcome",), "Pushes by outcome: ok, or refused (at least one ref)."),
    "gitstore_delivery_attempts_total": (
        ("outcome",),
        "Attempts to deliver an event to a subscriber, by outcome: succeeded, retry, failed, gone, crashed.",
    ),
    "gitstore_source_syncs_total": (
        ("outcome",),
        "Synchronizations of sources, by outcome: ok, crashed, or an error code.",
    ),
    "gitstore_divergences_total": (("code",), "Divergences found between a source and a project, by code."),
}
"""Labels and description of each counter."""
MEASURED: Final[Mapping[str, tuple[str | None, str]]] = {
    "gitstore_mirror_lag_seconds": (
        None,
        "Age of the oldest write that Postgres has not mirrored; 0 if all writes are mirrored.",
    ),
    "gitstore_replica_lag_seconds": (
        None,
        "Lag of the replica that this node reads; absent on a node that reads none.",
    ),
    "gitstore_delivery_lag_seconds": (
        None,
        "Time for which the oldest unsent delivery has been due; 0 if no delivery is due.",
    ),
    "gitstore_source_lag_seconds": (
        None,
        "Time for which the oldest waiting source has been due; 0 if no source is due.",
    ),
    "gitstore_schedules_due": (None, "Schedules that are due and not carried out yet."),
    "gitstore_schedule_delay_seconds": (
        None,
        "Time for which the first of the due schedules has been due; 0 if none is.",
    ),
    "gitstore_worker_beat_age_seconds": (
        "loop",
        "Time since the last heartbeat of each loop of the background worker.",
    ),
    "gitstore_worker_replacements_total": (
        "reason",
        "Replacements of the background worker, by reason: ended, or stalled.",
    ),
    "gitstore_sources": ("state", "Sources, by state."),
    "gitstore_source_success_age_seconds": (
        None,
        "Age of the oldest last successful synchronization among the sources that are neither paused nor "
        "poison.",
    ),
    "gitstore_divergences_open": (None, "Unresolved divergences."),
    "gitstore_subscriptions": ("state", "Subscriptions, by state; failing ones are active."),
    "gitstore_deliveries_pending": (None, "Deliveries that have not ended, including held ones."),
}
"""Label and description of each series that is measured at the scrape."""

_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Seconds. The target is 50 ms at the 99th percentile, and a full clone may take minutes. Each bucket is one
# more series per area, and reading a series takes about 6 microseconds for each process.
_BUCKETS: Final = (0.0025, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 2.5, 10, 120)


class Metrics:
    """Counters of one application. Several processes share them in `folder` (None: a single process)."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._registry = registry = CollectorRegistry()
        text = "Time from a request to the last byte of its answer."
        self._duration = Histogram(DURATION, text, ("area",), buckets=_BUCKETS, registry=registry)
        self._counters = {
            name: Counter(name, text, labels, registry=registry) for name, (labels, text) in COUNTERS.items()
        }

    def request(self, *, endpoint: str | None, method: str, status: int, seconds: float) -> None:
        """Count one request. `endpoint` is Flask's name of the route, None if no route matches."""
        area = _area(endpoint)
        self._duration.labels(area).observe(seconds)
        known = method if method in _METHODS else "other"
        self._count("gitstore_requests_total", area, known, f"{status // 100}xx")

    def heavy(self, outcome: Outcome) -> None:
        self._count("gitstore_heavy_requests_total", outcome)

    def published(self, *, door: str, outcome: str = "published") -> None:
        self._count("gitstore_publishes_total", door, outcome)

    def released(self, *, door: str, outcome: str = "released") -> None:
        self._count("gitstore_releases_total", door, outcome)

    def moved(self, *, door: str, outcome: str = "moved") -> None:
        self._count("gitstore_environment_moves_total", door, outcome)

    def pushed(self, outcome: str) -> None:
        self._count("gitstore_pushes_total", outcome)

    def delivered(self, outcome: str) -> None:
        self._count("gitstore_delivery_attempts_total", outcome)

    def synced(self, outcome: str, divergences: Iterable[str] = (), published: int = 0) -> None:
        """Count one sync, the codes of its new divergences, and the number of versions that it published."""
        self._count("gitstore_source_syncs_total", outcome)
        for code in divergences:
            self._count("gitstore_divergences_total", code)
        for _ in range(published):
            self.published(door="source")

    def exposition(self, measured: Mapping[str, Value]) -> bytes:
        """Return all metrics of all processes in Prometheus' text format (CONTENT_TYPE).

        The caller measures the series of MEASURED at scrape time: they grow exactly when no process runs that
        could update them.
        """
        counted = self._registry
        if self._folder is not None:
            counted = CollectorRegistry()
            MultiProcessCollector(counted, path=str(self._folder))  # type: ignore[no-untyped-call]
        gauges = CollectorRegistry()
        gauges.register(_Measured(measured))
        return generate_latest(counted) + generate_latest(gauges)

    def _count(self, name: str, *labels: str) -> None:
        self._counters[name].labels(*labels).inc()


class _Measured(Collector):
    """Values measured at scrape time. A library Gauge would be one per process, in the shared folder."""

    def __init__(self, measured: Mapping[str, Value]) -> None:
        self._measured = measured

    def collect(self) -> Iterator[Metric]:
        for name, (label, text) in MEASURED.items():
            value = self._measured.get(name)
            if value is not None:
                kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
                family = kind(name, text, labels=[label] if label else [])
                for key, number in value.items() if isinstance(value, Mapping) else [(None, value)]:
                    family.add_metric([] if key is None else [key], number)
                yield family


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
