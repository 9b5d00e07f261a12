"""A day in memory, replayed in order into services that know nothing: they come to the same states and stock."""

from datetime import UTC, datetime
from itertools import groupby

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ecosystem.replay.database import KnownOrder, KnownRecord
from ecosystem.replay.ordering import Proof, arrange
from ecosystem.replay.plan import Plan
from ecosystem.replay.selecting import Selector
from ecosystem.replay.selection import Selection
from ecosystem.replay.stages import INPUTS
from ecosystem.what_if.runner import NEVER
from ecosystem.what_if.spool import SpoolWriter
from history_service.projection import project
from history_service.stages import TOPIC_STAGES
from history_service.timeline import StoredRecord
from runtime.model.records import Write
from runtime.model.sink import SinkRecord
from schemas.messages import Order, StockLevel
from schemas.topics import ORDERS
from tests.topology.test_what_if import CUSTOMERS, PRODUCTS, Actor, actions, quiet
from tests.topology.what_if_days import Day
from validators.inventory.state import STOCK


@pytest.fixture(scope="module", autouse=True)
def _products_unknown():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNKNOWN_PRODUCTS", "pass")
        yield


class History:
    """What the history would have of a day, as `HistoryReader` reads it."""

    def __init__(self, day):
        self._records = []
        self._orders = {}
        for number, topic in enumerate(topic for topic in TOPIC_STAGES if topic in {tp.topic for tp in day.topics}):
            for tp in (tp for tp in day.topics if tp.topic == topic):
                for r in day.topics[tp]:
                    self._add(
                        SinkRecord(topic, r.partition, number, r.offset, r.timestamp_ms, r.key, r.value, r.headers)
                    )

    def _add(self, r):
        rows = project([r], lambda: datetime.now(UTC))
        [(at, stored_at, offset, log, partition, stage, order_id, key, value, headers)] = rows.records
        stored = StoredRecord(at, stored_at, offset, log, partition, stage, r.topic, key, value, headers)
        self._records.append(KnownRecord(stored, order_id))
        if r.topic == ORDERS.name:
            order = Order.from_json(value)
            self._orders[order.id] = KnownOrder(order.id, order.state, order.product, order.customer_id, 1, ())

    async def orders(self, _):
        yield [*self._orders.values()]

    async def records_of_orders(self, ids, stages):
        return [r for r in self._records if r.order_id in ids and r.stored.stage in stages]

    async def records_about_no_order(self, topic, stage, _filters, _key):
        yield [r for r in self._records if (r.stored.topic, r.stored.stage) == (topic, stage)]


async def replayed(day, folder, other):
    """Replays a day into other services. Returns the waves."""
    for name in ("plan", "history"):
        (folder / name).mkdir()
    with SpoolWriter(folder / "history") as spool:
        for tp in sorted(day.topics):
            for record in day.topics[tp]:
                spool.write(record)
    with Plan(folder / "plan", 3) as plan:
        await Selector(History(day), Selection(stages=INPUTS, in_order=True), plan, lambda: day.now).run()
        plan.complete()
        proof = Proof(plan)
        proof.run(folder / "history", day.partitions, NEVER, lambda _: None)
        arrange(plan, proof.pairs)
        waves = [[one.record for one in wave] for _, wave in groupby(plan.records(), lambda one: one.wave)]
    for wave in waves:
        for record in wave:
            partition = record.partition if record.topic == record.place.topic else None
            message = (record.topic, record.key, record.value, *record.headers)
            if partition is None:
                other.send_raw(TOPIC_STAGES[record.topic].topic, *message[1:])
            else:
                other.write(Write(record.topic, partition, record.key, record.value, record.headers))
        other.run()
    return waves


def ended(day):
    """The last state of each order with its reasons, and the stock."""
    states = {order.id: (str(order.state), order.reasons) for order in day.values(ORDERS)}
    return states, {product: day.row(STOCK, product) for product in PRODUCTS}


cancels = st.tuples(st.just("cancel"), st.integers(0, 9))


@settings(**quiet, max_examples=30)
@given(
    todo=st.tuples(actions, actions, st.lists(cancels, max_size=3)).map(lambda parts: [*parts[0], *parts[1], *parts[2]])
)
async def test_any_day_that_keeps_up_ends_the_same(todo, tmp_path_factory):
    day = Actor(Day()).perform_all(todo, run_each=True)
    other = Day()
    await replayed(day, tmp_path_factory.mktemp("day"), other)
    assert ended(other) == ended(day)


async def test_what_was_cancelled_leaves_its_stock_to_the_next_order(tmp_path):
    day = Day()
    day.post(StockLevel(product="mug", count=1), StockLevel(product="pot", count=9))
    for number in range(4):
        day.wait(0.01)
        day.post(day.order(f"o{number}", product="mug", customer_id=number))
        day.post(day.order(f"p{number}", product="pot", customer_id=10 + number))
        if number == 1:
            day.wait(0.01)
            day.cancel("o0")
    other = Day()
    waves = await replayed(day, tmp_path, other)
    assert ended(other) == ended(day)
    states = [state for id_, (state, _) in sorted(ended(day)[0].items()) if id_.startswith("o")]
    assert states == ["CANCELLED", "FAILED", "VALIDATED", "FAILED"]
    assert len(waves) < sum(map(len, waves)), "orders of different products and customers share a wave"


async def test_stock_that_a_validator_read_late_is_sent_late(tmp_path):
    """Its record is older than the order that failed without it."""
    day = Day()
    day.paused = {"inventory"}
    day.post(day.order("o1", product="mug"))
    day.paused = set()
    [worker] = [w for w in day.workers if w.topology.services[0].name == "inventory"]
    day._step(worker)
    day.write_messages(StockLevel(product="mug", count=3))
    day.wait(0.005)
    day.run()
    other = Day()
    await replayed(day, tmp_path, other)
    assert ended(other)[0] == ended(day)[0] == {"o1": ("FAILED", ended(day)[0]["o1"][1])}


async def test_stock_that_a_validator_read_early_is_sent_early(tmp_path):
    """The order waited for its validator, and was judged by stock that was counted after it was posted."""
    day = Day()
    day.paused = {"inventory"}
    day.post(day.order("o1", product="mug", customer_id=CUSTOMERS[0]))
    day.wait(0.5)
    day.write_messages(StockLevel(product="mug", count=3))
    day.wait(0.01)
    [worker] = [w for w in day.workers if w.topology.services[0].name == "inventory"]
    stock = next(tp for tp in day.topics if tp.topic == "warehouse-inventory" and day.topics[tp])
    day.paused = set()
    held = {tp: records for tp, records in day.topics.items() if tp.topic == ORDERS.name}
    for tp in held:
        day.topics[tp] = []
    day._step(worker)
    assert day.topics[stock]
    day.topics.update(held)
    day.run()
    assert day.states() == {"o1": "VALIDATED"}
    other = Day()
    await replayed(day, tmp_path, other)
    assert ended(other) == ended(day)
