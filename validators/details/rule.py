"""The order in itself: is everything there, does it make sense, and is there such a product?"""

from runtime.common.settings import UnknownProducts
from runtime.model.service import Context
from schemas.messages import CheckType, Order, OrderState
from schemas.topics import ORDER_VALIDATIONS, ORDERS, repartition
from validators.details.state import JUDGED, OFFERS, Judged
from validators.offers import Offer
from validators.verdict import verdict

ORDERS_BY_PRODUCT = repartition("details", ORDERS, "product", lambda o: o.product)


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


def route(order: Order, ctx: Context) -> None:
    """Judges an order that is wrong in itself, and takes any other to where its product is known."""
    if order.state is not OrderState.CREATED:
        return
    refused = refusal(order)
    if refused is None:
        ctx.send(ORDERS_BY_PRODUCT, order)
    else:
        _say(order, refused, ctx)


class DetailsCheck:
    """Judges orders by their products.

    Arguments:
        unknown: what is said of a product that was never announced.
    """

    def __init__(self, unknown: UnknownProducts) -> None:
        self.unknown = unknown

    def on_order(self, order: Order, ctx: Context) -> None:
        """Judges an order, or repeats what was said when it was first seen: the product may have changed since."""
        judged = JUDGED.get(ctx, order.id)
        if judged is None:
            refused = self.refusal(order, OFFERS.get(ctx, order.product))
            judged = JUDGED.remember(ctx, order.id, Judged(refusal=refused))
        _say(order, judged.refusal, ctx)

    def refusal(self, order: Order, offer: Offer | None) -> str | None:
        """Why the product cannot be ordered; `None` when it can."""
        if offer is not None:
            return f"product {order.product!r} was withdrawn" if offer.withdrawn else None
        return f"there is no product {order.product!r}" if self.unknown is UnknownProducts.FAIL else None


def on_timer(hour: str, ctx: Context) -> None:
    """Forgets the verdicts of an hour long past."""
    JUDGED.forget(hour, ctx)


def _say(order: Order, refused: str | None, ctx: Context) -> None:
    ctx.send(ORDER_VALIDATIONS, verdict(order.id, CheckType.ORDER_DETAILS_CHECK, refused))
