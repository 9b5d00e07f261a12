"""The transactional sender: which requests follow which, what it repeats, what it raises."""

import asyncio
import logging
import struct
import weakref

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

from runtime.common.settings import Settings
from runtime.errors import MemberFenced
from runtime.kafka import commit_requests as requests
from runtime.kafka.producers import KafkaTransactionalProducer
from runtime.kafka.transactions import why_no_transactions
from runtime.model.limits import SizeLimits
from runtime.model.log_ids import CommittedOffset
from runtime.model.records import TopicPartition, Write
from tests.kafka_script import (
    ADD_OFFSETS,
    ADD_PARTITIONS,
    CLOSE,
    COMMIT_OFFSETS,
    END,
    FIND_COORDINATOR,
    INIT,
    PRODUCE,
    TRANSACTION,
    VERSIONS,
    ScriptedBrokers,
)
from tests.senders import CODES, ENDS, FENCED, ME, METADATA, OFFSETS, PRODUCER_FENCED, WRITES, ending

RETRIED = {
    INIT: {14, 15, 16, 51},
    ADD_PARTITIONS: {3, 14, 15, 16, 51},
    ADD_OFFSETS: {14, 15, 16, 51},
    PRODUCE: {3, 5, 6, 7, 14, 15, 16, 19, 20, 56},
    COMMIT_OFFSETS: {3, 7, 14, 15, 16, 51},
    END: {14, 15, 16, 51},
}
"""Errors that a repeated request mends, as in aiokafka's sender. A TxnOffsetCommit may also meet an open transition."""


@pytest.fixture
async def brokers():
    async with ScriptedBrokers(nodes=2).running() as brokers:
        yield brokers


@pytest.fixture
def limits():
    return SizeLimits()


@pytest.fixture
async def new_producer(brokers, limits):
    async with ending(
        brokers, lambda settings: KafkaTransactionalProducer(settings, "group", "id", limits, METADATA)
    ) as new:
        yield new


@pytest.fixture
async def producer(new_producer):
    producer = new_producer()
    await producer.start()
    return producer


def commit(producer, writes=WRITES, offsets=OFFSETS):
    return asyncio.wait_for(producer.transact([writes], offsets, ME), 10)


# Order of requests


async def test_a_commit_is_five_requests_and_returns_the_last_offsets(brokers, producer):
    assert await commit(producer) == ENDS
    assert sorted(brokers.names) == sorted(TRANSACTION)
    assert await commit(producer) == {TopicPartition("a", 0): 3, TopicPartition("b", 1): 1}


async def test_partitions_and_group_are_added_at_once_before_either_is_answered(brokers, producer):
    answer = asyncio.Event()
    brokers.answers[ADD_PARTITIONS].append(answer)
    running = asyncio.ensure_future(commit(producer))
    while ADD_PARTITIONS not in brokers.names:
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.02)
    assert brokers.names == [INIT, ADD_PARTITIONS], "a broker reads the next request after it has answered"
    answer.set()
    await running
    assert brokers.names[:3] == [INIT, ADD_PARTITIONS, ADD_OFFSETS]


@pytest.mark.parametrize(("slow", "meanwhile"), [(PRODUCE, COMMIT_OFFSETS), (COMMIT_OFFSETS, PRODUCE)])
async def test_records_and_offsets_do_not_wait_for_each_other_and_the_end_waits_for_both(
    brokers, producer, slow, meanwhile
):
    brokers.coordinators[0] = 2
    answer = asyncio.Event()
    brokers.answers[slow].append(answer)
    running = asyncio.ensure_future(commit(producer))
    while not {slow, meanwhile} <= set(brokers.names):
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    assert END not in brokers.names
    answer.set()
    assert await running == ENDS
    assert brokers.names[-1] == END


@pytest.mark.parametrize(("writes", "offsets", "expected"), [
    (WRITES, {}, [ADD_PARTITIONS, PRODUCE, END]),
    ([], OFFSETS, [ADD_OFFSETS, COMMIT_OFFSETS, END]),
    ([], {}, []),
])  # fmt: skip
async def test_what_is_empty_is_not_sent(brokers, producer, writes, offsets, expected):
    await commit(producer, writes, offsets)
    assert brokers.names == [INIT, *expected]


async def test_each_leader_gets_the_records_of_its_partitions(brokers, producer):
    brokers.leaders["b", 1] = 2
    assert await commit(producer) == ENDS
    assert {(asked.node, b"v0" in asked.body, b"v1" in asked.body) for asked in brokers.of(PRODUCE)} == {
        (1, True, False),
        (2, False, True),
    }


