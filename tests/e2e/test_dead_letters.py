"""An undecodable record is dead-lettered with the reason, and processing continues after it."""

import struct
from datetime import UTC, datetime

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka import TopicPartition as Physical
from aiokafka.record.util import calc_crc32c

from ecosystem.audit import audit
from ecosystem.clients.dead_letters.redrive import redrive
from ecosystem.services import CORE
from runtime.common.partitioning import partition_of
from schemas.messages import BuiltInCheck, Order, OrderValidation, StockLevel, ValidationResult
from schemas.topics import ORDER_VALIDATIONS, ORDERS, WAREHOUSE_INVENTORY
from tests.workers import Deployment, until

ORDER = Order(id="o1", customer_id=1, product="JUMPERS", quantity=1, price=1).to_json()
VERDICT = OrderValidation(
    order_id="o1", check_type=BuiltInCheck.FRAUD_CHECK, validation_result=ValidationResult.PASS
).to_json()
STOCK = StockLevel(product="JUMPERS", count=1).to_json()

READERS = {
    ORDERS: set(CORE),
    ORDER_VALIDATIONS: {"orders"},
    WAREHOUSE_INVENTORY: {"inventory"},
}

UNREADABLE = {
    "not JSON": (ORDERS, b"o1", b"id=o1", "JSON"),
    "not UTF-8": (ORDERS, b"o1", b'{"id":"\xff"}', "JSON"),
    "empty": (ORDERS, b"o1", b"", "JSON"),
    "a list": (ORDERS, b"o1", b"[]", "object"),
    "field missing": (ORDERS, b"o1", ORDER.replace(b'"quantity"', b'"quantities"'), "quantity is missing"),
    "wrong type": (ORDERS, b"o1", ORDER.replace(b'"quantity":1', b'"quantity":"1"'), "quantity"),
    "price NaN": (ORDERS, b"o1", ORDER.replace(b'"price":1.0', b'"price":NaN'), "price"),
    "price 1e400": (ORDERS, b"o1", ORDER.replace(b'"price":1.0', b'"price":1e400'), "price"),
    "unknown state": (ORDERS, b"o1", ORDER.replace(b"CREATED", b"LOST"), "state"),
    "id empty": (ORDERS, b"", ORDER.replace(b'"o1"', b'""'), "id"),
    "another key": (ORDERS, b"o2", ORDER, "key"),
    "key not UTF-8": (ORDERS, b"\xff", ORDER, "key"),
    "no key": (ORDERS, None, ORDER, "key"),
    "tombstone": (ORDERS, b"o1", None, "tombstone"),
    "verdict not JSON": (ORDER_VALIDATIONS, b"o1", b"PASS", "JSON"),
    "verdict without result": (
        ORDER_VALIDATIONS,
        b"o1",
        VERDICT.replace(b'"validationResult"', b'"result"'),
        "validationResult is missing",
    ),
    "verdict of a check without a name": (ORDER_VALIDATIONS, b"o1", VERDICT.replace(b"FRAUD_CHECK", b"?"), "checkType"),
    "verdict under another key": (ORDER_VALIDATIONS, b"o2", VERDICT, "key"),
    "verdict without key": (ORDER_VALIDATIONS, None, VERDICT, "key"),
    "verdict with a reason of a megabyte": (
        ORDER_VALIDATIONS,
        b"o1",
        VERDICT[:-1] + b',"reason":"' + b"x" * 900_000 + b'"}',
        "reason must have at most 4096 characters",
    ),
    "verdict tombstone": (ORDER_VALIDATIONS, b"o1", None, "tombstone"),
    "stock not JSON": (WAREHOUSE_INVENTORY, b"JUMPERS", b"1", "object"),
    "stock without count": (WAREHOUSE_INVENTORY, b"JUMPERS", b'{"product":"JUMPERS"}', "count is missing"),
    "stock below zero": (WAREHOUSE_INVENTORY, b"JUMPERS", STOCK.replace(b":1}", b":-1}"), "count"),
    "stock of half a piece": (WAREHOUSE_INVENTORY, b"JUMPERS", STOCK.replace(b":1}", b":0.5}"), "count"),
    "stock under another key": (WAREHOUSE_INVENTORY, b"SOCKS", STOCK, "key"),
}


@pytest.mark.parametrize("name", UNREADABLE)
async def test_an_undecodable_record_is_dead_lettered_with_the_reason_and_orders_continue(shop, name):
    topic, key, value, error = UNREADABLE[name]
    before = datetime.now(UTC)

    sent = await shop.deployment.send_raw(topic.name, key, value)  # type: ignore[attr-defined]

    for record, headers in await letters(shop, topic, sent):
        assert (record.key, record.value) == (key, value)
        assert headers.keys() == {"service", "error", "topic", "partition", "offset", "time"}
        assert headers["topic"] == topic.name  # type: ignore[attr-defined]
        assert error in headers["error"]
        assert before <= datetime.fromisoformat(headers["time"]) <= datetime.now(UTC)
    assert (await shop.order())["state"] == "VALIDATED"


async def test_a_dead_letter_keeps_the_headers(shop):
    own = [("trace", b"7"), ("empty", b""), ("null", None), ("trace", b"8")]
    sent = await shop.deployment.producer.send_and_wait(
        shop.deployment.prefix + ORDERS.name, b"?", key=b"o1", partition=0, headers=own
    )

    for record, _ in await letters(shop, ORDERS, sent):
        assert list(record.headers[:4]) == own


