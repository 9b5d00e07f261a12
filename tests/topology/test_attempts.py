"""A failed order is decided anew: a CREATED order of the next attempt opens it, verdicts of that attempt decide it."""

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orders_service.state import ORDERS_VIEW
from runtime.common.partitioning import partition_of
from runtime.common.settings import Settings
from runtime.testing import TopologyTestDriver
from schemas.messages import Cancellation, OrderState, OrderValidation, Payment
from schemas.topics import CANCELLATIONS, CUSTOMERS, FULFILMENTS, HOME_CHECKINS, ORDER_VALIDATIONS, ORDERS, PAYMENTS
from tests.samples import DETAILS, FRANZ, FRAUD, INVENTORY, checked_in, order, verdict
from tests.topology.conftest import CORE_APPS, Shop, emails_of, order_services
from validators.fraud.state import CUSTOMERS as FRAUD_CUSTOMERS
from validators.inventory.state import RESERVATIONS, STOCK

CUSTOMER = FRANZ.model_copy(update={"id": 1})
CHECKS = (FRAUD, INVENTORY, DETAILS)


def redecided(shop, attempt=2, order_id="o1"):
    """The CREATED order of another attempt."""
    posted = next(o for o in shop.topology.values(ORDERS) if o.id == order_id)
    return posted.model_copy(update={"attempt": attempt})


class AttemptsShop(Shop):
    """The services of an order, with the e-mails that wait to be sent."""

    def __init__(self, topology, email) -> None:
        super().__init__(topology)
        self.email = email


def opened(*, apart=False, **changes):
    services = order_services(**changes)
    shop = AttemptsShop(TopologyTestDriver(*services, apart=apart), emails_of(services))
    shop.topology.send(CUSTOMERS, CUSTOMER)
    return shop


@pytest.fixture(params=[False, True], ids=["composed", "apart"])
def shop(request):
    return opened(apart=request.param)


def test_a_failed_order_is_decided_anew_and_shipped(shop):
    shop.stock(JUMPERS=1)
    shop.post(shop.order(quantity=2))
    assert shop.history() == ["CREATED", "FAILED"]
    shop.stock(JUMPERS=10)
    shop.topology.send(ORDERS, redecided(shop))
    assert shop.history() == ["CREATED", "FAILED", "CREATED", "VALIDATED"]
    outcome = shop.outcome()
    assert (outcome.state, outcome.order.attempt, outcome.reasons) == (OrderState.VALIDATED, 2, ())
    assert shop.reserved("JUMPERS") == 2
    shop.topology.send(PAYMENTS, Payment(id="p1", order_id="o1", ccy="EUR", amount=10))
    shop.topology.send(HOME_CHECKINS, checked_in())
    assert shop.outcome().state is OrderState.SHIPPED
    assert shop.topology.row(STOCK, "JUMPERS").model_dump() == {"count": 8, "reserved": 0}
    assert len(shop.topology.values(FULFILMENTS)) == 1
    emails = sorted(shop.topology.pending(shop.email))
    assert emails == ["o1/failed", "o1/shipped\x1f2", "o1/validated\x1f2"]


def test_an_order_that_fails_again_holds_no_stock_and_may_be_decided_once_more(shop):
    shop.stock(JUMPERS=1)
    shop.post(shop.order(quantity=2))
    shop.topology.send(ORDERS, redecided(shop))
    assert shop.history() == ["CREATED", "FAILED"] * 2
    assert shop.topology.row(STOCK, "JUMPERS").reserved == 0
    shop.stock(JUMPERS=2)
    shop.topology.send(ORDERS, redecided(shop, 3))
    assert shop.history()[-1] == "VALIDATED"
    assert shop.outcome().order.attempt == 3


def test_a_payment_before_the_second_attempt_counts(shop):
    shop.stock(JUMPERS=1)
    shop.post(shop.order(quantity=2))
    shop.topology.send(PAYMENTS, Payment(id="p1", order_id="o1", ccy="EUR", amount=10))
    shop.stock(JUMPERS=2)
    shop.topology.send(ORDERS, redecided(shop))
    shop.topology.send(HOME_CHECKINS, checked_in())
    assert shop.outcome().state is OrderState.SHIPPED


@pytest.mark.parametrize("attempt", [None, 1, 2, 7])
def test_an_order_that_has_not_failed_is_not_opened_again(shop, attempt):
    shop.stock(JUMPERS=10)
    shop.post(shop.order())
    shop.topology.send(ORDERS, redecided(shop, attempt))
    assert shop.history() == ["CREATED", "VALIDATED", "CREATED"]
    assert (shop.outcome().state, shop.outcome().order.attempt) == (OrderState.VALIDATED, None)


