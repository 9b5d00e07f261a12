"""Bugs that are planted into the runtime or its ports for the simulation to find. Each is a plausible mistake."""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from unittest.mock import patch

from runtime.errors import CommitInDoubt
from runtime.loop import process, redo
from runtime.loop.checkpoint import AtLeastOnce, ExactlyOnce, _in_time
from runtime.loop.engine import Engine
from runtime.loop.loop import Loop
from runtime.loop.overlay import BatchOverlay
from runtime.loop.poller import Poller
from runtime.loop.rebalance import Rebalance
from runtime.loop.redo import RedoLog
from runtime.loop.timers import Timers
from runtime.model.progress import marks_of
from runtime.model.records import CONSUMED_BY
from runtime.model.redo_progress import RedoProgress
from runtime.side_effects.acknowledgement import retry_until_success
from runtime.side_effects.attempt import _CURRENT, Attempt
from runtime.side_effects.dispatcher import SideEffects
from runtime.state.restore import Restorer
from runtime.state.resume import Inputs
from runtime.state.row_cache import RowCache
from runtime.state.ttl_table import TtlTable
from tests.simulation.group import Group
from tests.simulation.producer import SimulatedProducer
from tests.simulation.worker import SimulatedWorker
from validators.inventory import processors as inventory
from validators.inventory.state import RESERVATIONS, STOCK, Stock


@dataclass(frozen=True)
class Bug:
    """A bug: its patch, the guarantee that it violates, and the seed from which on it is found soon."""

    plant: Callable
    exactly_once: bool
    near: int


PLANTED = {}


def planted(*, exactly_once=True, near=0):
    def register(plant):
        PLANTED[plant.__name__] = Bug(contextmanager(plant), exactly_once, near)
        return plant

    return register


@planted()
def output_before_commit():
    """Output records are sent by a producer of their own, before the transaction that they belong to."""

    class AnnouncesFirst(ExactlyOnce):
        async def commit(self, writes, membership):
            producer = await self._producer(0)
            if writes.outputs:
                plain = SimulatedProducer(producer._coordinator.process, producer._network, producer._broker)  # type: ignore[attr-defined]
                await plain.start()
                await plain.send(writes.outputs)
            return await super().commit(replace(writes, outputs=[]), membership)

    with patch.object(SimulatedWorker, "exactly_once", AnnouncesFirst):
        yield


@planted()
def no_deduplication():
    """A validator does not deduplicate orders."""
    with patch.object(TtlTable, "get", lambda self, ctx, key: None):
        yield


@planted()
def release_twice():
    """A reservation is released each time the failed order is read."""

    def release(known, order, ctx):
        if known is not None and known.held:
            stock = ctx.get(STOCK, known.product) or Stock()
            inventory._put_or_delete(known.product, Stock(count=stock.count, reserved=stock.reserved - known.held), ctx)
            ctx.put(RESERVATIONS.rows, order.id, known)

    with patch.object(inventory, "_release", release):
        yield


@planted()
def no_overlay():
    """A processor reads the state from before its batch."""

    def read(self, table, partition, key):
        raw = self.store(table.name, partition).get(key.encode())
        return None if raw is None else table.model.from_json(raw)

    with patch.object(BatchOverlay, "read", read):
        yield


@planted()
def rows_cached_over_a_rebalance():
    """Decoded rows are kept when partitions are lost: another worker may have changed them until they come back."""
    with patch.object(RowCache, "clear", lambda cache: None):
        yield


@planted()
def zombie_write():
    """Offsets are sent without member and generation, as aiokafka does: nothing fences a zombie."""

    def accept(self, producer, member_id, generation, offsets):
        self.pending.setdefault(producer, {}).update(self._recorded(offsets))

    with patch.object(Group, "commit_in_transaction", accept):
        yield


@planted()
def unstable_offsets_read():
    """Committed offsets are fetched without `require_stable`."""
    fetch = Group.fetch
    with patch.object(Group, "fetch", lambda self, partitions, stable: fetch(self, partitions, stable=False)):
        yield


