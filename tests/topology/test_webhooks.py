"""Webhooks in memory: who gets what, in which order, and what a failing subscriber leaves behind."""

import json
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any

import pytest

from runtime.common.partitioning import partition_of
from runtime.common.settings import Settings
from runtime.model.context import RejectedSideEffect
from runtime.model.records import Write
from runtime.state import serial_effects
from runtime.testing import TopologyTestDriver
from schemas.messages import OrderState, ProductEvent
from schemas.topics import ORDERS, PRODUCTS
from schemas.webhooks import DeadLetterNotice, DeliveryAttempt, EventType
from tests.samples import order
from webhook_service import app
from webhook_service.commands import SubscriptionCommands, TooManySecrets, TooManySubscriptions, attempts_of
from webhook_service.dead_letters import DeadLetterEvents
from webhook_service.events import dead_letter_event
from webhook_service.state import (
    ATTEMPTS,
    ATTEMPTS_BY_SUBSCRIPTION,
    COPIES,
    DEAD_LETTER_POSITIONS,
    MAX_ATTEMPTS,
    MAX_SECRETS,
    MAX_SUBSCRIPTIONS,
    SUBSCRIPTIONS,
    SUBSCRIPTIONS_KEY,
    SecretVersion,
    Subscription,
    SubscriptionAttempt,
    copy_key,
    copy_keys,
)

PARTITIONS = 4
ORDER_TYPES = tuple(type_ for type_ in EventType if type_.startswith("order."))
REPLAYED = (("replayed-from", b"orders/0/0"), ("replays", b"1"))


class Hooks:
    """The webhook service in memory, and whoever operates and receives."""

    def __init__(self, *, fuse=True, **settings):
        self.service = app.build(Settings(partitions=PARTITIONS, **settings)).service
        self.driver = TopologyTestDriver(self.service, partitions=PARTITIONS, fuse=fuse)
        self.effect = self.service.side_effects[0]
        on_order: Any = next(given for given in self.service.inputs if given.topic is ORDERS).processor
        self.commands = SubscriptionCommands(PARTITIONS, on_order.__self__, timedelta(hours=1))
        self._ids = count(1)

    def call(self, decide, key=SUBSCRIPTIONS_KEY, table=SUBSCRIPTIONS):
        return self.driver.call(table, key, decide)

    def subscribe(self, *events, id_=None):
        new = Subscription(
            id=id_ or f"w{next(self._ids)}",
            url="https://example.org",
            events=events or ORDER_TYPES,
            created_at=self.driver.now,
            secrets=(SecretVersion(version=1, key_id="k"),),
        )
        return self.call(lambda ctx: self.commands.add(new, ctx)).id

    def orders(self, *states, id_="o1", **content):
        self.driver.send(ORDERS, *(order(id_, state=state, **content) for state in states))

    @property
    def in_flight(self):
        """What is being delivered: subscription, sequence and type."""
        pending = self.driver.pending(self.effect).values()
        return sorted((d.subscription_id, d.sequence, d.type) for d in pending)

    def end(self, chosen=lambda delivery: True, rejection=None):
        """Ends a delivery as the runtime acknowledges it, and returns it; `None` if there is none."""
        for key, payload in sorted(self.driver.pending(self.effect).items()):
            if not chosen(payload):
                continue

            def acknowledge(ctx, key=key, payload=payload):
                pending = ctx.get(self.service.pending, key)
                ctx.delete(self.service.pending, key)
                if rejection is None:
                    self.effect.on_done(payload, ctx)
                else:
                    ctx.dead_letter(key, pending, rejection)
                    self.effect.on_rejected(payload, rejection, ctx)

            self.call(acknowledge, payload.partition_key, self.service.pending)
            return payload
        return None

    def deliver_all(self, **arguments):
        return list(iter(lambda: self.end(**arguments), None))

    @property
    def dead_letters(self):
        return self.driver.records("webhooks-effects.dead-letters")

    def left(self):
        """Rows that are left of deliveries, in all partitions."""
        tables = [*(t.name for t in self.service.tables[3:]), self.service.pending.name]
        (worker,) = self.driver.workers
        return [
            (table, key)
            for table in tables
            for partition in range(PARTITIONS)
            for key, _ in worker.stores.open(table, partition).items()
        ]


@pytest.fixture(params=[True, False], ids=["fused", "through Kafka"])
def hooks(request):
    return Hooks(fuse=request.param)


def test_every_partition_knows_the_subscriptions(hooks):
    first, second = hooks.subscribe(), hooks.subscribe()
    for key in copy_keys(PARTITIONS):
        assert [s.id for s in hooks.driver.row(SUBSCRIPTIONS, key).subscriptions] == [first, second]
    assert {partition_of(key.encode(), PARTITIONS) for key in copy_keys(PARTITIONS)} == set(range(PARTITIONS))


