"""HTTP endpoints of the orders service: place and cancel an order, and the queries of `queries.py`."""

from datetime import UTC, datetime

from aiohttp import web

from orders_service.commands import place
from orders_service.events import EVENTS
from orders_service.processors import OrderAggregator
from orders_service.queries import QUERIES, unknown_order
from orders_service.state import ORDERS_VIEW, OrderView
from runtime.hosting import Answer, Endpoint, ResponseHeader
from runtime.http.answers import HttpProblem, answer, location
from runtime.http.commands import Creation, row_command
from runtime.http.inputs import ORDER_ID, IdempotencyKey
from runtime.http.preferences import APPLIED, MAX_WAIT_S, WaitPreference
from runtime.model.service import Context
from schemas.api import NewOrder, OrderOutcome
from schemas.identifiers import new_order_id, order_id_for
from schemas.messages import Order, OrderState
from schemas.topics import ORDERS

PATH = "/v1/orders"

CANCELLED_BY_CLIENT = "cancelled by the client"
"""Reason of an order that was cancelled over HTTP."""

_HEADERS = (ResponseHeader("Location", "URL of the order"), APPLIED)


def _order(new: NewOrder, order_id: str) -> Order:
    return Order.model_validate({**dict(new), "id": order_id, "created_at": datetime.now(UTC)})


def _check_same(posted: Order, existing: Order) -> None:
    """Raises `HttpProblem` (409) if the id has another order."""
    if posted.same_content(existing):
        return
    differing = posted.differing(existing, "customer_id", "product", "quantity", "price")
    detail = f"There is an order {existing.id!r} already, with another {', '.join(differing)}. Choose another id."
    raise HttpProblem(409, detail, headers=location(PATH, existing.id))


def _outcome(order: Order, view: OrderView | None) -> OrderOutcome:
    """What is known of a placed order: its row, once the row has the order."""
    known = view if view is not None and view.order is not None else OrderView(order=order)
    return known.outcome()


def _cancelled(order_id: str, order: Order | None) -> web.Response:
    if order is None:
        raise unknown_order(order_id)
    if order.state is not OrderState.CANCELLED:
        raise HttpProblem(409, f"The order {order_id!r} is {order.state}: it cannot be cancelled any more.")
    return answer(order)


CREATION = Creation(
    path=PATH,
    table=ORDERS_VIEW,
    topic=ORDERS,
    body=NewOrder,
    key=IdempotencyKey(
        "For a body without an id: requests with the same key create one order. Printable text outside ASCII is "
        "accepted if encoded as UTF-8."
    ),
    prefer=WaitPreference(
        f"`wait=SECONDS`: answer with the outcome, once the order is decided; up to {MAX_WAIT_S} (RFC 7240)"
    ),
    id_of=lambda new: new.id,
    id_for=order_id_for,
    new_id=new_order_id,
    make=_order,
    place=place,
    check_same=_check_same,
    decided=lambda view: view.decided,
    outcome=_outcome,
)


def endpoints(aggregator: OrderAggregator) -> tuple[Endpoint, ...]:
    """Declares the endpoints of the service. `aggregator` decides whether an order can be cancelled."""

    def cancel(order_id: str, ctx: Context) -> Order | None:
        return aggregator.cancel(order_id, CANCELLED_BY_CLIENT, ctx)

    return (
        CREATION.endpoint(
            name="postOrder",
            summary="Place an order",
            description="Idempotent with an id or an Idempotency-Key: repeated requests create one order. With "
            "`Prefer: wait=10` the answer has the outcome: one request instead of two.",
            tag="orders",
            answers={
                201: Answer("The order is written to Kafka", Order, _HEADERS, preferred=OrderOutcome),
                200: Answer("The order existed; its current state", Order, _HEADERS, preferred=OrderOutcome),
                202: Answer(
                    "With `Prefer: wait`: written to Kafka, and not decided in time; the verdicts so far",
                    OrderOutcome,
                    _HEADERS,
                ),
            },
        ),
        *QUERIES,
        EVENTS,
        row_command(
            "DELETE",
            f"{PATH}/{{id}}",
            ORDERS_VIEW,
            ORDER_ID,
            cancel,
            _cancelled,
            ready=lambda view: view.order is not None,
            name="cancelOrder",
            summary="Cancel an order that is not shipped",
            description="Idempotent. Waits until the order exists. What was paid is announced on `refunds`.",
            tag="orders",
            answers={200: Answer("The cancelled order", Order)},
            problems=(409,),
        ),
    )
