from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders_service.app import build
from orders_service.processors import ORPHANS_KEPT
from orders_service.state import ORDERS_VIEW, OrderView
from runtime.common.settings import Settings
from runtime.testing import TopologyTestDriver
from schemas.messages import CheckSet, Fulfilled, Order, OrderState, RequiredChecks
from schemas.topics import FULFILMENTS, ORDER_VALIDATIONS, ORDERS, REQUIRED_CHECKS
from tests.samples import DETAILS, FRAUD, INVENTORY, order, verdict

CHECKS = (FRAUD, INVENTORY, DETAILS)
DEADLINE = timedelta(seconds=60)


def aggregator(**settings):
    return TopologyTestDriver(build(Settings(**settings)).service, partitions=1)


@pytest.fixture
def orders():
    return aggregator()


def say(topology, *verdicts):
    topology.send(ORDER_VALIDATIONS, *verdicts)


def states(topology):
    return [str(o.state) for o in topology.values(ORDERS)]


def view(topology) -> OrderView:
    return topology.row(ORDERS_VIEW, "o1")


def test_an_order_is_validated_when_all_checks_pass(orders):
    orders.send(ORDERS, order())
    for check in CHECKS:
        assert states(orders) == ["CREATED"]
        say(orders, verdict(check))
    assert states(orders) == ["CREATED", "VALIDATED"]
    outcome = view(orders).outcome()
    assert outcome.state is OrderState.VALIDATED
    assert [v.check_type for v in outcome.verdicts] == list(CHECKS)
    assert outcome.reasons == ()


@pytest.mark.parametrize("result", ["FAIL", "ERROR"])
def test_one_verdict_other_than_pass_fails_an_order_at_once_with_the_reason(orders, result):
    orders.send(ORDERS, order())
    say(orders, verdict(INVENTORY, result, reason="none left"))
    assert states(orders) == ["CREATED", "FAILED"]
    assert view(orders).reasons == ("INVENTORY_CHECK: none left",)


def test_only_the_first_verdict_of_a_check_counts(orders):
    orders.send(ORDERS, order())
    say(orders, verdict(FRAUD), verdict(FRAUD, "FAIL"), verdict(INVENTORY), verdict(DETAILS))
    assert states(orders) == ["CREATED", "VALIDATED"]
    assert view(orders).late == 1


def test_late_verdicts_change_nothing_and_are_counted(orders):
    orders.send(ORDERS, order())
    say(orders, verdict(FRAUD, "FAIL"))
    decided = view(orders)
    say(orders, verdict(INVENTORY), verdict(DETAILS, "FAIL"))
    assert states(orders) == ["CREATED", "FAILED"]
    assert view(orders) == decided.model_copy(update={"late": 2})


def test_an_order_fails_at_the_deadline_naming_the_missing_checks(orders):
    orders.send(ORDERS, order())
    say(orders, verdict(INVENTORY))
    orders.advance(DEADLINE - timedelta(milliseconds=1))
    assert states(orders) == ["CREATED"]
    orders.advance(timedelta(milliseconds=1))
    assert states(orders) == ["CREATED", "FAILED"]
    assert view(orders).reasons == (
        "FRAUD_CHECK: no verdict within 60 s",
        "ORDER_DETAILS_CHECK: no verdict within 60 s",
    )


def test_the_deadline_counts_from_the_first_read_of_an_order_not_from_its_creation(orders):
    orders.send(ORDERS, order(created_at=orders.now - timedelta(days=1)))
    orders.advance(DEADLINE / 2)
    say(orders, *map(verdict, CHECKS))
    assert states(orders) == ["CREATED", "VALIDATED"]


def test_a_repeated_order_does_not_move_the_deadline(orders):
    orders.send(ORDERS, order())
    orders.advance(DEADLINE / 2)
    orders.send(ORDERS, order())
    orders.advance(DEADLINE / 2)
    assert states(orders) == ["CREATED", "CREATED", "FAILED"]


def test_a_decided_order_leaves_no_timer_behind(orders):
    orders.send(ORDERS, order())
    say(orders, *map(verdict, CHECKS))
    assert len(orders.workers[0].timers) == 0


def test_verdicts_wait_for_their_order(orders):
    say(orders, *map(verdict, CHECKS))
    with pytest.raises(LookupError):
        view(orders).outcome()
    orders.send(ORDERS, order())
    assert states(orders) == ["CREATED", "VALIDATED"]
    assert len(orders.workers[0].timers) == 0


def test_verdicts_whose_order_never_arrives_are_deleted(orders):
    say(orders, verdict(FRAUD))
    orders.advance(ORPHANS_KEPT)
    assert view(orders) is None
    assert states(orders) == []


def test_of_two_orders_with_one_id_the_first_in_the_log_wins(orders):
    orders.send(ORDERS, order(quantity=1), order(quantity=2))
    say(orders, *map(verdict, CHECKS))
    assert view(orders).order == order(quantity=1, state="VALIDATED")


def test_a_replay_does_not_send_the_outcome_again(orders):
    orders.send(ORDERS, order())
    say(orders, *map(verdict, CHECKS))
    orders.send(ORDERS, order(), order(state="VALIDATED"), order(state="FAILED"))
    say(orders, *map(verdict, CHECKS))
    assert states(orders) == ["CREATED", "VALIDATED", "CREATED", "VALIDATED", "FAILED"]
    assert view(orders).order.state is OrderState.VALIDATED


