"""Uses of aiokafka's private attributes and protocol classes; those for decoding are in `runtime/kafka/unpacker.py`.

`TESTED` names the versions that these uses were tested with. A test fails for any other version, so that an upgrade
starts with a review of this module. Why the public interface is not enough:

- Stable offsets: aiokafka fetches committed offsets without `require_stable` (OffsetFetch v7). Such an offset may
  precede a transaction that commits a moment later.
- Topic ids: aiokafka's metadata do not contain them.
- Log end offsets under both isolation levels: where they differ, a transaction is open.
"""

import asyncio
import base64
import contextlib
import json
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any

import aiokafka.errors
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError
from aiokafka.protocol.group import HeartbeatRequest, SyncGroupRequest
from aiokafka.protocol.offset import OffsetRequest

from runtime.common.backoff import Backoff, retry
from runtime.common.clock import elapsed_s
from runtime.common.deadlines import PRODUCER_STOP_S
from runtime.kafka.protocol import Metadata, OffsetFetch
from runtime.model.log_ids import CommittedOffset
from runtime.model.records import Membership

log = logging.getLogger(__name__)

TESTED = {
    "aiohttp": "3.14.5",  # runtime/http/{acceptor,connections,runner,server}.py, runtime/http/fast_path/
    "aiokafka": "0.14.0",  # runtime/kafka/
    "aiosmtplib": "5.1.3",  # runtime/mail/connections.py
    "cramjam": "2.14.0",  # runtime/kafka/decompression.py: the text of an error
    "faust-streaming": "0.15.3",  # runtime/faust_adapter/
    "mode-streaming": "0.7.1",  # runtime/faust_adapter/
    "rocksdict": "0.3.29",  # runtime/state/rocks.py: the text of an error
}
"""Versions of the libraries whose private parts are used, and where. Review these modules before an upgrade."""

# Error codes of the Kafka protocol (kafka.apache.org/protocol, Error Codes).
_UNSTABLE_OFFSET_COMMIT = 88
_STILL_MEMBER = {0, 27}  # REBALANCE_IN_PROGRESS: a member keeps its partitions until it rejoins
_READ_UNCOMMITTED, _READ_COMMITTED = 0, 1
_LATEST, _EARLIEST = -1, -2


def watch_topics(client: AIOKafkaClient, topics: Iterable[str]) -> Awaitable[object]:
    """Adds topics to those that a client has metadata of. The result waits for the metadata of new ones."""
    # Relies on `_topics`: `add_topic` asks once for each topic, `set_topics` once for all.
    updated: Awaitable[object] = client.set_topics({*client._topics, *topics})
    return updated


def is_dead(producer: AIOKafkaProducer) -> bool:
    """Whether a producer will never send again: its sender task has ended, as it does after a fatal error."""
    # Relies on `_sender` and its `sender_task`.
    task = producer._sender.sender_task
    return task is None or bool(task.done())


async def start_producer(producer: AIOKafkaProducer) -> None:
    """Starts a producer, or stops it if it cannot be started."""
    try:
        await producer.start()
    except BaseException:
        await stop_producer(producer)
        raise


async def stop_producer(producer: AIOKafkaProducer) -> None:
    """Stops a producer in whatever state, within about `PRODUCER_STOP_S`. Unsent messages are dropped.

    aiokafka's own `stop` waits for pending messages without a limit; its sender, left alone, would reconnect and send
    them later.
    """
    try:
        async with asyncio.timeout(PRODUCER_STOP_S):
            await producer.stop()
    except asyncio.CancelledError:
        _abort(producer)
        raise
    except Exception as error:
        log.debug("producer aborted error=%r", error)
        if (task := _abort(producer)) is not None:
            await asyncio.wait({task}, timeout=1)
        with contextlib.suppress(Exception):
            await producer.client.close()
    # Relies on `_txn_manager` (None without transactions) and the future that ends its transaction.
    waiter = producer._txn_manager and producer._txn_manager._transaction_waiter
    if waiter and waiter.done() and not waiter.cancelled():
        waiter.exception()  # otherwise asyncio logs "exception was never retrieved"


