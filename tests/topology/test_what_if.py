"""What if: a day in memory is reproduced, and other settings give the difference that a second day gives."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecosystem.what_if import memory
from ecosystem.what_if.difference import Difference
from schemas.messages import Cancellation, OrderState, Payment, ProductEvent, StockLevel
from schemas.topics import CANCELLATIONS
from tests.topology.what_if_days import Day

CUSTOMERS, PRODUCTS = (1, 2), ("mug", "pot")


@pytest.fixture(scope="module", autouse=True)
def _products_unknown():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNKNOWN_PRODUCTS", "pass")
        yield


@pytest.fixture(params=["composed", "apart", "apart, not fused"])
def day(request):
    return Day(apart="apart" in request.param, fuse="not fused" not in request.param)


def stock(**counts):
    return [StockLevel(product=p, count=n) for p, n in counts.items()]


def changes(difference):
    return {(str(a.state), str(b.state), b.reasons or a.reasons): t.orders for (a, b), t in difference.changes.items()}


def test_a_day_under_its_own_settings_has_no_difference(day, tmp_path):
    day.post(*stock(mug=3))
    for number in range(5):
        day.post(day.order(f"o{number}", product="mug", price=900, customer_id=number // 3))
        day.wait(1)
    found = day.what_if(tmp_path)
    assert found.all.orders == 5
    assert found.undecided_cases == []
    assert {state: tally.orders for state, tally in found.before.items()} == {"VALIDATED": 3, "FAILED": 2}
    assert found.after == found.before
    assert not found.changes


def test_a_lower_limit_fails_orders_and_frees_their_stock(day, tmp_path):
    day.post(*stock(mug=2))
    for number, customer in enumerate((1, 1, 2)):
        day.post(day.order(f"o{number}", product="mug", price=700, customer_id=customer))
        day.wait(1)
    assert day.states() == {"o0": "VALIDATED", "o1": "VALIDATED", "o2": "FAILED"}
    found = day.what_if(tmp_path, fraud_limit="1000")
    assert changes(found) == {
        ("VALIDATED", "FAILED", ("FRAUD_CHECK",)): 1,
        ("FAILED", "VALIDATED", ("INVENTORY_CHECK",)): 1,
    }
    assert found.changed.value == 1400
    assert found.undecided.orders == 0


def test_a_shorter_deadline_fails_orders_whose_verdict_came_late(tmp_path):
    day = Day()
    day.post(*stock(mug=9))
    day.paused = {"fraud"}
    day.post(day.order("late", product="mug"))
    day.wait(7)
    day.paused = set()
    day.run()
    day.post(day.order("soon", product="mug"))
    assert day.states() == {"late": "VALIDATED", "soon": "VALIDATED"}
    found = day.what_if(tmp_path, validation_deadline_s="5")
    assert changes(found) == {("VALIDATED", "FAILED", ("FRAUD_CHECK missing",)): 1}
    assert [case.order_id for case in found.cases] == ["late"]


def test_a_longer_deadline_waits_for_a_verdict_that_came_too_late(tmp_path):
    day = Day()
    day.post(*stock(mug=9))
    day.paused = {"fraud"}
    day.post(day.order("late", product="mug"))
    day.wait(70)
    day.paused = set()
    day.run()
    assert day.states() == {"late": "FAILED"}
    assert not day.what_if(tmp_path / "same").undecided_cases
    found = day.what_if(tmp_path / "changed", validation_deadline_s="120")
    assert changes(found) == {("FAILED", "VALIDATED", ("FRAUD_CHECK missing",)): 1}


def test_an_order_that_is_cancelled_when_not_paid_soon(tmp_path):
    day = Day()
    day.post(*stock(mug=9))
    day.post(day.order("o1", product="mug"), day.order("o2", product="mug"))
    day.wait(100)
    day.post(Payment(id="p1", order_id="o1", ccy="EUR", amount=5))
    day.check_in("o1")
    day.wait(1)
    assert day.states() == {"o1": "SHIPPED", "o2": "VALIDATED"}
    assert changes(day.what_if(tmp_path, payment_deadline_s="60")) == {
        ("SHIPPED", "CANCELLED", ("not paid",)): 1,
        ("VALIDATED", "CANCELLED", ("not paid",)): 1,
    }


def test_a_payment_deadline_and_cancellations_from_outside_are_reproduced(tmp_path, monkeypatch):
    monkeypatch.setenv("PAYMENT_DEADLINE_S", "60")
    day = Day()
    day.post(*stock(mug=3))
    for number in range(4):
        day.post(day.order(f"o{number}", product="mug"))
    day.cancel("o1")
    day.send(CANCELLATIONS, Cancellation(order_id="o2", reason="no longer sold"))
    day.wait(61)
    assert day.states() == {"o0": "CANCELLED", "o1": "CANCELLED", "o2": "CANCELLED", "o3": "FAILED"}
    assert not day.what_if(tmp_path / "same").undecided_cases
    assert changes(day.what_if(tmp_path / "changed", payment_deadline_s="0")) == {
        ("CANCELLED", "VALIDATED", ("not paid",)): 1
    }


def test_a_verdict_that_came_before_stock_of_an_earlier_time(tmp_path):
    day = Day()
    day.paused = {"inventory"}
    day.post(day.order("o1", product="mug"))
    day.paused = set()
    # The validator judges before it reads the stock, which was written before the verdict.
    [worker] = [w for w in day.workers if w.topology.services[0].name == "inventory"]
    day._step(worker)
    day.write_messages(*stock(mug=3))
    day.wait(0.005)
    day.run()
    assert day.states() == {"o1": "FAILED"}
    assert not day.what_if(tmp_path).undecided_cases


def test_several_processes_find_the_same_difference(tmp_path):
    day = Day()
    day.post(*stock(mug=5, pot=5, jug=5, cup=5))
    for number in range(20):
        product = ("mug", "pot", "jug", "cup")[number % 4]
        day.post(day.order(f"o{number}", product=product, price=300, customer_id=number % 3))
        day.wait(1)
    alone = day.what_if(tmp_path, fraud_limit="700")
    together = day.what_if(tmp_path, processes=2, fraud_limit="700")
    assert alone.changes
    assert (together.changes, together.before, together.after) == (alone.changes, alone.before, alone.after)
    assert sorted(alone.cases) == together.cases


orders = st.tuples(
    st.just("order"),
    st.sampled_from(CUSTOMERS),
    st.sampled_from(PRODUCTS),
    st.integers(0, 4),
    st.sampled_from((10, 400, 900)),
)
waits = st.tuples(st.just("wait"), st.sampled_from((0.001, 0.3, 2, 30, 61)))
stocks = st.tuples(st.just("stock"), st.sampled_from(PRODUCTS), st.integers(0, 8))
followups = st.tuples(st.sampled_from(("pay", "check in")), st.integers(0, 9))
changes_of_products = st.tuples(
    st.just("product"), st.sampled_from(PRODUCTS), st.sampled_from(("UPDATED", "WITHDRAWN"))
)
actions = st.lists(orders | orders | waits | stocks | followups | changes_of_products, max_size=40)
quiet = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


class Actor:
    """Carries out actions on a day."""

    def __init__(self, day):
        self.day, self.orders, self.versions, self.cancelled = day, 0, {}, {}

    def perform(self, kind, *values):
        day = self.day
        if kind == "order":
            customer, product, quantity, price = values
            content = {"customer_id": customer, "product": product, "quantity": quantity, "price": price}
            day.write_messages(day.order(f"o{self.orders}", **content))
            self.orders += 1
        elif kind == "wait":
            day.wait(*values)
        elif kind == "stock":
            day.write_messages(StockLevel(product=values[0], count=values[1]))
        elif kind == "product":
            version = self.versions[values[0]] = self.versions.get(values[0], 0) + 1
            content = {"event_id": f"{values}{version}", "name": "n", "price": 10, "version": version, "at": day.now}
            day.write_messages(ProductEvent(code=values[0], kind=values[1], **content))
        elif kind == "pay":
            day.write_messages(Payment(id=f"p{values}", order_id=f"o{values[0]}", ccy="EUR", amount=5000))
        elif kind == "check in":
            day.check_in(f"o{values[0]}")
        elif kind == "cancel":
            day.cancel(f"o{values[0]}")
        elif kind == "pause":
            day.paused = {values[0]}

    def perform_all(self, todo, *, run_each):
        for action in todo:
            self.perform(*action)
            if run_each:
                self.day.run()
                self.day.wait(0.01)
        self.day.paused = set()
        self.day.run()
        self.day.wait(120)
        return self.day


@settings(**quiet, max_examples=60)
@given(todo=actions, apart=st.booleans(), fuse=st.booleans())
def test_any_day_is_reproduced(todo, apart, fuse, tmp_path_factory):
    day = Actor(Day(apart=apart, fuse=fuse)).perform_all(todo, run_each=True)
    assert day.what_if(tmp_path_factory.mktemp("spool")).undecided_cases == []


def random_actions(dice):
    """Actions of a day with outages, cancellations, and several things at one time."""
    kinds = {
        "order": lambda: (dice.choice(CUSTOMERS), dice.choice(PRODUCTS), dice.randint(0, 4), dice.choice((1, 10, 900))),
        "wait": lambda: (dice.choice((0.0, 0.001, 0.01, 0.3, 2, 30, 61)),),
        "stock": lambda: (dice.choice(PRODUCTS), dice.randint(0, 40)),
        "product": lambda: (dice.choice(PRODUCTS), dice.choice(("UPDATED", "UPDATED", "WITHDRAWN"))),
        "pause": lambda: (dice.choice(("fraud", "inventory", "details", "orders", "fulfilment", "", "")),),
        **dict.fromkeys(("pay", "check in", "cancel"), lambda: (dice.randint(0, 9),)),
    }
    names = [*["order"] * 12, *["wait"] * 6, *["stock"] * 4, *kinds]
    return [(name, *kinds[name]()) for name in dice.choices(names, k=40)]


@pytest.mark.parametrize("seed", range(6))
def test_a_day_with_outages_is_reproduced(seed, tmp_path):
    dice = random.Random(seed)
    day = Actor(Day(apart=bool(seed % 3))).perform_all(random_actions(dice), run_each=True)
    found = day.what_if(tmp_path)
    assert found.all.orders > 5
    assert found.undecided_cases == []


def test_rows_that_rest_come_back(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "HOT_ROWS", 1)
    day = Actor(Day()).perform_all(random_actions(random.Random(3)), run_each=True)
    found = day.what_if(tmp_path, fraud_limit=1000)
    assert found.all.orders > 5
    assert found.undecided_cases == []


def test_few_orders_are_undecided_if_all_happens_at_once(tmp_path):
    """Services read in batches what was written within a millisecond, and outages let it gather."""
    found = Difference()
    for seed in range(20):
        dice = random.Random(seed)
        day = Actor(Day(apart=bool(seed % 3))).perform_all(random_actions(dice), run_each=False)
        found.merge(day.what_if(tmp_path / str(seed)))
    assert found.all.orders > 200
    assert found.undecided.orders * 20 < found.all.orders


@settings(**quiet, max_examples=60)
@given(todo=actions, limit=st.sampled_from((500, 1500, 5000)), deadline=st.sampled_from((5, 120)))
def test_other_settings_give_what_a_second_day_gives(todo, limit, deadline, tmp_path_factory):
    day = Actor(Day()).perform_all(todo, run_each=True)
    other = {"fraud_limit": limit, "validation_deadline_s": deadline}
    second = Actor(Day(**other)).perform_all(todo, run_each=True)
    found = day.what_if(tmp_path_factory.mktemp("spool"), **other)
    expected, before = second.states(), day.states()
    assert found.undecided_cases == []
    assert {c.order_id: c.changed.state for c in found.cases if c.recomputed.state is not c.changed.state} == {
        order_id: OrderState(state) for order_id, state in expected.items() if state != before[order_id]
    }
