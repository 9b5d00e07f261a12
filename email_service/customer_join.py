"""Stream-table join of due e-mails with their customers, by customer id. Pure.

An e-mail whose customer is unknown waits in a queue.
"""

from datetime import timedelta

from email_service.state import CUSTOMERS, ENQUEUED, LEGACY_QUEUES, QUEUE, AddressedEmail, Email, QueuedEmail
from runtime.model.service import Context, SideEffect
from runtime.state.queues import SLICE
from schemas.messages import Customer, CustomerLevel, OrderEnriched
from schemas.topics import BY_LEVEL, ORDERS_ENRICHED

_CUSTOMER, _DELIVER = "customer/", "deliver/"
"""Prefixes of timers: expiry of a customer's queue; delivery of a queue from a number on."""

UNKNOWN_LEVEL = "unknown level"
"""Counted event: an order of a customer with an unknown level."""
UNKNOWN_CUSTOMER = "unknown customer"
"""Counted event: an e-mail dropped because its customer did not become known in time."""


class CustomerJoin:
    """Sends e-mails to customers who are known, or become known within `window`.

    Arguments:
        window: time an e-mail waits for its customer.
        send: side effect that sends an e-mail.
        at_least_once: whether an e-mail may be repeated, and its output be lost in a crash. Then delivered e-mails stay
            in the queue until `window` has passed, and e-mails enqueued as side effects are deduplicated.
    """

    def __init__(self, window: timedelta, send: SideEffect[AddressedEmail], *, at_least_once: bool = False) -> None:
        self.window = window
        self.send = send
        self.at_least_once = at_least_once

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
        if customer is not None and (self.at_least_once or not waiting):
            self._deliver(email, customer, ctx)
            return
        until = ctx.now + self.window
        QUEUE.append(ctx, key, _queue_id(email), QueuedEmail(email=email, until=until))
        if not waiting:
            ctx.schedule(_CUSTOMER + key, until)

    def on_timer(self, timer: str, ctx: Context) -> bool:
        """Expires a queue, or delivers its next slice. Returns False for a timer of another kind."""
        if timer.startswith(_CUSTOMER):
            self._expire_queue(timer.removeprefix(_CUSTOMER), ctx)
        elif timer.startswith(_DELIVER):
            number, _, key = timer.removeprefix(_DELIVER).partition("/")
            self._deliver_queue(key, int(number), ctx)
        else:
            return False
        return True

    def _expire_queue(self, key: str, ctx: Context) -> None:
        self._migrate(key, ctx)
        known = ctx.get(CUSTOMERS, key) is not None
        if known and not self.at_least_once:
            self._deliver_queue(key, 0, ctx)
            return
        for number in QUEUE.numbers(ctx, key)[:SLICE]:
            queued = QUEUE.get(ctx, key, number)
            if queued is not None and queued.until > ctx.now:
                break
            if queued is not None and not known:  # a known customer's e-mail was delivered
                ctx.count(UNKNOWN_CUSTOMER)
            QUEUE.remove(ctx, key, number)
            QUEUE.advance(ctx, key, number + 1)
        self._schedule_expiry(key, ctx)

    def _deliver_queue(self, key: str, begin: int, ctx: Context) -> None:
        """Delivers a slice of the queue from number `begin` on, and schedules a timer for the next slice.

        Each slice has a timer of its own. At least once, a timer is cancelled only after the slice's output is durable.
        """
        customer, numbers = ctx.get(CUSTOMERS, key), QUEUE.numbers(ctx, key)
        if customer is None:  # deleted since the timer was scheduled
            self._schedule_expiry(key, ctx)
            return
        begin = max(begin, numbers.start)
        end = min(begin + SLICE, numbers.stop)
        for number in range(begin, end):
            queued = QUEUE.get(ctx, key, number)
            if queued is not None:
                self._deliver(queued.email, customer, ctx)
            if not self.at_least_once:
                QUEUE.remove(ctx, key, number)
        if not self.at_least_once:
            QUEUE.advance(ctx, key, end)
        if end < numbers.stop:
            ctx.schedule(f"{_DELIVER}{end}/{key}", ctx.now)
        elif numbers and not self.at_least_once:
            ctx.schedule(_CUSTOMER + key, None)

    def _migrate(self, key: str, ctx: Context) -> None:
        """Moves e-mails out of the single row of earlier versions.

        All at once, since the row has a megabyte at most. At least once, the row is kept as long as its e-mails wait: a
        crash may require moving them again.
        """
        row = ctx.get(LEGACY_QUEUES, key)
        if row is None:
            return
        for email, until in zip(row.emails, row.until, strict=True):
            if not self.at_least_once or until > ctx.now:
                QUEUE.append(ctx, key, _queue_id(email), QueuedEmail(email=email, until=until))
        if not self.at_least_once or max(row.until) <= ctx.now:
            ctx.delete(LEGACY_QUEUES, key)

    def _schedule_expiry(self, key: str, ctx: Context) -> None:
        """Schedules the expiry of the first e-mail in the queue."""
        for number in QUEUE.numbers(ctx, key)[:SLICE]:
            queued = QUEUE.get(ctx, key, number)
            if queued is not None:
                ctx.schedule(_CUSTOMER + key, max(queued.until, ctx.now))
                return
        if QUEUE.numbers(ctx, key):
            ctx.schedule(_CUSTOMER + key, ctx.now)

    def _deliver(self, email: Email, customer: Customer, ctx: Context) -> None:
        order = email.order
        if email.kind is None:
            enriched = OrderEnriched(id=order.id, customer_id=order.customer_id, customer_level=customer.level)
            ctx.send(ORDERS_ENRICHED, enriched)
            ctx.send(BY_LEVEL[_level(customer, ctx)], enriched)
            return
        # Deduplication loses nothing: at least once, the side effect becomes durable before the row that suppresses it.
        name = f"{order.id}/{email.kind}"
        if not self.at_least_once or ENQUEUED.is_new(ctx, name):
            ctx.enqueue(self.send, name, AddressedEmail(email=email, customer=customer))


def _queue_id(email: Email) -> str:
    return f"{email.kind or ''}/{email.order.id}"


def _level(customer: Customer, ctx: Context) -> CustomerLevel:
    try:
        return CustomerLevel(customer.level)
    except ValueError:
        ctx.count(UNKNOWN_LEVEL)
        return CustomerLevel.BRONZE
