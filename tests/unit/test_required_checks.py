"""An order is decided by the checks that were required when it was first seen, without those removed since."""

from datetime import timedelta
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecosystem.clients.checks import plan
from orders_service.app import build
from orders_service.state import CHECKS as STORED
from orders_service.state import ORDERS_VIEW, REQUIRED, OrderView
from runtime.common.settings import Settings
from runtime.state.queues import SLICE
from runtime.testing import TopologyTestDriver
from schemas.messages import CheckSet, OrderState, RequiredChecks
from schemas.topics import ORDER_VALIDATIONS, ORDERS, REQUIRED_CHECKS
from tests.samples import DETAILS, FRAUD, INVENTORY, order, verdict

CREDIT = "CREDIT_CHECK"
INITIAL = (FRAUD, INVENTORY, DETAILS)
DEADLINE = timedelta(seconds=60)
SOON = timedelta(seconds=10)
LONG_AGO = timedelta(days=365)


class Orders:
    """The orders service in memory, in one partition, with the actions of an operator."""

    def __init__(self):
        self.topology = TopologyTestDriver(build(Settings()).service, partitions=1)
        self.versions = count(1)

    def require(self, *sets, version=None):
        """Writes sets, each with its start from now."""
        written = tuple(CheckSet(since=self.topology.now + start, checks=checks) for start, checks in sets)
        record = RequiredChecks(version=next(self.versions) if version is None else version, sets=written)
        self.topology.send(REQUIRED_CHECKS, record)
        self.topology.advance(timedelta(0))

    def post(self, *ids):
        self.topology.send(ORDERS, *[order(id_) for id_ in ids])

    def judge(self, order_id, *checks, result="PASS"):
        self.topology.send(ORDER_VALIDATIONS, *[verdict(check, result, order_id=order_id) for check in checks])

    def view(self, order_id) -> OrderView:
        row = self.topology.row(ORDERS_VIEW, order_id)
        assert row is not None
        return row

    def state(self, order_id):
        return str(self.view(order_id).order.state)


@pytest.fixture
def orders():
    return Orders()


def test_an_added_check_is_required_of_later_orders_only(orders):
    orders.post("before")
    orders.require((timedelta(0), (*INITIAL, CREDIT)))
    orders.post("after")
    for id_ in ("before", "after"):
        orders.judge(id_, *INITIAL)
    assert (orders.state("before"), orders.state("after")) == ("VALIDATED", "CREATED")
    assert orders.view("before").outcome().required == INITIAL
    assert orders.view("after").outcome().missing == (CREDIT,)
    orders.judge("after", CREDIT)
    assert orders.state("after") == "VALIDATED"


def test_orders_that_wait_for_a_removed_check_are_decided_at_once(orders):
    orders.require((timedelta(0), (*INITIAL, CREDIT)))
    orders.post("waits", "lacks another")
    orders.judge("waits", *INITIAL)
    orders.judge("lacks another", FRAUD)
    orders.require((timedelta(0), INITIAL))
    assert (orders.state("waits"), orders.state("lacks another")) == ("VALIDATED", "CREATED")
    assert orders.view("waits").outcome().required == INITIAL
    orders.judge("lacks another", INVENTORY, DETAILS)
    assert orders.state("lacks another") == "VALIDATED"


def test_a_removal_reaches_every_order_however_many_wait(orders):
    ids = [f"o{n:04}" for n in range(2 * SLICE + 1)]
    orders.require((timedelta(0), (FRAUD, CREDIT)))
    orders.post(*ids)
    for id_ in ids:
        orders.judge(id_, FRAUD)
    orders.require((timedelta(0), (FRAUD,)))
    for _ in range(3):
        orders.topology.advance(timedelta(0))
    assert {orders.state(id_) for id_ in ids} == {"VALIDATED"}


def test_the_empty_set_validates_every_order_at_once(orders):
    orders.post("waits")
    orders.require((timedelta(0), ()))
    orders.post("new")
    assert (orders.state("waits"), orders.state("new")) == ("VALIDATED", "VALIDATED")


def test_a_verdict_of_a_check_that_is_not_required_is_recorded_and_fails_nothing(orders):
    orders.post("o")
    orders.judge("o", CREDIT, result="FAIL")
    orders.judge("o", *INITIAL)
    assert orders.state("o") == "VALIDATED"
    assert CREDIT in [v.check_type for v in orders.view("o").verdicts]


@pytest.mark.parametrize("start", [-LONG_AGO, timedelta(0)])
def test_a_set_that_began_before_holds_at_once(orders, start):
    orders.require((start, (CREDIT,)))
    orders.post("o")
    assert orders.view("o").required == (CREDIT,)


