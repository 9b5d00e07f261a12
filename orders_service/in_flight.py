"""Orders on their way from a POST through Kafka into the view: what the view cannot say yet, of two POSTs of one id."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass

from schemas.messages import Order

LIMIT = 10_000
"""Orders remembered. Beyond it the oldest are forgotten: posted again just then, they would be written again, which the
aggregate tells from a new order all the same."""


@dataclass(frozen=True, slots=True)
class Sent:
    """An order, and the task that ends once Kafka has it, or with what kept it from that."""

    order: Order
    acked: "asyncio.Task[None]"


class InFlight:
    """The orders that this worker sent and that its view does not show yet, oldest first.

    Arguments:
        shown: whether there is no more need to remember an order, because the view has it or is not here any more.
    """

    def __init__(self, shown: Callable[[str], bool], limit: int = LIMIT) -> None:
        self._shown = shown
        self._limit = limit
        self._sent: dict[str, Sent] = {}

    def __len__(self) -> int:
        return len(self._sent)

    def get(self, order_id: str) -> Sent | None:
        return self._sent.get(order_id)

    def send(self, order: Order, produce: Coroutine[None, None, None]) -> Sent:
        """Lets `produce` run in a task of its own, which a client that goes away does not stop half-way.

        One that fails leaves nothing here.
        """
        self._sweep()
        sent = self._sent[order.id] = Sent(order, asyncio.create_task(produce))
        sent.acked.add_done_callback(lambda task: self._ended(order.id, task))
        return sent

    def _ended(self, order_id: str, task: "asyncio.Task[None]") -> None:
        failed = task.cancelled() or task.exception() is not None
        sent = self._sent.get(order_id)
        if failed and sent is not None and sent.acked is task:  # and not a later one under the same id
            del self._sent[order_id]

    def _sweep(self) -> None:
        """Forgets what need not be remembered. Two for each that is added are enough for the view to be caught up."""
        for _ in range(2):
            if not self._sent:
                return
            order_id, sent = next(iter(self._sent.items()))
            over = len(self._sent) >= self._limit
            if not over and not (sent.acked.done() and self._shown(order_id)):
                return
            del self._sent[order_id]
