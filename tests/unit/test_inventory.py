from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.common.settings import Settings
from runtime.state.ttl_table import TTL
from runtime.testing import TopologyTestDriver
from schemas.messages import OrderState, StockLevel
from schemas.topics import ORDER_VALIDATIONS, ORDERS, WAREHOUSE_INVENTORY
from tests.samples import order
from validators.inventory.app import build
from validators.inventory.processors import failure_reason
from validators.inventory.state import RESERVATIONS, STOCK, Stock


@pytest.fixture
def inventory():
    return TopologyTestDriver(build(Settings()).service)


def announce(topology, product, count):
    topology.send(WAREHOUSE_INVENTORY, StockLevel(product=product, count=count))


def verdicts(topology):
    return [(v.order_id, str(v.validation_result)) for v in topology.values(ORDER_VALIDATIONS)]


def held(topology, order_id):
    reservation = topology.row(RESERVATIONS.rows, order_id)
    return reservation.held if reservation else 0


@pytest.mark.parametrize(
    ("stock", "quantity", "reason"),
    [
        (Stock(count=3), 3, None),
        (Stock(count=3), 4, "4 of 'JUMPERS' ordered, 3 available"),
        (Stock(count=3, reserved=2), 1, None),
        (Stock(count=3, reserved=2), 2, "2 of 'JUMPERS' ordered, 1 available"),
        (Stock(count=1, reserved=2), 1, "1 of 'JUMPERS' ordered, 0 available"),
        (Stock(), 1, "no stock of 'JUMPERS' was announced"),
        (Stock(count=3), 0, "quantity must be above 0, is 0"),
        (Stock(count=3), -1, "quantity must be above 0, is -1"),
    ],
)
def test_an_order_passes_if_enough_unreserved_stock_exists(stock, quantity, reason):
    assert failure_reason(stock, order(quantity=quantity)) == reason


EVENT = st.one_of(
    st.tuples(st.sampled_from(["CREATED", "FAILED", "CANCELLED"]), st.integers(0, 5)),
    st.tuples(st.sampled_from(["STOCK"]), st.sampled_from([0, 3, 5, 8])),
)


@given(st.lists(EVENT, max_size=25))
def test_reserved_equals_the_sum_of_reservations_and_never_rises_above_stock_in_any_order_of_events(events):
    # Orders 0 to 5, of 1 to 6 pieces, each for one of two products; 5 is a swindle.
    orders = [order(f"o{n}", product=f"p{n % 2}", quantity=n + 1 if n < 5 else -6) for n in range(6)]
    topology = TopologyTestDriver(build(Settings()).service, partitions=2)
    failed, before = set(), {"p0": 0, "p1": 0}
    for kind, n in events:
        if kind == "STOCK":
            announce(topology, "p0", n)
            announce(topology, "p1", n)
        else:
            topology.send(ORDERS, orders[n].model_copy(update={"state": OrderState(kind)}))
            if kind != "CREATED":
                failed.add(f"o{n}")
        for product, reserved in before.items():
            stock = topology.row(STOCK, product) or Stock()
            assert stock.reserved == sum(held(topology, o.id) for o in orders if o.product == product)
            assert stock.reserved <= reserved or stock.reserved <= (stock.count or 0)
            before[product] = stock.reserved
        assert not any(held(topology, order_id) for order_id in failed)
    said = verdicts(topology)
    assert len(said) == sum(kind == "CREATED" for kind, _ in events)
    assert len(set(said)) == len({order_id for order_id, _ in said}), "an order heard two different verdicts"


def test_a_failed_order_releases_its_stock_once_however_often_it_is_replayed(inventory):
    announce(inventory, "JUMPERS", 5)
    inventory.send(ORDERS, order("o1", quantity=3), order("o2", quantity=2))
    inventory.send(ORDERS, *[order("o1", quantity=3, state="FAILED")] * 3)
    assert inventory.row(STOCK, "JUMPERS") == Stock(count=5, reserved=2)


def test_an_order_whose_failure_arrives_first_reserves_nothing(inventory):
    announce(inventory, "JUMPERS", 5)
    inventory.send(ORDERS, order(state="FAILED"), order())
    assert verdicts(inventory) == [("o1", "FAIL")]
    assert inventory.row(STOCK, "JUMPERS") == Stock(count=5, reserved=0)


