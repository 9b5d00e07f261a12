"""Commands: functions that HTTP handlers run in the loop, in the batch that makes their changes durable."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from runtime.errors import BrokerUnavailable, KeyNotOwned
from runtime.model.service import Context, Service
from runtime.model.traces import TraceContext

T = TypeVar("T")


class Command(Generic[T]):
    """A function that the loop runs like a processor, without a message.

    Arguments:
        service: the service whose tables and topics `process` uses.
        partition: partition of the key.
        process: pure, as processors are.
    """

    def __init__(self, service: Service, partition: int, process: Callable[[Context], T]) -> None:
        self.service = service
        self.partition = partition
        self.process = process
        self.result: T | Exception | None = None
        """What `process` returned, or the error that it raised."""
        self.trace: TraceContext | None = None
        """The span that submitted it; `None` without tracing."""


class PendingCommand(Command[T]):
    """A command whose caller waits for the result."""

    def __init__(self, service: Service, partition: int, process: Callable[[Context], T]) -> None:
        super().__init__(service, partition, process)
        self.answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def settle(self) -> None:
        """Answers with the result or error of `process`, once its changes are durable."""
        if self.answer.done():
            return  # the caller was cancelled
        if isinstance(self.result, Exception):
            self.answer.set_exception(self.result)
        else:
            self.answer.set_result(self.result)  # type: ignore[arg-type]

    def abandon(self) -> None:
        """Answers with `KeyNotOwned`: the outcome is unknown in this worker. No effect once settled."""
        if not self.answer.done():
            self.answer.set_exception(KeyNotOwned("the partition is moving to another worker: retry"))


class CommandQueue:
    """Commands that wait for the loop, first in, first out.

    Bounded: when the broker is slow, clients get an error instead of a growing delay.
    """

    MAX_WAITING = 10_000
    """Commands: as many requests as a worker accepts at a time by default (`MAX_REQUESTS`)."""

    def __init__(self) -> None:
        self._waiting: deque[PendingCommand[Any]] = deque()
        self._not_empty = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, command: PendingCommand[Any]) -> None:
        """Adds a command. Raises `BrokerUnavailable` if `MAX_WAITING` wait already."""
        if len(self._waiting) >= self.MAX_WAITING:
            raise BrokerUnavailable(f"{len(self._waiting)} requests wait for the broker already: retry later")
        self._waiting.append(command)
        self._not_empty.set()

    async def wait(self) -> None:
        """Returns as soon as the queue is not empty."""
        await self._not_empty.wait()

    def poll(self, limit: int) -> list[PendingCommand[Any]]:
        """Removes and returns up to `limit` commands, without those whose caller was cancelled."""
        polled: list[PendingCommand[Any]] = []
        while self._waiting and len(polled) < limit:
            command = self._waiting.popleft()
            if not command.answer.done():
                polled.append(command)
        if not self._waiting:
            self._not_empty.clear()
        return polled

    def abandon(self) -> None:
        """Abandons all commands: partitions are revoked or restored."""
        for command in self.poll(len(self._waiting)):
            command.abandon()
