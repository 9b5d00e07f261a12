"""At least once: after a crash in any batch, at any step of the commit, all output of every service is there."""

from datetime import timedelta

import pytest

import runtime.model.redo
from ecosystem.services import CORE, NAMES, build
from runtime.common.settings import Settings
from schemas.messages import CheckinRejected, Customer, Payment
from schemas.topics import CHECKIN_REJECTIONS, CUSTOMERS, HOME_CHECKINS, PAYMENTS, PRODUCTS
from tests.interrupted import STEPS, Interrupted, crashes
from tests.samples import checked_in
from tests.topology.conftest import Shop
from tests.topology.test_product_subscribers import Shop as ProductShop
from webhook_service.commands import SubscriptionCommands
from webhook_service.state import SUBSCRIPTIONS, SUBSCRIPTIONS_KEY, SecretVersion, Subscription

FRANZ = Customer(id=1, first_name="Franz", last_name="Kafka", email="franz@example.org", address="Praha", level="gold")
ORDERS = ("orders", "fraud", "inventory", "details", "fulfilment", "email")
CHECK_INS = ("portal", "checkin")
PRODUCT_SERVICES = ("products", "inventory", "details", *(name for name in NAMES if name.startswith("product-")))


def payment(order_id, id_="p1"):
    return Payment(id=id_, order_id=order_id, ccy="EUR", amount=15)


def order(shop, **changes):
    shop.post(shop.order("o1", **{"product": "JUMPERS", "quantity": 3, "price": 5, **changes}))


def shipped(shop):
    shop.topology.send(CUSTOMERS, FRANZ)
    order(shop)
    shop.topology.send(PAYMENTS, payment("o1"))
    shop.topology.send(HOME_CHECKINS, checked_in())


def shipped_at_once(shop):
    shop.topology.send(PAYMENTS, payment("o1"))
    shop.topology.send(HOME_CHECKINS, checked_in())
    order(shop)
    shop.topology.advance(timedelta(seconds=5))
    shop.topology.send(CUSTOMERS, FRANZ)


def shipped_when_paid(shop):
    shop.topology.send(CUSTOMERS, FRANZ)
    order(shop)
    shop.topology.send(HOME_CHECKINS, checked_in(), checked_in("c2"))
    shop.topology.send(PAYMENTS, payment("o1"))


def failed_with_a_check_in(shop):
    shop.topology.send(CUSTOMERS, FRANZ)
    shop.topology.send(HOME_CHECKINS, checked_in(), checked_in("c2"))
    order(shop, product="UNICORN")
    shop.topology.send(HOME_CHECKINS, checked_in("c3"))


def check_in_rejected_before_its_order(shop):
    shop.topology.send(HOME_CHECKINS, checked_in())
    shop.topology.advance(timedelta(seconds=70))
    order(shop, product="UNICORN")


def check_in_rejected_before_its_paid_order(shop):
    shop.topology.send(PAYMENTS, payment("o1"))
    shop.topology.send(HOME_CHECKINS, checked_in())
    shop.topology.advance(timedelta(seconds=70))
    order(shop)


def paid_in_parts(shop):
    shop.topology.send(PAYMENTS, part("p1", 8))
    order(shop)
    shop.topology.send(HOME_CHECKINS, checked_in())
    shop.topology.send(PAYMENTS, part("p1", 8), part("p2", 4), part("p2", 4), part("p3", 3))
    shop.topology.advance(timedelta(seconds=5))
    shop.topology.send(CUSTOMERS, FRANZ)


def never_paid_in_full(shop):
    shop.topology.send(CUSTOMERS, FRANZ)
    shop.topology.send(HOME_CHECKINS, checked_in())
    order(shop)
    shop.topology.send(PAYMENTS, part("p1", 8), part("p2", 6), part("p1", 8), part("p3", 20, "IDR"))


def part(id_, amount, ccy="EUR"):
    return Payment(id=id_, order_id="o1", ccy=ccy, amount=amount)


def never_validated(shop):
    shop.topology.send(CUSTOMERS, FRANZ)
    shop.topology.send(HOME_CHECKINS, checked_in())
    order(shop)
    shop.topology.advance(timedelta(seconds=70))


