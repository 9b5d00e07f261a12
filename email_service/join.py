"""Orders joined with their payments, by order id: which letters are due. Pure."""

from datetime import timedelta

from email_service.state import JOINS, Join, Kind, Letter
from runtime.service import Context
from schemas.messages import Order, OrderState, Payment
from schemas.topics import DAY, PAYMENTS, Topic, repartition

PAYMENTS_BY_ORDER = repartition("email", PAYMENTS, "order", lambda p: p.order_id)
LETTERS_BY_CUSTOMER = Topic(
    "email-letters-by-customer", Letter, lambda letter: str(letter.order.customer_id), "email", DAY, internal=True
)


def route(payment: Payment, ctx: Context) -> None:
    """Takes a payment to where its order is."""
    ctx.send(PAYMENTS_BY_ORDER, payment)


class Joining:
    """Joins an order with its payment if they come within `window` of each other, whichever comes first."""

    def __init__(self, window: timedelta) -> None:
        self.window = window

    def on_order(self, order: Order, ctx: Context) -> None:
        """An order as it was decided or shipped. What was told once is not told again."""
        if order.state is OrderState.CREATED:
            return
        join = _join(order.id, ctx)
        if order.state is OrderState.FAILED:
            join = _tell(Kind.FAILED, order, join, ctx)
        elif order.state is OrderState.SHIPPED:
            join = _tell(Kind.SHIPPED, order, join, ctx)
        elif join.validated_at is None:
            join = join.model_copy(update={"order": order, "validated_at": ctx.time})
            ctx.send(LETTERS_BY_CUSTOMER, Letter(kind=None, order=order))
            join = self._meet(join, ctx)
        ctx.put(JOINS.rows, order.id, join)

    def on_payment(self, payment: Payment, ctx: Context) -> None:
        """A payment. Of several the last one counts, until one has met its order."""
        join = _join(payment.order_id, ctx)
        if Kind.VALIDATED not in join.told:
            join = self._meet(join.model_copy(update={"payment": payment, "paid_at": ctx.time}), ctx)
        ctx.put(JOINS.rows, payment.order_id, join)

    def _meet(self, join: Join, ctx: Context) -> Join:
        if join.order is None or join.validated_at is None or join.payment is None or join.paid_at is None:
            return join
        if abs(join.validated_at - join.paid_at) > self.window:
            return join
        return _tell(Kind.VALIDATED, join.order, join, ctx, join.payment)


def _join(order_id: str, ctx: Context) -> Join:
    return JOINS.get(ctx, order_id) or JOINS.remember(ctx, order_id, Join())


def _tell(kind: Kind, order: Order, join: Join, ctx: Context, payment: Payment | None = None) -> Join:
    if kind in join.told:
        return join
    ctx.send(LETTERS_BY_CUSTOMER, Letter(kind=kind, order=order, payment=payment))
    return join.model_copy(update={"told": (*join.told, kind)})
