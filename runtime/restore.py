"""What a takeover asks of the broker: where to read on, and the state as the changelogs have it."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from runtime.records import Offsets, TopicPartition
from runtime.state import Store

log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Told how many records were applied since the last call, and how many offsets are left to read."""


class Row(Protocol):
    """A record of a changelog."""

    @property
    def key(self) -> bytes | None: ...

    @property
    def value(self) -> bytes | None: ...

    @property
    def offset(self) -> int: ...


class Reading(Protocol):
    """Partitions being read, committed records only."""

    async def rows(self) -> Mapping[TopicPartition, Sequence[Row]]:
        """What has come, perhaps nothing. Waits for it, a fraction of a second."""

    def positions(self) -> Offsets:
        """Next offset to read of each partition: behind the markers of transactions too, which are no records."""


class Broker(Protocol):
    """The requests of a takeover. All wait out what passes by itself, a leader that moves say, and raise `KafkaError`
    for the rest."""

    async def stable_offsets(self, partitions: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """What the group committed, `None` for never; waits until no transaction in flight could still move it."""

    async def log_starts(self, partitions: Collection[TopicPartition]) -> Offsets:
        """The offset of the first record that is still kept."""

    async def log_ends(self, partitions: Collection[TopicPartition], *, committed: bool) -> Offsets:
        """The offset behind the last record; with `committed`, behind the last before which no transaction is open."""

    def reading(self, positions: Offsets) -> AbstractAsyncContextManager[Reading]:
        """Reads these partitions from there on."""


class Logs:
    """Offsets and changelogs, as whoever takes partitions over needs them."""

    POLL_S = 0.05

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    async def committed(self, partitions: Collection[TopicPartition]) -> Offsets:
        """Where to read on: behind what the group committed, or at the start of the log."""
        offsets = await self._broker.stable_offsets(partitions)
        starts = await self._broker.log_starts(partitions)
        # Below the start only when retention removed what was never read; the start is then the nearest there is.
        return {tp: max(offsets[tp] or 0, starts[tp]) for tp in partitions}

    async def ends(self, partitions: Collection[TopicPartition]) -> Offsets:
        """The offset behind the last record, whether it is committed or not."""
        return await self._broker.log_ends(partitions, committed=False)

    async def restore(self, stores: Mapping[TopicPartition, Store], progress: Progress) -> None:
        """Brings every store, named by its changelog partition, to the end of its changelog.

        Waits until no transaction is open there.
        """
        ends = await self._settled_ends(stores)
        starts = await self._broker.log_starts(stores)
        positions = positions_of(stores, starts, ends)
        todo = {tp: ends[tp] for tp in stores if positions[tp] < ends[tp]}
        progress(0, sum(end - positions[tp] for tp, end in todo.items()))
        if todo:
            async with self._broker.reading({tp: positions[tp] for tp in todo}) as reading:
                await self._read(reading, stores, todo, progress)
        for tp, store in stores.items():
            if ends[tp]:
                store.is_complete(ends[tp] - 1)  # markers of transactions end it, and no record tells so

    async def _settled_ends(self, partitions: Collection[TopicPartition]) -> Offsets:
        """The ends of the changelogs once no transaction is open there: only their owner writes, and that is over."""
        while True:
            stable = await self._broker.log_ends(partitions, committed=True)
            if stable == await self._broker.log_ends(partitions, committed=False):
                return stable
            await asyncio.sleep(self.POLL_S)

    async def _read(
        self, reading: Reading, stores: Mapping[TopicPartition, Store], todo: dict[TopicPartition, int], tell: Progress
    ) -> None:
        while todo:
            applied = 0
            for tp, rows in (await reading.rows()).items():
                stores[tp].apply({r.key: r.value for r in rows if r.key is not None}, rows[-1].offset)
                applied += len(rows)
            positions = reading.positions()
            for tp in [tp for tp, end in todo.items() if positions[tp] >= end]:
                del todo[tp]
            tell(applied, sum(end - positions[tp] for tp, end in todo.items()))
            await asyncio.sleep(0)  # rows that have come already are had without waiting, and others want to run


def positions_of(stores: Mapping[TopicPartition, Store], starts: Offsets, ends: Offsets) -> Offsets:
    """Where to read on in each store's changelog. Clears stores that cannot be of this changelog."""
    positions: dict[TopicPartition, int] = {}
    for tp, store in stores.items():
        if store.offset is not None and not starts[tp] - 1 <= store.offset < ends[tp]:
            log.warning("store is not of this changelog, rebuilding changelog=%s partition=%d", tp.topic, tp.partition)
            store.clear()
        elif store.stale:
            log.warning("store is too old, rebuilding changelog=%s partition=%d", tp.topic, tp.partition)
            store.clear()
        positions[tp] = starts[tp] if store.offset is None else store.offset + 1
    return positions
