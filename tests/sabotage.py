"""A worker process in which a component fails: `python -m tests.sabotage <what> <orders run …>`.

It fails at the first order, when the worker is ready, and prints a line: records written after that line are not part
of the failing batch. The failure is in the Kafka client or a processor, as in reality. The runtime that must notice it
is not patched.
"""

import asyncio
import sys
import time
from collections.abc import Callable
from typing import Any

from ecosystem.cli.main import main
from orders_service.processors import OrderAggregator
from runtime.kafka.group_consumer import KafkaGroupConsumer
from runtime.kafka.transactional_sender import TransactionalSender
from runtime.loop.checkpoint import ExactlyOnce


def starve() -> None:
    """One partition of the verdicts is never fetched again."""
    fetch = KafkaGroupConsumer.fetch

    async def without_one(self: Any, timeout_s: float) -> Any:
        consumer = self._consumer
        for tp in consumer.assignment():
            if tp.topic.endswith("order-validations") and not consumer.paused():
                consumer.pause(tp)
        return await fetch(self, timeout_s)

    KafkaGroupConsumer.fetch = without_one  # type: ignore[method-assign]


def deafen() -> None:
    """Records are fetched, but waiting consumers are never woken."""

    async def nothing(self: Any, timeout_s: float) -> Any:
        await asyncio.sleep(timeout_s)
        return {}

    KafkaGroupConsumer.fetch = nothing  # type: ignore[method-assign]


def hang() -> None:
    """A batch in progress never ends."""

    async def never(*_: Any) -> Any:
        await asyncio.Event().wait()

    ExactlyOnce.commit = never  # type: ignore[method-assign]


def block() -> None:
    """Blocks the event loop."""
    while True:
        time.sleep(0.1)


def never_leave() -> None:
    """The answer to a commit never arrives, and the commit cannot be cancelled."""

    async def stubborn(*_: Any, **__: Any) -> Any:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    TransactionalSender.transact = stubborn  # type: ignore[method-assign]


KINDS = {function.__name__: function for function in (starve, deafen, hang, block, never_leave)}


def _at_the_first_order(break_it: Callable[[], None]) -> None:
    on_order, done = OrderAggregator.on_order, []

    def first(self: Any, order: Any, ctx: Any) -> None:
        if not done:
            done.append(order)
            print("broken", flush=True)  # nothing runs between this line and the failure
            break_it()
        on_order(self, order, ctx)

    OrderAggregator.on_order = first  # type: ignore[method-assign]


if __name__ == "__main__":
    kind, *arguments = sys.argv[1:]
    _at_the_first_order(KINDS[kind])
    main(arguments)
