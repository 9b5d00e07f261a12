"""Faults planted into the runtime or its ports, each as somebody might really write it, for the simulation to find."""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from unittest.mock import patch

import fulfilment_service.app
from fulfilment_service.gate import FulfilmentGate
from orders_service.place import place
from runtime.errors import CommitInDoubt
from runtime.loop.checkpoint import AtLeastOnce, ExactlyOnce, _in_time
from runtime.loop.engine import Engine
from runtime.loop.loop import Loop
from runtime.loop.overlay import BatchOverlay
from runtime.loop.poller import Poller
from runtime.loop.rebalance import Rebalance
from runtime.loop.timers import Timers
from runtime.model.service import TIMERS_CHANGELOG
from runtime.side_effects.acknowledgement import retry_until_success
from runtime.side_effects.attempt import _CURRENT, Attempt
from runtime.side_effects.dispatcher import SideEffects
from runtime.state.restore import Restorer
from runtime.state.ttl_table import TtlTable
from tests.simulation import world
from tests.simulation.group import Group
from tests.simulation.producer import SimulatedProducer
from tests.simulation.worker import SimulatedWorker, topology_of
from validators.inventory import rule as inventory
from validators.inventory.state import RESERVATIONS, STOCK, Stock


@dataclass(frozen=True)
class Bug:
    """What plants a bug, under which guarantee it shows, and from which seed on the search for it is short."""

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
def announce_before_durable():
    """Announcements leave by a producer of their own, before the transaction that decides them."""

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
def no_dedupe():
    """A validator does not look whether it has judged an order before."""
    with patch.object(TtlTable, "get", lambda self, ctx, key: None):
        yield


@planted()
def release_twice():
    """What a failed order held is given back each time its failure is seen."""

    def release(known, order, ctx):
        if known is not None and known.held:
            stock = ctx.get(STOCK, known.product) or Stock()
            inventory._put_or_delete(known.product, Stock(count=stock.count, reserved=stock.reserved - known.held), ctx)
            ctx.put(RESERVATIONS.rows, order.id, known)

    with patch.object(inventory, "_release", release):
        yield


@planted()
def forget_the_overlay():
    """A processor reads the state as it was before its batch."""

    def read(self, table, partition, key):
        raw = self.store(table.name, partition).get(key.encode())
        return None if raw is None else table.model.from_json(raw)

    with patch.object(BatchOverlay, "read", read):
        yield


@planted()
def zombie_write():
    """Offsets are sent with the group alone, as aiokafka does: nobody looks at the generation."""

    def accept(self, producer, member_id, generation, offsets):
        self.pending.setdefault(producer, {}).update(self._recorded(offsets))

    with patch.object(Group, "commit_in_transaction", accept):
        yield


@planted()
def offsets_read_in_flight():
    """Committed offsets are fetched without asking for stable ones."""
    fetch = Group.fetch
    with patch.object(Group, "fetch", lambda self, partitions, stable: fetch(self, partitions, stable=False)):
        yield


@planted()
def changelog_end_at_the_last_stable_offset():
    """A changelog is read to where no transaction is open, though one is open behind that."""

    async def ends(self, partitions):
        return await self._broker.log_ends(partitions, committed=True)

    with patch.object(Restorer, "_settled_ends", ends):
        yield


@planted()
def batch_dropped():
    """A batch that could not be settled is forgotten, and the loop goes on behind it."""
    abandon = Loop._abandon

    def drop(self, error, records, epoch):
        if not isinstance(error, CommitInDoubt):
            abandon(self, error, records, epoch)

    with patch.object(Loop, "_abandon", drop):
        yield


@planted(near=75)
def batch_tried_again():
    """A batch that could not be settled is committed once more, though it may have been already."""
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
    """RocksDB has a batch before the broker has it."""
    process = Loop._process

    def process_and_apply(self, polled):
        batch = process(self, polled)
        for (table, partition), changed in batch.rows().items():
            store = self._ownership.store(table, partition)
            store.apply(changed, store.offset if store.offset is not None else -1)
        return batch

    with patch.object(Loop, "_process", process_and_apply):
        yield


@planted()
def timers_not_loaded():
    """Who takes partitions over does not look at the wishes that are in its state."""
    with patch.object(Timers, "load", lambda self, table, partition, store: None):
        yield