@pytest.mark.parametrize("state", ["VALIDATED", "SHIPPED", "CANCELLED"])
def test_an_attempt_of_an_order_that_has_not_failed_reserves_nothing(shop, state):
    shop.stock(JUMPERS=10)
    shop.post(shop.order(quantity=2))
    if state == "SHIPPED":
        shop.topology.send(PAYMENTS, Payment(id="p1", order_id="o1", ccy="EUR", amount=10))
        shop.topology.send(HOME_CHECKINS, checked_in())
    elif state == "CANCELLED":
        shop.topology.send(CANCELLATIONS, Cancellation(order_id="o1", reason="not paid"))
    assert shop.outcome().state == state
    before = shop.reserved("JUMPERS")
    shop.topology.send(ORDERS, redecided(shop), redecided(shop, 3))
    assert shop.reserved("JUMPERS") == before == (2 if state == "VALIDATED" else 0)


def test_an_attempt_of_an_undecided_order_changes_neither_stock_nor_shipment():
    shop = opened(required_checks="INVENTORY_CHECK,CREDIT_CHECK")
    shop.stock(JUMPERS=10)
    shop.post(shop.order(quantity=2))
    shop.topology.send(ORDERS, redecided(shop))
    assert shop.reserved("JUMPERS") == 2
    shop.topology.send(ORDER_VALIDATIONS, verdict("CREDIT_CHECK"))
    shop.topology.send(PAYMENTS, Payment(id="p1", order_id="o1", ccy="EUR", amount=10))
    shop.topology.send(HOME_CHECKINS, checked_in())
    assert (shop.outcome().state, shop.outcome().order.attempt) == (OrderState.SHIPPED, None)


def test_an_order_that_failed_in_an_earlier_version_reserves_anew(shop):
    """Its reservation does not say that it has failed."""
    shop.stock(JUMPERS=1)
    shop.post(shop.order(quantity=2))
    worker = next(w for w in shop.topology.workers if RESERVATIONS.rows.name in w.topology.tables)
    store = worker.stores.open(RESERVATIONS.rows.name, partition_of(b"JUMPERS", shop.topology.partitions))
    row = RESERVATIONS.rows.model.from_json(store.get(b"o1"))
    store.apply({b"o1": row.model_copy(update={"failed": None}).to_json()}, store.offset)
    shop.stock(JUMPERS=2)
    shop.topology.send(ORDERS, redecided(shop))
    assert shop.reserved("JUMPERS") == 2


@pytest.mark.parametrize("attempt", [None, 1])
def test_the_first_attempt_of_a_failed_order_is_only_repeated(shop, attempt):
    shop.post(shop.order(product="UNICORN"))
    shop.topology.send(ORDERS, redecided(shop, attempt))
    assert shop.history() == ["CREATED", "FAILED", "CREATED"]


def test_an_attempt_with_other_content_opens_nothing(shop):
    shop.post(shop.order(product="UNICORN"))
    shop.topology.send(ORDERS, redecided(shop).model_copy(update={"quantity": 7}))
    assert shop.outcome().state is OrderState.FAILED


def test_the_second_attempt_does_not_count_into_its_session_again(shop):
    shop.stock(JUMPERS=100)
    shop.post(shop.order("o1", price=1500, product="UNICORN"), shop.order("o2", price=400))
    shop.topology.send(ORDERS, redecided(shop))
    [session] = shop.topology.row(FRAUD_CUSTOMERS, "1").sessions
    assert session.total == 1900


def test_a_second_attempt_long_after_the_first_counts_into_its_session(shop):
    shop.stock(JUMPERS=100)
    shop.post(shop.order("o1", price=1500, product="UNICORN"))
    shop.topology.advance(timedelta(days=9))
    assert shop.topology.row(FRAUD_CUSTOMERS, "1") is None
    shop.stock(UNICORN=1)
    shop.topology.send(ORDERS, redecided(shop))
    assert shop.topology.row(FRAUD_CUSTOMERS, "1").sessions[0].total == 1500
    assert shop.outcome().state is OrderState.VALIDATED
    assert shop.reserved("UNICORN") == 1


def test_a_replay_of_the_second_attempt_gets_the_same_verdicts(shop):
    shop.stock(JUMPERS=1)
    shop.post(shop.order(quantity=2))
    shop.stock(JUMPERS=2)
    shop.topology.send(ORDERS, redecided(shop))
    shop.topology.send(ORDERS, redecided(shop))
    assert shop.reserved("JUMPERS") == 2
    of_second = [v.validation_result for v in shop.topology.values(ORDER_VALIDATIONS) if v.attempt == 2]
    assert set(of_second) == {"PASS"}


