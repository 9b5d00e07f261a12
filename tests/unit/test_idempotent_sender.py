"""The idempotent sender: what it asks, what it repeats, what it raises."""

import asyncio
import logging
import struct

import aiokafka.errors
import pytest
from aiokafka.errors import (
    IncompatibleBrokerVersion,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerClosed,
    ProducerFenced,
    for_code,
)
from aiokafka.protocol import produce, transaction
from aiokafka.protocol.types import Array, Int32, Int64, Schema, String
from aiokafka.record.default_records import DefaultRecordBatch

from runtime.errors import MemberFenced
from runtime.kafka import commit_requests as requests
from runtime.kafka.producers import KafkaProducer
from runtime.model.limits import SizeLimits
from runtime.model.log_ids import CommittedOffset
from runtime.model.records import TopicPartition, Write
from tests.kafka_script import CLOSE, INIT, PLAIN, PLAIN_OFFSETS, PRODUCE, ScriptedBrokers
from tests.senders import CODES, ENDS, FENCED, ME, METADATA, OFFSETS, PRODUCER_FENCED, WRITES, ending

RETRIED = {
    INIT: {14, 15, 16, 51},
    PRODUCE: {3, 5, 6, 7, 14, 15, 16, 19, 20, 56},
    PLAIN_OFFSETS: {3, 7, 14, 15, 16},
}


@pytest.fixture
async def brokers():
    async with ScriptedBrokers(nodes=2).running() as brokers:
        yield brokers


@pytest.fixture
def limits():
    return SizeLimits()


@pytest.fixture
async def new_producer(brokers, limits):
    async with ending(brokers, lambda settings: KafkaProducer(settings, "group", limits, METADATA)) as new:
        yield new


@pytest.fixture
async def producer(new_producer):
    producer = new_producer()
    await producer.start()
    return producer


def send(producer, writes=WRITES):
    return asyncio.wait_for(producer.send(writes), 10)


def commit(producer):
    return asyncio.wait_for(producer.commit(OFFSETS, ME), 10)


def batch_of(asked):
    """The first batch of a Produce: producer id, epoch, first sequence number, and its records."""
    at = asked.body.index(b"\x00\x00\x00\x01\x00\x01a\x00\x00\x00\x01") + 19
    (size,) = struct.unpack_from(">i", asked.body, at - 4)
    raw = asked.body[at : at + size]
    batch = DefaultRecordBatch(raw)
    assert not batch.is_transactional, "a broker rejects it: TRANSACTIONAL_ID_AUTHORIZATION_FAILED"
    return struct.unpack_from(">qhi", raw, 43), list(batch)


# Requests


async def test_a_write_is_one_request_without_a_transactional_id_and_numbers_its_records(brokers, producer):
    assert await send(producer, [WRITES[0], WRITES[2]]) == {TopicPartition("a", 0): 1}
    assert await send(producer, WRITES[:1]) == {TopicPartition("a", 0): 2}
    assert brokers.names == [INIT, PRODUCE, PRODUCE]
    first, second = (asked for asked in brokers.of(PRODUCE))
    assert first.body.startswith(b"\xff\xff\xff\xff"), "no transactional id, acks of all replicas"
    identity, records = batch_of(first)
    assert identity == (7, 1, 0)
    assert [(r.key, r.value, r.headers) for r in records] == [(b"k", b"v0", []), (b"k", None, [("h", b"x")])]
    assert batch_of(second)[0] == (7, 1, 2)


async def test_nothing_is_sent_for_nothing(brokers, producer):
    assert await producer.send([], []) == {}
    assert brokers.names == [INIT]


async def test_each_leader_gets_the_records_of_its_partitions(brokers, producer):
    brokers.leaders["b", 1] = 2
    assert await send(producer) == ENDS
    assert {(asked.node, b"v0" in asked.body, b"v1" in asked.body) for asked in brokers.of(PRODUCE)} == {
        (1, True, False),
        (2, False, True),
    }


async def test_offsets_are_committed_with_the_membership_while_records_are_written(brokers, producer):
    answer = asyncio.Event()
    brokers.answers[PRODUCE].append(answer)
    running = asyncio.ensure_future(send(producer))
    while PRODUCE not in brokers.names:
        await asyncio.sleep(0.001)
    await commit(producer)
    [asked] = brokers.of(PLAIN_OFFSETS)
    offsets = {TopicPartition("b", 0): CommittedOffset(5, "note")}
    assert asked.body == requests.OffsetCommit("group", ME, offsets).body
    answer.set()
    assert await running == ENDS


