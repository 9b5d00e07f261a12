"""Subscribers of products: state and output, also for repeated, late and missing changes."""

from datetime import timedelta
from decimal import Decimal
from uuid import NAMESPACE_URL, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

import product_subscribers.monitoring.app
import product_subscribers.notifications.app
import product_subscribers.security.app
import product_subscribers.transaction_log.app
from product_subscribers.monitoring.processors import ALL
from product_subscribers.monitoring.state import TOTALS
from product_subscribers.notifications.processors import compose
from product_subscribers.notifications.state import Notice
from product_subscribers.security.state import HISTORIES
from runtime.common.settings import Settings
from runtime.testing import TopologyTestDriver
from schemas.messages import ProductAlertKind, ProductEvent, ProductEventKind
from schemas.topics import PRODUCT_ALERTS, PRODUCTS

APPS = {
    "monitoring": product_subscribers.monitoring.app,
    "log": product_subscribers.transaction_log.app,
    "security": product_subscribers.security.app,
    "notifications": product_subscribers.notifications.app,
}
BOTH = ("a@example.org", "b@example.org")


def subscribers(*names, kind=TopologyTestDriver, how=None, **settings):
    return kind(*(APPS[name].build(Settings(**settings)).service for name in names or APPS), **(how or {}))


class Shop:
    """Produces changes of products, with versions and times."""

    def __init__(self, topology):
        self.topology = topology
        self.versions = {}

    def change(self, code="mug", price=12, kind=ProductEventKind.UPDATED, after_s=0.0, send=True):
        self.topology.advance(timedelta(seconds=after_s))
        version = self.versions[code] = self.versions.get(code, 0) + 1
        event = ProductEvent(
            event_id=str(uuid5(NAMESPACE_URL, f"{code}/{version}")),
            kind=ProductEventKind.CREATED if version == 1 else kind,
            code=code,
            name=code.capitalize(),
            price=price,
            version=version,
            at=self.topology.now,
        )
        if send:
            self.topology.send(PRODUCTS, event)
        return event

    def withdraw(self, code="mug"):
        return self.change(code, kind=ProductEventKind.WITHDRAWN)


def alerts(topology):
    return [(alert.code, alert.version, alert.kind.value) for alert in topology.values(PRODUCT_ALERTS)]


def totals(topology):
    row = topology.row(TOTALS, ALL)
    return row.created, row.updated, row.withdrawn, row.on_offer, row.gaps


@pytest.fixture(params=["composed", "apart", "apart, not fused"])
def how(request):
    return {"apart": "apart" in request.param, "fuse": "not fused" not in request.param}


def test_each_change_reaches_every_subscriber_once(how):
    topology = subscribers(product_notifications_to=BOTH, how=how)
    shop = Shop(topology)
    events = [shop.change(), shop.change("jug", 30), shop.change(price=1), shop.withdraw("jug"), shop.change("jug", 29)]
    topology.send(PRODUCTS, *events)

    assert totals(topology) == (2, 2, 1, 2, 0)
    log, notices = (effect for w in topology.workers for s in w.topology.services for effect in s.side_effects)
    assert topology.pending(log) == {event.event_id: event for event in events}
    [alert] = topology.values(PRODUCT_ALERTS)
    assert (alert.code, alert.version, alert.kind) == ("mug", 2, ProductAlertKind.PRICE_DROP)
    assert alert.reason == "the price fell from 12.00 to 1.00, by more than 90 %"
    assert set(topology.pending(notices)) == {f"{e.event_id}/{to}" for e in [*events, alert] for to in BOTH}
    counted = sum((worker.events for worker in topology.workers), start=type(topology.workers[0].events)())
    assert counted["product-monitoring", "created"] == 2
    assert counted["product-security", "price drop"] == 1
    assert counted["product-notifications", "repeated"] == len(events)


def test_a_withdrawn_product_is_not_on_offer_until_it_is_updated():
    topology = subscribers("monitoring")
    shop = Shop(topology)
    seen = []
    for step in (shop.change, lambda: shop.change("jug"), shop.withdraw, shop.change, shop.change):
        step()
        seen.append(totals(topology)[3])
    assert seen == [1, 2, 1, 2, 2]