def test_the_deadline_of_the_second_attempt_begins_anew():
    shop = opened(required_checks="FRAUD_CHECK,CREDIT_CHECK", validation_deadline_s=60)
    shop.post(shop.order())
    shop.topology.advance(timedelta(seconds=61))
    shop.topology.send(ORDERS, redecided(shop))
    shop.topology.advance(timedelta(seconds=59))
    assert shop.outcome().state is OrderState.CREATED
    shop.topology.send(ORDER_VALIDATIONS, verdict("CREDIT_CHECK").model_copy(update={"attempt": 2}))
    assert shop.outcome().state is OrderState.VALIDATED


def test_a_verdict_of_the_first_attempt_does_not_decide_the_second():
    shop = opened(required_checks="FRAUD_CHECK,CREDIT_CHECK", validation_deadline_s=60)
    shop.post(shop.order())
    shop.topology.advance(timedelta(seconds=61))
    shop.topology.send(ORDERS, redecided(shop))
    shop.topology.send(ORDER_VALIDATIONS, verdict("CREDIT_CHECK"))
    assert (shop.outcome().state, shop.outcome().late) == (OrderState.CREATED, 1)


@pytest.fixture
def aggregator():
    """The orders service alone: its verdicts come from the test."""
    return Shop(TopologyTestDriver(CORE_APPS["orders"].build(Settings()).service))


def of_attempt(check, result="PASS", attempt=2):
    return verdict(check, result).model_copy(update={"attempt": attempt})


def test_verdicts_that_overtake_their_attempt_count_once_it_arrives(aggregator):
    aggregator.topology.send(ORDERS, order())
    aggregator.topology.send(ORDER_VALIDATIONS, verdict(FRAUD, "FAIL"))
    aggregator.topology.send(ORDER_VALIDATIONS, *[of_attempt(check) for check in CHECKS])
    assert aggregator.outcome().state is OrderState.FAILED
    aggregator.topology.send(ORDERS, redecided(aggregator))
    assert aggregator.history() == ["CREATED", "FAILED", "CREATED", "VALIDATED"]


def test_verdicts_of_a_later_attempt_than_any_order_expire(aggregator):
    aggregator.topology.send(ORDER_VALIDATIONS, of_attempt(FRAUD))
    assert aggregator.topology.row(ORDERS_VIEW, "o1") is not None
    aggregator.topology.advance(timedelta(days=2))
    assert aggregator.topology.row(ORDERS_VIEW, "o1") is None


def test_only_verdicts_of_the_latest_attempt_are_kept_ahead(aggregator):
    """So the row stays small, whatever another producer writes."""
    verdicts = [of_attempt(FRAUD, attempt=n) for n in range(2, 100)]
    aggregator.topology.send(ORDER_VALIDATIONS, *verdicts, *reversed(verdicts))
    assert [v.attempt for v in aggregator.topology.row(ORDERS_VIEW, "o1").ahead] == [99]


RESULTS = st.fixed_dictionaries({check: st.sampled_from(["PASS", "FAIL"]) for check in CHECKS})


@given(first=RESULTS, second=RESULTS, data=st.data())
@settings(deadline=None)
def test_verdicts_and_attempts_in_any_order_of_arrival(first, second, data):
    """Each attempt is decided by its own verdicts, however the two topics interleave."""
    shop = Shop(TopologyTestDriver(CORE_APPS["orders"].build(Settings()).service))
    verdicts = [verdict(check, result) for check, result in first.items()]
    verdicts += [of_attempt(check, result) for check, result in second.items()]
    verdicts = data.draw(st.permutations(verdicts))
    shop.topology.send(ORDERS, order())
    opened_at = data.draw(st.integers(0, len(verdicts)))
    for number, one in enumerate(verdicts):
        if number >= opened_at and shop.outcome().state is OrderState.FAILED and shop.outcome().order.attempt is None:
            shop.topology.send(ORDERS, redecided(shop))
        shop.topology.send(ORDER_VALIDATIONS, one)
    if "FAIL" in first.values():
        shop.topology.send(ORDERS, redecided(shop))
    expected = first if "FAIL" not in first.values() else second
    passed = "FAIL" not in expected.values()
    assert shop.outcome().state is (OrderState.VALIDATED if passed else OrderState.FAILED)
    assert shop.outcome().order.attempt == (None if expected is first else 2)


def test_first_attempts_are_written_without_a_number():
    """Byte for byte as before: readers of earlier versions see nothing new."""
    assert b"attempt" not in order().to_json()
    assert b"attempt" not in verdict(FRAUD).to_json()
    assert OrderValidation.from_json(of_attempt(FRAUD).to_json()).attempt == 2
