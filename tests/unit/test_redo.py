"""Redo records: their contents and pieces, and what a restore redoes, rejects and clears."""

import asyncio
from datetime import UTC, datetime

import pytest
from aiokafka.errors import MessageSizeTooLargeError, RequestTimedOutError
from hypothesis import given
from hypothesis import strategies as st

from runtime.data_loss.losses import LossCause, LossPath, LossReporter
from runtime.errors import CommitInDoubt, RedoRejected
from runtime.loop.overlay import BatchOverlay
from runtime.loop.ownership import Ownership
from runtime.loop.partitions import Partitions
from runtime.loop.redo import RedoLog
from runtime.loop.timers import Timers
from runtime.model.limits import SizeLimits
from runtime.model.records import Membership, TopicPartition, Write, Writes
from runtime.model.redo import OWNER, Call, RedoRecord, Sent, Unit, left_over, records
from runtime.model.redo_progress import RedoProgress
from runtime.model.service import Service, Table
from runtime.model.topology import Topology
from runtime.model.watch import Watches
from runtime.side_effects.dispatcher import SideEffects
from runtime.state.stores import MemoryStores
from tests.loops import KEEPER, LEVELS, TP

ME = Membership(1, "me")
HERE = Unit("keeper", 0)
REDO = "keeper-redo"
ROWS = {b"mug": b"1", b"jug": None}
OUT = Write("out", 3, b"k", b"v", (("made-at", b"7"), ("", None)))

blobs = st.none() | st.binary(max_size=40)
writes = st.builds(Write, st.text(), st.integers(0, 9), blobs, blobs, st.lists(st.tuples(st.text(), blobs)).map(tuple))
redo_records = st.builds(
    RedoRecord,
    st.dictionaries(st.text(), st.dictionaries(st.binary(), blobs)),
    st.lists(st.builds(Sent, st.integers(0, 99), writes)),
)


