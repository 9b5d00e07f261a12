"""What the audit makes of a product as the product service has it: its versions, its rows, and who has heard of it."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from ecosystem.audit.database_rows import ProductRow
from ecosystem.audit.facts import Fact
from ecosystem.audit.judging import products
from ecosystem.audit.report import Rules, ViolationKind
from ecosystem.audit.sources import SUBSCRIBERS, TOPICS, Source
from product_subscribers.monitoring.state import CountedProduct
from product_subscribers.security.state import ProductHistory
from runtime.state.versions import Versioned
from schemas.api import ProductState
from schemas.messages import BuiltInCheck, ProductAlert, ProductAlertKind, ProductEvent, ProductEventKind
from validators.offers import Offer

NOW_MS = 1_000_000_000
RULES = Rules(
    required=frozenset(BuiltInCheck),
    deadline=timedelta(seconds=60),
    grace=timedelta(seconds=30),
    exactly_once=True,
    now_ms=NOW_MS,
    changes=3,
    seen=frozenset(TOPICS) | {Source.PRODUCT_ROWS_AFTER, Source.PRODUCT_LOG},
)
DROP, MANY = ProductAlertKind.PRICE_DROP, ProductAlertKind.MANY_CHANGES


def event(version, price=10, kind="UPDATED", at_s=None, **changes):
    said = {"event_id": f"e{version}", "code": "P", "name": "Product", "price": price, **changes}
    at = datetime.fromtimestamp(1000 * version if at_s is None else at_s, UTC)
    return ProductEvent(version=version, kind=ProductEventKind(kind), at=at, **said)


def alert(kind, version):
    at = datetime.fromtimestamp(0, UTC)
    return ProductAlert(event_id=f"{kind}{version}", kind=kind, code="P", version=version, reason="", at=at)


class Shop:
    """Facts of one product. Everybody has heard of it, unless told otherwise."""

    def __init__(self, *events, ago_s=100):
        self.facts = []
        self.ago_s = ago_s
        self.add(Source.CHANGES, *events)
        self.events = events

    def add(self, source, *messages, ago_s=None):
        at_ms = NOW_MS - 1000 * (self.ago_s if ago_s is None else ago_s)
        for message in messages:
            self.facts.append(Fact(source, 0, len(self.facts), at_ms, False, message.to_json()))
        return self

    def row(self, version, price=10, *, published=True, state="ACTIVE", before=True, ago_s=None):
        row = ProductRow(
            code="P", name="Product", price=price, version=version, state=ProductState(state), published=published
        )
        for source in (Source.PRODUCT_ROWS_BEFORE, Source.PRODUCT_ROWS_AFTER)[0 if before else 1 :]:
            self.add(source, row, ago_s=ago_s)
        return self

    def heard(self, version=None, but=None):
        version = max((e.version for e in self.events), default=0) if version is None else version
        rows = {
            Source.SECURITY_HISTORIES: ProductHistory(version=version, price=10),
            Source.MONITORING_VERSIONS: CountedProduct(version=version, on_offer=True),
            Source.NOTIFIED_VERSIONS: Versioned(version=version),
            Source.INVENTORY_OFFERS: Offer(version=version),
            Source.DETAILS_OFFERS: Offer(version=version),
        }
        for source, row in rows.items():
            if source is not but and version:
                self.add(source, row)
        return self

    def logged(self, *events):
        return self.add(Source.PRODUCT_LOG, *(events or self.events))

    def judge(self, rules=RULES):
        counts = Counter()
        facts = sorted(self.facts, key=lambda fact: fact.source)
        return [v.kind for v in products.judge("P", facts, rules, counts)], counts


def sound(*events):
    last = events[-1]
    gone = last.kind is ProductEventKind.WITHDRAWN
    shop = Shop(*events).heard().logged()
    return shop.row(last.version, last.price, state="WITHDRAWN" if gone else "ACTIVE")


def test_a_product_that_is_kept_announced_logged_and_heard_of():
    found, counts = sound(event(1, kind="CREATED"), event(2, 9), event(3, 9, "WITHDRAWN")).judge()
    assert found == []
    assert (counts["changes"], counts["products stored"], counts["changes logged"]) == (3, 1, 3)


@pytest.mark.parametrize("numbers", [(1, 3), (2,), (1, 2, 2), (2, 1)])
def test_versions_have_no_gaps_and_are_in_order(numbers):
    events = [event(n, event_id=f"e{place}") for place, n in enumerate(numbers)]
    assert ViolationKind.VERSIONS_DIFFER in sound(*events).judge()[0]


def test_a_topic_that_begins_later_is_judged_from_there():
    shop = Shop(event(7), event(8)).heard().row(8)
    rules = replace(RULES, from_ms={Source.CHANGES: {0: 1}}, seen=RULES.seen - {Source.PRODUCT_LOG})
    assert shop.judge(rules)[0] == []


def test_a_message_of_the_outbox_that_is_written_again_counts_once():
    shop = sound(event(1), event(2)).add(Source.CHANGES, event(1))
    found, counts = shop.judge()
    assert (found, counts["changes published again"]) == ([], 1)
    assert sound(event(1), event(2)).add(Source.CHANGES, event(1, price=3)).judge()[0] == [ViolationKind.CHANGE_DIFFERS]


@pytest.mark.parametrize(
    ("shop", "kinds"),
    [
        (Shop(event(1)).heard().logged().row(2), [ViolationKind.CHANGE_LOST]),
        (Shop(event(1)).heard().logged().row(2, published=False), [ViolationKind.CHANGE_LOST]),
        (Shop(event(1)).heard().logged().row(2, published=False, ago_s=20), []),
        (Shop(event(1)).heard().logged().row(2, before=False), []),  # changed since the ends were found
        (Shop(event(1), event(2)).heard().logged().row(1), [ViolationKind.CHANGE_UNKNOWN]),
        (Shop(event(1)).heard().logged(), [ViolationKind.CHANGE_UNKNOWN]),
        (Shop(event(1)).heard().logged().row(1, price=11), [ViolationKind.CHANGE_DIFFERS]),
        (Shop(event(1)).heard().logged().row(1, state="WITHDRAWN"), [ViolationKind.CHANGE_DIFFERS]),
    ],
)
def test_the_database_and_the_topic_say_the_same(shop, kinds):
    assert shop.judge()[0] == kinds


def test_nothing_is_said_of_a_database_that_was_not_read():
    shop = Shop(event(1)).heard()
    assert shop.judge(replace(RULES, seen=frozenset(TOPICS)))[0] == []


@pytest.mark.parametrize(
    ("entries", "kinds"),
    [
        ((event(1),), [ViolationKind.LOG_DIFFERS]),
        ((event(1), event(2, price=3)), [ViolationKind.LOG_DIFFERS]),
        ((event(1), event(2), event(2, event_id="other")), [ViolationKind.LOG_DIFFERS]),
        ((event(1), event(2), event(3)), []),  # it was read later than the topic
    ],
)
def test_the_log_has_each_change_once(entries, kinds):
    shop = Shop(event(1), event(2)).heard().row(2).logged(*entries)
    assert shop.judge()[0] == kinds


@pytest.mark.parametrize("source", SUBSCRIBERS)
def test_each_subscriber_hears_of_each_change_by_itself(source):
    def shop(ago_s):
        return Shop(event(1), event(2), ago_s=ago_s).logged().row(2)

    assert shop(31).heard(but=source).judge()[0] == [ViolationKind.SUBSCRIBER_DIFFERS]
    assert shop(29).heard(but=source).judge()[0] == []
    assert shop(31).heard(but=source).judge(replace(RULES, seen=RULES.seen - {source}))[0] == []
    assert shop(31).heard(3).judge()[0] == [ViolationKind.SUBSCRIBER_DIFFERS] * len(SUBSCRIBERS)


@pytest.mark.parametrize(
    ("events", "alerts", "kinds"),
    [
        ((event(1, 10), event(2, Decimal("0.5"))), [(DROP, 2)], []),
        ((event(1, 10), event(2, Decimal("0.5"))), [], [ViolationKind.ALERT_DIFFERS]),
        ((event(1, 10), event(2, Decimal("0.5"))), [(DROP, 2), (DROP, 2)], [ViolationKind.ALERT_TWICE]),
        ((event(1, 10), event(2, 9)), [(DROP, 2)], [ViolationKind.ALERT_DIFFERS]),
        ([event(n, at_s=n) for n in range(1, 6)], [(MANY, 4)], []),  # told once, as long as it goes on
        ([event(n, at_s=n) for n in range(1, 6)], [(MANY, 5)], [ViolationKind.ALERT_DIFFERS] * 2),
    ],
)
def test_what_is_suspicious_is_told_once(events, alerts, kinds):
    shop = sound(*events).add(Source.ALERTS, *(alert(kind, version) for kind, version in alerts))
    assert shop.judge()[0] == kinds


def test_an_alert_may_still_come_and_one_that_is_no_longer_kept_is_not_missed():
    shop = sound(event(1, 10), event(2, Decimal("0.5")))
    assert shop.judge(replace(RULES, grace=timedelta(seconds=101)))[0] == []
    assert shop.judge(replace(RULES, from_ms={Source.ALERTS: {0: NOW_MS}}))[0] == []
    assert shop.judge(replace(RULES, exactly_once=False))[0] == [ViolationKind.ALERT_DIFFERS]
