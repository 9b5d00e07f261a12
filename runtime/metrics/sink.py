"""Prometheus metrics of sinks, by service."""

import weakref
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from prometheus_client import REGISTRY, CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector


class TopicLag(NamedTuple):
    """The records of a topic that a sink has not stored: those of the partitions that are assigned to this worker."""

    service: str
    topic: str
    records: int
    seconds: float


class LagSource(Protocol):
    """A sink of a worker (`runtime.sink.lag.SinkLag`)."""

    service: str
    """Name of the service."""

    def by_topic(self) -> Iterator[TopicLag]: ...


class SinkMetrics(Collector):
    """Counters of the sinks of a worker, and gauges that are computed when Prometheus scrapes them."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._sources: weakref.WeakSet[LagSource] = weakref.WeakSet()
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
        registry.register(self)

    def watch(self, source: LagSource) -> None:
        """Shows the lag of a sink for as long as the sink exists, and its counters from 0 on."""
        self._sources.add(source)
        for counter in (self._stored, self._rejected, self._failed):
            counter.labels(source.service)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The gauges, over the workers of the process: tests run several."""
        labels = ("service", "topic")
        records = GaugeMetricFamily(
            "faust_orders_sink_lag_records",
            "Offsets up to the last stable offset that a sink has not stored, of the partitions of this worker",
            labels=labels,
        )
        seconds = GaugeMetricFamily(
            "faust_orders_sink_lag_seconds",
            "Age of the oldest record that a sink has not stored; 0 if none waits",
            labels=labels,
        )
        topics: dict[tuple[str, str], list[TopicLag]] = defaultdict(list)
        for lag in [lag for source in list(self._sources) for lag in source.by_topic()]:
            topics[lag.service, lag.topic].append(lag)
        for place, lags in sorted(topics.items()):
            records.add_metric(place, sum(lag.records for lag in lags))
            seconds.add_metric(place, max(lag.seconds for lag in lags))
        return (records, seconds)

    def stored(self, service: str, count: int) -> None:
        self._stored.labels(service).inc(count)

    def rejected(self, service: str) -> None:
        self._rejected.labels(service).inc()

    def failed(self, service: str) -> None:
        self._failed.labels(service).inc()


METRICS = SinkMetrics()
"""Those of this process."""