@given(redo_records, st.integers(1, 60))
def test_a_redo_record_survives_its_pieces(record, piece_bytes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("runtime.model.redo.PIECE_BYTES", piece_bytes)
        pieces = record.pieces("t", "t-1")
    assert left_over({OWNER: b"t", **pieces}.items()) == ("t-1", record)


def test_a_redo_record_that_lacks_a_piece_or_has_one_of_another_batch_or_owner_is_not_redone(monkeypatch):
    monkeypatch.setattr("runtime.model.redo.PIECE_BYTES", 20)
    record = RedoRecord({LEVELS.name: ROWS})
    pieces, earlier = record.pieces("t", "t-2"), record.pieces("t", "t-1")
    assert len(pieces) > 3
    for key in pieces:
        rows = {OWNER: b"t", **pieces}
        assert left_over((rows | {key: earlier[key]}).items()) is None
        del rows[key]
        assert left_over(rows.items()) is None
    assert left_over({OWNER: b"u", **pieces}.items()) is None
    assert left_over(pieces.items()) is None


def test_a_redo_record_has_what_its_unit_sent_and_what_led_to_it():
    there, elsewhere = Unit("a", 1), Unit("b", 2)
    first = Call(there, None, [Sent(0, OUT._replace(key=b"0"))])
    second = Call(elsewhere, first, [Sent(1, OUT._replace(key=b"1"))])
    third = Call(there, second, [Sent(2, OUT._replace(key=b"2"))])
    other = Call(there, None, [Sent(3, OUT._replace(key=b"3"))])
    rows = {there: {"a-rows": {b"k": b"v"}}, elsewhere: {"b-rows": {b"k": b"v"}}}

    found = records(rows, [first, second, third, other])

    assert sorted(sent.position for sent in found[there].sent) == [0, 1, 2, 3]
    assert sorted(sent.position for sent in found[elsewhere].sent) == [0, 1]


@pytest.mark.parametrize(
    ("rows", "sent", "needed"),
    [({}, 1, False), ({b"k": b"v"}, 0, False), ({b"k": b"v"}, 1, True), ({b"k": b"v", b"l": None}, 0, True)],
)
def test_units_that_a_crash_cannot_tear_apart_need_no_redo_record(rows, sent, needed):
    changed = {HERE: {LEVELS.name: rows}} if rows else {}
    assert bool(records(changed, [Call(HERE, None, [Sent(0, OUT)] * sent)])) is needed


def test_a_service_without_state_has_no_redo_table_and_none_may_name_a_table_so():
    stateless = Service("router", (), ())
    assert Topology((KEEPER, stateless), redo=("keeper", "router")).redo_tables.keys() == {"keeper"}
    assert REDO not in Topology((KEEPER,)).tables
    with pytest.raises(ValueError, match="'x-redo' is the runtime's"):
        Topology((Service("x", (), (), (Table("x-redo", LEVELS.model),)),))


class Log:
    """A broker's changelogs and outputs, and a checkpoint on them. `errors`: of the next commits."""

    def __init__(self, *, transactional=False):
        self.transactional = transactional
        self.changelogs = {}
        self.outputs = []
        self.offsets = []
        self.errors = []
        self.restores = 0

    async def commit(self, writes, membership):
        if self.errors:
            raise self.errors.pop(0)
        ends, progress = {}, writes.redo_progress or RedoProgress({})
        for write in (*progress.next(writes.redo), *writes.changelog):
            log = self.changelogs.setdefault(TopicPartition(write.topic, write.partition), [])
            log.append(write)
            ends[write.topic, write.partition] = len(log) - 1
        self.outputs += writes.outputs
        self.offsets.append(dict(writes.offsets))
        return ends


class Worker:
    """A worker with one partition of `KEEPER`, restored from a log."""

    def __init__(self, log, limits=None):
        self.log, self.topology = log, Topology((KEEPER,), redo=("keeper",))
        self.ownership, disk = Ownership(), MemoryStores()
        self.stores = {(table, 0): disk.open(table, 0) for table in self.topology.tables}
        for (table, _), store in self.stores.items():
            for offset, row in enumerate(log.changelogs.get((f"{table}-changelog", 0), ())):
                store.apply({row.key: row.value}, offset)
        partitions = Partitions(
            self.topology,
            1,
            self.ownership,
            disk,
            Timers(self.topology),
            SideEffects(self.topology, pytest.fail),
            Watches(),
        )
        self.losses = LossReporter()
        self.redo = RedoLog(
            partitions,
            log,
            limits=SizeLimits() if limits is None else limits,
            losses=self.losses,
            clock=lambda: datetime.now(UTC),
        )

    async def restore(self):
        self.log.restores += 1
        await self.redo.redo(self.stores, Membership(self.log.restores, "me"), {TP: 5})
        self.ownership.acquire(ME, {TP: 5}, {}, self.stores)
        return self

    async def crash(self, rows=ROWS, output=OUT):
        """Writes the redo record of a batch, and crashes."""
        batch = BatchOverlay(self.topology, 1, datetime.now(UTC), lambda *key: self.stores[key])
        batch.calls = [Call(HERE, None, [Sent(0, output)])]
        written = Writes()
        self.redo.add(written, batch, {(LEVELS.name, 0): rows})
        await self.log.commit(Writes(redo=written.redo), ME)
        return written

    async def clear(self, written):
        """Clears the redo records of a batch."""
        tombstones = [write._replace(value=None) for write in written.redo]
        await self.log.commit(Writes(redo=tombstones), ME)

    def rows(self, table=LEVELS.name):
        return dict(self.stores[table, 0].items())


async def test_a_restore_redoes_rows_and_outputs_and_clears_the_redo_record():
    log = Log()
    await (await Worker(log).restore()).crash()
    worker = await Worker(log).restore()

    assert worker.rows() == {b"mug": b"1"}
    assert log.outputs == [OUT]
    assert worker.rows(REDO).keys() == {OWNER}
    again = await Worker(log).restore()
    assert (again.rows(), log.outputs) == ({b"mug": b"1"}, [OUT]), "not redone twice"


async def test_a_crash_while_redoing_is_redone():
    log = Log()
    await (await Worker(log).restore()).crash()
    log.errors = [CommitInDoubt("crash")]
    with pytest.raises(CommitInDoubt):
        await Worker(log).restore()

    assert (await Worker(log).restore()).rows() == {b"mug": b"1"}


async def test_the_redo_record_of_a_zombie_is_not_redone():
    log = Log()
    zombie = await Worker(log).restore()
    owner = await Worker(log).restore()
    await zombie.crash({b"mug": b"old"})
    log.changelogs[LEVELS.changelog, 0] = [Write(LEVELS.changelog, 0, b"mug", b"new")]

    successor = await Worker(log).restore()
    assert successor.rows() == {b"mug": b"new"}
    assert log.outputs == []
    assert successor.rows(REDO).keys() == {OWNER}
    assert owner.rows(REDO)[OWNER] != successor.rows(REDO)[OWNER]


async def test_a_zombie_clears_nothing_of_its_successor():
    log = Log()
    zombie = await Worker(log).restore()
    written = await zombie.crash()
    owner = await Worker(log).restore()
    await owner.crash({b"mug": b"2"})
    await zombie.clear(written)

    assert (await Worker(log).restore()).rows() == {b"mug": b"2"}


async def test_a_row_of_another_worker_during_the_restore_is_found():
    log = Log()
    await (await Worker(log).restore()).crash()
    late = Worker(log)
    log.changelogs[LEVELS.changelog, 0] = [Write(LEVELS.changelog, 0, b"cup", b"3")]
    with pytest.raises(CommitInDoubt):
        await late.restore()


async def test_exactly_once_redoes_in_a_fenced_transaction_and_leaves_no_owner():
    log = Log()
    await (await Worker(log).restore()).crash()
    log.transactional, log.offsets = True, []
    worker = await Worker(log).restore()

    assert (worker.rows(), log.outputs, worker.rows(REDO)) == ({b"mug": b"1"}, [OUT], {})
    assert log.offsets == [{TP: 5}] * 2
    log.offsets = []
    await Worker(log).restore()
    assert log.offsets == [], "nothing is left to redo"
    assert not worker.redo.needed


async def test_redoing_commits_no_position_past_a_loss_that_is_not_dead_lettered():
    other = TopicPartition("other", 0)
    losses = LossReporter()
    losses.report(*TP, 0, 5, LossPath.INPUT, LossCause.REMOVED)
    assert losses.without_loss({TP: 5, other: 2}) == {other: 2}


async def test_an_output_that_its_topic_rejects_as_too_large_is_redone_as_its_dead_letter():
    log, limits = Log(), SizeLimits()
    await (await Worker(log).restore()).crash()
    limits.rejected(OUT.topic, [OUT.size])
    await Worker(log, limits).restore()

    [letter] = log.outputs
    assert (letter.topic, letter.partition, letter.key, letter.value) == ("out.dead-letters", 3, OUT.key, OUT.value)
    headers = dict(letter.headers)
    assert headers["service"] == b"keeper"
    assert b"MessageTooLarge" in headers["error"]


async def test_a_row_that_its_changelog_rejects_as_too_large_is_not_redone():
    log, limits = Log(), SizeLimits()
    await (await Worker(log).restore()).crash({b"mug": b"1" * 100, b"jug": b"2"})
    limits.rejected(LEVELS.changelog, [103])
    worker = await Worker(log, limits).restore()

    assert worker.rows() == {b"jug": b"2"}, "its input is processed again, and dead-lettered"
    assert log.outputs == [OUT]


@pytest.mark.parametrize(("cause", "ends"), [(MessageSizeTooLargeError(), True), (RequestTimedOutError(), False)])
async def test_redoing_that_is_rejected_for_good_ends_the_worker(cause, ends):
    log = Log()
    worker = Worker(log)
    raised = []
    for _ in range(RedoLog.MOST_REJECTED):
        error = CommitInDoubt("rejected")
        error.__cause__ = cause
        log.errors = [error]
        with pytest.raises((CommitInDoubt, RedoRejected)) as found:
            await worker.restore()
        raised.append(found.type)

    assert raised == [CommitInDoubt] * (RedoLog.MOST_REJECTED - 1) + [RedoRejected if ends else CommitInDoubt]


async def test_the_store_of_a_redo_table_is_marked_as_read_now_and_then_and_when_idle():
    worker = await Worker(Log()).restore()
    store, tp = worker.stores[REDO, 0], TopicPartition(f"{REDO}-changelog", 0)
    restored = store.offset
    worker.redo.mark_read({tp: restored + 10})
    assert store.offset == restored
    worker.redo.mark_cleared({})
    assert store.offset == restored + 10
    worker.redo.mark_read({tp: restored + 10 + RedoLog.MARK_EVERY})
    assert store.offset == restored + 10 + RedoLog.MARK_EVERY


async def test_redo_records_that_are_not_cleared_are_not_marked_as_read():
    worker = await Worker(Log()).restore()
    store, tp = worker.stores[REDO, 0], TopicPartition(f"{REDO}-changelog", 0)
    pieces = len((await worker.crash()).redo)
    worker.redo.mark_read({tp: 1000})
    assert store.offset == 1000 - pieces
    worker.redo.mark_cleared({tp: 1000 + pieces})
    assert store.offset == 1000 + pieces


async def test_each_restore_of_a_member_has_a_token_of_its_own():
    worker, tokens = Worker(Log()), set()
    for _ in range(3):
        await worker.redo.redo(worker.stores, ME, {TP: 5})
        tokens.add(worker.rows(REDO)[OWNER])
    assert len(tokens) == 3


async def test_redo_records_end_where_expected_until_another_worker_writes_there():
    log, tp = Log(), TopicPartition(f"{REDO}-changelog", 0)
    worker = await Worker(log).restore()
    for _ in range(2):
        written = await worker.crash()
        assert written.redo_progress.wrote(written.redo, {tp: len(log.changelogs[tp]) - 1})
    await Worker(log).restore()
    written = await worker.crash()
    assert not written.redo_progress.wrote(written.redo, {tp: len(log.changelogs[tp]) - 1})


async def test_batches_that_are_left_over_in_different_partitions_are_redone_in_their_order():
    log = Log()
    worker = await Worker(log).restore()
    for number in (2, 9, 10, 100):
        worker.redo._batches = number - 1
        batch, written = BatchOverlay(worker.topology, 1, datetime.now(UTC), lambda *key: worker.stores[key]), Writes()
        batch.calls = [Call(HERE, None, [Sent(0, OUT)])]
        worker.redo.add(written, batch, {(LEVELS.name, 0): ROWS})
        [piece] = written.redo
        log.outputs.append(left_over({OWNER: piece.key.split(b"-")[0], piece.key: piece.value}.items())[0])
    assert log.outputs == sorted(log.outputs)


def test_the_redo_records_of_a_batch_overwrite_or_clear_those_of_the_batch_before():
    here, there = TopicPartition("r", 0), TopicPartition("r", 1)
    first, second = Write(*here, b"0", b"1"), Write(*here, b"1", b"1")
    third, fourth = Write(*there, b"0", b"1"), Write(*here, b"0", b"2")
    progress = RedoProgress({here: 4})
    batch = [first, second, third]
    assert progress.next(batch) == batch
    assert progress.next(batch) == batch, "nothing is noted before it is written"
    assert progress.wrote(batch, {here: 6, there: 0})
    batch = [second._replace(value=None), third._replace(value=None), fourth]
    assert progress.next([fourth]) == batch, "tombstones first"
    assert progress.wrote(batch, {here: 8, there: 1})
    assert progress.next(()) == [fourth._replace(value=None)]
    assert not progress.wrote([fourth._replace(value=None)], {here: 10})
    assert progress.next(()) == []


async def test_what_a_cancelled_restore_has_sent_is_awaited_before_the_next_one_and_by_settle():
    log, gate = Log(), asyncio.Event()
    worker = Worker(log)
    commit = log.commit

    async def slowly(writes, membership):
        await gate.wait()
        return await commit(writes, membership)

    log.commit = slowly
    await worker.redo.settle()
    cancelled = asyncio.create_task(worker.restore())
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.wait({cancelled})
    settled, again = asyncio.create_task(worker.redo.settle()), asyncio.create_task(worker.restore())
    for _ in range(10):
        await asyncio.sleep(0)
    assert cancelled.cancelled()
    assert not settled.done()
    assert log.changelogs == {}
    gate.set()
    await settled
    assert len(log.changelogs[f"{REDO}-changelog", 0]) == 1
    with pytest.raises(CommitInDoubt, match="during its restore"):
        await again
