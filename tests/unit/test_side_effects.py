"""Side effects are performed after the commit, one per row at a time, until they are acknowledged."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

import pytest
import uvloop
from prometheus_client import CollectorRegistry

from runtime.errors import KeyNotOwned, SideEffectDeferred, SideEffectRejected
from runtime.metrics.side_effects import SideEffectMetrics, status_by_service
from runtime.model.commands import PendingCommand
from runtime.model.service import PendingSideEffect, Service, SideEffect
from runtime.model.topology import Topology
from runtime.side_effects import acknowledgement, attempt
from runtime.side_effects.dispatcher import SideEffects
from runtime.side_effects.scheduler import AttemptScheduler
from runtime.state.stores import MemoryStore
from schemas.messages import StockLevel

METRICS = SideEffectMetrics(CollectorRegistry())


class Shelf:
    """The other side of a side effect, its service, and a stand-in for the loop."""

    def __init__(self, monkeypatch, concurrency=16, timeout_s=3600.0) -> None:
        monkeypatch.setattr(acknowledgement, "FIRST_PAUSE_S", 0.001)
        monkeypatch.setattr(AttemptScheduler, "FIRST_PAUSE_S", 0.001)
        self.done: list[str] = []
        self.ended: list[str] = []
        self.errors: list[Exception] = []
        self.begun: list[str] = []
        self.dead: set[str] = set()
        self.gate = asyncio.Event()
        self.gate.set()
        self.answer = asyncio.Event()
        self.answer.set()
        effect = SideEffect("put", StockLevel, self._perform, self._on_done, self._on_rejected, concurrency=concurrency)
        self.service = Service("keeper", (), (), side_effects=(effect,))
        self.side_effects = SideEffects(Topology((self.service,)), self._submit, timeout_s=timeout_s, metrics=METRICS)
        self.store = MemoryStore()
        self.refusals = 0

    async def _perform(self, key, level):
        self.begun.append(key)
        if key in self.dead:
            raise SideEffectDeferred(f"{key} is dead", "PUT 450")
        await self.gate.wait()
        if self.errors:
            raise self.errors.pop(0)
        with attempt.irrevocable():
            self.done.append(f"{key}={level.count}")
            await self.answer.wait()

    def _on_done(self, level, ctx):
        self.ended.append(f"done {level.count}")

    def _on_rejected(self, level, reason, ctx):
        self.ended.append(f"rejected {level.count}: {reason}")

    def _submit(self, service, partition, decide):
        if self.refusals:
            self.refusals -= 1
            raise KeyNotOwned
        call = PendingCommand(service, partition, decide)
        call.result = decide(self)
        call.settle()
        return call

    def get(self, table, key):
        raw = self.store.get(key.encode())
        return None if raw is None else table.model.from_json(raw)

    def dead_letter(self, key, pending, reason):
        self.ended.append(f"dead letter {key}: {reason}")

    def delete(self, table, key):
        self.apply({key.encode(): None})

    def enqueue(self, key, count):
        self.apply({key.encode(): self.row(count)})

    def row(self, count, since=None):
        payload = StockLevel(product="mug", count=count).to_json()
        return PendingSideEffect(effect="put", payload=payload, since=since).to_json()

    def apply(self, rows):
        self.store.apply(rows, 0)
        self.side_effects.apply(self.service.pending.name, 0, rows)

    def load(self):
        self.side_effects.load(self.service.pending.name, 0, self.store)

    async def accepted(self, count):
        """Returns when the other side has accepted `count` of them."""
        async with asyncio.timeout(60):
            while len(self.done) < count:
                await asyncio.sleep(0.001)

    async def idle(self):
        async with asyncio.timeout(60):
            while self.side_effects._running or self.side_effects._acknowledging or len(self.side_effects):
                await asyncio.sleep(0.001)


@pytest.fixture
async def shelf(monkeypatch):
    shelf = Shelf(monkeypatch)
    yield shelf
    await shelf.side_effects.stop()


@pytest.fixture
async def narrow(monkeypatch):
    """With two slots."""
    shelf = Shelf(monkeypatch, concurrency=2)
    yield shelf
    await shelf.side_effects.stop()


async def test_a_side_effect_is_performed_and_acknowledged(shelf):
    shelf.enqueue("mug", 1)
    await shelf.idle()

    assert (shelf.done, shelf.ended, shelf.store.rows) == (["mug=1"], ["done 1"], {})


async def test_a_failed_side_effect_is_retried(shelf):
    shelf.errors = [OSError("the other side is unavailable"), TimeoutError()]
    shelf.enqueue("mug", 1)
    await shelf.idle()

    assert shelf.done == ["mug=1"]


def test_many_failures_are_retried_on_the_event_loop_of_a_worker(monkeypatch):
    async def fail_and_succeed():
        shelf = Shelf(monkeypatch)
        shelf.errors = [OSError("the other side is unavailable") for _ in range(400)]
        for number in range(100):
            shelf.enqueue(f"{number}", number)
            await asyncio.sleep(0)
        await shelf.idle()
        await shelf.side_effects.stop()
        return len(shelf.done)

    assert uvloop.run(fail_and_succeed()) == 100  # it has no `TimerHandle` for what is due within a millisecond


async def test_a_rejected_side_effect_is_dead_lettered_and_does_not_block_others(shelf):
    shelf.errors = [SideEffectRejected("no such address")]
    shelf.enqueue("mug", 1)
    shelf.enqueue("cup", 2)
    await shelf.idle()

    assert shelf.done == ["cup=2"]
    assert sorted(shelf.ended) == ["dead letter mug: no such address", "done 2", "rejected 1: no such address"]


async def test_a_side_effect_replaced_while_it_runs_is_performed_again(shelf):
    shelf.gate.clear()
    shelf.enqueue("mug", 1)
    await asyncio.sleep(0)
    shelf.enqueue("mug", 2)
    shelf.gate.set()
    await shelf.idle()

    assert shelf.done == ["mug=1", "mug=2"]
    assert shelf.store.rows == {}


async def test_a_failed_acknowledgement_is_retried_without_repeating_the_side_effect(shelf):
    shelf.refusals = 2
    shelf.enqueue("mug", 1)
    await shelf.idle()

    assert shelf.done == ["mug=1"]
    assert shelf.ended == ["done 1"]


async def test_side_effects_on_hold_wait_for_the_backlog(shelf):
    shelf.enqueue("mug", 1)
    shelf.side_effects.unload()
    shelf.side_effects.hold({0})
    shelf.load()
    shelf.enqueue("cup", 2)
    await asyncio.sleep(0.01)
    assert shelf.done == []
    shelf.side_effects.release({0})
    await shelf.idle()

    assert sorted(shelf.done) == ["cup=2", "mug=1"]


async def test_the_next_owner_performs_pending_side_effects(shelf):
    shelf.gate.clear()
    shelf.enqueue("mug", 1)
    await asyncio.sleep(0)
    shelf.side_effects.unload()
    shelf.gate.set()
    await asyncio.sleep(0.01)
    assert shelf.done == []

    shelf.load()
    await shelf.idle()
    assert shelf.done == ["mug=1"]


async def test_drain_waits_for_irrevocable_attempts_and_starts_nothing_else(narrow):
    shelf = narrow
    shelf.answer.clear()
    shelf.enqueue("mug", 1)
    await shelf.accepted(1)
    shelf.gate.clear()
    shelf.enqueue("cup", 2)
    shelf.enqueue("jug", 3)
    finishing = asyncio.create_task(shelf.side_effects.drain(10))
    async with asyncio.timeout(60):
        while "cup" in {row.key for row in shelf.side_effects._running}:
            await asyncio.sleep(0.001)
    assert not finishing.done()
    shelf.answer.set()
    await finishing

    assert (shelf.done, shelf.ended) == (["mug=1"], ["done 1"])
    assert sorted(shelf.store.rows) == [b"cup", b"jug"]
    assert "jug" not in shelf.begun


async def test_drain_gives_up_at_its_timeout(shelf):
    shelf.answer.clear()
    shelf.enqueue("mug", 1)
    await shelf.accepted(1)
    await shelf.side_effects.drain(0.01)

    assert shelf.ended == []


@pytest.mark.parametrize("answered", ["before the partition is back", "after"])
async def test_a_side_effect_that_ended_during_a_rebalance_is_acknowledged_if_its_partition_stays(shelf, answered):
    shelf.answer.clear()
    shelf.enqueue("mug", 1)
    await shelf.accepted(1)
    shelf.side_effects.unload()
    if answered != "after":
        shelf.answer.set()
        await asyncio.sleep(0.01)
    shelf.side_effects.retain({0})
    shelf.load()
    shelf.answer.set()
    await shelf.idle()

    assert (shelf.done, shelf.ended, shelf.store.rows) == (["mug=1"], ["done 1"], {})


async def test_an_outstanding_acknowledgement_is_made_when_the_partition_is_released_again(shelf):
    shelf.refusals = 10**6
    shelf.enqueue("mug", 1)
    await shelf.accepted(1)
    shelf.side_effects.unload()
    shelf.side_effects.hold({0})
    shelf.load()
    shelf.refusals = 0
    shelf.side_effects.release({0})
    await shelf.idle()

    assert (shelf.done, shelf.ended) == (["mug=1"], ["done 1"])


async def test_a_side_effect_is_repeated_if_another_worker_owned_it_meanwhile(shelf):
    shelf.refusals = 10**6
    shelf.enqueue("mug", 1)
    await shelf.accepted(1)
    shelf.side_effects.unload()
    shelf.side_effects.retain({1})
    shelf.refusals = 0
    shelf.load()
    await shelf.idle()

    assert (shelf.done, shelf.ended) == (["mug=1", "mug=1"], ["done 1"])


async def test_an_irrevocable_attempt_is_cancelled_once_its_partition_has_another_owner(shelf):
    shelf.answer.clear()
    shelf.enqueue("mug", 1)
    await shelf.accepted(1)
    [running] = shelf.side_effects._running.values()
    shelf.side_effects.unload()
    await asyncio.sleep(0.01)
    assert not running.task.done()
    shelf.side_effects.retain(())
    await asyncio.wait([running.task])

    assert running.task.cancelled()


async def test_a_new_side_effect_of_a_key_is_performed_although_the_last_is_unacknowledged(shelf):
    shelf.refusals = 10**6
    shelf.enqueue("mug", 1)
    await shelf.accepted(1)
    shelf.side_effects.unload()
    shelf.refusals = 0
    shelf.store.apply({b"mug": shelf.row(2)}, 0)
    shelf.load()
    await shelf.idle()

    assert (shelf.done, shelf.ended) == (["mug=1", "mug=2"], ["done 2"])


async def test_an_acknowledgement_whose_reply_was_lost_does_not_suppress_the_next_side_effect(shelf):
    shelf.refusals = 10**6
    shelf.enqueue("mug", 1)
    await shelf.accepted(1)
    shelf.side_effects.unload()
    shelf.store.apply({b"mug": None}, 0)
    shelf.load()
    shelf.refusals = 0
    shelf.enqueue("mug", 1)
    await shelf.idle()

    assert shelf.done == ["mug=1", "mug=1"], "it was enqueued twice"


async def test_an_unknown_side_effect_is_ignored_and_blocks_nothing(shelf):
    shelf.apply({b"mug": PendingSideEffect(effect="of another version", payload=b"").to_json()})
    shelf.enqueue("cup", 2)
    await shelf.accepted(1)

    assert shelf.done == ["cup=2"]
    assert b"mug" in shelf.store.rows


async def test_concurrency_bounds_running_attempts(narrow):
    shelf = narrow
    shelf.gate.clear()
    for n in range(5):
        shelf.enqueue(f"mug{n}", n)
    assert len(shelf.side_effects._running) == 2
    shelf.gate.set()
    await shelf.idle()

    assert len(shelf.done) == 5


async def test_a_destination_without_reply_blocks_its_own_service_only(shelf):
    done = []

    async def perform(key, level):
        done.append(key)

    other = Service("other", (), (), side_effects=(SideEffect("take", StockLevel, perform),))
    shelf.side_effects = SideEffects(Topology((shelf.service, other)), shelf._submit)
    shelf.gate.clear()
    for n in range(32):
        shelf.enqueue(f"mug{n}", n)
    payload = StockLevel(product="mug", count=1).to_json()
    shelf.side_effects.apply(
        other.pending.name, 0, {b"cup": PendingSideEffect(effect="take", payload=payload).to_json()}
    )
    async with asyncio.timeout(60):
        while not done:
            await asyncio.sleep(0.001)

    assert (set(done), shelf.done) == ({"cup"}, [])
    assert len(shelf.side_effects._running) <= 17


async def test_hundreds_of_failures_block_nothing_and_are_reported(shelf, caplog):
    shelf.dead = {f"dead{n}@example.org" for n in range(500)}
    with caplog.at_level(logging.WARNING, "runtime"):
        for n, key in enumerate(sorted(shelf.dead)):
            shelf.enqueue(key, n)
        for n in range(50):
            shelf.enqueue(f"mug{n}", n)
        await shelf.accepted(50)
        async with asyncio.timeout(60):
            effects = shelf.side_effects
            while len(effects) > 500 or effects._acknowledging or not shelf.dead <= set(shelf.begun):
                await asyncio.sleep(0.001)
            while (seen := status_by_service(effects)["keeper"])["waiting"] + seen["running"] != 500:
                await asyncio.sleep(0.001)  # some are being acknowledged

    assert seen["last_error"] == "PUT 450"
    assert len(caplog.records) <= 5
    assert "@" not in caplog.text


@pytest.mark.parametrize("age_s", [None, 0, 10**6])
async def test_a_side_effect_that_fails_until_its_timeout_is_dead_lettered_with_its_last_error(monkeypatch, age_s):
    shelf = Shelf(monkeypatch, timeout_s=0.2)
    shelf.dead = {"mug"}
    since = None if age_s is None else datetime.now(UTC) - timedelta(seconds=age_s)
    shelf.apply({b"mug": shelf.row(1, since)})
    shelf.enqueue("cup", 2)
    await shelf.idle()

    assert shelf.ended[-2:] == [
        "dead letter mug: not done within 0.2 s: mug is dead",
        "rejected 1: not done within 0.2 s: mug is dead",
    ]
    assert shelf.begun.count("mug") > 1, "it is attempted first, however old it is"
    await shelf.side_effects.stop()


async def test_a_side_effect_behind_an_open_circuit_times_out_without_an_attempt(monkeypatch):
    shelf = Shelf(monkeypatch, timeout_s=1)
    monkeypatch.setattr(AttemptScheduler, "FIRST_PAUSE_S", 100.0)
    effect = SideEffect("put", StockLevel, shelf._perform, destination=lambda level: level.product)
    shelf.service = Service("keeper", (), (), side_effects=(effect,))
    shelf.side_effects = SideEffects(Topology((shelf.service,)), shelf._submit, timeout_s=1, metrics=METRICS)
    shelf.dead = {f"mug{n}" for n in range(50)}
    for n in range(50):
        shelf.enqueue(f"mug{n}", n)
    await shelf.idle()

    assert len(shelf.begun) <= 16 + AttemptScheduler.MAX_FAILURES
    assert {line.partition(": ")[2] for line in shelf.ended} >= {"not done within 1 s: PUT 450"}
    assert len(shelf.ended) == 50
    await shelf.side_effects.stop()


async def test_a_replaced_side_effect_is_attempted_without_a_pause(shelf, monkeypatch):
    monkeypatch.setattr(AttemptScheduler, "FIRST_PAUSE_S", 1000.0)
    shelf.errors = [OSError()]
    shelf.enqueue("mug", 1)
    async with asyncio.timeout(60):
        while not shelf.begun:
            await asyncio.sleep(0.001)
    shelf.enqueue("mug", 2)
    await shelf.idle()

    assert shelf.done == ["mug=2"]


async def test_an_unreadable_payload_is_dead_lettered_at_its_timeout(monkeypatch):
    shelf = Shelf(monkeypatch, timeout_s=0.05)
    shelf.apply({b"mug": PendingSideEffect(effect="put", payload=b"{}").to_json()})
    await shelf.idle()

    assert [line.partition(":")[0] for line in shelf.ended] == ["dead letter mug"]
    await shelf.side_effects.stop()


async def test_a_rebalance_keeps_the_failures_of_partitions_that_stay(shelf, monkeypatch):
    monkeypatch.setattr(AttemptScheduler, "FIRST_PAUSE_S", 1000.0)
    shelf.dead = {"mug"}
    shelf.enqueue("mug", 1)
    async with asyncio.timeout(60):
        while shelf.side_effects._running or not shelf.begun:
            await asyncio.sleep(0.001)
    for stays in (True, False):
        shelf.side_effects.unload()
        shelf.side_effects.retain({0} if stays else ())
        shelf.load()
        await asyncio.sleep(0.01)
        assert len(shelf.begun) == (1 if stays else 2)
