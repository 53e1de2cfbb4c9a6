"""What is counted, in Prometheus' text format; each app has its own registry."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest

from fuseline.serving.loading import Loaded

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Meters:
    """Counts; names and labels are for dashboards and stay as they are."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "fuseline_requests", "Requests by route and status.", ["route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "fuseline_request_seconds", "From a request's first byte to its answer.", ["route"], registry=registry,
            buckets=SECONDS,
        )  # fmt: skip
        self._rows = Histogram(
            "fuseline_batch_rows", "Rows of a batch.", registry=registry, buckets=(1, 2, 4, 8, 16, 32, 64, 128)
        )
        self._run = Histogram(
            "fuseline_batch_seconds", "Decoding, tokenizing and graph of a batch.", registry=registry, buckets=SECONDS
        )
        self._reloads = Counter("fuseline_reloads", "Bundles that came, by outcome.", ["outcome"], registry=registry)
        self._bundle = Info("fuseline_bundle", "The bundle in service.", registry=registry)

    def request(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, rows: int, seconds: float) -> None:
        """Count a batch."""
        self._rows.observe(rows)
        self._run.observe(seconds)

    def reload(self, outcome: str) -> None:
        """Count a bundle that came: swapped or refused."""
        self._reloads.labels(outcome).inc()

    def bundle(self, loaded: Loaded) -> None:
        """Say which bundle is in service."""
        bundle = loaded.predictor.bundle
        self._bundle.info({"name": bundle.name, "digest": loaded.digest, "data": bundle.data, "code": bundle.code})

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """Show a number as it is when it is asked for."""
        Gauge(name, what, registry=self.registry).set_function(value)

    def show(self) -> bytes:
        """Write all numbers."""
        return generate_latest(self.registry)
