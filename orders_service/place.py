"""Placing an order: the first of an id is written, what comes under that id later is compared with it. Pure."""

from orders_service.state import ORDERS_VIEW
from runtime.model.service import Context
from schemas.messages import Order, OrderState
from schemas.topics import ORDERS


def place(order: Order, ctx: Context, *, repeats: bool = False) -> Order | None:
    """Writes the order and returns `None`; or returns the one that is known under its id, and writes nothing.

    With `repeats` the same order is written again as it was made. At least once, a crash may have come between its view
    and its message: then nobody else has heard of it, and no log holds it for anybody to decide again.
    """
    view = ctx.get(ORDERS_VIEW, order.id)
    if view is None or view.order is None:
        ctx.send(ORDERS, order)
        return None
    if repeats and view.order.same_content(order):
        ctx.send(ORDERS, view.order.model_copy(update={"state": OrderState.CREATED}))
    return view.order
