"""Queues are emptied in slices, each item once and in its order."""

from runtime.model.service import Context, Input, Service, Timer
from runtime.state.queues import SLICE, Queue
from runtime.testing import TopologyTestDriver
from schemas.messages import StockLevel
from schemas.topics import WAREHOUSE_INVENTORY
from schemas.wire import Message


class Waiting(Message):
    count: int


WAITING = Queue("depot-waiting", Waiting)


class Depot:
    """Queues stock levels by product; the level 0 empties the queue of its product."""

    def __init__(self):
        self.seen = []
        self.slices = 0
        self._next = Timer("next slice", self._on_next)
        levels = Input(WAREHOUSE_INVENTORY, self.on_level)
        self.service = Service("depot", (levels,), (), tables=(WAITING.table,), timers=(self._next,))

    def on_level(self, level: StockLevel, ctx: Context) -> None:
        if level.count:
            WAITING.append(ctx, level.product, str(level.count), Waiting(count=level.count))
        else:
            self._empty(level.product, 0, ctx)

    def _on_next(self, number: str, ctx: Context) -> None:
        self._empty("mug", int(number), ctx)

    def _empty(self, product: str, begin: int, ctx: Context) -> None:
        self.slices += 1
        following = WAITING.process_slice(ctx, product, begin, lambda waiting: self.seen.append(waiting.count))
        if following is not None:
            ctx.schedule(self._next, str(following), ctx.now)


def test_a_queue_is_processed_in_slices_each_item_once_and_leaves_no_row():
    depot = Depot()
    driver = TopologyTestDriver(depot.service, partitions=1)
    many = 2 * SLICE + 1
    driver.send(WAREHOUSE_INVENTORY, *[StockLevel(product="mug", count=n) for n in range(1, many + 1)])
    driver.send(WAREHOUSE_INVENTORY, StockLevel(product="mug", count=0))
    assert depot.seen == list(range(1, many + 1))
    assert depot.slices == 3
    keys = ["span/mug", *(f"item/{n}/mug" for n in range(many)), *(f"id/3/mug/{n + 1}" for n in range(many))]
    assert [key for key in keys if driver.row(WAITING.table, key) is not None] == []
    driver.send(WAREHOUSE_INVENTORY, StockLevel(product="mug", count=0))  # nothing waits
    assert depot.slices == 4
    assert len(depot.seen) == many
