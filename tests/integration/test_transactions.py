"""Transactions of the sender on real brokers: all or nothing, whichever broker is lost meanwhile."""

import asyncio
from collections import Counter

import pytest
from aiokafka import TopicPartition as Physical
from aiokafka.client import CoordinationType
from aiokafka.errors import MessageSizeTooLargeError, ProducerFenced

from ecosystem.embedded.kafka import Cluster
from runtime.common.settings import Settings
from runtime.errors import CommitInDoubt, MemberFenced
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.producers import KafkaTransactionalProducer
from runtime.kafka.topics import ensure_topics
from runtime.kafka.transactional_sender import TransactionalSender
from runtime.loop.checkpoint import ExactlyOnce
from runtime.model.limits import SizeLimits
from runtime.model.records import NO_MEMBER, Membership, TopicPartition, Write, Writes
from tests.workers import until

PARTITIONS = 3
TPS = [TopicPartition("letters", n) for n in range(PARTITIONS)]
METADATA = {TPS[0]: "note"}
GROUP = "readers"


class Broker:
    """A topic `letters` on some brokers, its producers and its readers."""

    def __init__(self, servers, prefix, copies=1):
        self.settings = Settings(
            kafka_bootstrap_servers=servers,
            topic_prefix=prefix,
            partitions=PARTITIONS,
            replication_factor=copies,
            _env_file=None,
        )
        self.prefix, self.limits, self.made = prefix, SizeLimits(), []

    def physical(self, tp):
        return Physical(self.prefix + tp.topic, tp.partition)

    async def new(self, id_="sender"):
        producer = KafkaTransactionalProducer(self.settings, GROUP, id_, self.limits, METADATA)
        self.made.append(producer)
        await producer.start()
        return producer

    def unstarted(self, turn):
        self.made.append(KafkaTransactionalProducer(self.settings, GROUP, f"sender-{turn}", self.limits, METADATA))
        return self.made[-1]

    async def values(self):
        """All committed values by partition, and those of aborted and open transactions, counted."""
        consumer = clients.standalone_consumer(self.settings)
        await consumer.start()
        try:
            tps = [self.physical(tp) for tp in TPS]
            written = await aiokafka_internals.log_ends(consumer, tps, committed=False)
            stable = await aiokafka_internals.log_ends(consumer, tps, committed=True)
            consumer.assign(tps)
            for tp in tps:
                consumer.seek(tp, 0)
            found = {tp: [] for tp in TPS}
            while any([await consumer.position(tp) < stable[tp] for tp in tps]):
                for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                    found[TPS[tp.partition]] += [record.value for record in records]
            return found, sum(written.values()) - sum(stable.values())
        finally:
            await consumer.stop()

    async def committed(self):
        consumer = clients.non_member_consumer(self.settings, self.prefix + GROUP)
        await consumer.start()
        try:
            return await aiokafka_internals.stable_commits(
                consumer, self.prefix + GROUP, [self.physical(tp) for tp in TPS]
            )
        finally:
            await consumer.stop()


@pytest.fixture
async def broker(kafka, prefix):
    broker = Broker(kafka, prefix)
    await ensure_topics(broker.settings, {"letters": {}})
    yield broker
    for producer in broker.made:
        await producer.end()


@pytest.fixture(scope="module")
def three_nodes(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("three"), nodes=3, heap_mb=256) as cluster:
        yield cluster


@pytest.fixture
async def replicated(three_nodes, prefix):
    broker = Broker(three_nodes.bootstrap_servers, prefix, copies=3)
    await ensure_topics(broker.settings, {"letters": {}})
    yield broker
    for producer in broker.made:
        await producer.end()


def to_all(value):
    return [Write(*tp, b"k", value) for tp in TPS]


async def test_readers_see_records_and_offsets_once_all_is_committed(broker, monkeypatch):
    producer, reached, released = await broker.new(), asyncio.Event(), asyncio.Event()
    end = TransactionalSender._end

    async def hold(self):
        reached.set()
        await released.wait()
        await end(self)

    monkeypatch.setattr(TransactionalSender, "_end", hold)
    running = asyncio.ensure_future(producer.transact([to_all(b"1"), to_all(b"2")], {TPS[0]: 4, TPS[1]: 5}, NO_MEMBER))
    await reached.wait()
    assert await broker.values() == ({tp: [] for tp in TPS}, 6)
    released.set()
    assert await running == dict.fromkeys(TPS, 1)

    async def all_visible():
        return await broker.values() == ({tp: [b"1", b"2"] for tp in TPS}, 0)

    await until(all_visible, "the markers are written")
    commits = await broker.committed()
    assert [tuple(c) if (c := commits[broker.physical(tp)]) else None for tp in TPS] == [(4, "note"), (5, ""), None]
    assert await producer.transact([to_all(b"3")], {}, NO_MEMBER) == dict.fromkeys(TPS, 3), "after a marker"


