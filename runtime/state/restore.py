"""Restore: the offsets to continue from, and stores brought to the end of their changelogs."""

import asyncio
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import Protocol

from runtime.common.clock import elapsed_s
from runtime.data_loss import positions
from runtime.data_loss.losses import LossCause, LossPath, LossReporter
from runtime.data_loss.positions import Position
from runtime.model.log_ids import CommittedOffset, LogIds, OffsetMetadata, logs_differ, of_last_restore
from runtime.model.progress import NOTHING_MORE, ServiceProgress
from runtime.model.records import Offsets, TopicPartition
from runtime.state.resume import Inputs, committed_positions, resume_point
from runtime.state.stores import Store

log = logging.getLogger(__name__)

CONFIRM_S = 3.0
"""Seconds for which a log end offset below the expected one is doubted: a new leader's high watermark lags at first."""

Progress = Callable[[int, int], None]
"""Called with the records applied since the last call, and the offsets left to read."""


class ChangelogRow(Protocol):
    """A record of a changelog."""

    @property
    def key(self) -> bytes | None: ...

    @property
    def value(self) -> bytes | None: ...

    @property
    def offset(self) -> int: ...

    @property
    def last_offset(self) -> int | None:
        """Last offset of a range of unreadable records; `None` for a readable record."""


class Reading(Protocol):
    """A running read of partitions, committed records only."""

    async def rows(self) -> Mapping[TopicPartition, Sequence[ChangelogRow]]:
        """Fetched records, perhaps none. Waits for a fraction of a second."""

    def positions(self) -> Offsets:
        """The next offset to read of each partition; past transaction markers."""


class LogReader(Protocol):
    """The requests of a restore. They retry passing errors, such as a moving leader, and raise other `KafkaError`s."""

    async def stable_commits(
        self, partitions: Collection[TopicPartition]
    ) -> Mapping[TopicPartition, CommittedOffset | None]:
        """The committed offsets of the group, once no transaction in flight can change them; `None` if there is
        none."""

    async def log_ids(self, topics: Collection[str]) -> LogIds:
        """Log ids of topics, as far as the broker supports them."""

    async def log_starts(self, partitions: Collection[TopicPartition]) -> Offsets:
        """Log start offsets."""

    async def log_ends(self, partitions: Collection[TopicPartition], *, committed: bool) -> Offsets:
        """Log end offsets; with `committed`, last stable offsets."""

    def reading(self, positions: Offsets) -> AbstractAsyncContextManager[Reading]:
        """Reads these partitions from these offsets."""


