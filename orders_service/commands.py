"""Places orders: the first order of an id is written, later ones are compared with it. Pure."""

from orders_service.state import ORDERS_VIEW
from runtime.model.service import Context
from schemas.messages import Order
from schemas.topics import ORDERS


def place(order: Order, ctx: Context) -> Order | None:
    """Sends the order and returns `None`, or returns the existing order of this id and sends nothing."""
    view = ctx.get(ORDERS_VIEW, order.id)
    if view is None or view.order is None:
        ctx.send(ORDERS, order)
        return None
    return view.order
