"""Audit of services run in memory: it never reports correct services, and finds every wrong total."""

import asyncio
from collections import defaultdict
from datetime import timedelta
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import email_service.app
import fulfilment_service.app
import portal_service.app
import product_subscribers.monitoring.app
import product_subscribers.notifications.app
import product_subscribers.security.app
from ecosystem.audit.facts import Fact, split_key
from ecosystem.audit.reading.fact_store import FactStore
from ecosystem.audit.report import Report, Rules, ViolationKind
from ecosystem.audit.run import judge
from ecosystem.audit.sources import TOPICS, Source
from orders_service.commands import place
from orders_service.state import ORDERS_VIEW
from runtime import testing
from runtime.common.partitioning import partition_of
from runtime.common.settings import Settings
from runtime.model.records import Write
from runtime.state.stores import MemoryStore, MemoryStores
from runtime.testing import TopologyTestDriver
from schemas.messages import BuiltInCheck, Customer, Payment, ProductEvent, ProductEventKind
from schemas.topics import CUSTOMERS, HOME_CHECKINS, ORDERS, PAYMENTS, WAREHOUSE_INVENTORY
from schemas.topics import PRODUCTS as CATALOGUE
from tests.samples import checked_in, order
from tests.topology.conftest import CORE_APPS, Shop
from validators.inventory.state import STOCK

SERVICES = {
    **CORE_APPS,
    "fulfilment": fulfilment_service.app,
    "email": email_service.app,
    "portal": portal_service.app,
    "product-monitoring": product_subscribers.monitoring.app,
    "product-security": product_subscribers.security.app,
    "product-notifications": product_subscribers.notifications.app,
}
SOURCES = {name: source for source, name in TOPICS.items()}


class LoggedStore(MemoryStore):
    """A store that records its changes, like a changelog."""

    def __init__(self, log):
        super().__init__()
        self.log = log

    def apply(self, rows, offset):
        super().apply(rows, offset)
        self.log(rows)


class World:
    """A topology, and the facts that an audit would read from it."""

    def __init__(self, *, apart, fuse, without=()):
        self.changes = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(testing, "MemoryStores", self.stores)
            configured = Settings(product_notifications_to="shop@example.org")
            services = [app.build(configured).service for name, app in SERVICES.items() if name not in without]
            self.topology = TopologyTestDriver(*services, apart=apart, fuse=fuse)
        self.shop = Shop(self.topology)
        self.without = without

    def stores(self):
        class Logged(MemoryStores):
            def open(inner, table, partition):  # noqa: N805
                log = partial(self.changed, f"{table}-changelog", partition)
                return inner.stores.setdefault((table, partition), LoggedStore(log))

        return Logged()

    def changed(self, topic, partition, rows):
        now = int(self.topology.now.timestamp() * 1000)
        for key, value in rows.items():
            if topic in SOURCES:
                self.changes.append((key, Fact(SOURCES[topic], partition, len(self.changes), now, False, value)))

    def facts(self):
        written = [
            (r.key, Fact(SOURCES[tp.topic], r.partition, r.offset, r.timestamp_ms, False, r.value))
            for tp, log in self.topology.topics.items()
            if tp.topic in SOURCES
            for r in log
        ]
        return written + self.changes

    def audit(self, facts=None):
        seen = set(TOPICS)
        if "inventory" in self.without:
            seen -= {Source.STOCK, Source.RESERVATIONS, Source.INVENTORY_OFFERS}
        if "details" in self.without:
            seen -= {Source.DETAILS_OFFERS}
        if "fulfilment" in self.without:
            seen -= {Source.PROGRESS}
        if "email" in self.without:
            seen -= {Source.EMAILS}
        rules = Rules(
            required=frozenset(BuiltInCheck),
            deadline=timedelta(seconds=60),
            grace=timedelta(0),
            exactly_once=True,
            now_ms=int(self.topology.now.timestamp() * 1000),
            seen=frozenset(seen),
            notified=("shop@example.org",),
        )
        report = Report()
        with FactStore() as kept:
            for key, fact in self.facts() if facts is None else facts:
                of, about = split_key(fact.source, key, fact.value)
                kept.add(of, fact._replace(about=about))
            asyncio.run(judge(kept, rules, report))
        return report


PRODUCTS = ("JUMPERS", "SOCKS")
CONTENTS = st.fixed_dictionaries(
    {
        "product": st.sampled_from((*PRODUCTS, "UNICORN")),
        "quantity": st.sampled_from((1, 1, 1, 2, 3, 0, -1)),
        "price": st.sampled_from((1, 1, 900, 2500)),
        "customer_id": st.integers(1, 2),
    }
)
ORDER = st.integers(0, 7)
EVENTS = st.one_of(
    st.tuples(st.just("burst"), st.lists(ORDER, min_size=1, max_size=8)),
    st.tuples(st.just("place"), ORDER),
    st.tuples(st.just("pay"), st.tuples(ORDER, st.sampled_from((1, 10_000)), st.sampled_from(("EUR", "EUR", "IDR")))),
    st.tuples(st.just("check in"), ORDER),
    st.tuples(st.just("fulfil"), ORDER),
    st.tuples(st.just("customer"), st.tuples(st.integers(1, 2), st.sampled_from(("gold", "silver", "amber")))),
    st.tuples(st.just("customer gone"), st.integers(1, 2)),
    st.tuples(st.just("change"), st.tuples(st.sampled_from(PRODUCTS), st.sampled_from((0, 1, 10, 100)))),
    st.tuples(st.just("changes again"), st.sampled_from(PRODUCTS)),
    st.tuples(st.just("stock"), st.tuples(st.sampled_from(PRODUCTS), st.integers(0, 6))),
    st.tuples(st.just("withdraw"), st.sampled_from(PRODUCTS)),
    st.tuples(st.just("wait"), st.sampled_from((1, 61, 3600, 8 * 24 * 3600))),
)


