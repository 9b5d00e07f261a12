"""Fraud check: an order fails if the total of its customer's session reaches the limit. Pure.

Every order counts into its session once, failed ones too. Rows are bounded in size. A customer is deleted with the last
of their past verdicts, so an order replayed after `ttl_table.TTL` counts again, into the session of its own time.
"""

from datetime import timedelta
from decimal import Decimal

from runtime.model.service import Context
from runtime.state.sessions import add_to_session
from runtime.validator import verdict_key
from schemas.messages import FIRST_ATTEMPT, Order
from schemas.money import plain_amount
from schemas.sessions import session_value
from validators.fraud.state import CUSTOMERS, VERDICTS, Customer, VerdictRow

SESSIONS_KEPT = 24
"""Sessions kept per customer. With a gap of an hour, an order up to a day late finds its session."""


class FraudCheck:
    """Checks the orders of each customer.

    Arguments:
        gap: inactivity that ends a session, in event time.
        limit: session total at which orders fail.
        currency: currency of the limit and the orders.
    """

    def __init__(self, gap: timedelta, limit: Decimal, currency: str = "EUR") -> None:
        self.gap = gap
        self.limit = limit
        self.currency = currency

    def judge(self, order: Order, ctx: Context) -> VerdictRow:
        """Adds an order to its session, and returns the verdict.

        A later attempt to decide an order is judged by the session as it is now.
        """
        key, value = str(order.customer_id), session_value(order)
        customer = ctx.get(CUSTOMERS, key)
        if order.attempt_number > FIRST_ATTEMPT and VERDICTS.get(ctx, order.id) is not None:
            value = Decimal()  # counted already
        session, sessions = add_to_session(customer.sessions if customer else (), order.created_at, value, self.gap)
        failure = None
        if session.total >= self.limit:
            total, limit = (plain_amount(amount, self.currency) for amount in (session.total, self.limit))
            failure = f"the customer's orders of this session come to {total}, the limit is {limit}"
        ctx.put(CUSTOMERS, key, Customer(sessions=tuple(sessions[-SESSIONS_KEPT:]), last_order=verdict_key(order)))
        return VerdictRow(customer=key, refusal=failure)


def delete_inactive_customer(key: str, past: VerdictRow, ctx: Context) -> None:
    """Deletes the customer of an expired verdict unless they have a later order."""
    customer = ctx.get(CUSTOMERS, past.customer)
    if customer is not None and customer.last_order == key:
        ctx.delete(CUSTOMERS, past.customer)