@planted()
def changelog_end_at_the_last_stable_offset():
    """A changelog is restored up to the last stable offset although a transaction is open behind it."""

    async def ends(self, partitions):
        return await self._broker.log_ends(partitions, committed=True)

    with patch.object(Restorer, "_settled_ends", ends):
        yield


@planted()
def batch_in_doubt_dropped():
    """A batch in doubt is dropped, and the loop continues after it."""
    abandon = Loop._abandon

    def drop(self, error, records, epoch, trace):
        if not isinstance(error, CommitInDoubt):
            abandon(self, error, records, epoch, trace)

    with patch.object(Loop, "_abandon", drop):
        yield


@planted(near=75)
def batch_in_doubt_repeated():
    """A batch in doubt is committed again although it may be committed already."""
    step = Loop.step

    async def twice(self, batch):
        abandoned, errors, ownership = self._abandoned, [], self._ownership
        stores, partitions = ownership._stores, ownership.partitions
        self._abandoned = errors.append
        done = await step(self, batch)
        self._abandoned = abandoned
        for error in errors:
            if isinstance(error, CommitInDoubt):
                ownership._stores, ownership.partitions, ownership.running = stores, partitions, True
                return await step(self, replace(batch, epoch=ownership.epoch))
            abandoned(error)
        return done

    with patch.object(Loop, "step", twice):
        yield


@planted()
def applied_before_committed():
    """A batch is applied to RocksDB before it is committed."""
    process = Loop._process

    def process_and_apply(self, polled, trace):
        batch = process(self, polled, trace)
        for (table, partition), changed in batch.rows().items():
            store = self._ownership.store(table, partition)
            store.apply(changed, store.offset if store.offset is not None else -1)
        return batch

    with patch.object(Loop, "_process", process_and_apply):
        yield


@planted()
def services_ahead_read_again():
    """A restore ignores that services are ahead of one that joined: they process records again."""
    committed = Restorer.committed

    async def ignored(self, partitions):
        found = await committed(self, partitions)
        self.ahead = {}
        return found

    with patch.object(Restorer, "committed", ignored):
        yield


@planted()
def joined_service_not_in_the_marks():
    """Fused messages are marked without the service that has joined: it processes them again."""
    with patch.object(process, "marks_of", lambda group, joined: marks_of(group, ())):
        yield


@planted()
def position_of_an_absent_service_lost():
    """A worker commits offsets without the positions of services that it does not run."""
    progress = Inputs.progress

    def here_only(self, *arguments):
        return progress(self, *arguments)._replace(elsewhere={})

    with patch.object(Inputs, "progress", here_only):
        yield


@planted()
def timers_not_loaded():
    """A new owner does not load the timers in its state."""
    with patch.object(Timers, "load", lambda self, table, partition, store: None):
        yield


@planted()
def no_seek_after_failed_batch():
    """After a failed batch the consumer does not seek back."""

    def read_from(self, positions):
        behind = self._consumer.positions()
        self._consumer.seek({tp: max(offset, behind.get(tp, 0)) for tp, offset in positions.items()})
        self._reading.set()

    with patch.object(Poller, "read_from", read_from):
        yield


@planted()
def fenced_and_idle():
    """A worker with a fenced batch waits for a rebalance that it has missed."""
    with patch.object(Engine, "_abandoned", lambda self, error: self.poller.hold()):
        yield


@planted()
def restore_not_retried():
    """A failed restore is not repeated."""

    async def once(self, after=0.0):
        await self._restore_all()

    with (
        patch.object(Rebalance, "_retry_until_restored", once),
        patch.object(Restorer, "committed", _sometimes(Restorer.committed)),
    ):
        yield


@planted(exactly_once=False)
def offsets_before_outputs():
    """At least once in the wrong order: offsets before output records. A crash in between loses output records."""

    class OffsetsFirst(AtLeastOnce):
        async def commit(self, writes, membership):
            await self._commit_offsets(writes.offsets, membership)
            return await super().commit(writes, membership)

    with patch.object(SimulatedWorker, "at_least_once", OffsetsFirst):
        yield


