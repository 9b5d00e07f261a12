"""Prometheus metrics of side effects by service and effect, not by destination: their number has no bound."""

import weakref
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from prometheus_client import REGISTRY, CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

LABELS = ("service", "effect")


class SideEffectStatus(NamedTuple):
    """The status of the side effects of one kind in a worker."""

    service: str
    effect: str
    running: int
    waiting: int
    oldest_s: float
    """Age of the oldest waiting one, seconds."""
    last_error: str
    """Of those that are not done, without personal data; empty if none of them has failed."""
    open_circuits: int = 0
    """Open circuit breakers: of destinations with side effects that are not done, and the one of the kind."""


class Source(Protocol):
    """The side effects of a worker (`runtime.side_effects.dispatcher.SideEffects`)."""

    def statuses(self) -> list[SideEffectStatus]: ...


def status_by_service(source: Source) -> dict[str, dict[str, object]]:
    """The status of side effects for `/readyz`."""
    by_service: dict[str, list[SideEffectStatus]] = defaultdict(list)
    for status in source.statuses():
        by_service[status.service].append(status)
    return {
        service: {
            "running": sum(one.running for one in kinds),
            "waiting": sum(one.waiting for one in kinds),
            "oldest_waiting_s": round(max(one.oldest_s for one in kinds)),
            "last_error": next((one.last_error for one in kinds if one.last_error), None),
        }
        for service, kinds in by_service.items()
    }


class SideEffectMetrics(Collector):
    """Counters, and gauges that are computed when Prometheus scrapes them."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._sources: weakref.WeakSet[Source] = weakref.WeakSet()
        prefix = "faust_orders_side_effects_"
        self._failed = Counter(
            f"{prefix}failed_attempts_total",
            "Failed attempts at side effects (e-mails, database rows), which are retried",
            LABELS,
            registry=registry,
        )
        self._done = Counter(
            f"{prefix}done_total", "Side effects that succeeded and are acknowledged", LABELS, registry=registry
        )
        self._dead = Counter(
            f"{prefix}dead_lettered_total",
            "Side effects that were rejected permanently, or not done within SIDE_EFFECT_TIMEOUT_S",
            LABELS,
            registry=registry,
        )
        registry.register(self)

    def add(self, source: Source) -> None:
        """Includes a worker's side effects in the gauges, until `remove`, and shows their counters from 0 on."""
        self._sources.add(source)
        for status in source.statuses():
            for counter in (self._failed, self._done, self._dead):
                counter.labels(status.service, status.effect)

    def remove(self, source: Source) -> None:
        self._sources.discard(source)

    def failed(self, service: str, effect: str) -> None:
        self._failed.labels(service, effect).inc()

    def ended(self, service: str, effect: str, *, dead_letter: bool) -> None:
        (self._dead if dead_letter else self._done).labels(service, effect).inc()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The gauges, summed over the workers of the process: tests run several."""
        running = GaugeMetricFamily(
            "faust_orders_side_effects_running", "Side effects that this worker performs now", labels=LABELS
        )
        waiting = GaugeMetricFamily(
            "faust_orders_side_effects_waiting",
            "Side effects of this worker's partitions that wait for their turn or for a retry",
            labels=LABELS,
        )
        oldest = GaugeMetricFamily(
            "faust_orders_side_effects_oldest_waiting_seconds",
            "Age of the oldest waiting side effect; 0 if none waits",
            labels=LABELS,
        )
        circuits = GaugeMetricFamily(
            "faust_orders_side_effects_open_circuits",
            "Destinations of side effects (mail domains, webhooks) that get one attempt at a time, as attempts failed; "
            "a server that all destinations share counts as one more",
            labels=LABELS,
        )
        kinds: dict[tuple[str, str], list[SideEffectStatus]] = defaultdict(list)
        for source in list(self._sources):
            for status in source.statuses():
                kinds[status.service, status.effect].append(status)
        for labels, statuses in sorted(kinds.items()):
            running.add_metric(labels, sum(status.running for status in statuses))
            waiting.add_metric(labels, sum(status.waiting for status in statuses))
            oldest.add_metric(labels, max(status.oldest_s for status in statuses))
            circuits.add_metric(labels, sum(status.open_circuits for status in statuses))
        return (running, waiting, oldest, circuits)


METRICS = SideEffectMetrics()
"""The metrics of this process."""
