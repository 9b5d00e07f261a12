"""Fulfilment: the prerequisites of a shipment, in any order of arrival."""

import json
from datetime import timedelta
from decimal import Decimal
from itertools import permutations

import pytest

import fulfilment_service.app
from fulfilment_service.state import CHECK_INS, PROGRESS, Progress
from runtime.common.partitioning import partition_of
from runtime.common.settings import Settings
from runtime.model.service import ScheduledTimer
from runtime.state.queues import SLICE
from runtime.testing import TopologyTestDriver
from schemas.api import FulfilmentStatus
from schemas.messages import OrderState, Payment
from schemas.payments import CURRENCIES_SHOWN, CountedPayment, PaymentTotals, payment_key
from schemas.topics import CHECKIN_REJECTIONS, FULFILMENTS, HOME_CHECKINS, ORDERS, PAYMENTS
from tests.samples import checked_in
from tests.topology.conftest import CORE_APPS, Shop, record_row_sizes
from validators.inventory.state import RESERVATIONS, STOCK


def paid(amount, id_="p1", order_id="o1", ccy="EUR") -> Payment:
    return Payment(id=id_, order_id=order_id, ccy=ccy, amount=amount)


@pytest.fixture(params=[False, True], ids=["composed", "apart"])
def open_shop(request):
    def opened(**settings) -> Shop:
        apps = [*CORE_APPS.values(), fulfilment_service.app]
        services = [app.build(Settings(**settings)).service for app in apps]
        return Shop(TopologyTestDriver(*services, apart=request.param))

    return opened


@pytest.fixture
def shop(open_shop):
    shop = open_shop()
    shop.stock(JUMPERS=10)
    return shop


def happen(shop, *events):
    actions = {
        "order": lambda: shop.post(shop.order("o1", product="JUMPERS", quantity=3, price=5)),
        "payment": lambda: shop.topology.send(PAYMENTS, paid(15)),
        "check-in": lambda: shop.topology.send(HOME_CHECKINS, checked_in()),
    }
    for event in events:
        actions[event]()


def rejected(shop) -> dict[str, str]:
    return {r.event_id: r.reason for r in shop.topology.values(CHECKIN_REJECTIONS)}


@pytest.mark.parametrize("sequence", list(permutations(["order", "payment", "check-in"])), ids="-".join)
def test_an_order_is_shipped_once_all_prerequisites_are_met_in_any_order(shop, sequence):
    happen(shop, *sequence)

    assert shop.history("o1") == ["CREATED", "VALIDATED", "SHIPPED"]
    assert shop.outcome("o1").state is OrderState.SHIPPED
    assert rejected(shop) == {}


@pytest.mark.parametrize("left_out", ["payment", "check-in"])
def test_an_order_is_not_shipped_while_a_prerequisite_is_missing(shop, left_out):
    happen(shop, *({"order", "payment", "check-in"} - {left_out}))

    assert shop.history("o1") == ["CREATED", "VALIDATED"]


def test_the_prerequisites_are_a_setting(open_shop):
    shop = open_shop(fulfilment_needs="VALIDATED")
    shop.stock(JUMPERS=10)
    happen(shop, "order")

    assert shop.outcome("o1").state is OrderState.SHIPPED


def test_payments_are_summed_and_each_counts_once(shop):
    happen(shop, "order", "check-in")
    for payment in (paid(10), paid(10), paid(4, "p2")):
        shop.topology.send(PAYMENTS, payment)
    assert shop.outcome("o1").state is OrderState.VALIDATED

    shop.topology.send(PAYMENTS, paid(1, "p3"))
    assert shop.outcome("o1").state is OrderState.SHIPPED


def test_repeated_messages_ship_an_order_once(shop):
    for _ in range(2):
        happen(shop, "order", "payment", "check-in")

    assert shop.history("o1").count("SHIPPED") == 1
    assert len(shop.topology.values(FULFILMENTS)) == 1


def test_the_pieces_of_a_shipped_order_are_neither_in_stock_nor_reserved(shop):
    happen(shop, "order", "payment", "check-in")
    stock = shop.topology.row(STOCK, "JUMPERS")

    assert (stock.count, stock.reserved) == (7, 0)
    assert shop.topology.row(RESERVATIONS.rows, "o1").held == 0


@pytest.mark.parametrize("first", ["order", "check-in"])
def test_a_check_in_of_an_order_that_failed_is_rejected(shop, first):
    failing = shop.order("o1", product="JUMPERS", quantity=-1)
    steps = [lambda: shop.post(failing), lambda: happen(shop, "check-in")]
    for step in steps if first == "order" else reversed(steps):
        step()

    assert rejected(shop) == {"c1": "the order has failed"}