async def test_a_second_write_meanwhile_is_refused(brokers, producer):
    brokers.answers[PRODUCE].append(answer := asyncio.Event())
    running = asyncio.ensure_future(send(producer))
    while PRODUCE not in brokers.names:
        await asyncio.sleep(0.001)
    with pytest.raises(ProducerClosed):
        await send(producer)
    answer.set()
    assert await running == ENDS


def test_requests_are_encoded_as_by_aiokafka():
    assert requests.InitProducerId(None, -1).body == transaction.InitProducerIdRequest_v0(None, -1).encode()
    ours = requests.Produce(None, 5, {("a", 0): b"xy", ("b", 3): b""})
    assert ours.body == produce.ProduceRequest_v8(None, -1, 5, [("a", [(0, b"xy")]), ("b", [(3, b"")])]).encode()


def test_an_offset_commit_is_encoded_as_the_protocol_says():
    partition = Schema(("n", Int32), ("offset", Int64), ("leader_epoch", Int32), ("metadata", String("utf-8")))
    version_7 = Schema(
        ("group", String("utf-8")),
        ("generation", Int32),
        ("member", String("utf-8")),
        ("instance", String("utf-8")),
        ("topics", Array(("topic", String("utf-8")), ("partitions", Array(partition)))),
    )
    note = "ü" * 200
    offsets = {
        ("a", 0): CommittedOffset(1, ""),
        ("b", 1): CommittedOffset(2**40, note),
        ("a", 2): CommittedOffset(3, ""),
    }
    topics = [("a", [(0, 1, -1, ""), (2, 3, -1, "")]), ("b", [(1, 2**40, -1, note)])]
    assert requests.OffsetCommit("g", ME, offsets).body == version_7.encode(("g", 3, "me", None, topics))


# Errors


@pytest.mark.parametrize("name", PLAIN)
async def test_each_error_code_of_each_request_is_retried_or_raised(brokers, new_producer, name):
    producer, wrong = None, []
    for code in CODES:
        del brokers.asked[:]
        if producer is None:
            producer = new_producer()
            if name != INIT:
                await producer.start()
        brokers.answers[name].append(code)
        try:
            if name == INIT:
                await asyncio.wait_for(producer.start(), 10)
                await producer.end()
                producer = None
            elif name == PRODUCE:
                assert await send(producer, WRITES[:2])
            else:
                await commit(producer)
            raised = None
        except (KafkaError, MemberFenced) as error:
            raised = error
        if raised is None:
            assert brokers.names.count(name) == 2, code
        elif name == PRODUCE:
            with pytest.raises(ProducerClosed):
                await send(producer)
            await producer.end()
            producer = None
        elif name == PLAIN_OFFSETS:
            assert await send(producer, WRITES[:2]), "records are written on"
        expected = ProducerFenced if code in PRODUCER_FENCED else for_code(code)
        if name == PLAIN_OFFSETS and code in FENCED:
            expected = MemberFenced
        if code in RETRIED[name]:
            expected = None
        if (None if raised is None else type(raised)) is not expected:
            wrong.append((code, raised, expected))
    assert wrong == []


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("times", [1, 3])
async def test_a_lost_connection_is_made_again_and_the_request_repeated(brokers, new_producer, name, times):
    brokers.answers[name].extend([CLOSE] * times)
    producer = new_producer()
    await producer.start()
    assert await send(producer) == ENDS
    await commit(producer)
    assert brokers.names.count(name) == times + 1
    assert len({asked.body for asked in brokers.of(name)}) == 1, "with the same sequence numbers"


async def test_a_leader_that_moved_is_found_again_and_only_its_batch_repeated(brokers, producer):
    await send(producer)
    del brokers.asked[:]
    brokers.leaders["b", 1] = 2
    brokers.answers[PRODUCE].append(lambda topic, _: 6 if topic == "b" else 0)
    assert await send(producer) == {TopicPartition("a", 0): 3, TopicPartition("b", 1): 1}
    first, second = brokers.of(PRODUCE)
    assert (first.node, second.node) == (1, 2)
    assert [b"v0" in asked.body for asked in (first, second)] == [True, False]


@pytest.mark.parametrize("how", [16, CLOSE])
async def test_a_coordinator_that_moved_is_found_again(brokers, producer, how):
    await commit(producer)
    del brokers.asked[:]
    brokers.answers[PLAIN_OFFSETS].append(how)
    brokers.coordinators[0] = 2
    await commit(producer)
    assert [asked.node for asked in brokers.of(PLAIN_OFFSETS)] == [1, 2]


