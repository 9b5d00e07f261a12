"""Prometheus metrics of sinks, by service."""

from prometheus_client import REGISTRY, CollectorRegistry, Counter


class SinkMetrics:
    """Counters of the sinks of a worker."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        labels = ["service"]
        self._stored = Counter(
            "faust_orders_sink_records_total", "Records stored in the database of a sink", labels, registry=registry
        )
        self._rejected = Counter(
            "faust_orders_sink_rejected_records_total",
            "Records that the database of a sink rejected: each is a dead letter",
            labels,
            registry=registry,
        )
        self._failed = Counter(
            "faust_orders_sink_failures_total",
            "Attempts of a sink that failed and are retried: its database or the broker is unavailable",
            labels,
            registry=registry,
        )

    def stored(self, service: str, count: int) -> None:
        self._stored.labels(service).inc(count)

    def rejected(self, service: str) -> None:
        self._rejected.labels(service).inc()

    def failed(self, service: str) -> None:
        self._failed.labels(service).inc()


METRICS = SinkMetrics()
"""Those of this process."""
