"""Size limits are discovered from rejected batches, and messages beyond them are dead-lettered with the cause."""

import pytest

from runtime.errors import MessageTooLarge
from runtime.loop.process import BatchProcessor
from runtime.model.dead_letters import dead_letter
from runtime.model.limits import SizeLimits
from runtime.model.records import Membership, PolledBatch, Record, TopicPartition, Write
from runtime.model.service import Input, Service, Table
from runtime.model.topology import Topology
from runtime.state.stores import MemoryStores
from schemas.messages import Order, StockLevel
from schemas.topics import ORDERS, WAREHOUSE_INVENTORY
from tests.samples import NOON, order

ROWS = Table("echo-rows", Order)


def test_after_a_rejected_batch_messages_are_sent_one_by_one():
    limits = SizeLimits()
    limits.rejected("orders", [10, 2000])
    assert limits.one_by_one("orders")
    assert not limits.one_by_one("others")
    assert not limits
    assert limits.revision == 1
    limits.rejected("orders", [10, 2000])
    assert limits.revision == 1, "nothing new"


def test_a_message_rejected_alone_exceeds_the_limit_of_its_topic():
    limits = SizeLimits()
    limits.rejected("orders", [2000])
    limits.check("orders", 1999)
    limits.check("others", 10**6)
    with pytest.raises(MessageTooLarge, match=r"2000 bytes to orders, which accepts 1999 at most"):
        limits.check("orders", 2000)
    limits.rejected("orders", [1500])
    assert (limits.max_bytes("orders"), limits.revision) == (1499, 2)
    limits.rejected("orders", [1600])
    assert (limits.max_bytes("orders"), limits.revision) == (1499, 2)


@pytest.mark.parametrize("what", ["message", "row", "neither"])
def test_a_message_with_an_output_record_that_is_too_large_is_dead_lettered_and_changes_nothing(what):
    def echo(level, ctx):
        big = order(product=level.product, id="o" + "x" * level.count)
        if what == "message":
            ctx.send(ORDERS, big)
        elif what == "row":
            ctx.put(ROWS, big.id, big)
        ctx.put(ROWS, "seen", order())

    service = Service("echo", (Input(WAREHOUSE_INVENTORY, echo),), (ORDERS,), (ROWS,))
    limits, topology = SizeLimits(), Topology((service,))
    limits.rejected(ORDERS.name if what == "message" else ROWS.changelog, [220])
    processor = BatchProcessor(topology, 1, MemoryStores().open, limits)

    def process(count):
        level = StockLevel(product="a", count=count)
        record = Record(WAREHOUSE_INVENTORY.name, 0, 0, 0, b"a", level.to_json())
        polled = PolledBatch([record], {TopicPartition(WAREHOUSE_INVENTORY.name, 0): 1}, Membership(1, "me"))
        return processor.process(polled, [], NOON, lambda *_: False)

    assert process(1).dead_letters.total() == 0
    batch = process(110)
    if what == "neither":
        assert batch.dead_letters.total() == 0
        return
    assert batch.dead_letters.total() == 1
    assert batch.changes == {}
    [dead] = batch.outputs
    assert dead.topic == "warehouse-inventory.dead-letters"
    assert b"TooLarge" in dict(dead.headers)["error"]


@pytest.mark.parametrize("max_bytes", [4096, 1000, 600])
def test_a_dead_letter_fits_into_a_topic_with_a_small_limit(max_bytes):
    record = Record("orders", 1, 7, 0, b"k" * 3000, b"v" * 10_000, [("h", b"x" * 900)])
    letter = dead_letter(record, "fraud", "too bad", NOON, max_bytes)
    assert letter.size <= max_bytes
    assert dict(letter.headers)["cut"] == b"13901"
    assert letter.key


def test_a_dead_letter_that_fits_is_not_truncated():
    record = Record("orders", 1, 7, 0, b"k", b"v", [("h", b"x")])
    assert dead_letter(record, "fraud", "too bad", NOON, 1000) == dead_letter(record, "fraud", "too bad", NOON)
    assert "cut" not in dict(dead_letter(record, "fraud", "too bad", NOON, 1000).headers)


def test_the_size_of_a_message_includes_key_value_and_headers():
    assert Write("t", 0, b"12", b"345", [("é", b"67"), ("a", None)]).size == 2 + 3 + 2 + 2 + 1
    assert Write("t", 0, None, None).size == 0
