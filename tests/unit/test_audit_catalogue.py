"""What the audit makes of a product as the product service has it: its versions and its row."""

from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from ecosystem.audit import catalogue
from ecosystem.audit.facts import TOPICS, Fact, Source
from ecosystem.audit.report import Kind, Rules
from ecosystem.audit.rows import ProductRow
from schemas.api import ProductState
from schemas.messages import CheckType, ProductEvent, ProductEventKind

NOW_MS = 1_000_000_000
RULES = Rules(
    required=frozenset(CheckType),
    deadline=timedelta(seconds=60),
    grace=timedelta(seconds=30),
    exactly_once=True,
    now_ms=NOW_MS,
    seen=frozenset(TOPICS) | {Source.PRODUCTS_AFTER},
)


def event(version, price=10, kind="UPDATED", at_s=None, **changes):
    said = {"event_id": f"e{version}", "code": "P", "name": "Product", "price": price, **changes}
    at = datetime.fromtimestamp(1000 * version if at_s is None else at_s, UTC)
    return ProductEvent(version=version, kind=ProductEventKind(kind), at=at, **said)


class Shop:
    """Facts of one product."""

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
        for source in (Source.PRODUCTS_BEFORE, Source.PRODUCTS_AFTER)[0 if before else 1 :]:
            self.add(source, row, ago_s=ago_s)
        return self

    def judge(self, rules=RULES):
        counts = Counter()
        facts = sorted(self.facts, key=lambda fact: fact.source)
        return [v.kind for v in catalogue.judge("P", facts, rules, counts)], counts


def sound(*events):
    last = events[-1]
    gone = last.kind is ProductEventKind.WITHDRAWN
    shop = Shop(*events)
    return shop.row(last.version, last.price, state="WITHDRAWN" if gone else "ACTIVE")


def test_a_product_that_is_kept_and_announced():
    found, counts = sound(event(1, kind="CREATED"), event(2, 9), event(3, 9, "WITHDRAWN")).judge()
    assert found == []
    assert (counts["changes"], counts["products kept"]) == (3, 1)


@pytest.mark.parametrize("numbers", [(1, 3), (2,), (1, 2, 2), (2, 1)])
def test_versions_have_no_gaps_and_are_in_order(numbers):
    events = [event(n, event_id=f"e{place}") for place, n in enumerate(numbers)]
    assert Kind.VERSIONS_DIFFER in sound(*events).judge()[0]


def test_a_topic_that_begins_later_is_judged_from_there():
    shop = Shop(event(7), event(8)).row(8)
    rules = replace(RULES, from_ms={Source.CHANGES: {0: 1}})
    assert shop.judge(rules)[0] == []


def test_a_message_of_the_outbox_that_is_written_again_counts_once():
    shop = sound(event(1), event(2)).add(Source.CHANGES, event(1))
    found, counts = shop.judge()
    assert (found, counts["changes announced again"]) == ([], 1)
    assert sound(event(1), event(2)).add(Source.CHANGES, event(1, price=3)).judge()[0] == [Kind.CHANGE_DIFFERS]


@pytest.mark.parametrize(
    ("shop", "kinds"),
    [
        (Shop(event(1)).row(2), [Kind.CHANGE_LOST]),
        (Shop(event(1)).row(2, published=False), [Kind.CHANGE_LOST]),
        (Shop(event(1)).row(2, published=False, ago_s=20), []),
        (Shop(event(1)).row(2, before=False), []),  # changed since the ends were found
        (Shop(event(1), event(2)).row(1), [Kind.CHANGE_UNKNOWN]),
        (Shop(event(1)), [Kind.CHANGE_UNKNOWN]),
        (Shop(event(1)).row(1, price=11), [Kind.CHANGE_DIFFERS]),
        (Shop(event(1)).row(1, state="WITHDRAWN"), [Kind.CHANGE_DIFFERS]),
    ],
)
def test_the_database_and_the_topic_say_the_same(shop, kinds):
    assert shop.judge()[0] == kinds


def test_nothing_is_said_of_a_database_that_was_not_read():
    shop = Shop(event(1))
    assert shop.judge(replace(RULES, seen=frozenset(TOPICS)))[0] == []
