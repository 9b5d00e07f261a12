"""Commands wait in a bounded queue, and their callers get a result or an error."""

import asyncio

import pytest

from runtime.errors import BrokerUnavailable, KeyNotOwned
from runtime.model.commands import CommandQueue, PendingCommand
from runtime.model.service import Service

SERVICE = Service("keeper", (), ())


def command() -> PendingCommand[int]:
    return PendingCommand(SERVICE, 0, lambda _: 1)


async def test_commands_are_polled_in_order_up_to_the_limit():
    queue, sent = CommandQueue(), [command() for _ in range(3)]
    for one in sent:
        queue.put(one)

    assert queue.poll(2) == sent[:2]
    assert queue.poll(2) == sent[2:]
    assert len(queue) == 0


async def test_a_command_whose_caller_was_cancelled_is_not_polled():
    queue, cancelled = CommandQueue(), command()
    queue.put(cancelled)
    cancelled.answer.cancel()

    assert queue.poll(10) == []


async def test_wait_returns_while_the_queue_is_not_empty():
    queue = CommandQueue()
    waiting = asyncio.ensure_future(queue.wait())
    await asyncio.sleep(0)
    assert not waiting.done()
    queue.put(command())
    await waiting
    await queue.wait()
    queue.poll(10)
    again = asyncio.ensure_future(queue.wait())
    await asyncio.sleep(0)
    assert not again.done()
    again.cancel()


async def test_a_full_queue_rejects_commands_and_the_others_are_answered(monkeypatch):
    monkeypatch.setattr(CommandQueue, "MAX_WAITING", 2)
    queue = CommandQueue()
    queue.put(first := command())
    queue.put(command())
    with pytest.raises(BrokerUnavailable):
        queue.put(command())

    first.result = 7
    first.settle()
    assert await first.answer == 7


async def test_the_caller_gets_the_error_that_process_raised():
    one = command()
    one.result = LookupError("no such order")
    one.settle()
    with pytest.raises(LookupError, match="no such order"):
        await one.answer


async def test_abandoned_commands_raise_key_not_owned_and_settled_ones_keep_their_answer():
    queue, waiting, answered = CommandQueue(), command(), command()
    queue.put(waiting)
    answered.result = 1
    answered.settle()
    answered.abandon()
    queue.abandon()

    assert await answered.answer == 1
    with pytest.raises(KeyNotOwned):
        await waiting.answer