@pytest.mark.parametrize(
    ("key", "value", "headers"),
    [
        (b"o1", b"x" * (2**20 - 200), []),
        (b"o1", b"x" * 5_000_000, []),
        (b"x" * 5_000_000, b"?", []),
        (b"o1", b"?", [("x", b"x" * 5_000_000)]),
        (b"o1", ORDER[:-1] + b',"note":"' + b"x" * 5_000_000, []),
    ],
    ids=["as large as Kafka takes", "large once unpacked", "key large", "header large", "cut off"],
)
async def test_a_record_too_large_to_dead_letter_is_truncated_and_orders_continue(shop, key, value, headers):
    size = len(key) + len(value) + sum(len(name) + len(text) for name, text in headers)
    compression = "gzip" if size > 2**20 else None
    async with AIOKafkaProducer(
        bootstrap_servers=shop.deployment.servers, compression_type=compression, max_request_size=10_000_000
    ) as producer:
        sent = await producer.send_and_wait(
            shop.deployment.prefix + ORDERS.name, value, key=key, partition=0, headers=headers
        )

    for record, found in await letters(shop, ORDERS, sent):
        assert found["cut"] == str(size)
        assert key.startswith(record.key)
        assert value.startswith(record.value)
    assert (await shop.order())["state"] == "VALIDATED"


async def test_a_record_without_key_and_value_does_not_block_orders(shop):
    producer, topic = shop.deployment.producer, Physical(shop.deployment.prefix + ORDERS.name, 0)
    await producer.partitions_for(topic.topic)
    # `send` does not write one; other clients do.
    sent = await (await producer._message_accumulator.add_message(topic, None, None, 40))

    for record, headers in await letters(shop, ORDERS, sent):
        assert (record.key, record.value) == (None, b"")
        assert "tombstone" in headers["error"]
    assert (await shop.order())["state"] == "VALIDATED"


@pytest.mark.parametrize(
    "created_at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00", "1969-07-20T20:17:00Z"]
)
async def test_an_order_with_any_timestamp_is_decided(shop, created_at):
    order = Order(id=f"of {created_at}", customer_id=shop.customer(), product=await shop.product(), quantity=1, price=1)
    raw = order.model_copy(update={"created_at": None}).to_json()[:-1] + f',"createdAt":"{created_at}"}}'.encode()

    await shop.deployment.send_raw(ORDERS.name, order.id.encode(), raw)

    assert (await shop.deployment.outcome(shop.last, order.id))["state"] in {"VALIDATED", "FAILED"}
    assert (await shop.order())["state"] == "VALIDATED"


async def test_a_product_may_be_withdrawn_by_a_tombstone(shop):
    product = await shop.product(5)

    await shop.deployment.send_raw(WAREHOUSE_INVENTORY.name, product.encode(), None)

    async def withdrawn():
        outcome = await shop.order(product=product)
        return outcome["reasons"] == [f"INVENTORY_CHECK: no stock of '{product}' was announced"]

    await until(withdrawn, "product withdrawn")


async def letters(shop, topic, sent):
    """Waits until each reader has dead-lettered the record once. Returns the dead letters and their headers."""

    async def found():
        result = [
            (record, headers)
            for record in await shop.deployment.records(topic.dead_letters)
            for headers in [{name: (text or b"").decode() for name, text in record.headers}]
            if (headers["partition"], headers["offset"]) == (str(sent.partition), str(sent.offset))
        ]
        services = [service for _, headers in result for service in headers["service"].split(",")]
        return result if set(services) == READERS[topic] and len(services) == len(READERS[topic]) else []

    return await until(found, "dead letters")


async def test_a_record_with_an_undecodable_header_name_is_dead_lettered_alone(deployment: Deployment):
    worker = await deployment.start()
    await deployment.stock(JUMPERS=10)
    ids = [id_ for id_ in map(str, range(50)) if partition_of(id_.encode(), 4) == 0][:4]
    batch = deployment.producer.create_batch()
    for id_, name in zip(ids, ("ok", "zz", "ok"), strict=False):
        order = Order(id=id_, customer_id=1, product="JUMPERS", quantity=1, price=1)
        batch.append(key=id_.encode(), value=order.to_json(), timestamp=None, headers=[(name, b"1")])
    raw = bytearray(batch._build())
    at = raw.index(b"zz")
    raw[at : at + 2] = b"\xff\xfe"
    struct.pack_into(
        ">I", raw, 17, calc_crc32c(bytes(raw[21:]))
    )  # of the remaining bytes: Kafka's record batch, version 2
    batch._buffer = bytes(raw)

    await (await deployment.producer.send_batch(batch, deployment.prefix + ORDERS.name, partition=0))
    _, later = await deployment.post(worker, id=ids[3], customerId=1, product="JUMPERS", quantity=1, price=1)
    outcomes = [await deployment.outcome(worker, id_) for id_ in (ids[0], ids[2], later["id"])]

    assert [o["state"] for o in outcomes] == ["VALIDATED"] * 3

    async def set_aside():
        return [(dict(r.headers), r.value) for r in await deployment.records(ORDERS.dead_letters)]

    [(headers, value)] = await until(set_aside, "set aside")
    assert (headers["partition"], headers["offset"], headers["\\xff\\xfe"]) == (b"0", b"1", b"1")
    assert b"UTF-8" in headers["error"]
    assert b"redrive" in headers["error"]
    assert b'"id":"%b"' % ids[1].encode() in value
    report = await audit(deployment.settings())
    assert (report.violations, report.counts["VALIDATED"], report.counts["unreadable"]) == ([], 3, 1)

    assert len((await redrive(deployment.settings(), ORDERS.name, lambda letter: True)).written) == 1
    assert (await deployment.outcome(worker, ids[1]))["state"] == "VALIDATED"
