"""Times between the stages of orders: percentiles, computed by the database."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ARRAY, ColumnElement, Double, Select, and_, bindparam, case, cast, extract, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from history_service.models import ORDERS
from schemas.history import StepTiming

LONGEST_S = 60.0
"""Seconds that the database may take. It reads all orders of the range."""

_QUANTILES = (0.5, 0.9, 0.99)

_C = ORDERS.c
_TIMES: dict[str, ColumnElement[Any]] = {
    "POSTED": _C.posted_at,
    "FIRST_VERDICT": _C.judged_at,
    "VALIDATED": _C.validated_at,
    "FAILED": _C.failed_at,
    "DECIDED": func.least(_C.validated_at, _C.failed_at),  # ignores nulls
    "ENRICHED": _C.enriched_at,
    "FIRST_PAYMENT": _C.paid_at,
    "CHECKED_IN": _C.checked_in_at,
    "FULFILLED": _C.fulfilled_at,
    "SHIPPED": _C.shipped_at,
    "CANCELLATION": _C.cancellation_requested_at,
    "CANCELLED": _C.cancelled_at,
    "REFUNDED": _C.refunded_at,
}

STEPS = (
    ("POSTED", "FIRST_VERDICT"),
    ("FIRST_VERDICT", "DECIDED"),
    ("POSTED", "DECIDED"),
    ("POSTED", "VALIDATED"),
    ("POSTED", "FAILED"),
    ("VALIDATED", "FIRST_PAYMENT"),
    ("FIRST_PAYMENT", "ENRICHED"),
    ("VALIDATED", "CHECKED_IN"),
    ("FULFILLED", "SHIPPED"),
    ("VALIDATED", "SHIPPED"),
    ("POSTED", "SHIPPED"),
    ("CANCELLATION", "CANCELLED"),
    ("POSTED", "CANCELLED"),
    ("CANCELLED", "REFUNDED"),
)
"""Steps of an order, from one time to another, in the order of its way."""


class RangeTimings(NamedTuple):
    """The number of orders of a range, and the times of those steps that any of them has taken."""

    orders: int
    steps: tuple[StepTiming, ...]


async def read_timings(connection: AsyncConnection, since: datetime | None, before: datetime | None) -> RangeTimings:
    """Reads the times of the orders that were created in a range; `None`: without a bound."""
    orders, *figures = (await connection.execute(query(since, before))).one()
    size = len(figures) // len(STEPS)
    timings = (_timing(step, figures[size * number : size * (number + 1)]) for number, step in enumerate(STEPS))
    return RangeTimings(orders, tuple(timing for timing in timings if timing is not None))


def query(since: datetime | None, before: datetime | None) -> Select[Any]:
    """The number of orders; then of each step how many orders have taken it, its percentiles and its maximum."""
    quantiles = bindparam("quantiles", list(_QUANTILES), ARRAY(Double))
    columns: list[ColumnElement[Any]] = [func.count()]
    for start, end in STEPS:
        seconds = _seconds(_TIMES[start], _TIMES[end])
        columns += [
            func.count(seconds),
            func.percentile_cont(quantiles, type_=ARRAY(Double)).within_group(seconds),
            func.max(seconds),
        ]
    conditions: list[ColumnElement[bool]] = [_C.created_at.is_not(None)]  # as the index has it
    if since is not None:
        conditions.append(_C.created_at >= since)
    if before is not None:
        conditions.append(_C.created_at < before)
    return select(*columns).where(*conditions)


def _seconds(start: ColumnElement[Any], end: ColumnElement[Any]) -> ColumnElement[Any]:
    """Seconds between two times; null unless both are there. Not below 0: an order may be paid before it is valid."""
    elapsed = cast(extract("epoch", end - start), Double)
    return case((and_(start.is_not(None), end.is_not(None)), func.greatest(elapsed, 0.0)))


def _timing(step: tuple[str, str], figures: Sequence[Any]) -> StepTiming | None:
    count, quantiles, longest = figures
    if not count:
        return None
    p50, p90, p99 = quantiles
    start, end = step
    return StepTiming(
        start=start, end=end, count=count, p50_seconds=p50, p90_seconds=p90, p99_seconds=p99, max_seconds=longest
    )
