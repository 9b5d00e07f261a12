"""Records that another partitioner put where nobody looks: set aside, named by the audit, put right by a redrive."""

import asyncio
import json
import time

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from confluent_kafka import Producer

from ecosystem.audit import audit
from ecosystem.clients.dead_letters import records
from ecosystem.clients.dead_letters.outcome import Rules
from ecosystem.clients.dead_letters.redrive import redrive
from ecosystem.services import CORE
from runtime.common.partitioning import partition_of
from runtime.errors import PartitionCountMismatch
from runtime.kafka.topics import ensure_topics, public_topics
from schemas.messages import Customer, StockLevel
from schemas.topics import CUSTOMERS, WAREHOUSE_INVENTORY
from tests.commands import orders
from tests.workers import Deployment, until
from validators.inventory.state import STOCK

PARTITIONS = 4


def everything(letter):
    return True


def elsewhere(key):
    """A partition that is not the key's."""
    return (partition_of(key.encode(), PARTITIONS) + 1) % PARTITIONS


def level(product, count):
    return StockLevel(product=product, count=count).to_json()


class Librdkafka:
    """A producer of another make, with its own partitioner unless told otherwise."""

    def __init__(self, deployment: Deployment, **config):
        self.prefix = deployment.prefix
        self._producer = Producer({"bootstrap.servers": deployment.servers, **config})

    async def send(self, topic, key, value, partition=-1, timestamp=0):
        """Returns the record's partition and offset."""
        done = asyncio.get_running_loop().create_future()
        loop = asyncio.get_running_loop()

        def told(error, message):
            place = message.partition(), message.offset()
            loop.call_soon_threadsafe(done.set_exception if error else done.set_result, error or place)

        self._producer.produce(
            self.prefix + topic.name, value, key, partition=partition, timestamp=timestamp, on_delivery=told
        )
        await asyncio.to_thread(self._producer.flush)
        return await done


async def letters(deployment: Deployment, topic, count):
    async def found():
        result = [one async for one in records.read_dead_letters(deployment.settings(), [topic.name])]
        return result if len(result) == count else None

    return await until(found, f"{count} dead letters of {topic.name}")


async def test_stock_misplaced_by_librdkafkas_partitioner_counts_after_a_redrive(deployment: Deployment):
    worker = await deployment.start()
    producer = Librdkafka(deployment)
    products = [f"MUG-{n}" for n in range(12)]
    places = {p: await producer.send(WAREHOUSE_INVENTORY, p, level(p, 5)) for p in products}
    misplaced = {p for p, (at, _) in places.items() if at != partition_of(p.encode(), PARTITIONS)}
    assert misplaced, "librdkafka's default partitioner is murmur2 now: the test has nothing to show"
    assert misplaced < set(products)

    found = await letters(deployment, WAREHOUSE_INVENTORY, len(misplaced))

    assert {letter.key.decode() for letter in found} == misplaced
    for letter in found:
        product = letter.key.decode()
        at, belongs = places[product][0], partition_of(letter.key, PARTITIONS)
        assert letter.error.startswith(f"key '{product}' belongs in partition {belongs}, the record is in {at}: ")
        assert "librdkafka: partitioner=murmur2_random" in letter.error
        assert (letter.from_partition, letter.from_offset) == places[product]
    code, said = await orders(deployment, "dead-letters", "redrive", "warehouse-inventory", "--all")
    assert code == 0, said
    assert f"{len(misplaced)} written back" in said

    for product in products:
        await until(lambda p=product: stock(worker, p) == 5, f"stock of {product}")
    await deployment.post(worker, id="o1", customerId=1, product=min(misplaced), quantity=1, price=1)
    assert (await deployment.outcome(worker, "o1"))["state"] == "VALIDATED"


