"""Counters and histograms that cost little to write: plain numbers, made into Prometheus families when collected.

They have the part of the interface of `prometheus_client` that this project uses. Its own instruments take a lock for
each number and look for a bucket one by one. These are written and collected by the thread of the event loop alone.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from math import inf
from typing import Generic, TypeVar

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

S = TypeVar("S")


class CounterSeries:
    """One series of a counter."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        """Adds an amount, which must not be negative."""
        self.value += amount


class HistogramSeries:
    """One series of a histogram.

    Arguments:
        bounds: upper bounds of the buckets, ascending.
    """

    __slots__ = ("_bounds", "counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """Observations of each bucket alone; the last is of those above all bounds."""
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Counts an observation in the first bucket whose bound is not below it."""
        self.counts[bisect_left(self._bounds, value)] += 1
        self.sum += value


class _Family(Collector, Generic[S]):
    """The series of a metric by the values of their labels.

    Arguments:
        labels: names.
        registry: it is registered there.
        new: makes a series.
    """

    def __init__(self, labels: Sequence[str], registry: CollectorRegistry, new: Callable[[], S]) -> None:
        self._labels = tuple(labels)
        self._new = new
        self._series: dict[tuple[str, ...], S] = {}
        registry.register(self)

    def labels(self, *values: str) -> S:
        """The series with these values of the labels, shown from now on. Callers keep it: a look-up costs more than to
        write it."""
        found = self._series.get(values)
        if found is None:
            if len(values) != len(self._labels):
                raise ValueError(f"the labels are {', '.join(self._labels)}: {len(values)} values are given")
            found = self._series[values] = self._new()
        return found

    def _shown(self) -> Iterable[tuple[tuple[str, ...], S]]:
        return list(self._series.items())


class Counter(_Family[CounterSeries]):
    """A counter.

    Arguments:
        name: ends with `_total`.
        text: help text.
        labels: names.
        registry: it is registered there.
    """

    def __init__(self, name: str, text: str, labels: Sequence[str], registry: CollectorRegistry) -> None:
        self._name, self._text = name, text
        super().__init__(labels, registry, CounterSeries)

    def describe(self) -> Iterator[CounterMetricFamily]:
        """The family without its series."""
        yield CounterMetricFamily(self._name, self._text, labels=self._labels)

    def collect(self) -> Iterator[CounterMetricFamily]:
        """The family with its series."""
        for family in self.describe():
            for values, series in self._shown():
                family.add_metric(values, series.value)
            yield family


class Histogram(_Family[HistogramSeries]):
    """A histogram.

    Arguments:
        name: ends with the unit.
        text: help text.
        labels: names.
        buckets: upper bounds, ascending; one without a bound is added.
        registry: it is registered there.
    """

    def __init__(
        self, name: str, text: str, labels: Sequence[str], buckets: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name, self._text = name, text
        bounds = tuple(map(float, buckets))
        self._bounds = [floatToGoString(bound) for bound in (*bounds, inf)]  # type: ignore[no-untyped-call]
        super().__init__(labels, registry, lambda: HistogramSeries(bounds))

    def describe(self) -> Iterator[HistogramMetricFamily]:
        """The family without its series."""
        yield HistogramMetricFamily(self._name, self._text, labels=self._labels)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """The family with its series."""
        for family in self.describe():
            for values, series in self._shown():
                buckets = zip(self._bounds, accumulate(series.counts), strict=True)
                family.add_metric(values, [*buckets], series.sum)
            yield family
