"""A record in another partition than its key belongs in is dead-lettered with both numbers and the remedy."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.common.partitioning import MisplacedError, check_partition, describes_misplaced, partition_of
from runtime.model.records import Write
from runtime.model.service import Input, RejectedSideEffect, Service, SideEffect, Table
from runtime.testing import TopologyTestDriver
from schemas.messages import StockLevel
from schemas.topics import ORDERS, WAREHOUSE_INVENTORY, repartition
from tests.samples import order

LEVELS = Table("keeper-levels", StockLevel)
BY_PRODUCT = repartition("keeper", ORDERS, "product", lambda o: o.product)


def keeper():
    return Service(
        "keeper",
        (
            Input(
                WAREHOUSE_INVENTORY,
                lambda level, ctx: ctx.put(LEVELS, level.product, level),
                lambda product, ctx: ctx.delete(LEVELS, product),
            ),
        ),
        (),
        (LEVELS,),
    )


def errors(topology, topic):
    return [dict(r.headers)["error"].decode() for r in topology.records(topic.dead_letters)]


@given(st.text(max_size=40), st.integers(1, 12), st.integers(0, 15))
def test_a_record_is_processed_in_the_partition_of_its_key_and_dead_lettered_in_every_other(product, partitions, at):
    level = StockLevel(product=product, count=3)
    key = product.encode()
    topology = TopologyTestDriver(keeper(), partitions=partitions)

    topology.write(Write(WAREHOUSE_INVENTORY.name, at, key, level.to_json()))
    topology.run()

    belongs = partition_of(key, partitions)
    if at == belongs:
        assert topology.row(LEVELS, product) == level
        assert errors(topology, WAREHOUSE_INVENTORY) == []
    else:
        assert topology.row(LEVELS, product) is None
        [error] = errors(topology, WAREHOUSE_INVENTORY)
        assert f"belongs in partition {belongs}, the record is in {at}: " in error
        assert "partitioner=murmur2_random" in error
        assert "`orders dead-letters redrive`" in error
        assert describes_misplaced(error)
        [letter] = topology.records(WAREHOUSE_INVENTORY.dead_letters)
        assert letter.partition < partitions, "dead letters have as many partitions as the topic was made with"


@given(st.binary(max_size=3000), st.integers(0, 999))
def test_the_error_of_any_key_keeps_both_numbers_and_the_remedy(key, partition):
    if partition_of(key, 7) == partition:
        check_partition(key, partition, 7)
        return
    with pytest.raises(MisplacedError) as caught:
        check_partition(key, partition, 7)
    said = str(caught.value)[:1000]  # as much of it as a dead letter's header has
    assert f"belongs in partition {partition_of(key, 7)}, the record is in {partition}: " in said
    assert said.endswith("writes the record to its right partition")
    assert describes_misplaced(said)


@pytest.mark.parametrize(
    "error",
    ["message: Invalid JSON", "the message's key is not that of its value, which belongs under 'o1'", "", "key"],
)
def test_other_errors_are_not_recognised_as_misplaced(error):
    assert not describes_misplaced(error)


def test_a_misplaced_tombstone_deletes_nothing_and_is_dead_lettered():
    topology = TopologyTestDriver(keeper())
    topology.send(WAREHOUSE_INVENTORY, StockLevel(product="mug", count=3))
    wrong = (partition_of(b"mug", 4) + 1) % 4

    topology.write(Write(WAREHOUSE_INVENTORY.name, wrong, b"mug", None))
    topology.run()

    assert topology.row(LEVELS, "mug").count == 3
    [error] = errors(topology, WAREHOUSE_INVENTORY)
    assert describes_misplaced(error)
    [letter] = topology.records(WAREHOUSE_INVENTORY.dead_letters)
    assert (letter.key, letter.value) == (b"mug", None)


def test_records_that_others_write_to_a_repartition_topic_are_checked():
    seen = []
    service = Service("keeper", (Input(BY_PRODUCT, lambda o, ctx: seen.append(o.id)),), ())
    topology = TopologyTestDriver(service)
    right = partition_of(b"mug", 4)
    for partition in range(4):
        topology.write(Write(BY_PRODUCT.name, partition, b"mug", order(f"o{partition}", product="mug").to_json()))
    topology.run()

    assert seen == [f"o{right}"]
    assert len(errors(topology, BY_PRODUCT)) == 3


def test_the_log_names_the_first_misplaced_record_of_a_topic_and_no_other(caplog):
    topology = TopologyTestDriver(keeper())
    wrong = (partition_of(b"mug", 4) + 1) % 4
    with caplog.at_level(logging.WARNING):
        for count in range(5):
            level = StockLevel(product="mug", count=count)
            topology.write(Write(WAREHOUSE_INVENTORY.name, wrong, b"mug", level.to_json()))
            topology.run()

    [said] = [r.getMessage() for r in caplog.records if "misplaced" in r.getMessage()]
    assert said.startswith(f"record misplaced topic=warehouse-inventory partition={wrong} offset=0 error=key 'mug'")
    assert len(errors(topology, WAREHOUSE_INVENTORY)) == 5


@pytest.mark.parametrize("at", range(4))
def test_a_redriven_side_effect_is_enqueued_in_the_partition_of_its_state_whatever_its_key(at):
    async def perform(key, level):
        raise NotImplementedError

    count = SideEffect("count", StockLevel, perform)
    service = Service("counter", (Input(WAREHOUSE_INVENTORY, lambda *_: None),), (), side_effects=(count,))
    topology, level = TopologyTestDriver(service), StockLevel(product="mug", count=3)
    again = RejectedSideEffect(key="mug/1", effect="count", payload=level.to_json())

    topology.write(Write(service.redrive_topic.name, at, b"mug/1", again.to_json()))
    topology.run()

    assert errors(topology, service.redrive_topic) == []
    assert topology.pending(count) == {"mug/1": level}
    assert topology.workers[0].stores.open(service.pending.name, at).get(b"mug/1") is not None