def check_ins_rejected(shop):
    shop.topology.send(HOME_CHECKINS, checked_in(), checked_in("c2"))
    for id_ in ("c1", "c2"):
        shop.topology.send(CHECKIN_REJECTIONS, CheckinRejected(event_id=id_, order_no="o1", reason="the order FAILED"))


def products_changed(shop):
    products = ProductShop(shop.topology)
    products.change(price=100)
    changes = [products.change(price=price, send=False) for price in (1, 100, 2, 100)]
    shop.topology.send(PRODUCTS, *changes, products.change("jug", send=False), products.withdraw("jug"))


def subscribed(shop):
    services = [service for worker in shop.topology.workers for service in worker.topology.services]
    [webhooks] = [service for service in services if service.name == "webhooks"]
    subscription = Subscription(
        id="w1",
        url="https://example.org",
        events=("order.validated", "order.failed"),
        created_at=shop.topology.now,
        secrets=(SecretVersion(version=1, key_id="k"),),
    )
    commands = SubscriptionCommands(shop.topology.partitions, webhooks.inputs[0].processor.__self__, timedelta(hours=1))
    shop.topology.call(SUBSCRIPTIONS, SUBSCRIPTIONS_KEY, lambda ctx: commands.add(subscription, ctx))
    order(shop)
    shop.post(shop.order("o2", product="UNICORN", quantity=1, price=5))


SCENARIOS = {
    shipped: ORDERS,
    shipped_at_once: ORDERS,
    shipped_when_paid: ORDERS,
    failed_with_a_check_in: ORDERS,
    check_in_rejected_before_its_order: ORDERS,
    check_in_rejected_before_its_paid_order: ORDERS,
    never_validated: tuple(name for name in ORDERS if name != "fraud"),
    paid_in_parts: ORDERS,
    never_paid_in_full: ORDERS,
    check_ins_rejected: CHECK_INS,
    products_changed: PRODUCT_SERVICES,
    subscribed: (*CORE, "webhooks"),
}
"""Each with the services that it runs."""


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    """Redo records of a few rows have several pieces."""
    monkeypatch.setattr(runtime.model.redo, "PIECE_BYTES", 300)


def run(scenario, how, **crash):
    """Runs a scenario; returns the distinct messages, side effects and rows of the portal, and the driver."""
    settings = Settings(product_notifications_to=("a@example.org",), product_changes_limit=2)
    services = [definition.service for definition in build(SCENARIOS[scenario], settings)]
    topology = Interrupted(*services, apart="apart" in how, fuse="not fused" not in how, **crash)
    shop = Shop(topology)
    shop.stock(JUMPERS=100)
    scenario(shop)
    topology.run()
    internal = {topic.name for s in services for topic in s.outputs if topic.internal}
    effects = {(effect.name, key) for s in services for effect in s.side_effects for key in topology.pending(effect)}
    messages = {(tp.topic, r.key, r.value) for tp, log in topology.topics.items() for r in log}
    states = {(table, key, row) for table, key, row in rows(topology) if table in READ_BY_CLIENTS}
    return {m for m in messages if m[0] not in internal} | effects | states, topology


READ_BY_CLIENTS = {"portal-check-ins", "product-monitoring-totals", "product-monitoring-counted", "inventory-stock"}
"""Tables whose rows are the same with any number of crashes."""


def rows(topology):
    for worker in topology.workers:
        for (table, _), store in worker.stores.stores.items():
            for key, row in store.items():
                yield table, key, row


@pytest.mark.parametrize("how", ["composed", "composed, not fused", "apart"])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda s: s.__name__)
def test_a_crash_in_any_batch_loses_no_output_and_no_side_effect(scenario, how):
    expected, undisturbed = run(scenario, how)
    assert expected
    for where, found in crashes(undisturbed, lambda **crash: run(scenario, how, **crash)):
        assert not expected - found, where
        if scenario is never_paid_in_full:  # no payment counts twice
            assert not {name for name, *_ in found} & {"fulfilments", "letter"}, where


def test_every_service_is_interrupted():
    interrupted = {name for names in SCENARIOS.values() for name in names}
    assert set(NAMES) - interrupted == {"history", "board"}, "which have no processors"
    assert len(STEPS) == len(set(STEPS))