async def test_batches_above_the_size_of_a_request_keep_their_order(broker):
    producer = await broker.new()
    values = [b"%d" % n + bytes(300_000) for n in range(12)]
    ends = await producer.transact([[Write(*TPS[0], b"k", value) for value in values], to_all(b"x")], {}, NO_MEMBER)
    assert ends == {TPS[0]: 12, TPS[1]: 0, TPS[2]: 0}

    async def in_order():
        return (await broker.values())[0][TPS[0]] == [*values, b"x"]

    await until(in_order, "everything is visible, in order")


async def test_a_record_above_the_limit_of_the_topic_commits_nothing_and_is_known_then(broker):
    producer = await broker.new()
    large = Write(*TPS[1], b"k", bytes(1_200_000))
    for known in (None, large.size - 1):
        with pytest.raises(MessageSizeTooLargeError):
            await producer.transact([to_all(b"x"), [large]], {TPS[0]: 1}, NO_MEMBER)
        assert broker.limits.max_bytes("letters") in (known, large.size - 1)
        producer = await broker.new()  # aborts
    assert broker.limits.max_bytes("letters") == large.size - 1
    await producer.transact([to_all(b"y")], {}, NO_MEMBER)

    async def only_the_last():
        return await broker.values() == ({tp: [b"y"] for tp in TPS}, 0)

    await until(only_the_last, "the rest is aborted")
    assert set((await broker.committed()).values()) == {None}


async def test_a_successor_aborts_what_its_predecessor_left_and_fences_it(broker, monkeypatch):
    first, reached, released = await broker.new(), asyncio.Event(), asyncio.Event()
    end = TransactionalSender._end

    async def hold(self):
        reached.set()
        await released.wait()
        await end(self)

    with monkeypatch.context() as held:
        held.setattr(TransactionalSender, "_end", hold)
        running = asyncio.ensure_future(first.transact([to_all(b"first")], {TPS[0]: 9}, NO_MEMBER))
        await reached.wait()
    second = await broker.new()
    await second.transact([to_all(b"second")], {}, NO_MEMBER)
    released.set()
    with pytest.raises(ProducerFenced):
        await running

    async def only_the_second():
        return await broker.values() == ({tp: [b"second"] for tp in TPS}, 0)

    await until(only_the_second, "the first is aborted")
    assert set((await broker.committed()).values()) == {None}


async def test_an_unknown_member_is_fenced(broker):
    producer = await broker.new()
    with pytest.raises(MemberFenced):
        await producer.transact([to_all(b"x")], {TPS[0]: 1}, Membership(7, "nobody"))
    await broker.new()

    async def aborted():
        return await broker.values() == ({tp: [] for tp in TPS}, 0)

    await until(aborted, "nothing is visible")


@pytest.mark.parametrize("victim", ["leader", "transaction coordinator", "group coordinator"])
async def test_commits_are_whole_when_a_broker_is_killed_in_the_middle(three_nodes, replicated, victim):
    checkpoint = ExactlyOnce(replicated.unstarted, timeout_s=10)
    await checkpoint.start()
    acknowledged, in_doubt, stop = [], [], asyncio.Event()

    async def commits():
        number = 0
        while not stop.is_set():
            number += 1
            writes = Writes(to_all(b"%d" % number), [], {TPS[0]: number})
            try:
                await checkpoint.commit(writes, NO_MEMBER)
                acknowledged.append(number)
            except CommitInDoubt:
                in_doubt.append(number)

    node = await node_of(replicated, victim)
    running = asyncio.ensure_future(commits())
    try:
        await until(lambda: len(acknowledged) > 20, "commits before the fault")
        await asyncio.to_thread(three_nodes.kill, node)
        before = len(acknowledged)
        await until(lambda: len(acknowledged) > before + 20, "commits without the broker")
        await asyncio.to_thread(three_nodes.restart, node)
        before = len(acknowledged)
        await until(lambda: len(acknowledged) > before + 20, "commits with the broker again")
    finally:
        stop.set()
        await running
        await checkpoint.stop()
        if not three_nodes.nodes[node].running:
            await asyncio.to_thread(three_nodes.restart, node)

    async def decided():
        return (await replicated.values())[1] == 0

    await until(decided, "no transaction is open")
    values, _ = await replicated.values()
    numbers = [[int(value) for value in of_partition] for of_partition in values.values()]
    assert numbers[0] == numbers[1] == numbers[2], "in all partitions, or in none"
    assert numbers[0] == sorted(numbers[0])
    assert max(Counter(numbers[0]).values()) == 1
    assert set(acknowledged) <= set(numbers[0]) <= {*acknowledged, *in_doubt}
    commits = await replicated.committed()
    assert commits[replicated.physical(TPS[0])].offset == numbers[0][-1], "offsets as of the last records"


async def node_of(broker, what):
    client = clients.bare_client(broker.settings)
    await client.bootstrap()
    try:
        if what == "leader":
            await aiokafka_internals.watch_topics(client, [broker.prefix + "letters"])
            return client.cluster.leader_for_partition(broker.physical(TPS[0]))
        transactions = what == "transaction coordinator"
        kind = CoordinationType.TRANSACTION if transactions else CoordinationType.GROUP
        key = f"{broker.prefix}sender-0" if transactions else broker.prefix + GROUP
        return await client.coordinator_lookup(kind, key)
    finally:
        await client.close()
