"""Prometheus metrics of workers, their loop, side effects, sinks and databases.

Counters and histograms are written where things happen. Gauges are computed when Prometheus scrapes them.
"""

from prometheus_client import disable_created_metrics

# Otherwise each counter and histogram has a further series `_created`, which nothing reads.
disable_created_metrics()  # type: ignore[no-untyped-call]