def on_membership_confirmed(consumer: AIOKafkaConsumer, confirmed: Callable[[float], None]) -> None:
    """Calls `confirmed` whenever the coordinator confirms the consumer's membership, with the time of the request.

    Arguments:
        consumer: a started consumer of a group.
        confirmed: gets seconds on the event loop's clock; the broker restarted the session timeout at that time or
            later.
    """
    # Relies on the coordinator sending heartbeats and SyncGroup by `_send_req`, found on the instance at each call.
    coordinator = consumer._coordinator
    send = coordinator._send_req

    async def observed_send(request: Any) -> Any:
        sent_at = elapsed_s()
        response = await send(request)
        if isinstance(request, (HeartbeatRequest, SyncGroupRequest)) and response.error_code in _STILL_MEMBER:
            confirmed(sent_at)
        return response

    coordinator._send_req = observed_send


def _abort(producer: AIOKafkaProducer) -> "asyncio.Task[None] | None":
    """Fails unsent messages, cancels the producer's sender task and returns it; `None` if it has none."""
    # Relies on `_message_accumulator.fail_all`, which aiokafka calls after a fatal error itself.
    producer._message_accumulator.fail_all(aiokafka.errors.ProducerClosed())
    task: asyncio.Task[None] | None = producer._sender.sender_task
    if task is not None:
        task.cancel()
    return task


def seconds_since_fetch(consumer: AIOKafkaConsumer) -> float:
    """Seconds since the last fetch response for any partition; infinite if there was none yet."""
    # Relies on `timestamp` of a partition's state: milliseconds of the wall clock at its last fetch response.
    now = time.time()
    subscription = consumer._subscription.subscription
    assignment = subscription and subscription.assignment
    states = [assignment.state_value(tp) for tp in assignment.tps] if assignment else []
    ages = [now - state.timestamp / 1000 for state in states if state.timestamp]
    return max(0.0, min(ages, default=float("inf")))


def fetcher_stopped(consumer: AIOKafkaConsumer) -> bool:
    """Whether the fetch task has ended: `getmany` would return nothing for ever, and no error."""
    # Relies on `_fetcher._fetch_task`.
    return bool(consumer._fetcher._fetch_task.done())


def pace_fetches(
    consumer: AIOKafkaConsumer, pause: Callable[[int], Awaitable[bool]], answered: Callable[[int], None]
) -> None:
    """Delays the fetches of a started consumer.

    Arguments:
        consumer: started.
        pause: awaited before a fetch from a node; returns whether it waited.
        answered: called with the node after each fetch.
    """
    # Relies on the fetcher sending by `_proc_fetch_request`, found on the instance at each call, which returns whether
    # it fetched anything; on its result, the fetcher makes the next request. It is cancelled with the assignment.
    fetcher = consumer._fetcher
    send: Callable[[Any, int, Any], Awaitable[bool]] = fetcher._proc_fetch_request

    async def paced(assignment: Any, node: int, request: Any) -> bool:
        try:
            waited = await pause(node)
        except asyncio.CancelledError:
            return False
        if waited and not _is_current(assignment, request):
            return False
        found = await send(assignment, node, request)
        answered(node)
        return found

    fetcher._proc_fetch_request = paced


def _is_current(assignment: Any, request: Any) -> bool:
    """Whether a request that was made some time ago asks for the present positions of an assignment."""
    if not assignment.active:
        return False
    for topic, partitions in request.topics:
        for partition, offset, *_ in partitions:
            state = assignment.state_value(TopicPartition(topic, partition))
            if not state.has_valid_position or state.position != offset or state.paused:
                return False
    return True


def queued(consumer: AIOKafkaConsumer) -> list[TopicPartition]:
    """The partitions with fetched records that were not polled yet."""
    # Relies on `_fetcher._records`, a mapping by partition. There is no fetcher before the first subscription.
    return list(consumer._fetcher._records) if consumer._fetcher is not None else []


def membership(consumer: AIOKafkaConsumer) -> Membership:
    """Generation and member id of a consumer in its group."""
    # Relies on `generation` and `member_id` of the coordinator.
    coordinator = consumer._coordinator
    return Membership(coordinator.generation, coordinator.member_id)