class Restorer:
    """Finds the offsets to continue from, and restores stores from their changelogs.

    Arguments:
        broker: reads offsets and changelogs.
        lost: reports positions that the broker no longer has.
        changelogs: changelogs of the tables that are restored along with the inputs.
        metadata: metadata to commit with the offset of each partition. Set here at each restore.
        partitions: partitions of the changelogs; an input may have more.
        inputs: the services that read the inputs.
    """

    POLL_S = 0.05

    def __init__(
        self,
        broker: LogReader,
        lost: LossReporter | None = None,
        changelogs: Collection[str] = (),
        metadata: dict[TopicPartition, str] | None = None,
        partitions: int | None = None,
        inputs: Inputs | None = None,
    ) -> None:
        self._broker = broker
        self._metadata = {} if metadata is None else metadata
        self._recreated: set[TopicPartition] = set()
        self._lost = LossReporter() if lost is None else lost
        self._changelogs = changelogs
        self._partitions = partitions
        self._inputs = Inputs() if inputs is None else inputs
        self.ahead: dict[TopicPartition, Mapping[str, int]] = {}
        """Of the partitions found last: positions of the services that are ahead of the offset."""
        self.starts: frozenset[TopicPartition] = frozenset()
        """Of the partitions found last: those with a position of a service that its group has not committed yet."""

    async def committed(self, partitions: Collection[TopicPartition]) -> Offsets:
        """The next offset to read of each partition: that of the service that is furthest behind, or the log start.

        Records between the two are reported as lost. Sets `ahead` and `starts`. Raises `RecordsLost`.
        """
        commits = await self._broker.stable_commits(partitions)
        offsets = {tp: None if commit is None else commit.offset for tp, commit in commits.items()}
        ids = await self._broker.log_ids({*(tp.topic for tp in partitions), *self._changelogs})
        committed = {
            tp: metadata
            for tp, commit in commits.items()
            if commit and (metadata := OffsetMetadata.parse(commit.metadata))
        }
        starts = await self._broker.log_starts(partitions)
        progress = {tp: committed[tp].progress if tp in committed else NOTHING_MORE for tp in partitions}
        known = {tp: self._known(tp, offsets[tp], progress[tp]) for tp in partitions}
        needed = {tp: max(found.values()) for tp, found in known.items() if found}
        ends = await confirmed_ends(self._broker, needed, await self._broker.log_ends(partitions, committed=False))
        with_state = await self._services_with_state(known)
        last = of_last_restore(committed)
        self._find_recreated(last, ids)
        self._lost.reset()
        self.ahead, self.starts = {}, frozenset()
        self._metadata.clear()
        result: dict[TopicPartition, int] = {}
        for tp in partitions:
            if tp in committed:
                recreated = committed[tp].recreated(tp.topic, ids)
            else:  # with a topic, the broker deletes its committed offsets
                recreated = offsets[tp] is None and tp in self._recreated
            inputs, offset = self._inputs, offsets[tp]
            at = resume_point(
                committed_positions(inputs.readers(tp.topic), inputs.group, offset, progress[tp]),
                {} if recreated else inputs.elsewhere.get(tp, {}),
                partial(inputs.starts_now, topic=tp.topic),
                starts[tp],
                ends[tp],
                recreated=recreated,
                with_state=with_state.get(tp.partition, ()),
            )
            _report(self._lost, tp, Position(at.offset, at.lost), LossPath.INPUT)
            if at.ahead:
                self.ahead[tp] = at.ahead
            if at.is_new:
                self.starts |= {tp}
            elif offset is None or not known[tp]:
                self._lost.uncommitted.add(tp)
            now = inputs.progress(tp.topic, at.ahead, progress[tp], None if recreated else offset)
            if tp.topic in ids or any(now):
                restore = max((metadata.restore for metadata in last.get(tp.partition, ())), default=0) + 1
                self._metadata[tp] = str(OffsetMetadata.of(restore, tp.topic, ids, now))
            result[tp] = at.offset
        return result

    def _known(self, tp: TopicPartition, offset: int | None, progress: ServiceProgress) -> dict[str, int]:
        """The positions of services in a partition, from their group and from others."""
        found = committed_positions(self._inputs.readers(tp.topic), self._inputs.group, offset, progress)
        elsewhere = self._inputs.elsewhere.get(tp, {})
        return {s: max(at or 0, elsewhere.get(s, 0)) for s, at in found.items() if at is not None or s in elsewhere}

    def _find_recreated(self, last: Mapping[int, Sequence[OffsetMetadata]], ids: LogIds) -> None:
        """Finds the topics that were recreated since the group last committed."""
        self._recreated = {
            TopicPartition(topic, partition)
            for partition, found in last.items()
            for topic in set.intersection(*(metadata.recreated_topics(ids) for metadata in found))
        }

    async def _services_with_state(self, known: Mapping[TopicPartition, Mapping[str, int]]) -> dict[int, set[str]]:
        """The services with state in partitions without any committed offset: these expired, or were deleted."""
        uncommitted = {tp.partition for tp in known} - {tp.partition for tp, found in known.items() if found}
        if self._partitions is not None:
            uncommitted = {p for p in uncommitted if p < self._partitions}
        changelogs = [TopicPartition(changelog, p) for changelog in self._changelogs for p in sorted(uncommitted)]
        if not changelogs:
            return {}
        ends = await self._broker.log_ends(changelogs, committed=False)
        found: dict[int, set[str]] = {}
        for tp, end in ends.items():
            if end:
                found.setdefault(tp.partition, set()).add(self._inputs.holder(tp.topic))
        if found:
            log.warning("committed offsets are gone, reading inputs from the start partitions=%s", sorted(found))
        return found

    async def ends(self, partitions: Collection[TopicPartition]) -> Offsets:
        """Log end offsets, open transactions included."""
        return await self._broker.log_ends(partitions, committed=False)

    async def restore(self, stores: Mapping[TopicPartition, Store], progress: Progress) -> None:
        """Brings every store to the end of its changelog partition, once no transaction is open there."""
        ends = await self._settled_ends(stores)
        if too_short(ends, needed := least_ends(stores)):
            await confirmed_ends(self._broker, needed, ends)
            ends = await self._settled_ends(stores)
        starts = await self._broker.log_starts(stores)
        ids = await self._broker.log_ids({tp.topic for tp in stores})
        at = await start_offsets(stores, starts, ends, ids, self._lost, LossPath.CHANGELOG, self._recreated)
        unread = {tp: ends[tp] for tp in stores if at[tp] < ends[tp]}
        progress(0, sum(end - at[tp] for tp, end in unread.items()))
        if unread:
            async with self._broker.reading({tp: at[tp] for tp in unread}) as reading:
                await self._read(reading, stores, unread, progress)
        for tp, store in stores.items():
            if ends[tp]:
                store.mark_complete(ends[tp] - 1)  # past the transaction markers at its end

    async def _settled_ends(self, partitions: Collection[TopicPartition]) -> Offsets:
        """Log end offsets of changelogs once no transaction is open: only the owner writes, and there is none now."""
        while True:
            stable = await self._broker.log_ends(partitions, committed=True)
            if stable == await self._broker.log_ends(partitions, committed=False):
                return stable
            await asyncio.sleep(self.POLL_S)

    async def _read(
        self,
        reading: Reading,
        stores: Mapping[TopicPartition, Store],
        unread: dict[TopicPartition, int],
        progress: Progress,
    ) -> None:
        while unread:
            applied = 0
            fetched = await reading.rows()
            await report_unreadable(fetched, self._lost, LossPath.CHANGELOG)
            for tp, rows in fetched.items():
                apply(stores[tp], rows)
                applied += len(rows)
            at = reading.positions()
            for tp in [tp for tp, end in unread.items() if at[tp] >= end]:
                del unread[tp]
            progress(applied, sum(end - at[tp] for tp, end in unread.items()))
            await asyncio.sleep(0)  # `rows` returns buffered records without yielding


