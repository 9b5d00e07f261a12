"""Reading changelogs back into stores, by a consumer of its own, and only what is committed for good."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as Physical

from runtime import internals, kafka
from runtime.kafka import Names
from runtime.records import TopicPartition
from runtime.settings import Settings
from runtime.state import Store

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Told how many records were applied since the last call, and how many offsets are left to read."""


class Logs(Protocol):
    """What a takeover asks of the broker."""

    async def committed(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Where to read on: behind what the group committed, or at the start of the log.

        Waits until no transaction in flight could still move it.
        """

    async def ends(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """The offset behind the last record, whether it is committed or not."""

    async def restore(self, stores: Mapping[TopicPartition, Store], progress: Progress) -> None:
        """Brings every store, named by its changelog partition, to the end of its changelog.

        Waits until no transaction is open there.
        """


class KafkaLogs:
    """`Logs` on a Kafka cluster."""

    POLL_S = 0.05

    def __init__(self, settings: Settings, group: str) -> None:
        self._settings = settings
        self._names = Names(settings.topic_prefix)
        self._group = self._names.group(group)
        self._consumer: AIOKafkaConsumer | None = None

    async def _connected(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            consumer = kafka.lone_consumer(self._settings)
            await consumer.start()
            self._consumer = consumer
        return self._consumer

    async def stop(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()

    async def committed(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        consumer = await self._connected()
        tps = [self._names.physical(tp) for tp in partitions]
        offsets = await internals.stable_offsets(consumer, self._group, tps)
        starts = await internals.log_starts(consumer, tps)
        # Below the start only when retention removed what was never read; the start is then the nearest there is.
        return {self._names.partition(tp): max(offsets[tp] or 0, starts[tp]) for tp in tps}

    async def ends(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        consumer = await self._connected()
        tps = [self._names.physical(tp) for tp in partitions]
        ends = await internals.log_ends(consumer, tps, committed=False)
        return {self._names.partition(tp): end for tp, end in ends.items()}

    async def restore(self, stores: Mapping[TopicPartition, Store], progress: Progress) -> None:
        consumer = await self._connected()
        by_tp = {self._names.physical(tp): store for tp, store in stores.items()}
        ends = await self._settled_ends(consumer, by_tp)
        starts = await internals.log_starts(consumer, by_tp)
        positions: dict[Physical, int] = {}
        for tp, store in by_tp.items():
            if store.offset is not None and not starts[tp] - 1 <= store.offset < ends[tp]:
                log.warning(
                    "store is not of this changelog, rebuilding changelog=%s partition=%d", tp.topic, tp.partition
                )
                store.clear()
            positions[tp] = starts[tp] if store.offset is None else store.offset + 1
        todo = {tp: ends[tp] for tp in by_tp if positions[tp] < ends[tp]}
        if todo:
            try:
                await self._read(consumer, by_tp, positions, todo, progress)
            finally:
                consumer.unsubscribe()  # or it would go on fetching what nobody reads

    async def _settled_ends(self, consumer: AIOKafkaConsumer, tps: Collection[Physical]) -> dict[Physical, int]:
        """The ends of the changelogs once no transaction is open there: only their owner writes, and that is over."""
        while True:
            stable = await internals.log_ends(consumer, tps, committed=True)
            if stable == await internals.log_ends(consumer, tps, committed=False):
                return stable
            await asyncio.sleep(self.POLL_S)

    async def _read(
        self,
        consumer: AIOKafkaConsumer,
        stores: Mapping[Physical, Store],
        positions: dict[Physical, int],
        todo: dict[Physical, int],
        progress: Progress,
    ) -> None:
        consumer.assign(list(todo))
        for tp in todo:
            consumer.seek(tp, positions[tp])
        while todo:
            for tp, records in (await consumer.getmany(timeout_ms=200, max_records=5000)).items():
                stores[tp].apply({r.key: r.value for r in records if r.key is not None}, records[-1].offset)
                progress(len(records), 0)
            # Behind the last record there is the marker of its transaction, which moves the position only.
            positions.update(internals.positions(consumer))
            for tp in [tp for tp, end in todo.items() if positions[tp] >= end]:
                stores[tp].apply({}, todo.pop(tp) - 1)
            progress(0, sum(end - positions[tp] for tp, end in todo.items()))