def subscribed_topics(metadata: bytes) -> list[str]:
    """The topics that a group member reads, from its metadata in a DescribeGroups response."""
    return member_metadata(metadata)[0]


def member_metadata(metadata: bytes) -> tuple[list[str], dict[str, Any]]:
    """The topics that a group member reads, and what a worker reports about itself; nothing for other members."""
    decoded = ConsumerProtocolMemberMetadata.decode(metadata)
    topics: list[str] = decoded.subscription
    try:
        info = json.loads(decoded.user_data)
    except (ValueError, TypeError):
        info = None
    return topics, info if isinstance(info, dict) else {}


async def describe_group(admin: AIOKafkaAdminClient, group: str) -> tuple[str, list[Any]]:
    """State and members of a consumer group; [3] of a member is its metadata. Raises `KafkaError`.

    One group for each request: aiokafka misreads a response about several groups.
    """
    # Relies on the fields of DescribeGroups responses by position.
    (response,) = await admin.describe_consumer_groups([group])
    ((code, _name, state, _type, _protocol, members),) = response.groups
    if code:
        raise aiokafka.errors.for_code(code)(f"cannot describe group {group}")
    return state, members


def rejoin(consumer: AIOKafkaConsumer) -> None:
    """Makes a consumer rejoin its group, though its next heartbeat would not ask for that."""
    # Relies on the coordinator's `request_rejoin`.
    consumer._coordinator.request_rejoin()


def positions(consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
    """Next offset to read of every assigned partition that has a position, after control records too; no request."""
    # Relies on the state of each assigned partition: `has_valid_position` and `position`.
    subscription = consumer._subscription.subscription
    assignment = subscription and subscription.assignment
    if assignment is None:
        return {}
    return {
        tp: state.position
        for tp in assignment.tps
        if (state := assignment.state_value(tp)) and state.has_valid_position
    }


async def stable_offsets(
    consumer: AIOKafkaConsumer, group: str, partitions: Collection[TopicPartition]
) -> dict[TopicPartition, int | None]:
    """As `stable_commits`, without the commits' metadata."""
    found = await stable_commits(consumer, group, partitions)
    return {tp: None if commit is None else commit.offset for tp, commit in found.items()}


class _Unstable(KafkaError):
    """A transaction that may commit an offset is open."""

    retriable = True


async def stable_commits(
    consumer: AIOKafkaConsumer, group: str, partitions: Collection[TopicPartition], poll: float = 0.05
) -> dict[TopicPartition, CommittedOffset | None]:
    """Committed offsets, once no open transaction has an offset of these partitions. `None`: never committed.

    Asks every `poll` seconds.
    """
    # Relies on `_client`, its `coordinator_lookup` and `send`, as do the other raw requests below.
    client = consumer._client
    topics: dict[str, list[int]] = defaultdict(list)
    for tp in partitions:
        topics[tp.topic].append(tp.partition)
    request = OffsetFetch(group, [(topic, numbers, {}) for topic, numbers in topics.items()], True, {})

    async def ask() -> dict[TopicPartition, CommittedOffset | None]:
        node = await client.coordinator_lookup(CoordinationType.GROUP, group)
        response = await client.send(node, request, group=ConnectionGroup.COORDINATION)
        found = {TopicPartition(topic[0], p[0]): (p[1], p[3], p[4]) for topic in response.topics for p in topic[1]}
        codes = ({code for *_, code in found.values()} | {response.error_code}) - {0}
        errors = [_Unstable if c == _UNSTABLE_OFFSET_COMMIT else aiokafka.errors.for_code(c) for c in codes]
        for error_type in sorted(errors, key=lambda e: e.retriable):  # one that no retry mends first
            raise error_type(f"fetching the offsets of group {group}")
        return {
            tp: None if offset < 0 else CommittedOffset(offset, note or "") for tp, (offset, note, _) in found.items()
        }

    return await retry(ask, Backoff(poll), passes=lambda error: isinstance(error, KafkaError) and error.retriable)


async def topic_ids(consumer: AIOKafkaConsumer, topics: Collection[str]) -> dict[str, str]:
    """`<cluster id>/<topic id>` of each topic that exists; empty with a broker before Kafka 2.8, which has no ids."""
    client = consumer._client
    request = Metadata([(bytes(16), name, {}) for name in sorted(topics)], False, False, False, {})
    try:
        response = await client.send(client.get_random_node(), request)
    except (IncompatibleBrokerVersion, NotImplementedError):
        return {}
    return {
        name: f"{response.cluster_id}/{base64.urlsafe_b64encode(id_).decode().rstrip('=')}"
        for code, name, id_, *_ in response.topics
        if code == 0 and any(id_)
    }


async def log_ends(
    consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition], *, committed: bool
) -> dict[TopicPartition, int]:
    """The log end offset of each partition; with `committed`, the last stable offset."""
    return await _offsets(consumer._client, partitions, _LATEST, _READ_COMMITTED if committed else _READ_UNCOMMITTED)


