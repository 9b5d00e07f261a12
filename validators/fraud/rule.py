"""Fraud: an order fails when it brings what its customer orders in one session to the limit, or finds it there.

Every order counts into its session, failed ones too. A row has a bounded size and is forgotten in time, a customer with
the last of the orders that are remembered: only an order repeated after `memory.KEPT` counts anew, into the session of
its own time.
"""

from datetime import timedelta
from decimal import Decimal

from runtime.model.service import Context
from schemas.messages import CheckType, Order, OrderState
from schemas.money import plain_amount
from schemas.topics import ORDER_VALIDATIONS, ORDERS, repartition
from validators.fraud.sessions import join
from validators.fraud.state import CUSTOMERS, JUDGED, Customer, Judged
from validators.verdict import verdict

ORDERS_BY_CUSTOMER = repartition("fraud", ORDERS, "customer", lambda o: str(o.customer_id))

SESSIONS_KEPT = 24
"""Sessions of one customer, the latest: with a gap of an hour, orders may be a day late and find theirs."""


def worth(order: Order) -> Decimal:
    """What an order adds to its session: never less than nothing, or a negative one would make room for others."""
    return max(order.quantity, 0) * max(order.price, Decimal(0))


def route(order: Order, ctx: Context) -> None:
    """Takes an order to where its customer's sessions are."""
    if order.state is OrderState.CREATED:
        ctx.send(ORDERS_BY_CUSTOMER, order)


class FraudCheck:
    """Judges the orders of each customer.

    Arguments:
        gap: silence, in the time of the orders, that ends a session.
        limit: total at which a session's orders fail.
        currency: of both.
    """

    def __init__(self, gap: timedelta, limit: Decimal, currency: str = "EUR") -> None:
        self.gap = gap
        self.limit = limit
        self.currency = currency

    def on_order(self, order: Order, ctx: Context) -> None:
        """Judges an order, or repeats what was said of it when it was first seen."""
        judged = JUDGED.get(ctx, order.id) or self._judge(order, ctx)
        ctx.send(ORDER_VALIDATIONS, verdict(order.id, CheckType.FRAUD_CHECK, judged.refusal))

    def _judge(self, order: Order, ctx: Context) -> Judged:
        key = str(order.customer_id)
        customer = ctx.get(CUSTOMERS, key)
        session, sessions = join(customer.sessions if customer else (), order.created_at, worth(order), self.gap)
        refusal = None
        if session.total >= self.limit:
            total, limit = (plain_amount(amount, self.currency) for amount in (session.total, self.limit))
            refusal = f"the customer's orders of this session come to {total}, the limit is {limit}"
        ctx.put(CUSTOMERS, key, Customer(sessions=tuple(sessions[-SESSIONS_KEPT:]), last_order=order.id))
        return JUDGED.remember(ctx, order.id, Judged(customer=key, refusal=refusal))

    def on_timer(self, hour: str, ctx: Context) -> None:
        """Forgets the verdicts of an hour, and every customer who has ordered nothing since."""
        for order_id, judged in JUDGED.forget(hour, ctx):
            customer = ctx.get(CUSTOMERS, judged.customer)
            if customer is not None and customer.last_order == order_id:
                ctx.delete(CUSTOMERS, judged.customer)
