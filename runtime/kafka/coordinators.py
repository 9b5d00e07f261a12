"""Asks the coordinators of a transactional id and of a group, or any broker, until they accept."""

import logging

from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import KafkaError

from runtime.common.backoff import Backoff
from runtime.kafka.commit_errors import Retry, judge
from runtime.kafka.commit_requests import CommitRequest, Response
from runtime.kafka.connections import Connections
from runtime.metrics.commits import CommitMetrics

log = logging.getLogger(__name__)

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.002, 0.05
"""Seconds between attempts. The markers of the transaction before are often written within two milliseconds."""


def new_backoff() -> Backoff:
    """The pauses between attempts of a request."""
    return Backoff(_FIRST_PAUSE_S, _LONGEST_PAUSE_S)


class Coordinators:
    """The coordinators that a sender needs: of its transactional id, if it has one, and of a group.

    Relies on the client's `coordinator_lookup`.
    """

    def __init__(self, client: AIOKafkaClient, connections: Connections, metrics: CommitMetrics) -> None:
        self._client = client
        self._connections = connections
        self._metrics = metrics
        self._nodes: dict[CoordinationType, int] = {}

    async def ask(self, kind: CoordinationType, key: str, request: CommitRequest) -> Response:
        """Sends a request until it succeeds: without a limit, so the caller sets one.

        Arguments:
            kind: which coordinator to ask.
            key: transactional id or group.
            request: written at once if the coordinator is known and connected.

        Raises what `judge` raises, and `KafkaError` where a retry cannot help.
        """
        backoff = new_backoff()
        while True:
            node = self._nodes.get(kind)
            if node is None:
                node = self._nodes[kind] = await self._find(kind, key, backoff)
            answer = await self._attempt(node, key, request)
            if isinstance(answer, Response):
                return answer
            if answer is Retry.FIND_BROKER and self._nodes.get(kind) == node:
                del self._nodes[kind]
            await backoff.pause()

    async def ask_any(self, request: CommitRequest) -> Response:
        """As `ask`, for a request that any broker answers."""
        backoff = new_backoff()
        while True:
            node: int | None = self._client.get_random_node()
            if node is not None:
                answer = await self._attempt(node, "a new producer", request)
                if isinstance(answer, Response):
                    return answer
            await self._client.force_metadata_update()
            await backoff.pause()

    async def _attempt(self, node: int, about: str, request: CommitRequest) -> Response | Retry:
        """Asks once. Returns the response, or how to retry."""
        self._metrics.requested()
        try:
            answer = await self._connections.send(node, "coordinate", request)
        except KafkaError as error:
            if not error.retriable:
                raise
            retry, reason = Retry.FIND_BROKER, repr(error)
        else:
            if not answer.failures:
                return answer
            retry, reason = judge(type(request), answer.failures, about), str(answer.failures)
        log.debug("request repeated request=%s node=%d reason=%s", type(request).__name__, node, reason)
        return retry

    async def _find(self, kind: CoordinationType, key: str, backoff: Backoff) -> int:
        """Finds a coordinator and connects to it."""
        while True:
            try:
                node: int = await self._client.coordinator_lookup(kind, key)
                if await self._connections.ready(node, "coordinate"):
                    return node
            except KafkaError as error:
                if not error.retriable:
                    raise type(error)(key) from error
                log.debug("coordinator not found kind=%s key=%s error=%r", kind.name, key, error)
                await self._client.force_metadata_update()  # the lookup asks any broker: one may be gone
            await backoff.pause()