async def test_sequence_numbers_continue_where_the_last_transaction_ended(brokers, producer):
    for _ in range(3):
        await commit(producer, WRITES[:1] * 2, {})
    assert [_base_sequence(asked.body) for asked in brokers.of(PRODUCE)] == [0, 2, 4]


def _base_sequence(body):
    """Of the only batch in a request: the field before the number of records."""
    at = body.index(b"\x00\x00\x00\x01" + b"\x00\x01a") + 7 + 4 + 4 + 4
    return struct.unpack_from(">i", body, at + 53)[0]


# Errors


def expected_error(name, code):
    if name == COMMIT_OFFSETS and code in FENCED:
        return MemberFenced
    return ProducerFenced if code in PRODUCER_FENCED else for_code(code)


@pytest.mark.parametrize("name", TRANSACTION)
async def test_each_error_code_of_each_request_is_retried_or_raised(brokers, new_producer, name):
    producer, wrong = None, []
    for code in CODES:
        del brokers.asked[:]
        if producer is None or name == INIT:
            producer = new_producer()
            if name != INIT:
                await producer.start()
        brokers.answers[name].append(code)
        try:
            if name == INIT:
                await asyncio.wait_for(producer.start(), 10)
            else:
                assert await commit(producer, WRITES[:2])
            raised = None
        except (KafkaError, MemberFenced) as error:
            raised = error
        if raised is None:
            assert brokers.names.count(name) == 2, code
        else:
            assert name == END or END not in brokers.names
            with pytest.raises(ProducerClosed):
                await commit(producer)
            await producer.end()
            producer = None
        expected = None if code in RETRIED[name] else expected_error(name, code)
        if (None if raised is None else type(raised)) is not expected:
            wrong.append((code, raised, expected))
    assert wrong == []


@pytest.mark.parametrize("name", TRANSACTION)
@pytest.mark.parametrize("times", [1, 3])
async def test_a_lost_connection_at_any_step_is_made_again_and_the_request_repeated(brokers, new_producer, name, times):
    brokers.answers[name].extend([CLOSE] * times)
    producer = new_producer()
    await producer.start()
    assert await commit(producer) == ENDS
    assert brokers.names.count(name) == times + 1
    assert brokers.names[-1] == END
    assert await commit(producer)


@pytest.mark.parametrize("name", [ADD_PARTITIONS, ADD_OFFSETS, COMMIT_OFFSETS, END])
@pytest.mark.parametrize("how", [16, CLOSE])
async def test_a_coordinator_that_moved_is_found_again(brokers, producer, name, how):
    """It answers NOT_COORDINATOR, or not at all."""
    await commit(producer)
    del brokers.asked[:]
    brokers.answers[name].append(how)
    brokers.coordinators.update({0: 2, 1: 2})
    await commit(producer)
    assert [asked.node for asked in brokers.of(name)] == [1, 2]


async def test_a_leader_that_moved_is_found_again_and_only_its_batch_repeated(brokers, producer):
    await commit(producer)
    del brokers.asked[:]
    brokers.leaders["b", 1] = 2
    brokers.answers[PRODUCE].append(lambda topic, _: 6 if topic == "b" else 0)
    assert await commit(producer) == {TopicPartition("a", 0): 3, TopicPartition("b", 1): 1}
    first, second = brokers.of(PRODUCE)
    assert (first.node, second.node) == (1, 2)
    assert [b"v1" in asked.body for asked in (first, second)] == [True, True]
    assert [b"v0" in asked.body for asked in (first, second)] == [True, False]


async def test_a_partition_without_a_leader_is_waited_for(brokers, producer):
    brokers.leaders["b", 1] = -1
    running = asyncio.ensure_future(commit(producer))
    while PRODUCE not in brokers.names:
        await asyncio.sleep(0.001)
    brokers.leaders["b", 1] = 2
    assert await running == ENDS
    assert [asked.node for asked in brokers.of(PRODUCE)] == [1, 2]


@pytest.mark.parametrize(("codes", "retried"), [((15, 16), True), ((14, 15, 16), True), ((53,), False), ((30,), False)])
async def test_a_coordinator_is_looked_up_until_it_is_known(brokers, new_producer, codes, retried):
    brokers.answers[FIND_COORDINATOR].extend(codes)
    producer = new_producer()
    if retried:
        await producer.start()
        return
    with pytest.raises(for_code(codes[0])):
        await producer.start()


