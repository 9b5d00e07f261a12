"""Effects: done after the commit, once a row, again until done, in whatever order they fail."""

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
    """The other side of an effect, a service that has it, and the loop as far as effects see it."""

    def __init__(self, monkeypatch, concurrency=16, timeout_s=3600.0) -> None:
        monkeypatch.setattr(acknowledgement, "FIRST_PAUSE_S", 0.001)
        monkeypatch.setattr(AttemptScheduler, "FIRST_PAUSE_S", 0.001)
        self.done: list[str] = []
        self.ended: list[str] = []
        self.fate: list[Exception] = []
        self.begun: list[str] = []
        self.dead: set[str] = set()
        self.gate = asyncio.Event()
        self.gate.set()
        self.answer = asyncio.Event()
        self.answer.set()
        effect = SideEffect("put", StockLevel, self._perform, self._on_done, self._on_rejected, concurrency=concurrency)
        self.service = Service("keeper", (), (), side_effects=(effect,))
        self.side_effects = SideEffects(Topology((self.service,)), self._decided, timeout_s=timeout_s, metrics=METRICS)
        self.store = MemoryStore()
        self.refusals = 0

    async def _perform(self, key, level):
        self.begun.append(key)
        if key in self.dead:
            raise SideEffectDeferred(f"{key} is dead", "PUT 450")
        await self.gate.wait()
        if self.fate:
            raise self.fate.pop(0)
        with attempt.irrevocable():
            self.done.append(f"{key}={level.count}")
            await self.answer.wait()

    def _on_done(self, level, ctx):
        self.ended.append(f"done {level.count}")

    def _on_rejected(self, level, reason, ctx):
        self.ended.append(f"refused {level.count}: {reason}")

    def _decided(self, service, partition, decide):
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
        self.ended.append(f"set aside {key}: {reason}")

    def delete(self, table, key):
        self.apply({key.encode(): None})

    def ask(self, key, count):
        self.apply({key.encode(): self.row(count)})

    def row(self, count, since=None):
        payload = StockLevel(product="mug", count=count).to_json()
        return PendingSideEffect(effect="put", payload=payload, since=since).to_json()

    def apply(self, rows):
        self.store.apply(rows, 0)
        self.side_effects.apply(self.service.pending.name, 0, rows)

    def load(self):
        self.side_effects.load(self.service.pending.name, 0, self.store)

    async def taken(self, count):
        """Returns when the other side has taken so many."""
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
    """Two at a time."""
    shelf = Shelf(monkeypatch, concurrency=2)
    yield shelf
    await shelf.side_effects.stop()


async def test_an_effect_is_done_and_what_follows_is_decided(shelf):
    shelf.ask("mug", 1)
    await shelf.idle()

    assert (shelf.done, shelf.ended, shelf.store.rows) == (["mug=1"], ["done 1"], {})


async def test_one_that_fails_is_tried_again(shelf):
    shelf.fate = [OSError("the other side is away"), TimeoutError()]
    shelf.ask("mug", 1)
    await shelf.idle()

    assert shelf.done == ["mug=1"]


def test_many_that_fail_are_tried_again_on_the_event_loop_of_a_worker(monkeypatch):
    async def fail_and_succeed():
        shelf = Shelf(monkeypatch)
        shelf.fate = [OSError("the other side is away") for _ in range(400)]
        for number in range(100):
            shelf.ask(f"{number}", number)
            await asyncio.sleep(0)
        await shelf.idle()
        await shelf.side_effects.stop()
        return len(shelf.done)

    assert uvloop.run(fail_and_succeed()) == 100  # it has no `TimerHandle` for what is due within a millisecond


async def test_one_that_is_refused_for_good_does_not_hold_up_others(shelf):
    shelf.fate = [SideEffectRejected("no such address")]
    shelf.ask("mug", 1)
    shelf.ask("cup", 2)
    await shelf.idle()

    assert shelf.done == ["cup=2"]
    assert sorted(shelf.ended) == ["done 2", "refused 1: no such address", "set aside mug: no such address"]


async def test_one_that_is_replaced_while_it_is_done_is_done_again(shelf):
    shelf.gate.clear()
    shelf.ask("mug", 1)
    await asyncio.sleep(0)
    shelf.ask("mug", 2)
    shelf.gate.set()
    await shelf.idle()

    assert shelf.done == ["mug=1", "mug=2"]
    assert shelf.store.rows == {}


async def test_that_it_was_done_is_noted_again_without_doing_it_again(shelf):
    shelf.refusals = 2
    shelf.ask("mug", 1)
    await shelf.idle()

    assert shelf.done == ["mug=1"]
    assert shelf.ended == ["done 1"]


async def test_effects_of_a_partition_that_is_behind_wait(shelf):
    shelf.ask("mug", 1)
    shelf.side_effects.unload()
    shelf.side_effects.hold({0})
    shelf.load()
    shelf.ask("cup", 2)
    await asyncio.sleep(0.01)
    assert shelf.done == []
    shelf.side_effects.release({0})
    await shelf.idle()

    assert sorted(shelf.done) == ["cup=2", "mug=1"]