async def report_unreadable(
    fetched: Mapping[TopicPartition, Sequence[ChangelogRow]], lost: LossReporter, path: LossPath
) -> None:
    """Reports unreadable rows, and returns when the report is durable. Raises `RecordsLost`."""
    for tp, rows in fetched.items():
        ranges = list[tuple[int, int]]()
        for row in rows:
            if row.last_offset is not None:
                first = ranges.pop()[0] if ranges and ranges[-1][1] == row.offset else row.offset
                ranges.append((first, row.last_offset + 1))
        for first, end in ranges:
            lost.report(*tp, first, end, path, LossCause.UNREADABLE)
        if ranges:
            await lost.flush()


def apply(store: Store, rows: Sequence[ChangelogRow]) -> None:
    """Applies changelog records to a store. Unreadable ones have no key."""
    last = rows[-1]
    last_offset = last.offset if last.last_offset is None else last.last_offset
    store.apply({r.key: r.value for r in rows if r.key is not None}, last_offset)


async def start_offsets(
    stores: Mapping[TopicPartition, Store],
    starts: Offsets,
    ends: Offsets,
    ids: LogIds,
    lost: LossReporter,
    path: LossPath,
    recreated: Collection[TopicPartition] = (),
) -> Offsets:
    """The next offset to read of each store's changelog. Clears stores that belong to another changelog.

    Lost records are reported, durably, before a store is cleared. Raises `RecordsLost`.

    Arguments:
        stores: by changelog partition.
        starts: log start offsets.
        ends: log end offsets.
        ids: log ids of the changelogs.
        lost: reports lost records.
        path: for the report.
        recreated: changelogs recreated since the group last committed. A store that has the present log id is excepted.
    """
    found: dict[TopicPartition, tuple[Position, bool]] = {}
    for tp, store in stores.items():
        log_id = ids.get(tp.topic)
        same = store.log_id is not None and store.log_id == log_id
        other = logs_differ(store.log_id, log_id) or (tp in recreated and not same)
        found[tp] = positions.changelog_position(store.offset, starts[tp], ends[tp], recreated=other)
        _report(lost, tp, found[tp][0], path)
    await lost.flush()
    result: dict[TopicPartition, int] = {}
    for tp, store in stores.items():
        at, belongs = found[tp]
        if not belongs:
            log.warning(
                "store belongs to another changelog, rebuilding changelog=%s partition=%d", tp.topic, tp.partition
            )
            store.clear()
        elif store.stale:
            log.warning("store is too old, rebuilding changelog=%s partition=%d", tp.topic, tp.partition)
            store.clear()
            at = Position(starts[tp])
        if tp.topic in ids:
            store.set_log_id(ids[tp.topic])
        result[tp] = at.offset
    return result


def least_ends(stores: Mapping[TopicPartition, Store]) -> Offsets:
    """The least log end offset of each changelog, by the contents of its store."""
    return {tp: store.offset + 1 for tp, store in stores.items() if store.offset is not None}


def too_short(ends: Offsets, needed: Offsets) -> list[TopicPartition]:
    """The partitions whose log ends before the needed offset."""
    return [tp for tp, offset in needed.items() if ends[tp] < offset]


async def confirmed_ends(broker: LogReader, needed: Offsets, ends: Offsets) -> Offsets:
    """Log end offsets, read again for up to `CONFIRM_S` while one is less than needed."""
    ends = dict(ends)
    deadline = elapsed_s() + CONFIRM_S
    while (missing := too_short(ends, needed)) and elapsed_s() < deadline:
        await asyncio.sleep(Restorer.POLL_S)
        ends |= await broker.log_ends(missing, committed=False)
    return ends


def _report(lost: LossReporter, tp: TopicPartition, at: Position, path: LossPath) -> None:
    if at.lost is not None:
        lost.report(*tp, at.lost.first, at.lost.end, path, at.lost.cause)
