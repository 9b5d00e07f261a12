"""Prometheus metrics of a worker as a whole: version, readiness, waiting clients, and the size of its state."""

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from typing import NamedTuple, Protocol

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

VERSION = version("faust-orders")


class TableSize(NamedTuple):
    """The size of the stores of one table in a worker, standby replicas included."""

    rows: int
    """As RocksDB estimates it."""
    size_bytes: int
    """On disk and in write buffers."""


class DiskSpace(NamedTuple):
    """The file system of a state directory, bytes."""

    free: int
    size: int


class WorkerStatus(NamedTuple):
    """The status of a worker."""

    group: str
    guarantee: str
    revision: str
    ready: bool
    broker_reachable: bool | None
    """Whether the coordinator of the group answered last; `None` if it has not been asked, or there is no group."""
    waiting_clients: int
    waiting_commands: int
    max_requests: int
    tables: Mapping[str, TableSize]
    disk: DiskSpace | None
    """`None` if the state directory cannot be read."""


class StatusSource(Protocol):
    """A worker (`runtime.worker.worker.Worker`)."""

    def status(self) -> WorkerStatus: ...


class WorkerMetrics(Collector):
    """Gauges of the workers of this process, computed when Prometheus scrapes them."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._sources: weakref.WeakSet[StatusSource] = weakref.WeakSet()
        registry.register(self)

    def add(self, source: StatusSource) -> None:
        """Includes a worker, until `remove`."""
        self._sources.add(source)

    def remove(self, source: StatusSource) -> None:
        self._sources.discard(source)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The gauges, over the workers of the process: tests run several."""
        statuses = [source.status() for source in list(self._sources)]
        info = GaugeMetricFamily(
            "faust_orders_worker_info",
            "Always 1; labels: version and source revision of the worker, its processing guarantee, its consumer group",
            labels=("version", "revision", "guarantee", "group"),
        )
        for labels in {(VERSION, s.revision, s.guarantee, s.group) for s in statuses}:
            info.add_metric(labels, 1)
        reachable = [s.broker_reachable for s in statuses if s.broker_reachable is not None]
        return (
            info,
            _gauge(
                "worker_ready",
                "1 if the worker accepts requests and owns its partitions, else 0",
                _all(s.ready for s in statuses),
            ),
            _gauge(
                "broker_reachable",
                "1 if the coordinator of the consumer group answers this worker, else 0",
                _all(reachable),
            ),
            _gauge(
                "waiting_clients",
                "HTTP requests that wait for an order or another row to change",
                [sum(s.waiting_clients for s in statuses)],
            ),
            _gauge(
                "waiting_commands",
                "Commands, such as posted orders, that wait for the next batch",
                [sum(s.waiting_commands for s in statuses)],
            ),
            _gauge(
                "http_requests_limit",
                "Most reads, and most writes, in flight; more are answered 503 (MAX_REQUESTS)",
                [s.max_requests for s in statuses][:1],
            ),
            *_tables(statuses),
            *_disk([s.disk for s in statuses if s.disk is not None]),
        )


def _all(values: Iterable[bool]) -> list[float]:
    """One value: whether all are true. None without any."""
    known = list(values)
    return [float(all(known))] if known else []


def _gauge(name: str, text: str, values: Sequence[float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"faust_orders_{name}", text)
    for value in values:
        family.add_metric((), value)
    return family


def _tables(statuses: Iterable[WorkerStatus]) -> tuple[GaugeMetricFamily, ...]:
    rows = GaugeMetricFamily(
        "faust_orders_state_rows",
        "Rows of a table in this worker, standby replicas included; an estimate",
        labels=("table",),
    )
    size = GaugeMetricFamily(
        "faust_orders_state_size_bytes",
        "Size of a table in this worker, on disk and in write buffers, standby replicas included",
        labels=("table",),
    )
    tables: dict[str, list[TableSize]] = {}
    for status in statuses:
        for table, table_size in status.tables.items():
            tables.setdefault(table, []).append(table_size)
    for table, sizes in sorted(tables.items()):
        rows.add_metric((table,), sum(one.rows for one in sizes))
        size.add_metric((table,), sum(one.size_bytes for one in sizes))
    return rows, size


def _disk(disks: Sequence[DiskSpace]) -> tuple[GaugeMetricFamily, ...]:
    least = min(disks, key=lambda disk: disk.free, default=None)
    named: tuple[tuple[str, str, Callable[[DiskSpace], int]], ...] = (
        ("state_disk_free_bytes", "Free space of the file system of STATE_DIR", lambda disk: disk.free),
        ("state_disk_size_bytes", "Size of the file system of STATE_DIR", lambda disk: disk.size),
    )
    return tuple(_gauge(name, text, [] if least is None else [value(least)]) for name, text, value in named)


METRICS = WorkerMetrics()
"""The metrics of this process."""
