"""HTTP endpoints of the history: orders in lists, their records, at a time, and explained; times of stages."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from aiohttp import web
from sqlalchemy.ext.asyncio import AsyncConnection

from history_service import inputs, lists, queries
from history_service.explanations import Explainer
from history_service.filters import InvalidCursorError, read_cursor, write_cursor
from history_service.freshness import read_lag_s
from history_service.timeline import StoredRecord, order_at, timeline
from history_service.timings import LONGEST_S, read_timings
from runtime.common.clock import utc_now
from runtime.database.pool import Database
from runtime.hosting import Answer, Endpoint, Host, ResponseHeader
from runtime.http.answers import HttpProblem, answer
from runtime.http.inputs import AT, ORDER_ID, deadline_of
from runtime.http.validation import invalid_input
from schemas.history import OrderExplanation, OrderHistory, OrderPage, Timings
from schemas.messages import Order

LAG = "X-History-Lag-Seconds"
_LAG = (
    ResponseHeader(
        LAG,
        "Seconds by which the history may be behind the topics; 0 if no record is known that is not stored; absent "
        "while unknown",
        {"type": "number", "minimum": 0},
    ),
)


class HistoryApi:
    """Handlers of the history. They answer from its database; while that is away, 503.

    Arguments:
        database: of the history.
        explainer: explains orders.
    """

    def __init__(self, database: Database, explainer: Explainer) -> None:
        self._database = database
        self._explainer = explainer

    async def list_orders(self, _: Host, request: web.Request) -> web.Response:
        """Answers a page of orders, newest first."""
        filters, limit, cursor = inputs.filters_of(request), inputs.limit_of(request), inputs.cursor_of(request)
        try:
            after = read_cursor(filters, cursor) if cursor is not None else None
        except InvalidCursorError as error:
            name = inputs.CURSOR.name
            raise invalid_input(name, str(error), f"The query parameter {name!r} {error}.") from None
        async with self._reading() as (connection, lag_s):
            page = await lists.read_page(connection, filters, after, limit)
        following = None if page.last is None else write_cursor(filters, page.last)
        return answer(OrderPage(orders=page.orders, next=following, lag_seconds=lag_s), headers=_header(lag_s))

    async def get_history(self, _: Host, request: web.Request) -> web.Response:
        """Answers all records about an order."""
        order_id = ORDER_ID.of(request)
        async with self._reading() as (connection, lag_s):
            records = await queries.records_of_order(connection, order_id)
        if not records:
            raise _unknown(order_id, lag_s)
        shown = timeline(records[: queries.MOST_RECORDS])
        more = len(records) > queries.MOST_RECORDS
        return answer(OrderHistory(id=order_id, records=shown, more=more, lag_seconds=lag_s), headers=_header(lag_s))

    async def get_order_at(self, _: Host, request: web.Request) -> web.Response:
        """Answers the order as it was at a time, by default now."""
        deadline_of(request)  # a parameter of the same request to the orders service: it must be valid here as well
        order_id, at = ORDER_ID.of(request), inputs.time_of(request) or utc_now()
        async with self._reading() as (connection, lag_s):
            records = await queries.states_of_order(connection, order_id)
        order = order_at(order_id, records, at)
        if order is None:
            raise _unknown_then(order_id, at, records, lag_s)
        return answer(order, headers=_header(lag_s))

    async def get_timings(self, _: Host, request: web.Request) -> web.Response:
        """Answers the times between the stages of the orders of a range."""
        inputs.refuse_others(request, *inputs.RANGE)
        since, before = inputs.range_of(request)
        async with self._reading(LONGEST_S) as (connection, lag_s):
            found = await read_timings(connection, since, before)
        return answer(Timings(orders=found.orders, steps=found.steps, lag_seconds=lag_s), headers=_header(lag_s))

    async def explain_order(self, _: Host, request: web.Request) -> web.Response:
        """Answers why an order is in its state."""
        order_id = ORDER_ID.of(request)
        async with self._reading() as (connection, lag_s):
            explanation = await self._explainer.explain(connection, order_id, utc_now(), lag_s)
        if explanation is None:
            raise _unknown(order_id, lag_s)
        return answer(explanation, headers=_header(lag_s))

    @asynccontextmanager
    async def _reading(self, timeout_s: float | None = None) -> AsyncIterator[tuple[AsyncConnection, float | None]]:
        """A transaction, and the lag at its begin. Raises `DatabaseUnavailable`."""
        async with self._database.transaction(timeout_s) as connection:
            yield connection, await read_lag_s(connection)


def _header(lag_s: float | None) -> Mapping[str, str]:
    return {} if lag_s is None else {LAG: f"{lag_s:.3f}"}


def _unknown(order_id: str, lag_s: float | None) -> HttpProblem:
    behind = "" if lag_s == 0 else f" It is behind by {f'up to {lag_s:.0f} s' if lag_s else 'an unknown time'}."
    detail = f"There is no order {order_id!r} in the history (yet).{behind}"
    return HttpProblem(404, detail, headers=_header(lag_s))


def _unknown_then(order_id: str, at: datetime, records: list[StoredRecord], lag_s: float | None) -> HttpProblem:
    if not records:
        return _unknown(order_id, lag_s)
    first = min(record.produced_at for record in records)
    detail = f"There was no order {order_id!r} at {_text(at)}: its first record is from {_text(first)}."
    return HttpProblem(404, detail, headers=_header(lag_s))


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def endpoints(database: Database, explainer: Explainer) -> tuple[Endpoint, ...]:
    """Declares the endpoints of the service."""
    api = HistoryApi(database, explainer)
    return (
        Endpoint(
            "GET",
            "/v1/orders",
            api.list_orders,
            name="listOrders",
            summary="List orders, newest first",
            description="A page has the orders after those of the page before, whatever is written meanwhile.",
            tag="history",
            parameters=(*inputs.FILTERS, inputs.LIMIT, inputs.CURSOR),
            answers={200: Answer("A page of orders", OrderPage, _LAG)},
        ),
        Endpoint(
            "GET",
            "/v1/orders/{id}/history",
            api.get_history,
            name="getOrderHistory",
            summary="Get all records about an order, from POST to e-mail",
            tag="history",
            parameters=(ORDER_ID,),
            answers={200: Answer("The records, causes before their consequences", OrderHistory, _LAG)},
        ),
        Endpoint(
            "GET",
            "/v1/orders/{id}/explain",
            api.explain_order,
            name="explainOrder",
            summary="Explain the verdicts on an order",
            description="Numbers are recomputed from the records, under `FRAUD_LIMIT`, `FRAUD_SESSION_GAP_S`, "
            "`CURRENCY` and `REQUIRED_CHECKS` of the worker that answers.",
            tag="history",
            parameters=(ORDER_ID,),
            answers={200: Answer("The verdicts, with the numbers behind them at that moment", OrderExplanation, _LAG)},
        ),
        Endpoint(
            "GET",
            "/v1/orders/{id}",
            api.get_order_at,
            name="getOrderAt",
            summary="Get an order as it was at a time",
            tag="history",
            parameters=(ORDER_ID, AT),
            answers={200: Answer("The order as it was, by default as it is now", Order, _LAG)},
            when=AT.name,
        ),
        Endpoint(
            "GET",
            "/v1/timings",
            api.get_timings,
            name="getTimings",
            summary="Get the times between the stages of orders: percentiles and maximum",
            description=f"It reads all orders of the range: if that takes {LONGEST_S:g} s, the answer is 503.",
            tag="history",
            parameters=(inputs.FROM, inputs.TO),
            answers={200: Answer("The times of the steps that any of the orders has taken", Timings, _LAG)},
        ),
    )
