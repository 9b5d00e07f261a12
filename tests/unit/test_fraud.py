from datetime import timedelta
from decimal import Decimal

import pytest

from runtime.common.settings import Settings
from runtime.state.ttl_table import TTL
from runtime.testing import TopologyTestDriver
from schemas.sessions import session_value
from schemas.topics import ORDER_VALIDATIONS, ORDERS
from tests.samples import NOON, order
from validators.fraud.app import build
from validators.fraud.processors import SESSIONS_KEPT
from validators.fraud.state import CUSTOMERS, VERDICTS

GAP = timedelta(hours=1)
MINUTE = timedelta(minutes=1)


def fraud(**settings):
    return TopologyTestDriver(build(Settings(**settings)).service)


def results(topology):
    return [str(v.validation_result) for v in topology.values(ORDER_VALIDATIONS)]


def test_times_at_the_limits_of_datetime_do_not_overflow():
    topology = fraud()
    topology.send(
        ORDERS, order("old", created_at="0001-01-01T00:00:00Z"), order("new", created_at="9999-12-31T23:59:59Z")
    )
    assert results(topology) == ["PASS", "PASS"]


@pytest.mark.parametrize(("value", "result"), [("1999.99", "PASS"), ("2000", "FAIL"), ("2000.01", "FAIL")])
def test_a_total_fails_when_it_reaches_the_limit(value, result):
    topology = fraud()
    topology.send(ORDERS, order(price=Decimal(value)))
    assert results(topology) == [result]


def test_limit_and_gap_are_settings():
    topology = fraud(fraud_limit=10, fraud_session_gap_s=60)
    topology.send(ORDERS, order("o1", price=9), order("o2", price=9, created_at=NOON + 61 * timedelta(seconds=1)))
    topology.send(ORDERS, order("o3", price=1, created_at=NOON + 30 * timedelta(seconds=1)))
    assert results(topology) == ["PASS", "PASS", "FAIL"]


def test_a_late_order_that_merges_two_sessions_is_checked_against_their_total():
    topology = fraud()
    topology.send(ORDERS, order("o1", price=900), order("o2", price=900, created_at=NOON + 100 * MINUTE))
    topology.send(ORDERS, order("o3", price=200, created_at=NOON + 50 * MINUTE))
    assert results(topology) == ["PASS", "PASS", "FAIL"]


@pytest.mark.parametrize(("quantity", "price"), [(-1, 5), (1, -5), (-1, -5)])
def test_a_negative_order_does_not_lower_the_session_total(quantity, price):
    assert session_value(order(quantity=quantity, price=price)) == 0


def test_a_replayed_order_gets_its_first_verdict_and_counts_once():
    topology = fraud()
    first, second = order("o1", price=1500), order("o2", price=600)
    topology.send(ORDERS, first, second, first, second, first)
    assert [(v.order_id, str(v.validation_result)) for v in sorted(topology.values(ORDER_VALIDATIONS), key=str)] == [
        *[("o1", "PASS")] * 3,
        *[("o2", "FAIL")] * 2,
    ]
    assert topology.row(CUSTOMERS, "1").sessions[0].total == 2100


def test_only_created_orders_are_checked():
    topology = fraud()
    topology.send(ORDERS, *[order(state=state) for state in ("VALIDATED", "FAILED", "SHIPPED")])
    assert results(topology) == []


def test_the_row_of_a_customer_is_bounded():
    topology = fraud()
    topology.send(ORDERS, *[order(f"o{n}", created_at=NOON + n * 2 * GAP) for n in range(2 * SESSIONS_KEPT)])
    sessions = topology.row(CUSTOMERS, "1").sessions
    assert len(sessions) == SESSIONS_KEPT
    assert sessions[-1].end == NOON + (2 * SESSIONS_KEPT - 1) * 2 * GAP


def test_customers_and_verdicts_expire_after_the_ttl():
    topology = fraud()
    topology.send(ORDERS, order("o1"), order("o2", customer_id=2))
    topology.advance(TTL)
    topology.send(ORDERS, order("o3"))
    topology.advance(2 * GAP)
    assert topology.row(CUSTOMERS, "1").last_order == "o3"
    assert topology.row(CUSTOMERS, "2") is None
    assert [topology.row(VERDICTS.rows, o) is None for o in ("o1", "o2", "o3")] == [True, True, False]
    topology.advance(TTL)
    assert not any(store.rows for store in topology.workers[0].stores.stores.values())


def test_no_row_grows_with_the_number_of_orders_in_a_session():
    topology = fraud()
    topology.send(ORDERS, *[order(f"o{n}") for n in range(500)])
    sizes = [len(row) for store in topology.workers[0].stores.stores.values() for row in store.rows.values()]
    assert max(sizes) < 200
