"""Letters joined with their customers, by customer id: who they go to, and who is waited for. Pure."""

from datetime import timedelta

from email_service.state import CUSTOMERS, QUEUE, SENT, WAITING, AddressedEmail, Email, Queued
from runtime.model.service import Context, SideEffect
from runtime.state.queues import SLICE
from schemas.messages import Customer, CustomerLevel, OrderEnriched
from schemas.topics import BY_LEVEL, ORDERS_ENRICHED

_CUSTOMER, _DELIVER = "customer/", "deliver/"
"""What timers start with: of customers who are waited for, of queues that are being delivered, from a number on."""

UNKNOWN_LEVEL = "unknown level"
"""Counted: an order of a customer whose level is none that exists."""
UNKNOWN_CUSTOMER = "unknown customer"
"""Counted: a letter given up, for its customer did not become known in time."""


class CustomerJoin:
    """Sends letters to customers who are known, or become known within `window`.

    Arguments:
        window: how long a letter waits for its customer.
        send: the effect that sends one.
        repeats: whether letters may come again, and what was announced of them be missing (at least once): those that
            waited are kept as long as they would have waited, and one that has gone out is remembered.
    """

    def __init__(self, window: timedelta, send: SideEffect[AddressedEmail], *, repeats: bool = False) -> None:
        self.window = window
        self.send = send
        self.repeats = repeats

    def on_customer(self, customer: Customer, ctx: Context) -> None:
        """A customer, new or changed: what waits for them goes out."""
        key = str(customer.id)
        ctx.put(CUSTOMERS, key, customer)
        self._migrate(key, ctx)
        self._deliver_queue(key, 0, ctx)

    def on_customer_gone(self, key: str, ctx: Context) -> None:
        """A tombstone: the customer is to be forgotten."""
        ctx.delete(CUSTOMERS, key)

    def on_letter(self, letter: Email, ctx: Context) -> None:
        """A letter that is due."""
        key = str(letter.order.customer_id)
        self._migrate(key, ctx)
        customer, waiting = ctx.get(CUSTOMERS, key), QUEUE.numbers(ctx, key)
        if customer is not None and (self.repeats or not waiting):
            self._deliver(letter, customer, ctx)
            return
        until = ctx.now + self.window
        QUEUE.append(ctx, key, _id(letter), Queued(letter=letter, until=until))  # behind those that go out, perhaps
        if not waiting:
            ctx.schedule(_CUSTOMER + key, until)

    def on_timer(self, timer: str, ctx: Context) -> bool:
        """Letters have waited long enough for a customer, or more of them go out. Returns whether it was about that."""
        if timer.startswith(_CUSTOMER):
            self._give_up(timer.removeprefix(_CUSTOMER), ctx)
        elif timer.startswith(_DELIVER):
            number, _, key = timer.removeprefix(_DELIVER).partition("/")
            self._deliver_queue(key, int(number), ctx)
        else:
            return False
        return True

    def _give_up(self, key: str, ctx: Context) -> None:
        self._migrate(key, ctx)
        known = ctx.get(CUSTOMERS, key) is not None
        if known and not self.repeats:
            self._deliver_queue(key, 0, ctx)
            return
        for number in QUEUE.numbers(ctx, key)[:SLICE]:
            queued = QUEUE.get(ctx, key, number)
            if queued is not None and queued.until > ctx.now:
                break
            if queued is not None and not known:  # else it has gone out
                ctx.count(UNKNOWN_CUSTOMER)
            QUEUE.remove(ctx, key, number)
            QUEUE.advance(ctx, key, number + 1)
        self._wait(key, ctx)

    def _deliver_queue(self, key: str, begin: int, ctx: Context) -> None:
        """Sends the letters of a slice of the queue, from a number on, and asks to be woken for the next one.

        Each slice has a timer of its own: at least once, one is withdrawn after all that it had sent is durable.
        """
        customer, numbers = ctx.get(CUSTOMERS, key), QUEUE.numbers(ctx, key)
        if customer is None:  # deleted meanwhile
            self._wait(key, ctx)
            return
        begin = max(begin, numbers.start)
        end = min(begin + SLICE, numbers.stop)
        for number in range(begin, end):
            queued = QUEUE.get(ctx, key, number)
            if queued is not None:
                self._deliver(queued.letter, customer, ctx)
            if not self.repeats:
                QUEUE.remove(ctx, key, number)
        if not self.repeats:
            QUEUE.advance(ctx, key, end)
        if end < numbers.stop:
            ctx.schedule(f"{_DELIVER}{end}/{key}", ctx.now)
        elif numbers and not self.repeats:
            ctx.schedule(_CUSTOMER + key, None)

    def _migrate(self, key: str, ctx: Context) -> None:
        """Moves letters from the one row that earlier versions kept, which the broker took: it has a megabyte at most.

        At least once, the row goes no earlier than its letters: they may have to be moved again.
        """
        row = ctx.get(WAITING, key)
        if row is None:
            return
        for letter, until in zip(row.letters, row.until, strict=True):
            if not self.repeats or until > ctx.now:
                QUEUE.append(ctx, key, _id(letter), Queued(letter=letter, until=until))
        if not self.repeats or max(row.until) <= ctx.now:
            ctx.delete(WAITING, key)

    def _wait(self, key: str, ctx: Context) -> None:
        """Asks to be woken when the first letter of the queue has waited long enough."""
        for number in QUEUE.numbers(ctx, key)[:SLICE]:
            queued = QUEUE.get(ctx, key, number)
            if queued is not None:
                ctx.schedule(_CUSTOMER + key, max(queued.until, ctx.now))
                return
        if QUEUE.numbers(ctx, key):
            ctx.schedule(_CUSTOMER + key, ctx.now)

    def _deliver(self, letter: Email, customer: Customer, ctx: Context) -> None:
        order = letter.order
        if letter.kind is None:
            enriched = OrderEnriched(id=order.id, customer_id=order.customer_id, customer_level=customer.level)
            ctx.send(ORDERS_ENRICHED, enriched)
            ctx.send(BY_LEVEL[_level(customer, ctx)], enriched)
            return
        # Nothing is lost by that memory: at least once, the wish to send is durable before it.
        name = f"{order.id}/{letter.kind}"
        if not self.repeats or SENT.first(ctx, name):
            ctx.enqueue(self.send, name, AddressedEmail(letter=letter, customer=customer))


def _id(letter: Email) -> str:
    return f"{letter.kind or ''}/{letter.order.id}"


def _level(customer: Customer, ctx: Context) -> CustomerLevel:
    try:
        return CustomerLevel(customer.level)
    except ValueError:
        ctx.count(UNKNOWN_LEVEL)
        return CustomerLevel.BRONZE