async def test_the_documented_partitioner_setting_places_every_key_of_librdkafka(deployment: Deployment):
    worker = await deployment.start()
    producer = Librdkafka(deployment, partitioner="murmur2_random")
    for number in range(20):
        product = f"MUG-{number}-ü"
        at, _ = await producer.send(WAREHOUSE_INVENTORY, product, level(product, 5))
        assert at == partition_of(product.encode(), PARTITIONS)
        await until(lambda p=product: stock(worker, p) == 5, f"stock of {product}")


async def test_redriving_a_misplaced_record_replaces_no_newer_one_by_default(deployment: Deployment):
    await deployment.start()
    producer = Librdkafka(deployment)
    now = int(time.time() * 1000)
    old, new, lone, unknown = "OLD", "NEW", "LONE", "UNKNOWN"
    await producer.send(WAREHOUSE_INVENTORY, old, level(old, 1), elsewhere(old), now - 60_000)
    await producer.send(WAREHOUSE_INVENTORY, old, level(old, 2), partition_of(old.encode(), 4), now - 30_000)
    await producer.send(WAREHOUSE_INVENTORY, new, level(new, 1), partition_of(new.encode(), 4), now - 60_000)
    await producer.send(WAREHOUSE_INVENTORY, new, level(new, 2), elsewhere(new), now - 30_000)
    # In two partitions, written in turn: only the last one of both counts.
    for count, partition in enumerate(p for p in range(4) if p != partition_of(lone.encode(), 4)):
        await producer.send(WAREHOUSE_INVENTORY, lone, level(lone, count), partition, now - 60_000 + count)
    # A time in seconds says nothing: the record may be newer than the misplaced one.
    await producer.send(WAREHOUSE_INVENTORY, unknown, level(unknown, 2), partition_of(unknown.encode(), 4), now // 1000)
    await producer.send(WAREHOUSE_INVENTORY, unknown, level(unknown, 1), elsewhere(unknown), now - 30_000)
    await letters(deployment, WAREHOUSE_INVENTORY, 6)

    first = await redrive(deployment.settings(), WAREHOUSE_INVENTORY.name, everything)

    keys = {
        one.id: one.key.decode()
        async for one in records.read_dead_letters(deployment.settings(), ["warehouse-inventory"])
    }
    assert sorted(keys[where] for where in first.written) == [lone, new]
    reasons = sorted((keys[where], reason) for where, reason in first.replaced.items())
    assert [key for key, _ in reasons] == [lone, lone, old, unknown]
    assert "has the same key, and is at least as new" in reasons[0][1]
    assert f"in warehouse-inventory {partition_of(old.encode(), 4)}@" in reasons[2][1]
    assert await counts(deployment) == {old: 2, new: 2, lone: 2, unknown: 2}

    forced = await redrive(
        deployment.settings(),
        WAREHOUSE_INVENTORY.name,
        lambda letter: letter.key == old.encode(),
        Rules(overwrite=True),
    )
    assert len(forced.written) == 1
    assert (await counts(deployment))[old] == 1


async def test_a_topic_given_more_partitions_is_read_and_its_records_are_redriven(deployment: Deployment):
    worker = await deployment.start()
    await raised(deployment, WAREHOUSE_INVENTORY.name, 8)
    worker._member.consumer._consumer._client.force_metadata_update()  # as it does by itself every 30 s
    producer = Librdkafka(deployment, partitioner="murmur2_random")
    beyond = next(p for p in map("MUG-{}".format, range(100)) if partition_of(p.encode(), 8) >= 4)
    within = next(p for p in map("CUP-{}".format, range(100)) if partition_of(p.encode(), 8) < 4)

    at, _ = await producer.send(WAREHOUSE_INVENTORY, beyond, level(beyond, 5))
    await producer.send(WAREHOUSE_INVENTORY, within, level(within, 5))

    [letter] = await letters(deployment, WAREHOUSE_INVENTORY, 1)
    assert f"belongs in partition {at - 4}, the record is in {at}: " in letter.error
    assert "murmur2 of the key modulo 4" in letter.error
    await until(lambda: stock(worker, within) == 5, "stock that is where it belongs")
    await until(lambda: worker.readiness()["ready"], "still ready")
    await deployment.stop(worker)
    worker = await deployment.start(name="again")  # it is no reason to refuse a restart
    outcome = await redrive(deployment.settings(), WAREHOUSE_INVENTORY.name, everything)
    assert len(outcome.written) == 1
    await until(lambda: stock(worker, beyond) == 5, "stock that was put right")
    await deployment.stock(**{beyond: 7, within: 7})
    for product in (beyond, within):
        code, said = await orders(deployment, "stock", "set", product, "9")
        assert code == 0, said
    await until(lambda: stock(worker, beyond) == stock(worker, within) == 9, "stock of our own command")
    report = await audit(deployment.settings())
    assert (report.violations, report.counts["misplaced"]) == ([], 1)


async def test_a_worker_with_another_partition_count_is_refused(deployment: Deployment):
    await ensure_topics(deployment.settings(), public_topics())
    with pytest.raises(PartitionCountMismatch, match="has 4 partitions, PARTITIONS is 2"):
        await ensure_topics(deployment.settings(partitions=2), public_topics())
    with pytest.raises(PartitionCountMismatch, match="has 4 partitions, PARTITIONS is 8"):
        await ensure_topics(deployment.settings(partitions=8), public_topics())
    await raised(deployment, WAREHOUSE_INVENTORY.name, 8)
    await ensure_topics(deployment.settings(), public_topics())
    with pytest.raises(PartitionCountMismatch):
        await ensure_topics(deployment.settings(partitions=8), public_topics())


async def raised(deployment: Deployment, topic, count):
    """Gives a topic more partitions, as an operator may."""
    admin = AIOKafkaAdminClient(bootstrap_servers=deployment.servers)
    await admin.start()
    try:
        await admin.create_partitions({deployment.prefix + topic: NewPartitions(total_count=count)})
    finally:
        await admin.close()


async def counts(deployment: Deployment):
    """The stock of each product as its own partition tells it."""
    found = {}
    for record in await deployment.records(WAREHOUSE_INVENTORY.name):
        if record.partition == partition_of(record.key, PARTITIONS):
            found[record.key.decode()] = json.loads(record.value)["count"]
    return found


async def test_the_audit_reports_misplaced_records_not_their_consequences(deployment: Deployment):
    worker = await deployment.start(*CORE, "email")
    producer = Librdkafka(deployment)
    product, customer = "MUG", Customer(id=7, first_name="A", last_name="B", email="a@example.org", address="x")
    await producer.send(WAREHOUSE_INVENTORY, product, level(product, 5), elsewhere(product))
    await producer.send(CUSTOMERS, "7", customer.to_json(), elsewhere("7"))
    await letters(deployment, WAREHOUSE_INVENTORY, 1)
    await letters(deployment, CUSTOMERS, 1)
    await deployment.post(worker, id="o1", customerId=7, product=product, quantity=1, price=1)
    assert (await deployment.outcome(worker, "o1"))["state"] == "FAILED"
    await deployment.caught_up(worker.topology.group)

    report = await audit(deployment.settings())

    assert report.violations == []
    assert report.counts["misplaced"] == 2
    assert {(one.topic, one.partition, one.belongs, one.key) for one in report.misplaced} == {
        ("warehouse-inventory", elsewhere(product), partition_of(b"MUG", 4), "MUG"),
        ("customers", elsewhere("7"), partition_of(b"7", 4), "7"),
    }
    code, said = await orders(deployment, "audit")
    assert code == 0, said
    assert "key 'MUG' belongs in partition" in said
    assert "partitioner=murmur2_random" in said
    code, said = await orders(deployment, "audit", "--json")
    assert [one["topic"] for one in json.loads(said)["misplaced"]] == ["warehouse-inventory", "customers"]
    code, said = await orders(deployment, "tail", "warehouse-inventory", "--no-follow")
    assert code == 0, said
    assert f"misplaced: belongs in partition {partition_of(b'MUG', 4)}" in said


def stock(worker, product):
    row = worker.read(STOCK, product)
    return None if row is None else row.count