@pytest.mark.parametrize("state", ["VALIDATED", "FAILED", "SHIPPED"])
def test_a_decided_order_whose_creation_is_not_in_the_log_is_stored_as_it_is(orders, state):
    orders.send(ORDERS, order(state=state), order())
    assert view(orders).order == order(state=state)
    assert states(orders) == [state, "CREATED"]


def test_a_decision_read_from_the_log_is_stored_and_not_sent_again(orders):
    orders.send(ORDERS, order(), order(state="VALIDATED"))
    say(orders, verdict(FRAUD, "FAIL"))
    orders.advance(DEADLINE)
    assert states(orders) == ["CREATED", "VALIDATED"]


def test_a_decision_on_other_content_is_ignored(orders):
    orders.send(ORDERS, order(), order(quantity=2, state="VALIDATED"))
    assert view(orders).order == order()


def test_only_a_validated_order_becomes_shipped(orders):
    orders.send(ORDERS, order(), order(state="SHIPPED"))
    assert view(orders).order.state is OrderState.CREATED
    say(orders, *map(verdict, CHECKS))
    orders.send(ORDERS, order(state="SHIPPED"))
    assert view(orders).order.state is OrderState.SHIPPED
    assert view(orders).outcome().state is OrderState.SHIPPED


def test_a_check_that_is_not_required_is_recorded_but_decides_nothing():
    topology = aggregator(required_checks="INVENTORY_CHECK")
    topology.send(ORDERS, order())
    say(topology, verdict(FRAUD, "FAIL"))
    assert states(topology) == ["CREATED"]
    say(topology, verdict(INVENTORY))
    assert states(topology) == ["CREATED", "VALIDATED"]
    assert [v.check_type for v in view(topology).verdicts] == [FRAUD, INVENTORY]


def test_without_required_checks_an_order_is_validated_at_once():
    topology = aggregator(required_checks=())
    topology.send(ORDERS, order())
    assert states(topology) == ["CREATED", "VALIDATED"]


def test_a_required_check_whose_name_is_malformed_is_rejected_at_start():
    with pytest.raises(ValueError, match="should match pattern"):
        build(Settings(required_checks="taste check"))


STEP = st.one_of(
    st.just(order()),
    st.just(order(quantity=2)),
    st.just(order(state="SHIPPED")),
    st.builds(verdict, st.sampled_from(CHECKS), st.sampled_from(["PASS", "PASS", "PASS", "FAIL", "ERROR"])),
    st.sampled_from([timedelta(seconds=1), timedelta(seconds=40)]),
)


@given(st.lists(STEP, max_size=20))
def test_an_order_is_decided_exactly_once_in_any_order_of_events(steps):
    topology = aggregator()
    end = None
    for step in [*steps, order(), DEADLINE]:
        if isinstance(step, timedelta):
            topology.advance(step)
        elif isinstance(step, Order):
            topology.send(ORDERS, step)
        else:
            say(topology, step)
        now = view(topology)
        if end is not None:
            assert (now.verdicts, now.reasons) == (end.verdicts, end.reasons)
            assert now.order.state in {end.order.state, OrderState.SHIPPED}
        elif now is not None and now.decided:
            end = now
    assert end is not None
    posted = [step for step in [*steps, order()] if isinstance(step, Order)]
    # One that is shipped when it is first seen was decided before this log began.
    announced = 0 if posted[0].state is OrderState.SHIPPED else 1
    assert len(topology.values(ORDERS)) == len(posted) + announced
    assert len(topology.workers[0].timers) == 0


def test_a_check_that_is_removed_at_the_deadline_does_not_fail_the_order(orders):
    sets = (
        CheckSet(since=orders.now, checks=CHECKS),
        CheckSet(since=orders.now + DEADLINE, checks=(FRAUD, DETAILS)),
    )
    orders.send(REQUIRED_CHECKS, RequiredChecks(sets=sets))
    orders.send(ORDERS, order())
    say(orders, verdict(FRAUD), verdict(DETAILS))

    orders.advance(DEADLINE)

    assert states(orders) == ["CREATED", "VALIDATED"]
    assert view(orders).required == (FRAUD, DETAILS)


def observed(topology):
    """The observed durations of the orders service, by stage; each once."""
    [worker] = topology.workers
    stages = [stage for _, stage, _ in worker.observations]
    assert len(stages) == len(set(stages))
    assert {service for service, _, _ in worker.observations} <= {"orders"}
    return {stage: seconds for _, stage, seconds in worker.observations}


def test_the_time_to_each_stage_is_observed_once_per_order(orders):
    placed = order(created_at=orders.now)
    orders.send(ORDERS, placed)
    orders.advance(timedelta(seconds=2))
    say(orders, verdict(FRAUD))
    orders.advance(timedelta(seconds=3))
    say(orders, verdict(INVENTORY), verdict(DETAILS))
    orders.send(ORDERS, placed)
    orders.advance(timedelta(seconds=10))
    orders.send(FULFILMENTS, Fulfilled(order_id="o1"), Fulfilled(order_id="o1"))
    assert observed(orders) == {
        "posted to first verdict": 2,
        "posted to validated": 5,
        "fulfilled to shipped": 0,
        "posted to shipped": 15,
    }


def test_an_order_that_fails_at_its_deadline_is_observed(orders):
    orders.send(ORDERS, order(created_at=orders.now))
    orders.advance(DEADLINE)
    assert observed(orders) == {"posted to failed": 60}


def test_a_time_is_not_below_zero(orders):
    orders.send(ORDERS, order(created_at=orders.now + timedelta(seconds=5)))
    say(orders, verdict(FRAUD, "FAIL"))
    assert observed(orders) == {"posted to first verdict": 0, "posted to failed": 0}