def payment(n, amount, ccy="EUR"):
    return Payment(id=f"p{n}-{amount}-{ccy}", order_id=f"o{n}", ccy=ccy, amount=amount)


def customer(number, level):
    said = {"first_name": "Franz", "last_name": "Kafka", "email": "franz@example.org", "address": "Praha"}
    return Customer(id=number, level=level, **said)


def change(code, version, price, at):
    kind = ProductEventKind.UPDATED if price else ProductEventKind.WITHDRAWN
    said = {"event_id": f"{code}-{version}", "name": code, "price": price}
    return ProductEvent(code=code, version=version, kind=kind, at=at, **said)


def happen(world, contents, events):
    topology, shop = world.topology, world.shop
    made = {}
    changes = defaultdict(list)

    def made_of(n):
        # A replayed message keeps its time, by which the inventory recognises orders older than its TTL.
        return made.setdefault(n, shop.order(f"o{n}", **contents[n]))

    shop.stock(JUMPERS=4, SOCKS=3)
    for number, (kind, what) in enumerate(events):
        match kind:
            case "burst":
                for n in what:
                    one = made_of(n)
                    key = one.id.encode()
                    topology.write(Write(ORDERS.name, partition_of(key, topology.partitions), key, one.to_json()))
                topology.run()
            case "place":
                one = made_of(what)
                topology.call(ORDERS_VIEW, one.id, partial(place, one))
            case "stock":
                shop.stock(**{what[0]: what[1]})
            case "withdraw":
                topology.send_raw(WAREHOUSE_INVENTORY, what.encode(), None)
            case "pay":
                topology.send(PAYMENTS, payment(*what))
            case "check in":
                topology.send(HOME_CHECKINS, checked_in(f"c{number}", f"o{what}"))
            case "fulfil":
                topology.send(PAYMENTS, payment(what, 10_000))
                topology.send(HOME_CHECKINS, checked_in(f"c{number}", f"o{what}"))
            case "customer":
                topology.send(CUSTOMERS, customer(*what))
            case "change":
                product, price = what
                changes[product].append(change(product, len(changes[product]) + 1, price, topology.now))
                topology.send(CATALOGUE, changes[product][-1])
            case "changes again":
                topology.send(CATALOGUE, *changes[what][-2:])
            case "customer gone":
                topology.send_raw(CUSTOMERS, str(what).encode(), None)
            case "wait":
                topology.advance(timedelta(seconds=what))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    apart=st.booleans(),
    fuse=st.booleans(),
    without=st.sampled_from(((), (), (), ("fraud",), ("details",), ("inventory",), ("fulfilment",), ("email",))),
    contents=st.lists(CONTENTS, min_size=8, max_size=8),
    events=st.lists(EVENTS, max_size=12),
    known=st.booleans(),
    fulfilled=st.booleans(),
    cleaned=st.dictionaries(st.sampled_from(list(SOURCES.values())), st.floats(0, 1)),
)
def test_the_audit_never_accuses_correct_services(apart, fuse, without, contents, events, known, fulfilled, cleaned):
    world = World(apart=apart, fuse=fuse, without=without)
    customers = [("customer", (number, "gold")) for number in (1, 2) if known]
    happen(world, contents, [*customers, *events, *(("fulfil", n) for n in range(8) if fulfilled)])
    report = world.audit(compacted(world.facts(), cleaned))
    assert report.violations == []
    waiting = (
        report.counts["emails due"] + report.counts["notices due"] + report.counts["to be rejected"]
    )  # without a mail server nothing is delivered
    assert report.open == waiting or without


def compacted(facts, cleaned):
    """Records that compaction keeps: in a fraction `cleaned` of each topic, the last record per key."""
    result = []
    for source, topic in TOPICS.items():
        records = [(key, fact) for key, fact in facts if fact.source is source]
        if topic.endswith("-changelog") or source is Source.WAREHOUSE:
            point = int(len(records) * cleaned.get(source, 0))
            last = {key: fact.offset for key, fact in records[:point]}
            records = [(k, f) for n, (k, f) in enumerate(records) if n >= point or last[k] == f.offset]
            if cleaned.get(source) == 1:  # tombstones are removed in the end
                records = [(k, f) for k, f in records if f.value is not None]
        result += records
    return result


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    apart=st.booleans(),
    contents=st.lists(CONTENTS, min_size=8, max_size=8),
    bursts=st.lists(st.lists(ORDER, min_size=1, max_size=8), min_size=1, max_size=4),
    by=st.sampled_from((-2, -1, 1, 3)),
)
def test_the_audit_finds_every_wrong_reservation_total(apart, contents, bursts, by):
    world = World(apart=apart, fuse=True)
    happen(world, contents, [("burst", burst) for burst in bursts])
    facts = world.facts()
    last = max(n for n, (key, fact) in enumerate(facts) if fact.source is Source.STOCK)
    key, fact = facts[last]
    stock = STOCK.model.from_json(fact.value)
    wrong = stock.model_copy(update={"reserved": stock.reserved + by})
    facts[last] = key, fact._replace(value=wrong.to_json())
    assert ViolationKind.SUM_DIFFERS in world.audit(facts).found


def test_orders_without_an_orders_service_are_reported_stuck():
    world = World(apart=False, fuse=True, without=("orders",))
    world.topology.send(ORDERS, order("o1", created_at=world.topology.now))
    world.topology.advance(timedelta(seconds=61))
    assert world.audit().found == {ViolationKind.STUCK: 1}