async def test_several_errors_of_one_request_raise_the_one_that_no_retry_mends(brokers, producer):
    brokers.answers[ADD_PARTITIONS].append(lambda topic, _: 55 if topic == "a" else 29)
    with pytest.raises(aiokafka.errors.TopicAuthorizationFailedError, match=r"AddPartitionsToTxn of id b\[1\]"):
        await commit(producer)


async def test_partitions_that_were_not_attempted_are_added_again(brokers, producer):
    brokers.answers[ADD_PARTITIONS].append(lambda topic, _: 55 if topic == "a" else 3)
    assert await commit(producer) == ENDS


async def test_a_fenced_member_comes_before_any_other_error(brokers, producer):
    brokers.answers[PRODUCE].append(45)
    brokers.answers[COMMIT_OFFSETS].append(22)
    brokers.answers[ADD_PARTITIONS].append(0)
    with pytest.raises((MemberFenced, aiokafka.errors.OutOfOrderSequenceNumber)):
        await commit(producer)
    assert END not in brokers.names


async def test_an_error_is_raised_while_another_request_is_not_answered(brokers, producer):
    brokers.coordinators[0] = 2
    brokers.answers[PRODUCE].append(asyncio.Event())
    brokers.answers[COMMIT_OFFSETS].append(25)
    with pytest.raises(MemberFenced, match="UNKNOWN_MEMBER_ID"):
        await commit(producer)


# Sizes and versions


async def test_records_above_the_size_of_a_batch_follow_in_order(brokers, producer):
    writes = [Write("a", 0, b"k", bytes(200_000)) for _ in range(7)]
    assert await commit(producer, [*writes, WRITES[1]]) == {TopicPartition("a", 0): 6, TopicPartition("b", 1): 0}
    sizes = [len(asked.body) for asked in brokers.of(PRODUCE)]
    assert len(sizes) == 4
    assert max(sizes) < 512 * 1024


async def test_a_request_stays_below_what_brokers_read(brokers, producer):
    places = [(topic, number) for topic in "abcdefgh" for number in range(3)]
    ends = await commit(producer, [Write(*place, b"k", bytes(500_000)) for place in places])
    assert ends == {TopicPartition(*place): 0 for place in places}
    sizes = [len(asked.body) for asked in brokers.of(PRODUCE)]
    assert len(sizes) == 2
    assert max(sizes) < 8.5 * 1024 * 1024


async def test_a_rejected_batch_teaches_the_limit(brokers, new_producer, limits):
    together, single = "topic a: 2 messages of 6 bytes together", "topic a: a message of 3 bytes"
    for writes, text in ((WRITES[::2], together), (WRITES[:1], single)):
        producer = new_producer()
        await producer.start()
        brokers.answers[PRODUCE].append(10)
        with pytest.raises(MessageSizeTooLargeError, match=text):
            await commit(producer, writes)
    assert limits.one_by_one("a")
    assert limits.max_bytes("a") == 2
    del brokers.asked[:]
    producer = new_producer()
    await producer.start()
    assert await commit(producer) == ENDS
    assert brokers.names.count(PRODUCE) == 2, "one by one"


@pytest.mark.parametrize("newest", [3, 4, 5, 7, 8, 13])
async def test_each_version_of_produce_is_understood(brokers, new_producer, newest):
    brokers.versions[0] = (0, newest)
    producer = new_producer()
    await producer.start()
    brokers.answers[PRODUCE].append(6)
    assert await commit(producer) == ENDS
    assert {asked.version for asked in brokers.of(PRODUCE)} == {min(8, newest)}


@pytest.mark.parametrize(("key", "known"), [(28, (0, 2)), (0, (9, 13)), (24, (3, 5)), (26, None)])
async def test_a_broker_without_a_version_of_ours_has_no_transactions_for_us(brokers, new_producer, key, known):
    del brokers.versions[key]
    if known:
        brokers.versions[key] = known
    producer = new_producer()
    await producer.start()
    with pytest.raises(IncompatibleBrokerVersion, match="the broker does not know"):
        await commit(producer)
    settings = Settings(kafka_bootstrap_servers=brokers.servers, _env_file=None)
    assert "the broker does not know" in await why_no_transactions(settings)
    brokers.versions[key] = VERSIONS[key]
    assert await why_no_transactions(settings) is None


