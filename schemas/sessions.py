"""What an order adds to the session of its customer: the one definition, for the fraud check and its explanation."""

from decimal import Decimal

from schemas.messages import Order


def session_value(order: Order) -> Decimal:
    """Value an order adds to its session. Never negative, or a negative order would lower the total."""
    return max(order.quantity, 0) * max(order.price, Decimal(0))
