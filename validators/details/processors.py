"""Details check: all fields must be valid, and the product must exist and be on offer. Pure."""

from runtime.model.service import Context
from schemas.messages import BuiltInCheck, Order, OrderState
from schemas.topics import ORDER_VALIDATIONS, ORDERS, repartition
from validators.details.settings import UnknownProducts
from validators.details.state import OFFERS, VERDICTS, VerdictRow
from validators.offers import Offer
from validators.verdict import verdict

ORDERS_BY_PRODUCT = repartition("details", ORDERS, "product", lambda o: o.product)


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


def check_fields(order: Order, ctx: Context) -> None:
    """Fails a new order with invalid fields, and repartitions any other new order by product."""
    if order.state is not OrderState.CREATED:
        return
    failure = failure_reason(order)
    if failure is None:
        ctx.send(ORDERS_BY_PRODUCT, order)
    else:
        _send_verdict(order, failure, ctx)


class DetailsCheck:
    """Checks orders against their products.

    Arguments:
        unknown: verdict on a product that was never announced.
    """

    def __init__(self, unknown: UnknownProducts) -> None:
        self.unknown = unknown

    def on_order(self, order: Order, ctx: Context) -> None:
        """Gives the verdict on an order.

        A replayed order gets its first verdict: the product may have changed since.
        """
        past = VERDICTS.get(ctx, order.id)
        if past is None:
            failure = self.failure_reason(order, OFFERS.get(ctx, order.product))
            past = VERDICTS.add(ctx, order.id, VerdictRow(refusal=failure))
        _send_verdict(order, past.refusal, ctx)

    def failure_reason(self, order: Order, offer: Offer | None) -> str | None:
        """Why the product cannot be ordered; `None` if it can."""
        if offer is not None:
            return f"product {order.product!r} was withdrawn" if offer.withdrawn else None
        return f"there is no product {order.product!r}" if self.unknown is UnknownProducts.FAIL else None


def _send_verdict(order: Order, failure: str | None, ctx: Context) -> None:
    ctx.send(ORDER_VALIDATIONS, verdict(order.id, BuiltInCheck.ORDER_DETAILS_CHECK, failure))