def test_an_outdated_copy_has_no_effect(hooks):
    hooks.subscribe()
    key = next(key for key in copy_keys(PARTITIONS) if key != SUBSCRIPTIONS_KEY)
    now = hooks.driver.row(SUBSCRIPTIONS, key)
    hooks.driver.send(COPIES, now.model_copy(update={"version": 0, "subscriptions": ()}))
    assert hooks.driver.row(SUBSCRIPTIONS, key) == now


@pytest.mark.parametrize("id_", ["o1", "o2", "o3", "o4", "o5"])
def test_an_event_goes_to_those_who_subscribed_to_its_type(hooks, id_):
    failed, all_ = hooks.subscribe("order.failed"), hooks.subscribe()
    hooks.orders(OrderState.CREATED, id_=id_)
    assert hooks.in_flight == []
    hooks.orders(OrderState.FAILED, id_=id_, reasons=("FRAUD_CHECK: too much",))
    assert hooks.in_flight == [(one, f"order/{id_}", "order.failed") for one in sorted([failed, all_])]
    body = json.loads(hooks.end().body)
    assert (body["type"], body["version"]) == ("order.failed", 1)
    assert body["data"]["id"] == id_
    assert body["data"]["reasons"] == ["FRAUD_CHECK: too much"]


def test_a_change_of_a_product_is_an_event(hooks):
    hooks.subscribe("product.changed")
    at = hooks.driver.now
    change = ProductEvent(event_id="e", kind="UPDATED", code="mug", name="Mug", price=12, version=2, at=at)
    hooks.driver.send(PRODUCTS, change)
    body = json.loads(hooks.end().body)
    assert (body["type"], body["data"]["code"], body["data"]["version"]) == ("product.changed", "mug", 2)


def test_deliveries_of_an_order_are_one_after_the_other(hooks):
    dead, alive = hooks.subscribe(), hooks.subscribe()
    hooks.orders(OrderState.VALIDATED, OrderState.SHIPPED)
    hooks.orders(OrderState.FAILED, id_="other")
    delivered = hooks.deliver_all(chosen=lambda d: d.subscription_id == alive)
    assert sorted(d.type for d in delivered) == ["order.failed", "order.shipped", "order.validated"]
    assert [d.type for d in delivered if d.sequence == "order/o1"] == ["order.validated", "order.shipped"]
    assert hooks.in_flight == [(dead, "order/o1", "order.validated"), (dead, "order/other", "order.failed")]

    hooks.end(chosen=lambda d: d.type == "order.validated", rejection="gone")
    assert (dead, "order/o1", "order.shipped") in hooks.in_flight, "a dead letter lets the next one start"
    hooks.deliver_all()
    assert hooks.left() == []


def test_a_redriven_delivery_disturbs_no_sequence(hooks):
    hooks.subscribe()
    hooks.orders(OrderState.VALIDATED)
    hooks.end(rejection="HTTP 500")
    hooks.orders(OrderState.SHIPPED, OrderState.CANCELLED)
    (letter,) = hooks.dead_letters
    hooks.driver.write(Write(hooks.service.redrive_topic.name, letter.partition, letter.key, letter.value))
    hooks.driver.run()
    validated = lambda d: d.type == "order.validated"  # noqa: E731
    assert [type_ for _, _, type_ in hooks.in_flight] == ["order.shipped", "order.validated"]
    assert hooks.end(chosen=validated).webhook_id == json.loads(letter.value)["key"].partition("/")[0]
    assert [type_ for _, _, type_ in hooks.in_flight] == ["order.shipped"]
    assert [d.type for d in hooks.deliver_all()] == ["order.shipped", "order.cancelled"]
    assert hooks.left() == []


def test_a_repeated_message_has_the_id_of_the_first(hooks):
    hooks.subscribe()
    hooks.orders(OrderState.VALIDATED)
    first = hooks.end()
    hooks.orders(OrderState.VALIDATED)
    assert hooks.end().webhook_id == first.webhook_id
    hooks.orders(OrderState.FAILED, attempt=2)
    hooks.orders(OrderState.FAILED, attempt=3)
    assert len({d.webhook_id for d in hooks.deliver_all()} | {first.webhook_id}) == 3


@pytest.mark.parametrize(("more", "delivered"), [((), 0), ((("side-effects", b"perform"),), 1)])
def test_a_replayed_record_is_delivered_on_request_only(hooks, more, delivered):
    hooks.subscribe()
    record = order("o1", state=OrderState.VALIDATED)
    hooks.driver.send_raw(ORDERS, b"o1", record.to_json(), *REPLAYED, *more)
    assert len(hooks.in_flight) == delivered
    hooks.orders(OrderState.SHIPPED)  # which nothing holds up
    assert len(hooks.deliver_all()) == delivered + 1
    assert hooks.left() == []


