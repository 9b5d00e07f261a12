"""Metrics of HTTP requests by method, route and status, and of the event loop's tasks and Python's memory."""

import asyncio
import sys
import time

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import REGISTRY, Gauge

from runtime.http.connections import HANDED_OVER, HttpConnection
from runtime.metrics.instruments import Histogram, HistogramSeries

# Its series `…_count` is the number of requests. The long buckets are for clients that wait for an order.
_SECONDS = Histogram(
    "faust_orders_http_request_duration_seconds",
    "Seconds from the headers of a request to its response; route is the template, not the path",
    ("method", "route", "status"),
    (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
    REGISTRY,
)
_IN_FLIGHT = Gauge("faust_orders_http_requests_in_flight", "Requests in flight, waiting ones included")
_TASKS = Gauge("faust_orders_event_loop_tasks", "asyncio tasks that have not ended")
_BLOCKS = Gauge(
    "faust_orders_python_memory_blocks", "Blocks of memory that Python holds: a leak shows here before it does in RSS"
)

# A client may send any word as its method, and each would be a time series.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# A cache: looking up a series by its labels costs more than everything else here. Bounded by routes times statuses.
_series: dict[tuple[str, str, int], HistogramSeries] = {}


class InFlight:
    """Requests in flight: a plain number, written by the event loop only and read when metrics are collected."""

    count = 0


_IN_FLIGHT.set_function(lambda: InFlight.count)
_BLOCKS.set_function(sys.getallocatedblocks)


def _tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:  # collected outside of an event loop
        return 0


_TASKS.set_function(_tasks)


@web.middleware
async def metrics(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Measures a request. One whose client disconnects counts as status 499, as in nginx."""
    protocol = request.protocol
    handed_over = protocol.take_handed_over() if isinstance(protocol, HttpConnection) else None
    started = time.perf_counter()
    if handed_over is not None:
        started, request[HANDED_OVER] = handed_over.began, handed_over
    InFlight.count += 1
    status = 499
    try:
        response = await handler(request)
        status = response.status
        return response
    finally:
        InFlight.count -= 1
        resource = request.match_info.route.resource
        route = "unknown" if resource is None else resource.canonical
        observe(request.method, route, status, time.perf_counter() - started)


def observe(method: str, route: str, status: int, seconds: float) -> None:
    """Counts an answered request."""
    key = (method, route, status)
    (_series.get(key) or _new_series(key)).observe(seconds)


def _new_series(key: tuple[str, str, int]) -> HistogramSeries:
    method, route, status = key
    if method not in _METHODS:
        # Not cached: clients could make the cache grow.
        return _SECONDS.labels("other", route, str(status))
    series = _series[key] = _SECONDS.labels(method, route, str(status))
    return series
