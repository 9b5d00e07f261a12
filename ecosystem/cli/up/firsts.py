"""The first order that is shipped, and the first that fails: told as soon as its letter has come."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from email.message import Message
from pathlib import Path
from queue import SimpleQueue

from ecosystem.clients.api import OrdersApi, RequestRejected, Unreachable
from email_service.compose import message_id
from email_service.state import EmailKind
from schemas.messages import Order, OrderState

_TRIES = 50
_ENDS = {EmailKind.SHIPPED: OrderState.SHIPPED, EmailKind.FAILED: OrderState.FAILED}


@dataclass(frozen=True, slots=True)
class _Letter:
    order_id: str
    state: OrderState
    path: Path
    tries: int


class Firsts:
    """Remembers the first letter of each kind that tells an end, then says what became of its order.

    Arguments:
        url: of the orders service, which is asked.
        say: told one line for each.
    """

    def __init__(self, url: str, say: Callable[[str], None]) -> None:
        self._url = url
        self._say = say
        self._seen: set[OrderState] = set()
        self._letters = SimpleQueue[_Letter]()

    def delivered(self, letter: Message, path: Path) -> None:
        """A letter has come. May be called in another thread than the rest, always the same one."""
        state = _told_by(letter)
        if state is not None and state not in self._seen:
            self._seen.add(state)
            self._letters.put(_Letter(letter["X-Order-Id"], state, path, _TRIES))

    def tell(self) -> None:
        """Says what there is to say. What cannot be looked up is tried again, then left to the next letter."""
        for _ in range(self._letters.qsize()):
            letter = self._letters.get()
            order = asyncio.run(_look(self._url, letter.order_id))
            if order is not None and order.state is letter.state:
                self._say(_line(order, letter.path))
            elif letter.tries > 1:
                self._letters.put(replace(letter, tries=letter.tries - 1))
            else:
                self._seen.discard(letter.state)


def _told_by(letter: Message) -> OrderState | None:
    order_id, own_id = letter["X-Order-Id"], str(letter["Message-ID"])
    domain = own_id.strip("<> ").rpartition("@")[2]
    return next((state for kind, state in _ENDS.items() if message_id(order_id, kind, domain) == own_id), None)


async def _look(url: str, order_id: str) -> Order | None:
    async with OrdersApi(url) as api:
        try:
            return await api.get(order_id, 0)
        except (RequestRejected, Unreachable):
            return None


def _line(order: Order, letter: Path) -> str:
    why = f" ({'; '.join(order.reasons)})" if order.reasons else ""
    what = f"{order.quantity} × {order.product} for customer {order.customer_id}"
    return f"The first order is {order.state}{why}: {order.id}, {what}. Its letter: {letter}"
