"""Every codec of Kafka is read on every path, and a log that is damaged on disk costs what is damaged, nothing more."""

import asyncio
import logging
import os
import struct
import sys
from collections import Counter

import confluent_kafka
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record.util import calc_crc32c
from prometheus_client import CollectorRegistry

from ecosystem.audit import ViolationKind, audit
from ecosystem.clients import reader
from ecosystem.clients.dead_letters.redrive import redrive
from ecosystem.clients.wording import counted
from ecosystem.embedded.kafka import Cluster
from orders_service.state import ORDERS_VIEW
from runtime.common.partitioning import partition_of
from runtime.data_loss.losses import LossCause, LossReporter, RecordsLost
from runtime.kafka.log_reader import KafkaLogReader
from runtime.kafka.topics import ensure_topics, topics_of
from runtime.loop.standby import StandbyReplicas
from runtime.metrics.loop import LoopMetrics
from runtime.model.service import Input, Service, Table
from runtime.model.topology import Topology
from runtime.state.stores import MemoryStores
from schemas.messages import Order, StockLevel
from schemas.topics import ORDERS, WAREHOUSE_INVENTORY
from tests.workers import Deployment, until

CODECS = ("gzip", "snappy", "lz4", "zstd")
IDS = {p: [id_ for id_ in (f"o{n}" for n in range(200)) if partition_of(id_.encode(), 4) == p] for p in range(4)}
LEVELS = Table("keeper-levels", StockLevel)
KEEPER = Service("keeper", (Input(WAREHOUSE_INVENTORY, lambda *_: None),), (), (LEVELS,))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("kafka")) as cluster:
        yield cluster


@pytest.fixture
async def deployment(cluster, prefix, tmp_path):
    """On a broker whose files are ours to damage."""
    async with Deployment(cluster.bootstrap_servers, prefix, tmp_path) as deployment:
        yield deployment


def order(id_):
    return Order(id=id_, customer_id=1, product="JUMPERS", quantity=1, price=1)


async def orders(deployment: Deployment, *arguments):
    """What a command says, and its exit code."""
    mine = {"KAFKA_BOOTSTRAP_SERVERS": deployment.servers, "TOPIC_PREFIX": deployment.prefix, "COLUMNS": "400"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "ecosystem.cli", *arguments, env=os.environ | mine, stdout=-1, stderr=-2
    )
    said, _ = await process.communicate()
    return said.decode(), process.returncode


async def batch_of(deployment: Deployment, topic, partition, messages, codec=None):
    """Writes (key, value)s as one batch. Returns its first offset."""
    async with AIOKafkaProducer(bootstrap_servers=deployment.servers, compression_type=codec) as producer:
        batch = producer.create_batch()
        for key, value in messages:
            batch.append(key=key, value=value, timestamp=None)
        sent = await producer.send_batch(batch, deployment.prefix + topic, partition=partition)
        return (await sent).offset


def damage(cluster, topic, partition, offset, how):
    """Has `how` change the batch that holds an offset, in the broker's file; what it returns is written there."""
    (log,) = (cluster.nodes[1].data / f"{topic}-{partition}").glob("*.log")
    with log.open("r+b") as file:
        raw, at = file.read(), 0
        while True:
            base, length = struct.unpack_from(">qi", raw, at)
            if base <= offset <= base + struct.unpack_from(">i", raw, at + 23)[0]:
                break
            at += 12 + length
        changed = how(bytearray(raw[at : at + 12 + length]))
        assert len(changed) == 12 + length
        file.seek(at)
        file.write(changed)


def bytes_flipped(raw):
    raw[-3] ^= 0xFF
    raw[70] ^= 0xFF
    return raw


def codec_unknown(raw):
    raw[22] |= 7
    return signed(raw)


def payload_replaced(raw):
    raw[61:] = os.urandom(len(raw) - 61)
    return signed(raw)


def head_damaged(raw):
    raw[23:27] = b"\x7f\xff\xff\xff"
    return raw


def signed(raw):
    struct.pack_into(">I", raw, 17, calc_crc32c(bytes(raw[21:])))
    return raw


async def dead(deployment: Deployment, topic=ORDERS):
    """Dead letters by place: their headers."""
    found = {}
    for record in await deployment.records(topic.dead_letters):
        headers = {name: (value or b"").decode() for name, value in record.headers}
        place = int(headers["partition"]), int(headers["offset"])
        assert place not in found
        found[place] = headers | {"value": record.value}
    return found


