"""What a worker tells Prometheus about its loop. Names follow the Prometheus conventions: base units, `_total`."""

from collections import Counter as Counts
from typing import Protocol

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from runtime.model.records import Offsets, TopicPartition

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_RECORDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000)


class BatchCounts(Protocol):
    """What a processed batch counts (`runtime.loop.overlay.BatchOverlay`)."""

    decided: int
    fused: int
    dead_letters: int
    events: Counts[tuple[str, str]]


class LoopMetrics:
    """Counters of the loop and the handover."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._batches = Counter("loop_batches_total", "Batches committed", registry=registry)
        self._records = Counter("loop_records_total", "Records taken from the broker", registry=registry)
        self._decided = Counter("loop_decided_total", "Messages and timers decided", registry=registry)
        self._fused = Counter("loop_fused_total", "Messages decided without the way by the broker", registry=registry)
        self._dead = Counter("loop_dead_letters_total", "Messages set aside", registry=registry)
        self._events = Counter("service_events_total", "What services count", ["service", "event"], registry=registry)
        self._given_up = Counter("loop_given_up_total", "Batches given up, by reason", ["reason"], registry=registry)
        self._size = Histogram("loop_batch_records", "Records of a batch", buckets=_RECORDS, registry=registry)
        self._deciding = Histogram("loop_decide_seconds", "Deciding a batch", buckets=_SECONDS, registry=registry)
        self._commit = Histogram("loop_commit_seconds", "Committing a batch", buckets=_SECONDS, registry=registry)
        self._takeover = Histogram("handover_seconds", "Taking over partitions", buckets=_SECONDS, registry=registry)
        self._restored = Counter("handover_restored_records_total", "Changelog records restored", registry=registry)
        self._followed = Counter("standby_records_total", "Changelog records read into copies", registry=registry)
        self._standby = Gauge("standby_partitions", "Partitions of which a copy is kept up to date", registry=registry)
        self._lag = Gauge("standby_lag_records", "Offsets the copies are behind their changelogs", registry=registry)
        self._owned = Gauge("owned_partitions", "Partitions owned and running", registry=registry)
        of_partition = {
            name: Gauge(f"partition_{name}", what, ["topic", "partition"], registry=registry)
            for name, what in (
                ("position", "Next offset to decide"),
                ("end", "Where it ends for who reads what is committed"),
                ("lag", "End less position"),
            )
        }
        self._of_partition = tuple(of_partition.values())
        self._stalled = Gauge("stalled", "Partitions and parts of the worker that do not get on", registry=registry)
        self._shown: set[TopicPartition] = set()
        self._lost = Counter(
            "faust_orders_lost_records_total",
            "Offsets whose records the broker no longer had when a worker came to read them",
            ["topic"],
            registry=registry,
        )

    def batch(self, batch: BatchCounts, records: int, decide_s: float, commit_s: float) -> None:
        self._batches.inc()
        self._records.inc(records)
        self._decided.inc(batch.decided)
        self._fused.inc(batch.fused)
        for (service, event), times in batch.events.items():
            self._events.labels(service, event).inc(times)
        if batch.dead_letters:
            self._dead.inc(batch.dead_letters)
        self._size.observe(records)
        self._deciding.observe(decide_s)
        self._commit.observe(commit_s)

    def given_up(self, reason: str) -> None:
        self._given_up.labels(reason).inc()

    def owned(self, partitions: int) -> None:
        self._owned.set(partitions)

    def lag(self, positions: Offsets, ends: Offsets) -> None:
        """Where each owned partition stands. One whose end is not known is not shown."""
        gone, self._shown = self._shown, ends.keys() & positions.keys()
        for topic, number in gone - self._shown:
            for gauge in self._of_partition:
                gauge.remove(topic, str(number))
        for tp in self._shown:
            figures = positions[tp], ends[tp], max(0, ends[tp] - positions[tp])
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

    def taken_over(self, seconds: float) -> None:
        self._takeover.observe(seconds)


METRICS = LoopMetrics()
"""Those of this process. Several workers in one process, as in tests, share them."""
