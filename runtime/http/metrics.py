"""How many requests, how long they took, how many are under way: by method, route and status. And what it all costs."""

import asyncio
import sys
import time

from aiohttp import web
from aiohttp.typedefs import Handler
from prometheus_client import Gauge, Histogram

# A histogram counts as well: `faust_orders_http_request_duration_seconds_count` is the number of requests. Its long buckets are
# for those who wait for an order.
_SECONDS = Histogram(
    "faust_orders_http_request_duration_seconds",
    "Time from the request's headers to its answer; `route` is the template, not the path",
    ("method", "route", "status"),
    buckets=(0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60),
)
_IN_FLIGHT = Gauge("faust_orders_http_requests_in_flight", "Requests that are being handled now")
_TASKS = Gauge("faust_orders_event_loop_tasks", "Tasks of the event loop that have not ended")
_BLOCKS = Gauge("faust_orders_python_memory_blocks", "Blocks of memory that Python holds: a leak shows here before it does in RSS")

# A client may send any word as its method; each would be a time series of its own.
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Looking a series up by its labels costs more than all the rest here. There are as many as routes times statuses.
_series: dict[tuple[str, str, int], Histogram] = {}


class _Counting:
    """Requests under way. A plain number, read when somebody asks: the event loop is the only one who writes it."""

    now = 0


_IN_FLIGHT.set_function(lambda: _Counting.now)
_BLOCKS.set_function(sys.getallocatedblocks)


def _tasks() -> int:
    try:
        return len(asyncio.all_tasks())
    except RuntimeError:  # looked at from outside of an event loop
        return 0


_TASKS.set_function(_tasks)


@web.middleware
async def metrics(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Measures a request. One that its client gave up counts as 499, as nginx has it."""
    started = time.perf_counter()
    _Counting.now += 1
    status = 499
    try:
        response = await handler(request)
        status = response.status
        return response
    finally:
        _Counting.now -= 1
        resource = request.match_info.route.resource
        key = (request.method, "unknown" if resource is None else resource.canonical, status)
        series = _series.get(key)
        (series or _new_series(key)).observe(time.perf_counter() - started)


def _new_series(key: tuple[str, str, int]) -> Histogram:
    method, route, status = key
    if method not in _METHODS:
        # Not kept under its own name: that would grow with what clients make up.
        return _SECONDS.labels("other", route, str(status))
    series = _series[key] = _SECONDS.labels(method, route, str(status))
    return series
