"""Everything that reaches into aiokafka beyond its public interface, but for unpacking (`runtime/kafka/unpacker.py`).

Tested against `TESTED`; a test fails when another version is installed, so that each upgrade is looked at here.

- Fencing (KIP-447): aiokafka sends TxnOffsetCommit v0, which names the group only. Version 3 adds generation and member
  id, and the group's coordinator then refuses the offsets of a worker whose partitions have moved on.
- Stable offsets: aiokafka fetches committed offsets without `require_stable` (OffsetFetch v7), and would start from
  before a transaction that commits a moment later.
- Ids of topics: aiokafka's metadata do not have them.
- Log ends under both isolation levels: where they differ, a transaction is still open.
"""

import asyncio
import base64
import contextlib
import json
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import aiokafka.errors
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from aiokafka.errors import IncompatibleBrokerVersion, KafkaError
from aiokafka.producer.sender import Sender, TxnOffsetCommitHandler
from aiokafka.protocol.group import HeartbeatRequest, SyncGroupRequest
from aiokafka.protocol.offset import OffsetRequest

from runtime.common import failpoints
from runtime.common.clock import elapsed_s
from runtime.common.deadlines import END_S
from runtime.errors import MemberFenced
from runtime.kafka.protocol import Metadata, OffsetFetch, TxnOffsetCommit
from runtime.model.log_ids import Commit
from runtime.model.records import Membership

log = logging.getLogger(__name__)

TESTED = {"aiokafka": "0.14.0", "faust-streaming": "0.15.3"}

# Error codes of the Kafka protocol (kafka.apache.org/protocol, Error Codes).
_FENCED = {22: "ILLEGAL_GENERATION", 25: "UNKNOWN_MEMBER_ID", 27: "REBALANCE_IN_PROGRESS", 82: "FENCED_INSTANCE_ID"}
_UNSTABLE_OFFSET_COMMIT = 88
_MEMBER = {0, 27}  # a rebalance that has begun takes nothing from a member before it has joined again
_READ_UNCOMMITTED, _READ_COMMITTED = 0, 1
_LATEST, _EARLIEST = -1, -2


class _FencedHandler(TxnOffsetCommitHandler):
    """aiokafka's handler, with generation and member id in the request and their errors understood."""

    def create_request(self) -> TxnOffsetCommit:
        manager = self._sender._txn_manager
        membership: Membership = self._sender.membership
        topics: dict[str, list[Any]] = defaultdict(list)
        for tp, offset in sorted(self._offsets.items()):
            topics[tp.topic].append((tp.partition, offset.offset, -1, offset.metadata, {}))
        return TxnOffsetCommit(
            manager.transactional_id,
            self._group_id,
            manager.producer_id,
            manager.producer_epoch,
            membership.generation,
            membership.member_id,
            None,
            [(topic, partitions, {}) for topic, partitions in topics.items()],
            {},
        )

    def handle_response(self, response: Any) -> float | None:
        codes = {partition[1] for topic in response.errors for partition in topic[1]}
        fenced = codes & _FENCED.keys()
        if fenced:
            names = ", ".join(_FENCED[code] for code in fenced)
            self._sender._txn_manager.error_transaction(MemberFenced(names))
            return None
        errors = [(topic[0], [(partition[0], partition[1]) for partition in topic[1]]) for topic in response.errors]
        backoff: float | None = super().handle_response(_Errors(errors))
        return backoff


class _Errors:
    """The response in the shape of version 0, which aiokafka's handler reads."""

    def __init__(self, errors: list[tuple[str, list[tuple[int, int]]]]) -> None:
        self.errors = errors


class _FencedSender(Sender):
    membership: Membership

    async def _do_add_partitions_to_txn(self, tps: Any) -> None:
        await super()._do_add_partitions_to_txn(tps)
        failpoints.reach("commit.partitions")

    async def _do_add_offsets_to_txn(self, group_id: str) -> None:
        await super()._do_add_offsets_to_txn(group_id)
        failpoints.reach("commit.group")

    async def _do_txn_commit(self, commit_result: bool) -> None:
        await super()._do_txn_commit(commit_result)
        failpoints.reach("commit.ended")

    async def _do_txn_offset_commit(self, offsets: Any, group_id: str) -> None:
        if not offsets:
            return
        node = await self._find_coordinator(CoordinationType.GROUP, group_id)
        await _FencedHandler(self, offsets, group_id).do(node)


