"""The steps of a sender: tasks that wait for brokers, which end when the sender is closed."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import ProducerClosed

from runtime.common.deadlines import PRODUCER_STOP_S
from runtime.errors import MemberFenced
from runtime.kafka.connections import Connections

log = logging.getLogger(__name__)


class SenderSteps:
    """The running steps of a sender."""

    def __init__(self, client: AIOKafkaClient, connections: Connections) -> None:
        self._client = client
        self._connections = connections
        self._running: set[asyncio.Future[Any]] = set()

    def run(self, step: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        """Starts a step."""
        task = asyncio.ensure_future(step)
        self._running.add(task)
        return task

    async def finish(self, *tasks: asyncio.Future[Any]) -> None:
        """Waits for steps until one fails, and raises its error; `MemberFenced` comes before other errors."""
        if tasks:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        if any(task.cancelled() for task in tasks):
            raise ProducerClosed("the sender was closed meanwhile")
        errors = [error for task in tasks if task.done() and (error := task.exception()) is not None]
        for error in sorted(errors, key=lambda error: not isinstance(error, MemberFenced)):
            raise error

    async def end(self, *tasks: asyncio.Future[Any]) -> None:
        """Forgets steps, after cancelling those that still run because another one failed."""
        unfinished = [task for task in tasks if not task.done()]
        for task in unfinished:
            task.cancel()
        if unfinished:
            await asyncio.wait(unfinished)
        for task in tasks:
            self._running.discard(task)
            if not task.cancelled():
                task.exception()  # otherwise asyncio logs "exception was never retrieved"

    async def end_all(self) -> None:
        """As `end`, for all steps."""
        await self.end(*self._running)

    async def close(self) -> None:
        """Closes the client within about `PRODUCER_STOP_S`. Steps in progress end with `ProducerClosed`."""
        for task in self._running:
            task.cancel()
        self._connections.abort()
        try:
            async with asyncio.timeout(PRODUCER_STOP_S):
                await self._client.close()
        except Exception as error:
            log.debug("client did not close error=%r", error)
