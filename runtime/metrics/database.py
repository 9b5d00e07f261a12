"""Prometheus metrics of the databases of services: availability, pool of connections, transactions, outbox."""

import weakref
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector


class PoolStatus(NamedTuple):
    """The status of a service's database, as this worker sees it."""

    service: str
    available: bool
    in_use: int
    idle: int
    limit: int
    waiting: int
    """Transactions that wait for a connection."""


class PoolSource(Protocol):
    """A database (`runtime.database.pool.Database`)."""

    def pool_status(self) -> PoolStatus | None:
        """`None` unless the database is in use."""


class OutboxStatus(NamedTuple):
    """The messages that wait in the outbox of a service, as of the last measurement."""

    service: str
    waiting: int
    oldest_s: float
    """Age of the oldest one now, seconds; it grows between measurements."""


class OutboxSource(Protocol):
    """An outbox (`runtime.database.outbox.Outbox`)."""

    def waiting_status(self) -> OutboxStatus | None:
        """`None` before the first measurement."""


class DatabaseMetrics(Collector):
    """Counters of transactions, and gauges that are computed when Prometheus scrapes them."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._pools: weakref.WeakSet[PoolSource] = weakref.WeakSet()
        self._outboxes: weakref.WeakSet[OutboxSource] = weakref.WeakSet()
        self._seconds = Histogram(
            "faust_orders_database_transaction_seconds",
            "Time of a transaction in the database of a service, the wait for a connection included",
            ["service"],
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=registry,
        )
        self._failed = Counter(
            "faust_orders_database_failures_total",
            "Transactions that failed because the database of a service was unavailable",
            ["service"],
            registry=registry,
        )
        registry.register(self)

    def add(self, pool: PoolSource, service: str) -> None:
        """Shows the pool of a service until `remove`, and its counters from 0 on."""
        self._pools.add(pool)
        self._failed.labels(service)
        self._seconds.labels(service)

    def remove(self, pool: PoolSource) -> None:
        self._pools.discard(pool)

    def add_outbox(self, outbox: OutboxSource) -> None:
        """Shows the waiting messages of an outbox until `remove_outbox`."""
        self._outboxes.add(outbox)

    def remove_outbox(self, outbox: OutboxSource) -> None:
        self._outboxes.discard(outbox)

    def took(self, service: str, seconds: float) -> None:
        self._seconds.labels(service).observe(seconds)

    def failed(self, service: str) -> None:
        self._failed.labels(service).inc()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The gauges, over the workers of the process: tests run several."""
        yield from _of_pools([status for pool in list(self._pools) if (status := pool.pool_status()) is not None])
        yield from _of_outboxes([s for outbox in list(self._outboxes) if (s := outbox.waiting_status()) is not None])


def _of_pools(statuses: Iterable[PoolStatus]) -> tuple[GaugeMetricFamily, ...]:
    prefix, labels = "faust_orders_database_", ("service",)
    available = GaugeMetricFamily(
        f"{prefix}available", "1 if the database of a service answered the last transaction, else 0", labels=labels
    )
    connections = GaugeMetricFamily(
        f"{prefix}connections",
        "Open connections of this worker to the database of a service",
        labels=("service", "state"),
    )
    limit = GaugeMetricFamily(
        f"{prefix}connections_limit", "Most connections of this worker to the database of a service", labels=labels
    )
    waiting = GaugeMetricFamily(
        f"{prefix}transactions_waiting", "Transactions that wait for a connection of this worker's pool", labels=labels
    )
    services: dict[str, list[PoolStatus]] = defaultdict(list)
    for status in statuses:
        services[status.service].append(status)
    for service, pools in sorted(services.items()):
        available.add_metric((service,), float(all(pool.available for pool in pools)))
        connections.add_metric((service, "in_use"), sum(pool.in_use for pool in pools))
        connections.add_metric((service, "idle"), sum(pool.idle for pool in pools))
        limit.add_metric((service,), sum(pool.limit for pool in pools))
        waiting.add_metric((service,), sum(pool.waiting for pool in pools))
    return available, connections, limit, waiting


def _of_outboxes(statuses: Iterable[OutboxStatus]) -> tuple[GaugeMetricFamily, ...]:
    waiting = GaugeMetricFamily(
        "faust_orders_outbox_waiting",
        "Messages in the outbox of a service that Kafka has not acknowledged, counted up to 10,000",
        labels=("service",),
    )
    oldest = GaugeMetricFamily(
        "faust_orders_outbox_oldest_waiting_seconds",
        "Age of the oldest message in the outbox of a service that Kafka has not acknowledged; 0 if none waits",
        labels=("service",),
    )
    services: dict[str, list[OutboxStatus]] = defaultdict(list)
    for status in statuses:
        services[status.service].append(status)
    for service, outboxes in sorted(services.items()):  # all workers measure one table
        waiting.add_metric((service,), max(outbox.waiting for outbox in outboxes))
        oldest.add_metric((service,), max(outbox.oldest_s for outbox in outboxes))
    return waiting, oldest


METRICS = DatabaseMetrics()
"""The metrics of this process."""