def test_requests_are_encoded_as_by_aiokafka():
    partitions = [("a", 0), ("b", 3), ("a", 7)]
    topics = [("a", [0, 7]), ("b", [3])]
    batches = {("a", 0): b"xy", ("b", 3): b"", ("a", 7): b"z"}
    pairs = [
        (requests.InitProducerId("id", 9), transaction.InitProducerIdRequest_v0("id", 9)),
        (
            requests.AddPartitionsToTxn("id", 1, 2, partitions),
            transaction.AddPartitionsToTxnRequest_v0("id", 1, 2, topics),
        ),
        (requests.AddOffsetsToTxn("id", 1, 2, "group"), transaction.AddOffsetsToTxnRequest_v0("id", 1, 2, "group")),
        (requests.EndTxn("id", 1, 2), transaction.EndTxnRequest_v0("id", 1, 2, True)),
        (
            requests.Produce("id", 5, batches),
            produce.ProduceRequest_v8("id", -1, 5, [("a", [(0, b"xy"), (7, b"z")]), ("b", [(3, b"")])]),
        ),
    ]
    for ours, theirs in pairs:
        assert ours.body == theirs.encode()


def test_long_names_and_notes_are_encoded():
    name = "n" * 200
    body = requests.TxnOffsetCommit("id", name, 1, 2, ME, {(name, 1): CommittedOffset(3, "m" * 20_000)}).body
    assert body.count(b"\xc9\x01" + name.encode()) == 2
    assert b"\xa1\x9c\x01" + b"m" * 20_000 in body


# The end


async def test_a_cancelled_commit_leaves_no_task_and_no_warning(brokers, producer, caplog):
    brokers.answers[PRODUCE].append(asyncio.Event())
    before = asyncio.all_tasks()
    with caplog.at_level(logging.WARNING):
        running = asyncio.ensure_future(commit(producer))
        while PRODUCE not in brokers.names:
            await asyncio.sleep(0.001)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert [task for task in asyncio.all_tasks() - before if "TransactionalSender" in repr(task)] == []
        await producer.end()
    assert [r for r in caplog.records if r.name == "asyncio"] == []


async def test_an_end_drops_what_is_not_sent_yet(brokers, producer):
    brokers.listens.clear()
    running = asyncio.ensure_future(commit(producer, [Write("a", 0, b"k", bytes(50_000_000))], {}))
    while not brokers.deaf:
        await asyncio.sleep(0.001)
    await producer.end()
    with pytest.raises(ProducerClosed):
        await running
    brokers.listens.set()
    while brokers.deaf:
        await asyncio.sleep(0.001)
    assert PRODUCE not in brokers.names


@pytest.mark.parametrize("name", [ADD_PARTITIONS, PRODUCE, COMMIT_OFFSETS, END])
async def test_an_end_meanwhile_closes_a_commit(brokers, producer, name):
    brokers.answers[name].append(asyncio.Event())
    running = asyncio.ensure_future(commit(producer))
    while name not in brokers.names:
        await asyncio.sleep(0.001)
    await producer.end()
    with pytest.raises(ProducerClosed):
        await running


async def test_a_silent_broker_is_asked_again_after_the_time_limit_of_a_request(brokers, new_producer, monkeypatch):
    monkeypatch.setattr("runtime.kafka.clients.REQUEST_TIMEOUT_MS", 100)
    producer = new_producer()
    await producer.start()
    for name in (ADD_PARTITIONS, PRODUCE, COMMIT_OFFSETS, END):
        del brokers.asked[:]
        brokers.answers[name].append(asyncio.Event())
        assert await commit(producer)
        assert brokers.names.count(name) == 2
        assert brokers.names[-1] == END


async def test_an_answer_that_is_no_answer_breaks_the_connection_only(brokers, producer):
    """Its length is right, and nothing else."""
    brokers.garbled.add(PRODUCE)
    assert await commit(producer) == {TopicPartition("a", 0): 3, TopicPartition("b", 1): 1}
    assert brokers.names.count(PRODUCE) == 2


async def test_a_failed_start_leaves_nothing(brokers, new_producer):
    producer = new_producer()
    brokers.answers[INIT].append(53)
    with pytest.raises(aiokafka.errors.TransactionalIdAuthorizationFailed, match="id"):
        await producer.start()
    with pytest.raises(ProducerClosed):
        await commit(producer)


def test_a_request_is_no_cycle():
    """Several hundred a second would wait for the garbage collector."""
    request = weakref.ref(requests.InitProducerId("id", 1000))
    assert request() is None
