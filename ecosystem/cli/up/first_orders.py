"""Reports the first order that is shipped and the first that fails, once their e-mails are delivered."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.message import Message
from pathlib import Path
from queue import SimpleQueue

from ecosystem.clients.api import OrdersApi, RequestRejected, Unreachable
from email_service.emails import message_id
from email_service.state import EmailKind
from schemas.messages import Order, OrderState

_ATTEMPTS = 50
"""Attempts to look up an order, one at each `FirstOrders.report`."""
_FINAL_STATES = {EmailKind.SHIPPED: OrderState.SHIPPED, EmailKind.FAILED: OrderState.FAILED}


@dataclass(frozen=True, slots=True)
class _Email:
    order_id: str
    state: OrderState
    path: Path
    attempts_left: int


class FirstOrders:
    """Collects the first e-mail about each final state, and reports the order of each.

    Arguments:
        url: base URL of the orders service.
        print_line: prints a line.
    """

    def __init__(self, url: str, print_line: Callable[[str], None]) -> None:
        self._url = url
        self._print_line = print_line
        self._seen: set[OrderState] = set()
        self._emails = SimpleQueue[_Email]()

    def on_delivered(self, email: Message, path: Path) -> None:
        """Collects a delivered e-mail. Called in the thread of the mail server."""
        state = _state_of(email)
        if state is not None and state not in self._seen:
            self._seen.add(state)
            self._emails.put(_Email(email["X-Order-Id"], state, path, _ATTEMPTS))

    def report(self) -> None:
        """Reports collected orders. An order that cannot be looked up is retried, then dropped for the next e-mail."""
        for _ in range(self._emails.qsize()):
            email = self._emails.get()
            order = asyncio.run(_look_up(self._url, email.order_id))
            if order is not None and order.state is email.state:
                self._print_line(_line(order, email.path))
            elif email.attempts_left > 1:
                self._emails.put(replace(email, attempts_left=email.attempts_left - 1))
            else:
                self._seen.discard(email.state)


def _state_of(email: Message) -> OrderState | None:
    order_id, own_id = email["X-Order-Id"], str(email["Message-ID"])
    domain = own_id.strip("<> ").rpartition("@")[2]
    return next((state for kind, state in _FINAL_STATES.items() if message_id(order_id, kind, domain) == own_id), None)


async def _look_up(url: str, order_id: str) -> Order | None:
    async with OrdersApi(url) as api:
        try:
            return await api.get(order_id, 0)
        except (RequestRejected, Unreachable):
            return None


def _line(order: Order, email: Path) -> str:
    reasons = f" ({'; '.join(order.reasons)})" if order.reasons else ""
    what = f"{order.quantity} × {order.product} for customer {order.customer_id}"
    return f"The first order is {order.state}{reasons}: {order.id}, {what}. Its e-mail: {email}"