class FencedProducer(AIOKafkaProducer):
    """A transactional producer whose offsets the group's coordinator refuses once its worker lost its partitions."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        own: Any = self._sender
        self._sender: Any = _FencedSender(
            self.client,
            acks=own._acks,
            txn_manager=own._txn_manager,
            message_accumulator=own._message_accumulator,
            retry_backoff_ms=own._retry_backoff * 1000,
            request_timeout_ms=own._request_timeout_ms,
        )

    async def send_offsets(self, offsets: Mapping[Any, Commit], group: str, membership: Membership) -> None:
        """Adds the offsets to the transaction under the membership they were taken with. Raises `MemberFenced`."""
        self._sender.membership = membership
        await self.send_offsets_to_transaction(offsets, group)


def is_dead(producer: AIOKafkaProducer) -> bool:
    """Whether a producer will never send again: its sender ended, as it does after a fatal error."""
    task = producer._sender.sender_task
    return task is None or bool(task.done())


async def start(producer: AIOKafkaProducer) -> None:
    """Starts a producer, or ends it again if it cannot be started."""
    try:
        await producer.start()
    except BaseException:
        await end(producer)
        raise


async def end(producer: AIOKafkaProducer) -> None:
    """Stops a producer that may be in any state, within about `END_S`; what it has not sent by then, it never will.

    aiokafka's own `stop` waits for what is under way, and its sender, left alone, would connect again and send it.
    """
    try:
        async with asyncio.timeout(END_S):
            await producer.stop()
    except asyncio.CancelledError:
        _silence(producer)
        raise
    except Exception as error:
        log.debug("producer did not stop by itself error=%r", error)
        if (task := _silence(producer)) is not None:
            await asyncio.wait({task}, timeout=1)
        with contextlib.suppress(Exception):
            await producer.client.close()
    waiter = producer._txn_manager and producer._txn_manager._transaction_waiter
    if waiter and waiter.done() and not waiter.cancelled():
        waiter.exception()  # asyncio complains of failures that nobody looked at


def on_confirmed(consumer: AIOKafkaConsumer, confirmed: Callable[[float], None]) -> None:
    """Has `confirmed` called whenever the group confirms that the consumer is a member, with the time of the request.

    By the event loop's clock. The broker has counted the session anew since then.
    """
    coordinator = consumer._coordinator
    send = coordinator._send_req

    async def noted(request: Any) -> Any:
        sent_at = elapsed_s()
        response = await send(request)
        if isinstance(request, (HeartbeatRequest, SyncGroupRequest)) and response.error_code in _MEMBER:
            confirmed(sent_at)
        return response

    coordinator._send_req = noted


def _silence(producer: AIOKafkaProducer) -> "asyncio.Task[None] | None":
    """Fails what a producer has not sent, and cancels its sender, which is returned if there is one."""
    producer._message_accumulator.fail_all(aiokafka.errors.ProducerClosed())
    task: asyncio.Task[None] | None = producer._sender.sender_task
    if task is not None:
        task.cancel()
    return task


def silence(consumer: AIOKafkaConsumer) -> float:
    """Seconds since the last answer to a fetch, for whichever partition; infinite when none has come yet."""
    now = time.time()
    subscription = consumer._subscription.subscription
    assignment = subscription and subscription.assignment
    states = [assignment.state_value(tp) for tp in assignment.tps] if assignment else []
    ages = [now - state.timestamp / 1000 for state in states if state.timestamp]
    return max(0.0, min(ages, default=float("inf")))


def fetching_ended(consumer: AIOKafkaConsumer) -> bool:
    """Whether the task that fetches has ended, which `getmany` would not tell."""
    return bool(consumer._fetcher._fetch_task.done())


def queued(consumer: AIOKafkaConsumer) -> list[TopicPartition]:
    """The partitions of which something was fetched that nobody has taken yet."""
    return list(consumer._fetcher._records) if consumer._fetcher is not None else []


def membership(consumer: AIOKafkaConsumer) -> Membership:
    """Generation and member id of a consumer in its group."""
    coordinator = consumer._coordinator
    return Membership(coordinator.generation, coordinator.member_id)


def subscription(metadata: bytes) -> list[str]:
    """The topics that a member of a group reads, from its metadata as a description of the group tells it."""
    topics: list[str] = ConsumerProtocolMemberMetadata.decode(metadata).subscription
    return topics


def tells_instance(metadata: bytes) -> bool:
    """Whether a member of a group names its process, as workers do since rows of orders have sums of payments."""
    try:
        return bool(json.loads(ConsumerProtocolMemberMetadata.decode(metadata).user_data).get("instance"))
    except (ValueError, AttributeError):
        return False


def rejoin(consumer: AIOKafkaConsumer) -> None:
    """Makes a consumer join its group anew, though it has not noticed yet that it must."""
    consumer._coordinator.request_rejoin()


def positions(consumer: AIOKafkaConsumer) -> dict[TopicPartition, int]:
    """Next offset to read of every assigned partition that has one, behind control records too; without waiting."""
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
    """As `stable_commits`, without what was noted."""
    found = await stable_commits(consumer, group, partitions)
    return {tp: None if commit is None else commit.offset for tp, commit in found.items()}


async def stable_commits(
    consumer: AIOKafkaConsumer, group: str, partitions: Collection[TopicPartition], poll: float = 0.05
) -> dict[TopicPartition, Commit | None]:
    """Committed offsets, once no transaction in flight holds an offset of these partitions. `None`: never committed."""
    client = consumer._client
    topics: dict[str, list[int]] = defaultdict(list)
    for tp in partitions:
        topics[tp.topic].append(tp.partition)
    request = OffsetFetch(group, [(topic, numbers, {}) for topic, numbers in topics.items()], True, {})
    while True:
        try:
            node = await client.coordinator_lookup(CoordinationType.GROUP, group)
            response = await client.send(node, request, group=ConnectionGroup.COORDINATION)
        except KafkaError as error:
            if not error.retriable:
                raise
            await asyncio.sleep(poll)
            continue
        found = {TopicPartition(topic[0], p[0]): (p[1], p[3], p[4]) for topic in response.topics for p in topic[1]}
        codes = {code for *_, code in found.values()} | {response.error_code}
        if codes == {0}:
            return {tp: None if offset < 0 else Commit(offset, note or "") for tp, (offset, note, _) in found.items()}
        for code in codes - {0, _UNSTABLE_OFFSET_COMMIT}:
            error_type = aiokafka.errors.for_code(code)
            if not error_type.retriable:
                raise error_type(f"fetching the offsets of group {group}")
        await asyncio.sleep(poll)


async def topic_ids(consumer: AIOKafkaConsumer, topics: Collection[str]) -> dict[str, str]:
    """The id of each topic there is, with that of its cluster before it; nothing from a broker that knows no ids."""
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
    """The offset behind the last record; with `committed`, the last stable offset: behind it a transaction is open."""
    return await _offsets(consumer._client, partitions, _LATEST, _READ_COMMITTED if committed else _READ_UNCOMMITTED)


async def log_starts(consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition]) -> dict[TopicPartition, int]:
    """The offset of the first record that is still kept."""
    return await _offsets(consumer._client, partitions, _EARLIEST, _READ_UNCOMMITTED)


async def ends_now(
    consumer: AIOKafkaConsumer, partitions: Collection[TopicPartition], timeout_s: float
) -> dict[TopicPartition, int]:
    """The last stable offset of each partition whose leader answers in time; asks once."""
    client = consumer._client
    asked = [
        asyncio.create_task(_listed(client, node, topics, _LATEST, _READ_COMMITTED))
        for node, topics in _by_leader(client, partitions).items()
    ]
    result: dict[TopicPartition, int] = {}
    if asked:
        done, pending = await asyncio.wait(asked, timeout=timeout_s)
        for task in pending:
            task.cancel()
        for task in done:
            if task.exception() is None:
                result |= task.result()
    if len(result) < len(set(partitions)):
        client.force_metadata_update()  # for the next time
    return result


async def coordinated(consumer: AIOKafkaConsumer, group: str, timeout_s: float) -> bool:
    """Whether the coordinator of a group answers in time; asks once."""
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
    result: dict[TopicPartition, int] = {}
    missing = set(partitions)
    while missing:
        for node, topics in _by_leader(client, missing).items():
            try:
                result |= await _listed(client, node, topics, which, isolation)
            except KafkaError as error:
                if not error.retriable:
                    raise
        missing -= result.keys()
        if missing:  # a leader moved, or is not known yet
            await client.set_topics({*client.cluster.topics(), *(tp.topic for tp in missing)})
            await client.force_metadata_update()
            await asyncio.sleep(0.05)
    return result


async def _listed(
    client: AIOKafkaClient, node: int, topics: Mapping[str, list[int]], which: int, isolation: int
) -> dict[TopicPartition, int]:
    """What one broker says of the partitions it leads; those of which it says an error are left out."""
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