@pytest.mark.parametrize("partition", range(PARTITIONS))
def test_a_removed_subscription_gets_nothing_new_and_leaves_no_log(hooks, partition):
    (id_,) = in_partition(partition, 1)
    gone, kept = hooks.subscribe(id_=id_), hooks.subscribe()
    for id_ in (gone, kept):
        attempt(hooks, id_)
    assert hooks.call(lambda ctx: hooks.commands.remove(gone, ctx))
    assert not hooks.call(lambda ctx: hooks.commands.remove(gone, ctx))
    hooks.orders(OrderState.VALIDATED)
    assert [id_ for id_, _, _ in hooks.in_flight] == [kept]
    assert hooks.driver.row(ATTEMPTS, gone) is None
    assert log(hooks, gone) == ()
    assert len(log(hooks, kept)) == 1
    attempt(hooks, gone)  # it was under way
    assert hooks.driver.row(ATTEMPTS, gone) is None


def attempt(hooks, id_, number=0):
    made = DeliveryAttempt(
        at=hooks.driver.now, webhook_id=f"evt_{number}", type="order.failed", delivered=True, status=204, duration_ms=3
    )
    hooks.driver.send(ATTEMPTS_BY_SUBSCRIPTION, SubscriptionAttempt(subscription_id=id_, attempt=made))


def log(hooks, id_):
    return hooks.call(attempts_of(id_), id_, ATTEMPTS)


def test_the_log_keeps_the_latest_attempts(hooks):
    id_ = hooks.subscribe()
    for number in range(MAX_ATTEMPTS + 3):
        attempt(hooks, id_, number)
    kept = [a.webhook_id for a in log(hooks, id_)]
    assert kept == [f"evt_{number}" for number in range(MAX_ATTEMPTS + 2, 2, -1)]


def test_secrets_overlap(hooks):
    id_ = hooks.subscribe()
    rotate = lambda ctx: hooks.commands.rotate(id_, "k2", ctx)  # noqa: E731
    rotated = hooks.call(rotate)
    began = hooks.driver.now
    assert [(s.version, s.key_id, s.until) for s in rotated.secrets] == [
        (2, "k2", None),
        (1, "k", began + timedelta(hours=1)),
    ]
    assert hooks.driver.row(SUBSCRIPTIONS, copy_key("o1", PARTITIONS)).find(id_) == rotated
    assert [s.version for s in rotated.valid_secrets(began + timedelta(hours=1))] == [2]
    hooks.driver.advance(timedelta(minutes=30))
    again = hooks.call(rotate)
    assert [s.version for s in again.valid_secrets(hooks.driver.now)] == [3, 2, 1]
    hooks.driver.advance(timedelta(minutes=31))
    assert [s.version for s in hooks.call(rotate).secrets] == [4, 3, 2]
    assert hooks.call(lambda ctx: hooks.commands.rotate("nobody", "k", ctx)) is None


def test_subscriptions_and_secrets_are_bounded(hooks):
    ids = [hooks.subscribe() for _ in range(MAX_SUBSCRIPTIONS)]
    with pytest.raises(TooManySubscriptions):
        hooks.subscribe()
    assert hooks.subscribe(id_=ids[0]) == ids[0], "a repeated command"
    for _ in range(MAX_SECRETS - 1):
        hooks.call(lambda ctx: hooks.commands.rotate(ids[0], "k", ctx))
    with pytest.raises(TooManySecrets):
        hooks.call(lambda ctx: hooks.commands.rotate(ids[0], "k", ctx))


def test_a_test_event_goes_to_one_subscription(hooks):
    hooks.subscribe()
    chosen = hooks.subscribe("product.changed")
    assert hooks.call(lambda ctx: hooks.commands.test(chosen, "evt_t", ctx))
    assert not hooks.call(lambda ctx: hooks.commands.test("nobody", "evt_u", ctx))
    delivered = hooks.end()
    assert (delivered.subscription_id, delivered.type, delivered.webhook_id) == (chosen, "webhook.test", "evt_t")
    assert hooks.left() == []


