"""Processing of batches, with services made for the purpose."""

from datetime import timedelta

import pytest

from runtime.loop.process import MAX_DEPTH, TIMER_RETRY
from runtime.model.records import ALSO_CONSUMED_BY, CONSUMED_BY, MADE_AT, Write
from runtime.model.service import Input, Service, Table, Timer
from runtime.testing import TopologyTestDriver
from schemas.messages import Order, StockLevel
from schemas.topics import ORDERS, ORDERS_ENRICHED, WAREHOUSE_INVENTORY, repartition
from tests.samples import NOON, order

SEEN = Table("keeper-seen", Order)
BY_PRODUCT = repartition("keeper", ORDERS, "product", lambda o: o.product)


def keep(seen, ctx):
    ctx.put(SEEN, seen.id, seen)


def keeper(processor=keep, *, topic=ORDERS, outputs=(), timer=None, on_tombstone=None):
    timers = (timer,) if timer else ()
    return Service("keeper", (Input(topic, processor, on_tombstone),), outputs, (SEEN,), timers=timers)


def bystander():
    table = Table("bystander-seen", Order)

    def see(seen, ctx):
        ctx.put(table, seen.id, seen)

    return Service("bystander", (Input(ORDERS, see),), (), (table,)), table


def dead_letters(topology, topic="orders"):
    return [(record, dict(record.headers)) for record in topology.records(f"{topic}.dead-letters")]


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        (b"o1", b"no json", "message must be JSON in UTF-8: "),
        (b"o1", b"\xff\xfe", "message must be JSON in UTF-8: "),
        (b"o1", b'{"id":"o1"}', "customerId is missing: add it"),
        (b"o2", order("o1").to_json(), "belongs under 'o1'"),
        (None, order("o1").to_json(), "belongs under 'o1'"),
        (b"o1", None, "tombstone"),
        (None, None, "tombstone"),
    ],
)
def test_an_unreadable_message_is_dead_lettered_unchanged_and_later_ones_are_processed(key, value, error):
    topology = TopologyTestDriver(keeper(), bystander()[0], partitions=1)
    topology.send_raw(ORDERS, key, value, ("trace", b"7"))
    topology.send(ORDERS, order("o3"))
    [(letter, headers)] = dead_letters(topology)
    # Without key and value the dead letter gets an empty value: aiokafka would not write it.
    assert (letter.key, letter.value) == (key, b"" if key is value is None else value)
    assert error in headers.pop("error").decode()
    assert headers == {
        "trace": b"7",
        "service": b"keeper,bystander",
        "topic": b"orders",
        "partition": b"0",
        "offset": b"0",
        "time": topology.now.isoformat().encode(),
    }
    assert topology.row(SEEN, "o3") is not None


def test_an_error_does_not_repeat_values_of_the_message():
    topology = TopologyTestDriver(keeper())
    topology.send_raw(ORDERS, b"o1", b'{"id":"o1","customerId":"SECRET"}')
    assert b"SECRET" not in dead_letters(topology)[0][1]["error"]


def test_a_message_with_an_impossible_time_is_dead_lettered():
    topology = TopologyTestDriver(keeper(), partitions=1)
    topology.now = NOON
    topology.send(ORDERS, order("o1"))
    tp, log = next(iter(topology.topics.items()))
    log.append(log[0]._replace(offset=1, timestamp_ms=2**62))
    topology.run()
    assert len(dead_letters(topology)) == 1
    assert topology.workers[0].positions[tp] == 2


def test_a_processor_that_raises_leaves_only_a_dead_letter_and_others_run():
    timer = Timer("due", pytest.fail)

    def half(seen, ctx):
        ctx.put(SEEN, seen.id, seen)
        ctx.schedule(timer, seen.id, ctx.now)
        ctx.send(ORDERS, seen.model_copy(update={"product": "sent"}))
        raise RuntimeError("halfway")

    other, others_table = bystander()
    topology = TopologyTestDriver(keeper(half, outputs=(ORDERS,), timer=timer), other)
    topology.send(ORDERS, order())
    assert topology.row(SEEN, "o1") is None
    assert topology.values(ORDERS) == [order()]
    assert topology.row(others_table, "o1") == order()
    [(letter, headers)] = dead_letters(topology)
    assert letter.value == order().to_json()
    assert (headers["service"], headers["error"]) == (b"keeper", b"RuntimeError: halfway")


def test_a_fused_message_whose_processor_raises_is_dead_lettered_like_a_polled_one():
    def refuse(seen, ctx):
        raise RuntimeError("no")

    service = Service(
        "keeper",
        (Input(ORDERS, lambda o, ctx: ctx.send(BY_PRODUCT, o)), Input(BY_PRODUCT, refuse)),
        (BY_PRODUCT,),
    )
    topology = TopologyTestDriver(service)
    topology.send(ORDERS, order())
    [(letter, headers)] = dead_letters(topology, BY_PRODUCT.name)
    assert (letter.key, letter.value, headers["offset"]) == (b"JUMPERS", order().to_json(), b"-1")
    [record] = topology.records(ORDERS.name)
    assert headers[MADE_AT] == b"%d" % record.timestamp_ms  # a redrive keeps the event time


