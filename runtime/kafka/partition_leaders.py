"""Writes record batches to the leaders of their partitions, wherever they are, until all are written.

Relies on the metadata of aiokafka's client, `cluster`.
"""

import asyncio
import logging
from collections.abc import Iterable

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, TopicAuthorizationFailedError

from runtime.kafka import aiokafka_internals
from runtime.kafka.commit_errors import MESSAGE_TOO_LARGE, NOT_LEADER_OR_FOLLOWER, Retry, judge
from runtime.kafka.commit_requests import Place, Produce, ProduceResponse
from runtime.kafka.connections import Connections
from runtime.kafka.coordinators import new_backoff
from runtime.kafka.record_batches import Batches, RecordBatch
from runtime.metrics.commits import CommitMetrics

log = logging.getLogger(__name__)

_REQUEST_BYTES = 8 * 1024 * 1024
"""Bytes of batches in a Produce, but for a single larger one: brokers close connections above 100 MiB by default."""

_TIMEOUT_MS = 15_000
"""Milliseconds for which a leader waits for its replicas."""

Pending = dict[Place, list[RecordBatch]]
Requests = dict[int, dict[Place, bytes]]
"""Batches to write, by node id and partition."""


class BatchRejected(Exception):
    """A broker rejects a batch as too large. The producer tells `SizeLimits`, and raises what that makes of it."""

    def __init__(self, batch: RecordBatch, text: str) -> None:
        super().__init__(text)
        self.batch = batch


class PartitionLeaders:
    """The leaders of all partitions that a sender writes to: in transactions of an id, or without."""

    def __init__(
        self, client: AIOKafkaClient, connections: Connections, transactional_id: str | None, metrics: CommitMetrics
    ) -> None:
        self._client = client
        self._connections = connections
        self._id = transactional_id
        self._metrics = metrics

    async def write(self, batches: Batches) -> dict[Place, int]:
        """Writes the batches of each partition, one after another: without a time limit, so the caller sets one.

        A batch is repeated with its sequence number, by which a leader recognises what it has written already.

        Returns the offset of the last record of each partition. Raises `BatchRejected` and what `judge` raises.
        """
        pending: dict[Place, list[RecordBatch]] = {tp: list(of_partition) for tp, of_partition in batches.items()}
        ends, backoff = dict[Place, int](), new_backoff()
        while pending:
            requests = await self._by_leader(pending)
            retry = None if requests else Retry.FIND_BROKER
            for answer in await self._ask_all(requests):
                for place, offset in answer.offsets.items():
                    ends[place] = offset + len(pending[place].pop(0).writes) - 1
                    if not pending[place]:
                        del pending[place]
                if answer.failures:
                    found = self._judge(answer, pending)
                    retry = retry if retry is Retry.FIND_BROKER else found
            if retry is Retry.FIND_BROKER:
                await self._client.force_metadata_update()
            if retry is not None:
                await backoff.pause()
        return ends

    async def _by_leader(self, pending: Pending) -> Requests:
        """The first batch of each partition, by the broker that leads it. Some wait for another request."""
        leaders = self._leaders(pending)
        if None in leaders.values():
            await self._load_metadata({topic for (topic, _), leader in leaders.items() if leader is None})
            leaders = self._leaders(pending)
        requests: Requests = {}
        sizes: dict[int, int] = {}
        for tp, leader in leaders.items():
            if leader is not None and leader >= 0:
                batch = pending[tp][0].raw
                size = sizes.get(leader, 0) + len(batch)
                if size <= _REQUEST_BYTES or leader not in requests:
                    sizes[leader] = size
                    requests.setdefault(leader, {})[tp] = batch
        return requests

    def _leaders(self, partitions: Iterable[Place]) -> dict[Place, int | None]:
        """The node id of each leader: -1 if there is none now, `None` if the partition is unknown."""
        leader_of = self._client.cluster.leader_for_partition
        return {tp: leader_of(tp) for tp in partitions}

    async def _load_metadata(self, topics: set[str]) -> None:
        """Gets the metadata of topics, from now on as well."""
        await aiokafka_internals.watch_topics(self._client, topics)
        if forbidden := topics & self._client.cluster.unauthorized_topics:
            raise TopicAuthorizationFailedError(", ".join(sorted(forbidden)))

    async def _ask_all(self, requests: Requests) -> list[ProduceResponse]:
        if len(requests) == 1:
            [(node, batches)] = requests.items()
            return [await self._ask(node, batches)]
        return await asyncio.gather(*(self._ask(node, batches) for node, batches in requests.items()))

    async def _ask(self, node: int, batches: dict[Place, bytes]) -> ProduceResponse:
        self._metrics.requested()
        try:
            answer = await self._connections.send(node, "produce", Produce(self._id, _TIMEOUT_MS, batches))
        except KafkaError as error:
            if not error.retriable:
                raise
            log.debug("Produce was not answered node=%d error=%r", node, error)
            return ProduceResponse(dict.fromkeys(batches, NOT_LEADER_OR_FOLLOWER), {}, {})
        assert isinstance(answer, ProduceResponse)
        return answer

    def _judge(self, answer: ProduceResponse, pending: Pending) -> Retry:
        log.debug("batches not written codes=%s reasons=%s", answer.failures, answer.reasons)
        try:
            return judge(Produce, answer.failures, self._id or "a batch")
        except MessageSizeTooLargeError as error:
            place = next(place for place, code in answer.failures.items() if code == MESSAGE_TOO_LARGE)
            assert place is not None
            raise BatchRejected(pending[place][0], str(error)) from None
