"""Letters joined with their customers, by customer id: who they go to, and who is waited for. Pure."""

from datetime import timedelta

from email_service.state import CUSTOMERS, JOINS, SENT, WAITING, Addressed, Letter, Waiting
from runtime.service import Context, Effect
from schemas.messages import Customer, CustomerLevel, OrderEnriched
from schemas.topics import BY_LEVEL, ORDERS_ENRICHED

_CUSTOMER = "customer/"
"""What timers of customers start with: those of the joins' memory are numbers of hours."""

UNKNOWN_LEVEL = "unknown level"
"""Counted: an order of a customer whose level is none that exists."""
UNKNOWN_CUSTOMER = "unknown customer"
"""Counted: a letter given up, for its customer did not become known in time."""


class Addressing:
    """Sends letters to customers who are known, or become known within `window`.

    Arguments:
        window: how long a letter waits for its customer.
        send: the effect that sends one.
        repeats: whether letters may come again, and what was announced of them be missing (at least once): those that
            waited are kept as long as they would have waited, and one that has gone out is remembered.
    """

    def __init__(self, window: timedelta, send: Effect[Addressed], *, repeats: bool = False) -> None:
        self.window = window
        self.send = send
        self.repeats = repeats

    def on_customer(self, customer: Customer, ctx: Context) -> None:
        """A customer, new or changed: what waits for them goes out."""
        key = str(customer.id)
        ctx.put(CUSTOMERS, key, customer)
        waiting = ctx.get(WAITING, key)
        if waiting is not None:
            if not self.repeats:
                ctx.delete(WAITING, key)
                ctx.wake(_CUSTOMER + key, None)
            for letter in waiting.letters:
                self._deliver(letter, customer, ctx)

    def on_customer_gone(self, key: str, ctx: Context) -> None:
        """A tombstone: the customer is to be forgotten."""
        ctx.delete(CUSTOMERS, key)

    def on_letter(self, letter: Letter, ctx: Context) -> None:
        """A letter that is due."""
        key = str(letter.order.customer_id)
        customer = ctx.get(CUSTOMERS, key)
        if customer is not None:
            self._deliver(letter, customer, ctx)
            return
        waiting = ctx.get(WAITING, key) or Waiting(letters=(), until=())
        if letter in waiting.letters:
            return
        waiting = Waiting(letters=(*waiting.letters, letter), until=(*waiting.until, ctx.now + self.window))
        ctx.put(WAITING, key, waiting)
        ctx.wake(_CUSTOMER + key, min(waiting.until))

    def on_wake(self, timer: str, ctx: Context) -> None:
        """Letters have waited long enough for a customer; or an hour's joins are to be forgotten."""
        if not timer.startswith(_CUSTOMER):
            JOINS.forget(timer, ctx)
            if self.repeats:
                SENT.forget(timer, ctx)
            return
        key = timer.removeprefix(_CUSTOMER)
        waiting = ctx.get(WAITING, key)
        if waiting is None:
            return
        left = [(x, until) for x, until in zip(waiting.letters, waiting.until, strict=True) if until > ctx.now]
        if ctx.get(CUSTOMERS, key) is None:  # else they have gone out
            for _ in range(len(waiting.letters) - len(left)):
                ctx.count(UNKNOWN_CUSTOMER)
        if not left:
            ctx.delete(WAITING, key)
            return
        letters, until = zip(*left, strict=True)
        ctx.put(WAITING, key, Waiting(letters=letters, until=until))
        ctx.wake(timer, min(until))

    def _deliver(self, letter: Letter, customer: Customer, ctx: Context) -> None:
        order = letter.order
        if letter.kind is None:
            enriched = OrderEnriched(id=order.id, customer_id=order.customer_id, customer_level=customer.level)
            ctx.send(ORDERS_ENRICHED, enriched)
            ctx.send(BY_LEVEL[_level(customer, ctx)], enriched)
            return
        # Nothing is lost by that memory: at least once, the wish to send is durable before it.
        name = f"{order.id}/{letter.kind}"
        if not self.repeats or SENT.first(ctx, name):
            ctx.perform(self.send, name, Addressed(letter=letter, customer=customer))


def _level(customer: Customer, ctx: Context) -> CustomerLevel:
    try:
        return CustomerLevel(customer.level)
    except ValueError:
        ctx.count(UNKNOWN_LEVEL)
        return CustomerLevel.BRONZE