async def test_whoever_takes_over_does_what_was_not_done(shelf):
    shelf.gate.clear()
    shelf.ask("mug", 1)
    await asyncio.sleep(0)
    shelf.side_effects.unload()
    shelf.gate.set()
    await asyncio.sleep(0.01)
    assert shelf.done == []

    shelf.load()
    await shelf.idle()
    assert shelf.done == ["mug=1"]


async def test_what_is_irrevocable_is_waited_for_and_noted_and_nothing_else_is_begun(narrow):
    shelf = narrow
    shelf.answer.clear()
    shelf.ask("mug", 1)
    await shelf.taken(1)
    shelf.gate.clear()
    shelf.ask("cup", 2)
    shelf.ask("jug", 3)
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


async def test_what_takes_too_long_is_not_waited_for(shelf):
    shelf.answer.clear()
    shelf.ask("mug", 1)
    await shelf.taken(1)
    await shelf.side_effects.drain(0.01)

    assert shelf.ended == []


@pytest.mark.parametrize("answered", ["before the partition is back", "after"])
async def test_what_was_done_is_only_noted_when_its_partition_stays_here(shelf, answered):
    shelf.answer.clear()
    shelf.ask("mug", 1)
    await shelf.taken(1)
    shelf.side_effects.unload()
    if answered != "after":
        shelf.answer.set()
        await asyncio.sleep(0.01)
    shelf.side_effects.retain({0})
    shelf.load()
    shelf.answer.set()
    await shelf.idle()

    assert (shelf.done, shelf.ended, shelf.store.rows) == (["mug=1"], ["done 1"], {})


async def test_what_was_done_and_could_not_be_noted_is_noted_when_the_partition_is_taken_over_again(shelf):
    shelf.refusals = 10**6
    shelf.ask("mug", 1)
    await shelf.taken(1)
    shelf.side_effects.unload()
    shelf.side_effects.hold({0})
    shelf.load()
    shelf.refusals = 0
    shelf.side_effects.release({0})
    await shelf.idle()

    assert (shelf.done, shelf.ended) == (["mug=1"], ["done 1"])


async def test_what_somebody_else_may_have_had_meanwhile_is_done_again(shelf):
    shelf.refusals = 10**6
    shelf.ask("mug", 1)
    await shelf.taken(1)
    shelf.side_effects.unload()
    shelf.side_effects.retain({1})
    shelf.refusals = 0
    shelf.load()
    await shelf.idle()

    assert (shelf.done, shelf.ended) == (["mug=1", "mug=1"], ["done 1"])


async def test_what_is_irrevocable_is_stopped_once_its_partition_is_somebody_elses(shelf):
    shelf.answer.clear()
    shelf.ask("mug", 1)
    await shelf.taken(1)
    [doing] = shelf.side_effects._running.values()
    shelf.side_effects.unload()
    await asyncio.sleep(0.01)
    assert not doing.task.done()
    shelf.side_effects.retain(())
    await asyncio.wait([doing.task])

    assert doing.task.cancelled()


async def test_another_wish_under_the_key_is_done_though_the_one_before_was_not_noted(shelf):
    shelf.refusals = 10**6
    shelf.ask("mug", 1)
    await shelf.taken(1)
    shelf.side_effects.unload()
    shelf.refusals = 0
    shelf.store.apply({b"mug": shelf.row(2)}, 0)
    shelf.load()
    await shelf.idle()

    assert (shelf.done, shelf.ended) == (["mug=1", "mug=2"], ["done 2"])


async def test_a_note_that_took_effect_unheard_is_forgotten(shelf):
    shelf.refusals = 10**6
    shelf.ask("mug", 1)
    await shelf.taken(1)
    shelf.side_effects.unload()
    shelf.store.apply({b"mug": None}, 0)
    shelf.load()
    shelf.refusals = 0
    shelf.ask("mug", 1)
    await shelf.idle()

    assert shelf.done == ["mug=1", "mug=1"], "it was asked for twice"


async def test_what_no_service_here_can_do_is_left_alone_and_holds_nobody_up(shelf):
    shelf.apply({b"mug": PendingSideEffect(effect="of another version", payload=b"").to_json()})
    shelf.ask("cup", 2)
    await shelf.taken(1)

    assert shelf.done == ["cup=2"]
    assert b"mug" in shelf.store.rows


async def test_no_more_than_so_many_at_once(narrow):
    shelf = narrow
    shelf.gate.clear()
    for n in range(5):
        shelf.ask(f"mug{n}", n)
    assert len(shelf.side_effects._running) == 2
    shelf.gate.set()
    await shelf.idle()

    assert len(shelf.done) == 5


