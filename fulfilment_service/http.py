"""`GET /v1/orders/{id}/fulfilment`: progress of an order, and its missing prerequisites."""

from aiohttp import web

from fulfilment_service.processors import missing
from fulfilment_service.state import PROGRESS, Progress
from runtime.hosting import Answer, Endpoint
from runtime.http.answers import answer, existing
from runtime.http.inputs import ORDER_ID
from runtime.http.queries import row_query
from schemas.api import FulfilmentStatus
from schemas.messages import Need, OrderState


def status(order_id: str, progress: Progress, needs: tuple[Need, ...], currency: str) -> FulfilmentStatus:
    """Returns what is shown of an order. A cancelled order is not fulfilled, even if its fulfilment was sent before."""
    return FulfilmentStatus(
        order_id=order_id,
        fulfilled=progress.fulfilled and progress.state is not OrderState.CANCELLED,
        needed=needs,
        missing=missing(progress, needs, currency),
        state=progress.state,
        value=progress.value,
        currency=currency,
        paid=progress.sum(currency),
        other_currencies=progress.received.others(currency),
        ignored_payments=progress.received.ignored,
    )


def endpoints(needs: tuple[Need, ...], currency: str) -> tuple[Endpoint, ...]:
    """Returns the endpoint, for a gate with these prerequisites and this currency."""

    def answer_status(order_id: str, found: Progress | None) -> web.Response:
        progress = existing(found, f"No event of an order {order_id!r} has arrived (yet).")
        return answer(status(order_id, progress, needs, currency))

    return (
        row_query(
            "/v1/orders/{id}/fulfilment",
            PROGRESS,
            ORDER_ID,
            answer_status,
            name="getFulfilment",
            summary="Get the progress of an order and its missing prerequisites",
            tag="fulfilment",
            answers={200: Answer("The current progress", FulfilmentStatus)},
        ),
    )