def test_a_version_gap_is_counted_and_a_late_version_changes_nothing():
    topology = subscribers()
    shop = Shop(topology)
    shop.change(price=100)
    late = [shop.change(price=1, send=False), shop.change(price=100, send=False)]
    shop.change(price=99)
    topology.send(PRODUCTS, *late)

    assert totals(topology) == (1, 1, 0, 1, 2)
    assert alerts(topology) == []
    assert topology.row(HISTORIES.table, "mug").version == 4


@pytest.mark.parametrize(
    ("before", "after", "flagged"),
    [
        ("100", "10", False),  # by exactly 90 %
        ("100", "9.99", True),
        ("100", "100", False),
        ("100", "1000", False),
        ("0.01", "0", True),
        ("0", "0", False),
        ("99999999999.9999", "0.0001", True),
    ],
)
def test_a_price_drop_beyond_the_limit_raises_an_alert(before, after, flagged):
    topology = subscribers("security")
    shop = Shop(topology)
    shop.change(price=Decimal(before))
    shop.change(price=Decimal(after))
    assert alerts(topology) == ([("mug", 2, "PRICE_DROP")] if flagged else [])


def test_the_price_before_a_withdrawal_counts_for_a_price_drop():
    topology = subscribers("security")
    shop = Shop(topology)
    shop.change(price=100)
    shop.change(price=100, kind=ProductEventKind.WITHDRAWN)
    shop.change(price=5)
    assert alerts(topology) == [("mug", 3, "PRICE_DROP")]


@pytest.mark.parametrize(
    ("pauses", "flagged"),
    [
        ([0, 10, 10], []),
        ([0, 10, 10, 10], [4]),
        ([0, 20, 20, 20], []),  # the first one is a minute ago
        ([0, 20, 20, 19.9], [4]),
        ([0, 1, 1, 1, 1, 1, 1], [4]),  # one alert per burst
        ([0, 1, 1, 1, 60, 1, 1, 1], [4, 8]),
    ],
)
def test_too_many_changes_in_the_window_raise_one_alert(pauses, flagged):
    topology = subscribers("security", product_changes_limit=3)
    shop = Shop(topology)
    for seconds in pauses:
        shop.change(after_s=seconds)
    assert alerts(topology) == [("mug", version, "MANY_CHANGES") for version in flagged]


CHANGES = st.lists(
    st.tuples(st.sampled_from(["mug", "jug"]), st.sampled_from([0, 5, 50, 600]), st.sampled_from([0, 1, 25, 70])),
    max_size=20,
)


@given(CHANGES, st.lists(st.integers(0, 19), max_size=10))
def test_alerts_equal_those_computed_from_the_whole_history_despite_repetitions(changes, again):
    limit, topology = 3, subscribers("security", product_changes_limit=3)
    shop, history, expected, over = Shop(topology), {}, set(), {}
    sent = []
    for code, price, after_s in changes:
        event = shop.change(code, price, after_s=after_s)
        sent.append(event)
        before = history.setdefault(code, [])
        if before and before[-1].price * Decimal("0.1") > event.price:
            expected.add((code, event.version, "PRICE_DROP"))
        before.append(event)
        within = sum(event.at - e.at < timedelta(minutes=1) for e in before)
        if within > limit and not over.get(code):
            expected.add((code, event.version, "MANY_CHANGES"))
        over[code] = within > limit
        topology.send(PRODUCTS, *(sent[n] for n in again if n < len(sent)))
    assert sorted(alerts(topology)) == sorted(expected)
    for code in history:
        assert len(topology.row(HISTORIES.table, code).recent) <= limit + 1


def test_without_addresses_no_email_is_enqueued():
    topology = subscribers("notifications")
    Shop(topology).change()
    assert not topology.pending(topology.workers[0].topology.services[0].side_effects[0])


def test_an_email_keeps_its_message_id_when_repeated_and_each_event_and_address_has_its_own():
    notice = Notice(event_id="e1", to="a@example.org", subject="Product čaj: created", text="Čaj\n")
    made = [compose(n, "Shop <shop@example.com>") for n in (notice, notice, notice.model_copy(update={"to": BOTH[1]}))]
    ids = [message["Message-ID"] for message in made]
    assert ids[0] == ids[1] != ids[2]
    assert all(id_.endswith("@example.com>") for id_ in ids)
    assert (made[0]["Subject"], made[0].get_content()) == (notice.subject, notice.text)


def test_a_notice_with_a_malformed_subject_is_rejected():
    with pytest.raises(ValueError, match="line breaks"):
        compose(Notice(event_id="e1", to="a@example.org", subject="one\ntwo", text=""), "shop@example.com")
