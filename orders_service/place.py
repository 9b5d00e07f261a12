"""Places orders: the first order of an id is written, later ones are compared with it. Pure."""

from orders_service.state import ORDERS_VIEW
from runtime.model.service import Context
from schemas.messages import Order, OrderState
from schemas.topics import ORDERS


def place(order: Order, ctx: Context, *, at_least_once: bool = False) -> Order | None:
    """Sends the order and returns `None`, or returns the existing order of this id and sends nothing.

    With `at_least_once` an equal order is sent again in state CREATED: a crash may have separated its row in the view
    from its message, and then no log contains the order.
    """
    view = ctx.get(ORDERS_VIEW, order.id)
    if view is None or view.order is None:
        ctx.send(ORDERS, order)
        return None
    if at_least_once and view.order.same_content(order):
        ctx.send(ORDERS, view.order.model_copy(update={"state": OrderState.CREATED}))
    return view.order