def test_a_check_in_of_an_unknown_order_is_rejected_after_the_wait_and_its_row_deleted(shop):
    happen(shop, "check-in")
    assert rejected(shop) == {}
    shop.topology.advance(timedelta(seconds=60))

    assert rejected(shop) == {"c1": "there is no such order"}
    assert shop.topology.row(PROGRESS, "o1") is None


def test_a_payment_that_comes_before_its_order_is_kept(shop):
    happen(shop, "payment", "check-in")
    shop.topology.advance(timedelta(seconds=60))
    happen(shop, "order")

    assert shop.history("o1") == ["CREATED", "VALIDATED"]
    shop.topology.send(HOME_CHECKINS, checked_in("c2"))
    assert shop.outcome("o1").state is OrderState.SHIPPED


def test_an_unknown_prerequisite_is_rejected_at_start():
    with pytest.raises(ValueError, match="LUCK"):
        fulfilment_service.app.build(Settings(fulfilment_needs="VALIDATED,LUCK"))


def test_the_value_of_an_order_may_have_more_digits_than_an_amount(shop):
    shop.post(shop.order("o1", product="JUMPERS", quantity=1_000_000_000, price="99999999999.9999"))
    shop.topology.send(PAYMENTS, *[paid("99999999999.9999", id_=f"p{n}") for n in range(3)])
    progress = shop.topology.row(PROGRESS, "o1")

    assert progress.value == Decimal(99999999999999900000)
    status = FulfilmentStatus(
        order_id="o1", fulfilled=False, needed=(), missing=(), value=progress.value, paid=progress.sum("EUR")
    )
    assert json.loads(status.to_json())["paid"] == pytest.approx(3e11)
    assert shop.topology.records(ORDERS.dead_letters) == []


@pytest.mark.parametrize(
    ("payments", "state"),
    [
        ([paid(14, ccy="IDR"), paid(1, "p2")], "VALIDATED"),
        ([paid(15, ccy="eur")], "SHIPPED"),
        ([paid(8), paid(15)], "VALIDATED"),  # the first one of an id counts
        ([paid(-5), paid(15, "p2")], "VALIDATED"),
        ([paid(-5), paid(15, "p2"), paid(5, "p3")], "SHIPPED"),
    ],
)
def test_an_order_is_paid_by_distinct_payments_in_the_currency_of_orders(shop, payments, state):
    happen(shop, "order", "check-in")
    shop.topology.send(PAYMENTS, *payments)

    assert shop.outcome("o1").state == state


def test_the_currency_is_a_setting(open_shop):
    shop = open_shop(currency="KWD")
    shop.stock(JUMPERS=10)
    happen(shop, "order", "check-in", "payment")
    assert shop.outcome("o1").state is OrderState.VALIDATED
    shop.topology.send(PAYMENTS, paid(15, "p2", ccy="KWD"))
    assert shop.outcome("o1").state is OrderState.SHIPPED


def test_payments_in_other_currencies_are_summed_apart_and_bounded(shop):
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
    codes = [f"X{a}{b}" for a in letters[:2] for b in letters]
    shop.topology.send(PAYMENTS, *(paid(2, f"p-{code}", ccy=code) for code in codes), paid(3, "p1"), paid(3, "p2"))
    received = shop.topology.row(PROGRESS, "o1").received

    assert (received.sum("EUR"), received.counted, received.ignored) == (6, 2, 52)
    assert len(received.others("EUR")) in {CURRENCIES_SHOWN - 1, CURRENCIES_SHOWN}
    assert {*received.others("EUR").values()} == {2}


def rows(shop, table) -> int:
    [worker] = [worker for worker in shop.topology.workers if table.name in worker.topology.tables]
    return sum(len(worker.stores.open(table.name, partition).rows) for partition in range(shop.topology.partitions))


