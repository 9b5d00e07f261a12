"""Sends a FAILED order again, to be decided anew. Pure."""

from collections.abc import Mapping
from datetime import datetime

from ecosystem.replay.records import Resubmission
from schemas.messages import Order, OrderState

_OBSTACLES: Mapping[str, str] = {
    OrderState.CREATED: "CREATED: it is not decided yet",
    OrderState.VALIDATED: "VALIDATED: cancel it instead, as it has a reservation, payments and e-mails",
    OrderState.SHIPPED: "SHIPPED: it is final",
    OrderState.CANCELLED: "CANCELLED: it is final; post a new order",
}


def obstacle(state: str | None) -> str:
    """Why an order in a state is not decided anew."""
    return _OBSTACLES.get(state or "", "has no state: its order is not in the history")


def redecided(created: Resubmission, attempt: int, at: datetime) -> Resubmission | None:
    """The order as a new attempt: CREATED, without reasons, produced now. `None` if its record cannot be read."""
    try:
        order = Order.from_json(created.value or b"")
    except ValueError:
        return None
    again = order.model_copy(update={"state": OrderState.CREATED, "reasons": None, "attempt": attempt})
    return created._replace(value=again.to_json(), timestamp_ms=round(at.timestamp() * 1000))