async def test_a_side_that_does_not_answer_holds_up_its_own_service_only(shelf):
    done = []

    async def perform(key, level):
        done.append(key)

    other = Service("other", (), (), side_effects=(SideEffect("take", StockLevel, perform),))
    shelf.side_effects = SideEffects(Topology((shelf.service, other)), shelf._decided)
    shelf.gate.clear()
    for n in range(32):
        shelf.ask(f"mug{n}", n)
    payload = StockLevel(product="mug", count=1).to_json()
    shelf.side_effects.apply(
        other.pending.name, 0, {b"cup": PendingSideEffect(effect="take", payload=payload).to_json()}
    )
    async with asyncio.timeout(60):
        while not done:
            await asyncio.sleep(0.001)

    assert (set(done), shelf.done) == ({"cup"}, [])
    assert len(shelf.side_effects._running) <= 17


async def test_any_number_that_fail_hold_up_nobody_else_and_are_seen(shelf, caplog):
    shelf.dead = {f"dead{n}@example.org" for n in range(500)}
    with caplog.at_level(logging.WARNING, "runtime"):
        for n, key in enumerate(sorted(shelf.dead)):
            shelf.ask(key, n)
        for n in range(50):
            shelf.ask(f"mug{n}", n)
        await shelf.taken(50)
        async with asyncio.timeout(60):
            effects = shelf.side_effects
            while len(effects) > 500 or effects._acknowledging or not shelf.dead <= set(shelf.begun):
                await asyncio.sleep(0.001)
            while (seen := status_by_service(effects)["keeper"])["waiting"] + seen["running"] != 500:
                await asyncio.sleep(0.001)  # of some it is being noted that they are done

    assert seen["last_error"] == "PUT 450"
    assert len(caplog.records) <= 5
    assert "@" not in caplog.text


@pytest.mark.parametrize("age_s", [None, 0, 10**6])
async def test_what_fails_until_its_time_is_over_is_set_aside_with_its_last_error(monkeypatch, age_s):
    shelf = Shelf(monkeypatch, timeout_s=0.2)
    shelf.dead = {"mug"}
    since = None if age_s is None else datetime.now(UTC) - timedelta(seconds=age_s)
    shelf.apply({b"mug": shelf.row(1, since)})
    shelf.ask("cup", 2)
    await shelf.idle()

    assert shelf.ended[-2:] == [
        "set aside mug: not done within 0.2 s: mug is dead",
        "refused 1: not done within 0.2 s: mug is dead",
    ]
    assert shelf.begun.count("mug") > 1, "it is tried before, however old it is"
    await shelf.side_effects.stop()


async def test_what_waits_for_others_of_its_destination_is_set_aside_untried_when_its_time_is_over(monkeypatch):
    shelf = Shelf(monkeypatch, timeout_s=1)
    monkeypatch.setattr(AttemptScheduler, "FIRST_PAUSE_S", 100.0)
    effect = SideEffect("put", StockLevel, shelf._perform, destination=lambda level: level.product)
    shelf.service = Service("keeper", (), (), side_effects=(effect,))
    shelf.side_effects = SideEffects(Topology((shelf.service,)), shelf._decided, timeout_s=1, metrics=METRICS)
    shelf.dead = {f"mug{n}" for n in range(50)}
    for n in range(50):
        shelf.ask(f"mug{n}", n)
    await shelf.idle()

    assert len(shelf.begun) <= 16 + AttemptScheduler.MAX_FAILURES
    assert {told.partition(": ")[2] for told in shelf.ended} >= {"not done within 1 s: PUT 450"}
    assert len(shelf.ended) == 50
    await shelf.side_effects.stop()


async def test_one_that_is_replaced_after_it_failed_is_tried_at_once(shelf, monkeypatch):
    monkeypatch.setattr(AttemptScheduler, "FIRST_PAUSE_S", 1000.0)
    shelf.fate = [OSError()]
    shelf.ask("mug", 1)
    async with asyncio.timeout(60):
        while not shelf.begun:
            await asyncio.sleep(0.001)
    shelf.ask("mug", 2)
    await shelf.idle()

    assert shelf.done == ["mug=2"]


async def test_what_cannot_be_read_is_set_aside_when_its_time_is_over(monkeypatch):
    shelf = Shelf(monkeypatch, timeout_s=0.05)
    shelf.apply({b"mug": PendingSideEffect(effect="put", payload=b"{}").to_json()})
    await shelf.idle()

    assert [told.partition(":")[0] for told in shelf.ended] == ["set aside mug"]
    await shelf.side_effects.stop()


async def test_a_takeover_does_not_begin_all_failures_anew(shelf, monkeypatch):
    monkeypatch.setattr(AttemptScheduler, "FIRST_PAUSE_S", 1000.0)
    shelf.dead = {"mug"}
    shelf.ask("mug", 1)
    async with asyncio.timeout(60):
        while shelf.side_effects._running or not shelf.begun:
            await asyncio.sleep(0.001)
    for stays in (True, False):
        shelf.side_effects.unload()
        shelf.side_effects.retain({0} if stays else ())
        shelf.load()
        await asyncio.sleep(0.01)
        assert len(shelf.begun) == (1 if stays else 2)
