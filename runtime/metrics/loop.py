"""Prometheus metrics of the processing loop, rebalances and standby replicas."""

from collections import Counter as Counts
from collections.abc import Mapping, Sequence
from typing import Protocol

from prometheus_client import REGISTRY, CollectorRegistry, Gauge

from runtime.metrics.instruments import Counter, CounterSeries, Histogram, HistogramSeries
from runtime.model.records import Offsets, TopicPartition
from runtime.model.topology import Topology

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_STAGE_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 4 * 3600, 24 * 3600, 7 * 24 * 3600)
"""Stages take from milliseconds, by machines alone, to days, where customers pay and technicians come."""
_RECORDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


class BatchCounts(Protocol):
    """What a processed batch counts (`runtime.loop.overlay.BatchOverlay`)."""

    processed: int
    fused: int
    dead_letters: Counts[str]
    events: Counts[tuple[str, str]]
    observations: list[tuple[str, str, float]]


class LoopMetrics:
    """Records what the loop, rebalances and standby replicas do."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        def counters(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"faust_orders_{name}", text, labels, registry)

        def counter(name: str, text: str) -> CounterSeries:
            return counters(name, text).labels()

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"faust_orders_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str, buckets: Sequence[float] = _SECONDS) -> HistogramSeries:
            return Histogram(f"faust_orders_{name}", text, (), buckets, registry).labels()

        self._batches = counter("batches_committed_total", "Batches committed")
        self._records = counter("records_polled_total", "Records polled from the broker")
        self._processed = counter("processed_total", "Messages, commands and timers processed, fused ones included")
        self._fused = counter(
            "fused_total", "Messages processed in the batch that produced them, without a broker round trip"
        )
        self._dead = counters("dead_letters_total", "Messages dead-lettered, by their topic", "topic")
        self._events = counters("service_events_total", "Events that services count", "service", "event")
        self._dropped = counters("batches_dropped_total", "Batches whose commit was fenced or is in doubt", "reason")
        for reason in ("fenced", "in_doubt"):
            self._dropped.labels(reason)
        self._stages = Histogram(
            "faust_orders_stage_duration_seconds",
            "Time that orders took to a stage, observed once its record is committed",
            ("service", "stage"),
            _STAGE_SECONDS,
            registry,
        )
        # Looking up a series by its labels costs more than counting. What services count is a bounded number of names.
        self._event_series: dict[tuple[str, str], CounterSeries] = {}
        self._stage_series: dict[tuple[str, str], HistogramSeries] = {}
        self._size = histogram("batch_records", "Records polled for a batch", _RECORDS)
        self._process = histogram("batch_process_seconds", "Time to process a batch")
        self._commit = histogram("batch_commit_seconds", "Time to commit a batch")
        self._rebalances = counter("rebalances_total", "Assignments of partitions by the group to this worker")
        self._failed_restores = counter("restore_failures_total", "Restores that failed and were retried")
        self._restore = histogram("restore_seconds", "Time to restore the state of partitions after a rebalance")
        self._restored = counter("restored_records_total", "Changelog records restored into stores")
        self._followed = counter("standby_records_total", "Changelog records applied to standby replicas")
        self._standby = gauge("standby_partitions", "Partitions with a standby replica in this worker")
        self._lag = gauge(
            "standby_lag_records", "Offsets by which standby replicas are behind their changelogs, in total"
        )
        self._owned = gauge("owned_partitions", "Topic-partitions owned and restored; 0 during a rebalance")
        place = "topic", "partition"
        self._of_partition = (
            gauge("partition_position", "Next offset to process", *place),
            gauge("partition_last_stable_offset", "Last stable offset: open transactions lie behind it", *place),
            gauge("partition_lag_records", "Last stable offset minus position", *place),
            gauge("partition_lag_seconds", "Age of the oldest record that is not processed; 0 if none waits", *place),
        )
        self._stalled = gauge("stalled", "Partitions and components without progress; above 0 the worker is not ready")
        self._shown: set[TopicPartition] = set()
        self._lost = counters(
            "lost_records_total", "Offsets whose records the broker had removed before a worker read them", "topic"
        )

    def expect(self, topology: Topology) -> None:
        """Shows from 0 on what these services may count: Prometheus sees no increase in a counter's first value."""
        for service in topology.services:
            for event in service.all_events:
                self._new_event((service.name, event))
            for stage in service.stages:
                self._new_stage((service.name, stage))
        for topic in topology.consumed:
            self._dead.labels(topic)
            self._lost.labels(topic)
        for table in topology.tables.values():
            self._lost.labels(table.changelog)

    def batch(self, batch: BatchCounts, records: int, process_s: float, commit_s: float) -> None:
        self._batches.inc()
        self._records.inc(records)
        self._processed.inc(batch.processed)
        self._fused.inc(batch.fused)
        for labels, times in batch.events.items():
            (self._event_series.get(labels) or self._new_event(labels)).inc(times)
        for service, stage, seconds in batch.observations:
            (self._stage_series.get((service, stage)) or self._new_stage((service, stage))).observe(seconds)
        for topic, times in batch.dead_letters.items():
            self._dead.labels(topic).inc(times)
        self._size.observe(records)
        self._process.observe(process_s)
        self._commit.observe(commit_s)

    def _new_event(self, labels: tuple[str, str]) -> CounterSeries:
        series = self._event_series[labels] = self._events.labels(*labels)
        return series

    def _new_stage(self, labels: tuple[str, str]) -> HistogramSeries:
        series = self._stage_series[labels] = self._stages.labels(*labels)
        return series

    def dropped(self, reason: str) -> None:
        self._dropped.labels(reason).inc()

    def owned(self, partitions: int) -> None:
        self._owned.set(partitions)

    def lag(self, positions: Offsets, ends: Offsets, ages_s: Mapping[TopicPartition, float]) -> None:
        """Sets position, last stable offset and lag of the owned partitions whose last stable offset is known.

        Arguments:
            positions: next offset to process.
            ends: last stable offsets.
            ages_s: seconds, the age of the oldest record that is not processed; 0 for those left out.
        """
        before, self._shown = self._shown, ends.keys() & positions.keys()
        for topic, number in before - self._shown:
            for gauge in self._of_partition:
                gauge.remove(topic, str(number))
        for tp in self._shown:
            figures = positions[tp], ends[tp], max(0, ends[tp] - positions[tp]), ages_s.get(tp, 0.0)
            for gauge, figure in zip(self._of_partition, figures, strict=True):
                gauge.labels(tp.topic, str(tp.partition)).set(figure)

    def stalled(self, count: int) -> None:
        self._stalled.set(count)

    def lost(self, topic: str, offsets: int) -> None:
        self._lost.labels(topic).inc(offsets)

    def restored(self, records: int) -> None:
        self._restored.inc(records)

    def followed(self, records: int) -> None:
        self._followed.inc(records)

    def standby(self, partitions: int, lag: int) -> None:
        self._standby.set(partitions)
        self._lag.set(lag)

    def rebalanced(self) -> None:
        self._rebalances.inc()

    def restore_failed(self) -> None:
        self._failed_restores.inc()

    def restore_took(self, seconds: float) -> None:
        self._restore.observe(seconds)


METRICS = LoopMetrics()
"""The metrics of this process. Several workers in one process, as in tests, share them."""
