"""Days of a shop in memory, whose records are what a history would keep."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from ecosystem.what_if import changes
from ecosystem.what_if.difference import Difference
from ecosystem.what_if.run import Question, judge, judge_in_processes
from ecosystem.what_if.spool import SpoolWriter
from orders_service.state import ORDERS_VIEW
from runtime.common.partitioning import partition_of
from runtime.common.settings import Settings
from runtime.model.records import Write
from runtime.testing import TopologyTestDriver
from schemas.messages import HomeCheckin, Order, Payment, ProductEvent, StockLevel
from schemas.topics import CANCELLATIONS, HOME_CHECKINS, ORDERS, PAYMENTS, PRODUCTS, WAREHOUSE_INVENTORY, Topic
from schemas.wire import Message
from tests.samples import checked_in, order

TOPICS: dict[type[Message], Topic] = {
    Order: ORDERS,
    StockLevel: WAREHOUSE_INVENTORY,
    ProductEvent: PRODUCTS,
    Payment: PAYMENTS,
    HomeCheckin: HOME_CHECKINS,
}


class Day(TopologyTestDriver):
    """Services that decide orders, in memory. Those that are `paused` process nothing."""

    def __init__(self, *, apart: bool = True, fuse: bool = True, **settings: object) -> None:
        definitions = changes.build(Settings(**settings))
        super().__init__(*(d.service for d in definitions), apart=apart, fuse=fuse)
        self.paused: set[str] = set()

    def write_messages(self, *messages: Message) -> None:
        """Writes messages from outside, which services process when they run."""
        for message in messages:
            topic = TOPICS[type(message)]
            key = topic.key(message).encode()
            self.write(Write(topic.name, partition_of(key, self.partitions), key, message.to_json()))

    def post(self, *messages: Message) -> None:
        self.write_messages(*messages)
        self.run()

    def order(self, order_id: str, **content: object) -> Order:
        return order(order_id, **{"created_at": self.now, **content})

    def wait(self, seconds: float) -> None:
        """Advances the time. Timers of paused services do not fire."""
        with self._unpaused():
            self.advance(timedelta(seconds=seconds))

    def check_in(self, order_id: str) -> None:
        self.post(checked_in(f"c-{order_id}", order_id))

    def cancel(self, order_id: str) -> None:
        """Cancels an order as `DELETE` does."""
        service = next(s for w in self.workers for s in w.topology.services if s.name == "orders")
        [on_cancellation] = [i.processor for i in service.inputs if i.topic is CANCELLATIONS]
        aggregator: Any = inspect.unwrap(on_cancellation).__self__  # type: ignore[attr-defined]
        self.call(ORDERS_VIEW, order_id, lambda ctx: aggregator.cancel(order_id, "cancelled by the client", ctx))

    def states(self) -> dict[str, str]:
        """The last state of each order."""
        return {o.id: str(o.state) for o in self.values(ORDERS)}

    def run(self) -> None:
        with self._unpaused():
            super().run()

    @contextmanager
    def _unpaused(self) -> Iterator[None]:
        workers = self.workers
        self.workers = [w for w in workers if not self.paused.intersection(s.name for s in w.topology.services)]
        yield
        self.workers = workers

    def what_if(self, folder: Path, processes: int = 1, **changed: object) -> Difference:
        """Asks what would have been under other settings."""
        folder.mkdir(exist_ok=True)
        with SpoolWriter(folder) as spool:
            for tp in sorted(self.topics):
                for record in self.topics[tp]:
                    spool.write(record)
        question = Question(folder, self.partitions, changed)
        if processes > 1:
            return judge_in_processes(question, processes)
        return judge(question)
