"""Prometheus metrics of the commits of a worker."""

from prometheus_client import REGISTRY, CollectorRegistry

from runtime.metrics.instruments import Counter, Histogram

STEPS = ("add_partitions", "produce", "offsets", "end")
"""Steps of a commit. Records are produced while offsets are added and committed."""

_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class CommitMetrics:
    """Records what a transaction asks of the brokers, and how long each of its steps takes."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        seconds = Histogram(
            "faust_orders_commit_step_seconds",
            "Time of a step of a commit. The steps produce and offsets run at the same time",
            ("step",),
            _SECONDS,
            registry,
        )
        self._seconds = {step: seconds.labels(step) for step in STEPS}
        self._requests = Counter(
            "faust_orders_commit_requests_total", "Requests to brokers for commits, retries included", (), registry
        ).labels()
        self._partitions = Counter(
            "faust_orders_commit_partitions_total", "Partitions that commits wrote records to", (), registry
        ).labels()

    def took(self, step: str, seconds: float) -> None:
        """`step` is one of `STEPS`."""
        self._seconds[step].observe(seconds)

    def requested(self) -> None:
        self._requests.inc()

    def wrote(self, partitions: int) -> None:
        self._partitions.inc(partitions)


METRICS = CommitMetrics()
"""The metrics of this process. Several workers in one process, as in tests, share them."""