def test_a_set_to_come_holds_from_its_start_on(orders):
    orders.require((SOON, (CREDIT,)))
    orders.post("before")
    orders.topology.advance(SOON)
    orders.post("after")
    assert orders.view("after").required == (CREDIT,)
    orders.judge("after", CREDIT)
    assert orders.state("after") == "VALIDATED"


def test_a_removal_to_come_decides_at_its_start(orders):
    orders.require((timedelta(0), (FRAUD, CREDIT)), (SOON, (FRAUD,)))
    orders.post("o")
    orders.judge("o", FRAUD)
    orders.topology.advance(SOON - timedelta(milliseconds=1))
    assert orders.state("o") == "CREATED"
    orders.topology.advance(timedelta(milliseconds=1))
    assert orders.state("o") == "VALIDATED"


def test_a_withdrawn_removal_decides_nothing(orders):
    orders.require((timedelta(0), (FRAUD, CREDIT)), (SOON, (FRAUD,)))
    orders.post("o")
    orders.judge("o", FRAUD)
    orders.require((timedelta(0), (FRAUD, CREDIT)))
    orders.topology.advance(SOON)
    assert orders.state("o") == "CREATED"
    orders.topology.advance(DEADLINE)
    assert orders.view("o").reasons == ("CREDIT_CHECK: no verdict within 60 s",)


def test_an_outdated_record_has_no_effect(orders):
    orders.require((timedelta(0), (CREDIT,)), version=5)
    orders.require((timedelta(0), (FRAUD,)), version=4)
    assert orders.topology.row(STORED, REQUIRED).version == 5
    orders.require((timedelta(0), (FRAUD,)), version=5)
    assert orders.topology.row(STORED, REQUIRED).sets[0].checks == (FRAUD,)


def test_a_row_of_an_earlier_version_is_decided_by_the_settings_without_what_was_removed(orders):
    orders.post("o")
    row = orders.view("o").model_copy(update={"required": None})
    orders.topology.call(ORDERS_VIEW, "o", lambda ctx: ctx.put(ORDERS_VIEW, "o", row))
    orders.judge("o", FRAUD, INVENTORY)
    orders.require((timedelta(0), (FRAUD, INVENTORY, CREDIT)))
    assert orders.state("o") == "VALIDATED"
    assert orders.view("o").required == (FRAUD, INVENTORY)


STEP = st.one_of(
    st.tuples(st.just("add"), st.sampled_from([*INITIAL, CREDIT]), st.sampled_from([0, 10])),
    st.tuples(st.just("remove"), st.sampled_from([*INITIAL, CREDIT]), st.sampled_from([0, 10])),
    st.tuples(st.just("post"), st.sampled_from("abc")),
    st.tuples(st.just("judge"), st.sampled_from("abc"), st.sampled_from([*INITIAL, CREDIT])),
    st.tuples(st.just("wait"), st.just(5)),
)


@given(st.lists(STEP, max_size=40))
def test_an_order_is_decided_by_the_set_when_first_seen_without_those_removed_since(steps):
    orders = Orders()
    driver = orders.topology
    record, needs, passed, decided = None, {}, {}, set()

    def settle():
        """What must hold now, by the definition."""
        in_force = set(INITIAL if record is None else record.at(driver.now))
        for id_, required in needs.items():
            if id_ not in decided:
                required &= in_force
                if required <= passed.get(id_, set()):
                    decided.add(id_)

    for step in steps:
        match step:
            case ("add" | "remove" as what, check, seconds):
                base = plan.starting_with(record, INITIAL, driver.now)
                edit = plan.addition(check) if what == "add" else plan.removal(check)
                after = plan.changed(base, edit, driver.now + timedelta(seconds=seconds), driver.now)
                if after is not base:
                    record = after
                    driver.send(REQUIRED_CHECKS, record)
                    driver.advance(timedelta(0))
            case ("post", id_):
                if id_ not in needs:
                    needs[id_] = set(INITIAL if record is None else record.at(driver.now))
                orders.post(id_)
            case ("judge", id_, check):
                if id_ not in decided:
                    passed.setdefault(id_, set()).add(check)
                orders.judge(id_, check)
            case ("wait", seconds):
                driver.advance(timedelta(seconds=seconds))
        settle()
        for id_, required in needs.items():
            view = orders.view(id_)
            if view.order.state is OrderState.FAILED:  # at its deadline
                decided.add(id_)
                continue
            assert view.decided == (id_ in decided), step
            assert not view.decided or set(view.required) == required