@pytest.mark.parametrize("client", ["aiokafka", "librdkafka"])
async def test_every_codec_is_read_from_inputs_changelogs_and_by_commands(deployment: Deployment, client):
    worker = await deployment.start(name="one")
    await deployment.stock(JUMPERS=1000)
    for table in worker.topology.tables.values():
        await deployment.configure(table.changelog, {"compression.type": "zstd", "cleanup.policy": "compact"})
    await deployment.configure(ORDERS.dead_letters, {"compression.type": "lz4"})
    expected = []
    for codec, partition in zip(CODECS, range(4), strict=True):
        ids = IDS[partition][:5]
        messages = [(id_.encode(), order(id_).to_json()) for id_ in ids]
        messages.append((IDS[partition][-1].encode(), codec.encode() * 100))
        if client == "aiokafka":
            await batch_of(deployment, ORDERS.name, partition, messages, codec)
        else:
            options = {"bootstrap.servers": deployment.servers, "compression.type": codec, "linger.ms": 200}
            producer = confluent_kafka.Producer(options)
            for key, value in messages:
                headers = [("trace", b"1"), ("null", None), ("", b""), ("trace", b"2")]
                producer.produce(deployment.prefix + ORDERS.name, value, key, partition, headers=headers)
            assert await asyncio.to_thread(producer.flush, 60) == 0
        expected += ids
    for id_ in expected:
        assert (await deployment.outcome(worker, id_))["state"] == "VALIDATED"
    await until(lambda: _counted(deployment, 4), "what is no order is set aside")
    await deployment.stop(worker)

    restored: list[int] = []
    worker = await deployment.start(name="another-disk", restored=restored.append)

    assert sum(restored) >= len(expected)
    for id_ in expected:
        assert (await deployment.get(worker, id_, timeout=0))[1]["state"] == "VALIDATED"
    assert {id_.encode() for id_ in expected} < await reader.read_keys(deployment.settings(), ORDERS.name)
    report = await audit(deployment.settings())
    assert (report.violations, report.counts["VALIDATED"], report.counts["unreadable"]) == ([], 20, 4)
    for arguments in (
        ("tail", "--from-beginning", "--no-follow"),
        ("tail", "orders-view-changelog", "--from-beginning", "--no-follow"),
        ("dead-letters", "list"),
        ("dead-letters", "show", "orders", "0@0"),
        ("dead-letters", "list", "--json"),
    ):
        said, code = await orders(deployment, *arguments)
        assert (code, "Traceback" in said) == (0, False), said
    again = await redrive(deployment.settings(), ORDERS.name, lambda letter: letter.id.partition == 1)
    assert len(again.written) == 1
    if client == "librdkafka":
        [back] = [r for r in await deployment.records(ORDERS.name) if r.key == IDS[1][-1].encode()][1:]
        sent = (("trace", b"1"), ("null", None), ("", b""), ("trace", b"2"))
        assert back.headers == (*sent, ("redriven", b"1"))


async def _counted(deployment: Deployment, count):
    return len(await deployment.records(ORDERS.dead_letters)) == count


@pytest.mark.parametrize("codec", [None, "zstd"])
@pytest.mark.parametrize("how", [bytes_flipped, codec_unknown, payload_replaced, head_damaged])
async def test_damaged_records_are_dead_lettered_by_offset_and_others_processed(
    deployment: Deployment, cluster, how, codec
):
    worker = await deployment.start()
    await deployment.stock(JUMPERS=100)
    await deployment.stop(worker)
    ids = IDS[2]
    for some in (ids[:3], ids[3:6], ids[6:9]):
        messages = [(id_.encode(), order(id_).to_json()) for id_ in some]
        first = await batch_of(deployment, ORDERS.name, 2, messages, codec)
        if some == ids[3:6]:
            bad = first
    damage(cluster, deployment.prefix + ORDERS.name, 2, bad, how)

    worker = await deployment.start()

    for id_ in ids[:3] + ids[6:9]:
        assert (await deployment.outcome(worker, id_))["state"] == "VALIDATED"
    _, later = await deployment.post(worker, id=ids[9], customerId=1, product="JUMPERS", quantity=1, price=1)
    assert (await deployment.outcome(worker, later["id"]))["state"] == "VALIDATED"
    letters = await dead(deployment)
    offsets = [o for (_, first), h in letters.items() for o in range(first, int(h["lost-until"]))]
    assert sorted(offsets) == [bad, bad + 1, bad + 2]
    assert all(h["topic"] == "orders" and h["partition"] == "2" and h["value"] == b"" for h in letters.values())
    assert all("send it again" in h["error"] for h in letters.values())
    assert worker.readiness()["ready"]

    await deployment.stop(worker)
    worker = await deployment.start(name="another-disk")

    _, later = await deployment.post(worker, id=ids[10], customerId=1, product="JUMPERS", quantity=1, price=1)
    assert (await deployment.outcome(worker, later["id"]))["state"] == "VALIDATED"
    assert (await dead(deployment)).keys() == letters.keys()
    report = await audit(deployment.settings())
    assert report.found == Counter({ViolationKind.RECORDS_LOST: len(letters)})
    assert report.counts["VALIDATED"] == 8
    assert report.unreadable[0].startswith(f"orders 2@{bad}: ")
    tail, listing, redriving = await asyncio.gather(
        orders(deployment, "tail", "orders", "--from-beginning", "--no-follow"),
        orders(deployment, "dead-letters", "list"),
        orders(deployment, "dead-letters", "redrive", "orders", "--all"),
    )
    said, code = tail
    assert (code, said.count("unreadable: "), said.count(" VALIDATED ")) == (0, len(letters), 8), said
    said, code = listing
    assert (code, f"orders: {counted(len(letters), 'dead letter')}" in said) == (0, True), said
    said, code = redriving
    assert (code, "0 written back" in said) == (1, True), said