def test_the_release_equals_the_reservation_whatever_the_failed_order_contains(inventory):
    announce(inventory, "JUMPERS", 5)
    inventory.send(ORDERS, order(quantity=2), order(quantity=5, state="FAILED"))
    assert inventory.row(STOCK, "JUMPERS") == Stock(count=5, reserved=0)


def test_a_stock_count_does_not_change_reservations(inventory):
    announce(inventory, "JUMPERS", 5)
    inventory.send(ORDERS, order(quantity=4))
    announce(inventory, "JUMPERS", 2)
    assert inventory.row(STOCK, "JUMPERS") == Stock(count=2, reserved=4)


def test_a_product_withdrawn_from_the_warehouse_has_no_stock_but_keeps_its_reservations(inventory):
    announce(inventory, "JUMPERS", 5)
    inventory.send(ORDERS, order("o1"))
    inventory.send_raw(WAREHOUSE_INVENTORY, b"JUMPERS", None)
    inventory.send(ORDERS, order("o2"))
    assert sorted(verdicts(inventory)) == [("o1", "PASS"), ("o2", "FAIL")]
    assert inventory.row(STOCK, "JUMPERS") == Stock(reserved=1)
    inventory.send(ORDERS, order("o1", state="FAILED"))
    assert inventory.row(STOCK, "JUMPERS") is None


def test_reservations_with_stock_stay_and_those_without_expire(inventory):
    announce(inventory, "JUMPERS", 2)
    inventory.send(ORDERS, order("kept"), order("given back"), order("refused", quantity=9))
    inventory.send(ORDERS, order("given back", state="FAILED"), order("failed before", state="FAILED"))
    inventory.advance(TTL + timedelta(hours=1))
    left = [key for key in ("kept", "given back", "refused", "failed before") if inventory.row(RESERVATIONS.rows, key)]
    assert left == ["kept"]
    inventory.send(ORDERS, order("kept", state="FAILED"))
    assert inventory.row(STOCK, "JUMPERS") == Stock(count=2, reserved=0)


def test_an_order_replayed_after_its_reservation_expired_reserves_nothing(inventory):
    announce(inventory, "JUMPERS", 2)
    inventory.send(ORDERS, order(created_at=inventory.now), order(created_at=inventory.now, state="FAILED"))
    made = inventory.now
    inventory.advance(TTL + timedelta(hours=1))
    inventory.send(ORDERS, order(created_at=made))
    assert verdicts(inventory) == [("o1", "PASS"), ("o1", "FAIL")]
    assert inventory.row(STOCK, "JUMPERS") == Stock(count=2, reserved=0)


@pytest.mark.parametrize(
    ("states", "count", "reserved", "results"),
    [
        (["CREATED", "CANCELLED"], 5, 0, ["PASS"]),
        (["CREATED", "VALIDATED", "CANCELLED"], 5, 0, ["PASS"]),
        (["CREATED", "CANCELLED", "CANCELLED"], 5, 0, ["PASS"]),
        (["CREATED", "FAILED", "CANCELLED"], 5, 0, ["PASS"]),
        (["CREATED", "CANCELLED", "FAILED"], 5, 0, ["PASS"]),
        (["CREATED", "CANCELLED", "CREATED"], 5, 0, ["PASS", "PASS"]),
        (["CREATED", "SHIPPED", "CANCELLED"], 3, 0, ["PASS"]),
        (["CREATED", "CANCELLED", "SHIPPED"], 5, 0, ["PASS"]),
        (["CANCELLED", "CREATED"], 5, 0, ["FAIL"]),
        (["CANCELLED", "CANCELLED", "CREATED", "CREATED"], 5, 0, ["FAIL", "FAIL"]),
        (["CANCELLED", "CREATED", "CANCELLED"], 5, 0, ["FAIL"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_a_cancelled_order_releases_its_stock_once(inventory, states, count, reserved, results):
    announce(inventory, "JUMPERS", 5)
    inventory.send(ORDERS, *[order(quantity=2, state=state) for state in states])
    assert inventory.row(STOCK, "JUMPERS") == Stock(count=count, reserved=reserved)
    assert [result for _, result in verdicts(inventory)] == results


def test_an_order_cancelled_before_it_arrived_says_so(inventory):
    inventory.send(ORDERS, order(state="CANCELLED"), order())
    assert [v.reason for v in inventory.values(ORDER_VALIDATIONS)] == ["the order was cancelled already"]
