"""Calls: what an HTTP handler wants decided, by the loop, in the batch that makes it durable."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from runtime.errors import BrokerUnavailable, KeyNotOwned
from runtime.model.service import Context, Service

T = TypeVar("T")


class Command(Generic[T]):
    """Something to be decided by the loop that is no message.

    Arguments:
        service: whose tables and topics `decide` uses.
        partition: of the key it is about.
        decide: pure, as processors are.
    """

    def __init__(self, service: Service, partition: int, decide: Callable[[Context], T]) -> None:
        self.service = service
        self.partition = partition
        self.decide = decide
        self.returned: T | Exception | None = None
        """What `decide` returned or raised."""


class PendingCommand(Command[T]):
    """A call with somebody who waits for the answer."""

    def __init__(self, service: Service, partition: int, decide: Callable[[Context], T]) -> None:
        super().__init__(service, partition, decide)
        self.answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def settle(self) -> None:
        """What it decided is durable: answers with what `decide` returned or raised."""
        if self.answer.done():
            return  # who called has gone
        if isinstance(self.returned, Exception):
            self.answer.set_exception(self.returned)
        else:
            self.answer.set_result(self.returned)  # type: ignore[arg-type]

    def refuse(self) -> None:
        """Nobody here can say what became of it."""
        if not self.answer.done():
            self.answer.set_exception(KeyNotOwned("the partition moves"))


class CommandQueue:
    """Calls that wait for the loop, first come first served. No more than `MOST`: a slow broker is told to clients,
    not hidden in a queue that grows."""

    MOST = 10_000

    def __init__(self) -> None:
        self._waiting: deque[PendingCommand[Any]] = deque()
        self._arrived = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, call: PendingCommand[Any]) -> None:
        """Raises `BrokerUnavailable` when too many wait."""
        if len(self._waiting) >= self.MOST:
            raise BrokerUnavailable(f"{len(self._waiting)} requests wait for the broker already")
        self._waiting.append(call)
        self._arrived.set()

    async def arrived(self) -> None:
        """Returns when one waits."""
        await self._arrived.wait()

    def take(self, most: int) -> list[PendingCommand[Any]]:
        """Up to so many, without those whose caller has gone."""
        taken: list[PendingCommand[Any]] = []
        while self._waiting and len(taken) < most:
            call = self._waiting.popleft()
            if not call.answer.done():
                taken.append(call)
        if not self._waiting:
            self._arrived.clear()
        return taken

    def refuse(self) -> None:
        """Refuses all: the partitions go, or are taken over anew."""
        for call in self.take(len(self._waiting)):
            call.refuse()
