"""A driver whose workers commit at least once, and one of which crashes at a given step of a given batch."""

import asyncio

import pytest

from runtime.data_loss.losses import LossReporter
from runtime.loop.ownership import Ownership
from runtime.loop.partitions import Partitions
from runtime.loop.process import BatchProcessor
from runtime.loop.redo import RedoLog
from runtime.loop.timers import Timers
from runtime.model.limits import SizeLimits
from runtime.model.records import Membership, TopicPartition
from runtime.model.topology import Topology
from runtime.model.watch import Watches
from runtime.side_effects.dispatcher import SideEffects
from runtime.state.stores import MemoryStores
from runtime.testing import InMemoryWorker, TopologyTestDriver

ME = Membership(1, "in-memory")

STEPS = (
    "nothing",
    "part of the redo records",
    "one redo record",
    "all but one redo record",
    "redo records",
    "some rows",
    "rows",
    "output records",
    "rows and output records",
    "redo records cleared in part",
    "redo records cleared",
    "redo begun",
)
"""What is durable at the crash. The last one: redo records, and a first restore wrote half of them and crashed."""


class Durable:
    """A worker's changelogs, in place of a broker, and a checkpoint that writes to them and to the topics."""

    transactional = False

    def __init__(self, driver):
        self.driver = driver
        self.changelogs = {}
        self.most = None
        """How many records of a commit get through before it crashes; `None`: all."""

    async def commit(self, writes, membership):
        everything = [*writes.changelog, *writes.outputs]
        ends = self.write(everything[: self.most])
        if self.most is not None:
            raise ConnectionError("crash")
        return ends

    def write(self, writes):
        """Appends records. Returns the last offset of each partition."""
        ends = {}
        for write in writes:
            if write.topic.endswith("-changelog"):
                log = self.changelogs.setdefault(TopicPartition(write.topic, write.partition), [])
                log.append(write)
                ends[write.topic, write.partition] = len(log) - 1
            else:
                self.driver.write(write)
        return ends


class RedoingWorker:
    """The parts of a worker in memory that write and redo redo records."""

    def __init__(self, driver, worker: InMemoryWorker):
        self.worker = worker
        self.topology = worker.topology = Topology(
            worker.topology.services, redo=[s.name for s in worker.topology.services]
        )
        self.durable = Durable(driver)
        self.count = driver.partitions
        self.clock = lambda: driver.now
        self.start()

    def start(self):
        """Restores the stores from the changelogs, redoes, and loads the timers."""
        worker, tables = self.worker, self.topology.tables
        worker.stores = MemoryStores()
        worker.timers = Timers(self.topology)
        worker.processor = BatchProcessor(self.topology, self.count, worker.stores.open, redo=True)
        stores = {(t, p): worker.stores.open(t, p) for t in tables for p in range(self.count)}
        for (table, partition), store in stores.items():
            for offset, row in enumerate(self.durable.changelogs.get((tables[table].changelog, partition), ())):
                store.apply({row.key: row.value}, offset)
        partitions = Partitions(
            self.topology,
            self.count,
            Ownership(),
            worker.stores,
            worker.timers,
            SideEffects(self.topology, pytest.fail),
            Watches(),
        )
        self.redo = RedoLog(partitions, self.durable, limits=SizeLimits(), losses=LossReporter(), clock=self.clock)
        asyncio.run(self.redo.redo(stores, ME, {}))
        for (table, partition), store in stores.items():
            worker.timers.load(table, partition, store)


class Interrupted(TopologyTestDriver):
    """A driver that commits like `runtime.loop.checkpoint.AtLeastOnce` and crashes in batch `crash_in`.

    Arguments:
        after: one of `STEPS`.
        which: number of the redo record in `one redo record` and `all but one redo record`.
    """

    def __init__(self, *services, crash_in=None, after="", which=0, **how):
        super().__init__(*services, **how)
        self.crash_in = crash_in
        self.after = after
        self.which = which
        self.batches = 0
        self.records = 1
        """Number of redo records of the batch that crashed."""
        self._redoing = {id(worker): RedoingWorker(self, worker) for worker in self.workers}

    def _process(self, worker, polled, due):
        number, self.batches = self.batches, self.batches + 1
        redoing = self._redoing[id(worker)]
        batch = worker.processor.process(polled, due, self.now, lambda *_: worker.fuse)
        rows = batch.rows()
        writes = batch.writes(rows)
        redoing.redo.add(writes, batch, rows)
        redo = writes.redo_progress.next(writes.redo)
        if number == self.crash_in and not polled.commands:
            redoing.durable.write(self._durable(writes, redo))
            if self.after == "redo begun":
                redoing.durable.most = (len(writes.changelog) + len(writes.outputs)) // 2
                with pytest.raises(ConnectionError):
                    redoing.start()
                redoing.durable.most = None
            redoing.start()
            return
        ends = redoing.durable.write(redo)
        assert writes.redo_progress.wrote(redo, ends)
        ends |= redoing.durable.write([*writes.changelog, *writes.outputs])
        for (table, partition), changed in rows.items():
            changelog = worker.topology.tables[table].changelog
            worker.stores.open(table, partition).apply(changed, ends[changelog, partition])
            worker.timers.apply(table, partition, changed)
        worker.positions.update(batch.offsets)

    def _durable(self, writes, redo):
        """What of the batch is durable at the crash.

        Arguments:
            writes: the batch.
            redo: its redo records, and tombstones of those of the batch before.
        """
        units = sorted({(w.topic, w.partition) for w in redo})
        self.records = max(len(units), 1)
        this = units[self.which % len(units)] if units else None
        half = [w for at, w in enumerate(writes.changelog) if at % 2]
        written = [*redo, *writes.changelog, *writes.outputs]
        cleared = [w._replace(value=None) for w in writes.redo]
        return {
            "nothing": [],
            "part of the redo records": redo[: len(redo) // 2],
            "one redo record": [w for w in redo if (w.topic, w.partition) == this],
            "all but one redo record": [w for w in redo if (w.topic, w.partition) != this],
            "redo records": redo,
            "some rows": [*redo, *half],
            "rows": [*redo, *writes.changelog],
            "output records": [*redo, *writes.outputs],
            "rows and output records": written,
            "redo records cleared in part": [*written, *cleared[: len(cleared) // 2]],
            "redo records cleared": [*written, *cleared],
            "redo begun": [*redo, *half],
        }[self.after]


def crashes(undisturbed, run):
    """Runs a scenario once for each batch, step and redo record at which it can crash. Yields where, and the result.

    Arguments:
        undisturbed: the driver of a run without a crash.
        run: called with the crash; returns the result and the driver.
    """
    for number in range(undisturbed.batches):
        for after in STEPS:
            which, records = 0, 1
            while which < records:
                result, driver = run(crash_in=number, after=after, which=which)
                yield f"batch {number}, {after}, {which}", result
                which, records = which + 1, driver.records if "one redo record" in after else 1