@planted()
def takeover_without_seeking():
    """After a failed batch the consumer reads on where it was."""

    def read_from(self, positions):
        behind = self._consumer.positions()
        self._consumer.seek({tp: max(offset, behind.get(tp, 0)) for tp, offset in positions.items()})
        self._reading.set()

    with patch.object(Poller, "read_from", read_from):
        yield


@planted()
def refused_and_idle():
    """A worker whose batch was refused waits to be told of a rebalance, which it has missed."""
    with patch.object(Engine, "_abandoned", lambda self, error: self.poller.hold()):
        yield


@planted()
def takeover_not_tried_again():
    """A takeover that fails is left at that."""

    async def once(self, after=0.0):
        await self._restore_all()

    with (
        patch.object(Rebalance, "_retry_until_restored", once),
        patch.object(Restorer, "committed", _sometimes(Restorer.committed)),
    ):
        yield


@planted(exactly_once=False)
def offsets_before_announcements():
    """At least once turned round: a crash in between loses what was not announced."""

    class OffsetsFirst(AtLeastOnce):
        async def commit(self, writes, membership):
            await self._commit_offsets(writes.offsets)
            return await super().commit(writes, membership)

    with patch.object(SimulatedWorker, "at_least_once", OffsetsFirst):
        yield


@planted(exactly_once=False, near=140)
def wishes_after_their_state():
    """At least once, a wish to be woken follows the state it belongs to: a crash in between forgets a deadline."""

    class WishesLast(AtLeastOnce):
        async def commit(self, writes, membership):
            state = [w for w in writes.changelog if not w.topic.endswith(TIMERS_CHANGELOG)]
            if len(state) == len(writes.changelog):
                return await super().commit(writes, membership)
            async with _in_time(self._timeout_s):
                ends = await (await self._usable_producer()).send(state)
            rest = [w for w in writes.changelog if w.topic.endswith(TIMERS_CHANGELOG)]
            return ends | await super().commit(replace(writes, changelog=rest), membership)

    with patch.object(SimulatedWorker, "at_least_once", WishesLast):
        yield


@planted()
def effects_not_loaded():
    """Who takes partitions over does not look at what is still to be done outside."""
    with patch.object(SideEffects, "load", lambda self, table, partition, store: None):
        yield


@planted()
def effect_noted_before_it_is_done():
    """That an effect is done is decided before it is: a crash in between loses it."""
    perform, noted = Attempt._perform, SideEffects._commit_acknowledgement

    async def later(self):
        pass

    async def noted_first(self, row, attempt):
        await noted(self, row, attempt)
        await perform(attempt)

    with patch.object(Attempt, "_perform", later), patch.object(SideEffects, "_commit_acknowledgement", noted_first):
        yield


@planted(near=1250)
def effects_cut_off():
    """Partitions go at once, whatever is being done outside: their next owner does it again."""

    async def not_waited_for(self, patience_s):
        self.pause()

    def cut_off(self):
        suspend(self)
        self.retain(())

    suspend = SideEffects.unload
    with patch.object(SideEffects, "drain", not_waited_for), patch.object(SideEffects, "unload", cut_off):
        yield


@planted()
def effects_wait_in_their_places():
    """What failed is tried again where it is, and holds a place all the while."""

    async def stay(self):
        _CURRENT.set(self)
        await retry_until_success(self.effect.name, self._perform)
        self.done = True

    with patch.object(Attempt, "_run", stay):
        yield


@planted(exactly_once=False)
def fulfilled_once_only():
    """At least once, an order that is known to be fulfilled is not announced again, though that may have been lost."""

    class Once(FulfilmentGate):
        def __init__(self, needs, patience, currency, *, at_least_once):
            super().__init__(needs, patience, currency)

    topology_of.cache_clear()
    with patch.object(fulfilment_service.app, "FulfilmentGate", Once):
        yield
    topology_of.cache_clear()


@planted(exactly_once=False)
def placed_once_only():
    """At least once, an order that is known is not written again, though its message may have been lost."""

    def once(order, ctx, *, at_least_once):
        return place(order, ctx)

    with patch.object(world, "place", once):
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
