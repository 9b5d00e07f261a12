"""Metrics of side effects, by service and effect. Not by destination: there are as many as customers have domains."""

import weakref
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from prometheus_client import REGISTRY, CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

LABELS = ("service", "effect")


class SideEffectStatus(NamedTuple):
    """How the side effects of one kind stand in a worker."""

    service: str
    effect: str
    running: int
    waiting: int
    oldest_s: float
    last_error: str
    """Of what is still to be done, without personal data; empty if nothing of it has failed."""


class Source(Protocol):
    """Side effects of a worker."""

    def standing(self) -> list[SideEffectStatus]: ...


def shown(source: Source) -> dict[str, dict[str, object]]:
    """How side effects stand, for `/readyz`: by service."""
    found: dict[str, list[SideEffectStatus]] = defaultdict(list)
    for standing in source.standing():
        found[standing.service].append(standing)
    return {
        service: {
            "running": sum(one.running for one in kinds),
            "waiting": sum(one.waiting for one in kinds),
            "oldest_waiting_s": round(max(one.oldest_s for one in kinds)),
            "last_error": next((one.last_error for one in kinds if one.last_error), None),
        }
        for service, kinds in found.items()
    }


class SideEffectMetrics(Collector):
    """Counters, and gauges that are looked up when they are asked for."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._sources: weakref.WeakSet[Source] = weakref.WeakSet()
        prefix = "faust_orders_side_effects_"
        self._failed = Counter(
            f"{prefix}failed_attempts_total",
            "Attempts at a side effect (an e-mail, a row in a database) that failed and are made again",
            LABELS,
            registry=registry,
        )
        self._done = Counter(
            f"{prefix}done_total", "Side effects that are done, and noted as done", LABELS, registry=registry
        )
        self._dead = Counter(
            f"{prefix}dead_lettered_total",
            "Side effects that were refused for good, or not done within SIDE_EFFECT_TIMEOUT_S",
            LABELS,
            registry=registry,
        )
        registry.register(self)

    def watch(self, source: Source) -> None:
        """Shows this source, until `leave`."""
        self._sources.add(source)

    def leave(self, source: Source) -> None:
        self._sources.discard(source)

    def failed(self, service: str, effect: str) -> None:
        self._failed.labels(service, effect).inc()

    def ended(self, service: str, effect: str, *, dead_letter: bool) -> None:
        (self._dead if dead_letter else self._done).labels(service, effect).inc()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The gauges. Several workers in a process, as in tests, are added up."""
        running = GaugeMetricFamily(
            "faust_orders_side_effects_running", "Side effects under way in this worker", labels=LABELS
        )
        waiting = GaugeMetricFamily(
            "faust_orders_side_effects_waiting",
            "Side effects of this worker's partitions that wait: for their turn, or to be tried again after a failure",
            labels=LABELS,
        )
        oldest = GaugeMetricFamily(
            "faust_orders_side_effects_oldest_waiting_seconds",
            "How long ago the oldest side effect that waits was asked for; 0 if none waits",
            labels=LABELS,
        )
        kinds: dict[tuple[str, str], list[SideEffectStatus]] = defaultdict(list)
        for source in list(self._sources):
            for standing in source.standing():
                kinds[standing.service, standing.effect].append(standing)
        for labels, found in sorted(kinds.items()):
            running.add_metric(labels, sum(one.running for one in found))
            waiting.add_metric(labels, sum(one.waiting for one in found))
            oldest.add_metric(labels, max(one.oldest_s for one in found))
        return (running, waiting, oldest)


METRICS = SideEffectMetrics()
"""Those of this process."""
