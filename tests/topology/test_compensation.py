"""Compensation: late failures and late consumers leave no stock reserved and no decision changed."""

from collections import Counter
from datetime import timedelta

import pytest

from orders_service.state import ORDERS_VIEW
from runtime.common.settings import Settings
from runtime.testing import TopologyTestDriver
from schemas.messages import OrderState
from schemas.topics import ORDER_VALIDATIONS, ORDERS
from tests.samples import DETAILS, FRAUD, INVENTORY, verdict
from tests.topology.conftest import CORE_APPS, Shop

DEADLINE = timedelta(seconds=60)


@pytest.fixture(params=[True, False], ids=["fused", "not fused"])
def shop(request):
    """Each service in a worker of its own, so that one can be stopped."""
    services = [app.build(Settings()).service for app in CORE_APPS.values()]
    return Shop(TopologyTestDriver(*services, apart=True, fuse=request.param))


class Stopped:
    """Stops a service for the duration of a `with` block; then it catches up."""

    def __init__(self, shop, service):
        self.workers, self.topology = shop.topology.workers, shop.topology
        [self.worker] = [w for w in self.workers if w.topology.services[0].name == service]

    def __enter__(self):
        self.workers.remove(self.worker)

    def __exit__(self, *error):
        self.workers.append(self.worker)
        self.topology.run()


def events(shop):
    return sum((w.events for w in shop.topology.workers), Counter())


def test_a_reservation_made_after_the_order_failed_is_released_exactly_once(shop):
    shop.stock(JUMPERS=10)
    with Stopped(shop, "inventory"):
        shop.post(shop.order(quantity=4))
        shop.topology.advance(DEADLINE)
        assert shop.outcome().state is OrderState.FAILED
        assert shop.outcome().reasons == (f"{INVENTORY}: no verdict within 60 s",)
    assert shop.reserved("JUMPERS") == 0
    failed = shop.order(quantity=4, state="FAILED")
    shop.post(failed, shop.order(quantity=4), failed)
    assert shop.reserved("JUMPERS") == 0
    assert events(shop)["inventory", "reserved"] == events(shop)["inventory", "released"] == 1


def test_an_order_that_failed_before_it_reached_the_inventory_reserves_nothing(shop):
    shop.stock(JUMPERS=10)
    shop.post(shop.order(quantity=4, state="FAILED"), shop.order(quantity=4))
    assert shop.reserved("JUMPERS") == 0
    assert ("inventory", "reserved") not in events(shop)


def test_verdicts_after_the_deadline_change_nothing_and_are_counted(shop):
    shop.stock(JUMPERS=10)
    with Stopped(shop, "fraud"), Stopped(shop, "details"):
        shop.post(shop.order())
        shop.topology.advance(DEADLINE)
        before = shop.outcome()
        assert before.late == 0
    after = shop.outcome()
    assert after == before.model_copy(update={"late": 2})
    assert after.reasons == tuple(f"{check}: no verdict within 60 s" for check in (FRAUD, DETAILS))
    assert shop.history() == ["CREATED", "FAILED"]
    assert shop.topology.row(ORDERS_VIEW, "o1").late == 2
    counted = events(shop)
    assert (counted["orders", "late verdict"], counted["orders", "deadline missed"]) == (2, 1)
    assert (counted["orders", "failed"], counted["orders", "validated"]) == (1, 0)


def test_a_late_fail_does_not_change_a_validated_order(shop):
    shop.stock(JUMPERS=10)
    shop.post(shop.order())
    shop.topology.send(ORDER_VALIDATIONS, verdict(FRAUD, "FAIL"))
    shop.topology.advance(2 * DEADLINE)
    assert shop.history() == ["CREATED", "VALIDATED"]
    assert shop.outcome().late == 1
    assert shop.reserved("JUMPERS") == 1
    assert events(shop)["orders", "deadline missed"] == 0


def test_stock_released_at_the_deadline_is_available_to_the_next_order(shop):
    shop.stock(JUMPERS=4)
    with Stopped(shop, "fraud"):
        shop.post(shop.order("o1", quantity=4), shop.order("o2", quantity=4))
        assert shop.reserved("JUMPERS") == 4
        shop.topology.advance(DEADLINE)
        assert shop.reserved("JUMPERS") == 0
    shop.post(shop.order("o3", customer_id=9, quantity=4))
    assert shop.history("o3") == ["CREATED", "VALIDATED"]
    assert {str(o.state) for o in shop.topology.values(ORDERS) if o.id in {"o1", "o2"}} == {"CREATED", "FAILED"}
