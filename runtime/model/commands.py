"""Commands: functions that HTTP handlers run in the loop, in the batch that makes their changes durable."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from runtime.errors import BrokerUnavailable, KeyNotOwned
from runtime.model.service import Context, Service

T = TypeVar("T")


class Command(Generic[T]):
    """A function that the loop runs like a processor, without a message.

    Arguments:
        service: the service whose tables and topics `decide` uses.
        partition: partition of the key.
        decide: pure, as processors are.
    """

    def __init__(self, service: Service, partition: int, decide: Callable[[Context], T]) -> None:
        self.service = service
        self.partition = partition
        self.decide = decide
        self.returned: T | Exception | None = None
        """The result of `decide`, or the error that it raised."""


class PendingCommand(Command[T]):
    """A command whose caller waits for the result."""

    def __init__(self, service: Service, partition: int, decide: Callable[[Context], T]) -> None:
        super().__init__(service, partition, decide)
        self.answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def settle(self) -> None:
        """Answers with the result or error of `decide`, once its changes are durable."""
        if self.answer.done():
            return  # the caller has gone
        if isinstance(self.returned, Exception):
            self.answer.set_exception(self.returned)
        else:
            self.answer.set_result(self.returned)  # type: ignore[arg-type]

    def refuse(self) -> None:
        """Answers that the outcome is unknown here. No effect once settled."""
        if not self.answer.done():
            self.answer.set_exception(KeyNotOwned("the partition moves"))


class CommandQueue:
    """Commands that wait for the loop, first in, first out.

    Bounded: when the broker is slow, clients get an error instead of a growing delay.
    """

    MOST = 10_000

    def __init__(self) -> None:
        self._waiting: deque[PendingCommand[Any]] = deque()
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, call: PendingCommand[Any]) -> None:
        """Adds a command. Raises `BrokerUnavailable` if `MOST` wait already."""
        if len(self._waiting) >= self.MOST:
            raise BrokerUnavailable(f"{len(self._waiting)} requests wait for the broker already")
        self._waiting.append(call)
        self._arrived.set()

    async def arrived(self) -> None:
        """Returns when a command waits."""
        await self._arrived.wait()

    def take(self, most: int) -> list[PendingCommand[Any]]:
        """Removes and returns up to `most` commands, without those whose caller has gone."""
        taken: list[PendingCommand[Any]] = []
        while self._waiting and len(taken) < most:
            call = self._waiting.popleft()
            if not call.answer.done():
                taken.append(call)
        if not self._waiting:
            self._arrived.clear()
        return taken

    def refuse(self) -> None:
        """Refuses all commands: partitions are revoked or restored."""
        for call in self.take(len(self._waiting)):
            call.refuse()
