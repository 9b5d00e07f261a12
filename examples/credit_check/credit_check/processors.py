"""The rule of CREDIT_CHECK. Pure."""

from decimal import Decimal

from runtime.model.service import Context
from schemas.messages import Order
from schemas.money import format_amount


def judge(order: Order, ctx: Context, limit: Decimal, currency: str) -> str | None:
    """Returns why the order fails; `None` if it passes."""
    value = order.quantity * order.price
    if value <= limit:
        return None
    amount, bound = (format_amount(number, currency) for number in (value, limit))
    return f"the order comes to {amount}, the customer's credit limit is {bound}"
