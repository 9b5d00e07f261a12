"""The order in itself: is everything there, and does it make sense?"""

from runtime.service import Context
from schemas.messages import CheckType, Order, OrderState
from schemas.topics import ORDER_VALIDATIONS
from validators.verdict import verdict


def refusal(order: Order) -> str | None:
    """All that is wrong with the order, field by field; `None` when nothing is."""
    faults = []
    if order.quantity <= 0:
        faults.append(f"quantity must be above 0, is {order.quantity}")
    if not order.price.is_finite() or order.price < 0:
        faults.append(f"price must be 0 or more, is {order.price}")
    if not order.product.strip():
        faults.append("product is missing")
    if order.customer_id < 0:
        faults.append(f"customerId must name a customer (0 or more), is {order.customer_id}")
    return "; ".join(faults) or None


def on_order(order: Order, ctx: Context) -> None:
    """Judges an order when it comes. The same order gets the same verdict, however often."""
    if order.state is OrderState.CREATED:
        ctx.send(ORDER_VALIDATIONS, verdict(order.id, CheckType.ORDER_DETAILS_CHECK, refusal(order)))