@pytest.mark.parametrize("code", [45, 46, 59])
async def test_after_a_gap_in_the_sequence_numbers_a_new_producer_begins_anew(brokers, new_producer, code):
    brokers.answers[PRODUCE].extend([0, code])
    for attempt in range(2):
        producer = new_producer()
        await producer.start()
        await send(producer, WRITES[:1])
        if not attempt:
            with pytest.raises(for_code(code)):
                await send(producer, WRITES[:1])
            with pytest.raises(ProducerClosed):
                await send(producer, WRITES[:1])
            await producer.end()
    assert brokers.names == [INIT, PRODUCE, PRODUCE, INIT, PRODUCE]
    assert [batch_of(asked)[0][2] for asked in brokers.of(PRODUCE)] == [0, 1, 0]


async def test_a_fenced_member_is_named(brokers, producer):
    brokers.answers[PLAIN_OFFSETS].append(25)
    with pytest.raises(MemberFenced, match="UNKNOWN_MEMBER_ID"):
        await commit(producer)


async def test_a_failed_start_leaves_nothing(brokers, new_producer):
    producer = new_producer()
    brokers.answers[INIT].append(31)
    with pytest.raises(aiokafka.errors.ClusterAuthorizationFailedError):
        await producer.start()
    with pytest.raises(ProducerClosed):
        await send(producer)
    with pytest.raises(ProducerClosed):
        await commit(producer)


# Sizes and versions


async def test_records_above_the_size_of_a_batch_follow_in_order(brokers, producer):
    writes = [Write("a", 0, b"k", bytes(200_000)) for _ in range(7)]
    assert await send(producer, [*writes, WRITES[1]]) == {TopicPartition("a", 0): 6, TopicPartition("b", 1): 0}
    sizes = [len(asked.body) for asked in brokers.of(PRODUCE)]
    assert len(sizes) == 4
    assert max(sizes) < 512 * 1024


async def test_a_rejected_batch_teaches_the_limit(brokers, new_producer, limits):
    together, single = "topic a: 2 messages of 6 bytes together", "topic a: a message of 3 bytes"
    for writes, said in ((WRITES[::2], together), (WRITES[:1], single)):
        producer = new_producer()
        await producer.start()
        brokers.answers[PRODUCE].append(10)
        with pytest.raises(MessageSizeTooLargeError, match=said):
            await send(producer, writes)
    assert limits.one_by_one("a")
    assert limits.max_bytes("a") == 2


@pytest.mark.parametrize("newest", [3, 7, 8])
async def test_each_version_of_produce_is_understood(brokers, new_producer, newest):
    brokers.versions[0] = (0, newest)
    producer = new_producer()
    await producer.start()
    brokers.answers[PRODUCE].append(6)
    assert await send(producer) == ENDS


async def test_a_broker_without_a_version_of_ours_is_named(brokers, new_producer):
    brokers.versions[8] = (0, 6)
    producer = new_producer()
    await producer.start()
    with pytest.raises(IncompatibleBrokerVersion, match="the broker does not know OffsetCommit"):
        await commit(producer)


# The end


async def test_an_end_meanwhile_closes_a_write_and_a_commit(brokers, producer):
    brokers.answers[PRODUCE].append(asyncio.Event())
    brokers.answers[PLAIN_OFFSETS].append(asyncio.Event())
    running = [asyncio.ensure_future(send(producer)), asyncio.ensure_future(commit(producer))]
    while not {PRODUCE, PLAIN_OFFSETS} <= {*brokers.names}:
        await asyncio.sleep(0.001)
    await producer.end()
    assert [type(error) for error in await asyncio.gather(*running, return_exceptions=True)] == [ProducerClosed] * 2


async def test_a_cancelled_write_leaves_no_task_and_no_warning(brokers, producer, caplog):
    brokers.answers[PRODUCE].append(asyncio.Event())
    before = asyncio.all_tasks()
    with caplog.at_level(logging.WARNING):
        running = asyncio.ensure_future(send(producer))
        while PRODUCE not in brokers.names:
            await asyncio.sleep(0.001)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert [task for task in asyncio.all_tasks() - before if "PartitionLeaders" in repr(task)] == []
        with pytest.raises(ProducerClosed):
            await send(producer)
        await producer.end()
    assert [r for r in caplog.records if r.name == "asyncio"] == []


async def test_a_silent_broker_is_asked_again_after_the_time_limit_of_a_request(brokers, new_producer, monkeypatch):
    monkeypatch.setattr("runtime.kafka.clients.REQUEST_TIMEOUT_MS", 100)
    producer = new_producer()
    await producer.start()
    brokers.answers[PRODUCE].append(asyncio.Event())
    brokers.answers[PLAIN_OFFSETS].append(asyncio.Event())
    assert await send(producer) == ENDS
    await commit(producer)
    assert (brokers.names.count(PRODUCE), brokers.names.count(PLAIN_OFFSETS)) == (2, 2)