async def log_starts(consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
    """The log start offset of each partition."""
    return await _offsets(consumer._client, partitions, _EARLIEST, _READ_UNCOMMITTED)


async def last_stable_offsets(
    consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition], timeout_s: float
) -> dict[TopicPartition, int]:
    """The last stable offset of each partition whose leader answers within `timeout_s`; asks each leader once."""
    client = consumer._client
    requests = [
        asyncio.create_task(_list_offsets(client, node, topics, _LATEST, _READ_COMMITTED))
        for node, topics in _by_leader(client, partitions).items()
    ]
    result: dict[TopicPartition, int] = {}
    if requests:
        done, pending = await asyncio.wait(requests, timeout=timeout_s)
        for task in pending:
            task.cancel()
        for task in done:
            if task.exception() is None:
                result |= task.result()
    if len(result) < len(set(partitions)):
        client.force_metadata_update()  # for the next call
    return result


async def coordinator_answers(consumer: AIOKafkaConsumer, group: str, timeout_s: float) -> bool:
    """Whether the coordinator of a group answers within `timeout_s`; asks once."""
    client = consumer._client
    try:
        async with asyncio.timeout(timeout_s):
            node = await client.coordinator_lookup(CoordinationType.GROUP, group)
            response = await client.send(node, OffsetFetch(group, [], False, {}), group=ConnectionGroup.COORDINATION)
    except (KafkaError, TimeoutError, OSError):
        return False
    return bool(response.error_code == 0)


async def _offsets(
    client: AIOKafkaClient, partitions: Collection[TopicPartition], which: int, isolation: int
) -> dict[TopicPartition, int]:
    """Asks until every partition's leader has answered. Raises `KafkaError` for an error that a retry cannot mend."""
    result: dict[TopicPartition, int] = {}
    missing = set(partitions)
    while missing:
        for node, topics in _by_leader(client, missing).items():
            try:
                result |= await _list_offsets(client, node, topics, which, isolation)
            except KafkaError as error:
                if not error.retriable:
                    raise
        missing -= result.keys()
        if missing:  # a leader has moved, or is not known yet
            await client.set_topics({*client.cluster.topics(), *(tp.topic for tp in missing)})
            await client.force_metadata_update()
            await asyncio.sleep(0.05)
    return result


async def _list_offsets(
    client: AIOKafkaClient, node: int, topics: Mapping[str, list[int]], which: int, isolation: int
) -> dict[TopicPartition, int]:
    """Sends ListOffsets to one broker for partitions that it leads; partitions with an error are left out."""
    request = OffsetRequest(
        -1, isolation, [(topic, [(p, which) for p in numbers]) for topic, numbers in topics.items()]
    )
    response = await client.send(node, request)
    return {
        TopicPartition(topic, partition): offset
        for topic, answers in response.topics
        for partition, code, _timestamp, offset in answers
        if code == 0
    }


def _by_leader(client: AIOKafkaClient, partitions: Iterable[TopicPartition]) -> dict[int, dict[str, list[int]]]:
    result: dict[int, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for tp in partitions:
        leader = client.cluster.leader_for_partition(tp)
        if leader is not None and leader >= 0:
            result[leader][tp.topic].append(tp.partition)
    return result