@pytest.mark.parametrize("what", ["payments", "check-ins"])
def test_a_message_for_an_order_costs_the_same_however_many_there_are(monkeypatch, what):
    many = 1000
    topology = TopologyTestDriver(fulfilment_service.app.build(Settings()).service)
    batches = record_row_sizes(topology, monkeypatch)
    for n in range(many):
        if what == "payments":
            topology.send(PAYMENTS, paid(1, f"p{n:04}"))
        else:
            topology.send(HOME_CHECKINS, checked_in(f"c{n:04}"))
    sizes = [sum(batch) for batch in batches if batch]

    assert max(sizes[many // 2 :]) < 1.1 * max(sizes[: many // 2]) < 1000


@pytest.mark.parametrize("then", ["nothing", "FAILED", "VALIDATED", "CREATED"])
def test_many_check_ins_are_resolved_in_slices(monkeypatch, then):
    many = 1000
    topology = TopologyTestDriver(fulfilment_service.app.build(Settings()).service)
    shop = Shop(topology)
    for n in range(many):
        topology.send(HOME_CHECKINS, checked_in(f"c{n:04}"))
    batches = record_row_sizes(topology, monkeypatch)
    if then != "nothing":
        shop.post(
            shop.order("o1", product="JUMPERS", quantity=3, price=5).model_copy(update={"state": OrderState(then)})
        )
    topology.advance(timedelta(seconds=60))

    reasons = {"nothing": "there is no such order", "FAILED": "the order has failed"}
    if then in reasons:
        assert rejected(shop) == {f"c{n:04}": reasons[then] for n in range(many)}
        assert len(topology.values(CHECKIN_REJECTIONS)) == many
    else:
        assert rejected(shop) == {}
    progress = topology.row(PROGRESS, "o1") or Progress()
    assert (progress.waiting, progress.checked_in) == (many * (then == "CREATED"), then == "VALIDATED")
    assert max(map(len, batches)) <= 6 * SLICE + 10

    topology.advance(timedelta(days=8))
    assert rows(shop, CHECK_INS.table) == (2 * many + 1 if then == "CREATED" else 0)
    if then == "CREATED":
        shop.post(
            shop.order("o1", product="JUMPERS", quantity=3, price=5).model_copy(update={"state": OrderState.FAILED})
        )
        assert len(rejected(shop)) == many


OLD = {
    "paid": {"p1": 10, "p2": 4},
    "checkIns": [checked_in().model_dump(mode="json", by_alias=True)],
}


@pytest.mark.parametrize("then", ["VALIDATED", "FAILED", "nothing"])
def test_a_progress_row_of_an_earlier_version_is_migrated(then):
    topology = TopologyTestDriver(fulfilment_service.app.build(Settings()).service)
    shop, [worker] = Shop(topology), topology.workers
    partition = partition_of(b"o1", topology.partitions)
    worker.stores.open(PROGRESS.name, partition).apply({b"o1": json.dumps(OLD).encode()}, 0)
    timers = {b"order/o1": ScheduledTimer(at=topology.now + timedelta(seconds=60)).to_json()}
    worker.stores.open("fulfilment-timers", partition).apply(timers, 0)
    worker.timers.apply("fulfilment-timers", partition, timers)
    assert topology.row(PROGRESS, "o1").sum("EUR") == 14

    if then != "nothing":
        shop.post(
            shop.order("o1", product="JUMPERS", quantity=3, price=5).model_copy(update={"state": OrderState(then)})
        )
    topology.send(PAYMENTS, paid(4, "p2"))  # again
    assert topology.values(FULFILMENTS) == []
    topology.send(PAYMENTS, paid(1, "p3"))
    topology.advance(timedelta(seconds=61))

    assert topology.row(PROGRESS, "o1").sum("EUR") == 15
    assert len(topology.values(FULFILMENTS)) == (then == "VALIDATED")
    reasons = {"FAILED": "the order has failed", "nothing": "there is no such order"}
    assert rejected(shop) == ({"c1": reasons[then]} if then in reasons else {})


def test_keys_of_payments_with_similar_ids_are_distinct():
    keys = [("a", "b/c"), ("a/b", "c"), ("1/a", "b"), ("1", "a/b"), ("11", "a"), ("1", "1/a")]
    assert len({payment_key(*key) for key in keys}) == len(keys)


def test_a_payment_is_included_once():
    a, b = paid(1, "a"), paid(2, "b")
    none = PaymentTotals()
    with_a = none.plus(a, "EUR")
    row_a = with_a.row(a)
    assert not none.includes("a", None)
    assert with_a.includes("a", row_a)
    assert not with_a.includes("b", None)
    assert with_a.plus(b, "EUR").sum("EUR") == 3


def test_totals_of_an_earlier_version_name_their_latest_payments():
    """Written at least once, when totals and rows could become durable apart. `recent`: hash of the id "a"."""
    row = CountedPayment(number=1, ccy="EUR", amount=1)
    earlier = PaymentTotals(sums={"EUR": 1}, counted=1, recent=("40f89e395b66422f",))
    assert earlier.includes("a", None)
    assert not earlier.includes("b", row)
    assert PaymentTotals(sums={"EUR": 1}, counted=1).includes("a", row)
