"""`GET /v1/orders/{id}` and `…/validated`: interactive queries that can wait (read-your-writes)."""

from aiohttp import web

from orders_service.state import ORDERS_VIEW, OrderView
from runtime.hosting import Answer
from runtime.http.answers import PROBLEM_JSON, HttpProblem, answer, problem_as, title_of
from runtime.http.inputs import AT, ORDER_ID
from runtime.http.queries import misdirected, row_query
from runtime.http.routing import STALE_READ
from schemas.api import OrderOutcome, Problem, Verdict
from schemas.identifiers import is_composed
from schemas.messages import CheckType, Order, OrderState


class UndecidedOrder(Problem):
    """Body of the 504 for an order that is not decided yet: its state and the verdicts so far."""

    state: OrderState
    verdicts: tuple[Verdict, ...]
    required: tuple[CheckType, ...] = ()
    missing: tuple[CheckType, ...] = ()


def unknown_order(order_id: str) -> HttpProblem:
    """Returns the 404 of an order that does not exist."""
    form = "" if is_composed(order_id) else " The id is not in Unicode form NFC, in which orders are posted."
    return HttpProblem(404, f"There is no order {order_id!r} (yet). A larger timeout waits for it.{form}")


def _order(order_id: str, view: OrderView | None) -> web.Response:
    if view is None or view.order is None:
        raise unknown_order(order_id)
    return answer(view.order)


def _known_order(view: OrderView) -> Order:
    assert view.order is not None
    return view.order


def _outcome(order_id: str, view: OrderView | None) -> web.Response:
    if view is None or view.order is None:
        raise unknown_order(order_id)
    return answer(view.outcome()) if view.decided else problem_as(_undecided(view.outcome()))


def _undecided(outcome: OrderOutcome) -> UndecidedOrder:
    return UndecidedOrder(
        title=title_of(504),
        status=504,
        detail=f"The order {outcome.id!r} is not decided yet. Repeat the request, or give it a larger timeout.",
        state=outcome.state,
        verdicts=outcome.verdicts,
        required=outcome.required,
        missing=outcome.missing,
    )


QUERIES = (
    misdirected(
        row_query(
            "/v1/orders/{id}",
            ORDERS_VIEW,
            ORDER_ID,
            _order,
            ready=lambda view: view.order is not None,
            body=_known_order,
            name="getOrder",
            summary="Get an order, waiting until it exists",
            tag="orders",
            answers={200: Answer("The current state of the order", Order, STALE_READ)},
        ),
        AT,
        "This worker does not run the history, which has earlier states. Ask one that does.",
    ),
    row_query(
        "/v1/orders/{id}/validated",
        ORDERS_VIEW,
        ORDER_ID,
        _outcome,
        ready=lambda view: view.decided,
        body=OrderView.outcome,
        name="getValidatedOrder",
        summary="Get the outcome of an order, waiting until it is decided",
        tag="orders",
        answers={
            200: Answer("VALIDATED, FAILED, SHIPPED or CANCELLED, with the verdicts", OrderOutcome, STALE_READ),
            504: Answer(
                "Not decided at the timeout: state and verdicts so far", UndecidedOrder, media_type=PROBLEM_JSON
            ),
        },
    ),
)
