"""Stream-table join of due e-mails with their customers, by customer id. Pure.

An e-mail whose customer is unknown waits in a queue.
"""

from datetime import timedelta

from email_service.state import CUSTOMERS, ENQUEUED, LEGACY_QUEUES, QUEUE, AddressedEmail, Email, QueuedEmail
from runtime.model.service import Context, SideEffect, Timer
from runtime.state.queues import SLICE
from schemas.messages import Customer, CustomerLevel, OrderEnriched
from schemas.topics import BY_LEVEL, ORDERS_ENRICHED

UNKNOWN_LEVEL = "unknown level"
"""Counted event: an order of a customer with an unknown level."""
UNKNOWN_CUSTOMER = "unknown customer"
"""Counted event: an e-mail dropped because its customer did not become known in time."""


EVENTS = (UNKNOWN_LEVEL, UNKNOWN_CUSTOMER)
"""Events that the join counts."""


class CustomerJoin:
    """Sends e-mails to customers who are known, or become known within `window`.

    Arguments:
        window: time an e-mail waits for its customer.
        send: side effect that sends an e-mail.
    """

    def __init__(self, window: timedelta, send: SideEffect[AddressedEmail]) -> None:
        self.window = window
        self.send = send
        self._expiry = Timer("expiry of a queue", self._expire_queue, prefix="customer/", inherits=False)
        self._next_slice = Timer("next slice of a queue", self._on_next_slice, prefix="deliver/", inherits=False)
        self.timers = (self._expiry, self._next_slice)

    def on_customer(self, customer: Customer, ctx: Context) -> None:
        """Stores a customer and delivers the e-mails that wait for them."""
        key = str(customer.id)
        ctx.put(CUSTOMERS, key, customer)
        self._migrate(key, ctx)
        self._deliver_queue(key, 0, ctx)

    def on_customer_gone(self, key: str, ctx: Context) -> None:
        """Processes a tombstone: deletes the customer."""
        ctx.delete(CUSTOMERS, key)

    def on_email(self, email: Email, ctx: Context) -> None:
        """Delivers a due e-mail, or queues it until its customer is known."""
        key = str(email.order.customer_id)
        self._migrate(key, ctx)
        customer, waiting = ctx.get(CUSTOMERS, key), QUEUE.numbers(ctx, key)
        if customer is not None and not waiting:
            self._deliver(email, customer, ctx)
            return
        until = ctx.now + self.window
        QUEUE.append(ctx, key, _queue_id(email), QueuedEmail(email=email, until=until))
        if not waiting:
            ctx.schedule(self._expiry, key, until)

    def _on_next_slice(self, number_and_key: str, ctx: Context) -> None:
        number, _, key = number_and_key.partition("/")
        self._deliver_queue(key, int(number), ctx)

    def _expire_queue(self, key: str, ctx: Context) -> None:
        self._migrate(key, ctx)
        if ctx.get(CUSTOMERS, key) is not None:
            self._deliver_queue(key, 0, ctx)
            return
        for number in QUEUE.numbers(ctx, key)[:SLICE]:
            queued = QUEUE.get(ctx, key, number)
            if queued is not None and queued.until > ctx.now:
                break
            if queued is not None:
                ctx.count(UNKNOWN_CUSTOMER)
            QUEUE.remove(ctx, key, number)
            QUEUE.advance(ctx, key, number + 1)
        self._schedule_expiry(key, ctx)

    def _deliver_queue(self, key: str, begin: int, ctx: Context) -> None:
        """Delivers a slice of the queue from number `begin` on, and schedules a timer for the next slice."""
        customer, numbers = ctx.get(CUSTOMERS, key), QUEUE.numbers(ctx, key)
        if customer is None:  # deleted since the timer was scheduled
            self._schedule_expiry(key, ctx)
            return
        following = QUEUE.process_slice(ctx, key, begin, lambda queued: self._deliver(queued.email, customer, ctx))
        if following is not None:
            ctx.schedule(self._next_slice, f"{following}/{key}", ctx.now)
        elif numbers:
            ctx.schedule(self._expiry, key, None)

    def _migrate(self, key: str, ctx: Context) -> None:
        """Moves e-mails out of the single row of earlier versions.

        All at once, since the row has a megabyte at most.
        """
        row = ctx.get(LEGACY_QUEUES, key)
        if row is None:
            return
        for email, until in zip(row.emails, row.until, strict=True):
            QUEUE.append(ctx, key, _queue_id(email), QueuedEmail(email=email, until=until))
        ctx.delete(LEGACY_QUEUES, key)

    def _schedule_expiry(self, key: str, ctx: Context) -> None:
        """Schedules the expiry of the first e-mail in the queue."""
        for number in QUEUE.numbers(ctx, key)[:SLICE]:
            queued = QUEUE.get(ctx, key, number)
            if queued is not None:
                ctx.schedule(self._expiry, key, max(queued.until, ctx.now))
                return
        if QUEUE.numbers(ctx, key):
            ctx.schedule(self._expiry, key, ctx.now)

    def _deliver(self, email: Email, customer: Customer, ctx: Context) -> None:
        order = email.order
        if email.kind is None:
            enriched = OrderEnriched(id=order.id, customer_id=order.customer_id, customer_level=customer.level)
            ctx.send(ORDERS_ENRICHED, enriched)
            ctx.send(BY_LEVEL[_level(customer, ctx)], enriched)
            return
        name = order.attempt_key(f"{order.id}/{email.kind}")
        if ENQUEUED.is_new(ctx, name):
            ctx.enqueue(self.send, name, AddressedEmail(email=email, customer=customer))


def _queue_id(email: Email) -> str:
    return email.order.attempt_key(f"{email.kind or ''}/{email.order.id}")


def _level(customer: Customer, ctx: Context) -> CustomerLevel:
    try:
        return CustomerLevel(customer.level)
    except ValueError:
        ctx.count(UNKNOWN_LEVEL)
        return CustomerLevel.BRONZE