@planted(exactly_once=False)
def rows_before_redo_records():
    """At least once in the wrong order: rows before redo records. A crash in between loses output records."""

    class RowsFirst(AtLeastOnce):
        async def commit(self, writes, membership):
            async with _in_time(self._timeout_s):
                ends = await (await self._usable_producer()).send(writes.changelog)
            return ends | await super().commit(replace(writes, changelog=[]), membership)

    with patch.object(SimulatedWorker, "at_least_once", RowsFirst):
        yield


@planted(exactly_once=False)
def redo_records_not_redone():
    """At least once: a restore clears the redo records that a crash left, and does not redo them."""
    with patch.object(redo, "left_over", lambda rows: None):
        yield


@planted(exactly_once=False, near=1200)
def token_in_flight_at_a_revocation():
    """At least once: a worker rejoins its group although its token may arrive after that of the next owner.

    And batches of the next owner write rows although redo tables have records of others.
    """

    add = RedoLog.add

    class AnyEnds:
        def __init__(self, progress):
            self.next = progress.next
            self.progress = progress

        def wrote(self, writes, ends):
            self.progress.wrote(writes, ends)
            return True

    async def cancelled_with_its_caller(self, commit):
        return await commit

    def add_with_any_ends(self, writes, batch, rows):
        add(self, writes, batch, rows)
        writes.redo_progress = AnyEnds(writes.redo_progress)

    with (
        patch.object(RedoLog, "_finished", cancelled_with_its_caller),
        patch.object(RedoLog, "add", add_with_any_ends),
    ):
        yield


@planted(exactly_once=False)
def redo_records_kept_past_the_next_batch():
    """At least once: redo records that the next batch does not overwrite stay. They are redone over later rows."""
    with patch.object(RedoProgress, "next", lambda progress, redo: list(redo)):
        yield


@planted(exactly_once=False)
def fused_records_not_redone():
    """At least once: redo records lack fused messages, which their receiver may not have processed."""
    add = RedoLog.add

    def add_outputs_alone(self, writes, batch, rows):
        through_kafka = {write for write in batch.outputs if CONSUMED_BY not in dict(write.headers)}
        for call in batch.calls:
            call.sent = [sent for sent in call.sent if sent.write in through_kafka]
        add(self, writes, batch, rows)

    with patch.object(RedoLog, "add", add_outputs_alone):
        yield


@planted()
def side_effects_not_loaded():
    """A new owner does not load pending side effects."""
    with patch.object(SideEffects, "load", lambda self, table, partition, store: None):
        yield


@planted()
def side_effect_acknowledged_early():
    """A side effect is acknowledged before it runs. A crash in between loses it."""
    perform, noted = Attempt._perform, SideEffects._commit_acknowledgement

    async def later(self):
        pass

    async def noted_first(self, row, attempt):
        await noted(self, row, attempt)
        await perform(attempt)

    with patch.object(Attempt, "_perform", later), patch.object(SideEffects, "_commit_acknowledgement", noted_first):
        yield


@planted(near=1250)
def side_effects_not_drained():
    """Partitions are revoked without draining side effects: the next owner repeats them."""

    async def not_waited_for(self, patience_s):
        self.pause()

    def cut_off(self):
        suspend(self)
        self.retain(())

    suspend = SideEffects.unload
    with patch.object(SideEffects, "drain", not_waited_for), patch.object(SideEffects, "unload", cut_off):
        yield


@planted(near=50)
def failed_side_effect_keeps_slot():
    """A failed side effect keeps its slot while it waits for its next attempt."""

    async def stay(self):
        _CURRENT.set(self)
        await retry_until_success(self.effect.name, self._perform)
        self.done = True

    with patch.object(Attempt, "_run", stay):
        yield


def _sometimes(call):
    """Every third one fails."""
    count = 0

    async def unsure(self, partitions):
        nonlocal count
        count += 1
        if count % 3 == 0:
            raise OSError("the broker is away")
        return await call(self, partitions)

    return unsure
