"""What this process counts, from 0 at its start, and gauges of its parts. Each operator has one
`ProcessMetrics` with a registry of its own."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from dbbackup import __version__
from dbbackup.api.objects import Raw
from dbbackup.metrics import catalog
from dbbackup.metrics.catalog import Metric
from dbbackup.metrics.records import reason_of

OUTCOMES = ("Completed", "Failed")
RUNNING = (None, "Pending", "Running")
"""Phases before a run's end. If an artifact is lost later, or found again, the phase changes too,
but no run has ended."""


class ProcessMetrics:
    """`limit`: most series of one metric. Namespaces beyond it are not counted."""

    def __init__(self, limit: int) -> None:
        self.registry = CollectorRegistry()
        self._limit = limit
        self._namespaces: set[str] = set()
        ProcessCollector(registry=self.registry)
        self._gauge(catalog.BUILD).labels(__version__).set(1)
        self.ready = self._gauge(catalog.READY)
        self.watch_synced = self._gauge(catalog.WATCH_SYNCED)
        self.depth = self._gauge(catalog.QUEUE_DEPTH)
        self.oldest = self._gauge(catalog.QUEUE_OLDEST)
        self.busy = self._gauge(catalog.QUEUE_BUSY)
        self.failing = self._gauge(catalog.QUEUE_FAILING)
        self.scrape = self._gauge(catalog.SCRAPE)
        self._finished = {"DatabaseBackup": self._counter(catalog.BACKUPS_FINISHED), "DatabaseRestore": self._counter(catalog.RESTORES_FINISHED)}
        self._failures = self._counter(catalog.FAILURES)
        self._work = self._histogram(catalog.WORK_DURATION)
        self._errors = self._counter(catalog.WORK_ERRORS)
        self._answers = self._histogram(catalog.API_DURATION)
        self._requests = self._counter(catalog.API_REQUESTS)

    def _gauge(self, metric: Metric) -> Gauge:
        return Gauge(metric.name, metric.help, metric.labels, registry=self.registry)

    def _counter(self, metric: Metric) -> Counter:
        return Counter(metric.name, metric.help, metric.labels, registry=self.registry)

    def _histogram(self, metric: Metric) -> Histogram:
        return Histogram(metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=self.registry)

    def namespaces(self, found: Iterable[str]) -> None:
        """Makes the counters of each namespace, at 0: Prometheus would not notice the first run
        that ends if the counter appeared with it."""
        for namespace in found:
            if self._takes(namespace):
                for counter in self._finished.values():
                    for outcome in OUTCOMES:
                        counter.labels(namespace, outcome)

    def _takes(self, namespace: str) -> bool:
        if namespace not in self._namespaces and len(self._namespaces) * len(OUTCOMES) < self._limit:
            self._namespaces.add(namespace)
        return namespace in self._namespaces

    def phase_changed(self, obj: Raw, before: str | None, status: Raw) -> None:
        """Counts a run that has ended, where the change of phase from `before` says so."""
        outcome, kind = status.get("phase"), obj["kind"]
        if kind not in self._finished or before not in RUNNING or outcome not in OUTCOMES or (obj.get("spec") or {}).get("origin") == "Discovered":
            return
        namespace = obj["metadata"]["namespace"]
        if self._takes(namespace):
            self._finished[kind].labels(namespace, outcome).inc()
        if outcome == "Failed":
            self._failures.labels(kind, reason_of(status)).inc()

    def reconciled(self, kind: str, seconds: float, failed: bool) -> None:
        self._work.labels(kind).observe(seconds)
        self._errors.labels(kind).inc(int(failed))

    def answered(self, verb: str, resource: str, code: int, seconds: float) -> None:
        """The API server has answered, or could not be reached: code 0."""
        self._answers.labels(verb).observe(seconds)
        self._requests.labels(verb, resource, str(code)).inc()