def test_a_service_sends_to_its_outputs_only():
    topology = TopologyTestDriver(keeper(lambda o, ctx: ctx.send(ORDERS, o)))
    topology.send(ORDERS, order())
    assert b"must list topic 'orders' among its outputs" in dead_letters(topology)[0][1]["error"]


def relay(calls):
    """Sends VALIDATED for CREATED to the topic it consumes itself."""

    def on_order(seen, ctx):
        calls.append((str(seen.state), ctx.get(SEEN, seen.id) is not None))
        ctx.put(SEEN, seen.id, seen)
        if not seen.state.decided:
            ctx.send(ORDERS, order(seen.id, state="VALIDATED"))

    return keeper(on_order, outputs=(ORDERS,))


@pytest.mark.parametrize("fuse", [True, False])
def test_a_message_to_an_own_input_is_processed_once_fused_or_not_and_sees_earlier_rows(fuse):
    calls = []
    topology = TopologyTestDriver(relay(calls), fuse=fuse)
    topology.send(ORDERS, order())
    assert calls == [("CREATED", False), ("VALIDATED", True)]
    validated = topology.records("orders")[1]
    assert list(validated.headers) == ([(CONSUMED_BY, b"keeper")] if fuse else [])


@pytest.mark.parametrize(
    ("headers", "skipped"),
    [
        ([(CONSUMED_BY, b"others")], False),
        ([(CONSUMED_BY, b"keeper")], True),
        ([(CONSUMED_BY, b"keeper+others")], True),
        ([(CONSUMED_BY, b"others"), (ALSO_CONSUMED_BY, b"keeper")], True),
        ([(CONSUMED_BY, b"others"), (ALSO_CONSUMED_BY, b"more")], False),
        ([(CONSUMED_BY, None)], False),
    ],
)
def test_a_service_skips_the_messages_that_it_has_processed_in_whichever_group(headers, skipped):
    topology = TopologyTestDriver(relay([]))
    topology.send_raw(ORDERS, b"o1", order().to_json(), *headers)
    assert (topology.row(SEEN, "o1") is None) is skipped


def test_of_two_services_the_one_that_has_not_processed_a_message_does():
    other, others_table = bystander()
    topology = TopologyTestDriver(relay([]), other)
    topology.send_raw(ORDERS, b"o1", order().to_json(), (CONSUMED_BY, b"keeper"))
    assert topology.row(SEEN, "o1") is None
    assert topology.row(others_table, "o1") == order()


def test_an_invalid_message_that_another_service_has_processed_is_not_dead_lettered_again():
    other, _ = bystander()
    topology = TopologyTestDriver(relay([]), other)
    topology.send_raw(ORDERS, b"o1", b"no order", (CONSUMED_BY, b"keeper"))
    assert dead_letters(topology) == []


@pytest.mark.parametrize("fuse", [True, False])
def test_a_repartitioned_message_is_produced_only_if_it_is_not_fused(fuse):
    service = Service(
        "keeper",
        (Input(ORDERS, lambda o, ctx: ctx.send(BY_PRODUCT, o)), Input(BY_PRODUCT, keep)),
        (BY_PRODUCT,),
        (SEEN,),
    )
    topology = TopologyTestDriver(service, fuse=fuse)
    topology.send(ORDERS, order())
    assert topology.row(SEEN, "o1") == order()
    assert len(topology.records(BY_PRODUCT.name)) == (0 if fuse else 1)


def test_a_message_that_this_worker_does_not_consume_has_no_consumed_by():
    enriched = {"customer_id": 1, "customer_level": "gold"}
    service = keeper(
        lambda o, ctx: ctx.send(ORDERS_ENRICHED, ORDERS_ENRICHED.model(id=o.id, **enriched)),
        outputs=(ORDERS_ENRICHED,),
    )
    topology = TopologyTestDriver(service)
    topology.send(ORDERS, order())
    assert [list(r.headers) for r in topology.records("orders-enriched")] == [[]]


def test_a_cascade_that_gets_too_deep_goes_through_kafka_and_is_processed_once():
    times = 2 * MAX_DEPTH + 5

    def repeat(seen, ctx):
        if seen.quantity < times:
            ctx.send(ORDERS, order(quantity=seen.quantity + 1))

    topology = TopologyTestDriver(keeper(repeat, outputs=(ORDERS,)))
    topology.send(ORDERS, order(quantity=1))
    records = topology.records("orders")
    assert [Order.from_json(r.value).quantity for r in records] == list(range(1, times + 1))
    without_headers = [n for n, r in enumerate(records) if not r.headers]
    assert without_headers == [0, MAX_DEPTH, 2 * MAX_DEPTH]


