"""Details check: all fields must be valid, the product on offer, and the price that of the product. Pure."""

from datetime import timedelta

from runtime.model.service import Context
from schemas.messages import Order
from schemas.money import format_amount
from validators.details.settings import DetailsSettings, OrderPrices, UnknownProducts
from validators.details.state import OFFERS, PricedOffer


def failure_reason(order: Order) -> str | None:
    """Lists all invalid fields of an order; `None` if there are none."""
    errors = []
    if order.quantity <= 0:
        errors.append(f"quantity must be above 0, is {order.quantity}")
    if not order.price.is_finite() or order.price < 0:
        errors.append(f"price must be 0 or more, is {order.price}")
    if not order.product.strip():
        errors.append("product is missing")
    if order.customer_id < 0:
        errors.append(f"customerId must name a customer (0 or more), is {order.customer_id}")
    return "; ".join(errors) or None


class DetailsCheck:
    """Checks orders against their products."""

    def __init__(self, settings: DetailsSettings) -> None:
        self._settings = settings
        self._grace = timedelta(seconds=settings.price_grace_s)

    def judge(self, order: Order, ctx: Context) -> str | None:
        """Why the product cannot be ordered, or not at this price; `None` if it can."""
        offer = OFFERS.get(ctx, order.product)
        if offer is None:
            fails = self._settings.unknown_products is UnknownProducts.FAIL
            return f"there is no product {order.product!r}" if fails else None
        if offer.withdrawn:
            return f"product {order.product!r} was withdrawn"
        return self._price_failure(order, offer) if self._settings.order_prices is OrderPrices.CATALOGUE else None

    def _price_failure(self, order: Order, offer: PricedOffer) -> str | None:
        right, *others = offer.prices_at(order.created_at, self._grace)
        if right is None or None in others or order.price in {right, *others}:
            return None
        price, expected = (format_amount(amount, self._settings.currency) for amount in (order.price, right))
        return f"price is {price}, the price of {order.product!r} is {expected}"