async def test_a_damaged_changelog_is_reported_and_its_other_records_restored(deployment: Deployment, cluster, caplog):
    worker = await deployment.start(name="one")
    await deployment.stock(JUMPERS=100)
    places = {}
    for id_ in IDS[1][:3]:
        await deployment.send(ORDERS, order(id_))
        await deployment.outcome(worker, id_)
    await deployment.stop(worker)
    for record in await deployment.records(ORDERS_VIEW.changelog):
        places.setdefault(record.key.decode(), []).append(record.offset)
    lost = IDS[1][1]
    for offset in places[lost]:
        damage(cluster, deployment.prefix + ORDERS_VIEW.changelog, 1, offset, bytes_flipped)

    refused = await deployment.start(name="another-disk", ready=False, on_lost_records="stop")
    await refused.ended()
    assert isinstance(refused.failure, RecordsLost)
    assert "cannot be decoded" in refused.failure.loss.description
    await deployment.stop(refused)

    caplog.set_level(logging.ERROR)
    worker = await deployment.start(name="a-third-disk")

    for id_ in IDS[1][:3]:
        status, _ = await deployment.get(worker, id_, timeout=0)
        assert status == (404 if id_ == lost else 200)
    told = [r.getMessage() for r in caplog.records if "records lost" in r.getMessage()]
    assert told
    assert all("topic=orders-view-changelog partition=1" in line and "cause=unreadable" in line for line in told)
    report = await audit(deployment.settings())
    assert {ViolationKind.RECORDS_LOST, ViolationKind.UNREADABLE_RECORD} <= report.found.keys()
    said, code = await orders(deployment, "tail", "orders-view-changelog", "--from-beginning", "--no-follow")
    assert (code, "unreadable: " in said) == (0, True), said


@pytest.mark.parametrize("codec", [None, *CODECS])
async def test_a_standby_replica_reads_every_codec_and_reports_damaged_records(deployment: Deployment, cluster, codec):
    topic, kept = deployment.prefix + LEVELS.changelog, []
    await ensure_topics(deployment.settings(), topics_of(Topology((KEEPER,))))

    async def keep(loss):
        kept.append(loss)

    stores = MemoryStores()
    lost = LossReporter(LoopMetrics(CollectorRegistry()), persist=keep)
    broker = KafkaLogReader(deployment.settings(), "keeper")
    follower = StandbyReplicas(
        Topology((KEEPER,)),
        stores,
        broker,
        LoopMetrics(CollectorRegistry()),
        asyncio.get_running_loop().time,
        lost,
    )
    for keys in (b"abc", b"def", b"ghi"):
        first = await batch_of(deployment, LEVELS.changelog, 0, [(bytes([k]), b"1" * 50) for k in keys], codec)
        if keys == b"def":
            damage(cluster, topic, 0, first, bytes_flipped)
    try:
        follower.follow({0})
        rows = lambda: b"".join(sorted(stores.open(LEVELS.name, 0).rows))  # noqa: E731
        await until(lambda: rows() == b"abcghi", "followed")
        await until(lambda: kept, "told")
        assert [(loss.first, loss.end, loss.cause) for loss in kept] == [(3, 6, LossCause.UNREADABLE)]
    finally:
        await follower.stop()
        await broker.stop()
