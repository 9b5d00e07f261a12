"""The consumer of a worker: a member of its Kafka group, on the worker's event loop."""

from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener
from aiokafka import TopicPartition as Physical
from aiokafka.errors import NoOffsetForPartitionError, OffsetOutOfRangeError

from runtime.common.settings import Settings
from runtime.errors import PositionOutOfRange
from runtime.kafka import aiokafka_internals, clients
from runtime.kafka.clients import KafkaNames
from runtime.kafka.fetch_pacing import FetchPacer
from runtime.model.records import Membership, Offsets, TopicPartition
from runtime.model.topology import Topology


class KafkaGroupConsumer:
    """Implements `runtime.loop.poller.GroupConsumer` with aiokafka."""

    def __init__(self, settings: Settings, topology: Topology) -> None:
        self._settings = settings
        self._names = KafkaNames(settings.topic_prefix)
        self._group = self._names.group(topology.group)
        self._topics = [self._names.topic(name) for name in topology.consumed]
        self._consumer: AIOKafkaConsumer | None = None
        self._confirmed = float("-inf")
        self._pacer = FetchPacer()

    async def start(self, assignor: Any, listener: ConsumerRebalanceListener) -> None:
        """Joins the group. The listener gets partitions under their physical names."""
        self._consumer = clients.group_consumer(self._settings, self._group, assignor)
        await self._consumer.start()
        aiokafka_internals.on_membership_confirmed(self._consumer, self._confirm)
        aiokafka_internals.pace_fetches(self._consumer, self._pacer.pause, self._pacer.answered)
        self._consumer.subscribe(self._topics, listener=listener)

    async def stop(self) -> None:
        """Leaves the group."""
        if self._consumer is not None:
            await self._consumer.stop()

    def confirmed(self) -> float:
        """When the coordinator last confirmed this worker's membership, seconds on the event loop's clock.

        The broker restarted the session timeout at that time or later.
        """
        return self._confirmed

    def assignment(self) -> set[Physical]:
        """The partitions that the group has assigned to this worker."""
        return set(self._consumer.assignment()) if self._consumer else set()

    def _confirm(self, sent_at: float) -> None:
        self._confirmed = max(self._confirmed, sent_at)

    def membership(self) -> Membership:
        return aiokafka_internals.membership(self._consumer)

    def partition(self, physical: Physical) -> TopicPartition:
        return self._names.partition(physical)

    async def fetch(self, timeout_s: float) -> Mapping[TopicPartition, Sequence[Any]]:
        assert self._consumer is not None
        try:
            fetched = await self._consumer.getmany(timeout_ms=int(timeout_s * 1000))
        except OffsetOutOfRangeError as error:
            raise PositionOutOfRange(str(error)) from None
        except NoOffsetForPartitionError:
            return {}  # a partition was assigned just now: the rebalance has not sought its position yet
        return {self._names.partition(tp): messages for tp, messages in fetched.items()}

    def polled(self, *, in_vain: bool) -> None:
        self._pacer.polled(in_vain=in_vain)

    def positions(self) -> Offsets:
        if self._consumer is None:
            return {}
        return {
            self._names.partition(tp): offset for tp, offset in aiokafka_internals.positions(self._consumer).items()
        }

    def seek(self, positions: Offsets) -> None:
        assert self._consumer is not None
        for tp, offset in positions.items():
            self._consumer.seek(self._names.physical(tp), offset)
        self._consumer.resume(*(self._names.physical(tp) for tp in positions))

    def pause(self) -> None:
        if self._consumer is not None:
            self._consumer.pause(*self._consumer.assignment())

    def queued(self) -> set[TopicPartition]:
        """The partitions with fetched records that were not polled yet."""
        return (
            {self._names.partition(tp) for tp in aiokafka_internals.queued(self._consumer)} if self._consumer else set()
        )

    def silence(self) -> float:
        if aiokafka_internals.fetcher_stopped(self._consumer):
            raise RuntimeError("the consumer has stopped fetching: its fetch task has ended; restart the worker")
        return aiokafka_internals.seconds_since_fetch(self._consumer)

    def rejoin(self) -> None:
        aiokafka_internals.rejoin(self._consumer)
