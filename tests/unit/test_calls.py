import asyncio

import pytest

from runtime.errors import BrokerUnavailable, KeyNotOwned
from runtime.model.commands import CommandQueue, PendingCommand
from runtime.model.service import Service

SERVICE = Service("keeper", (), ())


def call() -> PendingCommand[int]:
    return PendingCommand(SERVICE, 0, lambda _: 1)


async def test_calls_are_taken_in_the_order_they_came_and_no_more_than_asked():
    calls, sent = CommandQueue(), [call() for _ in range(3)]
    for one in sent:
        calls.put(one)

    assert calls.poll(2) == sent[:2]
    assert calls.poll(2) == sent[2:]
    assert len(calls) == 0


async def test_a_call_whose_caller_has_gone_is_not_decided():
    calls, gone = CommandQueue(), call()
    calls.put(gone)
    gone.answer.cancel()

    assert calls.poll(10) == []


async def test_arrival_is_told_until_all_are_taken():
    calls = CommandQueue()
    waiting = asyncio.ensure_future(calls.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    calls.put(call())
    await waiting
    await calls.wait()
    calls.poll(10)
    again = asyncio.ensure_future(calls.wait())
    await asyncio.sleep(0)
    assert not again.done()
    again.cancel()


async def test_too_many_are_refused_and_the_others_still_answered(monkeypatch):
    monkeypatch.setattr(CommandQueue, "MAX_WAITING", 2)
    calls = CommandQueue()
    calls.put(first := call())
    calls.put(call())
    with pytest.raises(BrokerUnavailable):
        calls.put(call())

    first.result = 7
    first.settle()
    assert await first.answer == 7


async def test_what_decide_raised_is_raised_to_the_caller():
    one = call()
    one.result = LookupError("no such order")
    one.settle()
    with pytest.raises(LookupError, match="no such order"):
        await one.answer


async def test_refusal_tells_the_caller_to_look_elsewhere_and_changes_no_answer():
    calls, waiting, answered = CommandQueue(), call(), call()
    calls.put(waiting)
    answered.result = 1
    answered.settle()
    answered.abandon()
    calls.abandon()

    assert await answered.answer == 1
    with pytest.raises(KeyNotOwned):
        await waiting.answer