def test_each_dead_letter_is_published_once(hooks):
    id_ = hooks.subscribe("dead_letter.written")
    publisher = DeadLetterEvents(hooks.commands._fanout, None)

    def publish(before, after, *offsets):
        notices = [
            DeadLetterNotice(topic="orders.dead-letters", partition=2, offset=n, service="fraud") for n in offsets
        ]
        events = [dead_letter_event(notice, hooks.driver.now) for notice in notices]
        hooks.call(partial(publisher.publish, before, after, events))
        return hooks.driver.row(DEAD_LETTER_POSITIONS, SUBSCRIPTIONS_KEY)

    first = publish(None, {})
    assert hooks.in_flight == []
    second = publish(first, {"orders.dead-letters/2": 7}, 5, 6)
    assert publish(first, {"orders.dead-letters/2": 8}, 5, 6, 7) == second, "another worker was faster"
    delivered = [json.loads(d.body)["data"] for d in hooks.deliver_all()]
    assert [(d["offset"], d["service"]) for d in delivered] == [(5, "fraud"), (6, "fraud")]
    assert publish(second, None) is None
    assert hooks.call(partial(hooks.commands.remove, id_))


def in_partition(partition, number):
    """Ids that belong in a partition."""
    ids = (f"p{n}" for n in count())
    return [next(i for i in ids if partition_of(i.encode(), PARTITIONS) == partition) for _ in range(number)]


def test_a_dead_subscriber_keeps_few_deliveries_in_memory_and_all_in_order(hooks, monkeypatch):
    monkeypatch.setattr(serial_effects, "WINDOW", 3)
    monkeypatch.setattr(serial_effects, "SLICE", 4)
    dead, alive = hooks.subscribe(), hooks.subscribe()
    ids = in_partition(0, 20)
    for id_ in ids:
        hooks.orders(OrderState.VALIDATED, id_=id_)
        hooks.deliver_all(chosen=lambda d: d.subscription_id == alive)
    assert len(hooks.in_flight) == 3
    assert {id_ for id_, _, _ in hooks.in_flight} == {dead}
    for id_ in reversed(ids):  # the first ones are in flight, the others wait
        hooks.orders(OrderState.SHIPPED, id_=id_)
    hooks.deliver_all(chosen=lambda d: d.subscription_id == alive)
    assert len(hooks.in_flight) == 3

    delivered = []
    while (one := hooks.end()) is not None:  # it is back
        delivered.append((one.sequence, one.type))
        assert len(hooks.in_flight) <= 3
        hooks.driver.advance(timedelta(seconds=1))
    assert len(delivered) == 40
    for id_ in ids:
        assert [t for s, t in delivered if s == f"order/{id_}"] == ["order.validated", "order.shipped"]
    assert hooks.left() == []


def test_an_event_does_not_overtake_one_of_its_order_in_the_overflow(hooks, monkeypatch):
    monkeypatch.setattr(serial_effects, "WINDOW", 1)
    hooks.subscribe()
    first, second, third = in_partition(0, 3)
    for id_ in (first, second, third):
        hooks.orders(OrderState.VALIDATED, id_=id_)
    hooks.orders(OrderState.SHIPPED, id_=second)
    assert hooks.end().sequence == f"order/{first}"  # the second one follows; its next event is behind the third
    hooks.orders(OrderState.CANCELLED, id_=second)
    delivered = [d.type for d in hooks.deliver_all() if d.sequence == f"order/{second}"]
    assert delivered == ["order.validated", "order.shipped", "order.cancelled"]


def test_what_waits_behind_a_dead_letter_is_tried():
    hooks = Hooks(side_effect_timeout_s=3600)
    hooks.subscribe()
    hooks.orders(OrderState.VALIDATED, OrderState.SHIPPED)
    hooks.driver.advance(timedelta(hours=1, minutes=10))
    hooks.end(rejection="not done within 3600 s")
    assert [type_ for _, _, type_ in hooks.in_flight] == ["order.shipped"]
    assert len(hooks.dead_letters) == 1


def test_what_waits_is_bounded_in_number_and_age(monkeypatch):
    monkeypatch.setattr(serial_effects, "WINDOW", 2)
    hooks = Hooks(webhook_max_waiting=5, side_effect_timeout_s=3600)
    hooks.subscribe()
    ids = in_partition(0, 10)
    for id_ in ids:
        hooks.orders(OrderState.VALIDATED, id_=id_)
    too_many = hooks.dead_letters
    assert [sequence_of(letter) for letter in too_many] == [f"order/{id_}" for id_ in ids[7:]]
    assert all(b"5 others wait" in dict(letter.headers)["error"] for letter in too_many)

    hooks.driver.advance(timedelta(hours=2, seconds=1))
    hooks.end()  # the next ones have waited for too long
    late = hooks.dead_letters[3:]
    assert [sequence_of(letter) for letter in late] == [f"order/{id_}" for id_ in ids[2:7]]
    assert all(b"it waited behind others" in dict(letter.headers)["error"] for letter in late)
    hooks.deliver_all()
    assert hooks.left() == []


def sequence_of(letter):
    return json.loads(RejectedSideEffect.from_json(letter.value).payload)["sequence"]
