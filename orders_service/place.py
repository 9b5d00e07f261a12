"""Placing an order: the first of an id is written, what comes under that id later is compared with it. Pure."""

from orders_service.state import ORDERS_VIEW
from runtime.service import Context
from schemas.messages import Order
from schemas.topics import ORDERS


def place(order: Order, ctx: Context) -> Order | None:
    """Writes the order and returns `None`; or returns the one that is known under its id, and writes nothing."""
    view = ctx.get(ORDERS_VIEW, order.id)
    if view is not None and view.order is not None:
        return view.order
    ctx.send(ORDERS, order)
    return None
