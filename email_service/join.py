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
    """Joins an order with its payment if they come within `window` of each other, whichever comes first.

    Arguments:
        window: as far apart as they may be.
        repeats: whether what was told is told again when what led to it is seen again: at least once, a crash may have
            come between the row that says so and the letter.
    """

    def __init__(self, window: timedelta, *, repeats: bool = False) -> None:
        self.window = window
        self.repeats = repeats

    def on_order(self, order: Order, ctx: Context) -> None:
        """An order as it was decided or shipped. What was told once is not told again."""
        if order.state is OrderState.CREATED:
            return
        join = _join(order.id, ctx)
        if order.state is OrderState.FAILED:
            join = self._tell(Kind.FAILED, order, join, ctx)
        elif order.state is OrderState.SHIPPED:
            join = self._tell(Kind.SHIPPED, order, join, ctx)
        elif join.validated_at is None or self.repeats:
            if join.validated_at is None:
                join = join.model_copy(update={"order": order, "validated_at": ctx.time})
            ctx.send(LETTERS_BY_CUSTOMER, Letter(kind=None, order=order))
            join = self._meet(join, ctx)
        ctx.put(JOINS.rows, order.id, join)

    def on_payment(self, payment: Payment, ctx: Context) -> None:
        """A payment. Of several the last one counts, until one has met its order."""
        join = _join(payment.order_id, ctx)
        if Kind.VALIDATED not in join.told:
            join = self._meet(join.model_copy(update={"payment": payment, "paid_at": ctx.time}), ctx)
        elif self.repeats and payment == join.payment:
            join = self._meet(join, ctx)
        ctx.put(JOINS.rows, payment.order_id, join)

    def _meet(self, join: Join, ctx: Context) -> Join:
        if join.order is None or join.validated_at is None or join.payment is None or join.paid_at is None:
            return join
        if abs(join.validated_at - join.paid_at) > self.window:
            return join
        return self._tell(Kind.VALIDATED, join.order, join, ctx, join.payment)

    def _tell(self, kind: Kind, order: Order, join: Join, ctx: Context, payment: Payment | None = None) -> Join:
        if kind in join.told and not self.repeats:
            return join
        ctx.send(LETTERS_BY_CUSTOMER, Letter(kind=kind, order=order, payment=payment))
        return join if kind in join.told else join.model_copy(update={"told": (*join.told, kind)})


def _join(order_id: str, ctx: Context) -> Join:
    return JOINS.get(ctx, order_id) or JOINS.remember(ctx, order_id, Join())