def test_messages_of_one_key_are_processed_in_the_order_they_were_sent():
    seen = []
    service = Service(
        "keeper",
        (
            Input(ORDERS, lambda o, ctx: [ctx.send(BY_PRODUCT, order(o.id, quantity=n)) for n in (1, 2, 3)]),
            Input(BY_PRODUCT, lambda o, ctx: seen.append((o.id, o.quantity))),
        ),
        (BY_PRODUCT,),
    )
    TopologyTestDriver(service).send(ORDERS, order("a"), order("b"))
    assert [n for order_id, n in seen if order_id == "a"] == [1, 2, 3]
    assert [n for order_id, n in seen if order_id == "b"] == [1, 2, 3]


def test_a_tombstone_reaches_the_processor_for_tombstones_with_its_key():
    def forget(product, ctx):
        ctx.delete(SEEN, product)

    def note(level, ctx):
        ctx.put(SEEN, level.product, order(product=level.product))

    other = Service("other", (Input(WAREHOUSE_INVENTORY, lambda level, ctx: None),), ())
    topology = TopologyTestDriver(keeper(note, topic=WAREHOUSE_INVENTORY, on_tombstone=forget), other)
    topology.send(WAREHOUSE_INVENTORY, StockLevel(product="JUMPERS", count=1))
    topology.send_raw(WAREHOUSE_INVENTORY, b"JUMPERS", None)
    assert topology.row(SEEN, "JUMPERS") is None
    assert dead_letters(topology, "warehouse-inventory") == []


@pytest.mark.parametrize("key", [None, b"\xff"])
def test_a_tombstone_without_a_readable_key_is_dead_lettered(key):
    topology = TopologyTestDriver(keeper(pytest.fail, on_tombstone=pytest.fail))
    topology.send_raw(ORDERS, key, None)
    assert len(dead_letters(topology)) == 1


def test_a_timer_fires_once_at_its_time():
    fired = []
    timer = Timer("due", lambda key, ctx: fired.append((key, ctx.now)))
    topology = TopologyTestDriver(
        keeper(lambda o, ctx: ctx.schedule(timer, o.id, ctx.now + timedelta(seconds=5)), timer=timer)
    )
    topology.send(ORDERS, order())
    at = topology.now + timedelta(seconds=5)
    topology.advance(timedelta(seconds=4))
    assert fired == []
    topology.advance(timedelta(minutes=10))
    assert fired == [("o1", at)]


def test_a_timer_can_be_rescheduled_and_cancelled():
    fired = []
    timer = Timer("due", lambda key, ctx: fired.append((key, ctx.now)))

    def schedule(seen, ctx):
        ctx.schedule(timer, seen.id, ctx.now + timedelta(seconds=seen.quantity) if seen.quantity else None)

    topology = TopologyTestDriver(keeper(schedule, timer=timer))
    start = topology.now
    topology.send(ORDERS, order("later", quantity=1), order("sooner", quantity=9), order("never", quantity=1))
    topology.send(ORDERS, order("later", quantity=9), order("sooner", quantity=1), order("never", quantity=0))
    topology.advance(timedelta(minutes=1))
    assert fired == [("sooner", start + timedelta(seconds=1)), ("later", start + timedelta(seconds=9))]


def test_a_timer_rescheduled_in_the_batch_in_which_it_is_due_waits_for_its_new_time():
    fired = []

    def on_timer(key, ctx):
        fired.append((key, ctx.now))
        if key == "a":
            ctx.schedule(timer, "b", ctx.now + timedelta(seconds=5))

    timer = Timer("due", on_timer)
    service = keeper(lambda o, ctx: ctx.schedule(timer, o.id, ctx.now), timer=timer)
    topology = TopologyTestDriver(service, partitions=1)
    start = topology.now
    for key in (b"a", b"b"):
        topology.write(Write("orders", 0, key, order(key.decode()).to_json()))
    topology.run()
    topology.advance(timedelta(minutes=1))
    assert fired == [("a", start), ("b", start + timedelta(seconds=5))]


def test_a_timer_whose_processor_fails_leaves_nothing_and_fires_again():
    attempts = []

    def on_timer(key, ctx):
        attempts.append(ctx.now)
        ctx.put(SEEN, key, order(quantity=len(attempts)))
        ctx.send(ORDERS, order("from the timer"))
        if len(attempts) == 1:
            raise RuntimeError("not yet")

    def schedule(seen, ctx):
        if seen.id == "o1":
            ctx.schedule(timer, "o1", ctx.now)

    timer = Timer("due", on_timer)
    topology = TopologyTestDriver(keeper(schedule, outputs=(ORDERS,), timer=timer))
    topology.send(ORDERS, order())
    assert topology.row(SEEN, "o1") is None
    topology.advance(timedelta(hours=1))
    assert attempts == [attempts[0], attempts[0] + TIMER_RETRY]
    assert topology.row(SEEN, "o1") == order(quantity=2)
    assert [o.id for o in topology.values(ORDERS)].count("from the timer") == 1


def test_a_processor_sees_the_time_of_its_message_and_of_its_batch():
    seen = []
    topology = TopologyTestDriver(keeper(lambda o, ctx: seen.append((ctx.time, ctx.now))), partitions=1)
    written = topology.now
    topology.write(Write("orders", 0, b"o1", order().to_json()))
    topology.advance(timedelta(hours=1))
    topology.run()
    assert seen == [(written, written + timedelta(hours=1))]
